"""Baselines against hand-made data, scikit-learn and chance."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from xmodal.baselines import as_they_are, cosine_distances, label_codeword
from xmodal.codes import BinaryCodes
from xmodal.linear_models import cca, itq, logistic
from xmodal.metrics import average_precision, groups_by_codes, mean

# Columns of a Hadamard matrix: orthogonal, of mean 0 and variance 1 (but the first).
TWO = np.array([[1, 1], [1, -1]])
HADAMARD = np.kron(np.kron(TWO, TWO), TWO).astype(np.float32)
A, B, C, D = HADAMARD.T[1:5]


def test_cca_finds_known_correlations() -> None:
    image = np.stack([A, 3 * B], axis=1) + 7
    # corr(A, 0.8 A + 0.6 C) = 0.8 and corr(B, 0.5 B + sqrt(0.75) D) = 0.5; nothing else correlates
    text = np.stack([10 * (0.8 * A + 0.6 * C), 0.5 * B + 0.75**0.5 * D], axis=1) - 3
    projections = cca(image, text, 2, ridge=0)
    x, y = projections.image(image), projections.text(text)
    assert x.shape == y.shape == (8, 2)
    # Each direction is weighted by its correlation.
    assert np.abs(x) == pytest.approx(np.abs(np.stack([0.8 * A, 0.5 * B], axis=1)), abs=1e-4)
    for column, correlation in enumerate((0.8, 0.5)):
        found = np.corrcoef(x[:, column], y[:, column])[0, 1]
        assert found == pytest.approx(correlation, abs=1e-4)
    assert np.corrcoef(x[:, 0], y[:, 1])[0, 1] == pytest.approx(0, abs=1e-4)


def test_more_bits_than_directions_mix_them_and_keep_their_products() -> None:
    rng = np.random.default_rng(0)
    image, text = rng.normal(size=(40, 3)), rng.normal(size=(40, 5))
    few, many = cca(image, text, 3), cca(image, text, 16)
    assert many.image(image).shape == many.text(text).shape == (40, 16)
    products = few.image(image) @ few.text(text).T
    assert many.image(image) @ many.text(text).T == pytest.approx(products, abs=1e-4)


def test_cca_with_more_columns_than_rows_finds_new_pairs() -> None:
    rng = np.random.default_rng(0)
    seen, shared = 60, rng.normal(size=(80, 4))
    image = shared @ rng.normal(size=(4, 200)) + 0.1 * rng.normal(size=(80, 200))
    text = shared @ rng.normal(size=(4, 90)) + 0.1 * rng.normal(size=(80, 90))
    projections = cca(image[:seen], text[:seen], 8)
    distances = cosine_distances(projections.image(image[seen:]), projections.text(text[seen:]))
    assert (distances.argmin(axis=1) == np.arange(20)).mean() > 0.9


def test_a_constant_column_does_no_harm() -> None:
    rng = np.random.default_rng(0)
    image = np.concatenate([rng.normal(size=(30, 2)), np.full((30, 1), 5.0)], axis=1)
    assert np.isfinite(cca(image, image, 8).image(image)).all()


def test_itq_rotates_and_lowers_the_quantisation_error() -> None:
    rng = np.random.default_rng(0)
    image = rng.normal(size=(200, 8)) * np.linspace(2, 0.2, 8)
    text = image + 0.1 * rng.normal(size=image.shape)
    fitted = itq(image, text, as_they_are(), rng=np.random.default_rng(1))
    rotation = fitted.image(np.eye(8))
    assert rotation @ rotation.T == pytest.approx(np.eye(8), abs=1e-4)
    assert fitted.text(np.eye(8)) == pytest.approx(rotation)

    def error(values: np.ndarray) -> float:
        return float(((np.sign(values) - values) ** 2).sum())

    both = np.concatenate([image, text])
    assert error(fitted.image(both)) < 0.95 * error(both)


def test_itq_undoes_a_rotation_of_binary_data() -> None:
    corners = np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]])
    turn = np.array([[1, -1], [1, 1]]) / 2**0.5  # by 45 degrees: corners come to lie on the axes
    data = np.tile(corners @ turn, (5, 1))
    fitted = itq(data, data, as_they_are(), rng=np.random.default_rng(0))
    assert np.abs(fitted.image(data)) == pytest.approx(np.ones((20, 2)), abs=1e-3)


def test_logistic_regression_agrees_with_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    kind = rng.integers(0, 3, size=240)
    features = rng.normal(size=(240, 4)) + 1.2 * np.eye(3, 4)[kind]
    posterior = logistic(features[:180], np.eye(3, dtype=bool)[kind[:180]])(features)
    assert posterior.sum(axis=1) == pytest.approx(np.ones(240), abs=1e-5)
    theirs = LogisticRegression(C=1e4, max_iter=500).fit(features[:180], kind[:180])
    assert np.abs(posterior - theirs.predict_proba(features)).max() < 0.02
    assert (posterior.argmax(axis=1) == theirs.predict(features)).mean() > 0.99


def test_an_item_with_two_labels_is_shared_among_them() -> None:
    features = np.array([[0.0], [0.0], [1.0], [1.0]])
    labels = np.array([[1, 1, 0], [1, 1, 0], [0, 0, 1], [0, 0, 1]], bool)
    posterior = logistic(features, labels)(np.array([[0.0]]))[0]
    assert posterior[0] == pytest.approx(posterior[1], abs=1e-5) and posterior[0] > 0.4


def test_the_label_codeword_beats_chance() -> None:
    rng = np.random.default_rng(0)
    kind = rng.integers(0, 4, size=160)
    hot = np.eye(4, dtype=bool)[kind]
    image = np.eye(4)[kind] @ rng.normal(size=(4, 10)) + 0.3 * rng.normal(size=(160, 10))
    text = np.eye(4)[kind] @ rng.normal(size=(4, 7)) + 0.3 * rng.normal(size=(160, 7))
    words = label_codeword(image[:100], text[:100], hot[:100], 16, rng=rng)
    asked = BinaryCodes.from_relaxed(words.image(image[100:]))
    database = BinaryCodes.from_relaxed(words.text(text[:100]))
    relevant = hot[100:] @ hot[:100].T
    reached = mean(average_precision(groups_by_codes(asked, database, relevant)))
    assert relevant.mean() < 0.3 and reached > 0.8


def test_cosine_distances_by_hand() -> None:
    queries = np.array([[1, 0], [0, 0]], np.float32)
    database = np.array([[2, 0], [0, 3], [-1, 0], [1, 1]], np.float32)
    expected = [[0, 1, 2, 1 - 0.5**0.5], [1, 1, 1, 1]]  # a zero row is at distance 1 from all
    assert cosine_distances(queries, database) == pytest.approx(np.array(expected), abs=1e-6)


def test_features_as_they_are_stay_as_they_are() -> None:
    values = np.arange(6, dtype=np.float16).reshape(2, 3)
    projections = as_they_are()
    assert (projections.image(values) == values).all()
    assert (projections.text(values) == values).all()
