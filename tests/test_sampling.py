"""Batches, matches, doubtful candidates and pseudo-labels against naive loops."""

from __future__ import annotations

from math import exp, sqrt

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from xmodal import sampling

QUICK = settings(deadline=None, max_examples=50)


@st.composite
def labelled_items(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor]:
    """Labels (n, c), perhaps of items that are not known, of no class or of several; n, c small."""
    n, c = draw(st.integers(1, 6)), draw(st.integers(0, 4))
    hot = draw(st.lists(st.lists(st.booleans(), min_size=c, max_size=c), min_size=n, max_size=n))
    known = draw(st.lists(st.booleans(), min_size=n, max_size=n))
    return torch.tensor(hot).float().reshape(n, c), torch.tensor(known)


def a_posterior(n: int, c: int, seed: int = 0) -> torch.Tensor:
    """Class probabilities (n, c)."""
    return torch.softmax(torch.randn(n, c, generator=torch.Generator().manual_seed(seed)), dim=1)


def loop_match(labels: torch.Tensor, known: torch.Tensor, i: int, j: int) -> bool:
    share = any(a and b for a, b in zip(labels[i].tolist(), labels[j].tolist(), strict=True))
    return i == j or (bool(known[i]) and bool(known[j]) and share)


# ---- batches and pairs -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "size", "lengths"),
    [(10, 4, [4, 3, 3]), (8, 4, [4, 4]), (3, 100, [3]), (1, 1, [1]), (0, 4, [0])],
)
def test_batches_hold_every_row_once(n: int, size: int, lengths: list[int]) -> None:
    parts = list(sampling.batches(n, size, np.random.default_rng(0)))
    assert [len(part) for part in parts] == lengths
    assert sorted(torch.cat(parts).tolist()) == list(range(n))


def test_batches_follow_the_randomness_that_is_passed_in() -> None:
    def order(seed: int) -> list[int]:
        return torch.cat(list(sampling.batches(50, 8, np.random.default_rng(seed)))).tolist()

    assert order(0) == order(0) != order(1)
    assert order(0) != list(range(50))


def test_pairs_are_taken_by_row() -> None:
    pairs = sampling.Pairs(
        torch.arange(4.0)[:, None],
        10 * torch.arange(4.0)[:, None],
        torch.eye(4),
        torch.tensor([True, False, True, False]),
    )
    part = pairs.take(torch.tensor([2, 1]))
    assert len(part) == 2
    assert part.image.tolist() == [[2.0], [1.0]]
    assert part.text.tolist() == [[20.0], [10.0]]
    assert part.labels.tolist() == [[0, 0, 1, 0], [0, 1, 0, 0]]
    assert part.labelled.tolist() == [True, False]


# ---- who matches whom ------------------------------------------------------------------------


@QUICK
@given(labelled_items())
def test_matches_are_the_loop(items: tuple[torch.Tensor, torch.Tensor]) -> None:
    labels, known = items
    n = len(labels)
    expected = [[loop_match(labels, known, i, j) for j in range(n)] for i in range(n)]
    assert sampling.matches(labels, known).tolist() == expected


@QUICK
@given(labelled_items())
def test_likeness_is_the_loop(items: tuple[torch.Tensor, torch.Tensor]) -> None:
    labels, known = items
    n = len(labels)
    expected = torch.eye(n)
    for i in range(n):
        for j in range(n):
            if i != j and known[i] and known[j]:
                a, b = labels[i].tolist(), labels[j].tolist()
                length = sqrt(sum(a)) * sqrt(sum(b))  # labels are 0 or 1
                if length:
                    expected[i, j] = sum(x * y for x, y in zip(a, b, strict=True)) / length
    torch.testing.assert_close(sampling.likeness(labels, known), expected)


def test_likeness_by_hand() -> None:
    labels = torch.tensor([[1.0, 1, 0], [1, 0, 0], [0, 0, 1]])
    found = sampling.likeness(labels, torch.tensor([True, True, True]))
    assert found[0, 1].item() == pytest.approx(1 / (sqrt(2) * 1))
    assert found[0, 2].item() == 0
    hidden = sampling.likeness(labels, torch.tensor([True, False, True]))
    assert hidden.tolist() == torch.eye(3).tolist()


def test_one_match_is_a_match_and_each_comes_up() -> None:
    match = torch.tensor([[True, True, False], [False, True, False], [True, True, True]])
    rng = np.random.default_rng(0)
    draws = torch.stack([sampling.one_match(match, rng) for _ in range(300)])
    found = [sorted(set(draws[:, row].tolist())) for row in range(3)]
    assert found == [[0, 1], [1], [0, 1, 2]]
    # 300 fair draws of three: 100 +- 4.9 standard deviations of sqrt(300 / 3 * 2 / 3) = 8.2
    assert min(torch.bincount(draws[:, 2]).tolist()) > 60


def test_one_match_of_a_lonely_item_is_itself() -> None:
    assert sampling.one_match(torch.ones(1, 1).bool(), np.random.default_rng(0)).tolist() == [0]


# ---- how surely an item is not a match -------------------------------------------------------


@QUICK
@given(labelled_items(), st.booleans())
def test_candidate_weights_are_the_loop(
    items: tuple[torch.Tensor, torch.Tensor], with_posterior: bool
) -> None:
    labels, known = items
    n, c = labels.shape
    posterior = a_posterior(n, c) if with_posterior else None
    expected = torch.zeros(n, n)

    def belief(i: int) -> list[float]:
        row = labels[i] / max(1.0, float(labels[i].sum())) if known[i] else posterior[i]  # type: ignore[index]
        return row.tolist()

    for i in range(n):
        for j in range(n):
            if loop_match(labels, known, i, j):
                continue
            if posterior is None or c == 0 or (known[i] and known[j]):
                expected[i, j] = 1
            else:
                expected[i, j] = 1 - sum(a * b for a, b in zip(belief(i), belief(j), strict=True))
    torch.testing.assert_close(sampling.candidate_weights(labels, known, posterior), expected)


def test_candidate_weights_by_hand() -> None:
    labels = torch.tensor([[1.0, 0], [0, 1], [0, 0]])
    known = torch.tensor([True, True, False])
    posterior = torch.tensor([[0.5, 0.5], [0.5, 0.5], [0.9, 0.1]])
    found = sampling.candidate_weights(labels, known, posterior)
    expected = [[0, 1, 1 - 0.9], [1, 0, 1 - 0.1], [1 - 0.9, 1 - 0.1, 0]]
    torch.testing.assert_close(found, torch.tensor(expected))


def test_items_of_one_class_leave_no_candidate() -> None:
    labels, known = torch.ones(3, 1), torch.ones(3, dtype=torch.bool)
    assert sampling.candidate_weights(labels, known, None).sum().item() == 0
    assert bool(sampling.matches(labels, known).all())


# ---- pseudo-labels ---------------------------------------------------------------------------


def test_only_sure_unlabelled_items_get_pseudo_labels() -> None:
    labels = torch.tensor([[1.0, 0, 0], [0, 0, 0], [0, 0, 0]])
    known = torch.tensor([True, False, False])
    posterior = torch.tensor([[0.0, 1.0, 0.0], [0.1, 0.8, 0.1], [0.4, 0.3, 0.3]])
    found, now = sampling.with_pseudo_labels(labels, known, posterior, 0.7)
    assert found.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 0]]  # a known label is not overruled
    assert now.tolist() == [True, True, False]
    assert labels.sum() == 1  # what was handed over is not changed
    assert known.tolist() == [True, False, False]


@QUICK
@given(labelled_items(), st.sampled_from([0.3, 0.6, 0.95]), st.integers(1, 5))
def test_pseudo_labels_are_the_loop(
    items: tuple[torch.Tensor, torch.Tensor], threshold: float, count: int
) -> None:
    labels, known = items
    n, c = labels.shape
    posterior = a_posterior(n, c)
    expected, now = labels.tolist(), known.tolist()
    for i in range(n):
        best = sorted(range(c), key=lambda j: -posterior[i, j].item())[:count]
        if not known[i] and sum(posterior[i, j].item() for j in best) >= threshold - 1e-6:
            expected[i], now[i] = [float(j in best) for j in range(c)], True
    found = sampling.with_pseudo_labels(labels, known, posterior, threshold - 1e-6, count)
    assert (found[0].tolist(), found[1].tolist()) == (expected, now)


def test_labels_per_item() -> None:
    labels = torch.tensor([[1.0, 1, 1], [1, 1, 0], [1, 1, 1], [0, 0, 0]])
    assert sampling.labels_per_item(labels, torch.tensor([True, True, True, False])) == 3  # 8 / 3
    assert sampling.labels_per_item(labels, torch.tensor([False] * 4)) == 1
    assert sampling.labels_per_item(labels, torch.tensor([False, False, False, True])) == 1
    assert sampling.labels_per_item(torch.zeros(3, 0), torch.ones(3, dtype=torch.bool)) == 1


# ---- neighbours ------------------------------------------------------------------------------


def loop_neighbours(
    image: torch.Tensor, text: torch.Tensor, temperature: float, share: float
) -> list[list[float]]:
    def cosines(features: torch.Tensor) -> list[list[float]]:
        rows = features.tolist()
        centre = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
        rows = [[x - m for x, m in zip(row, centre, strict=True)] for row in rows]
        size = [max(sqrt(sum(x * x for x in row)), 1e-12) for row in rows]
        return [
            [
                sum(x * y for x, y in zip(a, b, strict=True)) / (size[i] * size[j])
                for j, b in enumerate(rows)
            ]
            for i, a in enumerate(rows)
        ]

    fused = [
        [share * a + (1 - share) * b for a, b in zip(x, y, strict=True)]
        for x, y in zip(cosines(image), cosines(text), strict=True)
    ]
    powers = [[exp(x / temperature) for x in row] for row in fused]
    return [[x / sum(row) for x in row] for row in powers]


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_neighbour_target_is_the_loop(share: float) -> None:
    generator = torch.Generator().manual_seed(0)
    image, text = torch.randn(5, 3, generator=generator), torch.randn(5, 4, generator=generator)
    found = sampling.neighbour_target(image, text, 0.2, share)
    expected = torch.tensor(loop_neighbours(image, text, 0.2, share))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("n", [1, 4])
def test_items_without_any_difference_are_all_equally_near(n: int) -> None:
    same = torch.ones(n, 3)
    found = sampling.neighbour_target(same, same, 0.1)
    torch.testing.assert_close(found, torch.full((n, n), 1 / n))
