"""The faults of the released SCH-GAN, 1 to 11: effect of each setting."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from support.clusters import CLASSES, clusters
from support.released import QUICK, networks, weights

from xmodal.encoders.towers import ReleasedTower
from xmodal.errors import ConfigError
from xmodal.training.methods.schgan_paper import losses as terms
from xmodal.training.methods.schgan_paper import networks as paper_networks
from xmodal.training.methods.schgan_paper import train as paper
from xmodal.training.methods.schgan_paper.config import Config
from xmodal.training.run import Run


@pytest.mark.parametrize(
    ("target", "pulled"), [("zero", [0, 0]), ("natural", [1, 0]), ("match", [1, 1])]
)
def test_fault_1_zero_labels_push_positives_apart(target: Any, pulled: list[int]) -> None:
    config = Config(pair_target=target, quantise=0, balance=0, decorrelate=0, margin=1e-9)
    u = torch.full((2, 16), 0.5)
    near = torch.zeros(2, 16, requires_grad=True)
    minus, weight, natural = torch.full((2, 1), 90.0), torch.ones(2, 1), torch.tensor([True, False])
    loss = paper._discriminator_loss(u, near, minus, weight, natural, u, config)
    (gradient,) = torch.autograd.grad(loss, near)
    assert (gradient.sum(1) < 0).int().tolist() == pulled  # a step goes towards u


def gradient(reward: list[float], config: Config) -> torch.Tensor:
    """Gradient of the selection loss at the scores of 4 candidates; 0 and 1 are the picks."""
    scores = torch.tensor([[0.3, 0.0, -0.2, 0.1]], requires_grad=True)
    log_p, picks = torch.log_softmax(scores, 1), torch.tensor([[0, 1]])
    rewards = torch.tensor([[*reward, 0.0, 0.0]])
    (found,) = torch.autograd.grad(terms.selection_loss(log_p, rewards, picks, config), scores)
    return found[0]


def test_fault_2_gradient_over_two_picks_is_zero_on_one_side_of_r() -> None:
    released = Config.as_released()
    whole = replace(released, softmax="pool")
    assert gradient([0.01, 0.02], released).tolist() == pytest.approx([0] * 4, abs=1e-8)
    assert gradient([0.9, 0.8], released).tolist() == pytest.approx([0] * 4, abs=1e-8)
    assert float(gradient([0.9, 0.1], released).abs().max()) > 0.1  # one p above, one below
    assert float(gradient([0.01, 0.02], whole).abs().max()) > 0.01
    assert bool((gradient([0.9, 0.8], whole)[:2] < 0).all())  # both probabilities increase


def test_fault_2_with_a_baseline_changes_the_entropy_gradient_only() -> None:
    whole, picks = Config(entropy=0), Config(entropy=0, softmax="picks")
    assert torch.allclose(gradient([0.9, 0.1], whole), gradient([0.9, 0.1], picks), atol=1e-7)
    spread = [gradient([0.5, 0.5], replace(one, entropy=1.0)) for one in (whole, picks)]
    assert not torch.allclose(*spread, atol=1e-3)


def test_fault_3_fixed_width_reward_is_almost_zero_at_the_start() -> None:
    # Distances measured at the start of the release: 15.6 +- 2.
    generator = torch.Generator().manual_seed(0)
    plus, minus = 15.6 + 2 * torch.randn(2, 50, 200, generator=generator)
    gap = 5 + plus - minus
    found = {}
    for config in (Config.as_released(), Config()):
        width = terms.reward_width(gap, config)
        found[config.reward_width] = terms.rewards(gap, "B", width)
    assert float(found["fixed"].median()) < 1e-4
    assert 0.05 < float(found["spread"].median()) < 0.5
    assert float((found["spread"] > 0.05).float().mean()) > 0.8


def test_fault_4_hidden_labels_are_in_the_class_loss() -> None:
    logits = torch.zeros(2, CLASSES, requires_grad=True)
    labels, known = torch.eye(CLASSES)[:2], torch.tensor([True, False])
    touched = {}
    for config in (Config(), Config.as_released()):
        loss = terms.class_loss(logits, labels, known, config)
        assert loss.item() == pytest.approx(math.log(2))
        (found,) = torch.autograd.grad(loss, logits)
        touched[config.class_labels] = found.abs().sum(1).gt(0).tolist()
    assert touched == {"labelled": [True, False], "all": [True, True]}


def test_fault_5_selection_queries_replace_validation_pairs() -> None:
    data, queries = clusters(), clusters(seed=1).validation
    assert paper.with_selection_queries(data, queries, QUICK) is data
    peeking = replace(QUICK, best_epoch="queries")
    chosen = paper.with_selection_queries(data, queries, peeking)
    assert chosen.validation is queries
    assert chosen.train is data.train
    run = Run(chosen)
    paper.train(chosen, peeking, run)
    assert len(run.history) == 3
    with pytest.raises(
        ConfigError, match=r"best_epoch is 'queries', which are not in the training data"
    ):
        paper.train(data, peeking, Run(data))


def test_fault_6_negatives_are_weighted_by_their_probability() -> None:
    data = clusters(80, labelled=0.5)
    classes = torch.arange(80) % CLASSES
    rows, pool = torch.arange(40), torch.arange(80)
    same = classes[rows][:, None] == classes[pool][None, :]
    shares = torch.nn.functional.one_hot(classes, CLASSES) * 0.8
    for how, hidden_matches in (("ignored", 1.0), ("estimated", 0.36)):
        both = networks(data, replace(QUICK, false_negatives=how))  # type: ignore[arg-type]
        weight = paper_networks.negative_weights(both, rows, pool, shares)
        assert bool((weight[:, :40][same[:, :40]] == 0).all())  # known matches have weight 0
        found = weight[:, 40:][same[:, 40:]]
        assert found.tolist() == pytest.approx([hidden_matches] * len(found))
        assert bool((weight[~same] == 1).all())


def test_fault_6_false_negatives_are_measured_on_validation_pairs() -> None:
    data = clusters(160, 60, labelled=0.5)
    for config in (QUICK, replace(QUICK, false_negatives="ignored")):
        run = Run(data)
        paper.train(data, config, run)
        assert "false negatives" not in run.history[0]  # pretraining has no picks
        assert all(0 < row["false negatives"] < 0.6 for row in run.history[1:])
    # A generator of zeros picks at the base rate: 14 of 59 other items share the class.
    both = networks(data, replace(QUICK, false_negatives="ignored"))
    for weight in both.g.parameters():
        torch.nn.init.zeros_(weight)
    shares = paper._false_negatives(both, data.validation)["false negatives"]
    assert shares == pytest.approx([14 / 59] * 2)


def test_fault_7_declared_decay_does_not_change_the_learning_rate() -> None:
    data = clusters(40)
    for config, factor in ((QUICK, QUICK.decay), (replace(QUICK, rate_decay="declared"), 1.0)):
        run = Run(data)
        paper.train(data, config, run)
        rates = [row["learning rate"] for row in run.history[1:]]
        assert rates == pytest.approx([40e-4, 40e-4 * factor])


@pytest.mark.parametrize("length", [100.0, 0.01])
def test_fault_8_released_start_saturates_units_or_makes_them_constant(length: float) -> None:
    data = clusters()
    data = replace(data, train=replace(data.train, image=length * data.train.image))
    spread = {}
    for config in (QUICK, replace(QUICK, start="released")):
        both = networks(data, config)
        tower = both.d.image
        assert isinstance(tower, ReleasedTower)
        units = tower.units(data.train.image).detach()
        spread[config.start] = float(units.abs().median())
        if config.start == "scaled":
            z = tower.head[2](units)
            assert torch.allclose(z.std(0, correction=0), torch.ones(16), atol=1e-3)
            assert torch.allclose(z.mean(0), torch.zeros(16), atol=1e-3)
    assert 0.3 < spread["scaled"] < 0.8
    assert spread["released"] > 0.9 if length > 1 else spread["released"] < 0.01


def test_fault_8_released_bit_regulariser_is_zero() -> None:
    alike = torch.full((terms.MIN_STATISTICS_ROWS, 16), 0.5)
    assert float(terms.bit_regulariser(alike, Config.as_released())) == 0
    found = [
        float(terms.bit_regulariser(alike, replace(Config.as_released(), **{name: 1.0})))
        for name in ("quantise", "balance", "decorrelate")
    ]
    assert found == pytest.approx([16 * 0.25, 16 * 0.25, 16 * 0.0625])
    few = terms.bit_regulariser(
        alike[1:], replace(Config.as_released(), balance=1.0, decorrelate=1.0)
    )
    assert float(few) == 0  # too few codes for statistics


def test_fault_9_margin_is_proportional_to_the_bits() -> None:
    assert [Config().beta(bits) for bits in (16, 32, 64, 128)] == [1.25, 2.5, 5, 10]
    assert {Config.as_released().beta(bits) for bits in (16, 32, 64, 128)} == {5}


@pytest.mark.parametrize("reward", ["A", "B", "C"])
def test_fault_10_equal_rewards_have_a_gradient_without_a_baseline(reward: Any) -> None:
    config = Config(reward=reward, entropy=0.0)
    assert gradient([0.5, 0.5], config).tolist() == pytest.approx([0] * 4, abs=1e-7)
    centred = gradient([0.6, 0.4], config)
    assert centred[0] < 0 < centred[1]  # the probability of the better pick increases
    assert bool((gradient([0.6, 0.4], replace(config, policy_gradient="plain"))[:2] < 0).all())


def test_fault_10_plain_losses_equal_values_by_hand() -> None:
    log_p, picks = torch.tensor([[0.5, 0.3, 0.2]]).log(), torch.tensor([[0, 2]])
    reward = torch.tensor([[0.9, 0.0, 0.1]])
    config = Config(policy_gradient="plain")
    assert float(terms.selection_loss(log_p, reward, picks, config)) == pytest.approx(
        (abs(0.5 - 0.9) + abs(0.2 - 0.1)) / 2
    )
    for kind in ("A", "C"):
        found = terms.selection_loss(log_p, reward, picks, replace(config, reward=kind))
        expected = -(0.9 * math.log(0.5) + 0.1 * math.log(0.2)) / 2
        assert float(found) == pytest.approx(expected)


@pytest.mark.parametrize("pretrained", [True, False])
def test_fault_11_generator_is_not_pretrained(pretrained: bool) -> None:
    data = clusters()
    both = networks(data, replace(QUICK, generator_pretraining=pretrained))
    before, g = weights(both.d), weights(both.g.towers)
    rng, sums = np.random.default_rng(0), {name: [] for name in ("triplet", "policy triplet")}
    paper._pretrain(both, paper.draw_triplets(both, rng), sums, rng)
    assert not torch.equal(before, weights(both.d))
    assert torch.equal(g, weights(both.g.towers)) is not pretrained
    assert bool(sums["policy triplet"]) is pretrained
