"""Pictures in containers: virtual paths, archives, damage and bounds."""

from __future__ import annotations

import errno
import gzip
import io
import os
import subprocess
import sys
import tarfile
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from support.packed_files import archive, png

from xmodal.data.images import image_size, load_image
from xmodal.data.packed import (
    container_of,
    is_picture_file,
    pictures,
    read_picture,
    tables,
    tar,
)
from xmodal.data.picture_files import picture_hashes, picture_stamp
from xmodal.data.problems import Problems
from xmodal.data.readers import arrow
from xmodal.data.readers.reading import Reading
from xmodal.errors import DataError


def names_in(path: Path, problems: Problems | None = None) -> list[str]:
    with tar.open_tar(path) as shard:
        return [member.name for member in shard.members(problems)]


def as_zstd(path: Path, target: Path) -> Path:
    import pyarrow as pa

    with pa.output_stream(str(target), compression="zstd") as stream:
        stream.write(path.read_bytes())
    return target


LONG = "folder/" * 40 + "ä" * 30 + ".png"


@pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
@pytest.mark.parametrize("ending", [".tar", ".tar.gz", ".tgz", ".tar.zst"])
def test_members_are_read_by_virtual_paths(tmp_path: Path, ending: str, format: int) -> None:
    members = {"a.png": png(1), "./sub/b.png": png(2), "c.txt": b"text"}
    if format != tarfile.USTAR_FORMAT:
        members[LONG] = png(3)
    plain = archive(tmp_path / "plain.tar", members, format=format)
    path = tmp_path / f"shard{ending}"
    if ending == ".tar.zst":
        as_zstd(plain, path)
    elif ending != ".tar":
        path.write_bytes(gzip.compress(plain.read_bytes()))
    else:
        plain.rename(path)
    for name, data in members.items():
        assert read_picture(path / name) == data
        assert is_picture_file(path / name)
        assert container_of(path / name) == path
    assert names_in(path) == [name.removeprefix("./") for name in members]
    assert load_image(path / "sub/b.png").getpixel((0, 0)) == (2, 10, 20)
    assert image_size(path / "a.png") == (6, 4)


def test_ordinary_files_stay_what_they_are(tmp_path: Path) -> None:
    folder = tmp_path / "looks like.tar"
    folder.mkdir()
    (folder / "a.png").write_bytes(png(1))
    assert read_picture(folder / "a.png") == png(1)
    assert container_of(folder / "a.png") is None
    (tmp_path / "file.txt").write_text("no container")
    for path in (tmp_path / "file.txt/a.png", folder / "b.png", tmp_path / "gone.tar/a.png"):
        assert container_of(path) is None
        assert not is_picture_file(path)
        with pytest.raises(FileNotFoundError):
            read_picture(path)


def test_pipes_and_huge_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(OSError, match="ordinary"):
        read_picture(tmp_path / "pipe.png")
    monkeypatch.setattr(pictures, "MAX_PICTURE_BYTES", 50)
    shard = archive(tmp_path / "a.tar", {"large.png": bytes(51), "small.png": bytes(50)})
    (tmp_path / "large.png").write_bytes(bytes(51))
    for path in (shard / "large.png", tmp_path / "large.png"):
        with pytest.raises(OSError, match="51 bytes"):
            read_picture(path)
    assert read_picture(shard / "small.png") == bytes(50)


def test_replaced_archives_are_opened_again(tmp_path: Path) -> None:
    shard = archive(tmp_path / "a.tar", {"a.png": png(1)})
    before = picture_stamp(shard / "a.png"), picture_hashes([shard / "a.png"])
    assert read_picture(shard / "a.png") == png(1)
    archive(tmp_path / "new.tar", {"first.png": png(9), "a.png": png(2)}).replace(shard)
    assert read_picture(shard / "a.png") == png(2)
    assert before != (picture_stamp(shard / "a.png"), picture_hashes([shard / "a.png"]))
    shard.unlink()
    with pytest.raises(DataError, match="no such picture"):
        load_image(shard / "a.png")
    assert picture_stamp(shard / "a.png") is None


def test_many_threads_and_many_archives(tmp_path: Path) -> None:
    shards = [
        archive(
            tmp_path / f"{n}.tar.gz", {f"{k}.png": png(k, (n + 1, 1)) for k in range(20)}, "w:gz"
        )
        for n in range(pictures.MAX_OPEN + 3)
    ]
    paths = [shard / f"{k}.png" for k in range(20) for shard in shards]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(load_image, paths))
    expected = [(n + 1, k) for k in range(20) for n in range(len(shards))]
    assert [(one.width, np.asarray(one)[0, 0, 0]) for one in found] == expected


def test_links_devices_and_names_outside_are_left_out_and_recorded(tmp_path: Path) -> None:
    path = tmp_path / "hostile.tar"
    with tarfile.open(path, "w") as file:
        for name in ("../up.png", "/absolute.png", "a/../../up.png", "good.png", "good.png"):
            info = tarfile.TarInfo(name)
            info.size = len(png(1))
            file.addfile(info, io.BytesIO(png(1)))
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
            info = tarfile.TarInfo(f"kind-{kind.decode()}.png")
            info.type, info.linkname = kind, "/etc/passwd"
            file.addfile(info)
        file.addfile(_folder("folder"))
        info = tarfile.TarInfo("of-an-unknown-type.png")
        info.type = b"Q"
        file.addfile(info)
    problems = Problems()
    assert names_in(path, problems) == ["good.png", "good.png"]
    assert problems.count_by_kind() == {tar.NOT_SAFE: 3, tar.LEFT_OUT: 5}
    assert not is_picture_file(path / ".." / "up.png")
    for name in ("kind-1.png", "kind-2.png", "folder", "absolute.png"):
        with pytest.raises(FileNotFoundError):
            read_picture(path / name)


def _folder(name: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = tarfile.DIRTYPE
    return info


def test_sparse_members_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "sparse.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as file:
        info = tarfile.TarInfo("s.png")
        info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.realsize": str(2**50)}
        file.addfile(info)
        info = tarfile.TarInfo("good.png")
        info.size = 3
        file.addfile(info, io.BytesIO(b"abc"))
    problems = Problems()
    assert names_in(path, problems) == ["good.png"]
    assert problems.names(tar.LEFT_OUT) == ["s.png (sparse)"]


@pytest.mark.parametrize("keep", [512 + 50, 1024 + 512 + 10, 1024 + 200])
@pytest.mark.parametrize("compressed", [False, True])
def test_members_before_a_cut_are_used(tmp_path: Path, keep: int, compressed: bool) -> None:
    members = {"a.png": b"a" * 100, "b.png": b"b" * 100}
    whole = archive(tmp_path / "whole.tar", members).read_bytes()
    path = tmp_path / "cut.tar"
    path.write_bytes(gzip.compress(whole[:keep]) if compressed else whole[:keep])
    found = []
    with tar.open_tar(path) as shard, pytest.raises(DataError, match="cut off"):
        for member in shard.members():
            found.append((member.name, shard.read(member)))
    assert found == ([("a.png", b"a" * 100)] if keep > 1024 else [])
    if found:
        assert read_picture(path / "a.png") == b"a" * 100


def test_cut_gzip_streams_keep_what_is_before(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    members = {f"{n}.png": rng.bytes(40_000) for n in range(8)}
    packed = gzip.compress(archive(tmp_path / "whole.tar", members).read_bytes())
    path = tmp_path / "cut.tar.gz"
    path.write_bytes(packed[: len(packed) // 2])
    found: list[bytes] = []
    with tar.open_tar(path) as shard, pytest.raises(DataError, match="damaged or cut off"):
        found.extend(shard.read(member) for member in shard.members())
    assert found == list(members.values())[: len(found)]
    assert 2 <= len(found) <= 4
    assert read_picture(path / "1.png") == members["1.png"]


@pytest.mark.parametrize("content", [b"no archive at all" * 100, b"x", b"\x1f\x8b broken"])
def test_files_that_are_no_archives(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(content)
    with tar.open_tar(path) as shard, pytest.raises(DataError):
        list(shard.members())
    for _ in range(2):  # the second time from the record of the error
        with pytest.raises(OSError, match="damaged"):
            read_picture(path / "a.png")


def test_unpacked_size_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = archive(tmp_path / "bomb.tar.gz", {"a.png": bytes(3_000_000), "b.png": b"b"}, "w:gz")
    assert names_in(bomb) == ["a.png", "b.png"]
    monkeypatch.setattr(tar, "MIN_UNPACKED", 1_000_000)
    with pytest.raises(DataError):
        names_in(bomb)
    with pytest.raises(OSError):
        read_picture(bomb / "b.png")


def test_a_full_disk_is_met_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = archive(tmp_path / "a.tar.gz", {"a.png": png(1)}, "w:gz")
    calls = []

    def full(**options: Any) -> io.BytesIO:
        calls.append(options)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    for _ in range(3):
        with pytest.raises(OSError, match="TMPDIR"):
            read_picture(path / "a.png")
    assert len(calls) == 1


@pytest.mark.parametrize(
    "size", [b"\xff" * 12, b"\x80" + b"\xff" * 11, b"-0000000017\0", b"9" * 12]
)
def test_impossible_sizes(tmp_path: Path, size: bytes) -> None:
    path = archive(tmp_path / "a.tar", {"a.png": b"a" * 100})
    data = bytearray(path.read_bytes())
    data[124:136] = size
    checksum = sum(data[:148]) + 256 + sum(data[156:512])
    data[148:156] = b"%06o\0 " % checksum
    path.write_bytes(data)
    with pytest.raises(DataError):
        names_in(path)


def test_impossible_sizes_of_members_that_are_left_out(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.tar", {"a.png": b"a" * 100})
    data = bytearray(path.read_bytes())
    data[124:136] = b"\x80\0\0\0" + b"\x7f" + b"\xff" * 7  # near 2 ** 63
    data[156:157] = b"D"
    data[148:156] = b"%06o\0 " % (sum(data[:148]) + 256 + sum(data[156:512]))
    path.write_bytes(data)
    with pytest.raises(DataError, match="end of the file"):
        names_in(path)


def test_headers_of_names_are_bounded(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.tar", {"n" * 3_000_000: b"a"}, format=tarfile.GNU_FORMAT)
    with pytest.raises(DataError, match="impossible size"):
        names_in(path)


def test_concatenated_archives_and_missing_end_marks(tmp_path: Path) -> None:
    one = archive(tmp_path / "1.tar", {"a.png": b"a"}).read_bytes()
    two = archive(tmp_path / "2.tar", {"b.png": b"b"}).read_bytes()
    path = tmp_path / "a.tar"
    problems = Problems()
    path.write_bytes(one + two + b"not zero" * 100)
    assert names_in(path, problems) == ["a.png", "b.png"]
    assert not problems
    assert read_picture(path / "b.png") == b"b"
    path.write_bytes(one[:1024])
    assert names_in(path, problems) == ["a.png"]
    assert len(problems) == 1


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        *(("a/b.png", "a/b.png"), ("./a//b.png", "a/b.png"), ("a/./b.png", "a/b.png")),
        *(("a/.b", "a/.b"), ("..a/b", "..a/b"), ("a/b/", "a/b"), (".", None), ("", None)),
        *(("/a", None), ("..", None), ("a/..", None), ("a/../b", None), ("a\0b", None)),
    ],
)
def test_safe_names(name: str, expected: str | None) -> None:
    assert tar.safe_name(name) == expected


ROWS = 150
"""More rows than a window of batches has."""


def table_file(folder: Path, kind: str, columns: dict[str, Any], rows: int = 40) -> Path:
    import pyarrow as pa
    import pyarrow.feather as feather
    import pyarrow.parquet as pq

    table = pa.table(columns)
    path = folder / f"table.{'parquet' if kind == 'parquet' else 'arrow'}"
    if kind == "parquet":
        pq.write_table(table, path, row_group_size=rows)
    elif kind == "feather":
        feather.write_feather(table, path, chunksize=rows, compression="lz4")
    else:
        with pa.ipc.new_stream(path, table.schema) as writer:
            writer.write_table(table, max_chunksize=rows)
    return path


@pytest.mark.parametrize("kind", ["parquet", "arrow", "feather"])
def test_pictures_in_columns_of_tables(tmp_path: Path, kind: str) -> None:
    import pyarrow as pa

    data = [png(n) for n in range(ROWS)]
    structs = [{"bytes": one, "path": f"{n}.png"} for n, one in enumerate(data)]
    structs[3] = {"bytes": None, "path": "elsewhere.png"}
    columns = {
        "image": structs,
        "plain": data,
        "large": pa.array(data, pa.large_binary()),
        "a/b%2F": data,
        "..": data,
        "several": [[one, one[::-1]] for one in data],
        "listed": [[structs[5], structs[n]] for n in range(ROWS)],
        "number": list(range(ROWS)),
    }
    path = table_file(tmp_path, kind, columns)
    order = [*range(ROWS), 0, 149, 75, 74, 7]
    for column in ("image", "plain", "large", "a/b%2F", ".."):
        for row in order if column == "image" else (0, 40, 149):
            name = Path(tables.column_path(path, column), str(row))
            if (column, row) != ("image", 3):
                assert read_picture(name) == data[row], name
    assert read_picture(path / "several/9/1") == data[9][::-1]
    assert read_picture(path / "listed/9/1") == data[9]
    for missing in (
        *("image/3", "image/150", "image/x", "image", "image/1/0", "image/1/0/0", "none/1"),
        *("number/1", "several/1", "several/1/2", "image/-1", "image/²"),
    ):
        with pytest.raises(FileNotFoundError):
            read_picture(path / missing)


@pytest.mark.parametrize("kind", ["parquet", "arrow", "feather"])
def test_threads_read_one_table(tmp_path: Path, kind: str) -> None:
    data = [png(n) for n in range(ROWS)]
    path = table_file(tmp_path, kind, {"image": data}, rows=7)
    order = np.random.default_rng(0).permutation(ROWS).tolist()
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(read_picture, [path / "image" / str(row) for row in order]))
    assert found == [data[row] for row in order]


@pytest.mark.parametrize("kind", ["parquet", "arrow", "feather"])
def test_damaged_tables_raise_oserror(tmp_path: Path, kind: str) -> None:
    data = [bytes([n]) * 3000 for n in range(50)]
    whole = table_file(tmp_path, kind, {"image": data}).read_bytes()
    rng = np.random.default_rng(1)
    for number in range(60):
        content = bytearray(whole)
        if number % 3:
            for place in rng.integers(0, len(content), 4):
                content[place] ^= int(rng.integers(1, 256))
        else:
            content = content[: int(rng.integers(0, len(content)))]
        path = tmp_path / f"{number}.{'parquet' if kind == 'parquet' else 'arrow'}"
        path.write_bytes(content)
        for row in (0, 49):
            try:
                read_picture(path / "image" / str(row))
            except OSError:
                pass
        path.unlink()


def test_the_window_of_a_table_is_small(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = np.random.default_rng(0)
    table = pa.table({"image": [rng.bytes(200_000) for _ in range(400)]})
    path = tmp_path / "one-group.parquet"
    pq.write_table(table, path, write_batch_size=4)  # many pages
    del table
    before = pa.total_allocated_bytes()
    highest = 0
    for row in range(400):
        read_picture(path / "image" / str(row))
        highest = max(highest, pa.total_allocated_bytes() - before)
    assert highest < 50_000_000


FOOTERS = """
import sys
from pathlib import Path
from xmodal.data.readers.read import read
from xmodal.errors import DataError

path, whole = Path(sys.argv[1]), Path(sys.argv[1]).read_bytes()
length = int.from_bytes(whole[-8:-4], "little")
for place in range(len(whole) - 8 - length, len(whole)):
    content = bytearray(whole)
    content[place] ^= 1 + place % 7
    path.write_bytes(content)
    try:
        read(path)
    except DataError:
        pass
"""


def test_no_damaged_footer_of_parquet_ends_the_process(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({"image": [[png(1)], [png(2)]]})
    pq.write_table(table, tmp_path / "a.parquet", store_schema=False)
    command = [sys.executable, "-c", FOOTERS, str(tmp_path / "a.parquet")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def test_rows_without_values_are_limited(tmp_path: Path) -> None:
    path = tmp_path / "t.arrow"
    for rows, refused in ((50_000, False), (3_000_000, True)):
        table = pa.table({"text": pa.nulls(rows), "id": pa.nulls(rows)})
        with pa.ipc.new_stream(path, table.schema) as writer:
            writer.write_table(table)
        assert path.stat().st_size < 1000
        if refused:
            with pytest.raises(DataError, match="3,000,000 rows"):
                list(arrow.read_rows(path, Reading()))
        else:
            assert sum(1 for _ in arrow.read_rows(path, Reading())) == rows
