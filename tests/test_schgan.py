"""SCH-GAN: both players step alone and towards their own aim, every switch is another program."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from clusters import CLASSES, clusters
from torch import nn

from xmodal.codes import BinaryCodes
from xmodal.errors import DataError
from xmodal.methods.schgan import Config
from xmodal.methods.schgan import practical as schgan
from xmodal.run import Run, TrainingData
from xmodal.sampling import Pairs

QUICK = Config(epochs=3, batch=40, hidden=24, warmup=0)


def trained(data: TrainingData, config: Config = QUICK, seed: int = 0) -> Run:
    """A run that is over; its best state is what counts."""
    run = Run(data, seed=seed)
    schgan.train(data, config, run)
    return run


def codes(data: TrainingData, config: Config = QUICK, seed: int = 0) -> BinaryCodes:
    """Codes of both sides of the validation pairs, after training."""
    towers = schgan.train(data, config, Run(data, seed=seed))
    sides = [towers.codes("image", data.validation.image)]
    return BinaryCodes.concatenate([*sides, towers.codes("text", data.validation.text)])


# ---- the same, and not the same --------------------------------------------------------------


@pytest.mark.parametrize("estimator", ["exact", "reinforce"])
def test_the_same_seed_gives_the_same_codes_and_another_does_not(estimator: Any) -> None:
    data, config = clusters(labelled=0.5), replace(QUICK, estimator=estimator)
    first = codes(data, config, seed=1)
    torch.rand(3)  # what was drawn before does not matter
    assert codes(data, config, seed=1) == first
    assert codes(data, config, seed=2) != first


def test_training_leaves_the_randomness_of_others_alone() -> None:
    data = clusters()
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].tolist()
    before = [tensor.clone() for tensor in vars(data.train).values()]
    trained(data)
    assert torch.equal(torch.get_rng_state(), state)
    assert np.random.get_state()[1].tolist() == numpy_state
    assert all(map(torch.equal, before, vars(data.train).values()))


def test_every_way_to_choose_negatives_is_another_program() -> None:
    data, config = clusters(labelled=0.5, bits=64), replace(QUICK, triplet=10.0, policy_rate=0.05)
    ways: Any = ("random", "semi-hard", "hardest", "policy")
    found = {way: codes(data, replace(config, negatives=way)) for way in ways}
    found["reinforce"] = codes(data, replace(config, estimator="reinforce"))
    for one, other in combinations(found, 2):
        assert found[one] != found[other], f"{one} and {other} gave the same codes"


def test_before_the_warmup_is_over_the_adversary_has_no_say() -> None:
    data = clusters(labelled=0.5)
    late = replace(QUICK, warmup=QUICK.epochs)
    by_rule = [codes(data, replace(late, negatives=way)) for way in ("random", "hardest")]
    assert by_rule[0] == by_rule[1]


@pytest.mark.parametrize(
    "switched_off",
    ["triplet", "pairs", "classes", "neighbours", "quantise", "balance", "decorrelate"],
)
def test_every_term_has_an_effect(switched_off: str) -> None:
    data = clusters(labelled=0.5, bits=64)
    strong = dict.fromkeys(("quantise", "balance", "decorrelate", "neighbours"), 0.5)
    config = replace(QUICK, triplet=10.0, **strong)
    full, less = codes(data, config), codes(data, replace(config, **{switched_off: 0.0}))
    assert full != less


# ---- labels of all sorts ---------------------------------------------------------------------


def several_labels(data: TrainingData) -> TrainingData:
    """Every third item gets a second label."""
    labels = data.train.labels.clone()
    labels[::3] = torch.maximum(labels[::3], labels[::3].roll(1, dims=1))
    return replace(data, train=replace(data.train, labels=labels))


def no_label_column(data: TrainingData) -> TrainingData:
    def without(pairs: Pairs) -> Pairs:
        return replace(pairs, labels=pairs.labels[:, :0], labelled=torch.zeros(len(pairs)).bool())

    return replace(data, train=without(data.train), validation=without(data.validation))


def one_class(data: TrainingData) -> TrainingData:
    labels = torch.zeros_like(data.train.labels)
    labels[:, 0] = 1
    return replace(data, train=replace(data.train, labels=labels))


def empty_class(data: TrainingData) -> TrainingData:
    """A fifth column of which no item is, and labelled items of no class at all."""
    labels = torch.cat([data.train.labels, torch.zeros(len(data.train), 1)], dim=1)
    labels[:5] = 0
    validation = torch.cat([data.validation.labels, torch.zeros(len(data.validation), 1)], dim=1)
    return replace(
        data,
        train=replace(data.train, labels=labels),
        validation=replace(data.validation, labels=validation),
    )


LABELS = {
    "none": lambda: clusters(labelled=0),
    "no column": lambda: no_label_column(clusters()),
    "some": lambda: clusters(labelled=0.3),
    "one item": lambda: clusters(labelled=0.001),
    "all": lambda: clusters(),
    "several": lambda: several_labels(clusters(labelled=0.5)),
    "empty class": lambda: empty_class(clusters(labelled=0.5)),
    "one class": lambda: one_class(clusters()),
}


@pytest.mark.parametrize("estimator", ["exact", "reinforce"])
@pytest.mark.parametrize("kind", LABELS)
def test_labels_of_all_sorts_give_finite_losses(kind: str, estimator: Any) -> None:
    run = trained(LABELS[kind](), replace(QUICK, estimator=estimator))
    assert len(run.history) == QUICK.epochs
    values = [value for row in run.history for value in row.values()]
    assert np.isfinite(values).all()
    assert all(bool(torch.isfinite(weight).all()) for weight in run._best_state.values())


@pytest.mark.parametrize("negatives", ["random", "semi-hard", "hardest", "policy"])
@pytest.mark.parametrize("size", [3, 7, 1000])
def test_batches_of_any_size_give_finite_losses(size: int, negatives: Any) -> None:
    config = replace(QUICK, batch=size, epochs=2, negatives=negatives)
    run = trained(clusters(15, labelled=0.5), config)
    assert np.isfinite([value for row in run.history for value in row.values()]).all()


def test_items_that_are_all_alike_give_finite_losses() -> None:
    data = clusters(16)
    same = Pairs(torch.ones(16, 20), torch.ones(16, 14), data.train.labels, data.train.labelled)
    run = trained(replace(data, train=same))
    assert np.isfinite([value for row in run.history for value in row.values()]).all()


def test_a_learning_rate_that_is_far_too_high_is_one_line() -> None:
    with pytest.raises(DataError, match=r"is nan in epoch \d: lower the learning rate"):
        trained(clusters(), replace(QUICK, learning_rate=1e38))


# ---- one step of each player -----------------------------------------------------------------


class Players:
    """Both players in front of one batch, with all chance repeated for every step."""

    def __init__(self, config: Config = QUICK) -> None:
        self.config = config
        data = clusters(40, labelled=0.5)
        self.part = data.train
        with torch.random.fork_rng():
            torch.manual_seed(0)
            towers = data.towers(config.hidden)
            self.d = schgan.Discriminator(towers, CLASSES, 1)
            self.g = schgan.Generator(towers)
        self.d_steps = torch.optim.AdamW(self.d.parameters(), lr=1e-3)
        self.g_steps = torch.optim.AdamW(self.g.parameters(), lr=1e-2)

    def discriminate(self) -> tuple[float, Any]:
        """One step of the hash network: its loss before the step, and what both look at."""
        with torch.random.fork_rng():
            torch.manual_seed(0)
            terms, seen = schgan._discriminator_step(
                self.d,
                self.g,
                self.d_steps,
                self.part,
                None,
                self.config,
                1,
                np.random.default_rng(0),
            )
        return sum(terms.values()), seen

    def generate(self, seen: Any) -> dict[str, float]:
        """One step of the policy, at the same temperature and reward width each time."""
        kept = {name: buffer.clone() for name, buffer in self.g.named_buffers()}
        with torch.random.fork_rng():
            torch.manual_seed(0)
            figures = schgan._generator_step(
                self.g, self.g_steps, seen, self.config, np.random.default_rng(0)
            )
        self.g.load_state_dict(kept, strict=False)
        return figures


def weights(player: nn.Module) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in player.parameters()]


def same(before: list[torch.Tensor], after: list[torch.Tensor]) -> list[bool]:
    return [torch.equal(one, other) for one, other in zip(before, after, strict=True)]


def test_a_step_of_the_discriminator_changes_its_own_weights_alone() -> None:
    players = Players()
    d, g = weights(players.d), list(players.g.state_dict().values())
    g = [tensor.clone() for tensor in g]
    players.discriminate()
    assert not any(same(d, weights(players.d)))  # every one of them
    assert all(same(g, list(players.g.state_dict().values())))
    assert all(parameter.grad is None for parameter in players.g.parameters())


@pytest.mark.parametrize("estimator", ["exact", "reinforce"])
def test_a_step_of_the_generator_changes_its_own_weights_alone(estimator: Any) -> None:
    players = Players(replace(QUICK, estimator=estimator))
    _, seen = players.discriminate()
    d = [tensor.clone() for tensor in players.d.state_dict().values()]
    gradients = [p.grad.clone() for p in players.d.parameters() if p.grad is not None]
    g = weights(players.g)
    players.generate(seen)
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
    _, seen = players.discriminate()
    rewards = [players.generate(seen)["reward"] for _ in range(15)]
    if estimator == "exact":
        assert rewards == sorted(rewards)
    assert rewards[-1] > 1.03 * rewards[0]


def test_entropy_keeps_the_policy_spread() -> None:
    uses = []
    for weight in (0.0, 5.0):
        players = Players(replace(QUICK, policy_entropy=weight))
        _, seen = players.discriminate()
        uses.append([players.generate(seen)["policy_uses"] for _ in range(15)][-1])
    assert uses[0] < uses[1]


def test_the_temperature_follows_the_share_that_is_wanted() -> None:
    generator = Players().g
    start = float(generator.get_buffer("temperature"))
    for used, direction in ((0.5, -1), (0.001, 1)):
        generator.get_buffer("temperature").fill_(start)
        generator.follow(used, wanted=0.05, spread=0.2)
        assert np.sign(float(generator.get_buffer("temperature")) - start) == direction
    width = float(generator.get_buffer("sigma"))
    for _ in range(200):
        generator.follow(0.05, wanted=0.05, spread=0.3)
    assert width < 0.299 < float(generator.get_buffer("sigma")) <= 0.3


# ---- who is picked ---------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["image", "text"])
@pytest.mark.parametrize("negatives", ["policy", "semi-hard", "hardest"])
def test_picks_are_candidates_as_the_rule_says(negatives: Any, way: str) -> None:
    config = replace(QUICK, negatives=negatives)
    players = Players(config)
    _, seen = players.discriminate()
    generator = torch.Generator().manual_seed(0)
    distances, positive = torch.rand(40, 40, generator=generator), torch.full((40,), 0.3)
    seen.weight[0] = 0  # nothing is allowed
    policy = schgan._log_policies(players.g, seen)[way] if negatives == "policy" else None
    chosen = schgan._choice(policy, seen, distances, positive, config)
    sums = chosen.sum(1)
    assert sums[0] == 0
    assert sums[1:].tolist() == pytest.approx([1.0] * 39, abs=1e-4)
    assert bool((chosen[seen.weight == 0] == 0).all())
    picked = chosen > 0
    if negatives == "semi-hard":
        inside = (distances > 0.3) & (distances < 0.3 + config.margin)
        assert torch.equal(picked, inside & (seen.weight > 0))
    elif negatives == "hardest":
        for row in range(1, 40):
            allowed = [(float(distances[row, j]), j) for j in range(40) if seen.weight[row, j] > 0]
            nearest = {j for _, j in sorted(allowed)[:8]}
            assert set(picked[row].nonzero().flatten().tolist()) == nearest


# ---- and it learns ---------------------------------------------------------------------------


@pytest.mark.parametrize("negatives", ["policy", "random"])
@pytest.mark.parametrize("labelled", [1.0, 0.25])
def test_training_beats_chance_clearly(negatives: Any, labelled: float) -> None:
    data = clusters(200, 60, labelled=labelled)
    config = replace(QUICK, epochs=8, batch=100, negatives=negatives, warmup=2)
    run = trained(data, config)
    chance = 1 / CLASSES
    assert max(row["mAP"] for row in run.history) > 2 * chance


def test_unlabelled_pairs_are_learned_from() -> None:
    data = clusters(200, 60, labelled=0)
    run = trained(data, replace(QUICK, epochs=8, batch=100))
    chance = sum(1 / rank for rank in range(1, 61)) / 60  # all codes alike
    assert max(row["pair mAP"] for row in run.history) > 1.5 * chance
