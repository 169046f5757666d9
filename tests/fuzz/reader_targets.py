"""Targets: readers of tables, folders, cells and features."""

from __future__ import annotations

import io
import json
import os
import shutil
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from fuzz.registry import Choices, folder, target

from xmodal.data.dataset import Dataset
from xmodal.data.feature_file import read_feature_file
from xmodal.data.images import image_size
from xmodal.data.items import ImageSource
from xmodal.data.packed import read_picture
from xmodal.data.readers import values
from xmodal.data.readers.columns import label_candidates
from xmodal.data.readers.read import read
from xmodal.errors import DataError, XmodalError
from xmodal.features.from_file import with_features
from xmodal.index.documents import fields_to_json
from xmodal.index.validation import check_ids
from xmodal.index.words import document_words

ENCODINGS = (None, None, None, "utf-8", "cp1252", "utf-16", "utf-32", "shift_jis", "utf-7", "idna")
ROWS = [
    {"file_name": "a.png", "text": "a red circle", "id": "1", "split": "train", "labels": "red|x"},
    {"file_name": "b.png", "text": "['a dot', 'two']", "id": "2", "split": "val", "labels": "[]"},
    {"file_name": "a.png", "text": 'naïve, "quoted"\nline', "id": "1", "split": "test", "n": 1.5},
]


def read_table(ending: str, data: bytes) -> None:
    """Read the bytes after the first one, which chooses options, as a table."""
    choices = Choices(data)
    option = choices.number(256)
    path = _pictures() / f"table{ending}"
    path.write_bytes(choices.rest())
    check(
        read(
            path,
            need_pictures=bool(option & 1),
            label_column="labels" if option & 2 else None,
            labels_from="folders" if option & 4 and not option & 2 else None,
            encoding=ENCODINGS[(option >> 3) % len(ENCODINGS)],
        )
    )


def check(data: Dataset) -> None:
    """Do with items what training and indexing do: nothing that was read may be refused there."""
    data.problems.summary_lines()
    label_candidates(data)
    try:
        check_ids(data.ids)
        for item in data:
            document = item.document()
            fields_to_json(document, item.id)
            document_words(document, item.id)
            for image in item.images[:2]:
                _use_picture(image)
    except XmodalError as error:
        raise AssertionError(f"an item that was read cannot be stored: {error}") from error


def _use_picture(image: ImageSource) -> None:
    """Do with a picture what an encoder does; it may be missing or damaged."""
    with suppress(OSError):
        read_picture(image)
    with suppress(DataError):
        image_size(image)


def _pictures() -> Path:
    path = folder() / "tables"
    if not path.is_dir():
        path.mkdir()
        for name in ("a.png", "b.png"):
            (path / name).write_bytes(b"picture")
    return path


def _with_options(*contents: bytes) -> list[bytes]:
    return [bytes([option]) + content for content in contents for option in (0, 2)]


def _delimited_seeds() -> list[bytes]:
    text = 'file_name,text,id,labels\na.png,a dog,1,x|y\nb.png,"two, ""dogs""\nrun",2,\n'
    plain = [text, text.replace(",", "\t"), text.replace(",", "; "), text.replace(",", "|")]
    plain += ["sep=;\n" + plain[2], "\ufeff" + text]
    return _with_options(*(one.encode() for one in plain), text.encode("utf-16"))


@target(_delimited_seeds)
def delimited(data: bytes) -> None:
    """A .csv file."""
    read_table(".csv", data)


@target(lambda: _with_options(b"a.png#0\ta dog\na.png#1\ttwo dogs\nb.png#0\tna\xc3\xafve\n"))
def flickr_token(data: bytes) -> None:
    """A .txt file, which is a Flickr token file or a table."""
    read_table(".txt", data)


@target(lambda: _with_options("\n".join(map(json.dumps, ROWS)).encode()))
def json_lines(data: bytes) -> None:
    """A .jsonl file."""
    read_table(".jsonl", data)


def _json_seeds() -> list[bytes]:
    images = [{"id": 1, "file_name": "a.png"}, {"id": "2", "file_name": "b.png"}]
    coco = {"images": images, "annotations": [{"image_id": 1, "caption": "a dog"}]}
    sentences = [{"raw": "a dog", "tokens": ["a", "dog"]}]
    karpathy = {"images": [{"filename": "a.png", "filepath": ".", "sentences": sentences}]}
    turns = [{"from": "human", "value": "<image>\nwhat?"}, {"from": "gpt", "value": "a dog"}]
    llava = [{"id": "1", "image": "a.png", "conversations": turns}]
    contents: list[Any] = [ROWS, coco, karpathy, llava]
    return _with_options(*(json.dumps(one).encode() for one in contents))


@target(_json_seeds)
def json_file(data: bytes) -> None:
    """A .json file: a list, COCO captions, Karpathy's format, LLaVA conversations."""
    read_table(".json", data)


def _parquet_bytes(table: Any, **options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, **options)
    return sink.getvalue()


def _parquet_seeds() -> list[bytes]:
    table = pa.Table.from_pylist([{k: r[k] for k in ("file_name", "text", "id")} for r in ROWS])
    nested = pa.table({"image": [{"bytes": b"x", "path": "a.png"}], "caption": [["a", "b"]]})
    options = ({"compression": "none"}, {"compression": "zstd"}, {"use_dictionary": False})
    return _with_options(*(_parquet_bytes(table, **o) for o in options), _parquet_bytes(nested))


@target(_parquet_seeds)
def parquet(data: bytes) -> None:
    """A .parquet file with changed bytes."""
    read_table(".parquet", data)


FIXED_TYPES = [
    *(pa.int8(), pa.int64(), pa.uint64(), pa.float16(), pa.float32(), pa.float64()),
    *(pa.date32(), pa.date64(), pa.time32("s"), pa.time64("us"), pa.time64("ns")),
    *(pa.timestamp("s"), pa.timestamp("us", "UTC"), pa.timestamp("ns"), pa.timestamp("ms", "+1:0")),
    *(pa.duration("s"), pa.duration("ns"), pa.decimal128(38, 9), pa.decimal256(76, -5)),
    *(pa.binary(3), pa.binary(16)),
]
"""Types whose values are a fixed number of bytes, of any content."""
NAMES = ("image", "caption", "id", "split", "labels", "price", "file_name", "text", "\x00", "a b")


def _column(choices: Choices, rows: int) -> Any:
    """Return an array of a chosen type with chosen bytes; also values that Python cannot hold."""
    kind = choices.number(8)
    if kind < 4:
        type_ = choices.pick(FIXED_TYPES)
        buffer = pa.py_buffer(choices.bytes(rows * type_.bit_width // 8))
        return pa.Array.from_buffers(type_, rows, [None, buffer])
    texts = [choices.text() for _ in range(rows)]
    if kind == 4:
        return pa.array(texts, pa.binary())
    strings = pa.array(texts, pa.binary()).view(pa.string())  # also invalid UTF-8
    if kind == 5:
        return strings
    if kind == 6:
        return pa.ListArray.from_arrays(pa.array(range(rows + 1), pa.int32()), strings)
    named = [choices.pick(("bytes", "path", "raw", "x")), choices.pick(("path", "y"))]
    return pa.StructArray.from_arrays([pa.array(texts, pa.binary()), strings], named)


@target(lambda: [bytes([2, 5, n, 3, *b"a.png", 5, *b"red", *range(40)]) for n in range(8)])
def typed_table(data: bytes) -> None:
    """A .parquet or .arrow table of chosen types and values."""
    choices = Choices(data)
    rows, option = 1 + choices.number(3), choices.number(256)
    names = list(dict.fromkeys(choices.pick(NAMES) for _ in range(1 + choices.number(5))))
    table = pa.table({name: _column(choices, rows) for name in names})
    sink = io.BytesIO()
    try:
        pq.write_table(table, sink)
    except (pa.ArrowException, OSError, ValueError, OverflowError):
        return  # values that Parquet cannot hold
    read_table(".parquet", bytes([option]) + sink.getvalue())
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    read_table(".arrow", bytes([option]) + sink.getvalue())


FILES = (
    *("a.png", "a.txt", "a.caption", "a.json", "b.jpg", "b.txt", "metadata.jsonl", "metadata.csv"),
    *("train/a.png", "train/a.txt", "train/metadata.jsonl", "images/a.png", "text/a.txt"),
    *("captions.txt", "annotations/captions_x.json", "dataset.json", "x.token.txt", "@eaDir/a.png"),
)


def _folder_seeds() -> list[bytes]:
    def packed(*files: tuple[str, bytes]) -> bytes:
        return b"".join(
            bytes([FILES.index(name), len(content)]) + content for name, content in files
        )

    picture = ("a.png", b"x")
    return [
        packed(picture, ("a.txt", b"a dog"), ("b.jpg", b"y"), ("b.txt", b"na\xefve")),
        packed(picture, ("a.json", b'{"caption": "a dog"}'), ("a.caption", b"two dogs")),
        packed(picture, ("metadata.jsonl", b'{"file_name": "a.png", "text": "x"}')),
        packed(("train/a.png", b"x"), ("train/metadata.jsonl", b'{"file_name": "a.png"}')),
        packed(("images/a.png", b"x"), ("text/a.txt", b"a dog")),
        packed(picture, ("captions.txt", b"image,caption\na.png,a dog\n")),
        packed(picture, ("x.token.txt", b"a.png#0\ta dog\n")),
        packed(picture, ("dataset.json", _json_seeds()[4][1:])),
        packed(picture, ("annotations/captions_x.json", _json_seeds()[2][1:])),
    ]


@target(_folder_seeds)
def picture_folder(data: bytes) -> None:
    """A folder of a few files with chosen names, one of them with a name of chosen bytes."""
    choices, root = Choices(data), folder() / "pictures"
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    for _ in range(8):
        name = choices.pick((*FILES, None))
        content = choices.bytes(choices.number(256))
        if name is None:
            bare = content[:100].replace(b"/", b"").replace(b"\0", b"")
            path = root / os.fsdecode(b"n" + bare + b".png")
        else:
            path = root / name
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)
        if not choices.rest():
            break
    check(read(root))


def _cell_seeds() -> list[bytes]:
    texts = ["a dog", "['a', 'b']", '["a", null]', "[{'raw': 'x'}]", "1.5", "a|b", "nan", "[1 2]"]
    texts += ["['a' 'b']", '{"path": "a.png"}', "{'caption': ['x']}"]
    return [bytes([kind]) + text.encode() for text in texts for kind in (0, 1)]


@target(_cell_seeds)
def cells(data: bytes) -> None:
    """One cell of a table: a text, or a JSON value."""
    value: Any = data[1:].decode("utf-8", "surrogateescape")
    if data[:1] == b"\1":
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return
    texts = [*values.clean_captions(value)[0], *(values.clean_labels(value) or ())]
    "".join(texts).encode()  # valid Unicode
    values.clean_pictures(value)
    values.clean_scalar(value)
    json.dumps(values.clean_field(values.plain_value(value)), allow_nan=False).encode()
    values.unstorable_kind(value)


ARRAYS = ("ids", "image", "text", "rows", "split", "labels", "classes", "other")


def _npy(array: Any) -> bytes:
    sink = io.BytesIO()
    np.save(sink, array, allow_pickle=False)
    return sink.getvalue()


def _npy_seeds() -> list[bytes]:
    arrays = [np.ones((2, 3), np.float32), np.ones((2, 2, 3), np.float16), np.array(["a", "b"])]
    arrays += [np.array([0, 1]), np.array([b"a"]), np.asfortranarray(np.ones((2, 3)))]
    return [bytes([place]) + _npy(array) for array in arrays for place in (0, 1, 2, 3, 5)]


@target(_npy_seeds)
def npy(data: bytes) -> None:
    """Two .npy files, of which one has the bytes; or an .npz with one such array beside others."""
    choices = Choices(data)
    place = choices.number(len(ARRAYS))
    content, good = choices.rest(), np.ones((2, 3), np.float32)
    root = folder()
    (root / "changed.npy").write_bytes(content)
    np.save(root / "good.npy", good)
    _use_features([root / "changed.npy", root / "good.npy"])
    arrays = {"ids": np.array(["a", "b"]), "image": good, "text": good}
    with zipfile.ZipFile(root / "features.npz", "w") as archive:
        for name in ARRAYS:
            if name == ARRAYS[place]:
                archive.writestr(f"{name}.npy", content)
            elif name in arrays:
                archive.writestr(f"{name}.npy", _npy(arrays[name]))
    _use_features([root / "features.npz"])


def _npz_seeds() -> list[bytes]:
    sink, packed = io.BytesIO(), io.BytesIO()
    arrays = {"ids": np.array(["a"]), "image": np.ones((1, 2)), "text": np.ones((1, 2))}
    np.savez(sink, **arrays)
    np.savez_compressed(packed, **arrays)
    return [sink.getvalue(), packed.getvalue()]


@target(_npz_seeds)
def npz(data: bytes) -> None:
    """An .npz file with changed bytes."""
    path = folder() / "features.npz"
    path.write_bytes(data)
    _use_features([path])


def _mat_seeds() -> list[bytes]:
    from scipy.io import savemat

    contents = []
    arrays = {"ids": np.array(["a", "b"], object), "image": np.ones((2, 3)), "rows": [1, 2]}
    for options in ({"format": "5"}, {"format": "5", "do_compression": True}, {"format": "4"}):
        sink = io.BytesIO()
        savemat(sink, {"image": np.ones((2, 3))} if options["format"] == "4" else arrays, **options)
        contents.append(sink.getvalue())
    return contents


@target(_mat_seeds, "scipy")
def mat(data: bytes) -> None:
    """A .mat file with changed bytes."""
    path = folder() / "features.mat"
    path.write_bytes(data)
    _use_features([path])


def _use_features(paths: Sequence[Path]) -> None:
    try:
        file = read_feature_file(list(paths))
        data = file.dataset("labels" if file.labels else None)
        assert file.digest
        _, source = with_features(data, file)
        for modality in file.rows:
            source.features(modality, data.items[:5], data.problems)
    except XmodalError as error:
        assert "\n" not in str(error)
