"""Self-paced SSAH as a whole: every switch is another program, labels and sizes of all sorts."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from clusters import CLASSES, LABELS, NO_LABELS, clusters, finite, no_label_column
from PIL import Image
from shapes import world

from xmodal.codes import BinaryCodes
from xmodal.config import configure
from xmodal.errors import ConfigError
from xmodal.training.methods.ssah import train as ssah
from xmodal.training.methods.ssah.config import Config
from xmodal.training.pairs import Pairs
from xmodal.training.run import Run, TrainingData

QUICK = Config(epochs=3, batch=40, hidden=24, warmup=0)


def trained(data: TrainingData, config: Config = QUICK, **options: Any) -> Run:
    """A run that is over; its best state is what counts."""
    run = Run(data, **options)
    ssah.train(data, config, run)
    return run


def codes(data: TrainingData, config: Config = QUICK, **options: Any) -> BinaryCodes:
    """Codes of both sides of the validation pairs, after training."""
    towers = ssah.train(data, config, Run(data, **options))
    sides = [towers.codes("image", data.validation.image)]
    return BinaryCodes.concatenate([*sides, towers.codes("text", data.validation.text)])


# ---- the same, and not the same --------------------------------------------------------------


@pytest.mark.parametrize("critic", [0.0, 1.0])
def test_the_same_seed_gives_the_same_codes_and_another_does_not(critic: float) -> None:
    data, config = clusters(60, labelled=0.5), replace(QUICK, epochs=2, code_critic=critic)
    first = codes(data, config, seed=1)
    torch.rand(3)  # what was drawn before does not matter
    assert codes(data, config, seed=1) == first
    assert codes(data, config, seed=2) != first


def test_training_leaves_the_randomness_of_others_alone() -> None:
    data = clusters(40)
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].tolist()
    before = [tensor.clone() for tensor in vars(data.train).values()]
    trained(data)
    assert torch.equal(torch.get_rng_state(), state)
    assert np.random.get_state()[1].tolist() == numpy_state
    assert all(map(torch.equal, before, vars(data.train).values()))


@pytest.mark.parametrize("critic", [0.0, 1.0])
def test_a_stopped_run_goes_on_and_ends_in_the_same_codes(critic: float, tmp_path: Path) -> None:
    data, config = clusters(60, labelled=0.5), replace(QUICK, warmup=1, code_critic=critic)
    whole = codes(data, config)

    def stop(epoch: int, *_: object) -> None:
        if epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(data, config, folder=tmp_path, show=stop)
    assert codes(data, config, folder=tmp_path) == whole


def test_every_adversary_is_another_program() -> None:
    data = clusters(labelled=0.5, bits=64)
    ways: Any = ("learned", "random", "none")
    found = {way: codes(data, replace(QUICK, adversary=way, hard=5.0)) for way in ways}
    for one, other in combinations(found, 2):
        assert found[one] != found[other], f"{one} and {other} gave the same codes"


MADE = {"hardness", "target", "missed", "area", "angle"}


def test_the_adversary_is_logged_and_random_has_the_same_budget() -> None:
    data, ways = clusters(labelled=0.5), ("learned", "random")
    config = replace(QUICK, warmup=1, hardness=0.4, pace=1.0)
    rows = {
        way: trained(data, configure(Config, vars(config) | {"adversary": way})) for way in ways
    }
    for run in rows.values():
        assert not set(run.history[0]) & {*MADE, "hard", "consistency"}  # still warming up
        assert set(run.history[1]) > {*MADE, "hard", "consistency", "likelihood", "pairs", "bits"}
        assert [row["target"] for row in run.history[1:]] == pytest.approx([1 + 0.8 / 3, 1.4])
    for name in ("area", "angle"):
        learned, random = ([row[name] for row in rows[way].history[1:]] for way in ways)
        assert learned == pytest.approx(random, abs=1e-5)
    # 6 of 20 components and 4 of 14 are hidden, half of 30 degrees is the mean.
    assert rows["learned"].history[1]["area"] == pytest.approx((6 / 20 + 4 / 14) / 2)
    assert rows["learned"].history[1]["angle"] == pytest.approx(15)
    assert not set(trained(data, replace(config, adversary="none")).history[-1]) & MADE


def test_before_the_warmup_is_over_the_adversary_has_no_say() -> None:
    data, late = clusters(labelled=0.5), replace(QUICK, warmup=QUICK.epochs)
    ways: Any = ("learned", "random", "none")
    one, *others = (codes(data, replace(late, adversary=way)) for way in ways)
    assert all(other == one for other in others)


STRONG = replace(
    QUICK, epochs=2, hard=5.0, consistency=5.0, quantise=0.5, balance=0.5, decorrelate=5.0,
    neighbours=20.0, code_critic=1.0,
)  # fmt: skip


@pytest.fixture(scope="module")
def with_every_term() -> BinaryCodes:
    """Codes of a training in which every term weighs something."""
    return codes(clusters(labelled=0.5, bits=64), STRONG)


@pytest.mark.parametrize(
    "switched_off",
    "likelihood hard consistency pairs neighbours quantise balance decorrelate code_critic".split(),
)
def test_every_term_has_an_effect(switched_off: str, with_every_term: BinaryCodes) -> None:
    data, less = clusters(labelled=0.5, bits=64), replace(STRONG, **{switched_off: 0.0})
    assert codes(data, less) != with_every_term


def test_a_net_has_an_effect_by_its_aim_and_its_means() -> None:
    data = clusters(60, labelled=0.5, bits=64)
    config = replace(QUICK, epochs=2, hard=5.0, consistency=5.0)
    first = codes(data, config)
    for other in ({"hardness": 3.0}, {"pace": 0.0}, {"area": 0.1}, {"angle": 5.0}, {"share": 1.0}):
        assert codes(data, replace(config, adversary_rate=0.1, **other)) != first  # type: ignore[arg-type]


# ---- labels and sizes of all sorts -----------------------------------------------------------


@pytest.mark.parametrize("kind", [*LABELS, *NO_LABELS])
def test_labels_of_all_sorts_give_finite_losses(kind: str) -> None:
    run = trained((LABELS | NO_LABELS)[kind](), replace(QUICK, epochs=2))
    assert len(run.history) == 2 and finite(run)


@pytest.mark.parametrize("adversary", ["learned", "random", "none"])
@pytest.mark.parametrize(("n", "batch"), [(15, 3), (15, 7), (8, 1000), (3, 2), (1, 2)])
def test_batches_of_any_size_give_finite_losses(n: int, batch: int, adversary: Any) -> None:
    config = replace(QUICK, batch=batch, epochs=2, adversary=adversary, code_critic=0.1)
    assert finite(trained(clusters(n, 0, labelled=0.5), config))


def test_items_that_are_all_alike_give_finite_losses() -> None:
    data = clusters(16)
    same = Pairs(torch.ones(16, 20), torch.ones(16, 14), data.train.labels, data.train.labelled)
    assert finite(trained(replace(data, train=same)))


@pytest.mark.parametrize("dims", [(1, 1), (2, 3), (300, 5)])
def test_features_of_any_width_give_finite_losses(dims: tuple[int, int]) -> None:
    def of(pairs: Pairs) -> Pairs:
        image, text = (torch.randn(len(pairs), dim) for dim in dims)
        return replace(pairs, image=image, text=text)

    data = clusters(20, 8)
    data = replace(data, train=of(data.train), validation=of(data.validation))
    assert finite(trained(data, replace(QUICK, epochs=2)))


def test_nothing_hidden_and_nothing_turned_teaches_a_net_nothing() -> None:
    run = trained(clusters(20), replace(QUICK, area=0.0, angle=0.0, epochs=2))
    assert [row["area"] for row in run.history] == [0, 0]
    assert [row["hardness"] for row in run.history] == pytest.approx([1, 1], abs=1e-4)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"area": 0.34}, "area is 0.34, expected at most 0.333333"),
        ({"area": -0.1}, "area is -0.1, expected at least 0"),
        ({"angle": 31}, "angle is 31.0, expected at most 30"),
        ({"hardness": -1.0}, "hardness is -1.0, expected at least 0"),
        ({"share": 0.0}, "share is 0.0, expected at least 0.01"),
        ({"pace": 2.0}, "pace is 2.0, expected at most 1"),
        ({"adversary": "hard"}, "adversary is 'hard', expected one of learned, random, none"),
        ({"ema_decay": float("nan")}, "ema_decay is nan, expected at least 0"),
        ({"code_critic": -1.0}, "code_critic is -1.0, expected at least 0"),
    ],
)
def test_wrong_settings_are_refused_in_one_line(wrong: Any, words: str) -> None:
    with pytest.raises(ConfigError) as error:
        configure(Config, wrong)
    assert str(error.value) == words


# ---- and it learns ---------------------------------------------------------------------------


@pytest.mark.parametrize("adversary", ["learned", "random", "none"])
@pytest.mark.parametrize("labelled", [1.0, 0.25])
def test_training_beats_chance_clearly(adversary: Any, labelled: float) -> None:
    data = clusters(200, 60, labelled=labelled)
    config = replace(QUICK, epochs=6, batch=100, adversary=adversary, warmup=2)
    assert max(row["mAP"] for row in trained(data, config).history) > 2 / CLASSES


def test_natural_pairs_alone_are_learned_from() -> None:
    data = no_label_column(clusters(200, 60))
    run = trained(data, replace(QUICK, epochs=8, batch=100))
    by_chance = sum(1 / rank for rank in range(1, 61)) / 60  # all codes alike
    assert max(row["pair mAP"] for row in run.history) > 1.5 * by_chance


# ---- pixels ----------------------------------------------------------------------------------


@pytest.mark.parametrize("adversary", ["learned", "random"])
def test_pixels_are_learned_and_hard_pictures_are_shown(adversary: Any, tmp_path: Path) -> None:
    config = replace(QUICK, epochs=5, batch=8, learning_rate=2e-3, feature_dropout=0.0, warmup=2)
    config = replace(config, adversary=adversary, share=0.5)
    run = trained(world(56, 20), config, folder=tmp_path)
    assert max(row["mAP"] for row in run.history) > 2 / 5
    assert [row["angle"] for row in run.history[2:]] == pytest.approx([15] * 3, abs=1e-4)
    names = sorted(path.name for path in tmp_path.glob("*.png"))
    assert names == [f"hard-00{epoch}.png" for epoch in (3, 4, 5)]
    with Image.open(tmp_path / names[-1]) as sheet:
        assert len(sheet.getcolors(1 << 24) or []) > 100


def test_pictures_of_one_colour_give_finite_losses() -> None:
    data = world(16, 0)
    grey = torch.full_like(data.train.image, 127)
    config = replace(QUICK, epochs=2, learning_rate=2e-3)
    assert finite(trained(replace(data, train=replace(data.train, image=grey)), config))
