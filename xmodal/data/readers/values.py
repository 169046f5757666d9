"""Conversion of cell values to texts, ids, labels and fields; the results are valid Unicode."""

from __future__ import annotations

import json
import math
from typing import Any

MAX_TEXT = 100_000
"""Maximum number of characters of a text; the rest is cut off."""


def clean_text(value: Any) -> str | None:
    """Return a caption on one line, or None if it is empty or neither text nor number.

    The captions of a list are joined with ". ".
    """
    if isinstance(value, list | tuple):
        value = ". ".join(str(caption) for caption in value if caption)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    return valid_unicode(" ".join(str(value)[:MAX_TEXT].split())) or None


def clean_scalar(value: Any) -> str | None:
    """Return an id, path or split name without outer spaces; None for other types or no text."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    return str(value).strip() or None


def clean_labels(value: Any) -> tuple[str, ...] | None:
    """Return different labels in order of appearance, or None for an unlabelled item.

    ``value`` is a list, a JSON list as text, text separated by |, or a number.
    """
    if isinstance(value, str):
        text = value.strip()
        if text.startswith("["):
            try:
                value = json.loads(text)
            except (ValueError, RecursionError):
                value = text
        if isinstance(value, str):
            value = text.split("|")
    elif isinstance(value, int | float):
        value = [value]
    if not isinstance(value, list | tuple):
        return None
    # NaN, the missing value of some tables, is the value that does not equal itself.
    names = dict.fromkeys(valid_unicode(str(x).strip()) for x in value if x is not None and x == x)
    return tuple(name for name in names if name) or None


def clean_field(value: Any) -> Any:
    """Return a value that an index can store, or None.

    Texts, finite numbers, booleans and lists of them are kept; dates become ISO texts.
    """
    if isinstance(value, list | tuple):
        return [clean for clean in map(clean_field, value) if clean is not None] or None
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, str):
        return valid_unicode(value.strip()) or None
    if value is None or isinstance(value, int | float):
        return value
    return str(value) if hasattr(value, "isoformat") else None


def valid_unicode(text: str) -> str:
    """Replace lone surrogates, which JSON escapes and file names may contain, by "?"."""
    return text.encode(errors="replace").decode()
