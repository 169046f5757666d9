"""Towers that begin as linear models: CCA, or PCA of the texts, in a frame or rotated by ITQ.

A frame has more directions than dimensions: each bit is the side of one of them. The leading
canonical directions keep almost all that float vectors find, and with several bits for each of
their dimensions codes find more than with one bit for each of many dimensions, the last of which
are noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch

from xmodal.encoders.towers import Tower, Towers, linear_map
from xmodal.features.extract import Array
from xmodal.features.rows import Features, Int64
from xmodal.features.units import Units
from xmodal.linear_models import Matrix, Project, Projections, affine, cca, frame, itq, pca
from xmodal.training.pairs import even_choice

MAX_FIT_ROWS = 30_000
"""Pairs of a picture and a caption that CCA is fitted on."""
MAX_ROTATION_ROWS = 6_000
"""Pairs that the rotation is fitted on."""
ROTATION_ROUNDS = 15


def start_from_linear_models(
    towers: Towers,
    units: Units,
    raw_images: bool,
    rng: np.random.Generator,
    frames: Sequence[tuple[int, int]] = (),
) -> None:
    """Set the linear maps of residual towers to CCA projections, in frames or rotated by ITQ.

    Columns are weighted by their canonical correlation; projections have the mean length sqrt(bits)
    before tanh. ``frames``: bits and leading directions of each, side by side; none: as many
    directions as bits, rotated by ITQ. With raw images only the text tower is set, to principal
    components.
    """
    image_rows, text_rows = units.caption_pairs()
    chosen = even_choice(len(text_rows), MAX_FIT_ROWS).numpy()
    pairs = image_rows[chosen], text_rows[chosen]
    width = max((directions for _, directions in frames), default=towers.bits)
    if raw_images:
        principal = pca(units.text[pairs[1]], width)
        projections = Projections(principal, principal)
    else:
        first, image_places = _used(units.image, pairs[0])
        second, text_places = _used(units.text, pairs[1])
        projections = cca(first, second, width, pairs=(image_places, text_places))
    few = even_choice(len(chosen), MAX_ROTATION_ROWS).numpy()
    text = units.text[pairs[1][few]]
    image = text if raw_images else units.image[pairs[0][few]]
    if frames:
        turned = [frame(directions, bits, rng) for bits, directions in frames]
        begun = Projections(
            _in_frames(projections.image, image, turned), _in_frames(projections.text, text, turned)
        )
    else:
        scaled = Projections(
            _with_mean_length(projections.image, image, towers.bits),
            _with_mean_length(projections.text, text, towers.bits),
        )
        begun = itq(image, text, scaled, rng=rng, rounds=ROTATION_ROUNDS)
    _start(towers.text, begun.text, text.shape[1])
    if not raw_images:
        _start(towers.image, begun.image, image.shape[1])


def _in_frames(project: Project, features: Array, frames: Sequence[Matrix]) -> Project:
    """Return the projections in frames (directions, bits) side by side.

    Those of each frame have the mean length sqrt(bits) over ``features``.
    """
    parts = [
        _with_mean_length(partial(_turned, project, one), features, one.shape[1]) for one in frames
    ]
    return lambda x: np.concatenate([part(x) for part in parts], axis=1)


def _turned(project: Project, directions: Matrix, features: Array) -> Matrix:
    return project(features)[:, : len(directions)] @ directions


def _used(features: Features, rows: Int64) -> tuple[Array, Int64]:
    """Return the features of a fit, and the places of ``rows`` among them.

    Of many features those that ``rows`` does not have are left out.
    """
    if len(features) <= MAX_FIT_ROWS:
        return np.asarray(features), rows
    used, places = np.unique(rows, return_inverse=True)
    return features[used], places


def _with_mean_length(project: Project, features: Array, bits: int) -> Project:
    """Scale a projection, so that the mean length over ``features`` is sqrt(bits)."""
    length = float(np.linalg.norm(project(features), axis=1).mean())
    factor = np.float32(np.sqrt(bits) / max(length, 1e-12))
    return lambda x: project(x) * factor


@torch.no_grad()
def _start(tower: Tower, project: Project, dim: int) -> None:
    matrix, offset = affine(project, dim)
    linear = linear_map(tower)
    linear.weight.copy_(torch.from_numpy(np.ascontiguousarray(matrix.T)))
    linear.bias.copy_(torch.from_numpy(np.asarray(offset)))
