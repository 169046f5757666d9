"""Confidence of hits: formulas by hand, size of the index, unusual queries, storage."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xmodal.encoders.calibration import (
    COMPETITORS,
    Confidence,
    Curve,
    EvenCurve,
    SourceCurves,
    StageCurves,
    Typical,
    known_words,
    leads,
)

QUICK = settings(deadline=None, max_examples=40)
ALONE = Curve(codes=10.0, words=0.0, lead=1.0, score=0.0, documents=-0.2, offset=0.5)
BOTH = Curve(codes=6.0, words=1.0, lead=0.9, score=0.0, documents=-0.2, offset=0.5)
WORDS = Curve(codes=0.0, words=1.5, lead=0.7, score=0.0, documents=-0.1, offset=0.0)
TYPICAL = Typical(mean=0.3, documents=0.02, quantiles=(-0.3, -0.23, -0.2, -0.165, -0.13))


def calibrated(both: Curve | None = BOTH, words: Curve | None = WORDS) -> Confidence:
    stages = {"vectors": StageCurves(ALONE, TYPICAL, both)}
    return Confidence({"text": SourceCurves(stages, words)})  # type: ignore[dict-item]


def test_lead_is_the_logit_of_a_softmax_with_a_document_of_score_zero() -> None:
    scores = np.array([3.0, 1.0, -2.0])
    total = 1 + np.exp(scores).sum()
    share = np.exp(scores) / total
    assert leads(scores) == pytest.approx(np.log(share / (1 - share)))
    # -inf is no hit; a hit that does not compete is compared with all that do.
    assert leads(np.array([3.0, -np.inf]))[0] == pytest.approx(3.0)
    competing = np.array([True, True, False])
    others = 1 + math.exp(3) + math.exp(1)
    assert leads(scores, competing)[2] == pytest.approx(-2 - math.log(others))


def test_confidence_equals_a_value_computed_by_hand() -> None:
    values = calibrated().hits_confidence("vectors", [0.6, 0.4], 1000)
    lead = 6 - math.log(1 + math.exp(4))
    log_odds = lead - 0.2 * math.log(1000) + 0.5
    assert values[0] == pytest.approx(1 / (1 + math.exp(-log_odds)), abs=1e-4)
    assert values[0] is not None and values[1] is not None and values[0] > values[1]


def test_confidence_falls_as_the_index_grows() -> None:
    sizes = (10, 1000, 100_000, 10_000_000)
    best = [calibrated().hits_confidence("vectors", [0.7, 0.5], n)[0] for n in sizes]
    assert best == sorted(best, reverse=True) and len(set(best)) == len(best)  # type: ignore[type-var]


def test_confidence_falls_with_hits_that_are_as_near() -> None:
    alone = calibrated().hits_confidence("vectors", [0.7, 0.2], 1000)[0]
    among = calibrated().hits_confidence("vectors", [0.7, *[0.69] * 20], 1000)[0]
    assert alone is not None and among is not None and among < alone / 5


@QUICK
@given(st.lists(st.floats(-1, 1), min_size=1, max_size=30), st.integers(0, 10**9))
def test_confidence_is_a_probability_that_rises_with_similarity(
    similarities: list[float], documents: int
) -> None:
    found = calibrated().hits_confidence("vectors", similarities, documents)
    values = [value for value in found if value is not None]
    assert len(values) == len(similarities) and all(0 <= value <= 1 for value in values)
    order = np.argsort(similarities, kind="stable")
    assert (np.diff(np.array(values)[order]) >= 0).all()


def test_hits_after_the_first_hundred_of_a_ranking_do_not_compete() -> None:
    hits = np.linspace(0.6, 0.5, COMPETITORS).tolist()
    few = calibrated().hits_confidence("vectors", hits, 5000)
    many = calibrated().hits_confidence("vectors", [*hits, *[0.49] * 400], 5000)
    assert many[:COMPETITORS] == few and many[-1] is not None


def test_a_query_far_from_everything_has_the_prior() -> None:
    confidence = calibrated()
    usual = confidence.hits_confidence("vectors", [0.45, 0.1, 0.1], 1000)[0]
    unusual = confidence.hits_confidence("vectors", [0.0, -0.35, -0.35], 1000)[0]
    assert usual is not None and unusual is not None
    assert unusual < 0.03 and usual > 5 * unusual
    far = confidence.hits_confidence("vectors", [-0.5, -0.9], 1000)
    assert far[0] == pytest.approx(1 / 1000, abs=1e-4)


def test_a_text_without_a_known_token_has_the_prior() -> None:
    found = calibrated().hits_confidence("vectors", [0.9, 0.1], 500, has_known_token=False)
    assert found == [0.002, 0.002]
    by_labels = Confidence(calibrated().sources, match_share=0.25)
    assert by_labels.hits_confidence("vectors", [0.9], 500, has_known_token=False) == [0.25]
    # Words are evidence whatever the text backbone knows.
    words = calibrated().hits_confidence(
        "vectors", [0.9, 0.1], 500, word_scores=[None, 9.0], has_known_token=False
    )
    assert words == calibrated().hits_confidence("vectors", None, 500, word_scores=[None, 9.0])


def test_words_raise_the_confidence_of_the_hits_they_find() -> None:
    similarities, words = [0.5, 0.45, 0.1], [None, 12.0, 2.0]
    codes = calibrated().hits_confidence("vectors", similarities, 1000)
    both = calibrated().hits_confidence("vectors", similarities, 1000, word_scores=words)
    assert all(value is not None for value in (*codes, *both))
    assert both[1] > codes[1] and both[0] < codes[0]  # type: ignore[operator]
    # A query whose words no document has is a query by codes.
    none = calibrated().hits_confidence("vectors", similarities, 1000, word_scores=[None] * 3)
    assert none == codes


def test_words_without_a_fitted_curve_weigh_their_score() -> None:
    confidence = calibrated(both=None, words=None)
    both = confidence.hits_confidence("vectors", [0.5, 0.5], 100, word_scores=[8.0, None])
    assert both[0] is not None and both[1] is not None and both[0] > 0.9 > 0.1 > both[1]
    # Two documents with the same words share the probability.
    tied = confidence.hits_confidence("vectors", None, 100, word_scores=[8.0, 8.0])
    assert tied == [pytest.approx(0.5, abs=0.01)] * 2


def test_unknown_similarity_counts_as_the_smallest() -> None:
    found = calibrated().hits_confidence("vectors", [0.6, None, 0.2], 100)
    assert found[1] == found[2]


def test_no_confidence_where_nothing_is_calibrated() -> None:
    confidence = calibrated()
    assert confidence.hits_confidence("weighted", [0.5], 10) == [None]
    assert confidence.hits_confidence("vectors", [0.5], 10, source="image") == [None]
    assert Confidence().hits_confidence("vectors", [0.5, 0.1], 10) == [None, None]
    assert confidence.hits_confidence("vectors", [], 10) == []


def test_hits_that_words_did_not_find_have_a_curve_of_their_own() -> None:
    unmatched = replace(BOTH, offset=BOTH.offset + 2)
    stages = {"vectors": StageCurves(ALONE, TYPICAL, BOTH, unmatched)}
    own = Confidence({"text": SourceCurves(stages, WORDS)})  # type: ignore[dict-item]
    similarities, words = [0.5, 0.45], [None, 12.0]
    found = own.hits_confidence("vectors", similarities, 1000, word_scores=words)
    same = calibrated().hits_confidence("vectors", similarities, 1000, word_scores=words)
    assert found[1] == same[1] and found[0] > same[0]  # type: ignore[operator]


def test_confidence_that_rises_with_the_size_does_so_up_to_the_largest_fitted_one() -> None:
    rising = replace(ALONE, documents=0.3, largest=5000)
    stages = {"vectors": StageCurves(rising, TYPICAL)}
    confidence = Confidence({"text": SourceCurves(stages)})  # type: ignore[dict-item]
    find = [confidence.hits_confidence("vectors", [0.75, 0.4], n)[0] for n in (500, 5000, 50_000)]
    assert find[0] < find[1] == find[2]  # type: ignore[operator]


def test_config_round_trip() -> None:
    words = frozenset([1, 2**32 - 1])
    unmatched = replace(BOTH, arctanh=True, largest=600, relative=0.5)
    stages = {"weighted": StageCurves(ALONE, TYPICAL, BOTH, unmatched)}
    confidence = Confidence(
        {"text": calibrated().sources["text"], "image": SourceCurves(stages)},  # type: ignore[dict-item]
        match_share=0.1,
        min_confidence=0.03,
        known_words=words,
    )
    stored = json.loads(json.dumps(confidence.to_config()))
    assert Confidence.from_config(stored, 64) == confidence
    nothing = Confidence()
    assert Confidence.from_config(json.loads(json.dumps(nothing.to_config())), 64) == nothing


def test_curve_of_an_earlier_version_is_combined_with_the_size() -> None:
    confidence = Confidence.from_config({"slope": 8.0, "offset": -6.0}, 64)
    assert confidence == Confidence(even=EvenCurve(8.0, -6.0, 64))
    assert confidence.to_config() == {"slope": 8.0, "offset": -6.0}
    # Odds of exp(6 - 8 * 16 / 64) = e^4 in an even mix, against one of 100 other documents.
    found = confidence.hits_confidence("vectors", [0.9, 0.1], 101, distances=[16, 40])
    assert found[0] == pytest.approx(math.exp(4) / (100 + math.exp(4)), abs=1e-4)
    assert found[1] is not None and found[0] is not None and found[1] < found[0]
    assert confidence.hits_confidence("vectors", [0.9], 101) == [None]


def test_known_words_are_those_of_the_captions() -> None:
    confidence = Confidence(known_words=known_words(["A red circle", "two circles"]))
    assert confidence.has_known_word("Circle!") and confidence.has_known_word("zzz red")
    assert not confidence.has_known_word("zzzqqq") and not confidence.has_known_word("...")
    assert Confidence().has_known_word("zzzqqq")
