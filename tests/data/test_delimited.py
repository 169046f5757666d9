"""Delimited text: separators, headers, quotes, lines, encodings and compression."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import random
from pathlib import Path

import pyarrow as pa
import pytest
from PIL import Image

from xmodal.data.readers import text_lines
from xmodal.data.readers.columns import Columns
from xmodal.data.readers.delimited import MAX_RECORD_LINES
from xmodal.data.readers.read import read
from xmodal.errors import ConfigError, DataError


def table(folder: Path, content: str | bytes, name: str = "t.csv") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def captions(path: Path, **options: object) -> list[str]:
    return [item.captions[0] for item in read(path, **options)]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "content",
    [
        'id;text\n1;"red, green, blue"\n',
        '"id, number";text\n1;"red, green, blue"\n',
        'id\ttext\n1\t"red, green, blue"\n',
        'id | text\n1 | "red, green, blue"\n',
        "sep=^\nid^text\n1^red, green, blue\n",
        '\n \nid,text\n\n1,"red, green, blue"\n',
        'id,text,\n1,"red, green, blue",\n',
        'id,text\n1,"red, green, blue",,\n',
        'text,a;b\n"red, green, blue",1;2\n',
    ],
)
def test_separator_is_found(tmp_path: Path, content: str) -> None:
    data = read(table(tmp_path, content))
    assert [item.captions for item in data] == [("red, green, blue",)]
    assert not len(data.problems)


@pytest.mark.parametrize(
    ("separator", "name"), [("\t", "tab"), ("\t", "\\t"), (":", "colon"), ("|", "pipe"), ("!", "!")]
)
def test_separator_is_given(tmp_path: Path, separator: str, name: str) -> None:
    path = table(tmp_path, f"id{separator}text,more\n1{separator}red,green\n")
    (item,) = read(path, Columns(text="text,more"), separator=name)
    assert (item.id, item.captions) == ("1", ("red,green",))


@pytest.mark.parametrize("separator", ["", "||", '"', "\n"])
def test_impossible_separators_are_refused(tmp_path: Path, separator: str) -> None:
    with pytest.raises(ConfigError, match="--separator"):
        read(table(tmp_path, "text\nred\n"), separator=separator)


def test_header_is_given(tmp_path: Path) -> None:
    Image.new("RGB", (2, 2)).save(tmp_path / "a.png")
    path = table(tmp_path, "1,a.png,a red one,x\n2,a.png,a blue one,y\n3,a.png\n")
    (item,) = (data := read(path, header=("", "image", "text", "shop")))
    assert item.captions == ("a red one", "a blue one")
    assert item.fields == {"shop": ["x", "y"]}
    assert data.problems.names("bad line") == ["line 3 has 2 values for 4 columns"]
    with pytest.raises(DataError, match=r"--columns -,image,text,-"):
        read(path)
    jsonl = table(tmp_path, '{"text": "a"}', "t.jsonl")
    with pytest.raises(ConfigError, match="--columns"):
        read(jsonl, header=("text",))


@pytest.mark.parametrize("content", ["", "\n\n", " \n", "\ufeff", "sep=;\n"])
def test_file_without_a_header_is_empty(tmp_path: Path, content: str) -> None:
    with pytest.raises(DataError, match="empty"):
        read(table(tmp_path, content))


@pytest.mark.parametrize("content", ["id,text\n", "id,text", "id,text\n\n\n"])
def test_header_alone_has_no_item(tmp_path: Path, content: str) -> None:
    with pytest.raises(DataError, match="no usable item"):
        read(table(tmp_path, content))


def test_repeated_column_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="twice"):
        read(table(tmp_path, "text,id,text\na,b,c\n"))


def test_unclosed_quote_loses_its_line_only_in_a_long_file(tmp_path: Path) -> None:
    count = 3 * MAX_RECORD_LINES
    lines = [f'{n},"text {n}"' if n % 3 else f"{n},text {n}" for n in range(count)]
    lines[7] = '7,"never closed'
    lines[count - 2] = f'{count - 2},"nor this'
    data = read(table(tmp_path, "id,text\n" + "\n".join(lines)))
    assert len(data) == count - 2
    assert data.problems.names("bad line") == [
        "line 9 opens a quote that is not closed",
        f"line {count} opens a quote that is not closed",
    ]


@pytest.mark.parametrize("seed", range(20))
def test_rows_are_those_of_the_csv_module(tmp_path: Path, seed: int) -> None:
    """Values with quotes, separators, line ends and spaces, as the csv module writes them."""
    random_ = random.Random(seed)
    values = ["a", " b ", "", '"', "x,y", "two\nlines", 'a "b" c', "\r\n", ";", "é\u2028", "\0"]
    rows = [[str(n), " ".join(random_.choices(values, k=4))] for n in range(50)]
    file = io.StringIO(newline="")
    end = random_.choice(["\n", "\r\n", "\r"])
    quoting = csv.QUOTE_ALL if end == "\r" else random_.choice([csv.QUOTE_ALL, csv.QUOTE_MINIMAL])
    separator = random_.choice(",;\t|")
    writer = csv.writer(file, delimiter=separator, quoting=quoting, lineterminator=end)
    writer.writerows([["id", "text"], *rows])
    data = read(table(tmp_path, file.getvalue().encode(random_.choice(["utf-8", "utf-16"]))))
    expected = {row[0]: " ".join(row[1].split()) for row in rows}
    assert {item.id: item.captions[0] for item in data} == {k: v for k, v in expected.items() if v}


def test_long_lines_are_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_lines, "MAX_LINE", 50)
    path = table(tmp_path, f"id,text\n1,{'x' * 200}\n2,{'y' * 30}\r\n3,{'z' * 500}")
    data = read(path)
    assert data.ids == ["2"]
    assert data.problems.names("line of more than 50 characters") == ["line 2", "line 4"]


def test_byte_order_mark_is_no_part_of_a_name(tmp_path: Path) -> None:
    for encoding in (None, "utf-8", "utf-8-sig", "utf-16"):
        content = "\ufeffid,text\n1,größer\n".encode(encoding or "utf-8")
        (item,) = read(table(tmp_path, content), encoding=encoding)
        assert (item.id, item.captions) == ("1", ("größer",))


COMPRESS = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "zst": lambda data: pa.compress(data, "zstd", asbytes=True),
}
CONTENTS = {
    "csv": "id,text\n1,größer\n",
    "tsv": "id\ttext\n1\tgrößer\n",
    "jsonl": '{"id": 1, "text": "größer"}\n',
    "json": '[{"id": 1, "text": "größer"}]',
    "token": "1.png#0\tgrößer\n",
}


@pytest.mark.parametrize("compression", COMPRESS)
@pytest.mark.parametrize("kind", CONTENTS)
def test_compressed_text_is_read(tmp_path: Path, compression: str, kind: str) -> None:
    content = CONTENTS[kind].encode("utf-16" if kind == "csv" else "utf-8")
    data = COMPRESS[compression](content)
    path = table(tmp_path, data, f"t.{kind}.{compression.upper()}")
    assert captions(path) == ["größer"]


@pytest.mark.parametrize("compression", COMPRESS)
def test_damaged_compressed_text_is_refused(tmp_path: Path, compression: str) -> None:
    rows = "".join(f"{n},{random.Random(n).random()}\n" for n in range(3000))
    data = COMPRESS[compression](f"id,text\n{rows}".encode())
    middle = len(data) // 2
    for damaged in (data[:middle], b"nothing", data[:middle] + b"\0" * 99 + data[middle + 99 :]):
        path = table(tmp_path, damaged, f"t.csv.{compression}")
        with pytest.raises(DataError, match=r"t\.csv"):
            read(path)
