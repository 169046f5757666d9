"""Targets: folders of local indexes in which one file is changed."""

from __future__ import annotations

import functools
import itertools
import json
import shutil
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import xxhash
from fuzz.registry import Choices, folder, target

from xmodal.checksums import with_digest
from xmodal.codes import BinaryCodes
from xmodal.encoders.index_model import find_model
from xmodal.errors import XmodalError
from xmodal.index.contract import WordsQuery
from xmodal.index.documents import DocumentBatch
from xmodal.index.folder import MODEL_RECORD
from xmodal.index.local import FILE, HammingIndex, open_folder
from xmodal.index.query_codes import QueryCodes
from xmodal.index.segments.commit import read_commit, write_commit

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


def _commit_seeds() -> list[bytes]:
    return [bytes([v]) + (index_folder(bool(v)) / FILE).read_bytes() for v in (0, 1)]


@target(_commit_seeds)
def index_commit(data: bytes) -> None:
    """An index whose commit file has other content, with a valid digest."""
    try:
        content = with_digest(dict(json.loads(data[1:])))
        text = json.dumps(content, indent=1, ensure_ascii=False).encode() + b"\n"
    except (ValueError, TypeError, RecursionError):
        return
    changed = folder() / "changed-index"
    shutil.rmtree(changed, ignore_errors=True)
    shutil.copytree(index_folder(bool(data[0] & 1)), changed)
    (changed / FILE).write_bytes(text)
    use(changed)


def _directory_seeds() -> list[bytes]:
    seeds = []
    for vectors in (0, 1):
        record = read_commit(index_folder(bool(vectors)) / FILE).segments[0]
        content = (index_folder(bool(vectors)) / record.name).read_bytes()
        seeds.append(bytes([vectors]) + content[record.file.directory :])
    return seeds


@target(_directory_seeds)
def index_directory(data: bytes) -> None:
    """An index whose segment has another directory of columns, with a valid checksum."""
    changed = folder() / "changed-index"
    shutil.rmtree(changed, ignore_errors=True)
    shutil.copytree(index_folder(bool(data[0] & 1)), changed)
    commit = read_commit(changed / FILE)
    [record] = commit.segments
    content = (changed / record.name).read_bytes()[: record.file.directory] + data[1:]
    (changed / record.name).write_bytes(content)
    checksum = xxhash.xxh3_64_intdigest(data[1:])
    file = record.file._replace(size=len(content), checksum=checksum)
    (changed / FILE).unlink()
    write_commit(changed / FILE, commit._replace(segments=(record._replace(file=file),)))
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
