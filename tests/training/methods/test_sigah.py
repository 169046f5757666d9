"""SiGAH, training runs: repeatability, settings, kinds of data, learning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.clusters import CLASSES, clusters, finite
from support.shapes import rendered_pairs
from torch.nn.modules.module import register_module_forward_hook

from xmodal.codes import BinaryCodes
from xmodal.errors import ConfigError
from xmodal.training.methods.sigah import train as sigah
from xmodal.training.methods.sigah.config import Config
from xmodal.training.methods.sigah.networks import AutoencoderDiscriminator
from xmodal.training.pairs import Pairs
from xmodal.training.run import Run, TrainingData

QUICK = Config(epochs=3, batch=40, units=32, discriminator_units=8, nearest=5, directions=8)
DISCRIMINATOR = {"discriminator", "real error", "k", "convergence"}


def trained(data: TrainingData, config: Config = QUICK, seed: int = 0) -> Run:
    """Return a finished run."""
    run = Run(data, seed=seed)
    sigah.train(data, config, run)
    return run


def images_only(data: TrainingData) -> TrainingData:
    """Pairs of each image with itself: one modality."""

    def twice(pairs: Pairs) -> Pairs:
        return replace(pairs, text=pairs.image)

    return replace(data, train=twice(data.train), validation=twice(data.validation))


def train_unimodal(data: TrainingData, config: Config, run: Run) -> Any:
    """Train on the images alone."""
    run.data = images_only(data)
    return sigah.train_unimodal(run.data, config, run)


def codes(data: TrainingData, config: Config = QUICK, seed: int = 0) -> BinaryCodes:
    """Train, and return the codes of both modalities of the validation pairs."""
    towers = sigah.train(data, config, Run(data, seed=seed))
    sides = [towers.codes("image", data.validation.image)]
    return BinaryCodes.concatenate([*sides, towers.codes("text", data.validation.text)])


# ---- repeatability -------------------------------------------------------------------------------


def test_codes_depend_on_the_seed() -> None:
    data = clusters()
    first = codes(data, seed=1)
    torch.rand(3)  # earlier random numbers have no effect
    assert codes(data, seed=1) == first
    assert codes(data, seed=2) != first


def test_training_does_not_change_data_or_global_random_state() -> None:
    data = clusters()
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].tolist()
    before = [tensor.clone() for tensor in vars(data.train).values()]
    trained(data)
    assert torch.equal(torch.get_rng_state(), state)
    assert np.random.get_state()[1].tolist() == numpy_state
    assert all(map(torch.equal, before, vars(data.train).values()))


def test_without_adversary_no_discriminator_is_used() -> None:
    data, judgements = clusters(bits=64), []
    hook = register_module_forward_hook(
        lambda module, *_: (
            judgements.append(1) if isinstance(module, AutoencoderDiscriminator) else None
        )
    )
    try:
        without = trained(data, replace(QUICK, adversary=False))
        assert not judgements
        judged = trained(data)
        assert judgements
    finally:
        hook.remove()
    assert all(set(row) >= DISCRIMINATOR for row in judged.history)
    assert not any(set(row) & DISCRIMINATOR for row in without.history)
    assert set(judged.history[0]) - DISCRIMINATOR == set(without.history[0])
    assert codes(data) != codes(data, replace(QUICK, adversary=False))


STRONG = replace(QUICK, epochs=2, learning_rate=0.05, decorrelate=5.0, balance=5.0, sparsity=2.0)


@pytest.mark.parametrize(
    "other",
    [
        {"alpha": 0.0},
        {"sparsity": 0.0},
        {"neighbours": 0.0},
        {"balance": 0.0},
        {"decorrelate": 0.0},
        {"pairs": 0.0},
        {"match_share": 0.0},
        {"feature_dropout": 0.3},
        {"code_critic": 1.0},
    ],
)
def test_each_setting_changes_the_losses(other: dict[str, float]) -> None:
    data = clusters(40, 0, bits=32)
    last = [trained(data, config).history[-1] for config in (STRONG, replace(STRONG, **other))]
    assert last[0]["sensing"] != last[1]["sensing"]


def test_code_critic_is_logged_only_with_a_weight() -> None:
    data = clusters(24, 0)
    assert "critic" not in trained(data).history[0]
    assert "critic" in trained(data, replace(QUICK, code_critic=0.1)).history[0]


@pytest.mark.parametrize(
    ("settings", "train"),
    [
        ({}, sigah.train),
        ({}, train_unimodal),
        ({"adversary": False}, sigah.train),
        ({"code_critic": 0.1}, train_unimodal),
    ],
)
def test_stopped_run_continues_with_the_same_result(
    settings: dict[str, Any], train: Any, tmp_path: Path
) -> None:
    data, config = clusters(40, 20), replace(QUICK, epochs=3, balance_rate=0.05, **settings)
    whole = Run(data)
    expected = train(data, config, whole).state_dict()

    def stop(epoch: int, _count: int, _figures: Mapping[str, float]) -> None:
        if epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(data, config, Run(data, folder=tmp_path, show=stop))
    rest = Run(data, folder=tmp_path)
    found = train(data, config, rest).state_dict()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    histories = [[{k: v for k, v in row.items() if k != "seconds"} for row in run.history]
            for run in (whole, rest)]  # fmt: skip
    assert histories[0] == histories[1]
    if config.adversary:
        assert rest.history[-1]["k"] > 0  # the balance is restored


# ---- kinds of data -------------------------------------------------------------------------------


def random_pairs(n: int, *, image: int = 20, text: int = 14, validation: int = 0) -> TrainingData:
    """Random pairs without labels."""
    generator = torch.Generator().manual_seed(n)

    def pairs(count: int) -> Pairs:
        return Pairs(
            torch.randn(count, image, generator=generator),
            torch.randn(count, text, generator=generator),
            torch.zeros(count, 0),
            torch.zeros(count, dtype=torch.bool),
        )

    return TrainingData(pairs(n), pairs(validation), 16)


def constant() -> TrainingData:
    data = clusters(16)
    same = Pairs(torch.ones(16, 20), torch.ones(16, 14), data.train.labels, data.train.labelled)
    return replace(data, train=same)


def zero() -> TrainingData:
    data = constant()
    nothing = replace(data.train, image=torch.zeros(16, 20), text=torch.zeros(16, 14))
    return replace(data, train=nothing)


def tiny_numbers() -> TrainingData:
    data = clusters(40)
    return replace(data, train=replace(data.train, image=1e-4 * data.train.image))


SORTS = {
    "no label": lambda: clusters(labelled=0),
    "some labels": lambda: clusters(labelled=0.3),
    "several labels": lambda: replace(
        clusters(), train=replace(clusters().train, labels=torch.ones(120, CLASSES))
    ),
    "no label column": lambda: random_pairs(50, validation=20),
    "no validation": lambda: random_pairs(50),
    "8 pairs": lambda: random_pairs(8, validation=3),
    "2 pairs": lambda: random_pairs(2),
    "1 pair": lambda: random_pairs(1),
    "1 dimension": lambda: random_pairs(30, image=1, text=1),
    "more dimensions than pairs": lambda: random_pairs(12, image=60),
    "one left over": lambda: random_pairs(41),
    "constant": constant,
    "zero": zero,
    "tiny numbers": tiny_numbers,
}


@pytest.mark.parametrize("train", [sigah.train, train_unimodal])
@pytest.mark.parametrize("sort", SORTS)
def test_losses_are_finite_for_all_kinds_of_data(sort: str, train: Any) -> None:
    data = SORTS[sort]()
    run = Run(data)
    train(data, replace(QUICK, epochs=2), run)
    assert len(run.history) == 2
    assert finite(run)


@pytest.mark.parametrize("size", [2, 3, 7, 1000])
def test_losses_are_finite_for_any_batch_size(size: int) -> None:
    run = trained(clusters(15), replace(QUICK, batch=size, epochs=2))
    assert finite(run)


def test_labels_do_not_change_codes() -> None:
    data = clusters(60, 0)
    hidden = replace(data, train=replace(data.train, labelled=torch.zeros(60).bool()))
    texts = torch.randn(20, 14, generator=torch.Generator().manual_seed(0))
    found = [sigah.train(one, QUICK, Run(one)).codes("text", texts) for one in (data, hidden)]
    assert found[0] == found[1]


def test_training_on_pixels_uses_thumbnails_and_beats_chance() -> None:
    data = rendered_pairs(64, 30)
    run = Run(data)
    towers = sigah.train(data, replace(QUICK, epochs=5), run)
    assert max(row["mAP"] for row in run.history) > 2 / 5
    small = towers.image.vectors(data.validation.image)
    assert small.shape == (30, 3 * 16 * 16)
    relaxed = torch.tanh(towers.image.head(small)).detach().numpy()
    assert BinaryCodes.from_relaxed(relaxed) == towers.codes("image", data.validation.image)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"batch": 1}, "batch is 1, expected at least 2"),
        ({"epochs": 0}, "epochs is 0"),
        ({"gamma": 1.5}, "gamma is 1.5, expected at most 1"),
        ({"alpha": -1.0}, "alpha is -1"),
        ({"sparsity": float("nan")}, "sparsity is nan"),
        ({"learning_rate": 0.0}, "learning_rate is 0"),
        ({"feature_dropout": 2.0}, "feature_dropout is 2"),
        ({"nearest": 0}, "nearest is 0"),
        ({"code_critic": -0.1}, "code_critic is -0.1"),
    ],
)
def test_invalid_settings_raise_config_error(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as raised:
        Config(**settings)
    assert "\n" not in str(raised.value)


# ---- learning ------------------------------------------------------------------------------------


@pytest.mark.parametrize("adversary", [True, False])
def test_training_without_labels_beats_chance(adversary: bool) -> None:
    data = clusters(200, 60, labelled=0)
    history = trained(data, replace(QUICK, epochs=5, adversary=adversary)).history
    chance = sum(1 / rank for rank in range(1, 61)) / 60  # with identical codes
    assert max(row["pair mAP"] for row in history) > 1.5 * chance
    every = clusters(200, 60)  # labels are for validation only
    assert max(row["mAP"] for row in trained(every, QUICK).history) > 2 / CLASSES


def test_losses_decrease_and_the_balance_changes() -> None:
    history = trained(clusters(200, 0), replace(QUICK, epochs=8)).history
    assert history[-1]["sensing"] < 0.9 * history[0]["sensing"]
    assert history[-1]["real error"] < 0.9 * history[0]["real error"]
    assert history[-1]["neighbours"] < history[0]["neighbours"]
    assert 0 < history[-1]["k"] < 1


def test_train_unimodal_returns_one_tower_for_both_modalities() -> None:
    data = images_only(clusters(60, 30))
    towers = sigah.train_unimodal(data, QUICK, Run(data))
    assert towers.image is towers.text
    inputs = data.validation.image
    assert towers.codes("image", inputs) == towers.codes("text", inputs)
