"""SCH-GAN, single steps: changed weights, losses, candidates and selected negatives."""

from __future__ import annotations

from dataclasses import replace
from math import exp
from typing import Any

import numpy as np
import pytest
import torch
from support.clusters import CLASSES, clusters
from torch import nn

from xmodal.training import negatives
from xmodal.training.methods.schgan import losses
from xmodal.training.methods.schgan import train as schgan
from xmodal.training.methods.schgan.config import Config
from xmodal.training.methods.schgan.networks import Generator
from xmodal.training.negatives import Candidates, negative_step
from xmodal.training.objective import ForwardPass, HashNetwork
from xmodal.training.prototypes import ClassPrototypes, class_temperature
from xmodal.training.pseudo_labels import fit

QUICK = Config(epochs=3, batch=40, hidden=24, warmup=0, negatives="policy", triplet=1.0)
N = 40


Batch = tuple[ForwardPass, Candidates]


class Networks:
    """Discriminator and generator with one batch and a fixed seed for every step."""

    def __init__(self, config: Config = QUICK) -> None:
        self.config = config
        data = clusters(N, labelled=0.5)
        self.part = data.train
        self.labels = fit(data.train, directions=8)(data.train)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            towers = data.towers(config.hidden)
            self.d = HashNetwork(towers, ClassPrototypes(CLASSES, towers.bits, 0.2))
            self.generator = Generator(towers)
        self.g = self.generator.negatives
        self.d_optimiser = torch.optim.AdamW(self.d.parameters(), lr=1e-3)
        self.g_optimiser = torch.optim.AdamW(self.generator.parameters(), lr=1e-2)

    def discriminate(self) -> tuple[float, Batch]:
        """One step of the hash network: its loss before the step, forward pass and candidates."""
        with torch.random.fork_rng():
            torch.manual_seed(0)
            terms, *batch = schgan._discriminator_step(
                self.d,
                self.generator,
                self.d_optimiser,
                self.part,
                self.labels,
                self.config,
                1,
                np.random.default_rng(0),
            )
        return sum(terms.values()), (batch[0], batch[1])

    def generate(self, batch: Batch) -> dict[str, float]:
        """One step of the policy, at the same temperature and reward width each time."""
        kept = {name: buffer.clone() for name, buffer in self.g.named_buffers()}
        with torch.random.fork_rng():
            torch.manual_seed(0)
            figures = negative_step(
                self.g, self.g_optimiser, *batch, self.config, np.random.default_rng(0)
            )
        self.g.load_state_dict(kept, strict=False)
        return figures


def weights(network: nn.Module) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in network.parameters()]


def same(before: list[torch.Tensor], after: list[torch.Tensor]) -> list[bool]:
    return [torch.equal(one, other) for one, other in zip(before, after, strict=True)]


# ---- one step of each network --------------------------------------------------------------------


def test_discriminator_step_changes_only_its_own_weights() -> None:
    networks = Networks()
    d, g = weights(networks.d), [tensor.clone() for tensor in networks.g.state_dict().values()]
    networks.discriminate()
    assert not any(same(d, weights(networks.d)))  # every one of them
    assert all(same(g, list(networks.g.state_dict().values())))
    assert all(parameter.grad is None for parameter in networks.g.parameters())


@pytest.mark.parametrize("estimator", ["exact", "reinforce"])
def test_generator_step_changes_only_its_own_weights(estimator: Any) -> None:
    networks = Networks(replace(QUICK, estimator=estimator))
    _, batch = networks.discriminate()
    d = [tensor.clone() for tensor in networks.d.state_dict().values()]
    gradients = [p.grad.clone() for p in networks.d.parameters() if p.grad is not None]
    g = weights(networks.g)
    networks.generate(batch)
    assert not all(same(g, weights(networks.g)))
    assert all(same(d, list(networks.d.state_dict().values())))
    assert all(same(gradients, [p.grad for p in networks.d.parameters() if p.grad is not None]))


def test_discriminator_steps_lower_its_loss() -> None:
    networks = Networks()
    losses = [networks.discriminate()[0] for _ in range(4)]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0] - 0.01


@pytest.mark.parametrize("estimator", ["exact", "reinforce"])
def test_generator_steps_increase_its_reward(estimator: Any) -> None:
    networks = Networks(replace(QUICK, estimator=estimator, policy_entropy=0.0, picks=64))
    _, batch = networks.discriminate()
    rewards = [networks.generate(batch)["reward"] for _ in range(15)]
    if estimator == "exact":
        assert rewards == sorted(rewards)
    assert rewards[-1] > 1.03 * rewards[0]


def test_entropy_weight_increases_the_effective_share() -> None:
    uses = []
    for weight in (0.0, 5.0):
        networks = Networks(replace(QUICK, policy_entropy=weight))
        _, batch = networks.discriminate()
        uses.append([networks.generate(batch)["policy share"] for _ in range(15)][-1])
    assert uses[0] < uses[1]


def test_adapt_changes_temperature_and_sigma_towards_their_targets() -> None:
    g = Networks().g
    start = float(g.get_buffer("temperature"))
    for used, direction in ((0.5, -1), (0.001, 1)):
        g.get_buffer("temperature").fill_(start)
        g.adapt(used, target=0.05, spread=0.2)
        assert np.sign(float(g.get_buffer("temperature")) - start) == direction
    width = float(g.get_buffer("sigma"))
    for _ in range(200):
        g.adapt(0.05, target=0.05, spread=0.3)
    assert width < 0.299 < float(g.get_buffer("sigma")) <= 0.3


@pytest.mark.parametrize("certainty", [0.6, 0.95, 0.999])
@pytest.mark.parametrize("classes", [2, 10, 75])
def test_class_temperature_gives_the_certainty(classes: int, certainty: float) -> None:
    temperature = class_temperature(classes, certainty)
    on, off = exp(1 / temperature), exp(0 / temperature)
    assert on / (on + (classes - 1) * off) == pytest.approx(certainty)


@pytest.mark.parametrize("classes", [0, 1])
def test_class_temperature_is_defined_without_classes(classes: int) -> None:
    assert 0 < class_temperature(classes, 0.95) < 1


def test_prototype_logits_are_similarities_over_the_temperature() -> None:
    d = Networks().d
    with torch.no_grad():
        d.prototypes.weight[:2] = torch.tensor([[9.0], [-9.0]])  # tanh: codes of all 1, of all -1
        d.prototypes.weight[2] = torch.tensor([9.0, -9.0]).repeat(8)
        found = d.prototypes(torch.ones(1, 16))[0, :3]
    assert found.tolist() == pytest.approx([1 / 0.2, -1 / 0.2, 0], abs=1e-5)


# ---- forward pass and candidates -----------------------------------------------------------------


def evaluate(networks: Networks, match_probability: torch.Tensor | None = None) -> Batch:
    """Forward pass of the batch in evaluation mode, and its candidates."""
    networks.d.eval()
    with torch.no_grad():
        batch = networks.d(networks.part.image, networks.part.text)
    if match_probability is None:
        match_probability = networks.labels.match_probability
    return batch, Candidates.of(match_probability)


def test_candidates_are_weighted_by_one_minus_match_probability() -> None:
    probability = torch.tensor([[1, 0.6, 0.5], [0.6, 1, 0.1], [0.5, 0.1, 1]])
    found = Candidates.of(probability)
    assert found.match.tolist() == [[True, True, False], [True, True, False], [False, False, True]]
    assert found.weight.flatten().tolist() == pytest.approx([0, 0, 0.5, 0, 0, 0.9, 0.5, 0.9, 0])


def test_labelled_pairs_are_matches_or_candidates_by_their_labels() -> None:
    _, candidates = evaluate(Networks())
    classes = torch.arange(20) % CLASSES
    shared = classes[:, None] == classes[None, :]
    assert torch.equal(candidates.match[:20, :20], shared)
    assert torch.equal(candidates.weight[:20, :20], (~shared).float())


def test_sample_positives_returns_matches_other_than_the_natural_pair() -> None:
    (_, candidates), rows = evaluate(Networks()), torch.arange(N)
    for sampled in negatives.sample_positives(candidates, np.random.default_rng(0)).values():
        assert bool(candidates.match[rows, sampled].all())
        assert not torch.equal(sampled, rows)


def test_directions_have_transposed_distances_with_gradients() -> None:
    _, (batch, _) = Networks().discriminate()
    found = dict(negatives.directions(batch))
    assert set(found) == {"image", "text"}
    assert torch.equal(found["text"], found["image"].T)
    assert found["image"].requires_grad
    assert not any(one.requires_grad for _, one in negatives.directions(batch.detached()))


def test_log_policies_are_probabilities_of_the_candidates() -> None:
    networks = Networks()
    batch, candidates = evaluate(networks)
    found = networks.g.log_policies(batch, candidates)
    assert set(found) == {"image", "text"}
    for log_p in found.values():
        assert torch.equal(log_p.isinf(), candidates.weight == 0)
        assert log_p.exp().sum(1).tolist() == pytest.approx([1.0] * N, abs=1e-5)
    assert not torch.allclose(found["image"].exp(), found["text"].exp())


# ---- selected negatives --------------------------------------------------------------------------


@pytest.mark.parametrize("modality", ["image", "text"])
@pytest.mark.parametrize("rule", ["policy", "semi-hard", "random"])
def test_negative_weights_select_candidates_by_the_rule(rule: Any, modality: str) -> None:
    config = replace(QUICK, negatives=rule)
    networks = Networks(config)
    batch, candidates = evaluate(networks)
    generator = torch.Generator().manual_seed(0)
    distances, positive = torch.rand(N, N, generator=generator), torch.full((N,), 0.3)
    candidates.weight[0] = candidates.weight[:, 0] = 0  # item 0 has no candidate and is none
    policies = networks.g.log_policies(batch, candidates)
    log_p = policies[modality] if rule == "policy" else None
    found = negatives.negative_weights(log_p, candidates, distances, positive, config)
    assert found[0].tolist() == [0.0] * N
    assert found[1:].sum(1).tolist() == pytest.approx([1.0] * (N - 1), abs=1e-4)
    assert bool((found[candidates.weight == 0] == 0).all())
    selected = found > 0
    if rule == "semi-hard":
        gap = distances - 0.3
        inside = (gap > 0) & (gap < config.margin)
        assert torch.equal(selected, inside & (candidates.weight > 0))
    else:
        assert torch.equal(selected, candidates.weight > 0)


def test_negative_weights_are_zero_without_semi_hard_candidates() -> None:
    (_, candidates), config = evaluate(Networks()), replace(QUICK, negatives="semi-hard")
    far, positive = torch.full((N, N), 0.9), torch.full((N,), 0.3)
    assert not negatives.negative_weights(None, candidates, far, positive, config).any()


# ---- statistics of selected negatives ------------------------------------------------------------


def true_matches() -> torch.Tensor:
    classes = torch.arange(N) % CLASSES
    return classes[:, None] == classes[None, :]


@pytest.mark.parametrize("alone", [[], [0, 3]])
@pytest.mark.parametrize("rule", ["policy", "random"])
def test_negative_statistics_equal_a_loop(rule: Any, alone: list[int]) -> None:
    config = replace(QUICK, negatives=rule)
    networks = Networks(config)
    uncertain = torch.rand(N, N, generator=torch.Generator().manual_seed(1)) / 2
    probability = torch.maximum((uncertain + uncertain.T) / 2, torch.eye(N))
    batch, candidates = evaluate(networks, probability)  # only natural pairs are matches
    truth = true_matches()
    for one in alone:
        candidates.weight[one] = candidates.weight[:, one] = 0
    policies = networks.g.log_policies(batch, candidates) if rule == "policy" else {}
    policies = {modality: log_p.detach() for modality, log_p in policies.items()}
    gaps, false, random = [], [], []
    for modality, distances in negatives.directions(batch):
        positive, log_p = distances.diagonal(), policies.get(modality)
        selected = negatives.negative_weights(log_p, candidates, distances, positive, config)
        for i in range(N):
            if i in alone:
                continue
            off = [abs(config.margin + float(positive[i] - distances[i, j])) for j in range(N)]
            gaps.append(sum(float(selected[i, j]) * off[j] for j in range(N)))
            false.append(sum(float(selected[i, j]) for j in range(N) if truth[i, j]))
            uniform = [float(candidates.weight[i, j]) for j in range(N)]
            random.append(sum(uniform[j] for j in range(N) if truth[i, j]) / sum(uniform))
    rng = np.random.default_rng(0)
    found = losses.negative_statistics(policies, batch, candidates, truth, config, rng)
    assert found == pytest.approx(
        {
            "picks off margin": np.mean(gaps),
            "picks that match": np.mean(false),
            "others that match": np.mean(random),
        },
        rel=1e-4,
    )
    if rule == "random":
        assert found["picks that match"] == pytest.approx(found["others that match"])


def test_negative_statistics_are_empty_without_candidates() -> None:
    networks = Networks()
    batch, candidates = evaluate(networks, torch.ones(N, N))
    assert not candidates.weight.any()
    rng = np.random.default_rng(0)
    policies = networks.g.log_policies(batch, candidates)
    truth = true_matches()
    assert losses.negative_statistics(policies, batch, candidates, truth, QUICK, rng) == {}


@pytest.mark.parametrize("estimator", ["exact", "reinforce"])
def test_negative_step_without_candidates_gives_finite_figures(estimator: Any) -> None:
    networks = Networks(replace(QUICK, estimator=estimator))
    figures = networks.generate(evaluate(networks, torch.ones(N, N)))
    assert figures == {"reward": 0.0, "policy share": 0.0}
    assert all(bool(torch.isfinite(weight).all()) for weight in weights(networks.g))
