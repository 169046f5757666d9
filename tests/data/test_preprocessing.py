"""Preparation of pictures: sizes, offsets, padding, and extreme aspect ratios."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from xmodal.data.preprocessing import Preprocessing


def picture(width: int, height: int) -> Image.Image:
    """A picture of blurred random colours."""
    rng = np.random.default_rng(width)
    small = rng.integers(0, 256, (max(1, height // 4), max(1, width // 4), 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize(("width", "height"), [(61, 40), (40, 61), (33, 90), (23, 20)])
@pytest.mark.parametrize("by_rows", [False, True])
def test_shortest_side_is_resized_and_the_middle_is_cut(
    width: int, height: int, by_rows: bool
) -> None:
    prepared = Preprocessing(24, "shortest", resized=29, by_rows=by_rows)
    image = picture(width, height)
    ratio = 29 / min(width, height)
    sides = tuple(29 if side == min(width, height) else int(side * ratio) for side in image.size)
    whole = image.resize(sides, Image.Resampling.BICUBIC)
    left, top = ((side - 24) // 2 for side in sides)
    expected = np.asarray(whole.crop((left, top, left + 24, top + 24)), int)
    found = prepared.pixels(image).astype(int)
    assert np.abs(found - expected).max() <= 2 and np.abs(found - expected).mean() < 0.5


@pytest.mark.parametrize(("offset", "first"), [("floor", 2), ("round", 2), ("start", 0)])
def test_offset_of_the_middle(offset: Any, first: int) -> None:
    ramp = np.tile(np.arange(37, dtype=np.uint8)[None, :, None], (32, 1, 3))
    prepared = Preprocessing(32, "shortest", resized=32, offset=offset)
    assert prepared.pixels(Image.fromarray(ramp))[0, 0, 0] == first


def test_longest_side_is_resized_and_the_square_is_padded() -> None:
    white = Image.new("RGB", (40, 20), "white")
    square = Preprocessing(32, "longest", resized=32, fill=(1, 2, 3)).pixels(white)
    assert (square[8:24] == 255).all()
    assert (square[:8] == (1, 2, 3)).all() and (square[24:] == (1, 2, 3)).all()


def test_square_that_is_larger_than_the_resized_picture_is_padded_with_black() -> None:
    white = Image.new("RGB", (40, 20), "white")
    square = Preprocessing(32, "shortest", resized=24).pixels(white)
    assert (square[4:28] == 255).all() and not square[:4].any() and not square[28:].any()


@pytest.mark.parametrize("fit", ["crop", "squash", "shortest", "longest"])
@pytest.mark.parametrize("size", [(1, 1), (1, 60_000), (60_000, 1), (3, 5)])
@pytest.mark.parametrize("by_rows", [False, True])
def test_every_size_is_prepared_in_bounded_memory(
    fit: Any, size: tuple[int, int], by_rows: bool
) -> None:
    """A picture of 1 x 60,000 resized by its shorter side would have 2 billion pixels."""
    image = Image.new("RGB", size, (200, 100, 50))
    prepared = Preprocessing(32, fit, resized=36, by_rows=by_rows)
    square = prepared.pixels(image)
    assert square.shape == (32, 32, 3)
    assert (square == (200, 100, 50)).all(2).any()


def test_text_of_earlier_fields_has_not_changed() -> None:
    """Fingerprints of encoders and names of caches contain a hash of it."""
    assert str(Preprocessing(64)) == (
        "Preprocessing(size=64, fit='crop', share=1.0, resample='bicubic', mean=(0.0, 0.0, 0.0), "
        "std=(1.0, 1.0, 1.0))"
    )
    assert str(Preprocessing(64, resized=70, bgr=True)).endswith("resized=70, bgr=True)")
