"""Targets: shards, Arrow files, and folders as the library ``datasets`` saves them."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import tarfile
from typing import Any

import pyarrow as pa
from fuzz.reader_targets import ROWS, check, read_table
from fuzz.registry import Choices, folder, target

from xmodal.data.readers.read import read

PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)
BLOCK = 512


def _arrow(table: Any, as_file: bool) -> bytes:
    sink = io.BytesIO()
    writer = (pa.ipc.new_file if as_file else pa.ipc.new_stream)(sink, table.schema)
    with writer:
        writer.write_table(table)
    return sink.getvalue()


def _arrow_seeds() -> list[bytes]:
    plain = pa.Table.from_pylist([{k: r[k] for k in ("file_name", "text", "id")} for r in ROWS])
    features = {"label": {"names": ["red", "blue"], "_type": "ClassLabel"}}
    hub = pa.table({"image": [{"bytes": PNG, "path": "a.png"}], "label": [1], "t": [["a", "b"]]})
    info = {"huggingface": json.dumps({"info": {"features": features}})}
    tables = [plain, hub.replace_schema_metadata(info)]
    return [b"\0" + _arrow(table, as_file) for table in tables for as_file in (False, True)]


@target(_arrow_seeds)
def arrow(data: bytes) -> None:
    """An .arrow file or stream with changed bytes."""
    read_table(".arrow", data)


def _tar(format_: int, *files: tuple[str, bytes]) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=format_) as archive:
        for name, content in files:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return sink.getvalue().rstrip(b"\0") + bytes(2 * BLOCK)


def _tar_seeds() -> list[bytes]:
    files = [("a.png", PNG), ("a.txt", b"a dog"), ("a.json", b'{"price": 1}'), ("a.cls", b"red")]
    formats = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)
    contents = [_tar(format_, *files[:n]) for format_ in formats for n in (2, 4)]
    contents += [_tar(f, ("x/" * 60 + "é.png", PNG), ("b.txt", b"two")) for f in formats[1:]]
    packed = [bytes([1, 0]) + gzip.compress(content) for content in contents[:2]]
    return [bytes([kind, 0]) + content for content in contents for kind in (0, 2)] + packed


def with_checksums(tar: bytes) -> bytes:
    """Return an archive whose headers have the right checksums, so that they are read."""
    blocks = [tar[start : start + BLOCK] for start in range(0, len(tar), BLOCK)]
    for place, block in enumerate(blocks):
        if block[257:262] == b"ustar" and len(block) == BLOCK:
            sums = sum(block) - sum(block[148:156]) + 8 * ord(" ")
            blocks[place] = block[:148] + b"%06o\0 " % sums + block[156:]
    return b"".join(blocks)


@target(_tar_seeds)
def tar(data: bytes) -> None:
    """A webdataset shard; the first byte chooses its compression."""
    choices = Choices(data)
    kind, option = choices.number(4), choices.bytes(1)
    content = choices.rest()
    if kind != 1:  # no compression, or a valid one
        content = with_checksums(content)
    if kind > 1:
        content = gzip.compress(content, 1) if kind == 2 else pa.compress(content, "zstd", True)
    read_table(".tar" if kind == 0 else ".tar.gz", option + content)


HUB_FILES = ("state.json", "dataset_info.json", "dataset_dict.json", "data-00000-of-00001.arrow")


def _hub_seeds() -> list[bytes]:
    arrow = _arrow_seeds()[2][1:]
    state = {"_data_files": [{"filename": HUB_FILES[3]}], "_fingerprint": "f", "_split": "train"}
    contents = [json.dumps(state).encode(), b"{}", b'{"splits": ["train"]}', arrow]
    return [bytes([place]) + content for place, content in enumerate(contents)]


@target(_hub_seeds)
def saved_dataset(data: bytes) -> None:
    """A folder of ``save_to_disk`` in which one file has the bytes."""
    choices, root = Choices(data), folder() / "hub"
    place, content = choices.number(len(HUB_FILES)), choices.rest()
    shutil.rmtree(root, ignore_errors=True)
    (root / "train").mkdir(parents=True)
    for number, seed in enumerate(_hub_seeds()):
        name = HUB_FILES[number]
        if name != "dataset_dict.json" or place == number:
            parent = root / "train" if place == 2 and name != "dataset_dict.json" else root
            (parent / name).write_bytes(content if place == number else seed[1:])
    check(read(root, need_pictures=False))
