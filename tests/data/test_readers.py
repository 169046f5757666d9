"""Tests of the readers: layouts, columns, values, problems of unusable rows and files."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from xmodal.data.dataset import Dataset
from xmodal.data.items import Item
from xmodal.data.problems import Problems
from xmodal.data.readers.columns import (
    LABEL_COLUMN_NAMES,
    Columns,
    label_candidates,
)
from xmodal.data.readers.read import read
from xmodal.data.readers.values import MAX_TEXT
from xmodal.errors import ConfigError, DataError

ROWS = [
    {"file_name": "a.png", "text": "a red shoe", "label": "shoe", "price": 10},
    {"file_name": "sub/b.png", "text": "a blue hat", "label": "hat", "price": 25},
]
TABLES = ("t.csv", "semicolons.csv", "t.tsv", "t.jsonl", "t.ndjson", "t.json", "t.parquet")


def write_picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4), "red").save(path)
    return path


def write_table(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """Write a table in the format of its ending; "semicolons.csv" is delimited by semicolons."""
    path.parent.mkdir(parents=True, exist_ok=True)
    suffix = path.suffix
    if suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(list(rows)), path)
    elif suffix == ".json":
        path.write_text(json.dumps(rows))
    elif suffix in (".jsonl", ".ndjson"):
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        delimiter = "\t" if suffix == ".tsv" else ";" if "semicolons" in path.name else ","
        with open(path, "w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
            writer.writeheader()
            writer.writerows(rows)
    return path


def write_lines(path: Path, *rows: dict[str, Any] | str | bytes) -> Path:
    """Write a JSON Lines file of objects; texts and bytes are written unchanged."""
    with open(path, "wb") as file:
        for row in rows:
            text = json.dumps(row) if isinstance(row, dict) else row
            file.write((text if isinstance(text, bytes) else text.encode()) + b"\n")
    return path


def not_in(problems: Problems, encoding: str) -> list[str]:
    """Return the lines that were recorded as not in ``encoding``."""
    kinds = [
        kind for kind in problems.count_by_kind() if kind.startswith(f"line not in {encoding}")
    ]
    return [name for kind in kinds for name in problems.names(kind)]


def items_by_id(data: Dataset) -> dict[str, Item]:
    return {item.id: item for item in data}


# ---- layouts ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TABLES)
def test_read_gives_the_same_items_for_every_table_format(tmp_path: Path, name: str) -> None:
    write_picture(tmp_path / "a.png")
    write_picture(tmp_path / "sub" / "b.png")
    data = read(write_table(tmp_path / name, ROWS), label_column="label")
    assert data.ids == ["a.png", "sub/b.png"] and data.name == name
    first, second = data
    assert first.captions == ("a red shoe",) and first.labels == ("shoe",)
    assert second.images[0] == tmp_path / "sub" / "b.png"
    assert [str(item.fields["price"]) for item in data] == ["10", "25"]
    assert len(data.problems) == 0


@pytest.mark.parametrize("name", ["metadata.jsonl", "metadata.csv", "metadata.parquet"])
def test_read_folder_with_a_metadata_table(tmp_path: Path, name: str) -> None:
    write_picture(tmp_path / "a.png")
    write_picture(tmp_path / "sub" / "b.png")
    write_picture(tmp_path / "not-in-the-table.png")
    write_table(tmp_path / name, ROWS)
    data = read(tmp_path)
    assert [(item.id, item.captions[0]) for item in data] == [
        ("a.png", "a red shoe"),
        ("sub/b.png", "a blue hat"),
    ]


def test_read_folder_takes_splits_from_subfolders_with_metadata(tmp_path: Path) -> None:
    for part, kind in (("train", "jsonl"), ("test", "csv")):
        write_picture(tmp_path / part / "a.png")
        write_table(tmp_path / part / f"metadata.{kind}", [{"file_name": "a.png", "text": part}])
    write_lines(
        tmp_path / "train" / "metadata.jsonl",
        {"file_name": "a.png", "text": "own split", "split": "validation"},
        {"text": "no picture", "file_name": None},
    )
    data = items_by_id(read(tmp_path))
    assert {id_: item.split for id_, item in data.items()} == {
        "test/a.png": "test",
        "train/a.png": "validation",
        "train/line 2": "train",
    }
    assert data["test/a.png"].images[0] == tmp_path / "test" / "a.png"


def test_read_folder_with_caption_files(tmp_path: Path) -> None:
    for name in ("b.jpg", "deep/er/A.PNG", "lonely.png", ".hidden.png", "empty.png", "latin.png"):
        write_picture(tmp_path / name)
    (tmp_path / "b.txt").write_text("\ufeffa  red\nshoe\n", encoding="utf-8")
    (tmp_path / "deep/er/A.txt").write_text("deep")
    (tmp_path / "empty.txt").write_text(" \n")
    (tmp_path / "latin.txt").write_bytes("café".encode("latin-1"))
    (tmp_path / "notes.txt").write_text("no picture has this name")
    data = read(tmp_path)
    assert {item.id: item.captions for item in data} == {
        "b.jpg": ("a red shoe",),
        "deep/er/A.PNG": ("deep",),
        "empty.png": (),
        "latin.png": (),
        "lonely.png": (),
    }
    assert all(item.images and item.labels is None for item in data)
    assert data.problems.names("caption empty") == ["empty.txt"]
    assert data.problems.names("caption not in UTF-8") == ["latin.txt"]


def test_picture_paths_are_relative_to_the_table_or_absolute(tmp_path: Path) -> None:
    far = write_picture(tmp_path / "far" / "a.png")
    other = write_picture(tmp_path / "far" / "b.png")
    rows = [{"image": far}, {"image": "../far/a.png"}, {"image": "../far/b.png"}]
    data = read(write_table(tmp_path / "near" / "t.csv", rows))
    assert data.ids == [str(far), "../far/b.png"]  # the second row names the picture of the first
    assert [item.images[0].resolve() for item in data] == [far, other]


# ---- columns ---------------------------------------------------------------------------------


@pytest.mark.parametrize("image", ["file_name", "image", "image_path", "filename", "path"])
@pytest.mark.parametrize("text", ["text", "caption", "title", "description"])
def test_usual_column_names_are_found(tmp_path: Path, image: str, text: str) -> None:
    write_picture(tmp_path / "a.png")
    [item] = read(write_table(tmp_path / "t.csv", [{text: "words", image: "a.png"}]))
    assert (item.images[0], item.captions[0], item.fields) == (tmp_path / "a.png", "words", {})


def test_first_usual_column_name_is_used_and_others_are_fields(tmp_path: Path) -> None:
    row = {"title": "short", "caption": "long", "name": "x", "id": 7, "label": "a", "class": "b"}
    [item] = read(write_table(tmp_path / "t.jsonl", [row]))
    assert (item.id, item.captions[0], item.labels) == ("7", "long", None)
    assert item.fields == {"title": "short", "name": "x", "label": "a", "class": "b"}


def test_named_columns_replace_usual_names(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.png")
    row = {"foto": "a.png", "worte": "rot", "art": "x|y", "nr": "n1", "teil": "test", "text": "no"}
    table = write_table(tmp_path / "t.csv", [row])
    [item] = read(table, Columns("foto", "worte", "art", "nr", "teil"))
    assert item == Item("n1", (tmp_path / "a.png",), ("rot",), ("x", "y"), {"text": "no"}, "test")
    with pytest.raises(ConfigError, match=r"'bild'.* foto, worte, art"):
        read(table, Columns(image="bild"))


def test_columns_include_those_of_later_rows_only(tmp_path: Path) -> None:
    table = write_lines(tmp_path / "t.jsonl", {"text": "one"}, {"text": "two", "labels": ["late"]})
    assert [item.labels for item in read(table, label_column="labels")] == [None, ("late",)]


@pytest.mark.parametrize("name", [*LABEL_COLUMN_NAMES, "Category"])
@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_labels_are_read_only_from_the_named_column(tmp_path: Path, name: str, kind: str) -> None:
    rows = [{"text": f"t{n}", name: value} for n, value in enumerate(["a|b", "b", "c", ""])]
    table = write_table(tmp_path / f"t.{kind}", rows)
    data = read(table)
    assert data.label_column is None and data.classes == ()
    assert [item.fields.get(name) for item in data] == ["a|b", "b", "c", None]
    assert label_candidates(data) == {name: 3}
    for named in (read(table, label_column=name), read(table, Columns(label=name))):
        assert [item.labels for item in named] == [("a", "b"), ("b",), ("c",), None]
        assert named.label_column == name and named.pairs().label_column == name
        assert all(name not in item.fields for item in named)
    with pytest.raises(ConfigError, match="'kind'"):
        read(table, label_column="kind")


def test_label_candidates_exclude_other_names_and_empty_columns(tmp_path: Path) -> None:
    rows = [{"text": "a", "colour": "red", "class": None}, {"text": "b", "colour": "blue"}]
    assert label_candidates(read(write_lines(tmp_path / "t.jsonl", *rows))) == {}


# ---- values ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "labels"),
    [
        (["shoe", "red"], ("shoe", "red")),
        ('["shoe", "red"]', ("shoe", "red")),
        ("shoe|red", ("shoe", "red")),
        (" shoe | red | shoe ", ("shoe", "red")),
        ("[not json", ("[not json",)),
        (3, ("3",)),
        ([1, 2], ("1", "2")),
        (["a", None, " "], ("a",)),
        (None, None),
        ("", None),
        ([], None),
        (float("nan"), None),
        ({"a": 1}, None),
    ],
)
def test_labels_are_parsed_from_lists_text_and_numbers(
    tmp_path: Path, value: object, labels: tuple[str, ...] | None
) -> None:
    [item] = read(
        write_lines(tmp_path / "t.jsonl", {"text": "words", "labels": value}), label_column="labels"
    )
    assert item.labels == labels


def test_fields_are_values_that_an_index_can_store(tmp_path: Path) -> None:
    row = {
        "text": "words",
        "price": 2.5,
        "year": 2011,
        "sale": True,
        "tags": ["a", None, "b"],
        "brand": " x ",
        "none": None,
        "empty": "",
        "nan": float("nan"),
        "infinite": float("inf"),
        "nested": {"a": 1},
    }
    [item] = read(write_lines(tmp_path / "t.jsonl", row))
    expected = {"price": 2.5, "year": 2011, "sale": True, "tags": ["a", "b"], "brand": "x"}
    assert item.fields == expected


def test_dates_of_parquet_become_iso_text(tmp_path: Path) -> None:
    from datetime import date

    [item] = read(
        write_table(tmp_path / "t.parquet", [{"text": "words", "day": date(2024, 2, 29)}])
    )
    assert item.fields == {"day": "2024-02-29"}


def test_captions_are_on_one_line_and_cut_to_the_maximum(tmp_path: Path) -> None:
    table = write_lines(
        tmp_path / "t.jsonl",
        {"text": " two\n lines\t"},
        {"text": ["first", "", "second"]},
        {"text": 42},
        {"text": "x" * (MAX_TEXT + 5)},
    )
    captions = [item.captions for item in read(table)]
    assert captions == [("two lines",), ("first", "second"), ("42",), ("x" * MAX_TEXT,)]


def test_ids_come_from_id_column_else_picture_else_line(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.png")
    table = write_lines(
        tmp_path / "t.jsonl",
        {"id": "i1", "file_name": "a.png", "text": "x"},
        {"file_name": "a.png", "text": "x"},
        {"text": "x"},
    )
    assert read(table).ids == ["i1", "a.png", "line 3"]


# ---- unusable rows and files ---------------------------------------------------------------------


def test_unusable_rows_are_recorded_and_the_others_read(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.png")
    write_picture(tmp_path / "c.png")
    table = write_lines(
        tmp_path / "t.jsonl",
        {"file_name": "a.png", "text": "good"},
        "{broken",
        b'{"text": "caf\xe9"}',
        "[1, 2]",
        "9" * 5000,
        "[" * 100_000,
        "",
        {"file_name": "gone.png", "text": "missing picture"},
        {"file_name": "https://example.org/a.png", "text": "picture is a URL"},
        {"file_name": "a.png", "id": "b", "text": "first of the id"},
        {"file_name": "c.png", "id": "b", "text": "repeated id"},
        {"file_name": "x" * 5000, "text": "file name too long"},
        {"file_name": "a\0b.png", "text": "file name with a zero byte"},
        {"file_name": "neither.png", "text": ""},
    )
    data = read(table)
    assert [item.captions[0] for item in data] == [
        "good",
        "missing picture",
        "picture is a URL",
        "first of the id",
        "file name too long",
        "file name with a zero byte",
    ]
    problems = data.problems
    bad_lines = [name.partition(" ")[2].split()[0] for name in problems.names("bad line")]
    assert bad_lines == ["2", "4", "5", "6"]
    assert not_in(problems, "UTF-8") == ["line 3"]
    assert problems.names("picture missing")[0] == "gone.png"
    assert problems.names("picture is a URL (download it first)") == ["https://example.org/a.png"]
    assert problems.names("id repeated, the first one stays") == ["b"]
    assert problems.names("row left out, it has neither picture nor text") == ["neither.png"]


def test_lone_surrogates_are_replaced_in_values_and_refused_in_ids(tmp_path: Path) -> None:
    table = write_lines(
        tmp_path / "t.jsonl",
        r'{"text": "half \ud83d emoji", "labels": ["\ud83d"], "brand": "\ud83d"}',
        r'{"id": "\ud83d", "text": "unusable id"}',
        {"id": "good", "text": "good"},
    )
    data = read(table, label_column="labels")
    assert [item.captions[0] for item in data] == ["half ? emoji", "good"]
    assert (data.items[0].labels, data.items[0].fields) == (("?",), {"brand": "?"})
    assert len(data.problems.names("id or file name is not valid Unicode, left out")) == 1
    for item in data:
        json.dumps(item.document(), ensure_ascii=False).encode()


def test_file_name_not_in_utf8_is_left_out(tmp_path: Path) -> None:
    write_picture(tmp_path / "good.png")
    raw = bytes(tmp_path) + b"/caf\xe9.png"
    with open(raw, "wb") as file:
        file.write((tmp_path / "good.png").read_bytes())
    data = read(tmp_path)
    assert data.ids == ["good.png"]
    assert len(data.problems.names("id or file name is not valid Unicode, left out")) == 1


def test_csv_rows_of_another_length_are_recorded_by_line(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_bytes(
        b'\xef\xbb\xbfid,text\n1,one\n2\n\n3,"over\ntwo lines"\n\xff,bad\n5,five,5\n6,six\n'
    )
    data = read(table)
    assert {item.id: item.captions[0] for item in data} == {
        "1": "one",
        "3": "over two lines",
        "6": "six",
    }
    assert data.problems.names("bad line") == [
        "line 3 has 1 values for 2 columns",
        "line 8 has 3 values for 2 columns",
    ]
    assert not_in(data.problems, "UTF-8") == ["line 7"]


def test_csv_header_beyond_the_field_limit_raises_data_error(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("x" * (csv.field_size_limit() + 1) + ",text\na,b\n")
    with pytest.raises(DataError, match=r"t\.csv"):
        read(tmp_path / "t.csv")


def test_json_element_that_is_no_object_is_recorded(tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text('[{"text": "one"}, 5]')
    data = read(tmp_path / "t.json")
    assert data.ids == ["row 1"] and data.problems.names("bad line") == ["row 2 is not an object"]


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl", "t.json"])
def test_read_without_usable_items_names_the_problems(tmp_path: Path, name: str) -> None:
    table = write_table(tmp_path / name, [{"image": "gone.png"}])
    with pytest.raises(DataError, match=r"1 x picture missing: gone\.png"):
        read(table)


def test_column_names_for_a_folder_without_table_raise_config_error(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.png")
    with pytest.raises(ConfigError, match="no metadata table"):
        read(tmp_path, Columns(text="title"))


# ---- encodings, quotes, missing values -------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-8-sig"])
@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "json"])
def test_unicode_encodings_and_line_ends_are_recognised(
    tmp_path: Path, encoding: str, ending: str, kind: str
) -> None:
    found = [("a", "größer\u2028 rot"), ("b", "a blue one, far")]
    if kind == "jsonl":
        text = ending.join(json.dumps({"id": i, "text": t}, ensure_ascii=False) for i, t in found)
    elif kind == "json":
        text = json.dumps([{"id": i, "text": t} for i, t in found], ensure_ascii=False)
    else:
        delimiter = "\t" if kind == "tsv" else ","
        text = ending.join([f"id{delimiter}text", *(f'{i}{delimiter}"{t}"' for i, t in found)])
    (tmp_path / f"t.{kind}").write_bytes(text.encode(encoding))
    data = read(tmp_path / f"t.{kind}")
    captions = {item.id: item.captions for item in data}
    assert captions == {"a": ("größer rot",), "b": ("a blue one, far",)}
    assert not len(data.problems)


@pytest.mark.parametrize("encoding", ["cp1252", "iso-8859-2", "shift_jis", "gb18030", "koi8-r"])
def test_named_encoding_is_used(tmp_path: Path, encoding: str) -> None:
    text = {"shift_jis": "赤い円", "gb18030": "红色的圆", "koi8-r": "красный"}.get(
        encoding, "größe"
    )
    table = tmp_path / "t.csv"
    table.write_bytes(f"id,text\na,{text}\n".encode(encoding))
    with pytest.raises(DataError, match="--encoding"):
        read(table)
    (item,) = read(table, encoding=encoding)
    assert item.captions == (text,)
    (tmp_path / "a.png").write_bytes(b"")
    (tmp_path / "a.txt").write_bytes(text.encode(encoding))
    table.unlink()
    assert [item.captions for item in read(tmp_path, encoding=encoding)] == [(text,)]


@pytest.mark.parametrize("encoding", ["nonsense", "hex", "a\0b"])
def test_unknown_encoding_raises_config_error(tmp_path: Path, encoding: str) -> None:
    table = write_lines(tmp_path / "t.jsonl", {"text": "a"})
    with pytest.raises(ConfigError, match="no such encoding"):
        read(table, encoding=encoding)


def test_header_that_cannot_be_decoded_is_named(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes("Größe,text\n1,a\n2,b\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"line 1 .*--encoding"):
        read(tmp_path / "t.csv")
    (tmp_path / "t.json").write_bytes('[{"text": "größer"}]'.encode("latin-1"))
    with pytest.raises(DataError, match=r"line 1 .*--encoding"):
        read(tmp_path / "t.json")


@pytest.mark.parametrize(
    ("lines", "ids", "bad"),
    [
        (['1,"one', "2,two", "3,three"], ["2", "3"], ["line 2"]),  # never closed
        (['1,"one', "2,two", '3,"three, really"', "4,four"], ["2", "3", "4"], ["line 2"]),
        (["1,one", '2,"two', '3,"three"', '4,"four'], ["1", "3"], ["line 3", "line 5"]),
        (['1,5" screen', "2,two"], ["1", "2"], []),
        (['1,"a ""red"" one"', '2,"a "red" one"', "3,three"], ["1", "2", "3"], []),
        (['1,"over', "", 'lines"', "2,two"], ["1", "2"], []),
        (['1,"one" x"', "2,two"], ["2"], ["line 2"]),
    ],
)
def test_broken_quotes_lose_their_own_line_only(
    tmp_path: Path, lines: list[str], ids: list[str], bad: list[str]
) -> None:
    (tmp_path / "t.csv").write_text("\n".join(["id,text", *lines]) + "\n")
    data = read(tmp_path / "t.csv")
    assert data.ids == ids
    found = data.problems.names("bad line")
    assert [name.partition(" opens a quote")[0] for name in found] == bad


@pytest.mark.parametrize("name", [" Caption ", "CAPTION", "\ufeffcaption", "Captions"])
def test_column_names_are_found_in_any_case_and_with_spaces(tmp_path: Path, name: str) -> None:
    write_picture(tmp_path / "a.png")
    (tmp_path / "t.csv").write_text(f'File Name, {name}, Size\na.png, "red, big", 3\n')
    for columns in (
        None,
        Columns(text=name),
        Columns(text="captions" if name[-1] == "s" else "caption"),
    ):
        (item,) = read(tmp_path / "t.csv", columns)
        assert (item.id, item.captions, item.fields) == ("a.png", ("red, big",), {"Size": "3"})
    table = write_lines(tmp_path / "t.jsonl", {"Image-Path": "a.png", name: "red"})
    assert [item.captions for item in read(table)] == [("red",)]


@pytest.mark.parametrize(
    "value", [None, float("nan"), "", " ", "NaN", "nan", "NULL", "None", "<NA>", "\\N"]
)
@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_missing_values_are_no_captions_ids_splits_or_labels(
    tmp_path: Path, value: Any, kind: str
) -> None:
    write_picture(tmp_path / "a.png")
    row = {"id": value, "image": "a.png", "text": value, "split": value, "label": value}
    other = {"id": "b", "image": value, "text": "a nanometre, null and none", "split": "test"}
    if kind == "parquet" and isinstance(value, float):
        row, other = ({k: v if v == v else None for k, v in d.items()} for d in (row, other))
    table = write_table(tmp_path / f"t.{kind}", [row, other | {"label": "c"}])
    first, second = read(table, label_column="label")
    assert first == Item("a.png", (tmp_path / "a.png",))
    assert second == Item("b", (), ("a nanometre, null and none",), ("c",), split="test")


@pytest.mark.parametrize(
    ("value", "captions"),
    [
        ({"raw": "a red circle"}, ["a red circle"]),
        ([{"raw": "one"}, {"text": "two"}, "three", None], ["one", "two", "three"]),
        ('["one", "two, three"]', ["one", "two, three"]),
        ("['one', \"it's two\"]", ["one", "it's two"]),
        ("['one' 'two'\n 'three']", ["one", "two", "three"]),
        ('{"raw": "one"}', ["one"]),
        ("[{'raw': 'one'}, {'raw': 'two'}]", ["one", "two"]),
        ("[laughs] a man", ["[laughs] a man"]),
        ("[sic]", ["[sic]"]),
        ("[1, 2]", ["[1, 2]"]),
        ("{braces}", ["{braces}"]),
        (["same", " same ", "other"], ["same", "same", "other"]),
    ],
)
def test_lists_and_objects_of_captions_are_understood(
    tmp_path: Path, value: Any, captions: list[str]
) -> None:
    (item,) = read(write_lines(tmp_path / "t.jsonl", {"caption": value}))
    assert item.captions == tuple(captions)


@pytest.mark.parametrize("value", [{"url": "x"}, [{"url": "x"}, "good"], True])
def test_caption_that_is_not_understood_is_recorded(tmp_path: Path, value: Any) -> None:
    data = read(write_lines(tmp_path / "t.jsonl", {"id": "a", "text": value}, {"text": "b"}))
    kinds = [kind for kind in data.problems.count_by_kind() if "object with raw" in kind]
    assert [data.problems.names(kind) for kind in kinds] == [["a"]]
    assert all("url" not in caption for item in data for caption in item.captions)


def test_long_names_are_shortened_in_the_summary(tmp_path: Path) -> None:
    table = write_lines(tmp_path / "t.jsonl", {"image": "x" * 5000, "text": "a"})
    assert max(map(len, read(table).problems.summary_lines())) < 300


# ---- kinds of values ---------------------------------------------------------------------------


def test_every_kind_of_a_parquet_column_is_stored_or_named(tmp_path: Path) -> None:
    utc = UTC
    moment = datetime(2024, 5, 1, 10, 30)
    columns = {
        "text": ["a", "b"],
        "id": pa.array([Decimal("7"), Decimal("8.50")], pa.decimal128(9, 2)),
        "price": pa.array([Decimal("1.50"), Decimal("20")], pa.decimal128(9, 2)),
        "exact": pa.array([Decimal("0.123456789012345678901")] * 2, pa.decimal128(30, 21)),
        "big": pa.array([Decimal(2**70)] * 2, pa.decimal128(38, 0)),
        "prices": pa.array([[Decimal("0.1")], None], pa.list_(pa.decimal128(9, 1))),
        "day": pa.array([date(2024, 5, 1), None]),
        "moment": pa.array([moment, moment.replace(microsecond=5)], pa.timestamp("us")),
        "utc": pa.array([moment.replace(tzinfo=utc)] * 2, pa.timestamp("ms", tz="UTC")),
        "clock": pa.array([time(10, 30)] * 2),
        "length": pa.array([timedelta(minutes=1, milliseconds=500)] * 2, pa.duration("ms")),
        "utf8": pa.array(["é".encode(), b"x\n"]),
        "bytes": pa.array([b"\xff", b"a\x00"]),
        "object": pa.array([{"x": 1}, None]),
        "endless": [float("inf"), float("nan")],
        "nothing": pa.array([None, None]),
        "half": pa.array(np.array([0.5, 2], np.float16)),
    }
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    data = read(tmp_path / "t.parquet")
    first, second = (dict(item.fields) for item in data)
    assert data.ids == ["7", "8.5"]
    shared = {"exact": "0.123456789012345678901", "big": str(2**70), "length": 60.5}
    shared |= {"utc": "2024-05-01T10:30:00+00:00", "clock": "10:30:00"}
    assert first == shared | {
        **{"price": 1.5, "prices": [0.1], "day": "2024-05-01", "utf8": "é", "half": 0.5},
        "moment": "2024-05-01T10:30:00",
    }
    assert second == shared | {
        **{"price": 20, "moment": "2024-05-01T10:30:00.000005", "utf8": "x", "half": 2.0}
    }
    (kind,) = data.problems.count_by_kind()
    assert data.problems.names(kind) == [
        *("bytes (bytes)", "object (objects)", "endless (infinite numbers)")
    ]


def test_objects_in_json_are_named_once_per_column(tmp_path: Path) -> None:
    rows = [{"text": str(n), "meta": {"n": n}, "tags": ["a", {"b": 1}]} for n in range(5)]
    data = read(write_lines(tmp_path / "t.jsonl", *rows))
    assert [dict(item.fields) for item in data] == [{"tags": ["a"]}] * 5
    (kind,) = data.problems.count_by_kind()
    assert data.problems.names(kind) == ["meta (objects)", "tags (objects)"]
