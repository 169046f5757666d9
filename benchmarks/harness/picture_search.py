"""Captions that search pictures among many: outputs of one encoder, and exact references.

The encoder is trained on the training pictures of flickr8k. Queries are captions of the dev
pictures, one of each. Documents are the dev pictures and mixtures of two training pictures: the
features a and b of two random pictures become t a + (1 - t) b with t uniform in [0.5, 1), and are
encoded. Ids are in random order, so that ties in order of the id favour no document.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness import caption_sets
from xmodal.data.items import Item
from xmodal.data.problems import Problems
from xmodal.encoders.torch_encoder import TrainedEncoder
from xmodal.evaluation.metrics import TieGroups, hit_at
from xmodal.evaluation.search_stages import stage_distances
from xmodal.index.documents import DocumentBatch
from xmodal.index.query_codes import QueryCodes
from xmodal.linear_models import unit
from xmodal.modality import Modality
from xmodal.training.train import train
from xmodal.vectors import expected_signs

BITS = 256
K = 10
OWN_ROWS = HAMMING, WEIGHTED, TWO_STAGES = "hamming", "weighted", "weighted, int8 vectors"
"""The ways of xmodal to rank: bits, real queries by bits, and a second stage by vectors."""
CUTS = (1, 5, 10)
"""The k of R@k."""
CHUNK = 20_000
"""Documents that are encoded at a time."""
Floats = npt.NDArray[np.floating[Any]]
Vectors = Floats | npt.NDArray[np.int8]
QUERY_CHUNK = 20
"""Queries that are compared at a time with all documents."""


@dataclass(frozen=True)
class Part:
    """Consecutive documents: ids, codes and vectors, (n, bits) each, and the vectors in float."""

    ids: list[str]
    codes: QueryCodes
    floats: npt.NDArray[np.float32]

    def batch(self, *, vectors: bool) -> DocumentBatch:
        """Return the documents of an index, with or without their int8 vectors."""
        chosen = self.codes.vectors if vectors else None
        return DocumentBatch.of(self.ids, image=self.codes.codes, image_vectors=chosen)

    def split(self, parts: int) -> Iterator[Part]:
        """Yield the documents in equal parts; the last one may be smaller."""
        size = -(-len(self.ids) // parts)
        for start in range(0, len(self.ids), size):
            rows = slice(start, start + size)
            yield Part(self.ids[rows], self.codes[rows], self.floats[rows])


@dataclass(frozen=True)
class Collection:
    """Queries, and documents by which they are searched; document i < q is right for query i.

    ``queries`` (q): outputs as an index searches them. ``floats`` (q, bits): their vectors.
    """

    encoder: TrainedEncoder
    queries: QueryCodes
    floats: npt.NDArray[np.float32]
    dev: Floats
    training: Floats
    seed: int

    def queries_of(self, row: str) -> QueryCodes:
        """Return the queries of one of ``OWN_ROWS``: without weights, or without vectors."""
        weights = None if row == HAMMING else self.queries.weights
        vectors = self.queries.vectors if row == TWO_STAGES else None
        return QueryCodes(self.queries.codes, weights, vectors)

    def parts(self, count: int) -> Iterator[Part]:
        """Yield ``count`` documents in parts; the dev pictures are first."""
        rng = np.random.default_rng([self.seed, count])
        numbers = rng.permutation(count)
        start = 0
        while start < count:
            size = min(CHUNK, count - start)
            known = self.dev[start : start + size]
            features = np.concatenate([known, self._mixtures(size - len(known), rng)])
            outputs = self.encoder.outputs("image", features)
            ids = [f"{number:07d}" for number in numbers[start : start + size]]
            yield Part(ids, QueryCodes.of(outputs), expected_signs(outputs).astype(np.float32))
            start += size

    def _mixtures(self, count: int, rng: np.random.Generator) -> Floats:
        first, second = rng.integers(len(self.training), size=(2, count))
        share = rng.uniform(0.5, 1, size=(count, 1)).astype(np.float32)
        mixed = share * self.training[first] + (1 - share) * self.training[second]
        return unit(mixed).astype(np.float16)


def collection(data: Path, work: Path, seed: int, queries: int) -> Collection:
    """Return the collection of a seed; the encoder is trained, or loaded from ``work``."""
    given = caption_sets.load(caption_sets.DEV, data)
    options = replace(given.options, method="contrastive", bits=BITS, seed=seed)
    encoder = train(given.data, work / f"encoder-{seed}", options, features=given.features)
    dev, training = (
        [item for item in given.data if item.split == split] for split in ("dev", "train")
    )

    def features(modality: Modality, items: list[Item]) -> Floats:
        assert given.features is not None
        return np.asarray(given.features.features(modality, items, Problems())[0])

    captions = features("text", dev).reshape(len(dev), -1, given.features.file.dim("text"))
    chosen = np.random.default_rng(seed).integers(captions.shape[1], size=queries)
    outputs = encoder.outputs("text", captions[np.arange(queries), chosen])
    return Collection(
        encoder,
        QueryCodes.of(outputs),
        expected_signs(outputs).astype(np.float32),
        features("image", dev),
        features("image", training).astype(np.float32),
        seed,
    )


def join(parts: Iterator[Part]) -> Part:
    """Return all parts as one."""
    found = list(parts)
    return Part(
        [id_ for part in found for id_ in part.ids],
        QueryCodes.concatenate([part.codes for part in found]),
        np.concatenate([part.floats for part in found]),
    )


def right_at(queries: QueryCodes, documents: QueryCodes, *, vectors: bool) -> list[float]:
    """Return R@k for each of ``CUTS``: the expectation over all orders of tied documents."""
    distances = stage_distances(queries, documents, vectors=vectors)
    groups = []
    for start in range(0, len(queries), QUERY_CHUNK):
        found = distances(slice(start, start + QUERY_CHUNK))
        own = found[np.arange(len(found)), start + np.arange(len(found))][:, None]
        groups.append(np.stack([(found < own).sum(axis=1), (found == own).sum(axis=1)], axis=1))
    total = np.concatenate(groups).astype(np.float64)
    counts = TieGroups(total, np.broadcast_to([0.0, 1.0], total.shape))
    return [float(hit_at(counts, k).mean()) for k in CUTS]


def right_hits(found: Sequence[Sequence[str]], ids: Sequence[str]) -> list[float]:
    """Return R@k for each of ``CUTS`` of the ids that a search found."""
    pairs = list(zip(found, ids, strict=False))
    return [sum(own in hits[:k] for hits, own in pairs) / len(pairs) for k in CUTS]


def nearest(queries: Vectors, documents: Vectors, ids: Sequence[str]) -> list[set[str]]:
    """Return the ids of the ``K`` documents with the largest cosine for each query, exactly.

    The products of int8 vectors are exact in float32 up to 1,024 dimensions.
    """
    rows, columns = queries.astype(np.float32), documents.astype(np.float32)
    lengths = np.linalg.norm(columns.astype(np.float64), axis=1)
    found = []
    for start in range(0, len(rows), QUERY_CHUNK):
        cosines = (rows[start : start + QUERY_CHUNK] @ columns.T) / lengths
        best = np.argpartition(-cosines, K, axis=1)[:, :K]
        found += [{ids[row] for row in of_one} for of_one in best]
    return found


def share_kept(found: Sequence[Sequence[str]], best: Sequence[set[str]]) -> float:
    """Return the mean share of the documents ``best`` that are among those found."""
    return float(
        np.mean([len(own & set(hits)) / len(own) for hits, own in zip(found, best, strict=True)])
    )
