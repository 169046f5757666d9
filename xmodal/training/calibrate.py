"""Fit of the confidence to searches of held-out groups in collections of several sizes.

The queries are the captions and pictures of groups that choose nothing else. They search held-out
groups and, in larger collections, training groups: a training picture is about as far from a
caption of another picture as an unseen one. Right is the own group, or, for a method that learns
labels, every other group that shares a label.

Words are calibrated where the query's own words do not decide what is right: by labels, or with
groups of several captions, one of which is the query and is left out of the documents.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import product

import numpy as np
import numpy.typing as npt

from xmodal.data.dataset import Dataset
from xmodal.data.items import FeatureName, Item
from xmodal.data.names import hash_order, take_names
from xmodal.encoders.calibration import (
    DEFAULT_MIN_CONFIDENCE,
    LOW_SHARES,
    STAGES,
    Confidence,
    Curve,
    Floats,
    SourceCurves,
    Stage,
    StageCurves,
    Typical,
    leads,
    relative,
)
from xmodal.features.extract import Array
from xmodal.features.rows import Features
from xmodal.features.units import FeatureTable, Units
from xmodal.index.words import document_words, tokens
from xmodal.modality import DIRECTIONS, MODALITIES, Modality
from xmodal.training.simulated_search import (
    MAX_DOCUMENTS,
    Collection,
    Searches,
    Texts,
    by_both,
    by_codes,
    by_words,
    similarities,
    subsets,
    words_rounds,
)

MIN_QUERIES, MIN_RIGHT = 20, 10
"""Queries, and right hits among the first ones, below which nothing is calibrated."""
RANKS = 10
"""First hits of a query that a curve is fitted to."""
CODE_WEIGHTS = (2.0, 3.0, 5.0, 8.0, 12.0, 18.0, 27.0)
WORD_WEIGHTS = (0.5, 1.0, 1.5, 2.0, 3.0)
"""Weights of a similarity and of a BM25 score that are tried."""
MAX_HELD_OUT = 20_000
"""Held-out groups whose outputs are computed."""
MAX_TRIED = 10_000
"""Hits that choose the weights; all hits fit the curve of the chosen ones."""
LOW_SHARE, MAX_THRESHOLD = 0.05, 0.5
"""Share of the held-out queries whose best hit is below the default threshold, and its maximum."""
RIDGE = 1e-4

Outputs = Callable[[Modality, Features], Array]


@dataclass
class _Found:
    """Searches of one direction; by both and by codes for each stage."""

    codes: dict[Stage, list[Searches]] = field(default_factory=lambda: {s: [] for s in STAGES})
    both: dict[Stage, list[Searches]] = field(default_factory=lambda: {s: [] for s in STAGES})
    words: list[Searches] = field(default_factory=list)


def calibrate(groups: Collection, seed: int = 0) -> Confidence:
    """Return the fitted confidence; it has no curves where there are too few held-out groups."""
    sources: dict[Modality, SourceCurves] = {}
    found: dict[Modality, _Found] = {}
    for source, _ in DIRECTIONS:
        searches = _search(groups, source, np.random.default_rng(seed))
        curves = _fit_source(searches, groups.by_labels)
        if curves is not None:
            sources[source], found[source] = curves, searches
    if not sources:
        return Confidence()
    shares = [one.match_share for search in found.values() for one in search.codes["hamming"]]
    share = float(np.mean(shares)) if groups.by_labels else None
    fitted = Confidence(sources, share)
    threshold = _threshold(fitted, found["text"]) if "text" in found else DEFAULT_MIN_CONFIDENCE
    return Confidence(sources, share, threshold)


def _search(groups: Collection, source: Modality, rng: np.random.Generator) -> _Found:
    """Return the searches of all stages and evidences, in collections of all sizes."""
    found = _Found()
    for subset in subsets(groups, source, rng):
        if not len(subset.rows):
            continue
        rounds = list(words_rounds(groups, subset))
        for queries, scores in rounds:
            found.words.append(by_words(subset.of(queries), scores))
        for stage in STAGES:
            values = similarities(groups, subset, stage)
            found.codes[stage].append(by_codes(subset, values))
            for queries, scores in rounds:
                found.both[stage].append(by_both(subset.of(queries), values[queries], scores))
    return found


def collection_of(
    table: FeatureTable,
    held_out: Dataset,
    others: Dataset,
    outputs: Outputs,
    *,
    by_labels: bool,
    max_others: int = MAX_DOCUMENTS,
) -> Collection:
    """Return the groups of ``held_out``, and at most ``max_others`` groups of ``others``.

    Of the held-out groups ``MAX_HELD_OUT`` are kept; a hash of their names decides. ``outputs``
    maps a modality and features (m, d) to the real-valued outputs (m, bits).
    """
    classes = table.data.classes
    first, queries = _sampled_groups(held_out, MAX_HELD_OUT)
    further, _ = _sampled_groups(others, max_others)
    part = replace(held_out, items=(*first, *further))
    units = table.units(part, classes)
    found = {modality: outputs(modality, units.features(modality)) for modality in MODALITIES}
    asked = np.array([id_ in queries for id_ in units.ids], np.bool_)
    return Collection(units, found, asked, by_labels, texts_of(units, part))


def _sampled_groups(data: Dataset, count: int) -> tuple[Iterable[Item], set[str]]:
    """Return the items of at most ``count`` groups, and the groups; a hash of names decides."""
    groups = data.grouping
    chosen = np.arange(len(groups.names))
    if len(chosen) > count:
        chosen = hash_order(groups.names, "calibration")[:count]
    items = data.take(np.flatnonzero(np.isin(groups.codes, chosen)))
    return items, set(take_names(groups.names, chosen))


def texts_of(units: Units, data: Dataset) -> Texts | None:
    """Return the words of the captions and of the other fields of units of ``data``.

    None if captions are features without a text.
    """
    if any(isinstance(text, FeatureName) for item in data for text in item.captions):
        return None
    caption: dict[str, str] = {}
    fields: dict[str, list[str]] = defaultdict(list)
    for item in data:
        for number, text in enumerate(item.captions):
            caption[item.id if len(item.captions) == 1 else f"{item.id}#{number}"] = text
        stored = item.document()
        own = document_words({"text": stored.get("text")}, item.id)
        fields[item.group or item.id] += document_words(stored, item.id)[len(own) :]
    named = [caption[name] for name in units.text_ids]
    return Texts(
        [tokens(text) for text in named],
        [document_words({"text": text}, "") for text in named],
        [fields[id_] for id_ in units.ids],
    )


def _fit_source(found: _Found, by_labels: bool) -> SourceCurves | None:
    """Return the curves of one direction; None if there is too little to fit."""
    stages: dict[Stage, StageCurves] = {}
    words = _fit(found.words, by_labels, (0.0,), WORD_WEIGHTS)
    for stage in STAGES:
        # With words, atanh would let similarities outweigh them.
        alone = _fit(found.codes[stage], by_labels, CODE_WEIGHTS, (0.0,), arctanh=by_labels)
        if alone is None:
            continue
        matched = unmatched = None
        if words is not None:
            both = found.both[stage]
            matched = _fit(both, by_labels, CODE_WEIGHTS[::2], WORD_WEIGHTS, matched=True)
            unmatched = _fit(both, by_labels, CODE_WEIGHTS[::2], WORD_WEIGHTS, matched=False)
        typical = _typical(found.codes[stage])
        stages[stage] = StageCurves(alone, typical, matched, unmatched if matched else None)
    return SourceCurves(stages, words) if stages else None


def _fit(
    searches: Sequence[Searches],
    by_labels: bool,
    code_weights: Sequence[float],
    word_weights: Sequence[float],
    *,
    arctanh: bool = False,
    matched: bool | None = None,
) -> Curve | None:
    """Return the curve with the highest likelihood of the weights, or None with too few hits.

    ``matched``: only hits that the ranking by words has, or only those that it lacks.
    """
    used = [_used(one, matched) for one in searches]
    pairs = list(zip(searches, used, strict=True))
    right = np.concatenate(
        [one.right[:, :RANKS][hits] for one, hits in pairs] or [np.zeros(0, bool)]
    )
    if sum(map(len, used)) < MIN_QUERIES or not MIN_RIGHT <= right.sum() < len(right):
        return None
    sizes = [np.full(int(hits.sum()), np.log(one.n_documents)) for one, hits in pairs]
    largest = max(one.n_documents for one in searches)

    def fitted(codes: float, words: float, step: int) -> tuple[float, Curve]:
        """Fit to every ``step``-th hit; return loss and curve."""
        raw = Curve(codes, words, 0.0, 0.0, 0.0, 0.0, 0.0, largest, arctanh)
        rows = []
        for one, hits in pairs:
            scores = raw.scores(one.similarities, one.words)
            share = relative(scores) if not codes else np.zeros(scores.shape)
            rows.append(np.stack([leads(scores), scores, share], axis=-1)[:, :RANKS][hits])
        columns = np.column_stack([np.concatenate(rows), np.concatenate(sizes)])[::step]
        loss, values = _logistic(columns, right[::step], falls_with_size=not by_labels)
        lead, score, of_best, documents, offset = values
        curve = replace(
            raw, lead=lead, score=score, relative=of_best, documents=documents, offset=offset
        )
        return loss, curve

    step = -(-len(right) // MAX_TRIED)
    tried = [fitted(c, w, step) for c, w in product(code_weights, word_weights)]
    _, best = min(tried, key=lambda one: one[0])
    return best if step == 1 else fitted(best.codes, best.words, 1)[1]


def _used(searches: Searches, matched: bool | None) -> npt.NDArray[np.bool_]:
    """Return the hits that a fit uses, (q, RANKS) or fewer columns."""
    first = [x[:, :RANKS] for x in (searches.similarities, searches.words) if x is not None]
    found = np.isfinite(first[0])
    return found if matched is None else found & ((first[-1] > 0) == matched)


def _logistic(
    rows: Floats, right: npt.NDArray[np.bool_], *, falls_with_size: bool
) -> tuple[float, list[float]]:
    """Return the mean loss, and the coefficients of the columns and the offset.

    Newton's method with a ridge. The columns are lead, score, its share of the best, and logarithm
    of the size. A
    coefficient that would let confidence fall with the score is 0, and with ``falls_with_size`` so
    is one that would let it rise with the size. By labels, a larger collection has more right
    documents, and the first hits of a query are more often right.
    """
    signs = np.array([1.0, 1.0, 1.0, -1.0 if falls_with_size else 0.0])
    mean, deviation = rows.mean(axis=0), rows.std(axis=0)
    used = deviation > 1e-9
    while True:
        columns = np.flatnonzero(used)
        scaled = (rows[:, columns] - mean[columns]) / deviation[columns]
        design = np.concatenate([scaled, np.ones((len(rows), 1))], axis=1)
        loss, beta = _newton(design, right.astype(np.float64))
        wrong = beta[:-1] * signs[columns] < 0
        if not wrong.any():
            break
        used[columns[int(np.argmin(beta[:-1] * signs[columns]))]] = False
    coefficients = np.zeros(len(signs))
    coefficients[columns] = beta[:-1] / deviation[columns]
    return loss, [*coefficients.tolist(), float(beta[-1] - coefficients @ mean)]


def _newton(design: Floats, right: Floats) -> tuple[float, Floats]:
    """Return the mean loss of a logistic regression, and its coefficients."""
    beta = np.zeros(design.shape[1])
    penalty = RIDGE * np.eye(len(beta))
    for _ in range(50):
        p = 1 / (1 + np.exp(-np.clip(design @ beta, -60, 60)))
        gradient = design.T @ (p - right) / len(right) + penalty @ beta
        hessian = (design * (p * (1 - p))[:, None]).T @ design / len(right) + penalty
        step = np.linalg.solve(hessian, gradient)
        step *= min(1.0, 5 / max(1e-12, float(np.abs(step).max())))
        beta = beta - step
        if np.abs(step).max() < 1e-8:
            break
    logits = design @ beta
    loss = float(np.mean(np.logaddexp(0, logits) - right * logits))
    return loss, beta


def _typical(searches: Sequence[Searches]) -> Typical:
    """Return the distribution of the best similarity, over all queries and sizes."""
    best = [one.similarities.max(axis=1) for one in searches if one.similarities is not None]
    size = np.repeat([np.log(one.n_documents) for one in searches], [len(one) for one in best])
    values = np.concatenate(best)
    spread = float(size.var())
    slope = (
        float(np.mean((size - size.mean()) * (values - values.mean())) / spread) if spread else 0.0
    )
    mean = float(values.mean() - slope * size.mean())
    low = np.quantile(values - slope * size - mean, LOW_SHARES)
    return Typical(mean, slope, tuple(low.tolist()))


def _threshold(confidence: Confidence, found: _Found) -> float:
    """Return the confidence that LOW_SHARE of the queries do not reach in the largest size."""
    stage = next(iter(confidence.sources["text"].stages))
    largest = max(found.codes[stage], key=lambda one: one.n_documents)
    assert largest.similarities is not None
    best = []
    for row in largest.similarities:
        hits = row[np.isfinite(row)].tolist()
        found_at = confidence.hits_confidence(stage, hits, largest.n_documents)
        best.append(max(value for value in found_at if value is not None))
    return round(min(MAX_THRESHOLD, float(np.quantile(best, LOW_SHARE))), 4)
