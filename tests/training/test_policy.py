"""Policy and objectives: loops, gradients by hand, unbiased sampling."""

from __future__ import annotations

from math import exp, inf, log

import pytest
import torch

from xmodal.training import policy
from xmodal.training.losses import distance

DISTANCES = torch.tensor([[0.1, 0.2, 0.4, 0.3], [0.5, 0.1, 0.1, 0.9], [0.3, 0.3, 0.3, 0.3]])
ALLOWED = torch.tensor([[True, True, False, True], [True] * 4, [False] * 4])
REWARD = torch.tensor([[1.0, 0.2, 0.7, 0.1], [0.0, 0.9, 0.4, 0.3], [0.5, 0.5, 0.5, 0.5]])


def loop_log_policy(
    distances: list[list[float]], allowed: list[list[bool]], temperature: float
) -> list[list[float]]:
    out = []
    for row, may in zip(distances, allowed, strict=True):
        total = sum(exp(-d / temperature) for d, ok in zip(row, may, strict=True) if ok)
        out.append(
            [-d / temperature - log(total) if ok else -inf for d, ok in zip(row, may, strict=True)]
        )
    return out


# ---- policy --------------------------------------------------------------------------------------


def test_policy_returns_a_distance_for_every_pair() -> None:
    torch.manual_seed(0)
    network = policy.Policy(6, 9, space=16)
    image, text = torch.randn(3, 6), torch.randn(5, 9)
    found = network(image, text).detach()
    assert found.shape == (3, 5)
    expected = distance(torch.tanh(network.image(image)), torch.tanh(network.text(text))).detach()
    torch.testing.assert_close(found, expected)
    assert 0 <= float(found.min()) <= float(found.max()) <= 1


def test_log_policy_equals_a_loop() -> None:
    expected = loop_log_policy(DISTANCES.tolist(), ALLOWED.tolist(), 0.1)
    found = policy.log_policy(DISTANCES, ALLOWED, 0.1)
    torch.testing.assert_close(found, torch.tensor(expected))
    torch.testing.assert_close(found.exp().sum(1), torch.tensor([1.0, 1.0, 0.0]))


def test_log_policy_by_hand() -> None:
    distances = torch.tensor([[0.0, 0.1 * log(3)]])  # exp(-d / .1) = 1 and 1/3
    found = policy.log_policy(distances, torch.ones(1, 2).bool(), 0.1)
    assert found.exp().tolist() == [pytest.approx([1 / (1 + 1 / 3), (1 / 3) / (1 + 1 / 3)])]


def test_lower_temperature_gives_lower_entropy() -> None:
    cold, warm = (policy.log_policy(DISTANCES[:1], ALLOWED[:1], t) for t in (0.01, 1.0))
    assert float(cold.exp().max()) > 0.999
    assert float(warm.exp().max()) < 0.4


def test_log_policy_without_candidates_has_zero_gradient() -> None:
    distances = DISTANCES.clone().requires_grad_()
    log_p = policy.log_policy(distances, torch.zeros(3, 4).bool(), 0.1)
    assert bool(log_p.isinf().all())
    policy.exact_objective(log_p, REWARD, 0.1).backward()
    assert distances.grad is not None
    assert distances.grad.abs().sum().item() == 0


# ---- reward, entropy, share ----------------------------------------------------------------------


def test_margin_reward_by_hand() -> None:
    positive = torch.tensor([0.2])
    distances = torch.tensor([[0.4, 0.2, 0.6, 0.0]])
    found = policy.margin_reward(positive, distances, margin=0.2, sigma=0.1)
    assert found.tolist() == [pytest.approx([1, exp(-2), exp(-2), exp(-4)], rel=1e-5)]


def test_margin_reward_equals_a_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    positive, distances = torch.rand(3, generator=generator), torch.rand(3, 4, generator=generator)
    found = policy.margin_reward(positive, distances, 0.15, 0.3)
    for i in range(3):
        for j in range(4):
            off = abs(0.15 + float(positive[i]) - float(distances[i, j]))
            assert float(found[i, j]) == pytest.approx(exp(-off / 0.3), rel=1e-5)


def test_entropy_by_hand() -> None:
    log_p = torch.tensor([[0.5, 0.25, 0.25, 0.0], [1.0, 0, 0, 0], [0.0, 0, 0, 0]]).log()
    expected = [0.5 * log(2) + 2 * 0.25 * log(4), 0, 0]
    assert policy.entropy(log_p).tolist() == pytest.approx(expected, abs=1e-6)


def test_effective_share_by_hand() -> None:
    uniform_of_two = torch.tensor([[0.5, 0.5, 0.0]]).log()
    assert float(policy.effective_share(uniform_of_two)) == pytest.approx(2 / 2)
    decided = torch.tensor([[0.0, -1e9]])  # one of two candidates has all the probability
    assert float(policy.effective_share(decided)) == pytest.approx(1 / 2)
    both = policy.log_policy(DISTANCES, ALLOWED, 0.1)
    expected = [exp(float(policy.entropy(both)[row])) / n for row, n in ((0, 3), (1, 4))]
    assert float(policy.effective_share(both)) == pytest.approx(sum(expected) / 2)


def test_effective_share_without_candidates_is_zero() -> None:
    assert float(policy.effective_share(torch.full((3, 4), -inf))) == 0


# ---- exact objective -----------------------------------------------------------------------------


def test_exact_objective_equals_a_loop() -> None:
    log_p = policy.log_policy(DISTANCES, ALLOWED, 0.2)
    total = 0.0
    for i in range(3):
        for j in range(4):
            p = exp(float(log_p[i, j]))
            if p:
                total += p * float(REWARD[i, j]) - 0.3 * p * log(p)
    assert float(policy.exact_objective(log_p, REWARD, 0.3)) == pytest.approx(-total / 3)


def test_exact_objective_has_the_gradient_by_hand() -> None:
    logits = torch.tensor([0.3, -1.0, 0.8, 0.0], dtype=torch.float64, requires_grad=True)
    reward = torch.tensor([0.2, 0.9, 0.4, 1.0], dtype=torch.float64)
    log_p = policy.log_policy(-logits[None], torch.ones(1, 4).bool(), 1.0)
    policy.exact_objective(log_p, reward[None], 0.0).backward()
    p = torch.softmax(logits.detach(), dim=0)
    # d/dl_k of -sum_j p_j r_j = -sum_j r_j p_j (1[j = k] - p_k) = -p_k (r_k - sum_j p_j r_j)
    expected = -p * (reward - (p * reward).sum())
    torch.testing.assert_close(logits.grad, expected)


def test_entropy_has_the_gradient_by_hand() -> None:
    logits = torch.tensor([0.3, -1.0, 0.8], dtype=torch.float64, requires_grad=True)
    log_p = policy.log_policy(-logits[None], torch.ones(1, 3).bool(), 1.0)
    policy.exact_objective(log_p, torch.zeros(1, 3, dtype=torch.float64), 0.7).backward()
    p = torch.softmax(logits.detach(), dim=0)
    # dH/dl_k = -p_k (log p_k + H)
    expected = 0.7 * p * (p.log() - (p * p.log()).sum())
    torch.testing.assert_close(logits.grad, expected)


# ---- REINFORCE -----------------------------------------------------------------------------------


def test_reinforce_objective_equals_a_loop() -> None:
    log_p = policy.log_policy(DISTANCES[:2], ALLOWED[:2], 0.2)
    picks = torch.tensor([[0, 3, 0], [2, 1, 1]])
    total = 0.0
    for i in range(2):
        rewards = [float(REWARD[i, j]) for j in picks[i]]
        for s in range(3):
            others = [rewards[t] for t in range(3) if t != s]
            total += float(log_p[i, picks[i, s]]) * (rewards[s] - sum(others) / 2) / 3
        total += 0.3 * float(policy.entropy(log_p)[i])
    found = policy.reinforce_objective(log_p, REWARD[:2], picks, 0.3)
    assert float(found) == pytest.approx(-total / 2)


def test_reinforce_objective_has_zero_gradient_for_equal_rewards() -> None:
    logits = torch.randn(2, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    log_p = policy.log_policy(logits, torch.ones(2, 5).bool(), 1.0)
    picks = torch.tensor([[0, 1, 4], [2, 2, 3]])
    policy.reinforce_objective(log_p, torch.full((2, 5), 0.6), picks, 0.0).backward()
    assert logits.grad is not None
    assert float(logits.grad.abs().max()) < 1e-6


def test_reinforce_objective_with_one_pick_raises_value_error() -> None:
    log_p = policy.log_policy(DISTANCES, ALLOWED, 0.2)
    with pytest.raises(ValueError, match="1 picks a query, expected at least 2"):
        policy.reinforce_objective(log_p, REWARD, torch.zeros(3, 1, dtype=torch.long), 0.0)


def test_reinforce_objective_without_queries_is_zero() -> None:
    nothing = torch.zeros(0, 4)
    found = policy.reinforce_objective(nothing, nothing, torch.zeros(0, 2).long(), 0.1)
    assert float(found) == 0


@pytest.mark.parametrize("samples", [2, 6])
def test_reinforce_gradient_is_unbiased(samples: int) -> None:
    runs = 20_000
    logits = torch.tensor([0.3, -1.0, 0.8, 0.0, -0.4])
    reward = torch.tensor([0.2, 0.9, 0.4, 1.0, 0.0])
    allowed = torch.ones(1, 5).bool()
    one = (-logits)[None].clone().requires_grad_()
    policy.exact_objective(policy.log_policy(one, allowed, 1.0), reward[None], 0.0).backward()
    assert one.grad is not None

    # Each row is one sample: the mean of the objective over rows is the mean over samples.
    rows = (-logits)[None].repeat(runs, 1).requires_grad_()
    log_p = policy.log_policy(rows, allowed.expand(runs, 5), 1.0)
    generator = torch.Generator().manual_seed(0)
    picks = torch.multinomial(log_p.detach().exp(), samples, replacement=True, generator=generator)
    policy.reinforce_objective(log_p, reward.expand(runs, 5), picks, 0.0).backward()
    assert rows.grad is not None
    each = rows.grad * runs  # the gradient of each sample
    error = (each.mean(0) - one.grad[0]).abs()
    # Five standard errors of the mean: exceeded with probability 1 / 1.7 million per coordinate.
    assert bool((error <= 5 * each.std(0) / runs**0.5).all())
    # The tolerance is small relative to the gradient.
    assert float((5 * each.std(0) / runs**0.5).max()) < 0.3 * float(one.grad.abs().max())
