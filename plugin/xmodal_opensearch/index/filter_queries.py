"""Queries of the conditions ``where``, by the types of the fields in the mapping.

All functions are pure and return plain dictionaries.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from xmodal.errors import ConfigError
from xmodal.index.filters import (
    AFTER,
    DATE,
    All,
    Condition,
    Exists,
    Not,
    Prefix,
    Range,
    Scalar,
    Term,
    canonical,
    is_period,
    read_number,
    unknown_field,
)
from xmodal_opensearch.index import mapping
from xmodal_opensearch.index.queries import Query, any_of

_INT, _LONG, _MAX_DOUBLE = 2**31, 2**63, sys.float_info.max
NUMBERS = {
    **dict.fromkeys(("byte", "short", "integer"), (-_INT, _INT - 1)),
    "long": (-_LONG, _LONG - 1),
    "unsigned_long": (0, 2 * _LONG - 1),
    "half_float": (-65504.0, 65504.0),
    "float": (-3.4028234e38, 3.4028234e38),
    **dict.fromkeys(("double", "scaled_float"), (-_MAX_DOUBLE, _MAX_DOUBLE)),
}
"""Smallest and largest value that the server accepts in a query, by numeric type."""


def filters(
    conditions: Sequence[Condition], types: Mapping[str, str], *, expensive: bool = True
) -> list[Query]:
    """Return one query per condition, by the type of its field.

    ``expensive``: whether the server allows queries by patterns; without them a year is compared
    with numbers only, not with dates. Raises ConfigError for a field that the mapping lacks, unless
    it has no field of the user, and for a condition that the field's type cannot answer.
    """
    return [_filter(condition, types, expensive) for condition in conditions]


def is_nested(field: str, types: Mapping[str, str]) -> bool:
    """Return whether a field is, or is inside, a nested field."""
    parents = [field[:position] for position, char in enumerate(field) if char == "."]
    return any(types.get(path) == "nested" for path in [field, *parents])


def _filter(condition: Condition, types: Mapping[str, str], expensive: bool) -> Query:
    """Return the query of the documents that fulfil one condition."""
    if isinstance(condition, Not):
        return {"bool": {"must_not": [_filter(condition.condition, types, expensive)]}}
    if isinstance(condition, All):
        parts = [_filter(one, types, expensive) for one in condition.conditions]
        return {"bool": {"filter": parts}}
    field = condition.field
    if is_nested(field, types):
        raise ConfigError(f"field {field!r} is in nested documents, which filters do not support")
    paths = [path for path in (field, f"{field}.words") if path in types]
    if not paths:
        if known := user_fields(types):
            raise unknown_field(field, known)
        return {"match_none": {}}
    if isinstance(condition, Exists):
        return any_of([{"exists": {"field": path}} for path in paths])
    kind = types.get(field)
    if kind in NUMBERS:
        return _numeric(condition, *NUMBERS[kind])
    if kind == "boolean":
        values = [value for value in ("false", "true") if condition.accepts(value)]
        return {"terms": {field: values}}
    if kind in ("date", "date_nanos"):
        return _date(condition)
    if kind == "text":
        field, kind = f"{field}.keyword", types.get(f"{field}.keyword")
        if kind is None:
            raise ConfigError(
                f"field {condition.field!r} is analysed text without a keyword sub-field: filter "
                "by another field, or search its words by BM25"
            )
    number = f"{field}.number" if f"{field}.number" in types else None
    return _keyword(condition, field, number, dates=expensive and kind in ("keyword", "wildcard"))


def _keyword(
    condition: Term | Prefix | Range, field: str, number: str | None, *, dates: bool
) -> Query:
    """Return the query on a keyword field; ``number``: its numeric sub-field.

    ``dates``: also compare with dates, by a query on the pattern of dates.
    """
    if isinstance(condition, Prefix):
        text = {"value": condition.text, **_case(condition.any_case)}
        return {"prefix": {field: text}}
    if isinstance(condition, Term):
        queries: list[Query] = []
        if not condition.any_case:
            queries.append({"terms": {field: sorted(condition.texts)}})
        folded = condition.texts if condition.any_case else condition.booleans
        queries += [{"term": {field: {"value": text, **_case(True)}}} for text in sorted(folded)]
        if number and condition.numbers:
            queries.append({"terms": {number: sorted(condition.numbers)}})
        if dates:
            queries += [_dates(field, beginning=text) for text in condition.dates]
        return any_of(queries)
    if "text" in condition.kinds:
        return {"range": {field: _tightest(condition.texts)}}
    queries = []
    if number and "number" in condition.kinds:
        queries.append({"range": {number: _tightest(condition.numbers)}})
    if "date" in condition.kinds and (dates or not queries):
        within = {"range": {field: condition.dates}}
        queries.append({"bool": {"filter": [within, _dates(field)]}})
    if not queries:
        raise ConfigError(
            f"field {condition.field!r} is mapped as keyword, which has no ranges of numbers: "
            "compare with text, or map it as a number"
        )
    return any_of(queries)


def _case(any_case: bool) -> dict[str, bool]:
    """Return the option of a query that compares A to Z like a to z."""
    return {"case_insensitive": True} if any_case else {}


def _dates(field: str, beginning: str = "") -> Query:
    """Return the query of values that are dates as text and have this beginning."""
    if not beginning:
        return {"regexp": {field: {"value": DATE, "flags": "NONE"}}}
    pattern = f"({DATE})&({re.escape(beginning)}.*)"
    return {"regexp": {field: {"value": pattern, "flags": "INTERSECTION"}}}


def user_fields(types: Mapping[str, str]) -> list[str]:
    """Return the user's fields of a mapping, without their sub-fields."""
    return [
        path
        for path in types
        if not mapping.is_reserved(path)
        and not any(path[:at] in types for at, char in enumerate(path) if char == ".")
    ]


def _date(condition: Term | Prefix | Range) -> Query:
    """Return the query on a field that is mapped as a date."""
    if isinstance(condition, Range):
        ranges: list[dict[str, Any]] = []
        for name, bound in _tightest_dates(condition):
            new = _date_bound(condition.field, name, bound)
            for old in ranges:  # one value of a document must be within all bounds
                if old["format"] == new["format"] and set(old) & set(new) == {"format"}:
                    old |= new
                    break
            else:
                ranges.append(new)
        parts: list[Query] = [{"range": {condition.field: one}} for one in ranges]
        return parts[0] if len(parts) == 1 else {"bool": {"filter": parts}}
    values = condition.values if isinstance(condition, Term) else (condition.text,)
    return any_of(
        [
            {
                "range": {
                    condition.field: _date_bound(condition.field, "gte", value)
                    | _date_bound(condition.field, "lte", value)
                }
            }
            for value in values
        ]
    )


def _tightest_dates(condition: Range) -> list[tuple[str, Scalar]]:
    """Return the tightest lower and the tightest upper bound: the server takes one of each."""

    def position(name: str, bound: Scalar) -> str:
        return canonical(bound) + (AFTER if name in ("gt", "lte") else "")

    lower = [one for one in condition.bounds if one[0] in ("gt", "gte")]
    upper = [one for one in condition.bounds if one[0] in ("lt", "lte")]
    chosen = [max(lower, key=lambda one: position(*one))] if lower else []
    return chosen + ([min(upper, key=lambda one: position(*one))] if upper else [])


def _date_bound(field: str, name: str, bound: Scalar) -> dict[str, Any]:
    """Return a bound of a date field: "gt" and "lte" refer to the end of a period."""
    text = canonical(bound)
    if is_period(text):
        end = _to_end(text) if name in ("gt", "lte") else ""
        name = {"gt": "gte", "lte": "lt"}.get(name, name)
        return {name: text.replace(" ", "T") + end, "format": "strict_date_optional_time"}
    if (number := _to_number(bound)) is not None:
        return {name: number, "format": "epoch_millis"}
    raise ConfigError(
        f"field {field!r} holds dates and is compared with {text!r}, expected a date such as "
        "2024-05-01"
    )


def _to_end(period: str) -> str:
    """Return the date math from the start of a period to its end."""
    time = re.sub("(Z|[+-][0-9]{2}:?[0-9]{2})$", "", period[11:])
    if not time:
        return {4: "||+1y", 7: "||+1M"}.get(len(period), "||+1d")
    return {2: "||+1h", 5: "||+1m", 8: "||+1s"}.get(len(time), "||+1ms")


def _numeric(condition: Term | Prefix | Range, smallest: float, largest: float) -> Query:
    """Return the query on a numeric field whose type has values from smallest to largest."""
    field = condition.field
    if isinstance(condition, Prefix):
        raise ConfigError(f"field {field!r} holds numbers, which have no prefix: use >= and <")
    if isinstance(condition, Term):
        numbers = [_to_number(value) for value in condition.values]
        in_range = [n for n in numbers if n is not None and smallest <= n <= largest]
        return {"terms": {field: in_range}}
    bounds: dict[str, int | float] = {}
    for name, bound in condition.bounds:
        number = _to_number(bound)
        if number is None:
            raise ConfigError(
                f"field {field!r} holds numbers and is compared with {dict(condition.bounds)}, "
                "expected numbers"
            )
        if (number > largest) if name in ("gt", "gte") else (number < smallest):
            return {"match_none": {}}
        if smallest <= number <= largest:
            bounds[name] = number
    if not bounds:  # all values of the type are within the bounds
        return {"exists": {"field": field}}
    return {"range": {field: _tightest(bounds)}}


def _to_number(value: Any) -> int | float | None:
    """Return a value as a number, integers exactly, or None if it is none."""
    text = canonical(value)
    return int(text) if re.fullmatch(r"[+-]?[0-9]{1,20}", text) else read_number(value)


def _tightest(bounds: Mapping[str, Any]) -> dict[str, Any]:
    """Return the range with one lower and one upper bound: the server refuses gt with gte."""
    tightest = dict(bounds)
    for strict, inclusive, tighter in (("gt", "gte", max), ("lt", "lte", min)):
        if strict in bounds and inclusive in bounds:
            strict_wins = tighter(bounds[strict], bounds[inclusive]) == bounds[strict]
            del tightest[inclusive if strict_wins else strict]
    return tightest
