"""Weights of bits and int8 vectors, against their definitions."""

from __future__ import annotations

import numpy as np
import pytest

from xmodal.codes import BinaryCodes
from xmodal.errors import CodeError
from xmodal.index.query_codes import QueryCodes
from xmodal.vectors import (
    MAX_KEY,
    cosine,
    query_weights,
    rank_keys,
    to_int8,
    weight_limit,
)


def outputs(n: int, bits: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, bits)).astype(np.float32)


@pytest.mark.parametrize("bits", range(8, 2049, 8))
def test_keys_stay_below_the_limit_of_float32(bits: int) -> None:
    largest = weight_limit(bits) * bits
    key = rank_keys(np.array([largest]), np.array([bits]), bits)[0]
    assert key < MAX_KEY


def test_scores_of_neighbouring_keys_differ_in_float32() -> None:
    keys = np.arange(MAX_KEY - 100_000, MAX_KEY, dtype=np.float64)
    scores = (1 / (1 + keys)).astype(np.float32)
    assert (np.diff(scores) < 0).all()


def test_weights_are_proportional_to_the_outputs() -> None:
    weights = query_weights(np.array([[-3.0, 1.5, 0.0, 0.2] * 2]))
    assert weights is not None
    assert weights.tolist() == [[15, 8, 0, 1] * 2]


def test_outputs_of_zero_have_equal_weights() -> None:
    weights = query_weights(np.zeros((1, 8)))
    assert weights is not None and set(weights.ravel().tolist()) == {15}


def test_wide_codes_have_no_weights() -> None:
    assert query_weights(outputs(1, 2048)) is None


def test_the_weighted_distance_orders_as_the_inner_product_with_signs() -> None:
    query, codes = outputs(1, 64), BinaryCodes.from_relaxed(outputs(500, 64, seed=1))
    weights = query_weights(query)
    assert weights is not None
    differs = codes.to_bits() != BinaryCodes.from_relaxed(query).to_bits()
    weighted = (differs * weights.astype(np.int64)).sum(axis=1)
    signed = np.where(query > 0, 1, -1) * weights
    agreement = (codes.to_signs() @ signed.T.astype(np.float64)).ravel()
    assert np.array_equal(agreement, weights.sum() - 2 * weighted)


def test_int8_vectors_keep_the_cosine() -> None:
    values = outputs(50, 256)
    lengths = np.linalg.norm(values, axis=1)
    exact = values @ values[0] / (lengths * lengths[0])
    vectors = to_int8(2 * np.arctanh(values / 10))
    assert np.abs(cosine(vectors[0], vectors) - exact).max() < 0.01
    assert np.abs(vectors).max() == 127


def test_cosine_with_a_zero_vector_is_zero() -> None:
    vectors = np.array([[0, 0], [127, 0]], np.int8)
    assert cosine(vectors[1], vectors).tolist() == [0.0, 1.0]


def test_query_codes_join_and_slice() -> None:
    parts = [QueryCodes.of(outputs(n, 64, seed=n)) for n in (2, 3)]
    joined = QueryCodes.concatenate(parts)
    assert joined[2:].codes == parts[1].codes
    assert joined.weights is not None and joined.vectors is not None
    assert np.array_equal(joined[2:].vectors, parts[1].vectors)
    assert QueryCodes.concatenate([parts[0], QueryCodes(parts[1].codes)]).weights is None


def test_query_codes_refuse_other_shapes() -> None:
    codes = BinaryCodes.from_relaxed(outputs(2, 64))
    with pytest.raises(CodeError):
        QueryCodes(codes, weights=np.zeros((2, 32), np.uint8))
    with pytest.raises(CodeError):
        QueryCodes(codes, vectors=np.zeros((1, 64), np.int8))
