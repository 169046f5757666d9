"""Calibration of distances: values by hand, finite and flat curves."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xmodal.codes import BinaryCodes
from xmodal.encoders.calibration import Confidence, fit, sample_distances

QUICK = settings(deadline=None, max_examples=40)
DISTANCES = st.lists(st.integers(0, 64), min_size=1, max_size=30).map(np.array)


def test_confidence_equals_a_value_computed_by_hand() -> None:
    curve = Confidence(slope=8.0, offset=-2.0, bits=64)
    # 8 * 16 / 64 - 2 = 0, and 1 / (1 + e^0) = 1/2
    assert curve(16) == 0.5
    assert curve(0) == pytest.approx(1 / (1 + math.exp(-2)))


@QUICK
@given(DISTANCES, DISTANCES)
def test_confidence_decreases_with_distance(matches: np.ndarray, non_matches: np.ndarray) -> None:
    curve = fit(matches, non_matches, 64)
    values = [curve(distance) for distance in range(65)]
    assert all(0 <= after <= before <= 1 for before, after in pairwise(values))


def test_fit_is_calibrated_on_a_logistic_curve() -> None:
    rng = np.random.default_rng(0)
    true = Confidence(slope=12.0, offset=-4.0, bits=64)
    distances = rng.integers(0, 65, size=40_000)
    is_match = rng.random(len(distances)) < [true(int(d)) for d in distances]
    matches, non_matches = distances[is_match], distances[~is_match]
    fitted = fit(matches, non_matches, 64)
    # Each class weighs half: the odds are those of the sample times non-matches / matches.
    shift = math.log(len(matches) / len(non_matches))
    assert fitted.slope == pytest.approx(true.slope, rel=0.1)  # the ridge flattens it
    assert fitted.offset == pytest.approx(true.offset + shift, rel=0.1)
    weight = np.where(is_match, 0.5 / len(matches), 0.5 / len(non_matches))
    for low in range(0, 64, 16):
        inside = (distances >= low) & (distances < low + 16)
        frequency = weight[inside & is_match].sum() / weight[inside].sum()
        predicted = np.average([fitted(int(d)) for d in distances[inside]], weights=weight[inside])
        assert predicted == pytest.approx(frequency, abs=0.02)


def test_fit_is_finite_for_separable_distances() -> None:
    curve = fit(np.array([0, 1, 2]), np.array([50, 60, 64]), 64)
    assert math.isfinite(curve.slope) and math.isfinite(curve.offset)
    assert curve(0) > 0.95 and curve(64) < 0.05 and 0.2 < curve(26) < 0.8


@pytest.mark.parametrize(
    ("matches", "non_matches"),
    [([], []), ([5, 6], []), ([], [5, 6]), ([30, 30], [30, 30]), ([50, 60], [1, 2])],
)
def test_fit_is_flat_for_uninformative_distances(
    matches: list[int], non_matches: list[int]
) -> None:
    curve = fit(np.array(matches, int), np.array(non_matches, int), 64)
    assert curve(0) == pytest.approx(0.5) and curve(64) == pytest.approx(0.5)


@QUICK
@given(
    st.floats(0, 100), st.floats(-50, 50), st.sampled_from([8, 64, 256]), st.floats(0.001, 0.999)
)
def test_radius_is_the_inverse_of_the_curve(
    slope: float, offset: float, bits: int, min_confidence: float
) -> None:
    curve = Confidence(slope, offset, bits)
    radius = curve.radius(min_confidence)
    if radius is None:
        assert curve(0) < min_confidence
    else:
        assert curve(radius) >= min_confidence
        assert radius == bits or curve(radius + 1) < min_confidence


def test_radius_equals_values_computed_by_hand() -> None:
    curve = Confidence(slope=8.0, offset=-2.0, bits=64)
    assert curve.radius(0.5) == 16 and curve.radius(0.0) == 64 and curve.radius(0.9) is None


def test_sample_distances_equals_values_computed_by_hand() -> None:
    image = BinaryCodes(np.array([[0b0000], [0b0001], [0b0011]], np.uint8), 8)
    text = BinaryCodes(np.array([[0b1000], [0b0001], [0b0000]], np.uint8), 8)
    # Rows 0 and 1 match: the non-matches are (0, 2), (1, 2), (2, 0) and (2, 1).
    match = np.array([[True, True, False], [True, True, False], [False, False, True]])
    matches, non_matches = sample_distances(image, text, match, np.random.default_rng(0))
    assert matches.tolist() == [1, 0, 2]
    # 0000^0000 = 0, 0001^0000 = 1, 0011^1000 = 3, 0011^0001 = 1
    assert set(non_matches.tolist()) == {0, 1, 3} and 20 <= len(non_matches) <= 60


def test_sample_distances_without_pairs_is_empty() -> None:
    empty = BinaryCodes.empty(8)
    matches, non_matches = sample_distances(
        empty, empty, np.zeros((0, 0), np.bool_), np.random.default_rng(0)
    )
    assert len(matches) == len(non_matches) == 0
