"""Rendered pictures with text features, for methods that train on pixels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from PIL import Image

from xmodal.data import synthetic
from xmodal.training.pairs import Pairs
from xmodal.training.run import TrainingData


def rendered_pairs(n: int, validation: int) -> TrainingData:
    """Pictures of five colours with text features; the label is the colour."""
    rng, colours = np.random.default_rng(0), list(synthetic.COLOURS)[:5]
    squares, texts = [], torch.zeros(n + validation, 10)
    for row in range(n + validation):
        shape = synthetic.SHAPES[rng.integers(5)]
        picture = synthetic.render_picture((colours[row % 5], shape, "in the middle"), "large", rng)
        small = picture.resize((64, 64), Image.Resampling.BILINEAR)
        squares.append(np.asarray(small).reshape(-1))
        texts[row, row % 5] = texts[row, 5 + synthetic.SHAPES.index(shape)] = 0.7
    labels = torch.eye(5)[torch.arange(n + validation) % 5]
    known = torch.ones(len(labels), dtype=torch.bool)
    pairs = Pairs(torch.from_numpy(np.stack(squares)), texts, labels, known)
    train, rest = pairs.take(torch.arange(n)), pairs.take(torch.arange(n, n + validation))
    train = replace(train, labelled=torch.arange(n) < n // 2)
    return TrainingData(train, rest, 16, raw_images=True)
