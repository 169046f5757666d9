"""benchmarks/fine_tune.py with tiny backbones: rows, runs that continue."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

pytest.importorskip("torch", reason="pip install -e '.[torch]'")

from tests.support.tiny_models import save_bert

FOLDER = Path(__file__).parents[2] / "benchmarks"
TRAIN, DEV, DIM = 36, 12, 6


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """The program with the set "captions" alone and a tiny text backbone."""
    from safetensors.torch import save_file
    from torchvision import models

    monkeypatch.syspath_prepend(str(FOLDER))
    program, sets = (importlib.import_module(x) for x in ("fine_tune", "harness.tuning_sets"))
    weights = tmp_path / "mobilenet_v2.safetensors"
    save_file(models.get_model("mobilenet_v2", weights=None).state_dict(), weights)
    bert = str(save_bert(tmp_path / "bert"))
    monkeypatch.setattr(sets, "minilm", lambda: bert)
    monkeypatch.setattr(sets, "NAMES", ("captions",))
    monkeypatch.setattr(sets.caption_sets, "MOBILENET", f"{weights}?size=32")
    monkeypatch.setattr(program, "BLOCKS", {"captions": ("text:1",)})
    monkeypatch.setattr(program, "BITS", 16)
    return program


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder with features of pictures and captions of few words."""
    folder, rng = tmp_path / "data" / "flickr8k", np.random.default_rng(0)
    folder.mkdir(parents=True)
    count = TRAIN + DEV
    ids = [f"p{number}" for number in range(count)]
    image, text = rng.normal(size=(count, DIM)), rng.normal(size=(count, 2, DIM))
    np.savez(folder / "features.npz", ids=np.array(ids), image=image, text=text)
    words = "a red circle on the left two dogs".split()
    with (folder / "captions.jsonl").open("w") as file:
        for number, id_ in enumerate(ids):
            captions = [" ".join(rng.choice(words, 3)) for _ in range(2)]
            split = "train" if number < TRAIN else "dev"
            file.write(json.dumps({"id": id_, "captions": captions, "split": split}) + "\n")
    return folder.parent


@pytest.mark.parametrize("held_out", [False, True])
def test_all_rows_are_measured_once(
    program: ModuleType,
    data: Path,
    tmp_path: Path,
    held_out: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if held_out:
        trials = {"default": {}, "batch 8": {"batch": 8}}
        monkeypatch.setattr(program, "TRIALS", {"captions": trials})
    words = ["--data", data, "--work", tmp_path / "work", "--jobs", 1, "--quick"]
    words += ["--held-out"] * held_out
    monkeypatch.setattr(sys, "argv", ["program", *map(str, words)])
    assert program.main() == 0
    printed = capsys.readouterr().out
    rows = [line.strip("| ").split(" | ") for line in printed.splitlines() if line[:2] == "| "]
    names = ["default", "batch 8"]
    if not held_out:
        frozen = ["frozen, negatives random", "frozen, negatives policy"]
        names = [*frozen, "text:1", "text:1, negatives random", "text:1, negatives policy"]
    assert [row[0] for row in rows[2:]] == ["frozen", *names]
    assert all(0 < float(row[1]) <= 600 and row[2][0] in "+-" for row in rows[2:])
    assert f"{len(names) + 1} jobs, 0 of them done" in printed
    assert program.main() == 0
    assert f"{len(names) + 1} jobs, {len(names) + 1} of them done" in capsys.readouterr().out
