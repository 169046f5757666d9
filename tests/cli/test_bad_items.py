"""Unusable items are recorded as problems; the other items are trained on and indexed."""

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
N_USABLE = 20
SMALL = "--image-backbone small-cnn --text-backbone words --bits 16 --set hidden=32 --set batch=32"


@pytest.fixture(scope="module")
def mixed_items(photos_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of usable items and one unusable item of each kind."""
    folder = tmp_path_factory.mktemp("mixed") / "items"
    folder.mkdir()
    table = (photos_folder / "metadata.jsonl").read_text().splitlines()[:N_USABLE]
    rows: list[str | bytes] = [*table]
    for name in (json.loads(line)["file_name"] for line in table):
        shutil.copy(photos_folder / name, folder / name)
    (folder / "cut.jpg").write_bytes(truncated_jpeg())
    (folder / "noise.avif").write_bytes(damaged_avif())
    (folder / "text.jpg").write_bytes(TEXT)
    (folder / "bomb.png").write_bytes(png_bomb(50_000, 50_000))
    shutil.copy(photos_folder / "00000.png", folder / "empty-caption.png")
    shutil.copy(photos_folder / "00001.png", folder / "dots.png")
    bad_rows: list[dict[str, Any]] = [
        {"file_name": "gone.png", "text": "missing"},
        {"file_name": "cut.jpg", "text": "truncated"},
        {"file_name": "noise.avif", "text": "overwritten"},
        {"file_name": "text.jpg", "text": "a text file"},
        {"file_name": "bomb.png", "text": "too large"},
        {"file_name": "https://example.org/a.png", "text": "a URL"},
        {"file_name": "empty-caption.png", "text": " "},
        {"file_name": "dots.png", "text": "..."},
        {"id": "00000.png", "file_name": "00001.png", "text": "repeated id"},
        {"file_name": None, "text": None},
        {"file_name": "00002.png", "id": "\ud83d", "text": "id is not valid Unicode"},
        {"id": "infinite", "text": "a field that JSON cannot represent", "price": float("inf")},
    ]
    rows[3:3] = [json.dumps(row) for row in bad_rows]
    rows[5:5] = ["{broken", b'{"text": "caf\xe9"}', "[1, 2]"]
    lines = (row if isinstance(row, bytes) else row.encode() for row in rows)
    (folder / "metadata.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    return folder


EXPECTED_PROBLEMS = {
    "bad line": 2,
    "line not in UTF-8 (save the file as UTF-8, or name its encoding with --encoding, for example "
    "cp1252)": 1,
    "picture missing": 1,
    "picture is a URL (download it first)": 1,
    "row without a picture": 2,
    "caption empty": 2,
    "row left out, it has neither picture nor text": 1,
    "id repeated, the first one stays": 1,
    "id or file name is not valid Unicode, left out": 1,
    "picture not usable": 4,
    "column with values that are not stored": 1,
    "text without anything that the backbone can read": 1,
}


def test_index_records_unusable_items_and_indexes_the_others(
    mixed_items: Path, model: Path, xmodal_cli: Run, tmp_path: Path
) -> None:
    usable = [f"{k:05d}.png" for k in range(N_USABLE)]
    result = xmodal_cli("index", mixed_items, "--model", model, "--index", tmp_path / "i", "--json")
    assert result.status == 0
    assert json.loads(result.out)["problems"] == EXPECTED_PROBLEMS
    for kind, count in EXPECTED_PROBLEMS.items():
        assert re.search(rf"^  {count} x {re.escape(kind)}: ", result.err, re.M), kind
    index = open_index(tmp_path / "i")
    assert index.codes("image")[0] == sorted([*usable, "empty-caption.png", "dots.png"])
    text_only = ["gone.png", "cut.jpg", "noise.avif", "text.jpg", "bomb.png"]
    text_only.append("https://example.org/a.png")
    assert index.codes("text")[0] == sorted([*usable, *text_only, "infinite"])


def test_train_records_unusable_items_and_uses_the_others(
    mixed_items: Path, xmodal_cli: Run, tmp_path: Path
) -> None:
    command = f"train {mixed_items} --out {tmp_path / 'm'} {SMALL} --set epochs=1 --no-report"
    result = xmodal_cli(*shlex.split(command))
    assert result.status == 0 and "4 x picture not usable: " in result.err
    trained = load_encoder(tmp_path / "m")
    used = sorted(id_ for ids in trained.split.values() for id_ in ids)
    assert used == [f"{k:05d}.png" for k in range(N_USABLE)]
    assert trained.about["data"]["problems"]["picture not usable"] == 4


def test_index_records_csv_rows_of_another_length(
    model: Path, xmodal_cli: Run, tmp_path: Path
) -> None:
    (tmp_path / "t.csv").write_bytes(b"id,text\n1,a red star\n2\n\xff,\xff\n4,a,b\n5,a blue star\n")
    result = xmodal_cli("index", tmp_path / "t.csv", "--model", model, "--index", tmp_path / "i")
    assert result.status == 0 and "2 documents" in result.out
    assert "2 x bad line: line 3 has 1 values for 2 columns, line 5 has 3" in result.err
    assert "1 x line not in UTF-8" in result.err and "--encoding" in result.err
    assert open_index(tmp_path / "i").codes("text")[0] == ["1", "5"]
