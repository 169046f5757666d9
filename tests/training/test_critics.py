"""Critics, gradient penalty and R1 penalty."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
import torch
from support.critic_by_hand import (
    critic_values,
    numbers,
    penalty_gradients,
    score_gradients,
    slopes,
)

from xmodal.training.critics import PENALTY, CodeCritic, Critic
from xmodal.training.losses import gradient_penalty, r1_penalty

K = 16


def test_gradient_penalty_of_a_linear_critic_equals_value_by_hand() -> None:
    weight = torch.tensor([3.0, -4.0])  # |grad| = 5 everywhere
    rows = torch.randn(6, 2), torch.randn(6, 2)
    penalty = gradient_penalty(lambda x: x @ weight, *rows)
    assert float(penalty) == pytest.approx((5 - 1) ** 2, rel=1e-6)


def test_gradient_penalty_is_between_its_values_at_real_and_fake() -> None:
    one, three = torch.full((50, 1), 1.0), torch.full((50, 1), 3.0)  # slope of x^2 is 2 to 6
    penalty = float(gradient_penalty(lambda x: x.square().sum(1), one, three).detach())
    assert (2 - 1) ** 2 < penalty < (6 - 1) ** 2


def test_gradient_penalty_has_the_gradient_by_hand() -> None:
    weight = torch.tensor([[3.0], [-4.0]], requires_grad=True)
    gradient_penalty(
        lambda x: (x @ weight).squeeze(1), torch.randn(4, 2), torch.randn(4, 2)
    ).backward()
    assert weight.grad is not None  # d (|w| - 1)^2 / dw = 2 (|w| - 1) w / |w|
    assert weight.grad.flatten().tolist() == pytest.approx([2 * 4 * 3 / 5, 2 * 4 * -4 / 5])


def test_r1_penalty_and_gradient_equal_values_by_hand() -> None:
    real = torch.tensor([[1.0, 2.0], [0.0, -3.0]], requires_grad=True)
    scale = torch.tensor(2.0, requires_grad=True)
    penalty = r1_penalty(lambda x: scale * x.square().sum(1), real)  # slope 2 s x
    assert float(penalty.detach()) == pytest.approx(4 * 4 * ((1 + 4) + (0 + 9)) / 2)
    penalty.backward()
    assert scale.grad is not None
    assert float(scale.grad) == pytest.approx(2 * 4 * 2 * ((1 + 4) + (0 + 9)) / 2)
    assert real.grad is None  # no gradient reaches the rows


def rows(n: int, mean: float, seed: int) -> torch.Tensor:
    return torch.randn(n, 6, generator=torch.Generator().manual_seed(seed)) + mean


def small() -> Critic:
    torch.manual_seed(3)
    return Critic(6, hidden=5, rate=0.01)


def test_critic_scores_and_gradients_equal_numpy() -> None:
    critic, some = small(), rows(7, 0.0, 1).requires_grad_()
    scores = critic(some)
    np.testing.assert_allclose(
        numbers(scores), critic_values(critic, numbers(some)).score, atol=1e-6
    )
    (slope,) = torch.autograd.grad(scores.sum(), some)
    np.testing.assert_allclose(numbers(slope), slopes(critic, numbers(some)), atol=1e-6)


def test_critic_update_has_the_gradients_by_hand() -> None:
    critic, real, fake = small(), rows(7, 0.5, 1), rows(7, -0.5, 2)
    torch.manual_seed(9)
    mix = numbers(torch.rand(7, 1))
    between = mix * numbers(real) + (1 - mix) * numbers(fake)
    before = [numbers(one) for one in critic.layers.parameters()]
    wanted = [
        PENALTY * slope - (good - bad)
        for slope, good, bad in zip(
            penalty_gradients(critic, between),
            score_gradients(critic, numbers(real)),
            score_gradients(critic, numbers(fake)),
            strict=True,
        )
    ]
    apart = (
        critic_values(critic, numbers(real)).score.mean()
        - critic_values(critic, numbers(fake)).score.mean()
    )
    torch.manual_seed(9)
    assert critic.update(real, fake) == pytest.approx(apart / 6**0.5, abs=1e-6)
    for was, gradient, one in zip(before, wanted, critic.layers.parameters(), strict=True):
        assert one.grad is not None
        np.testing.assert_allclose(numbers(one.grad), gradient, atol=1e-5)
        # The first step of Adam is the learning rate times the sign of the gradient.
        clear = np.abs(gradient) > 1e-3
        step = numbers(one) - was
        np.testing.assert_allclose(step[clear], -0.01 * np.sign(gradient[clear]), rtol=1e-3)


def taught(codes: torch.Tensor, rounds: int = 40) -> tuple[CodeCritic, float]:
    """A critic trained on these codes, and its mean last distance."""
    torch.manual_seed(0)
    critic = CodeCritic(K)
    apart = [critic.update_on(codes) for _ in range(rounds)]
    return critic, sum(apart[-10:]) / 10


def test_code_critic_distance_is_larger_for_biased_and_repeated_bits() -> None:
    flips = torch.randn(256, K, generator=torch.Generator().manual_seed(1))
    lopsided = flips + 1.0
    repeated = flips[:, : K // 2].repeat(1, 2)  # balanced bits, each twice
    assert taught(flips)[1] < 0.5 * taught(lopsided)[1]
    assert taught(flips)[1] < 0.7 * taught(repeated)[1]


def test_code_critic_distance_does_not_depend_on_the_bits() -> None:
    # A bit that is 1 with probability p has distance 2p - 1 from uniform bits, and so has the
    # code, divided by its norm.
    found = []
    for bits in (16, 64):
        torch.manual_seed(0)
        critic = CodeCritic(bits)
        lopsided = torch.randn(400, bits) + 0.5
        apart = [critic.update_on(lopsided) for _ in range(30)]
        assert apart[-1] == pytest.approx(float(lopsided.sign().mean()), abs=0.08)
        found.append(apart[-1])
    assert found[0] == pytest.approx(found[1], abs=0.08)


def test_code_critic_ignores_the_size_of_relaxed_codes() -> None:
    flips = torch.randn(64, K, generator=torch.Generator().manual_seed(1))
    critic, _ = taught(flips, rounds=3)
    assert torch.equal(critic.generator_loss(flips), critic.generator_loss(0.01 * flips))


def test_code_critic_gradient_balances_biased_bits() -> None:
    lopsided = torch.randn(256, K, generator=torch.Generator().manual_seed(1)) + 1.0
    critic, _ = taught(lopsided)
    codes = lopsided.clone().requires_grad_()
    critic.generator_loss(codes).backward()
    assert codes.grad is not None
    assert bool((codes.grad.mean(0) > 0).all())  # descent reduces every bit's mean


def test_code_critic_state_can_be_restored() -> None:
    codes = torch.randn(64, K, generator=torch.Generator().manual_seed(1))
    critic, _ = taught(codes, rounds=2)
    other = CodeCritic(K)
    other.load_state_dict(critic.state_dict())
    other.optimiser.load_state_dict(deepcopy(critic.optimiser.state_dict()))
    after = []
    for one in (critic, other):
        torch.manual_seed(5)
        one.update_on(codes)
        after.append(one(codes.sign()))
    assert torch.equal(*after)
