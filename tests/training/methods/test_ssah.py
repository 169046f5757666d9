"""SSAH, training runs: settings, kinds of labels, batch sizes, pixels, learning."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.clusters import CLASSES, LABELS, NO_LABELS, clusters, finite, no_label_column
from support.shapes import rendered_pairs

from xmodal.codes import BinaryCodes
from xmodal.config import configure
from xmodal.errors import ConfigError
from xmodal.training.methods.ssah import train as ssah
from xmodal.training.methods.ssah.config import Config
from xmodal.training.pairs import Pairs
from xmodal.training.run import Run, TrainingData

QUICK = Config(epochs=3, batch=40, hidden=24, warmup=0)


def trained(data: TrainingData, config: Config = QUICK, **options: Any) -> Run:
    """Return a finished run."""
    run = Run(data, **options)
    ssah.train(data, config, run)
    return run


def codes(data: TrainingData, config: Config = QUICK, **options: Any) -> BinaryCodes:
    """Train, and return the codes of both modalities of the validation pairs."""
    towers = ssah.train(data, config, Run(data, **options))
    sides = [towers.codes("image", data.validation.image)]
    return BinaryCodes.concatenate([*sides, towers.codes("text", data.validation.text)])


# ---- repeatability -------------------------------------------------------------------------------


@pytest.mark.parametrize("critic", [0.0, 1.0])
def test_codes_depend_on_the_seed(critic: float) -> None:
    data, config = clusters(60, labelled=0.5), replace(QUICK, epochs=2, code_critic=critic)
    first = codes(data, config, seed=1)
    torch.rand(3)  # earlier random numbers have no effect
    assert codes(data, config, seed=1) == first
    assert codes(data, config, seed=2) != first


def test_training_does_not_change_global_random_state() -> None:
    data = clusters(40)
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].tolist()
    before = [tensor.clone() for tensor in vars(data.train).values()]
    trained(data)
    assert torch.equal(torch.get_rng_state(), state)
    assert np.random.get_state()[1].tolist() == numpy_state
    assert all(map(torch.equal, before, vars(data.train).values()))


@pytest.mark.parametrize("critic", [0.0, 1.0])
def test_stopped_run_continues_with_the_same_result(critic: float, tmp_path: Path) -> None:
    data, config = clusters(60, labelled=0.5), replace(QUICK, warmup=1, code_critic=critic)
    whole = codes(data, config)

    def stop(epoch: int, *_: object) -> None:
        if epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(data, config, folder=tmp_path, show=stop)
    assert codes(data, config, folder=tmp_path) == whole


def test_each_adversary_setting_gives_other_codes() -> None:
    data = clusters(labelled=0.5, bits=64)
    settings: Any = ("learned", "random", "none")
    found = {
        setting: codes(data, replace(QUICK, adversary=setting, hard=5.0)) for setting in settings
    }
    for one, other in combinations(found, 2):
        assert found[one] != found[other], f"{one} and {other} gave the same codes"


MADE = {"hardness", "target", "hardness error", "area", "angle"}


def test_random_adversary_has_the_same_area_and_angle() -> None:
    data, settings = clusters(labelled=0.5), ("learned", "random")
    config = replace(QUICK, warmup=1, hardness=0.4, pace=1.0)
    rows = {
        setting: trained(data, configure(Config, vars(config) | {"adversary": setting}))
        for setting in settings
    }
    for run in rows.values():
        assert not set(run.history[0]) & {*MADE, "hard", "consistency"}  # warmup
        assert set(run.history[1]) > {*MADE, "hard", "consistency", "likelihood", "pairs", "bits"}
        assert [row["target"] for row in run.history[1:]] == pytest.approx([1 + 0.8 / 3, 1.4])
    for name in ("area", "angle"):
        learned, random = ([row[name] for row in rows[setting].history[1:]] for setting in settings)
        assert learned == pytest.approx(random, abs=1e-5)
    # 6 of 20 components and 4 of 14 are hidden, half of 30 degrees is the mean.
    assert rows["learned"].history[1]["area"] == pytest.approx((6 / 20 + 4 / 14) / 2)
    assert rows["learned"].history[1]["angle"] == pytest.approx(15)
    assert not set(trained(data, replace(config, adversary="none")).history[-1]) & MADE


def test_adversary_has_no_effect_during_warmup() -> None:
    data, late = clusters(labelled=0.5), replace(QUICK, warmup=QUICK.epochs)
    settings: Any = ("learned", "random", "none")
    one, *others = (codes(data, replace(late, adversary=setting)) for setting in settings)
    assert all(other == one for other in others)


STRONG = replace(
    QUICK, epochs=2, hard=5.0, consistency=5.0, quantise=0.5, balance=0.5, decorrelate=5.0,
    neighbours=20.0, code_critic=1.0,
)  # fmt: skip


@pytest.fixture(scope="module")
def with_every_term() -> BinaryCodes:
    """Codes of a training in which every term has a weight."""
    return codes(clusters(labelled=0.5, bits=64), STRONG)


@pytest.mark.parametrize(
    "switched_off",
    "likelihood hard consistency pairs neighbours quantise balance decorrelate code_critic".split(),
)
def test_each_loss_term_changes_the_codes(switched_off: str, with_every_term: BinaryCodes) -> None:
    data, less = clusters(labelled=0.5, bits=64), replace(STRONG, **{switched_off: 0.0})
    assert codes(data, less) != with_every_term


def test_hardness_area_and_angle_change_the_codes() -> None:
    data = clusters(60, labelled=0.5, bits=64)
    config = replace(QUICK, epochs=2, hard=5.0, consistency=5.0)
    first = codes(data, config)
    for other in ({"hardness": 3.0}, {"pace": 0.0}, {"area": 0.1}, {"angle": 5.0}, {"share": 1.0}):
        assert codes(data, replace(config, adversary_rate=0.1, **other)) != first  # type: ignore[arg-type]


# ---- kinds of labels, batch sizes ----------------------------------------------------------------


@pytest.mark.parametrize("kind", [*LABELS, *NO_LABELS])
def test_losses_are_finite_for_all_kinds_of_labels(kind: str) -> None:
    run = trained((LABELS | NO_LABELS)[kind](), replace(QUICK, epochs=2))
    assert len(run.history) == 2 and finite(run)


@pytest.mark.parametrize("adversary", ["learned", "random", "none"])
@pytest.mark.parametrize(("n", "batch"), [(15, 3), (15, 7), (8, 1000), (3, 2), (1, 2)])
def test_losses_are_finite_for_any_batch_size(n: int, batch: int, adversary: Any) -> None:
    config = replace(QUICK, batch=batch, epochs=2, adversary=adversary, code_critic=0.1)
    assert finite(trained(clusters(n, 0, labelled=0.5), config))


def test_losses_are_finite_for_identical_items() -> None:
    data = clusters(16)
    same = Pairs(torch.ones(16, 20), torch.ones(16, 14), data.train.labels, data.train.labelled)
    assert finite(trained(replace(data, train=same)))


@pytest.mark.parametrize("dims", [(1, 1), (2, 3), (300, 5)])
def test_losses_are_finite_for_any_feature_width(dims: tuple[int, int]) -> None:
    def of(pairs: Pairs) -> Pairs:
        image, text = (torch.randn(len(pairs), dim) for dim in dims)
        return replace(pairs, image=image, text=text)

    data = clusters(20, 8)
    data = replace(data, train=of(data.train), validation=of(data.validation))
    assert finite(trained(data, replace(QUICK, epochs=2)))


def test_a_net_has_no_gradient_without_hiding_and_rotation() -> None:
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
def test_invalid_settings_raise_config_error(wrong: Any, words: str) -> None:
    with pytest.raises(ConfigError) as error:
        configure(Config, wrong)
    assert str(error.value) == words


# ---- learning ------------------------------------------------------------------------------------


@pytest.mark.parametrize("adversary", ["learned", "random", "none"])
@pytest.mark.parametrize("labelled", [1.0, 0.25])
def test_training_beats_chance(adversary: Any, labelled: float) -> None:
    data = clusters(200, 60, labelled=labelled)
    config = replace(QUICK, epochs=6, batch=100, adversary=adversary, warmup=2)
    assert max(row["mAP"] for row in trained(data, config).history) > 2 / CLASSES


def test_training_without_labels_beats_chance() -> None:
    data = no_label_column(clusters(200, 60))
    run = trained(data, replace(QUICK, epochs=8, batch=100))
    by_chance = sum(1 / rank for rank in range(1, 61)) / 60  # with identical codes
    assert max(row["pair mAP"] for row in run.history) > 1.5 * by_chance


# ---- pixels --------------------------------------------------------------------------------------


@pytest.mark.parametrize("adversary", ["learned", "random"])
def test_training_on_pixels_beats_chance_and_saves_sheets(adversary: Any, tmp_path: Path) -> None:
    config = replace(QUICK, epochs=5, batch=8, learning_rate=2e-3, feature_dropout=0.0, warmup=2)
    config = replace(config, adversary=adversary, share=0.5)
    run = trained(rendered_pairs(56, 20), config, folder=tmp_path)
    assert max(row["mAP"] for row in run.history) > 2 / 5
    assert [row["angle"] for row in run.history[2:]] == pytest.approx([15] * 3, abs=1e-4)
    names = sorted(path.name for path in tmp_path.glob("*.png"))
    assert names == [f"hard-00{epoch}.png" for epoch in (3, 4, 5)]
    with Image.open(tmp_path / names[-1]) as sheet:
        assert len(sheet.getcolors(1 << 24) or []) > 100


def test_losses_are_finite_for_pictures_of_one_colour() -> None:
    data = rendered_pairs(16, 0)
    grey = torch.full_like(data.train.image, 127)
    config = replace(QUICK, epochs=2, learning_rate=2e-3)
    assert finite(trained(replace(data, train=replace(data.train, image=grey)), config))
