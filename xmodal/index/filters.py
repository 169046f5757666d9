"""Filters on the fields of documents: ``where={"colour": "red", "price": {"gte": 10}}``.

Every backend evaluates this language exactly. All conditions must hold:

    {"colour": "red"}                     the field has this value
    {"colour": ["red", "blue"]}           ... one of these values
    {"colour": {"prefix": "dark"}}        ... a value that begins with this text
    {"colour": {"any_case": "RED"}}       ... one of these values or a prefix; A to Z equal a to z
    {"price": {"gte": 10, "lt": 20}}      ... a value in this range (gt, gte, lt, lte)
    {"price": {"exists": True}}           ... any value (False: none)
    {"colour": {"not": "red"}}            the condition under "not" does not hold
    {"tags": {"all": ["new", "sale"]}}    every condition of the list holds

Several keys of one field must all hold. A field with a list of values matches if one of them
matches; a document without the field fulfils only "not" and ``{"exists": False}``.

Values are compared by kind:

- Numbers, and texts that are numbers, by value: ``"1.50"`` equals ``1.5``.
- True and false in any case: ``True`` equals ``"TRUE"``. They are no numbers.
- Dates (ISO 8601: ``2024-05``, ``2024-05-01``, ``2024-05-01T10:30``) as periods: ``2024-05`` equals
  every date in that month, and ``{"lte": "2024"}`` includes the whole year. A year is also a
  number. Times are compared as written; time zones are not converted.
- Other values as text, by code point.

A bound of a range is compared with the values of its own kind.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from xmodal.errors import ConfigError

Scalar = str | int | float | bool
Kind = Literal["number", "date", "text"]
BOUNDS = ("gt", "gte", "lt", "lte")
KEYS = (*BOUNDS, "exists", "prefix", "any_case", "not", "all")
# A suffix f or d is accepted because Java's parser of doubles, used by OpenSearch, accepts it.
NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?[fd]?\s*", re.ASCII | re.IGNORECASE)
MAX_EXACT = 2**53
"""Numbers below this are compared as doubles, larger ones as text: doubles do not hold them all."""
DATE = (
    "[12][0-9]{3}-(0[1-9]|1[0-2])(-(0[1-9]|[12][0-9]|3[01])([T ][0-9]{2}(:[0-9]{2}(:[0-9]{2}"
    r"([.,][0-9]+)?)?)?(Z|(\+|-)[0-9]{2}:?[0-9]{2})?)?)?"
)
"""Regular expression of a date with a month at least, valid in Python and in Lucene."""
AFTER = "~"
"""Sorts after every character that can follow the beginning of a date."""
_DATE, _YEAR = re.compile(DATE, re.ASCII), re.compile("[12][0-9]{3}", re.ASCII)
_LOWER = {ord(letter): letter.lower() for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"}


@dataclass(frozen=True)
class Term:
    """The field has one of ``values``; with ``any_case``, letters A to Z equal a to z."""

    field: str
    values: tuple[Scalar, ...]
    any_case: bool = False

    @cached_property
    def texts(self) -> frozenset[str]:
        """Texts of the values; in lower case with ``any_case``."""
        texts = map(canonical, self.values)
        return frozenset(map(lower, texts) if self.any_case else texts)

    @cached_property
    def numbers(self) -> frozenset[float]:
        """Values that are numbers."""
        numbers = map(read_number, self.values)
        return frozenset(n for n in numbers if n is not None and abs(n) < MAX_EXACT)

    @cached_property
    def booleans(self) -> frozenset[str]:
        """Values that are true or false, in lower case."""
        return frozenset(lower(canonical(value)) for value in self.values) & {"true", "false"}

    @cached_property
    def dates(self) -> tuple[str, ...]:
        """Values that are dates or years, as text."""
        return tuple(sorted(filter(is_period, map(canonical, self.values))))

    def accepts(self, value: Any) -> bool:
        """Return whether one value of a document matches."""
        text = canonical(value)
        if (lower(text) if self.any_case else text) in self.texts or lower(text) in self.booleans:
            return True
        if self.numbers and read_number(value) in self.numbers:
            return True
        return bool(self.dates) and text.startswith(self.dates) and is_date(value)


@dataclass(frozen=True)
class Prefix:
    """The field has a value that begins with ``text``; with ``any_case``, A to Z equal a to z."""

    field: str
    text: str
    any_case: bool = False

    def accepts(self, value: Any) -> bool:
        """Return whether one value of a document matches."""
        text = canonical(value)
        if self.any_case:
            return lower(text).startswith(lower(self.text))
        return text.startswith(self.text)


@dataclass(frozen=True)
class Range:
    """The field has a value within ``bounds``: pairs of an operator and a number or text."""

    field: str
    bounds: tuple[tuple[str, Scalar], ...]

    @cached_property
    def kinds(self) -> frozenset[Kind]:
        """Kinds of values that are compared with the bounds: those that all bounds share.

        With a bound that is neither number nor date, all are compared as text.
        """
        kinds = [_kinds_of_bound(bound) for _, bound in self.bounds]
        return frozenset({"text"}) if {"text"} in kinds else frozenset.intersection(*kinds)

    @cached_property
    def numbers(self) -> dict[str, float]:
        """Bounds as numbers."""
        numbers = ((name, read_number(bound)) for name, bound in self.bounds)
        return {name: number for name, number in numbers if number is not None}

    @cached_property
    def texts(self) -> dict[str, str]:
        """Bounds as texts."""
        return {name: canonical(bound) for name, bound in self.bounds}

    @cached_property
    def dates(self) -> dict[str, str]:
        """Bounds "gte" and "lt" that the texts of dates are compared with.

        A period is all its dates: "gt" and "lte" mean its end, "gte" and "lt" its start.
        """
        dates: dict[str, str] = {}
        for name, text in self.texts.items():
            position = text + AFTER if name in ("gt", "lte") else text
            side, tighter = ("gte", max) if name in ("gt", "gte") else ("lt", min)
            dates[side] = tighter(position, dates.get(side, position))
        return dates

    def accepts(self, value: Any) -> bool:
        """Return whether one value of a document lies within all bounds."""
        if "text" in self.kinds:
            text = canonical(value)
            return all(COMPARE[name](text, bound) for name, bound in self.texts.items())
        if "date" in self.kinds and is_date(value):
            return all(COMPARE[name](value, bound) for name, bound in self.dates.items())
        number = read_number(value) if "number" in self.kinds else None
        return number is not None and all(
            COMPARE[name](number, bound) for name, bound in self.numbers.items()
        )


@dataclass(frozen=True)
class Exists:
    """The field has a value."""

    field: str

    def accepts(self, value: Any) -> bool:
        """Return True: any value shows that the field exists."""
        return True


@dataclass(frozen=True)
class Not:
    """The document does not fulfil ``condition``."""

    condition: Term | Prefix | Range | Exists | All

    @property
    def field(self) -> str:
        """The field of the condition."""
        return self.condition.field


@dataclass(frozen=True)
class All:
    """The document fulfils all ``conditions``, which are of one field."""

    conditions: tuple[Condition, ...]

    @property
    def field(self) -> str:
        """The field of the conditions."""
        return self.conditions[0].field


ValueCondition = Term | Prefix | Range | Exists
"""Condition that a document fulfils if ``accepts`` is true for one of the field's values."""
Condition = ValueCondition | Not | All

COMPARE: Mapping[str, Callable[[Any, Any], bool]] = {
    "gt": lambda a, b: a > b,
    "gte": lambda a, b: a >= b,
    "lt": lambda a, b: a < b,
    "lte": lambda a, b: a <= b,
}


def parse(where: Mapping[str, Any] | None) -> tuple[Condition, ...]:
    """Return the conditions of a ``where`` mapping; raise ConfigError for an invalid one."""
    if where is None:
        return ()
    if not isinstance(where, Mapping):
        raise ConfigError(f"where is {where!r}, expected a mapping such as {{'colour': 'red'}}")
    return tuple(_condition(field, value, KEYS) for field, value in where.items())


def unknown_field(field: str, known: Iterable[str], limit: int = 30) -> ConfigError:
    """Return the error for a field that no document has; ``known``: the fields there are."""
    names = sorted(known)
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ConfigError(
        f"no document has the field {field[:100]!r}, expected one of "
        f"{', '.join(names[:limit])}{more}"
    )


def values_of(value: Any) -> Sequence[Any]:
    """Return the values of a field as a list without None and NaN."""
    if isinstance(value, list | tuple):
        return [item for item in value if not _is_missing(item)]
    return [] if _is_missing(value) else [value]


def canonical(value: Any) -> str:
    """Return the text of a value: "10" for 10 and 10.0, "true" for True."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def lower(text: str) -> str:
    """Return the text with A to Z as a to z; other letters are unchanged, as in OpenSearch."""
    return text.translate(_LOWER)


def read_number(value: Any) -> float | None:
    """Return a number, or text that is a number, as a finite double; None for other values."""
    if isinstance(value, bool) or (isinstance(value, str) and not NUMBER.fullmatch(value)):
        return None
    try:
        number = float(value.strip(" \t\n\r\f\vfFdD") if isinstance(value, str) else value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def is_date(value: Any) -> bool:
    """Return whether a value is text of a date, with a month at least."""
    return isinstance(value, str) and _DATE.fullmatch(value) is not None


def is_period(text: str) -> bool:
    """Return whether a text is a date or a year."""
    return _YEAR.fullmatch(text) is not None or is_date(text)


def _condition(field: str, expected: Any, keys: Sequence[str]) -> Condition:
    """Return the condition of one field; ``keys``: those that a mapping may have here."""
    if not isinstance(field, str) or not field:
        raise ConfigError(f"where names the field {field!r}, expected a name")
    if not isinstance(expected, Mapping):
        return Term(field, _values(field, expected))
    if not expected or not set(expected) <= set(keys):
        unknown = sorted(set(map(str, expected)) - set(keys))
        raise ConfigError(
            f"where[{field!r}] has {unknown or 'nothing'}, expected some of {', '.join(keys)}"
        )
    bounds = {name: expected[name] for name in BOUNDS if name in expected}
    conditions: list[Condition] = [_range(field, bounds)] if bounds else []
    for key, value in expected.items():
        if key not in bounds:
            conditions.append(_BUILD[key](field, value))
    return conditions[0] if len(conditions) == 1 else All(tuple(conditions))


def _values(field: str, expected: Any) -> tuple[Scalar, ...]:
    """Return one value or a list of values as a tuple."""
    many = isinstance(expected, list | tuple | set | frozenset)
    values = tuple(expected) if many else (expected,)
    if not values:
        raise ConfigError(f"where[{field!r}] is an empty list, expected at least one value")
    for value in values:
        _check_scalar(field, value)
    return values


def _range(field: str, bounds: Mapping[str, Any]) -> Range:
    for bound in bounds.values():
        _check_scalar(field, bound)
    condition = Range(field, tuple(sorted(bounds.items())))
    as_text = "text" in condition.kinds
    mixed = as_text and not all(isinstance(bound, str) for bound in bounds.values())
    if mixed or not condition.kinds:
        raise ConfigError(
            f"where[{field!r}] is a range of {list(bounds.values())}, expected numbers, dates or "
            "texts, all of one kind"
        )
    return condition


def _exists(field: str, expected: Any) -> Condition:
    if not isinstance(expected, bool):
        raise ConfigError(f"where[{field!r}] has exists {expected!r}, expected True or False")
    return Exists(field) if expected else Not(Exists(field))


def _prefix(field: str, expected: Any, any_case: bool = False) -> Prefix:
    if not isinstance(expected, str) or not expected:
        raise ConfigError(f"where[{field!r}] has the prefix {expected!r}, expected a text")
    return Prefix(field, expected, any_case)


def _any_case(field: str, expected: Any) -> Condition:
    if isinstance(expected, Mapping) and set(expected) == {"prefix"}:
        return _prefix(field, expected["prefix"], any_case=True)
    return Term(field, _values(field, expected), any_case=True)


def _not(field: str, expected: Any) -> Condition:
    inner = _condition(field, expected, [key for key in KEYS if key not in ("not", "all")])
    return inner.condition if isinstance(inner, Not) else Not(inner)


def _all(field: str, expected: Any) -> Condition:
    if not isinstance(expected, list | tuple) or not expected:
        raise ConfigError(f"where[{field!r}] has all {expected!r}, expected a list of conditions")
    keys = [key for key in KEYS if key != "all"]
    return All(tuple(_condition(field, one, keys) for one in expected))


_BUILD: Mapping[str, Callable[[str, Any], Condition]] = {
    "exists": _exists,
    "prefix": _prefix,
    "any_case": _any_case,
    "not": _not,
    "all": _all,
}


def _check_scalar(field: str, value: Any) -> None:
    if not isinstance(value, str | int | float | bool) or _is_missing(value):
        raise ConfigError(
            f"where[{field!r}] compares with {value!r}, expected text, a number or true/false; "
            "use {'exists': False} for a missing value"
        )


def _kinds_of_bound(bound: Scalar) -> frozenset[Kind]:
    kinds: set[Kind] = {"number"} if read_number(bound) is not None else set()
    if is_period(canonical(bound)):
        kinds.add("date")
    return frozenset(kinds or {"text"})


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))
