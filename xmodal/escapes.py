"""Control characters of texts that are shown: a terminal would execute them."""

from __future__ import annotations

import re

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
"""Control characters: C0, DEL and C1; line separators and changes of the writing direction."""


def escape_controls(text: str, keep: str = "") -> str:
    """Return ``text`` with control characters as escapes (ESC as ``\\x1b``), except ``keep``.

    Terminals execute control characters: they move the cursor or change colours and direction.
    """

    def escape(match: re.Match[str]) -> str:
        char = match[0]
        return char if char in keep else char.encode("unicode_escape").decode()

    return CONTROL.sub(escape, text)
