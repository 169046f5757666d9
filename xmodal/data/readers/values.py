"""Conversion of cell values to captions, ids, labels and fields; the results are valid Unicode.

A cell may hold a list or an object as text: JSON, or what Python and numpy print
(``['a', 'b']``). Captions are understood in every such form, see :func:`clean_captions`.
"""

from __future__ import annotations

import ast
import json
import math
import re
import warnings
from collections.abc import Iterator
from datetime import date, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from xmodal.data.packed.names import PackedName
from xmodal.data.readers.llava import answers, is_conversation

MAX_TEXT = 100_000
"""Maximum number of characters of a text; the rest is cut off."""
MISSING = frozenset({"", "nan", "null", "none", "n/a", "#n/a", "<na>", r"\n"})
"""Texts (lower case) that programs write for a missing value."""
MAX_EXACT = 2**53
"""Integers up to this are exact in every reader of JSON."""
CAPTION_KEYS = ("raw", "text", "caption", "sentence")
"""Keys of an object whose value is its caption."""
PICTURE_KEYS = ("path", "file_name", "filename")
"""Keys of an object whose value is the path of its picture."""
_PYTHON_LIST = re.compile(r"""\[\s*((?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")[\s,]*)+\]""", re.DOTALL)
_PYTHON_TEXT = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\"""", re.DOTALL)


def is_missing(value: Any) -> bool:
    """Whether a value is None, NaN, or a text that stands for a missing value."""
    if isinstance(value, str):
        return len(value) < 20 and value.strip().lower() in MISSING
    return value is None or bool(isinstance(value, float) and value != value)


def clean_captions(value: Any) -> tuple[tuple[str, ...], bool]:
    """Return the captions of a cell, each on one line, and whether all were understood.

    A cell is a text, a number, an object with one of CAPTION_KEYS, or a list of these, which may be
    written as text. Missing values are left out; they are understood. Equal captions stay, because
    files of features have a row for each.
    """
    if type(value) is str and (text := " ".join(value[:MAX_TEXT].split()))[:1] not in ("[", "{"):
        if len(text) < 20 and text.lower() in MISSING:
            return (), True
        return (text if text.isascii() else valid_unicode(text),), True
    found = list(_captions(value))
    texts = (valid_unicode(" ".join(text[:MAX_TEXT].split())) for text in found if text is not None)
    return tuple(text for text in texts if text), None not in found


def _captions(value: Any, nested: bool = False) -> Iterator[str | None]:
    """Yield the captions of a value, None for each part that is not understood."""
    if is_missing(value):
        return
    if isinstance(value, str):
        parsed = None if nested else _parsed(value)
        if parsed is None:
            yield value
        else:
            yield from _captions(parsed, nested=True)
    elif isinstance(value, list | tuple):
        for one in answers(value) if is_conversation(value) else value:
            yield from _captions(one, nested=True)
    elif isinstance(value, dict):
        key = next((key for key in CAPTION_KEYS if key in value), None)
        if key is None:
            yield None
        else:
            yield from _captions(value[key], nested=True)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield str(value)
    else:
        yield None


def _parsed(text: str) -> Any:
    """Return the list or object of captions that a text represents, None for a plain text."""
    text = text.strip()
    if text[:1] not in ("[", "{") or text[-1:] not in ("]", "}"):
        return None
    if (value := parse_list(text)) is None:
        value = _literal(text)
    if isinstance(value, dict) and any(key in value for key in CAPTION_KEYS):
        return value
    if isinstance(value, list) and all(isinstance(x, str | dict) or x is None for x in value):
        return value
    return None


def parse_list(text: str) -> Any:
    """Return the value of JSON text, or the list of texts that Python or numpy printed; else None.

    numpy writes no commas: ``['a' 'b']``.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        if not _PYTHON_LIST.fullmatch(text):
            return None
    texts = [_literal(part) for part in _PYTHON_TEXT.findall(text)]
    return None if None in texts else texts


def _literal(text: str) -> Any:
    """Return the value of a Python literal, None for other text.

    TypeError: a set of lists, or an object with a list as key. The compiler of Python warns of
    unknown escapes such as ``\\d``.
    """
    with warnings.catch_warnings(action="ignore"):
        try:
            return ast.literal_eval(text)
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            return None


def clean_pictures(value: Any) -> tuple[str, ...]:
    """Return the different picture names of a cell: text, object with a path, or list of these."""
    if isinstance(value, PackedName):
        return (value,)
    if isinstance(value, str) and value.lstrip()[:1] == "[":
        parsed = parse_list(value.strip())
        value = parsed if isinstance(parsed, list) else value
    if isinstance(value, dict):
        value = next((value[key] for key in PICTURE_KEYS if value.get(key) is not None), None)
    if isinstance(value, list | tuple):
        return tuple(dict.fromkeys(name for one in value for name in clean_pictures(one)))
    name = clean_scalar(value)
    return () if name is None else (name,)


def clean_scalar(value: Any) -> str | None:
    """Return an id, path or split name without outer spaces; None if it is missing or no text."""
    if type(value) is str:  # the usual case, with less work
        text = value.strip()
        return text if len(text) > 20 or text.lower() not in MISSING else None
    if isinstance(value, bool) or not isinstance(value, str | int | float) or is_missing(value):
        return None
    return str(value).strip() or None


def clean_labels(value: Any) -> tuple[str, ...] | None:
    """Return different labels in order of appearance, or None for an unlabelled item.

    ``value`` is a list, a list as text, text separated by |, or a number.
    """
    if isinstance(value, str):
        text = value.strip()
        parsed = parse_list(text) if text.startswith("[") else None
        value = parsed if isinstance(parsed, list) else text.split("|")
    elif isinstance(value, int | float):
        value = [value]
    if not isinstance(value, list | tuple):
        return None
    names = dict.fromkeys(valid_unicode(str(x).strip()) for x in value if not is_missing(x))
    return tuple(name for name in names if name) or None


def plain_value(value: Any) -> Any:
    """Return a value of a typed table as text, number, list or object; others are unchanged.

    A decimal becomes the number that is written in the same way, or text if there is none; dates
    and times become ISO 8601 texts, durations seconds, UUIDs texts, bytes in UTF-8 texts.
    """
    if isinstance(value, list | tuple):
        return [plain_value(one) for one in value]
    if isinstance(value, dict):
        return {name: plain_value(one) for name, one in value.items()}
    if isinstance(value, Decimal):
        return _decimal(value)
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, bytes):
        return _utf8(value)
    if isinstance(value, UUID):
        return str(value)
    return value.isoformat() if isinstance(value, date | time) else value


def _decimal(value: Decimal) -> int | float | str | None:
    if not value.is_finite():
        return None
    if value == value.to_integral_value() and abs(value) <= MAX_EXACT:
        return int(value)
    return float(value) if Decimal(repr(float(value))) == value else format(value, "f")


def _utf8(value: bytes) -> str | bytes:
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return value
    return text if all(char.isprintable() or char.isspace() for char in text) else value


def unstorable_kind(value: Any) -> str | None:
    """Return what a value is that :func:`clean_field` leaves out, None for other values.

    Missing values are no such values.
    """
    if isinstance(value, list | tuple):
        return next((kind for one in value if (kind := unstorable_kind(one)) is not None), None)
    if isinstance(value, float) and math.isinf(value):
        return "infinite numbers"
    if value is None or isinstance(value, str | int | float):
        return None
    return "objects" if isinstance(value, dict) else type(value).__name__


def clean_field(value: Any) -> Any:
    """Return a value that an index can store, or None.

    Texts, finite numbers, booleans and lists of them are kept.
    """
    if isinstance(value, list | tuple):
        return [clean for clean in map(clean_field, value) if clean is not None] or None
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, str):
        return valid_unicode(value.strip()) or None
    return value if isinstance(value, int | float) else None


def valid_unicode(text: str) -> str:
    """Replace lone surrogates, which JSON escapes and file names may contain, by "?"."""
    return text if text.isascii() else text.encode(errors="replace").decode()
