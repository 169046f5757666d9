"""``Run``: seeds, validation, patience, history, checkpoints."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.clusters import clusters

from xmodal.codes import BinaryCodes
from xmodal.encoders.folder import CHECKPOINT, SHEET
from xmodal.encoders.towers import Towers
from xmodal.errors import ConfigError, DataError
from xmodal.modality import Modality
from xmodal.training.methods.schgan.train import Config, train
from xmodal.training.pairs import Pairs
from xmodal.training.run import HISTORY, Run, TrainingData
from xmodal.training.validation import MAX_DATABASE, MIN_LABELLED

QUICK = Config(epochs=5, batch=32, hidden=24, warmup=2)
A, B = [1.0] * 8, [-1.0] * 8


class Signs(Towers):
    """Towers whose codes are the signs of their input; ``mixed`` changes the codes of texts.

    mixed 0: as they are; 1: all alike; 2: reversed.
    """

    def __init__(self) -> None:
        super().__init__(8, 8, 8, hidden=4)
        self.register_buffer("mixed", torch.tensor(0))

    def codes(self, modality: Modality, features: torch.Tensor, batch: int = 0) -> BinaryCodes:
        scale = (1, 0, -1)[int(self.get_buffer("mixed"))] if modality == "text" else 1
        return BinaryCodes.from_relaxed((scale * features).numpy())


def coded(codes: list[list[float]], classes: list[int | None]) -> Pairs:
    """Pairs whose features are codes, with a class each or None."""
    hot = [[float(kind == c) for c in range(2)] for kind in classes]
    features = torch.tensor(codes)
    known = torch.tensor([kind is not None for kind in classes])
    return Pairs(features, features.clone(), torch.tensor(hot), known)


PAIR = coded([A, B], [None, None])


def run_of(validation: Pairs, database: Pairs, **options: Any) -> Run:
    return Run(TrainingData(database, validation, 8), **options)


def mixed(how: int) -> Signs:
    towers = Signs()
    towers.get_buffer("mixed").fill_(how)
    return towers


# ---- randomness ----------------------------------------------------------------------------------


def test_rng_depends_on_seed_and_epoch() -> None:
    def drawn(seed: int, epoch: int) -> tuple[float, float]:
        rng = Run(clusters(), seed=seed).rng(epoch)
        return float(rng.random()), float(torch.rand(()))

    with torch.random.fork_rng():
        assert drawn(1, 2) == drawn(1, 2)
        several = [drawn(seed, epoch) for seed in (0, 1) for epoch in (0, 1, 2)]
    assert len({numpy for numpy, _ in several}) == len({torch for _, torch in several}) == 6


# ---- validation ----------------------------------------------------------------------------------

N = MIN_LABELLED
TIES = sum(1 / rank for rank in range(1, N + 1)) / N  # mean of 1 / rank for N ties


def test_validate_map_equals_value_by_hand() -> None:
    # N queries of class 0 with code A. The database: N of class 0 with A, N of class 1 with B, and
    # N unlabelled, which are left out.
    queries = coded([A] * N, [0] * N)
    database = coded([A] * N + [B] * N + [A] * N, [0] * N + [1] * N + [None] * N)
    run = run_of(queries, database)
    assert run.validate(mixed(0)) == {"pair mAP": pytest.approx(TIES), "mAP": 1}
    # Texts reversed: from images the relevant texts come after the N others, at ranks N+1 to 2N;
    # texts, reversed queries, find the images of class 1 first as well.
    behind = sum(found / (N + found) for found in range(1, N + 1)) / N
    assert run.validate(mixed(2))["mAP"] == pytest.approx(behind)


def test_validate_map_with_ties_equals_expectation() -> None:
    # All codes are equal, so every order has the same probability:
    # half of 2N are relevant, so a random rank r has precision (1 + (r - 1)(N - 1)/(2N - 1)) / r.
    queries = coded([A] * N, [0] * N)
    database = coded([A] * 2 * N, [0] * N + [1] * N)
    fair = sum((1 + (r - 1) * (N - 1) / (2 * N - 1)) / r for r in range(1, 2 * N + 1)) / (2 * N)
    assert run_of(queries, database).validate(mixed(0))["mAP"] == pytest.approx(fair)


def test_validate_pair_map_searches_among_validation_pairs() -> None:
    queries, database = coded([A, B], [0, 0]), coded([A] * 2 * N, [1] * 2 * N)
    run = run_of(queries, database)
    assert run.validate(mixed(0)) == {"pair mAP": 1}  # too few labels for mAP
    assert run.validate(mixed(2)) == {"pair mAP": 1 / 2}
    assert run.validate(mixed(1)) == {"pair mAP": pytest.approx((1 + 1 / 2) / 2)}


@pytest.mark.parametrize(("asking", "found"), [(N - 1, N), (N, N - 1), (N, 0)])
def test_validate_has_no_map_with_too_few_labels(asking: int, found: int) -> None:
    queries = coded([A, B] * N, [0] * asking + [None] * (2 * N - asking))
    database = coded([A] * 2 * N, [0] * found + [None] * (2 * N - found))
    assert set(run_of(queries, database).validate(mixed(0))) == {"pair mAP"}


def test_validate_searches_evenly_spaced_rows_of_a_large_database() -> None:
    # Only the last half is of class 0: the first rows alone would not contain it.
    half = MAX_DATABASE
    database = coded([B] * half + [A] * half, [1] * half + [0] * half)
    assert run_of(coded([A] * N, [0] * N), database).validate(mixed(0))["mAP"] == 1


def test_finish_returns_the_last_towers_without_validation() -> None:
    nobody = Pairs(*(part[:0] for part in vars(PAIR).values()))
    run = run_of(nobody, PAIR, patience=3)
    seen, towers = follow(run, {1: 1, 5: 0}, count=5)
    assert seen == [1, 2, 3, 4, 5]
    assert int(run.finish(towers).get_buffer("mixed")) == 0


# ---- epochs, patience, best epoch ----------------------------------------------------------------


def test_sheet_is_saved_only_with_a_folder(tmp_path: Path) -> None:
    squares = [np.zeros((2, 8, 8, 3), np.uint8)]
    Run(clusters(), folder=tmp_path).sheet("synthetic", 7, squares)
    Run(clusters()).sheet("synthetic", 7, squares)
    assert [path.name for path in tmp_path.iterdir()] == ["synthetic-007.png"]
    assert SHEET.fullmatch("synthetic-007.png")


def follow(run: Run, quality: Mapping[int, int], count: int) -> tuple[list[int], Signs]:
    """Run epochs that set ``mixed`` by ``quality``; return the epochs and the towers."""
    towers, seen = Signs(), []
    for epoch in run.epochs(count, {}):
        seen.append(epoch)
        towers.get_buffer("mixed").fill_(quality.get(epoch, 2))
        towers.train()
        run.log({"loss": 0.5 / epoch})
        run.log({"loss": 1.5 / epoch})
        run.end_of_epoch(epoch, towers)
    return seen, towers


@pytest.mark.parametrize(
    ("quality", "patience", "epochs", "best"),
    [
        ({2: 0}, 2, [1, 2, 3, 4], (2, 1.0)),
        ({2: 1, 4: 0}, 2, [1, 2, 3, 4, 5, 6], (4, 1.0)),  # epoch 4 is within patience
        ({2: 1, 5: 0}, 2, [1, 2, 3, 4], (2, 0.75)),  # epoch 5 is not reached
        ({}, 1, [1, 2], (1, 0.5)),
        ({2: 0}, 100, [1, 2, 3, 4, 5, 6, 7], (2, 1.0)),
    ],
)
def test_patience_ends_the_run_and_finish_returns_the_best_towers(
    quality: dict[int, int], patience: int, epochs: list[int], best: tuple[int, float]
) -> None:
    run = run_of(PAIR, PAIR, patience=patience)
    seen, towers = follow(run, quality, count=7)
    assert seen == epochs
    assert (run.best_epoch, run.best) == best
    assert int(towers.get_buffer("mixed")) == quality.get(epochs[-1], 2)
    finished = run.finish(towers)
    assert int(finished.get_buffer("mixed")) == quality.get(best[0], 2)
    assert not finished.training


def test_each_epoch_calls_show_and_is_in_the_history(tmp_path: Path) -> None:
    shown: list[Any] = []
    run = run_of(PAIR, PAIR, show=lambda *figures: shown.append(figures))
    follow(run, {1: 1, 2: 0}, count=2)
    assert [(epoch, count) for epoch, count, _ in shown] == [(1, 2), (2, 2)]
    assert [figures["pair mAP"] for _, _, figures in shown] == [0.75, 1.0]
    run.write_history(tmp_path)
    rows = [json.loads(line) for line in (tmp_path / HISTORY).read_text().splitlines()]
    assert [(row["epoch"], row["loss"], row["pair mAP"]) for row in rows] == [
        (1, 1, 0.75),
        (2, 0.5, 1),
    ]
    assert all(row["seconds"] >= 0 for row in rows)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_loss_that_is_not_finite_raises_data_error(value: float) -> None:
    run = run_of(PAIR, PAIR)
    run.log({"pairs": 1.0, "triplet": value})
    with pytest.raises(DataError, match=f"triplet is {value} in epoch 3: lower the learning rate"):
        run.end_of_epoch(3, Signs())


# ---- checkpoints ---------------------------------------------------------------------------------


def stop_after(epoch: int) -> Callable[[int, int, Mapping[str, float]], None]:
    def show(now: int, _count: int, _figures: Mapping[str, float]) -> None:
        if now == epoch:
            raise KeyboardInterrupt

    return show


def without_seconds(run: Run) -> list[dict[str, float]]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in run.history]


@pytest.mark.parametrize("estimator", ["exact", "reinforce"])
def test_stopped_run_continues_with_the_same_result(tmp_path: Path, estimator: Any) -> None:
    data, config = clusters(labelled=0.5), replace(QUICK, estimator=estimator)
    whole = Run(data, seed=3)
    expected = train(data, config, whole).state_dict()
    for stop in (1, 3, 5):
        folder = tmp_path / str(stop)
        folder.mkdir()
        with pytest.raises(KeyboardInterrupt):
            train(data, config, Run(data, 3, folder, "me", show=stop_after(stop)))
        torch.rand(7)  # random numbers in between have no effect
        run = Run(data, 3, folder, "me")
        found = train(data, config, run).state_dict()
        assert all(torch.equal(found[name], weight) for name, weight in expected.items())
        assert without_seconds(run) == without_seconds(whole)
        assert (run.best, run.best_epoch) == (whole.best, whole.best_epoch)


def test_run_ended_by_patience_has_no_further_epochs(tmp_path: Path) -> None:
    run = run_of(PAIR, PAIR, folder=tmp_path, patience=2)
    assert follow(run, {1: 0}, count=9)[0] == [1, 2, 3]
    again = run_of(PAIR, PAIR, folder=tmp_path, patience=2)
    seen, towers = follow(again, {}, count=9)
    assert seen == []
    assert int(again.finish(towers).get_buffer("mixed")) == 0
    assert (again.best_epoch, len(again.history)) == (1, 3)


def test_checkpoint_of_another_identity_raises_config_error(tmp_path: Path) -> None:
    follow(run_of(PAIR, PAIR, folder=tmp_path, identity="one"), {}, count=1)
    before = (tmp_path / CHECKPOINT).read_bytes()
    with pytest.raises(ConfigError, match=r"stopped run with other data or settings.*--restart"):
        follow(run_of(PAIR, PAIR, folder=tmp_path, identity="other"), {}, count=1)
    assert (tmp_path / CHECKPOINT).read_bytes() == before


@pytest.mark.parametrize("keep", [0, 100, -100])
def test_damaged_checkpoint_raises_config_error(tmp_path: Path, keep: int) -> None:
    follow(run_of(PAIR, PAIR, folder=tmp_path), {}, count=1)
    data = (tmp_path / CHECKPOINT).read_bytes()
    (tmp_path / CHECKPOINT).write_bytes(data[:keep])
    with pytest.raises(ConfigError, match=r"checkpoint\.pt cannot be read .*--restart") as caught:
        follow(run_of(PAIR, PAIR, folder=tmp_path), {}, count=2)
    assert "\n" not in str(caught.value)


def test_flipped_bits_of_a_checkpoint_raise_config_error(tmp_path: Path) -> None:
    follow(run_of(PAIR, PAIR, folder=tmp_path), {}, count=1)
    path = tmp_path / CHECKPOINT
    data = path.read_bytes()
    with zipfile.ZipFile(path) as file:  # torch reads them without an error
        tensors = [info for info in file.infolist() if "/data/" in info.filename]
    assert tensors
    for info in tensors:
        start = data.index(info.filename.encode(), info.header_offset)
        padding, size = int.from_bytes(data[start - 2 : start], "little"), info.file_size
        at = start + len(info.filename) + padding + size // 2
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        with pytest.raises(ConfigError, match=r"checkpoint\.pt cannot be read .*--restart"):
            follow(run_of(PAIR, PAIR, folder=tmp_path), {}, count=2)


def test_without_a_folder_nothing_is_written(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    follow(run_of(PAIR, PAIR), {}, count=2)
    assert list(tmp_path.iterdir()) == []


def test_towers_have_the_shape_of_the_data() -> None:
    data = clusters(bits=24)
    assert data.classes == 4
    assert data.towers(10).shape == {
        "image_dim": 20,
        "text_dim": 14,
        "bits": 24,
        "hidden": 10,
        "raw_images": False,
        "kind": "practical",
    }
    assert np.shape(data.towers(10).codes("image", data.validation.image).packed) == (60, 3)
