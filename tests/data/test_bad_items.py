"""Bad items are counted and named, and the good ones beside them are learned and indexed."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.bad_pictures import TEXT, damaged_avif, png_bomb, truncated_jpeg

from xmodal.encoders.load import load_encoder
from xmodal.index.contract import open_index

Run = Callable[..., Any]
GOOD = 20
SMALL = "--image-backbone small-cnn --text-backbone words --bits 16 --set hidden=32 --set batch=32"


@pytest.fixture(scope="module")
def mixed(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of good items with one bad item of each kind among them."""
    folder = tmp_path_factory.mktemp("mixed") / "items"
    folder.mkdir()
    table = (world / "metadata.jsonl").read_text().splitlines()[:GOOD]
    rows: list[str | bytes] = [*table]
    for name in (json.loads(line)["file_name"] for line in table):
        shutil.copy(world / name, folder / name)
    (folder / "cut.jpg").write_bytes(truncated_jpeg())
    (folder / "noise.avif").write_bytes(damaged_avif())
    (folder / "text.jpg").write_bytes(TEXT)
    (folder / "bomb.png").write_bytes(png_bomb(50_000, 50_000))
    shutil.copy(world / "00000.png", folder / "wordless.png")
    shutil.copy(world / "00001.png", folder / "dots.png")
    bad_rows: list[dict[str, Any]] = [
        {"file_name": "gone.png", "text": "missing"},
        {"file_name": "cut.jpg", "text": "truncated"},
        {"file_name": "noise.avif", "text": "overwritten"},
        {"file_name": "text.jpg", "text": "no picture"},
        {"file_name": "bomb.png", "text": "too large"},
        {"file_name": "https://example.org/a.png", "text": "far away"},
        {"file_name": "wordless.png", "text": " "},
        {"file_name": "dots.png", "text": "..."},
        {"file_name": "00000.png", "text": "the same id again"},
        {"file_name": None, "text": None},
        {"file_name": "00002.png", "id": "\ud83d", "text": "an id that cannot be written"},
        {"id": "endless", "text": "a field that JSON has no word for", "price": float("inf")},
    ]
    rows[3:3] = [json.dumps(row) for row in bad_rows]
    rows[5:5] = ["{broken", b'{"text": "caf\xe9"}', "[1, 2]"]
    lines = (row if isinstance(row, bytes) else row.encode() for row in rows)
    (folder / "metadata.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    return folder


NOTED = {
    "bad line": 3,
    "picture missing": 1,
    "picture is a URL (download it first)": 1,
    "row without a picture": 2,
    "caption empty": 2,
    "row left out, it has neither picture nor text": 1,
    "id repeated, the first one stays": 1,
    "id or file name is not valid Unicode, left out": 1,
    "picture not usable": 4,
    "text without anything that the backbone can read": 1,
}


def test_bad_items_are_named_and_the_others_are_indexed(
    mixed: Path, model: Path, xmodal_cli: Run, tmp_path: Path
) -> None:
    good = [f"{k:05d}.png" for k in range(GOOD)]
    told = xmodal_cli("index", mixed, "--model", model, "--index", tmp_path / "i", "--json")
    assert told.status == 0
    assert json.loads(told.out)["problems"] == NOTED
    for kind, count in NOTED.items():
        assert re.search(rf"^  {count} x {re.escape(kind)}: ", told.err, re.M), kind
    index = open_index(tmp_path / "i")
    assert index.codes("image")[0] == sorted([*good, "wordless.png", "dots.png"])
    only_text = ["gone.png", "cut.jpg", "noise.avif", "text.jpg", "bomb.png"]
    only_text.append("https://example.org/a.png")
    assert index.codes("text")[0] == sorted([*good, *only_text, "endless"])


def test_training_leaves_bad_items_out(mixed: Path, xmodal_cli: Run, tmp_path: Path) -> None:
    command = f"train {mixed} --out {tmp_path / 'm'} {SMALL} --set epochs=1 --no-report"
    told = xmodal_cli(*shlex.split(command))
    assert told.status == 0 and "4 x picture not usable: " in told.err
    trained = load_encoder(tmp_path / "m")
    learned = sorted(id_ for ids in trained.split.values() for id_ in ids)
    assert learned == [f"{k:05d}.png" for k in range(GOOD)]
    assert trained.about["data"]["problems"]["picture not usable"] == 4


def test_csv_lines_of_another_length_are_left_out(
    model: Path, xmodal_cli: Run, tmp_path: Path
) -> None:
    (tmp_path / "t.csv").write_bytes(b"id,text\n1,a red star\n2\n\xff,\xff\n4,a,b\n5,a blue star\n")
    told = xmodal_cli("index", tmp_path / "t.csv", "--model", model, "--index", tmp_path / "i")
    assert told.status == 0 and "2 documents" in told.out
    assert "3 x bad line: line 3 has 1 values for 2 columns, line 4 is not in UTF-8" in told.err
    assert open_index(tmp_path / "i").codes("text")[0] == ["1", "5"]
