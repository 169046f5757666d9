"""Parquet and Arrow tables with damaged metadata or values: one line, or one lost value."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from xmodal.data.packed import read_picture
from xmodal.data.readers.read import read
from xmodal.errors import DataError

PNG = b"\x89PNG\r\n\x1a\n" + bytes(40)


def pictures(path: bytes = b"a.png") -> Any:
    """Return a column of two pictures, as the library ``datasets`` writes them."""
    paths = pa.array([path, path], pa.binary()).view(pa.string())
    return pa.StructArray.from_arrays([pa.array([PNG, PNG]), paths], ["bytes", "path"])


def write(path: Path, table: Any) -> None:
    if path.suffix == ".parquet":
        pq.write_table(table, path)
    else:
        with pa.ipc.new_file(path, table.schema) as writer:
            writer.write_table(table)


def test_a_path_that_is_not_in_utf8_costs_nothing(tmp_path: Path) -> None:
    write(tmp_path / "t.parquet", pa.table({"image": pictures(b"\xe9.png"), "caption": ["a", "b"]}))
    data = read(tmp_path / "t.parquet")
    assert [item.captions for item in data] == [("a",), ("b",)]
    assert [read_picture(item.images[0]) for item in data] == [PNG, PNG]


@pytest.mark.parametrize("ending", [".parquet", ".arrow"])
def test_names_with_a_zero_byte_are_missing_pictures(tmp_path: Path, ending: str) -> None:
    write(tmp_path / f"t{ending}", pa.table({"image": ["a\0.png"], "caption": ["a"]}))
    data = read(tmp_path / f"t{ending}", need_pictures=False)
    assert [(item.images, item.captions) for item in data] == [((), ("a",))]
    assert data.problems.names("name of a picture with a zero byte") == ["'a\\x00.png'"]
    with pytest.raises(FileNotFoundError):
        read_picture(tmp_path / "a\0.png")


def test_a_column_name_that_is_not_in_utf8_is_one_line(tmp_path: Path) -> None:
    write(tmp_path / "t.parquet", pa.table({"image": ["a.png"], "captionX": ["a"]}))
    content = (tmp_path / "t.parquet").read_bytes().replace(b"captionX", b"caption\xe9")
    (tmp_path / "t.parquet").write_bytes(content)
    with pytest.raises(DataError, match="not a readable Parquet file"):
        read(tmp_path / "t.parquet")


def test_damaged_metadata_of_pictures_end_no_process(tmp_path: Path) -> None:
    """A process of its own, which pyarrow would end."""
    path = tmp_path / "t.parquet"
    write(path, pa.table({"image": pictures(), "caption": ["a", "b"]}))
    program = """
import random, sys
from pathlib import Path
from xmodal.data.packed import read_picture
from xmodal.data.readers.read import read
from xmodal.errors import DataError
path = Path(sys.argv[1])
content, number = path.read_bytes(), random.Random(0)
start = len(content) - 8 - int.from_bytes(content[-8:-4], "little")  # of the metadata
for place in range(start, len(content)):
    changed = bytearray(content)
    changed[place] ^= 1 << number.randrange(8)
    path.write_bytes(changed)
    try:
        for item in read(path):
            for image in item.images:
                read_picture(image)
    except (DataError, OSError):
        pass
"""
    ran = subprocess.run([sys.executable, "-c", program, str(path)])
    assert ran.returncode == 0


def test_an_arrow_batch_of_a_negative_number_of_rows_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.arrow"
    table = pa.table({"text": ["a"] * 1237})
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
        stream.write_table(table)
    content = path.read_bytes()
    number = (1237).to_bytes(8, "little")
    assert content.count(number) > 0
    path.write_bytes(content.replace(number, (-1).to_bytes(8, "little", signed=True), 1))
    with pytest.raises(DataError, match="Arrow"):
        read(path)
