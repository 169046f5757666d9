"""Neighbours in a batch and the neighbour embedding loss, against loops."""

from __future__ import annotations

from math import exp, log

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from xmodal.training import losses, pairs

QUICK = settings(deadline=None, max_examples=40)


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
    all_neighbours = pairs.add_neighbours(rows, NEAREST, 50, np.random.default_rng(0))
    assert all_neighbours.tolist() == [3, 0, 1, 2, 4]
    no_neighbours = torch.zeros(5, 0, dtype=torch.long)
    assert pairs.add_neighbours(rows, no_neighbours, 3, np.random.default_rng(0)).tolist() == [3, 0]


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
