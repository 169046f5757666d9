"""Filters of other libraries as the mapping ``where`` (see :mod:`xmodal.index.filters`).

A filter is a list of pairs of a field and its condition, all of which must hold. The language of
``where`` has no OR between fields, so that not every filter has such a list: the others raise
ConfigError.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from xmodal.errors import ConfigError
from xmodal.index.filters import BOUNDS

Pair = tuple[str, Any]
Pairs = list[Pair]


def compare(field: str, operator: str, value: Any, *, written: str) -> Pairs:
    """Return the comparison of a field with a value.

    ``operator``: eq, ne, in, nin, gt, gte, lt, lte, or "all" for a field that has every value of a
    list. ``written``: the operator as the caller wrote it, for messages. None as a value of eq and
    ne means that the field has no value. Raises ConfigError for values that do not fit.
    """
    many = isinstance(value, list | tuple | set | frozenset)
    if many != (operator in ("in", "nin", "all")):
        expected = "one value" if many else "a list of values"
        raise ConfigError(f"filter {field} {written} {value!r:.100}: expected {expected}")
    if many:
        values = [_plain(one) for one in value]
        condition = {"in": values, "nin": {"not": values}, "all": {"all": values}}[operator]
        return [(field, condition)]
    if value is None and operator in ("eq", "ne"):
        return [(field, {"exists": operator == "ne"})]
    plain = _plain(value)
    if operator in BOUNDS:
        return [(field, {operator: plain})]
    return [(field, plain if operator == "eq" else {"not": plain})]


def any_of(parts: Sequence[Pairs], *, written: str) -> Pairs:
    """Return the filter that one of ``parts`` holds; raise ConfigError if ``where`` has none.

    It has one for values of a single field. ``written``: the operator, for messages.
    """
    if len(parts) == 1:
        return parts[0]
    fields = {field for part in parts for field, _ in part}
    conditions = [condition for part in parts for _, condition in part]
    if len(fields) != 1 or len(conditions) != len(parts) or any(map(_is_mapping, conditions)):
        raise _no_counterpart(written, "of values of one field; search once for each alternative")
    lists = [one if isinstance(one, list) else [one] for one in conditions]
    return [(fields.pop(), [value for values in lists for value in values])]


def not_all(pairs: Pairs, *, written: str) -> Pairs:
    """Return the filter that ``pairs`` do not all hold; raise ConfigError if ``where`` has none.

    It has one for a single condition.
    """
    if len(pairs) != 1:
        raise _no_counterpart(written, "of a single condition")
    ((field, condition),) = pairs
    if _is_mapping(condition):
        if "all" in condition:
            raise _no_counterpart(written, "of a condition other than a list of required values")
        if set(condition) == {"not"}:
            return [(field, condition["not"])]
    return [(field, {"not": condition})]


def to_where(*filters: Mapping[str, Any] | Pairs | None) -> dict[str, Any] | None:
    """Return the mapping that all ``filters`` hold; None without a condition.

    A filter is a list of pairs, or a ``where`` mapping.
    """
    found: dict[str, list[Any]] = {}
    for one in filters:
        pairs = one.items() if isinstance(one, Mapping) else one or ()
        for field, condition in pairs:
            found.setdefault(field, []).extend(_required(condition))
    return {
        field: parts[0] if len(parts) == 1 else {"all": parts} for field, parts in found.items()
    } or None


def unsupported(operator: object, known: Sequence[str]) -> ConfigError:
    """Return the error for an operator without counterpart; ``known``: those that have one."""
    return ConfigError(f"filter operator {operator!s:.100}: expected one of {', '.join(known)}")


def _required(condition: Any) -> list[Any]:
    """Return the conditions that a condition of ``where`` joins: "all" cannot be nested."""
    if not _is_mapping(condition) or "all" not in condition:
        return [condition]
    others = {key: value for key, value in condition.items() if key != "all"}
    return [*condition["all"], *([others] if others else [])]


def _plain(value: Any) -> Any:
    """Return a date as text; other values unchanged."""
    return value.isoformat() if isinstance(value, date) else value


def _is_mapping(condition: Any) -> bool:
    return isinstance(condition, Mapping)


def _no_counterpart(written: str, expected: str) -> ConfigError:
    return ConfigError(f"filter {written}: expected {written} {expected}")
