"""The rendered world: the same files for the same seed, and combinations kept from training."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xmodal.data.dataset import Dataset
from xmodal.data.synthetic import COLOURS, SIDE, caption, combinations, render, unseen, write_world


def digests(folder: Path) -> dict[str, str]:
    return {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in folder.iterdir()}


def rows(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "metadata.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    one = digests(write_world(tmp_path / "one", 20, seed=3))
    assert len(one) == 21
    assert digests(write_world(tmp_path / "two", 20, seed=3)) == one
    other = digests(write_world(tmp_path / "other", 20, seed=4))
    assert set(other) == set(one) and all(other[name] != one[name] for name in one)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_fifth_of_the_combinations_is_unseen(seed: int) -> None:
    hidden, everything = unseen(seed), combinations()
    assert len(set(hidden)) == len(hidden) == len(everything) // 5 and set(hidden) < set(everything)
    assert hidden == unseen(seed) != unseen(seed + 1)


def test_unseen_combinations_are_never_in_train(tmp_path: Path) -> None:
    hidden, everything = set(unseen(1)), set(combinations())
    splits: dict[str, set[tuple[str, ...]]] = {}
    for row in rows(write_world(tmp_path, len(everything) + 60, seed=1)):
        shown = tuple(row[name] for name in ("colour", "shape", "place"))
        splits.setdefault(row["split"], set()).add(shown)
    assert splits["train"] == everything - hidden
    assert splits["test"] == hidden  # the first time round
    assert splits["gallery"] and splits["gallery"] < hidden  # the second


def test_captions_name_what_is_shown(world: Path) -> None:
    for row in rows(world):
        for name in ("colour", "shape", "place"):
            assert row[name] in row["text"]
        assert row["labels"] == [row["shape"]]
    assert caption(("red", "circle", "on the left")) == "a red circle on the left"


def test_the_world_is_read_without_problems(dataset: Dataset, world: Path) -> None:
    assert len(dataset.pairs()) == len(rows(world)) and len(dataset.problems) == 0
    assert {item.split for item in dataset} >= {"train", "test"}
    first = dataset.items[0]
    assert set(first.fields) == {"colour", "shape", "place", "size"}


@pytest.mark.parametrize("colour", COLOURS)
def test_the_shape_has_its_colour_at_its_place(colour: str) -> None:
    for combination in [one for one in combinations() if one[0] == colour][::7]:
        image = render(combination, "large", np.random.default_rng(0))
        assert image.size == (SIDE, SIDE)
        pixels = np.asarray(image).astype(int)
        # The tint varies by 20 a channel; the background is bright grey.
        near = (np.abs(pixels - COLOURS[colour]) <= 20).all(axis=2)
        assert near.sum() > 0.02 * SIDE * SIDE, combination
        x, y = np.argwhere(near).mean(axis=0)[::-1] / SIDE
        place = combination[2]
        assert (x < 0.5) == ("left" in place) or "left" not in place
        assert (x > 0.5) == ("right" in place) or "right" not in place
        assert (y < 0.5) == ("top" in place) or "top" not in place
        assert (y > 0.5) == ("bottom" in place) or "bottom" not in place
