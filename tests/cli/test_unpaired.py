"""``xmodal train`` with pictures without captions and texts without pictures."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from xmodal.data.dataset import Dataset

Run = Callable[..., Any]
OPTIONS = (
    *("--image-backbone", "small-cnn", "--text-backbone", "words", "--bits", 16, "--no-report"),
    *("--set", "epochs=1", "--set", "hidden=16", "--set", "unpaired_rounds=1"),
)


@pytest.fixture
def few(dataset: Dataset, tmp_path: Path) -> Path:
    """A table of 20 pairs, then 20 rows with a picture alone and 20 with a text alone."""
    rows: list[dict[str, str]] = []
    for number, item in enumerate(dataset.items[:60]):
        row = {"image": str(item.images[0]), "text": f"{item.captions[0]} {number}"}
        if number >= 20:
            del row["text" if number < 40 else "image"]
        rows.append(row)
    table = tmp_path / "few.jsonl"
    table.write_text("\n".join(map(json.dumps, rows)))
    return table


def counts(model: Path) -> tuple[int, int]:
    stored = json.loads((model / "config.json").read_text())["data"]
    return stored["unpaired pictures"], stored["unpaired texts"]


def test_rows_with_one_side_are_counted_used_and_part_of_the_run(
    xmodal_cli: Run, few: Path, tmp_path: Path
) -> None:
    out = tmp_path / "few.model"
    trained = xmodal_cli("train", few, "--out", out, *OPTIONS)
    assert trained.status == 0
    assert "20 pictures without captions and 20 texts without pictures are used" in trained.err
    assert "epoch   2/2" in trained.err and counts(out) == (20, 20)
    again = xmodal_cli("train", few, "--out", out, *OPTIONS)
    assert again.status == 0 and "epoch" not in again.err
    few.write_text(few.read_text().rpartition("\n")[0])
    other = xmodal_cli("train", few, "--out", out, *OPTIONS)
    assert other.status == 2 and "other items" in other.err
    assert "fewer than the 20 pairs" in other.err
    mutual = ("--set", "unpaired=mutual")
    used = xmodal_cli("train", few, "--out", out, *OPTIONS, *mutual)
    assert used.status == 2 and "unpaired 'auto', not 'mutual'" in used.err


def test_a_folder_and_a_file_are_used_without_the_pictures_and_texts_of_pairs(
    xmodal_cli: Run, few: Path, photos_folder: Path, dataset: Dataset, tmp_path: Path
) -> None:
    texts, out = tmp_path / "texts.txt", tmp_path / "more.model"
    first = json.loads(few.read_text().splitlines()[0])["text"]
    texts.write_text(f"{first}\na new text\n\na new text\nanother text\n")
    added = ("--unpaired-images", photos_folder, "--unpaired-texts", texts)
    trained = xmodal_cli("train", few, "--out", out, *added, *OPTIONS)
    assert trained.status == 0, trained.err
    assert counts(out) == (len(dataset) - 20, 22)


def test_without_one_side_or_by_a_setting_the_others_are_left_out(
    xmodal_cli: Run, few: Path, tmp_path: Path
) -> None:
    none = xmodal_cli("train", few, "--out", tmp_path / "x", *OPTIONS, "--set", "unpaired=none")
    assert none.status == 0 and "are left out" in none.err and "epoch   1/1" in none.err
    few.write_text("\n".join(few.read_text().splitlines()[:40]))
    one = xmodal_cli("train", few, "--out", tmp_path / "y", *OPTIONS)
    assert one.status == 0 and "one side is missing" in one.err and "epoch   1/1" in one.err


def test_missing_folder_and_file_are_one_line(xmodal_cli: Run, few: Path, tmp_path: Path) -> None:
    for option in ("--unpaired-images", "--unpaired-texts"):
        wrong = xmodal_cli("train", few, "--out", tmp_path / "z", option, tmp_path / "absent")
        assert wrong.status == 2 and len(wrong.err.strip().splitlines()) == 1, wrong.err
        assert "absent" in wrong.err


def test_pairs_that_are_left_out_are_counted_and_listed(
    xmodal_cli: Run, few: Path, tmp_path: Path
) -> None:
    few.write_text("\n".join(few.read_text().splitlines()[:20]))
    out = tmp_path / "left.model"
    options = (*OPTIONS, "--set", "noise=small-loss")
    trained = xmodal_cli("train", few, "--out", out, *options)
    assert trained.status == 0, trained.err
    stored = json.loads((out / "config.json").read_text())["data"]
    lines = [json.loads(line) for line in (out / "left_out.jsonl").read_text().splitlines()]
    assert len(lines) == stored["left out pairs"] <= stored["judged pairs"] == stored["train"]
    assert f"{len(lines)} of {stored['train']} training pairs are probably wrong" in trained.err
    assert all({"picture", "caption", "probability"} == line.keys() for line in lines)
    assert all(line["probability"] < 0.5 for line in lines)
    again = xmodal_cli("train", few, "--out", out, *options)
    assert again.status == 0 and "are probably wrong" in again.err
