"""Parquet: kinds of values, pictures inside of the table, damage."""

from __future__ import annotations

import io
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from xmodal.data.packed import read_picture
from xmodal.data.packed.names import PackedName
from xmodal.data.readers import parquet
from xmodal.data.readers.columns import Columns
from xmodal.data.readers.read import iterate, read
from xmodal.data.readers.reading import Reading
from xmodal.errors import DataError


def png() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (2, 2), "red").save(file, "PNG")
    return file.getvalue()


def images(path: Path) -> list[list[str]]:
    return [[str(image).removeprefix(f"{path}/") for image in item.images] for item in read(path)]


STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


@pytest.mark.parametrize("with_statistics", [True, False])
@pytest.mark.parametrize("name", ["image", "still", "a.b", "jpg"])
@pytest.mark.parametrize("as_struct", [True, False])
def test_pictures_of_a_column_are_named_and_not_read(
    tmp_path: Path, with_statistics: bool, name: str, as_struct: bool
) -> None:
    whole: list[Any] = [png()] * 3
    gaps: list[Any] = [png(), None, png()]
    path = tmp_path / "t.parquet"
    for number, values in enumerate((whole, gaps)):
        if as_struct:
            values = [None if v is None else {"bytes": v, "path": "same.png"} for v in values]
        column = pa.array(values, STRUCT if as_struct else pa.binary())
        table = pa.table({name: column, "text": ["a", "b", "c"], "file_name": ["x"] * 3})
        pq.write_table(table, path, row_group_size=2, write_statistics=with_statistics)
        expected = [[f"{name}/{row}"] for row in range(3)]
        expected[1] = expected[1] if number == 0 else []
        assert images(path) == expected
        assert read(path).ids == ["row 1", "row 2", "row 3"]


def test_picture_bytes_of_a_whole_column_are_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pictures = [png() + bytes([n]) * 50_000 for n in range(100)]
    table = pa.table({"image": pictures, "text": ["a"] * 100})
    pq.write_table(table, path, compression="none", use_dictionary=["text"])
    content = bytearray(path.read_bytes())
    start = content.index(pictures[60])
    content[start : start + 2_000_000] = bytes(2_000_000)  # headers of pages too
    path.write_bytes(content)
    assert len(images(path)) == 100


def test_lists_of_pictures_and_paths_without_bytes(tmp_path: Path) -> None:
    Image.new("RGB", (2, 2)).save(tmp_path / "a.png")
    path = tmp_path / "t.parquet"
    one = {"bytes": png(), "path": None}
    columns = {
        "text": ["a", "b", "c", "d"],
        "images": pa.array([[one, one], [], None, [one]], pa.list_(STRUCT)),
    }
    pq.write_table(pa.table(columns), path)
    assert images(path) == [["images/0/0", "images/0/1"], [], [], ["images/3/0"]]
    paths = [one, {"bytes": None, "path": "a.png"}, {"bytes": None, "path": None}, None]
    pq.write_table(pa.table({"text": ["a"] * 4, "image": pa.array(paths, STRUCT)}), path)
    assert images(path) == [["image/0"], [str(tmp_path / "a.png")], [], []]


def test_bytes_that_are_no_pictures_are_not_taken_for_them(tmp_path: Path) -> None:
    Image.new("RGB", (2, 2)).save(tmp_path / "a.png")
    path = tmp_path / "t.parquet"
    sound = [{"bytes": b"RIFF\0\0\0\0WAVE\xff", "path": "s.wav"}]
    columns = {"image": pa.array([b"a.png"]), "sound": pa.array(sound, STRUCT), "raw": [b"\xff\0"]}
    pq.write_table(pa.table(columns), path)
    (item,) = (data := read(path))
    assert item.images == (tmp_path / "a.png",) and not item.fields
    (kind,) = data.problems.count_by_kind()
    assert data.problems.names(kind) == ["sound (objects)", "raw (bytes)"]
    pq.write_table(pa.table({"raw": [b"\xff\0"], "text": ["a"]}), path)
    (item,) = read(path, Columns(image="raw"))
    assert isinstance(item.images[0], Path) and item.images[0] == path / "raw" / "0"


def test_values_that_python_cannot_hold_are_recorded(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    broken = pa.StringArray.from_buffers(
        2, pa.py_buffer(np.array([0, 3, 5], np.int32)), pa.py_buffer(b"a\xffbok")
    )
    columns = {
        "text": broken,
        "far": pa.array([10**17, 0], pa.timestamp("ms")),
        "exact": pa.array([1, 1_500_000_001], pa.timestamp("ns")),
        "kind": pa.array(["x", "y"]).dictionary_encode(),
    }
    pq.write_table(pa.table(columns), path)
    first, second = (data := read(path))
    assert [item.captions for item in data] == [("a\ufffdb",), ("ok",)]
    assert first.fields == {"exact": "1970-01-01T00:00:00", "kind": "x"}
    assert second.fields["exact"] == datetime(1970, 1, 1, 0, 0, 1, 500000).isoformat()
    assert data.problems.names("value that is not readable") == [
        "row 1, column text",
        "row 1, column far",
    ]


def test_only_named_columns_are_read(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"id": [1, 2], "text": ["a", "b"], "image": [png()] * 2}), path)
    for only in ({"id"}, {"image"}, set(), {"id", "image"}):
        rows = [row for _, row in parquet.read_rows(path, Reading(only=frozenset(only)))]
        assert [set(row) for row in rows] == [only] * 2
        assert all(isinstance(row["image"], PackedName) for row in rows if "image" in row)


def test_the_size_in_the_header_of_a_page_is_not_allocated(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(
        pa.table({"image": ["12345678"]}), path, compression="none", use_dictionary=False
    )
    content = path.read_bytes()
    header = b"PAR1\x15\x00\x15"  # type 0, then the sizes with and without compression
    assert content.startswith(header)
    sizes = content[len(header) : len(header) + 3]
    assert sizes[0] == sizes[2] < 128 and sizes[1] == 0x15
    huge = b"\xfe\xff\xff\xff\x0c"  # 1.7 GB
    path.write_bytes(header + huge + b"\x15" + huge + content[len(header) + 3 :])
    with pytest.raises(DataError, match=r"t\.parquet"):
        list(iterate(path))
    with pytest.raises(OSError, match="Parquet"):
        read_picture(path / "image" / "0")
    assert pa.default_memory_pool().max_memory() < 2**30  # of the process


def test_a_long_text_of_a_dictionary_is_repeated_in_few_rows_at_a_time(tmp_path: Path) -> None:
    path, rows = tmp_path / "t.parquet", 1200
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * rows), ["x" * 900_000])
    pq.write_table(pa.table({"text": texts}), path, store_schema=False)
    assert sum(len(row["text"]) for _, row in parquet.read_rows(path, Reading())) == rows * 900_000
    assert pa.default_memory_pool().max_memory() < 2**30  # of the process


def test_many_equal_rows_in_a_small_file(tmp_path: Path) -> None:
    path, rows = tmp_path / "t.parquet", 200_000
    table = pa.table({"file_name": ["a.png"] * rows, "text": ["a dog"] * rows})
    pq.write_table(table, path, compression="zstd")
    assert path.stat().st_size < 10_000
    [*_, (place, last)] = parquet.read_rows(path, Reading())
    assert (place, last) == ("row 200000", {"file_name": "a.png", "text": "a dog"})


def test_damaged_parquet_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"text": [f"text {n}" for n in range(5000)]}), path)
    content = path.read_bytes()
    for damaged in (b"", content[:100], content[:-20], b"PAR1" + bytes(100) + content[104:]):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"t\.parquet"):
            list(iterate(path))
