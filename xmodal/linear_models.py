"""Linear models of feature matrices: CCA, PCA, ITQ, logistic regression, exact neighbours.

Inputs are feature matrices (n, d), one item a row; paired matrices have one pair a row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float32]
Pairing = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]
"""Rows of the pictures and rows of the texts of pairs, (n,) each."""
Project = Callable[[npt.NDArray[np.generic]], Matrix]

COMPONENTS = 384
"""Principal components of each modality in CCA."""
BLOCK_ROWS = 1 << 16
"""Rows up to which a model is fitted in memory, in float32. Covariances of more rows are added up
block by block, in float64."""
MAX_DIM = 4096
"""Largest dimension of these covariances; features that have more are sampled to ``BLOCK_ROWS``."""


class RowMatrix(Protocol):
    """A matrix (n, d) in memory, or one whose rows are read when they are needed."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Number and length of the rows."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any, /) -> npt.NDArray[Any]:
        """Return the rows of a slice, or at positions."""


@dataclass(frozen=True)
class Projections:
    """Projections of both modalities into a common space, (n, d) -> (n, bits) float32."""

    image: Project
    text: Project


def cca(
    image: RowMatrix,
    text: RowMatrix,
    bits: int,
    *,
    ridge: float = 0.1,
    pairs: Pairing | None = None,
) -> Projections:
    """Fit a regularised canonical correlation analysis, weighted by the correlations.

    Hotelling, "Relations between two sets of variates", 1936; the weights as in Gong, Ke, Isard,
    Lazebnik, IJCV 2014. ``ridge`` is relative to the mean variance of a component. ``pairs``: a row
    of ``image`` and a row of ``text`` for each pair; by default row i of both is one pair. With
    fewer than ``bits`` directions the rest of the columns repeat them in a random orthogonal mix.
    With more than ``BLOCK_ROWS`` rows, memory does not depend on their number.
    """
    rows_x, rows_y = pairs or (None, None)
    mean_x, white_x = _whitening(image, ridge, rows_x)
    mean_y, white_y = _whitening(text, ridge, rows_y)
    covariance = _cross_covariance(
        image, text, _linear(mean_x, white_x), _linear(mean_y, white_y), pairs
    )
    left, correlation, right = np.linalg.svd(covariance, full_matrices=False)
    rank = min(bits, len(correlation))
    weight = correlation[:rank]
    to_x = (white_x @ left[:, :rank]) * weight
    to_y = (white_y @ right[:rank].T) * weight
    if rank < bits:
        mix = _orthogonal(bits, np.random.default_rng(0))[:rank]
        to_x, to_y = to_x @ mix, to_y @ mix
    return Projections(_linear(mean_x, to_x), _linear(mean_y, to_y))


def itq(
    image: npt.NDArray[np.generic],
    text: npt.NDArray[np.generic],
    projections: Projections,
    *,
    rng: np.random.Generator,
    rounds: int = 50,
) -> Projections:
    """Fit iterative quantisation: the rotation R that minimises |sign(V R) - V R|.

    Gong, Lazebnik, "Iterative quantization", CVPR 2011. V has the projections of ``image`` and
    ``text``.
    """
    v = np.concatenate([projections.image(image), projections.text(text)])
    rotation = _orthogonal(v.shape[1], rng)
    for _ in range(rounds):
        signs = np.where(v @ rotation > 0, 1.0, -1.0).astype(np.float32)
        left, _, right = np.linalg.svd(v.T @ signs, full_matrices=False)
        rotation = left @ right
    fixed = rotation.astype(np.float32)
    return Projections(
        lambda x: projections.image(x) @ fixed, lambda y: projections.text(y) @ fixed
    )


def frame(dim: int, bits: int, rng: np.random.Generator) -> Matrix:
    """Return ``bits`` directions of length 1 as columns, (dim, bits), spread evenly.

    They are the columns of random orthogonal matrices, one after the other.
    """
    rotations = [_orthogonal(dim, rng) for _ in range(-(-bits // dim))]
    return np.concatenate(rotations, axis=1)[:, :bits]


def pca(features: RowMatrix, bits: int) -> Project:
    """Fit ``bits`` principal components to features (n, d); return (m, d) -> (m, bits) float32.

    With fewer components than ``bits`` the columns are a random orthogonal mix of them.
    """
    mean, _, directions = _components(features)
    matrix = directions[:, ::-1][:, :bits]
    rank = matrix.shape[1]
    if rank < bits:
        matrix = matrix @ _orthogonal(bits, np.random.default_rng(0))[:rank]
    return _linear(mean, matrix)


def affine(project: Project, dim: int) -> tuple[Matrix, Matrix]:
    """Return the matrix (dim, bits) and the offset (bits,) of a linear projection."""
    offset = project(np.zeros((1, dim), np.float32))
    return np.asarray(project(np.eye(dim, dtype=np.float32)) - offset), offset[0]


def nearest(
    queries: npt.NDArray[np.generic],
    database: npt.NDArray[np.generic],
    k: int,
    *,
    own: npt.NDArray[np.int64] | None = None,
) -> npt.NDArray[np.int64]:
    """Return the rows of the ``k`` items with the largest cosine, (q, k), exact and unordered.

    ``own`` (q,): row of each query in the database, which is excluded, or -1. ``k`` is reduced to
    the number of remaining items.
    """
    n = len(database)
    k = max(0, min(k, n if own is None or not (own >= 0).any() else n - 1))
    if not k:
        return np.zeros((len(queries), 0), np.int64)
    rows = np.empty((len(queries), k), np.int64)
    items = unit(database).T
    step = max(1, (1 << 24) // n)
    for start in range(0, len(queries), step):
        chunk = slice(start, start + step)
        cosine = unit(queries[chunk]) @ items
        if own is not None:
            known = np.flatnonzero(own[chunk] >= 0)
            cosine[known, own[chunk][known]] = -np.inf
        rows[chunk] = np.argpartition(-cosine, k - 1, axis=1)[:, :k]
    return rows


def logistic(
    features: npt.NDArray[np.generic],
    labels: npt.NDArray[np.bool_],
    *,
    decay: float = 1e-5,
    steps: int = 400,
) -> Project:
    """Fit a multinomial logistic regression by Nesterov's method: (n, d) -> posterior (n, c).

    Features are centred and divided by one number. The target of a row with several labels is
    uniform over them. Constant columns, which are common in hashed words, are excluded.
    """
    changing = np.flatnonzero(np.ptp(features, axis=0) > 0)
    x = as_float32(features[:, changing])
    mean = x.mean(axis=0)
    scale = np.float32(1 / max(float(np.sqrt(((x - mean) ** 2).sum(axis=1).mean())), 1e-12))
    z = np.concatenate([(x - mean) * scale, np.ones((len(x), 1), np.float32)], axis=1)
    target = labels / np.maximum(labels.sum(axis=1, keepdims=True), 1)
    target = target.astype(np.float32)
    vector = np.ones(z.shape[1], np.float32)
    for _ in range(20):  # power iteration: the largest eigenvalue bounds the curvature
        vector = z.T @ (z @ vector)
        norm = float(np.linalg.norm(vector))
        vector /= norm
    step = np.float32(1 / (0.5 * norm / len(z) + decay))
    weights = np.zeros((z.shape[1], labels.shape[1]), np.float32)
    lookahead = weights
    for iteration in range(steps):
        gradient = z.T @ (_softmax(z @ lookahead) - target) / len(z) + np.float32(decay) * lookahead
        updated = lookahead - step * gradient
        lookahead = updated + np.float32(iteration / (iteration + 3)) * (updated - weights)
        weights = updated
    fixed = weights

    def posterior(new: npt.NDArray[np.generic]) -> Matrix:
        return _softmax(
            np.asarray((as_float32(new[:, changing]) - mean) * scale @ fixed[:-1] + fixed[-1])
        )

    return posterior


def unit(rows: npt.NDArray[np.generic]) -> Matrix:
    """Return rows of length 1, (n, d) float32; zero rows are unchanged."""
    values = as_float32(rows)
    length = np.linalg.norm(values, axis=1, keepdims=True)
    return np.asarray(values / np.maximum(length, 1e-12), dtype=np.float32)


def _cross_covariance(
    image: RowMatrix, text: RowMatrix, of_image: Project, of_text: Project, pairs: Pairing | None
) -> npt.NDArray[Any]:
    """Return the mean of x y^T over pairs of projected features, (r, s)."""
    n = len(image) if pairs is None else len(pairs[0])
    if max(n, len(image), len(text)) <= BLOCK_ROWS:
        x, y = of_image(image[:]), of_text(text[:])
        if pairs is not None:
            x, y = x[pairs[0]], y[pairs[1]]
        return np.asarray(x.T @ y / len(x))
    total: Any = 0.0
    for part in _blocks(n):
        rows = (part, part) if pairs is None else (pairs[0][part], pairs[1][part])
        x, y = of_image(image[rows[0]]), of_text(text[rows[1]])
        total = total + x.astype(np.float64).T @ y
    return np.asarray(total / n)


def _blocks(n: int) -> Iterator[slice]:
    """Yield slices of rows whose float64 numbers are few megabytes."""
    step = BLOCK_ROWS // 8
    return (slice(start, min(start + step, n)) for start in range(0, n, step))


def _whitening(
    features: RowMatrix, ridge: float, rows: npt.NDArray[np.int64] | None
) -> tuple[Matrix, Matrix]:
    """Return the mean (d,) and the whitening matrix (d, r) of the rows ``rows`` of features."""
    weights = None
    if rows is not None:  # features that occur in several pairs are weighted, not repeated
        weights = (np.bincount(rows, minlength=len(features)) / len(rows)).astype(np.float32)
    mean, values, directions = _components(features, weights)
    values, directions = values[-COMPONENTS:], directions[:, -COMPONENTS:]
    return mean, np.asarray(
        directions / np.sqrt(values + ridge * values.mean() + 1e-12), np.float32
    )


def _components(
    features: RowMatrix, weights: npt.NDArray[np.float32] | None = None
) -> tuple[Matrix, Any, Any]:
    """Return mean (d,), variances (r,) in ascending order, and their directions (d, r).

    ``weights`` (n,) have the sum 1; by default all rows have the same weight.
    """
    if len(features) > BLOCK_ROWS:
        if features.shape[1] <= MAX_DIM:
            return _components_by_blocks(features, weights)
        chosen = np.linspace(0, len(features) - 1, BLOCK_ROWS).astype(np.int64)
        features = features[chosen]
        if weights is not None:
            weights = weights[chosen] / max(float(weights[chosen].sum()), 1e-12)
    whole = as_float32(features[:])
    mean = whole.mean(axis=0) if weights is None else weights @ whole
    changing = np.flatnonzero(
        np.ptp(whole, axis=0) > 0
    )  # most columns of hashed words are constant
    x = whole[:, changing] - mean[changing]
    if weights is not None:
        x *= np.sqrt(weights * len(x))[:, None]
    if not len(changing):  # equal rows: one direction of variance 0
        return mean, np.zeros(1), np.eye(len(mean), 1)
    if x.shape[0] < x.shape[1]:  # the smaller of the two Gram matrices gives the same directions
        values, vectors = np.linalg.eigh(x @ x.T / len(x))
        keep = values > values[-1] * 1e-6
        values, vectors = values[keep], vectors[:, keep]
        directions = x.T @ vectors / np.sqrt(values * len(x))
    else:
        values, directions = np.linalg.eigh(x.T @ x / len(x))
        keep = values > values[-1] * 1e-6
        values, directions = values[keep], directions[:, keep]
    placed = np.zeros((len(mean), len(values)), directions.dtype)
    placed[changing] = directions
    return mean, values, placed


def _components_by_blocks(
    features: RowMatrix, weights: npt.NDArray[np.float32] | None
) -> tuple[Matrix, Any, Any]:
    """Return the result of :func:`_components`, by one pass over the rows, in float64."""
    n, dim = len(features), features.shape[1]
    shift = features[:1].astype(np.float64)[0]  # keeps differences from cancelling
    total, products = np.zeros(dim), np.zeros((dim, dim))
    low, high = np.full(dim, np.inf), np.full(dim, -np.inf)
    for part in _blocks(n):
        x = features[part].astype(np.float64) - shift
        low, high = np.minimum(low, x.min(axis=0)), np.maximum(high, x.max(axis=0))
        weighted = x / n if weights is None else x * weights[part, None]
        total += weighted.sum(axis=0)
        products += weighted.T @ x
    mean = (shift + total).astype(np.float32)
    changing = np.flatnonzero(high > low)
    if not len(changing):
        return mean, np.zeros(1), np.eye(dim, 1)
    covariance = (products - np.outer(total, total))[np.ix_(changing, changing)]
    values, directions = np.linalg.eigh(covariance)
    keep = values > values[-1] * 1e-6
    placed = np.zeros((dim, int(keep.sum())))
    placed[changing] = directions[:, keep]
    return mean, values[keep], placed


def _linear(mean: Matrix, matrix: npt.NDArray[np.generic]) -> Project:
    weights = matrix.astype(np.float32)
    return lambda x: np.asarray((as_float32(x) - mean) @ weights)


def _orthogonal(size: int, rng: np.random.Generator) -> Matrix:
    q, r = np.linalg.qr(rng.standard_normal((size, size)))
    return np.asarray(q * np.sign(np.diag(r)), dtype=np.float32)


def _softmax(logits: Matrix) -> Matrix:
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))


def as_float32(features: npt.NDArray[np.generic]) -> Matrix:
    """Return the array as float32, without a copy if it is float32."""
    return np.asarray(features, dtype=np.float32)
