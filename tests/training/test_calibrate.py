"""Fit of the confidence: calibrated at several sizes, labels, words, too little data."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from xmodal.encoders.calibration import Confidence
from xmodal.features.units import Units
from xmodal.training.calibrate import calibrate
from xmodal.training.simulated_search import (
    Bm25,
    Collection,
    Texts,
    by_codes,
    similarities,
    subset_of,
    subsets,
    words_rounds,
)

BITS, NOISE = 32, 1.6


def collection(n: int, held_out: int, seed: int, captions: int = 1, classes: int = 0) -> Collection:
    """Return ``n`` groups of one picture and captions, whose outputs are noisy copies."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, max(classes, 1), n)
    centres = rng.standard_normal((max(classes, 1), BITS)) * 2
    image = rng.standard_normal((n, BITS)) + centres[kind] * bool(classes)
    text = np.repeat(image, captions, axis=0)
    text = text + NOISE * rng.standard_normal(text.shape)
    labels = np.eye(max(classes, 1), dtype=np.bool_)[kind][:, :classes]
    units = Units(
        [f"{k:05d}" for k in range(n)],
        image.astype(np.float16),
        text.astype(np.float16),
        np.arange(n + 1),
        np.arange(n + 1) * captions,
        labels,
        np.full(n, bool(classes)),
        np.arange(n * captions),
        [f"{k:05d}" for k in range(n)],
        [f"{k:05d}#{c}" for k in range(n) for c in range(captions)],
    )
    words = [
        [f"w{w}" for w in (*rng.integers(0, 300, 3), unit % 500)]
        for unit in np.repeat(np.arange(n), captions)
    ]
    asked = np.zeros(n, np.bool_)
    asked[rng.permutation(n)[:held_out]] = True
    outputs = {"image": image.astype(np.float32), "text": text.astype(np.float32)}
    texts = Texts(words, words, [[] for _ in range(n)])
    return Collection(units, outputs, asked, bool(classes), texts)  # type: ignore[arg-type]


def errors(confidence: Confidence, groups: Collection, size: int) -> tuple[float, float]:
    """Return the calibration error of the first ten hits, and the mean confidence of the first."""
    rng = np.random.default_rng(1)
    subset = subset_of(groups, "text", np.arange(size), rng)
    found = by_codes(subset, similarities(groups, subset, "vectors"))
    assert found.similarities is not None
    rows = [
        confidence.hits_confidence("vectors", row.tolist(), size)[:10] for row in found.similarities
    ]
    values, right = np.array(rows, np.float64), found.right[:, :10]
    order = np.argsort(values.ravel())
    parts = [np.array_split(x.ravel()[order].astype(float), 10) for x in (values, right)]
    error = np.mean([abs(a.mean() - b.mean()) for a, b in zip(*parts, strict=True)])
    return float(error), float(values[:, 0].mean())


@pytest.fixture(scope="module")
def fitted() -> Confidence:
    return calibrate(collection(1200, 300, seed=0))


def test_confidence_is_calibrated_at_two_sizes_and_falls(fitted: Confidence) -> None:
    held_out = collection(3000, 1000, seed=5)
    held_out = replace(held_out, held_out=np.arange(3000) < 200)
    small, large = (errors(fitted, held_out, size) for size in (200, 3000))
    assert small[0] < 0.05 and large[0] < 0.05
    assert large[1] < small[1] - 0.1


def test_queries_that_are_near_nothing_are_below_the_threshold(fitted: Confidence) -> None:
    rng = np.random.default_rng(0)
    rows = np.sort(0.1 * rng.standard_normal((100, 1000)), axis=1)[:, :-101:-1]
    best = [fitted.hits_confidence("vectors", row.tolist(), 1000)[0] for row in rows]
    assert np.mean(np.array(best, float) < fitted.min_confidence) >= 0.95


def test_every_stage_and_direction_is_fitted(fitted: Confidence) -> None:
    assert set(fitted.sources) == {"image", "text"} and fitted.match_share is None
    for source in fitted.sources.values():
        assert set(source.stages) == {"vectors", "weighted", "hamming"}
    # One caption a picture: words cannot be told from the query's own.
    assert all(source.words is None for source in fitted.sources.values())


def test_words_are_fitted_with_several_captions() -> None:
    fitted = calibrate(collection(400, 120, seed=1, captions=3))
    text = fitted.sources["text"]
    assert text.words is not None and text.stages["vectors"].matched is not None
    assert fitted.sources["image"].words is None
    found = fitted.hits_confidence("vectors", [0.5, 0.5], 400, word_scores=[9.0, None])
    assert found[0] > found[1]  # type: ignore[operator]


def test_by_labels_the_prior_is_the_share_of_equal_labels() -> None:
    fitted = calibrate(collection(600, 200, seed=2, classes=5))
    assert fitted.match_share == pytest.approx(0.2, abs=0.03)
    assert 0 < fitted.min_confidence <= 0.5
    best = fitted.hits_confidence("vectors", [0.95, 0.9], 600)
    # Many documents are right: another near hit takes nothing away.
    assert best[1] is not None and best[1] > 0.5
    assert fitted.hits_confidence("vectors", [0.1], 600, has_known_token=False)[0] == pytest.approx(
        fitted.match_share, abs=1e-3
    )


@pytest.mark.parametrize(("n", "held_out"), [(0, 0), (30, 0), (12, 8)])
def test_too_few_held_out_groups_give_no_confidence(n: int, held_out: int) -> None:
    fitted = calibrate(collection(n, held_out, seed=3))
    assert fitted.hits_confidence("vectors", [0.9], 10) == [None]


def test_sizes_grow_and_every_collection_has_the_queries() -> None:
    groups = collection(1000, 160, seed=4)
    rng = np.random.default_rng(0)
    found = list(subsets(groups, "text", rng))
    sizes = [len(one.units) for one in found]
    assert sizes == [53, 53, 53, 160, 480, 1000]
    assert all((one.own.sum(axis=1) == 1).all() for one in found)


def test_documents_lack_the_caption_that_is_the_query() -> None:
    groups = collection(50, 50, seed=4, captions=2)
    assert groups.texts is not None
    rng = np.random.default_rng(0)
    subset = subset_of(groups, "text", np.arange(50), rng)
    rounds = list(words_rounds(groups, subset))
    assert [len(queries) for queries, _ in rounds] == [50, 50]
    queries, scores = rounds[1]
    row = int(subset.rows[queries[0]])
    others = [groups.texts.captions[2 * unit] for unit in range(50)]
    assert row % 2 == 1
    assert scores[0] == pytest.approx(Bm25(others).scores(groups.texts.queries[row]))


def test_bm25_equals_a_value_computed_by_hand() -> None:
    index = Bm25([["red", "car"], ["red", "red", "bus", "stop"], ["tree"]])
    idf = np.log(1 + (3 - 2 + 0.5) / (2 + 0.5))
    mean = 7 / 3
    expected = [
        idf * f / (f + 1.2 * (0.25 + 0.75 * length / mean)) for f, length in ((1, 2), (2, 4))
    ]
    assert index.scores(["red", "unknown"]) == pytest.approx([*expected, 0])
