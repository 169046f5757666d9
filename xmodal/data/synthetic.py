"""Synthetic data: rendered pictures of coloured shapes at places, with captions.

:func:`write_synthetic_data` writes pictures and ``metadata.jsonl`` into a folder. A fifth of the
combinations of colour, shape and place are *unseen*: they occur only in the gallery and test
splits, so that a search for them measures generalisation. The label of a picture, in the column
"labels", is its shape.
"""

from __future__ import annotations

import json
import math
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from xmodal.writing import write_text

PICTURE_SIZE = 96
"""Side of a picture in pixels."""
COLOURS = {
    "red": (214, 39, 40),
    "green": (44, 150, 50),
    "blue": (31, 90, 200),
    "yellow": (240, 205, 20),
    "purple": (140, 60, 180),
    "orange": (250, 130, 10),
    "black": (25, 25, 25),
    "pink": (245, 130, 190),
}
SHAPES = ("circle", "square", "triangle", "star", "cross")
PLACES = {
    "on the left": (0.25, 0.5),
    "on the right": (0.75, 0.5),
    "at the top": (0.5, 0.25),
    "at the bottom": (0.5, 0.75),
    "in the middle": (0.5, 0.5),
    "at the top left": (0.25, 0.25),
    "at the top right": (0.75, 0.25),
    "at the bottom left": (0.25, 0.75),
    "at the bottom right": (0.75, 0.75),
}
CAPTIONS = (
    "a {size} {colour} {shape} {place}",
    "{place}, {a} {colour} {shape}",
    "there is {a} {colour} {shape} {place}",
    "one {colour} {shape}, {size}, {place}",
)
Combination = tuple[str, str, str]
"""(colour, shape, place)"""


def all_combinations() -> list[Combination]:
    """Return all combinations of ``COLOURS``, ``SHAPES`` and ``PLACES``."""
    return list(product(COLOURS, SHAPES, PLACES))


def unseen_combinations(seed: int = 0) -> list[Combination]:
    """Return the random fifth of all combinations that is not in the training split, sorted."""
    every = all_combinations()
    chosen = np.random.default_rng([seed, 1]).permutation(len(every))[: len(every) // 5]
    return sorted(every[number] for number in chosen)


def caption(combination: Combination) -> str:
    """Return a caption of a combination, for example "a red circle on the left"."""
    colour, shape, place = combination
    return f"{_article(colour)} {colour} {shape} {place}"


def write_synthetic_data(folder: str | Path, n: int = 2880, seed: int = 0) -> Path:
    """Write ``n`` pictures and their captions, labels and fields into ``folder``; return its path.

    The combinations are repeated in order. The same ``n`` and ``seed`` give the same files.
    """
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([seed, 2])
    unseen = set(unseen_combinations(seed))
    every = all_combinations()
    rows: list[dict[str, Any]] = []
    for number in range(n):
        combination = every[number % len(every)]
        colour, shape, place = combination
        size = "small" if rng.random() < 0.5 else "large"
        name = f"{number:05d}.png"
        render_picture(combination, size, rng).save(path / name)
        template = CAPTIONS[rng.integers(len(CAPTIONS))]
        words = {"a": _article(colour), "size": size}
        text = template.format(**words, colour=colour, shape=shape, place=place)
        rows.append(
            {
                "file_name": name,
                "text": text,
                "labels": [shape],
                "colour": colour,
                "shape": shape,
                "place": place,
                "size": size,
                "split": _split(combination in unseen, number // len(every)),
            }
        )
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    write_text(path / "metadata.jsonl", lines)
    return path


def render_picture(combination: Combination, size: str, rng: np.random.Generator) -> Image.Image:
    """Render a combination; offset, radius, tint, tilt and background are random.

    ``size`` is "small" or "large". The image has ``PICTURE_SIZE`` x ``PICTURE_SIZE`` pixels.
    """
    colour, shape, place = combination
    shade = rng.integers(190, 250, size=3)
    noise = rng.normal(0, 6, size=(PICTURE_SIZE, PICTURE_SIZE, 3))
    image = Image.fromarray(np.clip(shade + noise, 0, 255).astype(np.uint8))
    x, y = (np.array(PLACES[place]) + rng.uniform(-0.06, 0.06, size=2)) * PICTURE_SIZE
    radius = rng.uniform(0.13, 0.16) if size == "small" else rng.uniform(0.19, 0.23)
    radius *= PICTURE_SIZE
    tint = np.clip(np.array(COLOURS[colour]) + rng.integers(-20, 21, size=3), 0, 255)
    fill = tuple(int(value) for value in tint)
    draw = ImageDraw.Draw(image)
    tilt = float(rng.uniform(-0.2, 0.2))
    if shape == "circle":
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill)
    else:
        draw.polygon(_outline(shape, float(x), float(y), float(radius), tilt), fill=fill)
    return image


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def _split(unseen: bool, repetition: int) -> str:
    """Return the split: of an unseen combination, every fourth picture is a test query."""
    if not unseen:
        return "train"
    return "test" if repetition % 4 == 0 else "gallery"


def _outline(
    shape: str, x: float, y: float, radius: float, tilt: float
) -> list[tuple[float, float]]:
    """Return the corners (x, y) of a polygon around ``x``, ``y``, turned by ``tilt`` radians."""
    if shape == "cross":
        a, b = 0.33, 1.0
        quarter = [(-a, -b), (a, -b), (a, -a), (b, -a), (b, a), (a, a)]
        points = [*quarter, *((-px, -py) for px, py in quarter)]
    else:
        corners, inner = {"square": (4, 1.0), "triangle": (3, 1.0), "star": (5, 0.42)}[shape]
        steps = corners if inner == 1.0 else 2 * corners
        start = -math.pi / 2 + (math.pi / 4 if shape == "square" else 0)
        points = []
        for step in range(steps):
            angle = start + 2 * math.pi * step / steps
            length = 1.15 if inner == 1.0 or step % 2 == 0 else 1.15 * inner
            points.append((length * math.cos(angle), length * math.sin(angle)))
    cos, sin = math.cos(tilt), math.sin(tilt)
    return [
        (x + radius * (px * cos - py * sin), y + radius * (px * sin + py * cos))
        for px, py in points
    ]
