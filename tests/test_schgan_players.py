"""SCH-GAN's two players: each steps alone and towards its own aim, and picks what it may pick."""

from __future__ import annotations

from dataclasses import replace
from math import exp
from typing import Any

import numpy as np
import pytest
import torch
from clusters import CLASSES, clusters
from torch import nn

from xmodal.training.methods.schgan import networks as generator
from xmodal.training.methods.schgan import train as practical
from xmodal.training.methods.schgan.config import Config
from xmodal.training.methods.schgan.networks import Scene
from xmodal.training.objective import HashNetwork
from xmodal.training.prototypes import Codewords, class_temperature
from xmodal.training.pseudo_labels import learn

QUICK = Config(epochs=3, batch=40, hidden=24, warmup=0, negatives="policy", triplet=1.0)
N = 40


class Players:
    """Both players in front of one batch, with all chance repeated for every step."""

    def __init__(self, config: Config = QUICK) -> None:
        self.config = config
        data = clusters(N, labelled=0.5)
        self.part = data.train
        self.belief = learn(data.train, directions=8)(data.train)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            towers = data.towers(config.hidden)
            self.d = HashNetwork(towers, Codewords(CLASSES, towers.bits, 0.2))
            self.adversary = practical.Adversary(towers, CLASSES)
        self.g = self.adversary.negatives
        self.d_steps = torch.optim.AdamW(self.d.parameters(), lr=1e-3)
        self.g_steps = torch.optim.AdamW(self.adversary.parameters(), lr=1e-2)

    def discriminate(self) -> tuple[float, Scene]:
        """One step of the hash network: its loss before the step, and what both look at."""
        with torch.random.fork_rng():
            torch.manual_seed(0)
            terms, scene = practical._discriminator_step(
                self.d,
                self.adversary,
                self.d_steps,
                self.part,
                self.belief,
                self.config,
                1,
                np.random.default_rng(0),
            )
        return sum(terms.values()), scene

    def generate(self, scene: Scene) -> dict[str, float]:
        """One step of the policy, at the same temperature and reward width each time."""
        kept = {name: buffer.clone() for name, buffer in self.g.named_buffers()}
        with torch.random.fork_rng():
            torch.manual_seed(0)
            figures = generator.step(
                self.g, self.g_steps, scene, self.config, 1, np.random.default_rng(0)
            )
        self.g.load_state_dict(kept, strict=False)
        return figures


def weights(player: nn.Module) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in player.parameters()]


def same(before: list[torch.Tensor], after: list[torch.Tensor]) -> list[bool]:
    return [torch.equal(one, other) for one, other in zip(before, after, strict=True)]


# ---- one step of each ------------------------------------------------------------------------


def test_a_step_of_the_discriminator_changes_its_own_weights_alone() -> None:
    players = Players()
    d, g = weights(players.d), [tensor.clone() for tensor in players.g.state_dict().values()]
    players.discriminate()
    assert not any(same(d, weights(players.d)))  # every one of them
    assert all(same(g, list(players.g.state_dict().values())))
    assert all(parameter.grad is None for parameter in players.g.parameters())


@pytest.mark.parametrize("estimator", ["exact", "reinforce"])
def test_a_step_of_the_generator_changes_its_own_weights_alone(estimator: Any) -> None:
    players = Players(replace(QUICK, estimator=estimator))
    _, scene = players.discriminate()
    d = [tensor.clone() for tensor in players.d.state_dict().values()]
    gradients = [p.grad.clone() for p in players.d.parameters() if p.grad is not None]
    g = weights(players.g)
    players.generate(scene)
    assert not all(same(g, weights(players.g)))
    assert all(same(d, list(players.d.state_dict().values())))
    assert all(same(gradients, [p.grad for p in players.d.parameters() if p.grad is not None]))


def test_a_step_of_the_discriminator_lowers_its_loss_on_that_batch() -> None:
    players = Players()
    losses = [players.discriminate()[0] for _ in range(4)]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0] - 0.01


@pytest.mark.parametrize("estimator", ["exact", "reinforce"])
def test_steps_of_the_generator_raise_its_reward_on_that_batch(estimator: Any) -> None:
    players = Players(replace(QUICK, estimator=estimator, policy_entropy=0.0, picks=64))
    _, scene = players.discriminate()
    rewards = [players.generate(scene)["reward"] for _ in range(15)]
    if estimator == "exact":
        assert rewards == sorted(rewards)
    assert rewards[-1] > 1.03 * rewards[0]


def test_entropy_keeps_the_policy_spread() -> None:
    uses = []
    for weight in (0.0, 5.0):
        players = Players(replace(QUICK, policy_entropy=weight))
        _, scene = players.discriminate()
        uses.append([players.generate(scene)["policy uses"] for _ in range(15)][-1])
    assert uses[0] < uses[1]


def test_the_temperature_follows_the_share_that_is_wanted() -> None:
    g = Players().g
    start = float(g.get_buffer("temperature"))
    for used, direction in ((0.5, -1), (0.001, 1)):
        g.get_buffer("temperature").fill_(start)
        g.follow(used, wanted=0.05, spread=0.2)
        assert np.sign(float(g.get_buffer("temperature")) - start) == direction
    width = float(g.get_buffer("sigma"))
    for _ in range(200):
        g.follow(0.05, wanted=0.05, spread=0.3)
    assert width < 0.299 < float(g.get_buffer("sigma")) <= 0.3


@pytest.mark.parametrize("certainty", [0.6, 0.95, 0.999])
@pytest.mark.parametrize("classes", [2, 10, 75])
def test_a_code_on_a_codeword_has_the_wanted_certainty(classes: int, certainty: float) -> None:
    temperature = class_temperature(classes, certainty)
    on, off = exp(1 / temperature), exp(0 / temperature)
    assert on / (on + (classes - 1) * off) == pytest.approx(certainty)


@pytest.mark.parametrize("classes", [0, 1])
def test_without_classes_to_tell_apart_there_still_is_a_temperature(classes: int) -> None:
    assert 0 < class_temperature(classes, 0.95) < 1


def test_class_logits_are_similarities_over_the_temperature() -> None:
    d = Players().d
    with torch.no_grad():
        d.codewords.words[:2] = torch.tensor([[9.0], [-9.0]])  # tanh: codes of all 1, of all -1
        d.codewords.words[2] = torch.tensor([9.0, -9.0]).repeat(8)
        found = d.codewords(torch.ones(1, 16))[0, :3]
    assert found.tolist() == pytest.approx([1 / 0.2, -1 / 0.2, 0], abs=1e-5)


# ---- what both look at -----------------------------------------------------------------------


def a_scene(players: Players, agreement: torch.Tensor | None = None) -> Scene:
    """Codes and vectors of the batch as they are; who agrees with whom may be said."""
    players.d.eval()
    with torch.no_grad():
        scene = practical._scene(players.d, players.part, players.belief)
    if agreement is None:
        return scene
    vectors = scene.image_vectors, scene.text_vectors
    return Scene.of((scene.image, scene.text), vectors, agreement)


def test_who_surely_agrees_is_a_match_and_others_are_candidates_by_their_doubt() -> None:
    agreement = torch.tensor([[1, 0.6, 0.5], [0.6, 1, 0.1], [0.5, 0.1, 1]])
    codes = torch.zeros(3, 8)
    scene = Scene.of((codes, codes), (codes, codes), agreement)
    assert scene.match.tolist() == [[True, True, False], [True, True, False], [False, False, True]]
    assert scene.weight.flatten().tolist() == pytest.approx([0, 0, 0.5, 0, 0, 0.9, 0.5, 0.9, 0])


def test_labelled_pairs_are_matches_or_candidates_as_their_labels_say() -> None:
    scene, kind = a_scene(Players()), torch.arange(20) % CLASSES
    shared = kind[:, None] == kind[None, :]
    assert torch.equal(scene.match[:20, :20], shared)
    assert torch.equal(scene.weight[:20, :20], (~shared).float())


def test_positives_are_matches() -> None:
    scene, rows = a_scene(Players()), torch.arange(N)
    for chosen in generator.draw_positives(scene, np.random.default_rng(0)).values():
        assert bool(scene.match[rows, chosen].all())
        assert not torch.equal(chosen, rows)  # not the natural pair alone


def test_both_directions_look_at_the_same_distances() -> None:
    players = Players()
    _, scene = players.discriminate()
    ways = dict(scene.ways())
    assert set(ways) == {"image", "text"}
    assert torch.equal(ways["text"], ways["image"].T)
    assert ways["image"].requires_grad
    assert not any(distances.requires_grad for _, distances in scene.ways(detached=True))


def test_policies_are_probabilities_of_the_candidates() -> None:
    players = Players()
    scene = a_scene(players)
    found = players.g.log_policies(scene)
    assert set(found) == {"image", "text"}
    for log_p in found.values():
        assert torch.equal(log_p.isinf(), scene.weight == 0)
        assert log_p.exp().sum(1).tolist() == pytest.approx([1.0] * N, abs=1e-5)
    assert not torch.allclose(found["image"].exp(), found["text"].exp())


# ---- who is picked ---------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["image", "text"])
@pytest.mark.parametrize("negatives", ["policy", "semi-hard", "hardest", "random"])
def test_picks_are_candidates_as_the_rule_says(negatives: Any, way: str) -> None:
    config = replace(QUICK, negatives=negatives)
    players = Players(config)
    scene = a_scene(players)
    chance = torch.Generator().manual_seed(0)
    distances, positive = torch.rand(N, N, generator=chance), torch.full((N,), 0.3)
    scene.weight[0] = scene.weight[:, 0] = 0  # the first has no candidate and is none
    policy = players.g.log_policies(scene)[way] if negatives == "policy" else None
    chosen = generator.choose(policy, scene, distances, positive, config)
    assert chosen[0].tolist() == [0.0] * N
    assert chosen[1:].sum(1).tolist() == pytest.approx([1.0] * (N - 1), abs=1e-4)
    assert bool((chosen[scene.weight == 0] == 0).all())
    picked = chosen > 0
    if negatives == "semi-hard":
        gap = distances - 0.3
        assert torch.equal(picked, (gap > 0) & (gap < config.margin) & (scene.weight > 0))
    elif negatives == "hardest":
        for row in range(1, N):
            allowed = [(float(distances[row, j]), j) for j in range(N) if scene.weight[row, j] > 0]
            nearest = {j for _, j in sorted(allowed)[: generator.HARDEST]}
            assert set(picked[row].nonzero().flatten().tolist()) == nearest
    else:
        assert torch.equal(picked, scene.weight > 0)


def test_a_rule_finds_nobody_where_nobody_is_as_it_wants() -> None:
    scene, config = a_scene(Players()), replace(QUICK, negatives="semi-hard")
    far, positive = torch.full((N, N), 0.9), torch.full((N,), 0.3)
    assert not generator.choose(None, scene, far, positive, config).any()


# ---- what is watched -------------------------------------------------------------------------


def hidden_truth() -> torch.Tensor:
    kind = torch.arange(N) % CLASSES
    return kind[:, None] == kind[None, :]


@pytest.mark.parametrize("alone", [[], [0, 3]])
@pytest.mark.parametrize("negatives", ["policy", "random", "hardest"])
def test_what_is_watched_is_the_loop(negatives: Any, alone: list[int]) -> None:
    config = replace(QUICK, negatives=negatives)
    players = Players(config)
    doubt = torch.rand(N, N, generator=torch.Generator().manual_seed(1)) / 2
    agreement = torch.maximum((doubt + doubt.T) / 2, torch.eye(N))  # the natural pair alone matches
    scene, truth = a_scene(players, agreement), hidden_truth()
    for one in alone:
        scene.weight[one] = scene.weight[:, one] = 0
    policies = players.g.log_policies(scene) if negatives == "policy" else {}
    gaps, false, random = [], [], []
    for way, distances in scene.ways():
        positive, log_p = distances.diagonal(), policies.get(way)
        choice = generator.choose(log_p, scene, distances, positive, config)
        for i in range(N):
            if i in alone:
                continue
            off = [abs(config.margin + float(positive[i] - distances[i, j])) for j in range(N)]
            gaps.append(sum(float(choice[i, j]) * off[j] for j in range(N)))
            false.append(sum(float(choice[i, j]) for j in range(N) if truth[i, j]))
            drawn = [float(scene.weight[i, j]) for j in range(N)]
            random.append(sum(drawn[j] for j in range(N) if truth[i, j]) / sum(drawn))
    found = generator.watch(players.g, scene, truth, config, np.random.default_rng(0))
    assert found == pytest.approx(
        {
            "picks off margin": np.mean(gaps),
            "picks that match": np.mean(false),
            "others that match": np.mean(random),
        },
        rel=1e-4,
    )
    if negatives == "random":
        assert found["picks that match"] == pytest.approx(found["others that match"])


def test_where_nobody_is_a_candidate_nothing_is_watched() -> None:
    players, config = Players(), QUICK
    scene = a_scene(players, torch.ones(N, N))
    assert not scene.weight.any()
    rng = np.random.default_rng(0)
    assert generator.watch(players.g, scene, hidden_truth(), config, rng) == {}


@pytest.mark.parametrize("estimator", ["exact", "reinforce"])
def test_a_step_without_any_candidate_gives_finite_figures(estimator: Any) -> None:
    players = Players(replace(QUICK, estimator=estimator))
    figures = players.generate(a_scene(players, torch.ones(N, N)))
    assert figures == {"reward": 0.0, "policy uses": 0.0}
    assert all(bool(torch.isfinite(weight).all()) for weight in weights(players.g))
