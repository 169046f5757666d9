"""Filters as text: ``colour=red``, ``price>=10``, ``colour!=dark*`` -> the mapping ``where``.

    colour=red          equal, also ==
    colour!=red         not equal, also <>
    colour~=RED         equal in any case, letters A to Z
    price<20            in a range: <, <=, >, >=
    colour=red|blue     one of several values
    colour=dark*        begins with dark
    colour=*            has any value; colour!=* has none

A field or a value in double quotes is literal: ``"a=b"="10*"``. See :mod:`xmodal.index.filters` for
the comparison of values.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from xmodal.errors import ConfigError

_QUOTED = r'"(?:[^"\\]|\\["\\])*"'
_FILTER = re.compile(
    rf'\s*(?P<field>{_QUOTED}|[^<>="\s!~][^<>="]*?)\s*(?P<operator>!=|~=|<>|<=|>=|==|=|<|>)'
    r"\s*(?P<value>.*?)\s*",
    re.DOTALL,
)
_PART = re.compile(rf"\s*({_QUOTED}|[^|]*?)\s*(?:\||$)", re.DOTALL)
_BOUNDS = {">": "gt", ">=": "gte", "<": "lt", "<=": "lte"}


def parse_filters(texts: Iterable[str]) -> dict[str, Any]:
    """Return the ``where`` mapping of filters, all of which must hold. Raises ConfigError."""
    conditions: dict[str, list[Any]] = {}
    for text in texts:
        field, condition = _parse_filter(text)
        _append(conditions.setdefault(field, []), condition)
    return {
        field: found[0] if len(found) == 1 else {"all": found}
        for field, found in conditions.items()
    }


def _parse_filter(text: str) -> tuple[str, Any]:
    """Return the field and the condition of one filter."""
    match = _FILTER.fullmatch(text)
    # A value that begins with an operator is a mistyped operator: "a=>3", "a=<3", "a===3".
    if not match or not match["value"] or match["value"][0] in "<>=":
        raise ConfigError(
            f"filter {text!r} not understood, expected field=value, field!=value, field>=10, "
            "field=red|blue, field=begin* or field=* (any value); quote other signs: "
            '"a=b"="<3"'
        )
    field, operator, value = match["field"], match["operator"], match["value"]
    if operator in _BOUNDS:
        return _unquote(field), {_BOUNDS[operator]: _unquote(value)}
    condition = _alternatives(text, value, any_case=operator == "~=")
    return _unquote(field), {"not": condition} if operator in ("!=", "<>") else condition


def _alternatives(filter_text: str, value: str, *, any_case: bool) -> Any:
    """Return the condition of a value: a value, several, a prefix, or ``*``."""
    if value == "*":
        return {"exists": True}
    parts = [match[1] for match in _PART.finditer(value) if match.start() < len(value)]
    if "" in parts or value.endswith("|"):
        raise ConfigError(f"filter {filter_text!r} has an empty value, expected red|blue")
    prefixes = [part for part in parts if part.endswith("*") and not part.startswith('"')]
    if prefixes and len(parts) > 1:
        raise ConfigError(
            f"filter {filter_text!r} has a list with {prefixes[0]}, expected either a list or "
            'one prefix; quote a value that contains *: "a*"'
        )
    condition: Any = {"prefix": value[:-1]} if prefixes else [_unquote(part) for part in parts]
    return {"any_case": condition} if any_case else condition


def _append(conditions: list[Any], condition: Any) -> None:
    """Append a condition; join it with a range that lacks its bound."""
    if isinstance(condition, dict) and set(condition) <= set(_BOUNDS.values()):
        for other in conditions:
            if isinstance(other, dict) and set(other) <= set(_BOUNDS.values()) - set(condition):
                other |= condition
                return
    conditions.append(condition)


def _unquote(text: str) -> str:
    """Return a text without its double quotes and their escapes."""
    if len(text) > 1 and text[0] == text[-1] == '"':
        return re.sub(r'\\(["\\])', r"\1", text[1:-1])
    return text
