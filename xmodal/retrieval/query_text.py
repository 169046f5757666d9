"""Query text as typed: words to find, and words after a minus sign to exclude."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from xmodal.errors import ConfigError
from xmodal.retrieval.query import WEIGHTS

_EXCLUDED = re.compile(r"""(?<!\S)-(?:"([^"]*\w[^"]*)"|(?=\w)(\S+))""")
"""A minus sign before a word or a quoted phrase, at the beginning or after a space."""
WORDS = "words"
"""Part of a weight that is no part of the query: the ranking by words."""


class QueryText(NamedTuple):
    """``text`` to find, None if nothing is left of it, and ``not_text`` to exclude."""

    text: str | None
    not_text: tuple[str, ...]


def split_query_text(text: str) -> QueryText:
    """Return the parts of a typed text: ``red shoes -leather -"dark blue"``.

    A minus sign inside a word (``t-shirt``) or alone excludes nothing.
    """
    excluded = tuple(" ".join((m[1] or m[2]).split()) for m in _EXCLUDED.finditer(text))
    rest = " ".join(_EXCLUDED.sub(" ", text).split()) if excluded else text.strip()
    return QueryText(rest or None, excluded)


def parse_weights(texts: Sequence[str]) -> tuple[dict[str, float], float]:
    """Return the weights of ``text=2``, ``not=0.3``, ``words=0.5``: of parts, and of the words.

    Raises ConfigError.
    """
    weights: dict[str, float] = {}
    names = (*WEIGHTS, WORDS)
    for text in texts:
        name, _, value = text.partition("=")
        try:
            weights[name] = float(value)
        except ValueError:
            weights[name] = -1.0
        if name not in names or not 0 <= weights[name] < float("inf"):
            raise ConfigError(
                f"weight {text!r} not understood, expected PART=NUMBER, a number of at least 0 and "
                f"one of {', '.join(names)}"
            )
    return {name: weights[name] for name in WEIGHTS if name in weights}, weights.get(WORDS, 1.0)


def describe(parts: Sequence[str | None], not_text: Sequence[str]) -> str:
    """Return a query as one line: its text, picture and document, and what it excludes."""
    found = " + ".join(part for part in parts if part is not None)
    return " ".join([found, *(f'-"{text}"' if " " in text else f"-{text}" for text in not_text)])
