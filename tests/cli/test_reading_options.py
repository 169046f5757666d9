"""Options of reading data: --pictures, --encoding, --labels-from, --split-map; the situation."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

Run = Callable[..., Any]
COLOURS = ("red", "green", "blue", "white", "black", "pink", "teal", "gold")
SMALL = ("--image-backbone", "small-cnn", "--text-backbone", "words", "--bits", 16)
QUICK = (*SMALL, "--set", "epochs=1", "--set", "batch=16")


@pytest.fixture
def drawn(tmp_path: Path) -> Path:
    """Folder with the subfolders "red", "green", ... of four pictures each."""
    for colour in COLOURS:
        (tmp_path / "drawn" / colour).mkdir(parents=True)
        for size in range(3, 7):
            Image.new("RGB", (size, 4), colour).save(tmp_path / "drawn" / colour / f"{size}.png")
    return tmp_path / "drawn"


@pytest.fixture
def table(drawn: Path, tmp_path: Path) -> Path:
    """Table in cp1252 with two captions a picture, in another folder than the pictures."""
    path = tmp_path / "tables" / "captions.csv"
    path.parent.mkdir()
    lines = ["image,caption,split"]
    for number, colour in enumerate(COLOURS):
        for size in range(3, 7):
            part = "dev" if number == 0 else "train"
            for text in (f"die Größe {size} in {colour}", f"{colour} {size}"):
                lines.append(f"{colour}/{size}.png,{text},{part}")
    path.write_bytes("\n".join(lines).encode("cp1252"))
    return path


def test_table_elsewhere_in_another_encoding_is_trained_and_indexed(
    xmodal_cli: Run, drawn: Path, table: Path, tmp_path: Path
) -> None:
    reading = ("--pictures", drawn, "--encoding", "cp1252")
    model = tmp_path / "m"
    command = ("train", table, "--out", model, *QUICK, *reading)
    refused = xmodal_cli(*command, "--split-map", "test=query")
    assert refused.status == 2 and "has the splits dev, train" in refused.err
    trained = xmodal_cli(*command, "--split-map", "dev=query")
    assert trained.status == 0
    assert "captions: 32 pictures, 64 captions" in trained.err
    split = json.loads((model / "split.json").read_text())
    assert sorted(split["query"]) == [f"red/{size}.png" for size in range(3, 7)]
    report = json.loads((model / "report.json").read_text())
    assert report["facts"]["situation"].startswith("captions: 32 pictures")
    assert json.loads((model / "config.json").read_text())["options"]["split_map"] == {
        "dev": "query"
    }
    indexed = xmodal_cli("index", table, "--model", model, "--index", tmp_path / "i", *reading)
    assert indexed.status == 0 and "32 pictures, 64 texts" in indexed.out
    evaluated = xmodal_cli("evaluate", table, "--model", model, *reading, "--json")
    assert evaluated.status == 0


def test_unknown_split_is_refused_in_one_line(
    xmodal_cli: Run, drawn: Path, table: Path, tmp_path: Path
) -> None:
    table.write_bytes(table.read_bytes().replace(b",dev\n", b",mine\n"))
    command = ("train", table, "--out", tmp_path / "m", *QUICK)
    reading = ("--pictures", drawn, "--encoding", "cp1252")
    result = xmodal_cli(*command, *reading)
    assert result.status == 2 and "'mine' (4 items: not understood)" in result.err
    assert not (tmp_path / "m").exists()
    wrong = xmodal_cli(*command, *reading, "--split-map", "mine")
    assert wrong.status == 2 and "NAME=PART" in wrong.err


def test_folders_are_labels_on_request(xmodal_cli: Run, drawn: Path, tmp_path: Path) -> None:
    model = tmp_path / "m"
    plain = xmodal_cli("train", drawn, "--out", model, *QUICK)
    assert plain.status == 2 and "pictures only" in plain.err and "--labels-from" in plain.err
    trained = xmodal_cli("train", drawn, "--out", model, *QUICK, "--labels-from", "folders")
    assert trained.status == 0
    assert "labels only: 32 pictures, 32 items with 8 labels" in trained.err
    assert xmodal_cli("evaluate", drawn, "--model", model).status == 0  # labels as in training
    both = ("--labels-from", "folders", "--label-column", "x")
    assert xmodal_cli("train", drawn, "--out", model, *QUICK, *both).status == 2
