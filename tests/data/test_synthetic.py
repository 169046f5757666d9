"""Tests of the synthetic data: reproducible files, unseen combinations, captions, pictures."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xmodal.data.dataset import Dataset
from xmodal.data.synthetic import (
    COLOURS,
    PICTURE_SIZE,
    all_combinations,
    caption,
    render_picture,
    unseen_combinations,
    write_synthetic_data,
)


def digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file, by name."""
    return {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in folder.iterdir()}


def metadata_rows(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "metadata.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_write_is_reproducible_and_depends_on_the_seed(tmp_path: Path) -> None:
    first = digests(write_synthetic_data(tmp_path / "first", 20, seed=3))
    assert len(first) == 21
    assert digests(write_synthetic_data(tmp_path / "second", 20, seed=3)) == first
    other = digests(write_synthetic_data(tmp_path / "other", 20, seed=4))
    assert set(other) == set(first) and all(other[name] != first[name] for name in first)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_unseen_combinations_are_a_fifth_and_depend_on_the_seed(seed: int) -> None:
    unseen, every = unseen_combinations(seed), all_combinations()
    assert len(set(unseen)) == len(unseen) == len(every) // 5 and set(unseen) < set(every)
    assert unseen == unseen_combinations(seed) != unseen_combinations(seed + 1)


def test_unseen_combinations_are_only_in_test_and_gallery(tmp_path: Path) -> None:
    unseen, every = set(unseen_combinations(1)), set(all_combinations())
    splits: dict[str, set[tuple[str, ...]]] = {}
    for row in metadata_rows(write_synthetic_data(tmp_path, len(every) + 60, seed=1)):
        combination = tuple(row[name] for name in ("colour", "shape", "place"))
        splits.setdefault(row["split"], set()).add(combination)
    assert splits["train"] == every - unseen
    assert splits["test"] == unseen  # the first repetition
    assert splits["gallery"] and splits["gallery"] < unseen  # the second repetition


def test_captions_contain_colour_shape_and_place(photos_folder: Path) -> None:
    for row in metadata_rows(photos_folder):
        for name in ("colour", "shape", "place"):
            assert row[name] in row["text"]
        assert row["labels"] == [row["shape"]]
    assert caption(("red", "circle", "on the left")) == "a red circle on the left"


def test_synthetic_data_is_read_without_problems(dataset: Dataset, photos_folder: Path) -> None:
    assert len(dataset.pairs()) == len(metadata_rows(photos_folder)) and len(dataset.problems) == 0
    assert {item.split for item in dataset} >= {"train", "test"}
    first = dataset.items[0]
    assert set(first.fields) == {"colour", "shape", "place", "size"}


@pytest.mark.parametrize("colour", COLOURS)
def test_rendered_shape_has_its_colour_at_its_place(colour: str) -> None:
    for combination in [found for found in all_combinations() if found[0] == colour][::7]:
        image = render_picture(combination, "large", np.random.default_rng(0))
        assert image.size == (PICTURE_SIZE, PICTURE_SIZE)
        pixels = np.asarray(image).astype(int)
        # The tint varies by 20 a channel; the background is bright grey.
        coloured = (np.abs(pixels - COLOURS[colour]) <= 20).all(axis=2)
        assert coloured.mean() > 0.02, combination
        x, y = np.argwhere(coloured).mean(axis=0)[::-1] / PICTURE_SIZE
        place = combination[2]
        assert (x < 0.5) == ("left" in place) or "left" not in place
        assert (x > 0.5) == ("right" in place) or "right" not in place
        assert (y < 0.5) == ("top" in place) or "top" not in place
        assert (y > 0.5) == ("bottom" in place) or "bottom" not in place
