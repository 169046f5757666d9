"""Fields of the documents of a segment as columns: filters and counts of values.

Each field has a dictionary of its values (:mod:`.value_dictionary`) and one number for each
document, in the smallest unsigned type. With v values in the dictionary, a document has number

- i < v, if i is its only value,
- v, if it has no value,
- v + 1 + s, if it has several values: those of set s. Documents of the same values share a set.

Columns, for field i in the order of the names:

    field.names               names of the fields with a value, ascending (texts)
    field.i.values, .numbers, .dates    dictionary
    field.i.codes             (n,) number of each document
    field.i.sets.ends         (s + 1,) int64; the values of set s are
    field.i.sets.codes        codes[ends[s] : ends[s + 1]], ascending
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from xmodal.index.contract import NAME_FIELDS, Facets, to_facets
from xmodal.index.filters import All, Condition, Exists, Not, ValueCondition, unknown_field
from xmodal.index.segments.columns import Array, Columns, Int64
from xmodal.index.segments.text_column import TextColumn
from xmodal.index.segments.value_dictionary import ValueDictionary

NAMES = "field.names"
CACHED_MASKS = 8
"""Filters of a segment whose masks are kept in memory, one byte per document each."""
AT_ONCE = 1 << 16
"""Documents that are looked up in one step, so that temporary arrays stay in the cache."""
Mask = npt.NDArray[np.bool_]


class Field:
    """Columns of one field; see the module."""

    def __init__(self, columns: Columns, name: str) -> None:
        self._columns, self._name = columns, name
        self.values = ValueDictionary(columns, name)

    @property
    def codes(self) -> Array:
        """Number of each document, (n,)."""
        return self._columns.whole(f"{self._name}.codes")

    @property
    def set_ends(self) -> Int64:
        """End of each set in ``members``, from 0, (sets + 1,)."""
        return self._columns.whole(f"{self._name}.sets.ends")

    @property
    def members(self) -> Array:
        """Values of all sets."""
        return self._columns.whole(f"{self._name}.sets.codes")

    def members_of(self, number: int) -> Array:
        """Return the values of one set."""
        start, end = self.set_ends[number : number + 2].tolist()
        return self.members[start:end]

    def mask(self, condition: ValueCondition) -> Mask:
        """Return which documents have a value that fulfils a condition, (n,)."""
        accepted = self.values.accepted(condition)
        ends = self.set_ends
        of_sets = np.zeros(0, np.bool_)
        if len(ends) > 1:
            of_sets = np.logical_or.reduceat(accepted[self.members], ends[:-1])
        return _looked_up(np.concatenate([accepted, [False], of_sets]), self.codes)

    def exists(self) -> Mask:
        """Return which documents have a value, (n,)."""
        exists: Mask = self.codes != len(self.values)
        return exists

    def counts(self, live: Mask | None) -> Int64:
        """Return the number of live documents that have each value, (values,)."""
        ends, size = self.set_ends, len(self.values)
        by_code = _occurrences(self.codes, live, size + len(ends))
        weights = np.repeat(by_code[size + 1 :], np.diff(ends))
        in_sets = np.bincount(self.members, weights, size)  # exact: doubles below 2**53
        return by_code[:size] + in_sets.astype(np.int64)


class FieldColumns:
    """Filters and counts over the fields of a segment of ``n`` documents; safe for threads.

    ``live``: which documents are not deleted, (n,), None if all.
    """

    def __init__(self, columns: Columns, n: int) -> None:
        self.columns, self._n = columns, n
        names = TextColumn(columns, NAMES)
        self.fields = {name: Field(columns, f"field.{i}") for i, name in enumerate(names)}
        self._masks: dict[str, Mask] = {}

    def has(self, name: str, live: Mask | None) -> bool:
        """Return whether a live document has a value of a field."""
        field = self.fields.get(name)
        if field is None or live is None:
            return field is not None
        return bool((field.exists() & live).any())

    def mask(self, conditions: Sequence[Condition]) -> Mask:
        """Return which documents, deleted or not, fulfil all conditions, (n,), read-only.

        A document without a value of a field fulfils no condition of this field but Not.
        """
        key = repr(conditions)  # 1 equals True, but not as text
        mask = self._masks.get(key)
        if mask is None:
            mask = self._all(conditions)
            mask.flags.writeable = False
            if len(self._masks) >= CACHED_MASKS:
                self._masks.clear()
            self._masks[key] = mask
        return mask

    def counts(self, name: str, live: Mask | None, limit: int) -> dict[str, int] | None:
        """Return the number of live documents that have each value of a field, above 0.

        None if there are more than ``limit`` such values.
        """
        field = self.fields.get(name)
        if field is None:
            return {}
        if live is None and len(field.values) > limit:
            return None
        counts = field.counts(live)
        values = np.flatnonzero(counts)
        if len(values) > limit:
            return None
        return dict(zip(field.values.texts.take(values), counts[values].tolist(), strict=True))

    def _all(self, conditions: Sequence[Condition]) -> Mask:
        """Return which documents fulfil all conditions, (n,)."""
        mask: Mask | None = None
        for condition in conditions:
            one = self._one(condition)
            mask = one if mask is None else mask & one
        return np.ones(self._n, np.bool_) if mask is None else mask

    def _one(self, condition: Condition) -> Mask:
        """Return which documents fulfil one condition, (n,)."""
        if isinstance(condition, Not):
            return ~self._one(condition.condition)
        if isinstance(condition, All):
            return self._all(condition.conditions)
        field = self.fields.get(condition.field)
        if field is None:
            return np.zeros(self._n, np.bool_)
        return field.exists() if isinstance(condition, Exists) else field.mask(condition)


Part = tuple[FieldColumns, Mask | None]
"""The fields of a segment, and which of its documents are live."""


def check_fields(parts: Sequence[Part], conditions: Sequence[Condition]) -> None:
    """Raise ConfigError for a field that no live document has, if one has any field."""
    for condition in conditions:
        if not any(fields.has(condition.field, live) for fields, live in parts):
            known = {
                name for fields, live in parts for name in fields.fields if fields.has(name, live)
            }
            if known:
                raise unknown_field(condition.field, known)


def facets(parts: Sequence[Part], max_values: int) -> Facets:
    """Return the facets of the live documents; see :meth:`xmodal.index.contract.Index.facets`."""
    totals = {}
    for name in {name for fields, _ in parts for name in fields.fields} - set(NAME_FIELDS):
        total: Counter[str] = Counter()
        for fields, live in parts:
            counts = fields.counts(name, live, max_values)
            if counts is None:
                break
            total.update(counts)
        else:
            totals[name] = total
    return to_facets(totals, max_values)


def _looked_up(table: Mask, codes: Array) -> Mask:
    """Return ``table[codes]``."""
    found = np.empty(len(codes), np.bool_)
    for start in range(0, len(codes), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        np.take(table, codes[part], out=found[part], mode="clip")  # "raise" would copy
    return found


def _occurrences(codes: Array, live: Mask | None, size: int) -> Int64:
    """Return how often each number below ``size`` is that of a live document."""
    counts = np.zeros(size, np.int64)
    step = max(AT_ONCE, size)
    for start in range(0, len(codes), step):
        part = codes[start : start + step]
        if live is not None:
            part = part[live[start : start + step]]
        counts += np.bincount(part, minlength=size)
    return counts
