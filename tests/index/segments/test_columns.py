"""Columns in memory and in a file: content, text columns, damage."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from xmodal.checksums import BLOCK
from xmodal.errors import IndexFailure
from xmodal.index.segments.column_file import ALIGNMENT, ColumnFile, FileRecord, write_columns
from xmodal.index.segments.columns import Array, Chunks, Columns, MemoryColumns
from xmodal.index.segments.text_column import (
    SAMPLED,
    TextColumn,
    sample_columns,
    text_columns,
)

RANDOM = np.random.default_rng(5)
ARRAYS: dict[str, Array] = {
    "numbers": RANDOM.normal(size=5),
    "codes": RANDOM.integers(0, 1 << 60, (3, BLOCK), dtype=np.uint64),
    "vectors": RANDOM.integers(-128, 128, (2 * BLOCK // 7, 7), dtype=np.int8),
    "empty": np.zeros((0, 4), np.uint16),
    "flags": np.array([True, False, True]),
}
WORDS = sorted(["", "a", "a\0", "a\0\0b", "ab", "é", "中文", "\U0001f600", "long " * 3000])


def written(path: Path, arrays: dict[str, Array]) -> FileRecord:
    return write_columns(path, arrays, {"n": 3})


def in_file(arrays: dict[str, Array], folder: Path) -> Columns:
    path = folder / "columns"
    return ColumnFile.open(path, written(path, arrays))


def in_memory(arrays: dict[str, Array], folder: Path) -> Columns:
    return MemoryColumns(arrays, {"n": 3})


PLACES = pytest.mark.parametrize("place", [in_file, in_memory])
Place = Callable[[dict[str, Array], Path], Columns]


@PLACES
def test_columns_are_those_that_were_stored(place: Place, tmp_path: Path) -> None:
    columns = place(ARRAYS, tmp_path)
    assert set(columns.names) == set(ARRAYS) and columns.meta == {"n": 3}
    for name, expected in ARRAYS.items():
        at = np.array([0])
        for found in (columns.rows(name, at, at + min(1, len(expected))), columns.whole(name)):
            assert found.dtype == expected.dtype and np.array_equal(found, expected)
    with pytest.raises((KeyError, IndexFailure), match="other"):
        columns.whole("other")


def test_columns_of_a_file_are_aligned_and_read_only(tmp_path: Path) -> None:
    columns = in_file(ARRAYS, tmp_path)
    for name in ARRAYS:
        found = columns.whole(name)
        assert not found.flags.writeable
        assert len(found) == 0 or found.ctypes.data % ALIGNMENT == 0


def test_chunks_are_written_as_one_column(tmp_path: Path) -> None:
    codes = ARRAYS["codes"]
    pieces = np.split(codes.reshape(-1), [0, 1, 5, 4000, 9000])
    one = written(tmp_path / "one", {"codes": codes})
    chunked = {"codes": Chunks(np.uint64, codes.shape, iter(pieces))}
    assert write_columns(tmp_path / "two", chunked, {"n": 3}) == one
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    with pytest.raises(ValueError, match="expected shape"):
        write_columns(tmp_path / "three", {"codes": Chunks(np.uint64, (3, 9), pieces)}, {})


def damage(path: Path, record: FileRecord) -> str:
    """What is found to be damaged in a file."""
    try:
        return next((one.column for one in ColumnFile.open(path, record).check() if one.damage), "")
    except IndexFailure as error:
        return str(error)


def test_every_changed_byte_is_found(tmp_path: Path) -> None:
    path = tmp_path / "columns"
    arrays = {"long": np.arange(3 * BLOCK // 8), "short": np.arange(5, dtype=np.int8)}
    record = written(path, arrays)
    content = path.read_bytes()
    assert damage(path, record) == ""
    places = [*range(0, len(content), 997), *range(len(content) - 600, len(content))]
    for place in {*places, BLOCK, record.directory - 1, record.directory}:
        changed = bytearray(content)
        changed[place] ^= 16
        path.write_bytes(changed)
        assert damage(path, record)
    for size in (0, 1, record.directory, len(content) - 1, len(content) + 1):
        path.write_bytes((content + b"\0")[:size])
        with pytest.raises(IndexFailure, match="damaged"):
            ColumnFile.open(path, record)
    path.unlink()
    with pytest.raises(IndexFailure, match="missing"):
        ColumnFile.open(path, record)


def test_rows_of_a_damaged_block_are_refused_and_others_are_read(tmp_path: Path) -> None:
    path = tmp_path / "columns"
    record = written(path, ARRAYS)
    content = bytearray(path.read_bytes())
    place = content.index(ARRAYS["vectors"].tobytes())
    content[place + BLOCK + 3] ^= 1
    path.write_bytes(content)
    columns = ColumnFile.open(path, record)
    row = np.array([(BLOCK + 3) // 7])
    with pytest.raises(IndexFailure, match="vectors"):
        columns.rows("vectors", row, row + 1)
    found = columns.rows("vectors", np.array([2]), np.array([9]))
    assert np.array_equal(found[2:9], ARRAYS["vectors"][2:9])
    with pytest.raises(IndexFailure, match="vectors"):
        columns.whole("vectors")


@PLACES
@pytest.mark.parametrize("texts", [[], [""], WORDS], ids=["none", "one", "words"])
def test_texts_are_read_and_found(place: Place, texts: list[str], tmp_path: Path) -> None:
    column = TextColumn(place(text_columns("t", texts), tmp_path), "t")
    assert len(column) == len(texts) and list(column) == texts
    assert column.take(range(len(texts))[::-2]) == texts[::-2]
    wanted = [*reversed(WORDS), "b", "long", "\U0001f601"]
    expected = [texts.index(text) if text in texts else -1 for text in wanted]
    assert column.find(wanted).tolist() == expected
    assert column.find([]).tolist() == []
    with pytest.raises(IndexError):
        column[len(texts)]


@pytest.mark.parametrize("common", [None, "", "\0", "photos/2024/"])
@pytest.mark.parametrize("length", [6, 40])
def test_many_texts_are_found_at_once(tmp_path: Path, common: str | None, length: int) -> None:
    """``common``: how all texts begin that have samples; None without samples."""
    generator, begin = random.Random(3), common or ""
    counts = [generator.randrange(length) for _ in range(900)]
    texts = sorted({begin + "".join(generator.choices("\0aé~", k=count)) for count in counts})
    stored = texts[::2]
    columns = text_columns("t", stored)
    if common is not None:
        columns |= sample_columns("t", stored[::SAMPLED], stored[-1])
        texts = sorted({*texts, "", "\0", "photos", "z", *(text + "\0" for text in texts)})
    column = TextColumn(in_file(columns, tmp_path), "t")
    rows = dict(zip(stored, range(len(stored)), strict=True))
    assert column.find(texts).tolist() == [rows.get(text, -1) for text in texts]
    smaller = [sum(one < text for one in stored) for text in texts]
    assert column.insertion_rows(texts).tolist() == smaller
