"""Filters on the fields of documents: ``where={"colour": "red", "price": {"gte": 10}}``.

The language is what every backend can answer exactly. All conditions must hold:

    {"colour": "red"}                     the field has this value
    {"colour": ["red", "blue"]}           ... one of these values
    {"price": {"gte": 10, "lt": 20}}      ... a value in this range (gt, gte, lt, lte)
    {"price": {"exists": True}}           ... any value (False: none)

A field with a list of values matches if one of them does. Values are compared by what they say:
``2011`` equals ``"2011"`` and ``10`` equals ``10.0``. A range with numbers looks at numbers and at
text that reads as a number (as doubles); a range with text compares what values say, by code point
(so ISO dates work).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from xmodal.errors import ConfigError

Scalar = str | int | float | bool
BOUNDS = ("gt", "gte", "lt", "lte")
# The suffixes are there because servers written in Java read them so: every backend must agree.
NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?[fd]?\s*", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True)
class Term:
    """The field has one of ``values``."""

    field: str
    values: tuple[Scalar, ...]

    def accepts(self, value: Any) -> bool:
        """Whether one value of a document fits."""
        return canonical(value) in {canonical(wanted) for wanted in self.values}


@dataclass(frozen=True)
class Range:
    """The field has a value within the bounds, of which at least one is given."""

    field: str
    bounds: tuple[tuple[str, Scalar], ...]

    def accepts(self, value: Any) -> bool:
        """Whether one value of a document lies within all bounds."""
        return all(_within(value, name, bound) for name, bound in self.bounds)


@dataclass(frozen=True)
class Exists:
    """The field has a value, or (``present`` false) has none."""

    field: str
    present: bool

    def accepts(self, value: Any) -> bool:
        """Every value shows that the field is there."""
        return True


Condition = Term | Range | Exists


def parse(where: Mapping[str, Any] | None) -> tuple[Condition, ...]:
    """The conditions of a ``where`` mapping. Raises ConfigError for anything else."""
    if where is None:
        return ()
    if not isinstance(where, Mapping):
        raise ConfigError(f"where is {where!r}, expected a mapping such as {{'colour': 'red'}}")
    return tuple(_condition(field, wanted) for field, wanted in where.items())


def parse_text(texts: Iterable[str]) -> dict[str, Any]:
    """A ``where`` mapping from what a person types: colour=red, price>=10, price<20, sale=*.

    The same field with ``=`` twice means one of the two values. Raises ConfigError.
    """
    where: dict[str, Any] = {}
    names = {">": "gt", ">=": "gte", "<": "lt", "<=": "lte"}
    for text in texts:
        match = re.fullmatch(r"\s*([^<>=\s][^<>=]*?)\s*(>=|<=|>|<|=)\s*(.*?)\s*", text)
        if not match or not match[3]:
            raise ConfigError(
                f"filter {text!r} not understood, expected field=value, field>=10, field<20 "
                "or field=* (the field has any value)"
            )
        field, sign, value = match.groups()
        old = where.get(field)
        if sign != "=":
            new: Any = {
                **(old if isinstance(old, dict) else {}),
                names[sign]: _number_or_text(value),
            }
            fits = old is None or (isinstance(old, dict) and not {"exists", names[sign]} & set(old))
        elif value == "*":
            new, fits = {"exists": True}, old is None
        else:
            new, fits = [*(old or []), value], old is None or isinstance(old, list)
        if not fits:
            raise ConfigError(f"filter {text!r} cannot be combined with another one on {field!r}")
        where[field] = new
    return where


def values_of(value: Any) -> Sequence[Any]:
    """The values of a field: a list counts as several, None and NaN as none."""
    if isinstance(value, list | tuple):
        return [one for one in value if not _is_missing(one)]
    return [] if _is_missing(value) else [value]


def canonical(value: Any) -> str:
    """How values are compared: 10, 10.0 and "10" are one value, and so are True and "true"."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _condition(field: str, wanted: Any) -> Condition:
    if not isinstance(field, str) or not field:
        raise ConfigError(f"where names the field {field!r}, expected a name")
    if isinstance(wanted, Mapping):
        if set(wanted) == {"exists"} and isinstance(wanted["exists"], bool):
            return Exists(field, wanted["exists"])
        unknown = sorted(set(map(str, wanted)) - set(BOUNDS))
        if unknown or not wanted:
            raise ConfigError(
                f"where[{field!r}] has {unknown or 'nothing'}, expected some of "
                f"{', '.join(BOUNDS)}, or exists alone with True or False"
            )
        kinds = {type(bound) is str for bound in wanted.values()}
        for bound in wanted.values():
            _check_scalar(field, bound)
            if isinstance(bound, bool) or len(kinds) > 1:
                raise ConfigError(
                    f"where[{field!r}] is a range of {list(wanted.values())}, expected either "
                    "numbers or texts"
                )
        return Range(field, tuple(sorted(wanted.items())))
    values = tuple(wanted) if isinstance(wanted, list | tuple | set | frozenset) else (wanted,)
    if not values:
        raise ConfigError(f"where[{field!r}] is an empty list, expected at least one value")
    for value in values:
        _check_scalar(field, value)
    return Term(field, values)


def _check_scalar(field: str, value: Any) -> None:
    if not isinstance(value, str | int | float | bool) or _is_missing(value):
        raise ConfigError(
            f"where[{field!r}] compares with {value!r}, expected text, a number or true/false; "
            "use {'exists': False} for a missing value"
        )


def _within(value: Any, name: str, bound: Scalar) -> bool:
    compare: dict[str, Callable[[Any, Any], bool]] = {
        "gt": lambda a, b: a > b,
        "gte": lambda a, b: a >= b,
        "lt": lambda a, b: a < b,
        "lte": lambda a, b: a <= b,
    }
    if isinstance(bound, str):
        return compare[name](canonical(value), bound)
    number = read_number(value)
    return number is not None and compare[name](number, bound)


def read_number(value: Any) -> float | None:
    """The finite double that a number or a text says, if it says one; true and false say none."""
    if isinstance(value, bool) or (isinstance(value, str) and not NUMBER.fullmatch(value)):
        return None
    try:
        number = float(value.strip(" \t\n\r\f\vfFdD") if isinstance(value, str) else value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _number_or_text(text: str) -> Scalar:
    for kind in (int, float):
        try:
            number = kind(text)
        except ValueError:
            continue
        return number if isinstance(number, int) or math.isfinite(number) else text
    return text


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))
