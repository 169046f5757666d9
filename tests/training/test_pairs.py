"""Batches, matches and pairs against loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from xmodal.training import pairs

QUICK = settings(deadline=None, max_examples=50)


@st.composite
def labelled_items(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor]:
    """Labels (n, c) of items that may be unlabelled, of no class or of several; n, c small."""
    n, c = draw(st.integers(1, 6)), draw(st.integers(0, 4))
    hot = draw(st.lists(st.lists(st.booleans(), min_size=c, max_size=c), min_size=n, max_size=n))
    known = draw(st.lists(st.booleans(), min_size=n, max_size=n))
    return torch.tensor(hot).float().reshape(n, c), torch.tensor(known)


def loop_match(labels: torch.Tensor, known: torch.Tensor, i: int, j: int) -> bool:
    share = any(a and b for a, b in zip(labels[i].tolist(), labels[j].tolist(), strict=True))
    return i == j or (bool(known[i]) and bool(known[j]) and share)


# ---- batches and pairs ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "size", "lengths"),
    [(10, 4, [4, 3, 3]), (8, 4, [4, 4]), (3, 100, [3]), (1, 1, [1]), (0, 4, [0])],
)
def test_batches_contain_every_row_once(n: int, size: int, lengths: list[int]) -> None:
    parts = list(pairs.batches(n, size, np.random.default_rng(0)))
    assert [len(part) for part in parts] == lengths
    assert sorted(torch.cat(parts).tolist()) == list(range(n))


def test_batches_depend_on_the_generator() -> None:
    def order(seed: int) -> list[int]:
        return torch.cat(list(pairs.batches(50, 8, np.random.default_rng(seed)))).tolist()

    assert order(0) == order(0) != order(1)
    assert order(0) != list(range(50))


def test_take_returns_rows() -> None:
    four = pairs.Pairs(
        torch.arange(4.0)[:, None],
        10 * torch.arange(4.0)[:, None],
        torch.eye(4),
        torch.tensor([True, False, True, False]),
    )
    part = four.take(torch.tensor([2, 1]))
    assert len(part) == 2
    assert part.image.tolist() == [[2.0], [1.0]]
    assert part.text.tolist() == [[20.0], [10.0]]
    assert part.labels.tolist() == [[0, 0, 1, 0], [0, 1, 0, 0]]
    assert part.labelled.tolist() == [True, False]


# ---- matches -------------------------------------------------------------------------------------


@QUICK
@given(labelled_items())
def test_match_matrix_equals_a_loop(items: tuple[torch.Tensor, torch.Tensor]) -> None:
    labels, known = items
    n = len(labels)
    expected = [[loop_match(labels, known, i, j) for j in range(n)] for i in range(n)]
    assert pairs.match_matrix(labels, known).tolist() == expected


def test_sample_match_returns_every_match() -> None:
    match = torch.tensor([[True, True, False], [False, True, False], [True, True, True]])
    rng = np.random.default_rng(0)
    draws = torch.stack([pairs.sample_match(match, rng) for _ in range(300)])
    found = [sorted(set(draws[:, row].tolist())) for row in range(3)]
    assert found == [[0, 1], [1], [0, 1, 2]]
    # 300 fair draws of three: 100 +- 4.9 standard deviations of sqrt(300 / 3 * 2 / 3) = 8.2
    assert min(torch.bincount(draws[:, 2]).tolist()) > 60


def test_sample_match_of_a_single_item_is_itself() -> None:
    assert pairs.sample_match(torch.ones(1, 1).bool(), np.random.default_rng(0)).tolist() == [0]


def test_match_matrix_of_one_class_is_all_true() -> None:
    labels, known = torch.ones(3, 1), torch.ones(3, dtype=torch.bool)
    assert bool(pairs.match_matrix(labels, known).all())
    assert pairs.match_matrix(labels, ~known).tolist() == torch.eye(3).bool().tolist()
