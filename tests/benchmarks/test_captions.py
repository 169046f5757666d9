"""Programs in benchmarks/ about captions, on drawn features.

captions.py, tune.py and code_quality.py: rows, runs that continue, missing data.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

pytest.importorskip("torch", reason="pip install -e '.[torch]'")

FOLDER = Path(__file__).parents[2] / "benchmarks"
TRAIN, DEV, CAPTIONS, DIM = 60, 30, 3, 12
PROGRAMS = ("captions", "tune", "code_quality")


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, ModuleType]:
    """The programs with narrow codes and few rows; reports go to a temporary folder."""
    monkeypatch.syspath_prepend(str(FOLDER))
    found = {name: importlib.import_module(name) for name in PROGRAMS}
    for name, value in {"WIDTHS": (16, 8), "DEFAULT_BITS": 16}.items():
        monkeypatch.setattr(found["captions"], name, value)
    monkeypatch.setattr(found["captions"], "NEGATIVES", found["captions"].NEGATIVES[:1])
    monkeypatch.setattr(found["tune"], "WIDTHS", (16,))
    for name, bits in {"BITS": 32, "WIDTHS": (8, 16)}.items():
        monkeypatch.setattr(found["code_quality"], name, bits)
    monkeypatch.setattr(importlib.import_module("harness.code_jobs"), "PREFIXES", (8, 16))
    monkeypatch.setattr(importlib.import_module("harness.report"), "RESULTS", tmp_path / "results")
    return found


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder whose captions are near the picture in one of the feature spaces."""
    folder, rng = tmp_path / "data" / "flickr8k", np.random.default_rng(0)
    folder.mkdir(parents=True)
    count = TRAIN + DEV
    image = rng.normal(size=(count, DIM))
    text = image[:, None] + rng.normal(size=(count, CAPTIONS, DIM)) / 2
    ids = [f"p{number}" for number in range(count)]
    np.savez(folder / "features.npz", ids=np.array(ids), image=image, text=text)
    with (folder / "captions.jsonl").open("w") as file:
        for number, id_ in enumerate(ids):
            captions = [f"caption {number} {k}" for k in range(CAPTIONS)]
            split = "train" if number < TRAIN else "dev"
            file.write(json.dumps({"id": id_, "captions": captions, "split": split}) + "\n")
    return folder.parent


def run(program: ModuleType, monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr(sys, "argv", ["program", *map(str, words)])
    return int(program.main())


def table(text: str, heading: str) -> list[list[str]]:
    body = text.split(f"## {heading}")[1].split("\n## ")[0]
    lines = [line.strip("| ").split(" | ") for line in body.splitlines() if line.startswith("|")]
    return [lines[0], *lines[2:]]


def test_captions_has_all_rows_and_continues(
    programs: dict[str, ModuleType],
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ("--data", data, "--work", tmp_path / "work", "--jobs", 1, "--quick")
    assert run(programs["captions"], monkeypatch, *words) == 0
    printed = capsys.readouterr().out
    assert "4 jobs, 0 of them done" in printed
    head, *body = table(printed, "flickr8k")
    stages = [f"contrastive, {name}" for name in ("weighted", "int8 vectors", "float outputs")]
    each = ["CCA + ITQ", "contrastive", *stages, "float CCA"]
    assert [row[0] for row in body] == [
        "chance",
        *each,
        *each,
        "contrastive, negatives random",
        "schgan",
    ]
    assert all(len(row) == len(head) and 0 < float(row[3]) <= 100 for row in body)
    recalls = [[float(cell) for cell in row[3:10]] for row in body]
    assert all(sum(row[:6]) == pytest.approx(row[6], abs=0.4) for row in recalls)
    assert recalls[0][2] < 100 * 10 / DEV < recalls[-2][2]  # chance of any of 3 captions, codes
    assert [row[:2] for row in table(printed, "What the bits")[1:]] == [["8", "1"], ["16", "2"]]
    assert not (tmp_path / "results").exists()

    assert run(programs["captions"], monkeypatch, *words) == 0
    assert "4 jobs, 4 of them done" in capsys.readouterr().out


def test_tune_uses_training_pictures_alone(
    programs: dict[str, ModuleType],
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ("--data", data, "--work", tmp_path / "work", "--jobs", 1, "--quick")
    assert run(programs["tune"], monkeypatch, *words) == 0
    printed = capsys.readouterr().out
    body = table(printed, "Trials")[1:]
    assert [row[0] for row in body][:2] == ["defaults", "temperature 0.03"]
    assert all(f"trial {row[0]}, 16 bits: rsum {row[2]}" in printed for row in body)
    assert body[0][3] == "+0.0"

    sets = importlib.import_module("harness.caption_sets")
    roles = {item.id: item.split for item in sets.load(sets.HELD_OUT, data).data}
    assert set(roles) == {f"p{number}" for number in range(TRAIN)}  # none of the split dev
    assert sorted(roles.values()) == ["query"] * (TRAIN // 2) + ["train"] * (TRAIN // 2)


def test_code_quality_compares_codes_prefixes_and_floats(
    programs: dict[str, ModuleType],
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    program = programs["code_quality"]
    words = ("--data", data, "--work", tmp_path / "work", "--jobs", 1, "--quick")
    assert run(program, monkeypatch, *words) == 0
    printed = capsys.readouterr().out
    base, *others = table(printed, "Codes of 32 bits")[1:]
    assert [row[0] for row in (base, *others)] == program.NAMES
    hamming, weighted, floats = (float(base[column]) for column in (1, 5, 9))
    assert base[2] == "0"  # it closes nothing of its own distance
    assert float(base[6]) == pytest.approx(100 * (weighted - hamming) / (floats - hamming), abs=5)
    shorter = table(printed, "Prefixes beside")[1:]
    assert [row[0] for row in shorter] == ["8"] * 4 + ["16"] * 4
    assert all(0 < float(row[2]) <= 100 for row in shorter)

    (trial,) = (one for one in program.TRIALS if one.compared == "all")
    monkeypatch.setattr(program, "TRIALS", (program.BASE, trial))
    assert run(program, monkeypatch, *words, "--held-out") == 0
    rows = table(capsys.readouterr().out, "Codes of 32 bits")[1:]
    assert [row[0] for row in rows] == [program.BASE.name, trial.name]


@pytest.mark.parametrize("name", PROGRAMS)
def test_missing_data_is_one_line(
    programs: dict[str, ModuleType],
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ("--data", tmp_path, "--work", tmp_path / "work", "--quick")
    assert run(programs[name], monkeypatch, *words) == 2
    error = capsys.readouterr().err
    assert "captions.jsonl is missing" in error
    assert error.count("\n") == 1


def test_noisy_pairs_has_a_table_for_each_share(
    programs: dict[str, ModuleType],
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    program = importlib.import_module("noisy_pairs")
    monkeypatch.setattr(program, "SHARES", (0.0, 0.5))
    monkeypatch.setattr(program, "EPOCHS", 1)
    monkeypatch.setattr(importlib.import_module("harness.noisy_jobs"), "BITS", 16)
    words = ("--data", data, "--work", tmp_path / "work", "--jobs", 1, "--quick")
    assert run(program, monkeypatch, *words) == 0
    printed = capsys.readouterr().out
    head, *body = table(printed, "50% of the captions exchanged")
    assert [row[0] for row in body] == list(program.ROWS)
    assert all(len(row) == len(head) for row in body)
    assert body[-1][6:9] == [body[-1][6], "100.0", "100.0"]  # of the right pairs
    clean = table(printed, "0% of the captions exchanged")[1:]
    assert [row[0] for row in clean] == list(program.ROWS)[:-1]
    assert clean[0][3] == "+0.0" and clean[0][6:9] == ["0.0", "-", "-"]

    monkeypatch.setattr(program, "ROWS", {program.ALL: {"noise": "none"}})
    monkeypatch.setattr(program, "PICTURES", (20,))
    assert run(program, monkeypatch, *words, "--held-out") == 0
    estimates = table(capsys.readouterr().out, "Estimates of linear models")[1:]
    assert [row[1:3] for row in estimates] == [["5", "0"], ["5", "50"], ["1", "0"], ["1", "50"]]
    assert all(0 <= float(row[3]) <= 100 for row in estimates)
