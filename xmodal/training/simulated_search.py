"""Searches of held-out groups in collections of several sizes, for the fit of the confidence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from xmodal.encoders.calibration import COMPETITORS, Floats, Stage
from xmodal.features.extract import Array
from xmodal.features.units import Units
from xmodal.modality import Modality, other_modality
from xmodal.vectors import query_weights, to_int8

Bool = npt.NDArray[np.bool_]
Int64 = npt.NDArray[np.int64]

MAX_QUERIES, MAX_DOCUMENTS = 1000, 6000
"""Queries of a collection, and groups of the largest collection."""
MAX_ROUNDS = 5
"""Captions of a group that are queries with words."""
MIN_SIZE, GROWTH = 50, 3
"""Groups of the smallest collection, and ratio of the sizes of successive ones."""
RANK_CONSTANT = 60
"""Constant of the reciprocal rank fusion that orders the hits of both rankings."""


@dataclass(frozen=True)
class Texts:
    """Words of the captions, rows of ``Units.text``, as queries and in documents.

    ``fields``: words of the other fields of each unit.
    """

    queries: Sequence[Sequence[str]]
    captions: Sequence[Sequence[str]]
    fields: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Collection:
    """Groups with the outputs (m, bits) of the towers for the rows of ``units``.

    ``held_out`` (n,): groups that are queries; the others are documents only. ``by_labels``: right
    is every other group with a common label, else the own group alone. ``texts``: None without
    words.
    """

    units: Units
    outputs: Mapping[Modality, Array]
    held_out: Bool
    by_labels: bool = False
    texts: Texts | None = None


@dataclass(frozen=True)
class Searches:
    """Hits of q queries in one collection, best first, at most w of each.

    ``right`` (q, w). ``similarities``, ``words`` (q, w): scores of the evidence that was searched,
    else None; the similarity -inf is no hit. ``match_share``: mean share of the documents that is
    right.
    """

    n_documents: int
    right: Bool
    similarities: Floats | None = None
    words: Floats | None = None
    match_share: float = 0.0


@dataclass(frozen=True)
class Subset:
    """Documents and queries of one collection size: ``units`` (n,), ``rows`` (q,) of the source.

    ``right`` and ``own`` (q, n): documents that are right, and that are the query's own group.
    """

    source: Modality
    units: Int64
    rows: Int64
    right: Bool
    own: Bool

    def of(self, queries: Int64) -> Subset:
        """Return the subset with the queries at these positions."""
        right, own = self.right[queries], self.own[queries]
        return replace(self, rows=self.rows[queries], right=right, own=own)


def subsets(groups: Collection, source: Modality, rng: np.random.Generator) -> Iterator[Subset]:
    """Yield collections of growing size: parts of the held-out groups, all, and with the others."""
    target = other_modality(source)
    coded = np.diff(groups.units.offsets(target)) > 0
    usable = coded & groups.units.labelled if groups.by_labels else coded
    held_out = rng.permutation(np.flatnonzero(usable & groups.held_out))[:MAX_DOCUMENTS]
    others = rng.permutation(np.flatnonzero(usable & ~groups.held_out))
    parts = 1
    while len(held_out) // (parts * GROWTH) >= MIN_SIZE:
        parts *= GROWTH
    while parts > 1:
        # Parts of equal size: almost every held-out group is a query once.
        size = len(held_out) // parts
        for start in range(0, parts * size, size):
            yield subset_of(groups, source, held_out[start : start + size], rng)
        parts //= GROWTH
    limit = min(len(held_out) + len(others), MAX_DOCUMENTS)
    size = len(held_out)
    while size:
        yield subset_of(
            groups, source, np.concatenate([held_out, others[: size - len(held_out)]]), rng
        )
        size = 0 if size == limit else min(size * GROWTH, limit)


def subset_of(
    groups: Collection,
    source: Modality,
    units: Int64,
    rng: np.random.Generator,
    max_queries: int = MAX_QUERIES,
) -> Subset:
    """Return the collection of ``units``, searched by at most ``max_queries`` held-out sources."""
    units = np.sort(units)
    unit_of_row = groups.units.unit_of_rows(source)
    asked = units[groups.held_out[units]]
    rows = np.flatnonzero(np.isin(unit_of_row, asked))
    if len(rows) > max_queries:
        rows = np.sort(rng.choice(rows, max_queries, replace=False))
    own = unit_of_row[rows][:, None] == units[None, :]
    if not groups.by_labels:
        return Subset(source, units, rows, own, own)
    labels = groups.units.labels.astype(np.float32)
    shared = labels[unit_of_row[rows]] @ labels[units].T > 0
    return Subset(source, units, rows, shared & ~own, own)


def similarities(groups: Collection, subset: Subset, stage: Stage) -> Floats:
    """Return the similarity of each query with each document, (q, n)."""
    target = other_modality(subset.source)
    offsets = groups.units.offsets(target)
    counts = np.diff(offsets)[subset.units]
    rows = np.concatenate([np.arange(offsets[u], offsets[u + 1]) for u in subset.units])
    queries = groups.outputs[subset.source][subset.rows]
    values = _compare(stage, queries, groups.outputs[target][rows])
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    best: Floats = np.maximum.reduceat(values, starts, axis=1).astype(np.float64)
    if groups.by_labels:
        best[subset.own] = -np.inf
    return best


def _compare(stage: Stage, queries: Array, documents: Array) -> npt.NDArray[np.float32]:
    """Return ``Hit.similarity`` (q, m) of outputs (q, bits) and (m, bits)."""
    if stage == "vectors":
        one, two = (to_int8(x).astype(np.float32) for x in (queries, documents))
        cosines: npt.NDArray[np.float32] = _unit_rows(one) @ _unit_rows(two).T
        return cosines
    signs = np.where(queries > 0, 1.0, -1.0).astype(np.float32)
    weights = query_weights(queries) if stage == "weighted" else None
    if weights is not None:
        signs *= weights
    total = np.abs(signs).sum(axis=1, keepdims=True)
    codes = np.where(documents > 0, 1.0, -1.0).astype(np.float32)
    values: npt.NDArray[np.float32] = signs @ codes.T / total
    return values


def _unit_rows(rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: npt.NDArray[np.float32] = np.zeros_like(rows)
    np.divide(rows, lengths, out=unit, where=lengths > 0)
    return unit


def by_codes(subset: Subset, values: Floats) -> Searches:
    """Return the first hits by similarity (q, n)."""
    order = _first(values)
    chosen = np.take_along_axis(values, order, axis=1)
    right = np.take_along_axis(subset.right, order, axis=1) & np.isfinite(chosen)
    return Searches(len(subset.units), right, chosen, match_share=float(subset.right.mean()))


def by_words(subset: Subset, scores: Floats) -> Searches:
    """Return the first hits by BM25 (q, n); a document without a matching word is no hit."""
    order = _first(scores)
    chosen = np.take_along_axis(scores, order, axis=1)
    chosen[chosen <= 0] = -np.inf
    right = np.take_along_axis(subset.right, order, axis=1) & np.isfinite(chosen)
    return Searches(len(subset.units), right, words=chosen)


def by_both(subset: Subset, values: Floats, scores: Floats) -> Searches:
    """Return the first hits of both rankings, by the sum of their reciprocal ranks."""
    q, n = values.shape
    width = min(n, 2 * COMPETITORS)
    ranks = np.zeros((q, n))
    matched: Floats = np.zeros((q, n))
    for ranking, usable in ((values, np.isfinite(values)), (scores, scores > 0)):
        order = _first(ranking)
        gains = np.broadcast_to(1.0 / (RANK_CONSTANT + 1 + np.arange(order.shape[1])), order.shape)
        gained = np.where(np.take_along_axis(usable, order, axis=1), gains, 0.0)
        if ranking is scores:
            kept = np.where(gained > 0, np.take_along_axis(scores, order, axis=1), 0.0)
            np.put_along_axis(matched, order, kept, axis=1)
        np.put_along_axis(ranks, order, np.take_along_axis(ranks, order, axis=1) + gained, axis=1)
    order = np.argsort(-ranks, axis=1, kind="stable")[:, :width]
    chosen, words = (np.take_along_axis(x, order, axis=1) for x in (values, matched))
    right = np.take_along_axis(subset.right, order, axis=1)
    chosen = np.where(np.take_along_axis(ranks, order, axis=1) > 0, chosen, -np.inf)
    return Searches(len(subset.units), right & np.isfinite(chosen), chosen, words)


def _first(values: Floats) -> Int64:
    """Return the columns of the COMPETITORS largest values of each row, (q, k), best first."""
    k = min(COMPETITORS, values.shape[1])
    chosen = np.argpartition(-values, k - 1, axis=1)[:, :k]
    order = np.argsort(-np.take_along_axis(values, chosen, axis=1), axis=1, kind="stable")
    first: Int64 = np.take_along_axis(chosen, order, axis=1)
    return first


# ---- words -----------------------------------------------------------------------------------


def words_rounds(groups: Collection, subset: Subset) -> Iterator[tuple[Int64, Floats]]:
    """Yield query positions (q,) of ``subset.rows``, and their BM25 scores (q, n).

    By labels, all documents have all their captions, and the own group is no hit. Otherwise the
    queries of round j are the captions j of groups with several captions, and no document has its
    caption j.
    """
    texts = groups.texts
    if texts is None or subset.source != "text":
        return
    offsets = groups.units.text_offsets
    unit = groups.units.unit_of_rows("text")[subset.rows]
    position = subset.rows - offsets[unit]
    several = np.diff(offsets)[unit] > 1
    for number in range(1 if groups.by_labels else MAX_ROUNDS):
        queries = (
            np.arange(len(subset.rows))
            if groups.by_labels
            else np.flatnonzero((position == number) & several)
        )
        if not len(queries):
            continue
        left_out = -1 if groups.by_labels else number
        index = Bm25([_words_of(groups, texts, unit, left_out) for unit in subset.units])
        scores = np.stack([index.scores(texts.queries[subset.rows[q]]) for q in queries])
        if groups.by_labels:
            scores[subset.own[queries]] = 0.0
        yield queries, scores


def _words_of(groups: Collection, texts: Texts, unit: int, left_out: int) -> list[str]:
    """Return the words of a document without its caption ``left_out``, unless that is its only."""
    start, end = (int(x) for x in groups.units.text_offsets[unit : unit + 2])
    rows = [row for row in range(start, end) if row - start != left_out or end - start == 1]
    return [word for row in rows for word in texts.captions[row]] + list(texts.fields[unit])


class Bm25:
    """BM25 of a small collection, with k1 = 1.2 and b = 0.75, as Lucene computes it."""

    def __init__(self, documents: Sequence[Sequence[str]]) -> None:
        self.n = len(documents)
        self._number: dict[str, int] = {}
        counts = np.array([len(words) for words in documents])
        number = self._number
        terms = np.array(
            [number.setdefault(word, len(number)) for words in documents for word in words],
            np.int64,
        )
        owner = np.repeat(np.arange(self.n), counts)
        keys, frequency = np.unique(terms * self.n + owner, return_counts=True)
        term, self._document = keys // max(self.n, 1), keys % max(self.n, 1)
        self._starts = np.searchsorted(term, np.arange(len(number) + 1))
        in_documents = np.diff(self._starts)
        idf = np.log(1 + (self.n - in_documents + 0.5) / (in_documents + 0.5))
        length = 0.25 + 0.75 * counts / max(counts.mean(), 1e-9)
        self._weight = idf[term] * frequency / (frequency + 1.2 * length[self._document])

    def scores(self, words: Sequence[str]) -> Floats:
        """Return the score of each document (n,), 0 without a matching word."""
        total = np.zeros(self.n)
        for word in dict.fromkeys(words):
            number = self._number.get(word)
            if number is not None:
                postings = slice(self._starts[number], self._starts[number + 1])
                total[self._document[postings]] += self._weight[postings]
        return total
