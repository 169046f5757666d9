"""Nearest neighbours, neighbours in a batch, neighbour embedding; against loops."""

from __future__ import annotations

from itertools import permutations
from math import exp, log

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from xmodal import linear_models
from xmodal.codes import BinaryCodes
from xmodal.evaluation.metrics import neighbours_kept
from xmodal.training import losses, pairs

QUICK = settings(deadline=None, max_examples=40)


# ---- nearest neighbours --------------------------------------------------------------------------


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


# ---- neighbours in a batch -----------------------------------------------------------------------

NEAREST = torch.tensor([[1, 2], [0, 2], [1, 3], [4, 2], [3, 2]])


def test_add_neighbours_appends_distinct_neighbours() -> None:
    rows, seen = torch.tensor([3, 0]), set()
    for seed in range(20):
        both = pairs.add_neighbours(rows, NEAREST, 1, np.random.default_rng(seed)).tolist()
        assert both[:2] == [3, 0]
        assert len(set(both)) == len(both) <= 4
        assert set(both[2:]) <= {4, 2, 1}
        seen |= set(both[2:])
    assert seen == {4, 2, 1}
    everyone = pairs.add_neighbours(rows, NEAREST, 50, np.random.default_rng(0))
    assert everyone.tolist() == [3, 0, 1, 2, 4]
    nobody = torch.zeros(5, 0, dtype=torch.long)
    assert pairs.add_neighbours(rows, nobody, 3, np.random.default_rng(0)).tolist() == [3, 0]


@QUICK
@given(st.permutations(range(5)), st.integers(1, 5))
def test_neighbour_matrix_equals_a_loop(order: list[int], count: int) -> None:
    rows = order[:count]
    expected = [[j in NEAREST[i].tolist() for j in rows] for i in rows]
    assert pairs.neighbour_matrix(NEAREST, torch.tensor(rows)).tolist() == expected


# ---- neighbour embedding -------------------------------------------------------------------------


def loop_neighbours(u: torch.Tensor, near: list[list[bool]], sharpness: float) -> float:
    n, bits = u.shape
    entropies = []
    for i in range(n):
        logits = {
            j: sharpness
            * (1 - 2 * sum((a - b) ** 2 for a, b in zip(u[i], u[j], strict=True)) / 4 / bits)
            for j in range(n)
            if j != i
        }
        mine = [j for j in logits if near[i][j]]
        if mine:
            total = log(sum(exp(float(value)) for value in logits.values()))
            entropies.append(sum(total - float(logits[j]) for j in mine) / len(mine))
    return sum(entropies) / max(1, len(entropies))


@pytest.mark.parametrize("n", [2, 3, 6])
@pytest.mark.parametrize("sharpness", [1.0, 15.0])
def test_neighbour_embedding_equals_a_loop(n: int, sharpness: float) -> None:
    generator = torch.Generator().manual_seed(n)
    u = torch.tanh(torch.randn(n, 8, generator=generator))
    near = (
        torch.rand(n, n, generator=generator) < 0.4
    )  # some rows have no neighbour, some themselves
    near[0, 1] = True
    found = float(losses.neighbour_embedding(u, near, sharpness))
    assert found == pytest.approx(loop_neighbours(u, near.tolist(), sharpness), rel=1e-4)


def test_neighbour_embedding_without_neighbours_is_zero() -> None:
    u = torch.ones(3, 8, requires_grad=True)
    for near in (torch.zeros(3, 3, dtype=torch.bool), torch.eye(3, dtype=torch.bool)):
        loss = losses.neighbour_embedding(u, near, 10.0)
        loss.backward()
        assert float(loss.detach()) == 0
    assert float(losses.neighbour_embedding(u[:1].detach(), torch.ones(1, 1).bool(), 10.0)) == 0


def test_neighbour_embedding_is_small_for_near_neighbours() -> None:
    u = torch.tensor([[1.0] * 8, [1.0] * 8, [-1.0] * 8, [-1.0] * 8])
    two = torch.tensor([[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0]]).bool()
    assert float(losses.neighbour_embedding(u, two, 20.0)) < 1e-6
    assert float(losses.neighbour_embedding(u, two.roll(2, 1), 20.0)) > 5


# ---- neighbours kept by codes --------------------------------------------------------------------


def loop_kept(distances: list[int], near: list[int], cut: int) -> float:
    """Mean over all orders of the items that are sorted by distance."""
    orders = [
        order
        for order in permutations(range(len(distances)))
        if [distances[item] for item in order] == sorted(distances)
    ]
    shares = [len(set(order[:cut]) & set(near)) / len(near) for order in orders]
    return sum(shares) / len(shares)


@pytest.mark.parametrize("seed", range(6))
def test_neighbours_kept_is_the_mean_over_orders_of_ties(seed: int) -> None:
    rng = np.random.default_rng(seed)
    queries, database = (
        BinaryCodes.from_relaxed(rng.choice([-1, 1], (count, 8)) * (np.arange(8) < 3) - 0.5)
        for count in (3, 6)
    )
    near = np.stack([rng.permutation(6)[:3] for _ in range(3)])
    distances = queries.distances(database).tolist()
    for cut in (1, 2, 3, 6, 9):
        expected = [
            loop_kept(row, mine, cut) for row, mine in zip(distances, near.tolist(), strict=True)
        ]
        assert neighbours_kept(queries, database, near, cut) == pytest.approx(expected, abs=1e-12)


def test_kept_neighbours_by_hand() -> None:
    query = BinaryCodes.from_hex(["00"])
    database = BinaryCodes.from_hex(["00", "01", "02", "ff"])
    near = np.array([[0, 1]])
    assert neighbours_kept(query, database, near, 2).tolist() == [(1 + 1 / 2) / 2]
    assert neighbours_kept(query, database, near, 3).tolist() == [(1 + 1) / 2]
    assert np.isnan(neighbours_kept(query, database, near[:, :0], 2)).all()
