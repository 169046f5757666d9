"""Linear models against hand-made data, loops and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from xmodal import linear_models
from xmodal.linear_models import Projections, as_float32, cca, itq, logistic, unit

IDENTITY = Projections(as_float32, as_float32)

# Columns of a Hadamard matrix: orthogonal, of mean 0 and variance 1 (but the first).
TWO = np.array([[1, 1], [1, -1]])
HADAMARD = np.kron(np.kron(TWO, TWO), TWO).astype(np.float32)
A, B, C, D = HADAMARD.T[1:5]


# ---- CCA, ITQ, logistic regression -----


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


def test_cca_with_more_bits_than_directions_keeps_inner_products() -> None:
    rng = np.random.default_rng(0)
    image, text = rng.normal(size=(40, 3)), rng.normal(size=(40, 5))
    few, many = cca(image, text, 3), cca(image, text, 16)
    assert many.image(image).shape == many.text(text).shape == (40, 16)
    products = few.image(image) @ few.text(text).T
    assert many.image(image) @ many.text(text).T == pytest.approx(products, abs=1e-4)


def test_cca_with_more_columns_than_rows_matches_new_pairs() -> None:
    rng = np.random.default_rng(0)
    seen, shared = 60, rng.normal(size=(80, 4))
    image = shared @ rng.normal(size=(4, 200)) + 0.1 * rng.normal(size=(80, 200))
    text = shared @ rng.normal(size=(4, 90)) + 0.1 * rng.normal(size=(80, 90))
    projections = cca(image[:seen], text[:seen], 8)
    cosine = unit(projections.image(image[seen:])) @ unit(projections.text(text[seen:])).T
    assert (cosine.argmax(axis=1) == np.arange(20)).mean() > 0.9


def test_cca_accepts_a_constant_column() -> None:
    rng = np.random.default_rng(0)
    image = np.concatenate([rng.normal(size=(30, 2)), np.full((30, 1), 5.0)], axis=1)
    assert np.isfinite(cca(image, image, 8).image(image)).all()


def test_itq_is_a_rotation_that_lowers_the_quantisation_error() -> None:
    rng = np.random.default_rng(0)
    image = rng.normal(size=(200, 8)) * np.linspace(2, 0.2, 8)
    text = image + 0.1 * rng.normal(size=image.shape)
    fitted = itq(image, text, IDENTITY, rng=np.random.default_rng(1))
    rotation = fitted.image(np.eye(8))
    assert rotation @ rotation.T == pytest.approx(np.eye(8), abs=1e-4)
    assert fitted.text(np.eye(8)) == pytest.approx(rotation)

    def error(values: np.ndarray) -> float:
        return float(((np.sign(values) - values) ** 2).sum())

    both = np.concatenate([image, text])
    assert error(fitted.image(both)) < 0.95 * error(both)


def test_itq_recovers_rotated_binary_data() -> None:
    corners = np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]])
    turn = np.array([[1, -1], [1, 1]]) / 2**0.5  # 45 degrees: corners are on the axes
    data = np.tile(corners @ turn, (5, 1))
    fitted = itq(data, data, IDENTITY, rng=np.random.default_rng(0))
    assert np.abs(fitted.image(data)) == pytest.approx(np.ones((20, 2)), abs=1e-3)


def test_logistic_regression_agrees_with_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    kind = rng.integers(0, 3, size=240)
    features = rng.normal(size=(240, 4)) + 1.2 * np.eye(3, 4)[kind]
    posterior = logistic(features[:180], np.eye(3, dtype=bool)[kind[:180]])(features)
    assert posterior.sum(axis=1) == pytest.approx(np.ones(240), abs=1e-5)
    reference = LogisticRegression(C=1e4, max_iter=500).fit(features[:180], kind[:180])
    assert np.abs(posterior - reference.predict_proba(features)).max() < 0.02
    assert (posterior.argmax(axis=1) == reference.predict(features)).mean() > 0.99


def test_logistic_regression_divides_an_item_among_its_labels() -> None:
    features = np.array([[0.0], [0.0], [1.0], [1.0]])
    labels = np.array([[1, 1, 0], [1, 1, 0], [0, 0, 1], [0, 0, 1]], bool)
    posterior = logistic(features, labels)(np.array([[0.0]]))[0]
    assert posterior[0] == pytest.approx(posterior[1], abs=1e-5) and posterior[0] > 0.4


# ---- nearest neighbours --------


def loop_nearest(queries: np.ndarray, database: np.ndarray, k: int, own: list[int]) -> list[set]:
    found = []
    for query, self in zip(queries, own, strict=True):
        cosine = {
            row: float(query @ item) / float(np.linalg.norm(query) * np.linalg.norm(item))
            for row, item in enumerate(database)
            if row != self
        }
        found.append(set(sorted(cosine, key=lambda row: -cosine[row])[:k]))
    return found


@pytest.mark.parametrize("k", [1, 3, 6])
def test_nearest_equals_a_loop(k: int) -> None:
    rng = np.random.default_rng(k)
    queries, database = 9 * rng.normal(size=(5, 4)), rng.normal(size=(7, 4))
    rows = linear_models.nearest(queries, database, k)
    assert [set(row) for row in rows.tolist()] == loop_nearest(queries, database, k, [-1] * 5)
    own = [2, -1, 0, 6, -1]
    rows = linear_models.nearest(queries, database, k, own=np.array(own))
    assert [set(row) for row in rows.tolist()] == loop_nearest(queries, database, k, own)


def test_nearest_excludes_the_query_among_equal_rows() -> None:
    same = np.ones((6, 3), np.float32)
    rows = linear_models.nearest(same, same, 5, own=np.arange(6))
    assert [set(row) for row in rows.tolist()] == [set(range(6)) - {row} for row in range(6)]


def test_nearest_returns_all_of_a_small_database() -> None:
    rows = np.eye(3, dtype=np.float32)
    assert linear_models.nearest(rows, rows, 10).shape == (3, 3)
    assert linear_models.nearest(rows, rows, 10, own=np.arange(3)).shape == (3, 2)
    assert linear_models.nearest(rows[:1], rows[:1], 10, own=np.arange(1)).shape == (1, 0)


def test_nearest_accepts_repeated_rows_and_no_queries() -> None:
    rng = np.random.default_rng(0)
    queries, database = rng.normal(size=(9, 3)), np.repeat(rng.normal(size=(4, 3)), 3, axis=0)
    assert linear_models.nearest(queries, database, 3).shape == (9, 3)
    assert linear_models.nearest(queries[:0], database, 3).shape == (0, 3)


# ---- principal components ------------------------------------------------------------------------


def test_pca_orders_components_and_keeps_products() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 4)) * [1, 5, 2, 3] + 7
    out = linear_models.pca(x, 8)(x)
    few = linear_models.pca(x, 2)(x)
    assert out.shape == (50, 8) and few.shape == (50, 2)
    values = np.linalg.eigvalsh(np.cov(x.T, bias=True))[::-1]
    assert few.var(axis=0) == pytest.approx(values[:2], rel=1e-3)
    assert few.mean(axis=0) == pytest.approx(0, abs=1e-4)
    centred = x - x.mean(axis=0)  # more bits than dimensions: an orthogonal mix keeps products
    assert out @ out.T == pytest.approx(centred @ centred.T, abs=1e-2)


def test_affine_returns_matrix_and_offset_of_a_projection() -> None:
    x = np.random.default_rng(0).normal(size=(30, 5)).astype(np.float32) + 2
    project = linear_models.pca(x, 3)
    turned = linear_models.itq(
        x, x[:0], linear_models.Projections(project, project), rng=np.random.default_rng(0)
    ).image
    for one in (project, turned):
        matrix, offset = linear_models.affine(one, 5)
        assert (matrix.shape, offset.shape) == ((5, 3), (3,))
        assert x @ matrix + offset == pytest.approx(one(x), abs=1e-4)


def test_cca_of_pairs_equals_cca_of_repeated_rows() -> None:
    rng = np.random.default_rng(0)
    image, text = rng.normal(size=(20, 6)), rng.normal(size=(40, 5))
    pairs = np.repeat(np.arange(20), 2), np.arange(40)
    text += image[pairs[0], :5]
    found = cca(image, text, 8, pairs=pairs)
    expected = cca(image[pairs[0]], text, 8)
    # Inner products do not depend on the signs of the directions.
    products = [one.image(image) @ one.text(text).T for one in (found, expected)]
    assert np.allclose(*products, atol=1e-4)


def test_models_of_many_rows_equal_those_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(11)
    shared = rng.normal(size=(600, 5))
    image = (shared @ rng.normal(size=(5, 9)) + 0.3 * rng.normal(size=(600, 9)) + 4).astype("f4")
    text = (shared @ rng.normal(size=(5, 7)) + 0.3 * rng.normal(size=(600, 7))).astype("f4")
    image[:, 3] = 2  # a constant column
    pairs = rng.integers(0, 600, 900), rng.integers(0, 600, 900)
    fitted = [linear_models.cca(image, text, 5), linear_models.cca(image, text, 5, pairs=pairs)]
    components = linear_models.pca(image, 5)(image)
    monkeypatch.setattr(linear_models, "BLOCK_ROWS", 128)
    by_blocks = [linear_models.cca(image, text, 5), linear_models.cca(image, text, 5, pairs=pairs)]
    for one, other in zip(fitted, by_blocks, strict=True):
        # The signs of both projections of a direction may change together.
        expected = one.image(image) @ one.text(text).T
        assert other.image(image) @ other.text(text).T == pytest.approx(expected, abs=2e-2)
    found = linear_models.pca(image, 5)(image)
    assert np.abs(found) == pytest.approx(np.abs(components), abs=1e-2)
