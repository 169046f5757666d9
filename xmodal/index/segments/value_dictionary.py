"""Different values of a field, and which of them fulfil a condition of a filter.

A value is represented by its canonical text (:func:`xmodal.index.filters.canonical`), which decides
what it equals. The texts are sorted, so that a value, a prefix and a range of texts are found by
binary search; numbers are compared as one array. All numbers and dates are among the first texts,
because their first characters are smaller than ``AFTER_DIGITS``.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from xmodal.index.filters import (
    COMPARE,
    Exists,
    Prefix,
    Range,
    Term,
    ValueCondition,
    is_date,
    lower,
    read_number,
)
from xmodal.index.segments.columns import Array, Columns, Int64
from xmodal.index.segments.text_column import TextColumn, text_columns

AFTER_DIGITS = ":"
"""The character after "9"; texts of numbers and dates begin with smaller ones."""
Accepted = npt.NDArray[np.bool_]
_SURROGATE = re.compile("[\ud800-\udfff]")
_AFTER_SURROGATES = "\ue000"
_LOWER = np.array([byte + 32 if 65 <= byte <= 90 else byte for byte in range(256)], np.uint8)


def dictionary_columns(name: str, texts: Sequence[str]) -> dict[str, Array]:
    """Return the columns of different canonical texts, which must ascend.

    ``NAME.values``: the texts (see :mod:`.text_column`). ``NAME.numbers``, (m,) float64, NaN for a
    text that is no number, and ``NAME.dates``, (m,) bool: of the first m texts; the last number or
    date is among these.
    """
    first = texts[: bisect_left(texts, AFTER_DIGITS)]
    numbers = np.array([read_number(text) for text in first], np.float64)  # None becomes NaN
    dates = np.fromiter(map(is_date, first), np.bool_, len(first))
    return text_columns(f"{name}.values", texts) | numeric_columns(name, numbers, dates)


def numeric_columns(name: str, numbers: Array, dates: Array) -> dict[str, Array]:
    """Return the columns of numbers and dates, cut after the last of them."""
    m = 1 + int(np.flatnonzero(~np.isnan(numbers) | dates).max(initial=-1))
    return {f"{name}.numbers": numbers[:m], f"{name}.dates": dates[:m]}


class ValueDictionary:
    """The columns of :func:`dictionary_columns` under a name."""

    def __init__(self, columns: Columns, name: str) -> None:
        self._columns, self._name = columns, name
        self.texts = TextColumn(columns, f"{name}.values")

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def numbers(self) -> npt.NDArray[np.float64]:
        """Values of the first texts, NaN for texts that are no numbers."""
        return self._columns.whole(f"{self._name}.numbers")

    @property
    def dates(self) -> npt.NDArray[np.bool_]:
        """Whether the first texts are dates."""
        return self._columns.whole(f"{self._name}.dates")

    def accepted(self, condition: ValueCondition) -> Accepted:
        """Return which values fulfil a condition, (len(self),)."""
        if isinstance(condition, Exists):
            return np.ones(len(self), np.bool_)
        accepted = np.zeros(len(self), np.bool_)
        if isinstance(condition, Term):
            self._accept_term(condition, accepted)
        elif isinstance(condition, Prefix):
            self._accept_prefix(condition, accepted)
        else:
            self._accept_range(condition, accepted)
        return accepted

    def _accept_term(self, term: Term, accepted: Accepted) -> None:
        if term.any_case:
            self._accept_any_case(term.texts, accepted)
        else:
            rows = self.texts.find([text for text in term.texts if not _SURROGATE.search(text)])
            accepted[rows[rows >= 0]] = True
            self._accept_any_case(term.booleans, accepted)
        if term.numbers:
            numbers = self.numbers
            accepted[: len(numbers)] |= np.isin(numbers, list(term.numbers))
        if term.dates:
            dates = self.dates
            for text in term.dates:
                start, end = self._beginning_with(text)
                accepted[start : min(end, len(dates))] |= dates[start:end]

    def _accept_prefix(self, prefix: Prefix, accepted: Accepted) -> None:
        if _SURROGATE.search(prefix.text):
            return
        if prefix.any_case:
            accepted[self._beginning_in_any_case(prefix.text, np.arange(len(self)))] = True
        else:
            accepted[slice(*self._beginning_with(prefix.text))] = True

    def _accept_range(self, condition: Range, accepted: Accepted) -> None:
        if "text" in condition.kinds:
            accepted[slice(*self._between(condition.texts))] = True
        if "date" in condition.kinds:
            dates = self.dates
            start, end = self._between(condition.dates)
            accepted[start : min(end, len(dates))] |= dates[start:end]
        if "number" in condition.kinds:
            numbers = self.numbers
            inside = ~np.isnan(numbers)
            for name, bound in condition.numbers.items():
                inside &= COMPARE[name](numbers, bound)
            accepted[: len(numbers)] |= inside

    def _beginning_with(self, prefix: str) -> tuple[int, int]:
        """Return the place of the texts that begin with a prefix: first, last + 1."""
        bounds = [prefix, *_after(prefix)]
        rows: list[int] = self.texts.insertion_rows(bounds).tolist()
        return rows[0], rows[1] if len(rows) == 2 else len(self)

    def _between(self, bounds: Any) -> tuple[int, int]:
        """Return the place of the texts within bounds, by operator: first, last + 1."""
        names = list(bounds)
        # The smallest text after a text is the same with a zero character at its end.
        texts = [bounds[n] + "\0" if n in ("gt", "lte") else bounds[n] for n in names]
        rows = self.texts.insertion_rows(list(map(_storable, texts))).tolist()
        placed = list(zip(names, rows, strict=True))
        start = max((row for name, row in placed if name in ("gt", "gte")), default=0)
        end = min((row for name, row in placed if name in ("lt", "lte")), default=len(self))
        return start, max(start, end)

    def _accept_any_case(self, texts: Iterable[str], accepted: Accepted) -> None:
        """Accept the values that equal a text apart from the case of A to Z."""
        valid = [text for text in texts if not _SURROGATE.search(text)]
        if valid:
            lengths = np.diff(self.texts.arrays()[0])
            for text in valid:
                rows = np.flatnonzero(lengths == len(text.encode()))
                accepted[self._beginning_in_any_case(text, rows)] = True

    def _beginning_in_any_case(self, prefix: str, rows: Int64) -> Int64:
        """Return those of the rows whose texts begin with a prefix, in any case of A to Z."""
        ends, content = self.texts.arrays()
        beginning = lower(prefix).encode()
        rows = rows[ends[rows + 1] - ends[rows] >= len(beginning)]
        for at, byte in enumerate(beginning):
            rows = rows[_LOWER[content[ends[rows] + at]] == byte]
        return rows


def _after(prefix: str) -> list[str]:
    """Return the smallest text after all that begin with a prefix; nothing if there is none."""
    kept = prefix.rstrip("\U0010ffff")
    return [kept[:-1] + _next_character(kept[-1])] if kept else []


def _next_character(character: str) -> str:
    return _AFTER_SURROGATES if character == "\ud7ff" else chr(ord(character) + 1)


def _storable(text: str) -> str:
    """Return a text that UTF-8 can represent, with the same order to all such texts.

    A lone surrogate, which no stored text has, comes before the first character after surrogates.
    """
    found = _SURROGATE.search(text)
    return text if found is None else text[: found.start()] + _AFTER_SURROGATES
