"""Filters on the fields of documents: ``where={"colour": "red", "price": {"gte": 10}}``.

Every backend evaluates this language exactly. All conditions must hold:

    {"colour": "red"}                     the field has this value
    {"colour": ["red", "blue"]}           ... one of these values
    {"price": {"gte": 10, "lt": 20}}      ... a value in this range (gt, gte, lt, lte)
    {"price": {"exists": True}}           ... any value (False: none)

A field with a list of values matches if one of them matches. Values are compared as text (see
:func:`canonical`): ``2011`` equals ``"2011"`` and ``10`` equals ``10.0``. A range of numbers
compares numbers, and text that is a number, as doubles. A range of text compares text by code
point, which orders ISO dates.
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
# A suffix f or d is accepted because Java's parser of doubles, used by OpenSearch, accepts it.
NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?[fd]?\s*", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True)
class Term:
    """The field has one of ``values``."""

    field: str
    values: tuple[Scalar, ...]

    def accepts(self, value: Any) -> bool:
        """Return whether one value of a document matches."""
        return canonical(value) in set(map(canonical, self.values))


@dataclass(frozen=True)
class Range:
    """The field has a value within ``bounds``: pairs of an operator and a number or text."""

    field: str
    bounds: tuple[tuple[str, Scalar], ...]

    def accepts(self, value: Any) -> bool:
        """Return whether one value of a document lies within all bounds."""
        return all(_within(value, name, bound) for name, bound in self.bounds)


@dataclass(frozen=True)
class Exists:
    """The field has a value, or has none if ``present`` is False."""

    field: str
    present: bool

    def accepts(self, value: Any) -> bool:
        """Return True: any value shows that the field exists."""
        return True


Condition = Term | Range | Exists


def parse(where: Mapping[str, Any] | None) -> tuple[Condition, ...]:
    """Return the conditions of a ``where`` mapping; raise ConfigError for an invalid one."""
    if where is None:
        return ()
    if not isinstance(where, Mapping):
        raise ConfigError(f"where is {where!r}, expected a mapping such as {{'colour': 'red'}}")
    return tuple(_condition(field, value) for field, value in where.items())


def parse_text(texts: Iterable[str]) -> dict[str, Any]:
    """Return the ``where`` mapping of typed filters: colour=red, price>=10, price<20, sale=*.

    The same field twice with ``=`` means one of both values. Raises ConfigError.
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
        field, operator, value = match.groups()
        old = where.get(field)
        if operator != "=":
            name = names[operator]
            new: Any = {**(old if isinstance(old, dict) else {}), name: _number_or_text(value)}
            fits = old is None or (isinstance(old, dict) and not {"exists", name} & set(old))
        elif value == "*":
            new, fits = {"exists": True}, old is None
        else:
            new, fits = [*(old or []), value], old is None or isinstance(old, list)
        if not fits:
            raise ConfigError(f"filter {text!r} cannot be combined with another one on {field!r}")
        where[field] = new
    return where


def values_of(value: Any) -> Sequence[Any]:
    """Return the values of a field as a list without None and NaN."""
    if isinstance(value, list | tuple):
        return [item for item in value if not _is_missing(item)]
    return [] if _is_missing(value) else [value]


def canonical(value: Any) -> str:
    """Return the text by which a value is compared: "10" for 10 and 10.0, "true" for True."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _condition(field: str, expected: Any) -> Condition:
    if not isinstance(field, str) or not field:
        raise ConfigError(f"where names the field {field!r}, expected a name")
    if isinstance(expected, Mapping):
        return _range_or_exists(field, expected)
    many = isinstance(expected, list | tuple | set | frozenset)
    values = tuple(expected) if many else (expected,)
    if not values:
        raise ConfigError(f"where[{field!r}] is an empty list, expected at least one value")
    for value in values:
        _check_scalar(field, value)
    return Term(field, values)


def _range_or_exists(field: str, expected: Mapping[str, Any]) -> Range | Exists:
    if set(expected) == {"exists"} and isinstance(expected["exists"], bool):
        return Exists(field, expected["exists"])
    unknown = sorted(set(map(str, expected)) - set(BOUNDS))
    if unknown or not expected:
        raise ConfigError(
            f"where[{field!r}] has {unknown or 'nothing'}, expected some of "
            f"{', '.join(BOUNDS)}, or exists alone with True or False"
        )
    bounds = list(expected.values())
    for bound in bounds:
        _check_scalar(field, bound)
    if (
        any(isinstance(bound, bool) for bound in bounds)
        or len({type(b) is str for b in bounds}) > 1
    ):
        raise ConfigError(
            f"where[{field!r}] is a range of {bounds}, expected either numbers or texts"
        )
    return Range(field, tuple(sorted(expected.items())))


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
    """Return a number, or text that is a number, as a finite double; None for other values."""
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
