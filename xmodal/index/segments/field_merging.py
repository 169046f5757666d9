"""Columns of the fields of a segment, merged from those of other segments without their JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from xmodal.index.segments.columns import Array, Columns, Int64
from xmodal.index.segments.field_building import NONE, code_columns
from xmodal.index.segments.field_columns import NAMES, Field, FieldColumns
from xmodal.index.segments.text_column import text_columns
from xmodal.index.segments.value_dictionary import numeric_columns


class _Used(NamedTuple):
    """A field of a part: which of its documents remain, and the values that these have."""

    field: Field
    codes: Array  # of the documents that remain
    values: Int64  # ascending
    sets: Int64

    @classmethod
    def of(cls, field: Field, rows: Int64) -> _Used:
        """Return what the documents at ``rows`` use."""
        codes, size = field.codes[rows], len(field.values)
        used = np.bincount(codes, minlength=size + len(field.set_ends)) > 0
        sets = np.flatnonzero(used[size + 1 :])
        used = used[:size]
        for members in map(field.members_of, sets.tolist()):
            used[members] = True
        return cls(field, codes, np.flatnonzero(used), sets)


def merge_field_columns(
    parts: Sequence[tuple[Columns, int, Int64]], order: Int64
) -> dict[str, Array]:
    """Return the field columns of the documents that remain of several segments.

    ``parts``: columns and number of documents of a segment, and the rows of those that remain.
    Document i of the result is document ``order[i]`` of all that remain, part after part.
    """
    read = [(FieldColumns(columns, n), rows) for columns, n, rows in parts]
    names = sorted({name for fields, _ in read for name in fields.fields})
    kept: list[str] = []
    merged: dict[str, Array] = {}
    for name in names:
        used = [(fields.fields.get(name), rows) for fields, rows in read]
        columns = _merge_field(
            f"field.{len(kept)}",
            [len(rows) if field is None else _Used.of(field, rows) for field, rows in used],
            order,
        )
        if columns:
            kept.append(name)
            merged |= columns
    return text_columns(NAMES, kept) | merged


def _merge_field(name: str, parts: Sequence[_Used | int], order: Int64) -> dict[str, Array]:
    """Return the columns of one field; nothing if no document has a value of it.

    ``parts``: a number is that of documents without the field.
    """
    filled = [part for part in parts if isinstance(part, _Used)]
    texts, places = _merge_texts([(p.field, p.values) for p in filled])
    n = len(texts["ends"]) - 1
    if n == 0:
        return {}
    numbers, dates = np.full(n, np.nan), np.zeros(n, np.bool_)
    sets: dict[tuple[int, ...], int] = {}
    tables = []
    for part, new in zip(filled, places, strict=True):
        first = part.values[part.values < len(part.field.values.numbers)]
        numbers[new[: len(first)]] = part.field.values.numbers[first]
        dates[new[: len(first)]] = part.field.values.dates[first]
        tables.append(_table(part, new, sets))
    left = iter(tables)
    codes = [
        next(left)[part.codes] if isinstance(part, _Used) else np.full(part, NONE) for part in parts
    ]
    columns = {f"{name}.values.{part}": array for part, array in texts.items()}
    columns |= numeric_columns(name, numbers, dates)
    return columns | code_columns(name, np.arange(n), np.concatenate(codes)[order], list(sets))


def _table(part: _Used, places: Int64, sets: dict[tuple[int, ...], int]) -> Int64:
    """Return the new number of each number of a part; adds its sets to ``sets``.

    ``places``: new numbers of the values that the part uses.
    """
    size = len(part.field.values)
    table = np.full(size + len(part.field.set_ends), NONE)
    table[part.values] = places
    for number in part.sets.tolist():
        members = tuple(sorted(table[part.field.members_of(number)].tolist()))
        table[size + 1 + number] = NONE - 1 - sets.setdefault(members, len(sets))
    return table


def _merge_texts(
    parts: Sequence[tuple[Field, Int64]],
) -> tuple[dict[str, Array], list[Int64]]:
    """Return the different texts of dictionaries as columns, and the new rows of each part's texts.

    ``parts``: a field and the rows of its values.
    """
    import pyarrow as pa  # required by a save only, slow to load
    import pyarrow.compute as pc

    arrays = []
    for field, rows in parts:
        ends, content = field.values.texts.arrays()
        buffers = [None, pa.py_buffer(ends), pa.py_buffer(content)]
        array = pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(ends) - 1, buffers)
        arrays.append(array.take(pa.array(rows)))
    joined = pa.concat_arrays(arrays or [pa.array([], pa.large_binary())]).dictionary_encode()
    order = pc.sort_indices(joined.dictionary)
    merged = joined.dictionary.take(order)
    ranks = np.empty(len(merged), np.int64)
    ranks[order.to_numpy()] = np.arange(len(merged))
    places = ranks[joined.indices.to_numpy()]
    _, ends, content = merged.buffers()
    merged_ends = np.frombuffer(ends, np.int64, len(merged) + 1)
    merged_bytes = np.frombuffer(content or b"", np.uint8)[: merged_ends[-1]]
    columns: dict[str, Array] = {"ends": merged_ends, "bytes": merged_bytes}
    counts = [len(rows) for _, rows in parts]
    return columns, np.split(places, np.cumsum(counts)[:-1])
