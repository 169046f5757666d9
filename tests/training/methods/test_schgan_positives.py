"""The positive policy of SCH-GAN: contrastive targets for pairs whose class is uncertain."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from support.clusters import clusters

from xmodal.codes import BinaryCodes
from xmodal.training.methods.schgan import train as schgan
from xmodal.training.methods.schgan.config import Config
from xmodal.training.methods.schgan.networks import PositivePolicy
from xmodal.training.methods.schgan.train import positive_step
from xmodal.training.objective import ForwardPass
from xmodal.training.run import Run, TrainingData

QUICK = Config(epochs=3, batch=40, hidden=24, warmup=0)


def codes(data: TrainingData, config: Config) -> BinaryCodes:
    towers = schgan.train(data, config, Run(data))
    return towers.codes("image", data.validation.image)


def forward_pass(n: int = 12, bits: int = 16, seed: int = 0) -> ForwardPass:
    """Random codes and vectors of n pairs."""
    generator = torch.Generator().manual_seed(seed)
    made = [torch.tanh(torch.randn(n, bits, generator=generator)) for _ in range(2)]
    vectors = torch.randn(n, 20, generator=generator), torch.randn(n, 14, generator=generator)
    return ForwardPass((made[0], made[1]), vectors)


def test_positive_policy_changes_codes_and_is_repeatable() -> None:
    data = clusters(labelled=0.3, bits=64)
    strong = replace(QUICK, policy_rate=0.1, positive_share=1.0, pairs=5.0, classes=10.0)
    config = replace(strong, positives="policy")
    found = codes(data, config)
    assert found != codes(data, strong)
    assert found == codes(data, config)


def policy() -> PositivePolicy:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return PositivePolicy(clusters().towers(8))


def test_positive_policy_never_selects_the_query_itself() -> None:
    for log_p in policy().log_policies(forward_pass()):
        p = log_p.detach().exp()
        assert not p.diagonal().any()
        assert p.sum(1).tolist() == pytest.approx([1.0] * 12, abs=1e-5)


def test_mix_targets_gives_the_policy_a_share_proportional_to_uncertainty() -> None:
    uncertainty = torch.zeros(12)
    uncertainty[3], uncertainty[5] = 1.0, 0.5
    target = torch.eye(12)
    for found in policy().mix_targets(forward_pass(), target, uncertainty, 0.4):
        assert found.sum(1).tolist() == pytest.approx([1.0] * 12, abs=1e-5)
        assert torch.equal(found[[0, 1, 2, 4]], target[[0, 1, 2, 4]])
        assert float(found[3, 3]) == pytest.approx(0.6)
        assert float(found[5, 5]) == pytest.approx(0.8)


def test_positive_step_increases_the_reward_and_selects_near_codes() -> None:
    image = torch.ones(12, 16)
    image[::2] = -1  # two classes; candidates of the other class are at distance 1
    batch = replace(forward_pass(), codes=(image, image.clone()))
    g, config = policy(), replace(QUICK, policy_entropy=0.0)
    optimiser = torch.optim.AdamW(g.parameters(), lr=1e-2)
    rewards = [positive_step(g, optimiser, batch, config)["positive reward"] for _ in range(40)]
    assert rewards[-1] > rewards[0] + 0.2
    selected = g.log_policies(batch)[0].detach().exp()
    same = torch.arange(12)[:, None] % 2 == torch.arange(12)[None] % 2
    assert float((selected * same).sum(1).mean()) > 0.8
