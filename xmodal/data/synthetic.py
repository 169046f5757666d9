"""A small rendered world to learn from: coloured shapes in places, with composed captions.

``write_world`` renders pictures into a folder with ``metadata.jsonl``. Some combinations of colour,
shape and place are *unseen*: they occur only in the gallery and test splits, so finding them takes
more than remembering. The label of a picture, its shape, is in the column "labels".
"""

from __future__ import annotations

import json
import math
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

SIDE = 96
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


def combinations() -> list[Combination]:
    """Every (colour, shape, place)."""
    return list(product(COLOURS, SHAPES, PLACES))


def unseen(seed: int = 0) -> list[Combination]:
    """The fifth of all combinations that no training picture shows."""
    everything = combinations()
    chosen = np.random.default_rng([seed, 1]).permutation(len(everything))[: len(everything) // 5]
    return sorted(everything[place] for place in chosen)


def caption(combination: Combination) -> str:
    """A plain sentence for a combination, for example "a red circle on the left"."""
    colour, shape, place = combination
    return f"{_article(colour)} {colour} {shape} {place}"


def write_world(folder: str | Path, n: int = 2880, seed: int = 0) -> Path:
    """Render ``n`` pictures with captions, labels and fields into ``folder``; return it.

    The same ``n`` and ``seed`` give the same files.
    """
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([seed, 2])
    hidden = set(unseen(seed))
    everything = combinations()
    rows: list[dict[str, Any]] = []
    for number in range(n):
        combination = everything[number % len(everything)]
        colour, shape, place = combination
        size = "small" if rng.random() < 0.5 else "large"
        name = f"{number:05d}.png"
        render(combination, size, rng).save(path / name)
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
                "split": _split(combination in hidden, number // len(everything)),
            }
        )
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (path / "metadata.jsonl").write_text(lines)
    return path


def render(combination: Combination, size: str, rng: np.random.Generator) -> Image.Image:
    """A picture of one combination: place, size, tilt and background vary."""
    colour, shape, place = combination
    shade = rng.integers(190, 250, size=3)
    noise = rng.normal(0, 6, size=(SIDE, SIDE, 3))
    image = Image.fromarray(np.clip(shade + noise, 0, 255).astype(np.uint8))
    x, y = (np.array(PLACES[place]) + rng.uniform(-0.06, 0.06, size=2)) * SIDE
    radius = SIDE * (rng.uniform(0.13, 0.16) if size == "small" else rng.uniform(0.19, 0.23))
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


def _split(is_unseen: bool, turn: int) -> str:
    """Pictures of unseen combinations: every fourth asks, the others are to be found."""
    return "train" if not is_unseen else "test" if turn % 4 == 0 else "gallery"


def _outline(
    shape: str, x: float, y: float, radius: float, tilt: float
) -> list[tuple[float, float]]:
    """Corners of a shape around (x, y)."""
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
