"""Recall of cosine neighbours by other codes of vectors with as many bits.

Random rotation: signs of random orthonormal projections of centred vectors, by Hamming distance.
PQ (Jégou, Douze, Schmid, TPAMI 2011) and RaBitQ (Gao, Long, SIGMOD 2024): those of FAISS, whose
queries are not quantised. RaBitQ stores two float32 numbers beside the bits of a vector.
"""

from __future__ import annotations

from collections.abc import Iterator

import faiss
import numpy as np

from xmodal import linear_models
from xmodal.codes import BinaryCodes
from xmodal.data.vectors import Matrix, unit_rows
from xmodal.evaluation.metrics import mean, neighbour_recall
from xmodal.training.compress import NEIGHBOURS, RERANK_CUT, split_rows

ROTATION, PQ, RABITQ = "random rotation", "PQ, float query", "RaBitQ, float query, + 8 bytes"
NAMES = (ROTATION, PQ, RABITQ)
CENTROIDS = 256
Recalls = dict[str, float]


def peers(features: Matrix, bits: int, seed: int) -> Iterator[tuple[str, Recalls]]:
    """The recall of each peer, with the queries and the database of ``compress``.

    Nothing for fewer numbers than bits, or fewer rows than PQ has centroids.
    """
    parts = split_rows(len(features))
    if features.shape[1] < bits or len(parts["train"]) < CENTROIDS:
        return
    others = np.setdiff1d(np.arange(len(features)), parts["query"])
    queries, database = (unit_rows(features, rows) for rows in (parts["query"], others))
    fitted = unit_rows(features, np.union1d(parts["train"], parts["validation"]))
    nearest = linear_models.nearest(queries, database, NEIGHBOURS)
    rotation = np.linalg.qr(np.random.default_rng(seed).normal(size=(features.shape[1], bits)))[0]
    codes = [
        BinaryCodes.from_relaxed(((rows - fitted.mean(axis=0)) @ rotation).astype(np.float32))
        for rows in (queries, database)
    ]
    yield ROTATION, {name: mean(neighbour_recall(*codes, nearest, k)) for name, k in CUTS.items()}
    product = faiss.IndexPQ(features.shape[1], bits // 8, 8)
    product.pq.cp.seed, product.pq.cp.min_points_per_centroid = seed, 1  # else it prints warnings
    random = faiss.RandomRotationMatrix(features.shape[1], bits)
    random.init(seed)
    for name, index in (
        (PQ, product),
        (RABITQ, faiss.IndexPreTransform(random, faiss.IndexRaBitQ(bits, faiss.METRIC_L2))),
    ):
        index.train(fitted)
        index.add(database)
        _, found = index.search(queries, RERANK_CUT)
        yield name, {cut: _recall(found[:, :k], nearest) for cut, k in CUTS.items()}


CUTS = {f"recall@{NEIGHBOURS}": NEIGHBOURS, f"in first {RERANK_CUT}": RERANK_CUT}


def _recall(found: np.ndarray, nearest: np.ndarray) -> float:
    """The mean share of ``nearest``, (q, k), that ``found`` has."""
    return float((nearest[:, :, None] == found[:, None]).any(axis=2).mean())
