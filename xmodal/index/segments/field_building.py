"""Columns of the fields of a segment, built from its documents.

See :mod:`.field_columns` for the columns.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from xmodal.index.filters import Scalar, canonical, values_of
from xmodal.index.segments.columns import Array, Int64
from xmodal.index.segments.field_columns import NAMES
from xmodal.index.segments.text_column import text_columns
from xmodal.index.segments.value_dictionary import dictionary_columns

PARSED_AT_ONCE = 1 << 12
"""Documents whose fields are decoded in one step."""
NONE = -1
"""Number, while a column is built, of a document without a value; set s has NONE - 1 - s."""


def field_columns(texts: Sequence[str]) -> dict[str, Array]:
    """Return the columns of the fields of documents; ``texts``: their fields as JSON objects."""
    builders: dict[str, _Builder] = {}
    for start in range(0, len(texts), PARSED_AT_ONCE):
        documents = json.loads(f"[{','.join(texts[start : start + PARSED_AT_ONCE])}]")
        for name in dict.fromkeys(name for document in documents for name in document):
            builder = builders.setdefault(name, _Builder())
            builder.add([document.get(name) for document in documents], start)
    filled = [
        (name, builder) for name, builder in sorted(builders.items()) if len(builder.numbers) > 1
    ]
    columns = text_columns(NAMES, [name for name, _ in filled])
    for i, (_, builder) in enumerate(filled):
        columns |= builder.columns(f"field.{i}", len(texts))
    return columns


class _Builder:
    """Values of one field, numbered in the order of their first occurrence."""

    def __init__(self) -> None:
        self.numbers: dict[str | None, int] = {None: NONE}
        self._known: dict[Any, int] = {}  # by number or repr
        self._sets: dict[tuple[int, ...], int] = {}
        self._codes: list[Int64] = []
        self._length = 0

    def add(self, values: list[Any], start: int) -> None:
        """Add the values of documents from number ``start`` on; None: no value."""
        if start > self._length:  # documents before them lack the field
            self._codes.append(np.full(start - self._length, NONE))
        self._length = start + len(values)
        kinds = set(map(type, values)) - {type(None)}
        if kinds == {str}:
            found = [self.numbers.setdefault(text, len(self.numbers) - 1) for text in values]
        else:  # by their repr, because True equals 1, and lists are no keys of a mapping
            keys = values if kinds <= {int, float} else list(map(repr, values))
            for key, value in zip(keys, values, strict=True):
                if key not in self._known:
                    self._known[key] = self._code_of(value)
            found = [self._known[key] for key in keys]
        self._codes.append(np.array(found, np.int64))

    def columns(self, name: str, n: int) -> dict[str, Array]:
        """Return the columns of the field of ``n`` documents."""
        texts = sorted(text for text in self.numbers if text is not None)
        places = np.empty(len(texts), np.int64)
        places[[self.numbers[text] for text in texts]] = np.arange(len(texts))
        codes = np.concatenate([*self._codes, np.full(n - self._length, NONE)])
        sets = [sorted(places[list(members)].tolist()) for members in self._sets]
        return dictionary_columns(name, texts) | code_columns(name, places, codes, sets)

    def _code_of(self, value: Any) -> int:
        """Return the number of a document with a value, which may be a list."""
        scalars = (item for item in values_of(value) if isinstance(item, Scalar))
        texts = map(canonical, scalars)
        numbers = {self.numbers.setdefault(text, len(self.numbers) - 1) for text in texts}
        if len(numbers) < 2:
            return min(numbers, default=NONE)
        return NONE - 1 - self._sets.setdefault(tuple(sorted(numbers)), len(self._sets))


def code_columns(
    name: str, places: Int64, codes: Int64, sets: Sequence[Sequence[int]]
) -> dict[str, Array]:
    """Return the columns of the numbers of documents, and of sets of values.

    ``codes``: of each document, as in a :class:`_Builder`; ``places``: number of a value in the
    dictionary, by its number in ``codes``; ``sets``: members by their numbers in the dictionary.
    """
    values = len(places)
    numbers = np.concatenate([places, values + len(sets) - np.arange(len(sets)), [values]])
    # Negative numbers count from the end: NONE is the last one, set 0 the one before.
    kind = np.min_scalar_type(values + len(sets))
    ends = np.concatenate([[0], np.cumsum([len(members) for members in sets], dtype=np.int64)])
    members = np.array([member for one in sets for member in one], np.min_scalar_type(values))
    return {
        f"{name}.codes": numbers.astype(kind)[codes],
        f"{name}.sets.ends": ends,
        f"{name}.sets.codes": members,
    }
