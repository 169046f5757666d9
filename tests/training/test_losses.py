"""Losses against loops, values by hand, and degenerate batches."""

from __future__ import annotations

from math import exp, log

import pytest
import torch

from xmodal.training import losses

K = 8


def random_codes(n: int, seed: int = 0) -> torch.Tensor:
    """Relaxed codes (n, K) in (-1, 1)."""
    return torch.tanh(torch.randn(n, K, generator=torch.Generator().manual_seed(seed)))


def loop_distance(u: torch.Tensor, v: torch.Tensor) -> list[list[float]]:
    return [
        [sum((a - b) ** 2 for a, b in zip(x, y, strict=True)) / (4 * len(x)) for y in v.tolist()]
        for x in u.tolist()
    ]


def loop_cross_entropy(
    logits: list[list[float]], target: list[list[float]], weight: list[float]
) -> float:
    total = 0.0
    for row, wanted, w in zip(logits, target, weight, strict=True):
        normaliser = log(sum(exp(x) for x in row))
        total += w * sum(-t * (x - normaliser) for t, x in zip(wanted, row, strict=True))
    return total / max(sum(weight), 1e-6)


def transposed(rows: list[list[float]]) -> list[list[float]]:
    return [list(column) for column in zip(*rows, strict=True)]


def loop_both_ways(
    u: torch.Tensor,
    v: torch.Tensor,
    target: list[list[float]],
    temperature: float,
    weight: list[float] | None = None,
) -> float:
    logits = [[(1 - 2 * d) / temperature for d in row] for row in loop_distance(u, v)]
    of = weight or [1.0] * len(logits)
    forward = loop_cross_entropy(logits, target, of)
    return (forward + loop_cross_entropy(transposed(logits), target, of)) / 2


# ---- distance and sign ---------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "m"), [(1, 1), (3, 5), (6, 2)])
def test_distance_equals_a_loop(n: int, m: int) -> None:
    u, v = random_codes(n), random_codes(m, 1)
    found = losses.distance(u, v)
    assert found.shape == (n, m)
    torch.testing.assert_close(found, torch.tensor(loop_distance(u, v)))


def test_distance_of_binary_codes_is_the_share_of_differing_bits() -> None:
    u = torch.tensor([[1.0, 1, 1, 1, -1, -1, -1, -1]])
    v = torch.tensor([[1.0, 1, 1, 1, -1, -1, -1, 1], [-1.0, -1, -1, -1, 1, 1, 1, 1]])
    assert losses.distance(u, v).tolist() == [[1 / 8, 8 / 8]]
    assert losses.distance(u, u).tolist() == [[0.0]]


def test_distance_is_never_negative() -> None:
    u = random_codes(50)
    alike = losses.distance(u, u)
    assert float(alike.min()) >= 0
    assert float(alike.diagonal().max()) < 1e-6  # rounding of |u|^2 + |u|^2 - 2 u u


def test_straight_through_sign_is_the_sign_with_identity_gradient() -> None:
    u = torch.tensor([-0.7, -1e-9, 0.0, 1e-9, 0.3], requires_grad=True)
    signs = losses.straight_through_sign(u)
    assert signs.tolist() == pytest.approx([-1, -1, -1, 1, 1])  # 0 is bit 0, as in BinaryCodes
    weights = torch.tensor([1.0, 2, 3, 4, 5])
    (signs * weights).sum().backward()
    assert u.grad is not None
    assert u.grad.tolist() == weights.tolist()


# ---- hinge ---------------------------------------------------------------------------------------


def test_expected_hinge_by_hand() -> None:
    positive = torch.tensor([0.2, 0.5])
    distances = torch.tensor([[0.1, 0.3, 0.9], [0.9, 0.55, 0.2]])
    weights = torch.tensor([[0.5, 0.5, 0.0], [0.25, 0.25, 0.5]])
    first = 0.5 * (0.2 + 0.2 - 0.1) + 0.5 * (0.2 + 0.2 - 0.3)  # the third: weight 0
    second = 0.25 * 0 + 0.25 * (0.2 + 0.5 - 0.55) + 0.5 * (0.2 + 0.5 - 0.2)  # .7 - .9 < 0
    found = losses.expected_hinge(positive, distances, weights, 0.2)
    assert float(found) == pytest.approx((first + second) / 2)


def test_expected_hinge_equals_a_loop_and_is_zero_for_rows_without_weight() -> None:
    generator = torch.Generator().manual_seed(3)
    positive, distances = torch.rand(4, generator=generator), torch.rand(4, 6, generator=generator)
    weights = torch.softmax(torch.randn(4, 6, generator=generator), dim=1)
    weights[2] = 0
    total = 0.0
    for i in range(4):
        for j in range(6):
            gap = 0.3 + float(positive[i]) - float(distances[i, j])
            total += float(weights[i, j]) * max(0.0, gap)
    assert float(losses.expected_hinge(positive, distances, weights, 0.3)) == pytest.approx(
        total / 4
    )
    nothing = losses.expected_hinge(positive, distances, torch.zeros(4, 6), 0.3)
    assert float(nothing) == 0


# ---- pairwise likelihood -------------------------------------------------------------------------


def test_pairwise_likelihood_equals_a_loop() -> None:
    generator = torch.Generator().manual_seed(4)
    logits = 3 * torch.randn(4, 5, generator=generator)
    similar, dissimilar = (torch.rand(4, 5, generator=generator) for _ in range(2))
    similar[1] = 0
    dissimilar[2] = 0
    expected = []
    for row in range(4):
        total = 0.0
        for weights, sign in ((similar, -1), (dissimilar, 1)):
            over = sum(weights[row].tolist())
            pairs = zip(weights[row].tolist(), logits[row].tolist(), strict=True)
            total += sum(w * log(1 + exp(sign * t)) for w, t in pairs) / max(over, 1e-6) / 2
        expected.append(total)
    found = losses.pairwise_likelihood(logits, similar, dissimilar)
    assert found.tolist() == pytest.approx(expected, rel=1e-4)


def test_pairwise_likelihood_equals_value_by_hand() -> None:
    logits = torch.tensor([[2.0, -1.0, 0.0]])
    similar = torch.tensor([[1.0, 0.0, 0.0]])
    found = losses.pairwise_likelihood(logits, similar, 1 - similar)
    assert float(found) == pytest.approx((log(1 + exp(-2)) + (log(1 + exp(-1)) + log(2)) / 2) / 2)


# ---- contrastive loss and cross-entropy ----------------------------------------------------------


def test_soft_cross_entropy_by_hand() -> None:
    logits = torch.tensor([[0.0, 0.0], [log(3), 0.0], [9.0, 7.0]])
    target = torch.tensor([[0.5, 0.5], [0.0, 1.0], [1.0, 0.0]])
    weight = torch.tensor([1.0, 3.0, 0.0])
    expected = (1 * log(2) + 3 * -log(1 / (3 + 1))) / (1 + 3)
    assert float(losses.soft_cross_entropy(logits, target, weight)) == pytest.approx(expected)


def test_soft_cross_entropy_without_weight_is_zero() -> None:
    found = losses.soft_cross_entropy(torch.randn(3, 4), torch.full((3, 4), 0.25), torch.zeros(3))
    assert float(found) == 0


@pytest.mark.parametrize("n", [1, 2, 5])
def test_contrastive_loss_with_identity_targets_is_infonce(n: int) -> None:
    u, v, eye = random_codes(n), random_codes(n, 1), torch.eye(n)
    expected = loop_both_ways(u, v, eye.tolist(), 0.1)
    found = losses.contrastive_loss(u, v, (eye, eye), 0.1)
    assert float(found) == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_contrastive_loss_over_matches_equals_a_loop() -> None:
    u, v = random_codes(4), random_codes(4, 1)
    target = torch.tensor([[0.5, 0.5, 0, 0], [0.5, 0.5, 0, 0], [0, 0, 1.0, 0], [0, 0, 0, 1.0]])
    found = losses.contrastive_loss(u, v, (target, target), 0.2)
    assert float(found) == pytest.approx(loop_both_ways(u, v, target.tolist(), 0.2), rel=1e-5)


@pytest.mark.parametrize("weight", [[1.0] * 4, [0.5, 0.0, 2.0, 0.25], [0.0, 0.0, 0.0, 0.1]])
def test_contrastive_loss_weights_rows_in_both_directions(weight: list[float]) -> None:
    u, v = random_codes(4), random_codes(4, 1)
    generator = torch.Generator().manual_seed(2)
    target = torch.softmax(torch.randn(4, 4, generator=generator), dim=1)  # not symmetric
    found = losses.contrastive_loss(u, v, (target, target), 0.25, torch.tensor(weight))
    expected = loop_both_ways(u, v, target.tolist(), 0.25, weight)
    assert float(found) == pytest.approx(expected, rel=1e-5)
    turned = losses.contrastive_loss(v, u, (target, target), 0.25, torch.tensor(weight))
    assert float(turned) == pytest.approx(float(found), rel=1e-5)  # symmetric in both modalities


def test_contrastive_loss_has_targets_for_each_direction() -> None:
    u, v, eye = random_codes(4), random_codes(4, 1), torch.eye(4)
    even = torch.full((4, 4), 0.25)
    both = losses.contrastive_loss(u, v, (eye, even), 0.2) + losses.contrastive_loss(
        u, v, (even, eye), 0.2
    )
    alike = losses.contrastive_loss(u, v, (eye, eye), 0.2) + losses.contrastive_loss(
        u, v, (even, even), 0.2
    )
    assert float(both) == pytest.approx(float(alike), rel=1e-5)
    assert float(losses.contrastive_loss(u, v, (eye, even), 0.2)) == pytest.approx(
        float(losses.contrastive_loss(v, u, (even, eye), 0.2)), rel=1e-5
    )


def test_contrastive_loss_without_weights_weights_rows_equally() -> None:
    u, v, target = random_codes(5), random_codes(5, 1), torch.full((5, 5), 0.2)
    alike = losses.contrastive_loss(u, v, (target, target), 0.1, torch.full((5,), 0.3))
    assert float(losses.contrastive_loss(u, v, (target, target), 0.1)) == pytest.approx(
        float(alike), rel=1e-5
    )


def test_contrastive_loss_row_without_weight_is_still_a_candidate() -> None:
    u, v = random_codes(3).requires_grad_(), random_codes(3, 1).requires_grad_()
    losses.contrastive_loss(
        u, v, (torch.eye(3),) * 2, 0.1, torch.tensor([1.0, 1.0, 0.0])
    ).backward()
    assert u.grad is not None
    assert float(u.grad[2].abs().max()) > 0  # it is a candidate of the other texts
    u.grad = None
    losses.contrastive_loss(u, v, (torch.eye(3),) * 2, 0.1, torch.zeros(3)).backward()
    assert u.grad is not None
    assert not u.grad.any()


def test_contrastive_loss_of_identical_codes_is_the_log_of_their_number() -> None:
    u = torch.ones(5, K) * 0.5
    assert float(losses.contrastive_loss(u, u, (torch.eye(5),) * 2, 0.1)) == pytest.approx(
        log(5), rel=1e-5
    )


# ---- bits ----------------------------------------------------------------------------------------


def test_quantisation_by_hand() -> None:
    u = torch.tensor([[1.0, -1.0], [0.5, -0.8]])
    assert float(losses.quantisation(u)) == pytest.approx((0 + 0 + 0.5**2 + 0.2**2) / 4)


def test_balance_by_hand() -> None:
    u = torch.tensor([[1.0, 1.0], [-1.0, 0.5]])
    assert float(losses.balance(u)) == pytest.approx((0**2 + 0.75**2) / 2)
    assert float(losses.balance(torch.ones(4, K))) == 1  # identical codes: the maximum


def test_decorrelation_by_hand() -> None:
    u = torch.tensor([[1.0, 1.0], [-1.0, 0.5]])
    off = (1 * 1 + -1 * 0.5) / 2
    assert float(losses.decorrelation(u)) == pytest.approx((off**2 + off**2) / (2 * 1))
    orthogonal = torch.tensor([[1.0, 1.0], [1.0, -1.0]])
    assert float(losses.decorrelation(orthogonal)) == 0
    assert float(losses.decorrelation(torch.ones(3, 4))) == 1  # all bits are equal
    assert float(losses.decorrelation(torch.ones(3, 1))) == 0  # a single bit


def test_bit_losses_equal_loops() -> None:
    u = random_codes(7)
    rows = u.tolist()
    expected = sum((abs(x) - 1) ** 2 for row in rows for x in row) / (7 * K)
    assert float(losses.quantisation(u)) == pytest.approx(expected)
    means = [sum(column) / 7 for column in transposed(rows)]
    assert float(losses.balance(u)) == pytest.approx(sum(m * m for m in means) / K)
    total = 0.0
    for a in range(K):
        for b in range(K):
            if a != b:
                total += (sum(row[a] * row[b] for row in rows) / 7) ** 2
    assert float(losses.decorrelation(u)) == pytest.approx(total / (K * (K - 1)), rel=1e-5)


def test_losses_have_finite_gradients_for_one_item_and_identical_items() -> None:
    for u in (torch.ones(1, K) * 0.1, torch.ones(4, K) * 0.1, torch.zeros(4, K)):
        codes = u.clone().requires_grad_()
        n = len(codes)
        between = losses.distance(codes, codes)
        total = (
            losses.contrastive_loss(codes, codes, (torch.eye(n),) * 2, 0.1)
            + losses.contrastive_loss(
                codes, codes, (torch.full((n, n), 1 / n),) * 2, 0.1, torch.zeros(n)
            )
            + losses.expected_hinge(between[:, 0], between, torch.zeros(n, n), 0.2)
            + losses.quantisation(codes)
            + losses.balance(codes)
            + losses.decorrelation(codes)
        )
        total.backward()
        assert bool(torch.isfinite(total))
        assert codes.grad is not None
        assert bool(torch.isfinite(codes.grad).all())
