"""Targets: folders of local indexes in which one file is changed."""

from __future__ import annotations

import functools
import itertools
import json
import shutil
import zlib
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow.parquet as pq
from fuzz.registry import Choices, folder, target

from xmodal.codes import BinaryCodes
from xmodal.encoders.index_model import find_model
from xmodal.errors import XmodalError
from xmodal.index import parquet
from xmodal.index.bm25 import BM25
from xmodal.index.contract import WordsQuery
from xmodal.index.documents import DocumentBatch
from xmodal.index.local import FILE, MODEL_RECORD, HammingIndex, open_folder
from xmodal.index.postings import Postings
from xmodal.index.query_codes import QueryCodes
from xmodal.index.vector_file import MappedVectors, files_from_json

BITS = 16


@functools.cache
def index_folder(vectors: bool) -> Path:
    """Return the folder of an index of three documents, with vectors or without."""
    path = folder() / f"index-{vectors}"
    rng = np.random.default_rng(0)
    outputs = rng.standard_normal((3, BITS)).astype(np.float32)
    queries = QueryCodes.of(outputs)
    fields = [{"text": "a red shoe", "price": n, "image": f"/x/{n}.png"} for n in range(3)]
    index = open_folder(path, bits=BITS, fingerprint="f", create=True)
    int8 = {f"{m}_vectors": queries.vectors for m in ("image", "text")} if vectors else {}
    codes = queries.codes
    index.add(DocumentBatch.of(["a", "b", "c"], image=codes, text=codes, fields=fields, **int8))
    numbers = itertools.count()
    with patch("secrets.token_hex", lambda length: f"{next(numbers):0{2 * length}x}"):
        index.save()  # under the same names in every process, so that inputs can be kept
    (path / MODEL_RECORD).write_text('{"model": "model", "fingerprint": "f"}')
    return path


def files(vectors: bool) -> list[str]:
    """Return the names of the files of an index, in an order that does not depend on them."""
    names = [path.name for path in index_folder(vectors).iterdir() if path.name != "lock"]
    return sorted(names, key=lambda name: name.rpartition("-")[0] or name)


def _file_seeds() -> list[bytes]:
    return [
        bytes([vectors, place]) + (index_folder(bool(vectors)) / name).read_bytes()
        for vectors in (0, 1)
        for place, name in enumerate(files(bool(vectors)))
    ]


@target(_file_seeds)
def index_file(data: bytes) -> None:
    """An index in which one file has the bytes."""
    choices = Choices(data)
    vectors = bool(choices.number(2))
    name = choices.pick(files(vectors))
    changed = folder() / "changed-index"
    shutil.rmtree(changed, ignore_errors=True)
    shutil.copytree(index_folder(vectors), changed)
    (changed / name).write_bytes(choices.rest())
    use(changed)


def _metadata(vectors: bool) -> dict[str, str]:
    stored = pq.read_schema(index_folder(vectors) / FILE).metadata
    return {key.decode(): value.decode() for key, value in stored.items()}


def _metadata_seeds() -> list[bytes]:
    return [bytes([v]) + json.dumps(_metadata(bool(v))).encode() for v in (0, 1)]


@target(_metadata_seeds)
def index_metadata(data: bytes) -> None:
    """An index whose Parquet file has other metadata, with a valid checksum."""
    try:
        metadata = {str(k): str(v) for k, v in dict(json.loads(data[1:])).items()}
        "".join((*metadata, *metadata.values())).encode()
    except (ValueError, TypeError, RecursionError):
        return
    vectors = bool(data[0] & 1)
    changed = folder() / "changed-index"
    shutil.rmtree(changed, ignore_errors=True)
    shutil.copytree(index_folder(vectors), changed)
    table = pq.read_table(changed / FILE)
    metadata.pop("xmodal.seal", None)
    metadata["xmodal.seal"] = parquet._checksum(table, metadata)
    pq.write_table(
        table.replace_schema_metadata(metadata), changed / FILE, write_page_checksum=True
    )
    use(changed)


def use(path: Path) -> None:
    """Do with an index what the commands search, index and info do; raises its own errors."""
    index = open_folder(path)
    outputs = np.linspace(-1, 1, index.bits, dtype=np.float32)[None]
    queries = QueryCodes.of(outputs)
    uses: list[Any] = [
        lambda: index.search(queries, 3, target="image"),
        lambda: index.search(queries.codes, 3, target="text", where={"price": 1}),
        lambda: index.search_words([WordsQuery("red shoes", "blue")], 3, target="text"),
        lambda: index.measure(queries, ["a", "c"], target="text"),
        lambda: index.get(["a", "x"]),
        lambda: (index.facets(), index.count_codes(), index.count("image"), index.disk_usage()),
        lambda: list(index.entries()),
        lambda: find_model(str(path)),
        lambda: _add(index),
        lambda: index.delete(["a"]),
        index.close,
        lambda: open_folder(path).get(["a"]),
    ]
    for one in uses:
        try:
            one()
        except XmodalError as error:
            assert "\n" not in str(error)


def _add(index: HammingIndex) -> None:
    n, dim = 1, index.dim
    vectors = {} if dim is None else {"image_vectors": np.ones((n, dim), np.int8)}
    codes = BinaryCodes.from_relaxed(np.ones((n, index.bits)))
    index.add(DocumentBatch.of(["b"], image=codes, fields=[{"price": 2}], **vectors))


def _postings_seeds() -> list[bytes]:
    path = folder() / "postings"
    path.unlink(missing_ok=True)
    words = [(0, ["red", "shoe"]), (1, ["blue", "red", "red"]), (3, ["é" * 3])]
    Postings.of(words, 4).write(path)
    return [path.read_bytes()]


@target(_postings_seeds)
def postings(data: bytes) -> None:
    """A file of words with a valid checksum; a file that was read is searched."""
    path = folder() / "postings"
    path.write_bytes(data)
    try:
        read = Postings.read(path, zlib.crc32(data))
    except OSError:
        return
    BM25(read).search("red shoe", "", 3, np.ones(len(read), np.bool_))


def _record_seeds() -> list[bytes]:
    return [_metadata(True)["xmodal.vectors"].encode(), b"{}"]


@target(_record_seeds)
def vector_records(data: bytes) -> None:
    """The records of files of vectors, and the opening of these files."""
    try:
        records = files_from_json(data.decode())
    except ValueError:
        return
    MappedVectors.open(index_folder(True), records).verify()
