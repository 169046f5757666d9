"""Multi-adversarial hashing, training runs: settings, kinds of labels, pixels, learning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.clusters import CLASSES, LABELS, NO_LABELS, clusters, finite
from torch.optim.optimizer import register_optimizer_step_post_hook

from xmodal.codes import BinaryCodes
from xmodal.data.synthetic import COLOURS, render_picture
from xmodal.encoders.folder import CHECKPOINT
from xmodal.errors import ConfigError, DataError
from xmodal.evaluation.code_health import code_health
from xmodal.training.methods.multiadversarial.train import Config, train
from xmodal.training.pairs import Pairs
from xmodal.training.run import Run, TrainingData

QUICK = Config(epochs=2, batch=40, hidden=24, warmup=1, components=8, critic_steps=2)
OFF = replace(QUICK, reconstruction="l2", codes="penalty")


def trained(data: TrainingData, config: Config = QUICK, seed: int = 0, **options: Any) -> Run:
    """Return a finished run."""
    run = Run(data, seed=seed, **options)
    train(data, config, run)
    return run


def codes(data: TrainingData, config: Config = QUICK, run: Run | None = None) -> BinaryCodes:
    """Train, and return the codes of both modalities of the validation pairs."""
    towers = train(data, config, run or Run(data))
    sides = [towers.codes("image", data.validation.image)]
    return BinaryCodes.concatenate([*sides, towers.codes("text", data.validation.text)])


# ---- repeatability -------------------------------------------------------------------------------


def test_codes_depend_on_the_seed() -> None:
    data = clusters(labelled=0.5)
    first = codes(data, run=Run(data, seed=1))
    torch.rand(3)  # earlier random numbers have no effect
    assert codes(data, run=Run(data, seed=1)) == first
    assert codes(data, run=Run(data, seed=2)) != first


def test_training_does_not_change_global_random_state() -> None:
    data, state = clusters(), torch.get_rng_state()
    trained(data)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("config", [QUICK, OFF], ids=["on", "off"])
def test_stopped_run_continues_with_the_same_result(config: Config, tmp_path: Path) -> None:
    data, config = clusters(labelled=0.5), replace(config, epochs=3)
    whole = codes(data, config)

    def stop(epoch: int, _count: int, _figures: Mapping[str, float]) -> None:
        if epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        codes(data, config, Run(data, folder=tmp_path, show=stop))
    assert codes(data, config, Run(data, folder=tmp_path)) == whole


STRONG = replace(QUICK, reconstruction_weight=5.0, code_critic=5.0, neighbours=20.0)
PENALISED = replace(OFF, quantise=2.0, balance=2.0, decorrelate=20.0)


@pytest.fixture(scope="module")
def both_ways() -> dict[Config, BinaryCodes]:
    """Codes of trainings in which every term has a weight."""
    data = clusters(labelled=0.5, bits=64)
    return {config: codes(data, config) for config in (STRONG, PENALISED)}


@pytest.mark.parametrize(
    "other",
    [
        {"reconstruction": "l2"},
        {"reconstruction": "none"},
        {"codes": "penalty"},
        {"warmup": 0},
        {"critic_steps": 1},
        *(
            {name: 0.0}
            for name in ("reconstruction_weight", "code_critic", "pairs", "classes", "neighbours")
        ),
        {"pseudo_labels": False},
    ],
    ids=str,
)
def test_each_setting_gives_other_codes(
    other: dict[str, Any], both_ways: dict[Config, BinaryCodes]
) -> None:
    data = clusters(labelled=0.5, bits=64)
    assert codes(data, replace(STRONG, **other)) != both_ways[STRONG]


@pytest.mark.parametrize("switched_off", ["quantise", "balance", "decorrelate"])
def test_each_penalty_changes_the_codes(
    switched_off: str, both_ways: dict[Config, BinaryCodes]
) -> None:
    data = clusters(labelled=0.5, bits=64)
    assert codes(data, replace(PENALISED, **{switched_off: 0.0})) != both_ways[PENALISED]


def test_critics_exist_only_for_their_settings(tmp_path: Path) -> None:
    data = clusters(labelled=0.5)
    for name, config, critics in (
        ("off", OFF, set()),
        ("d_h", replace(QUICK, reconstruction="l2"), {"d_h"}),
        ("d_x", replace(QUICK, codes="penalty"), {"d_x image", "d_x text"}),
    ):
        steps: list[str] = []
        hook = register_optimizer_step_post_hook(
            lambda one, *_, steps=steps: steps.append(type(one).__name__)
        )
        folder = tmp_path / name
        folder.mkdir()
        try:
            run = trained(data, config, folder=folder)
        finally:
            hook.remove()
        assert steps.count("AdamW") == 2 * 8
        assert steps.count("Adam") == 2 * 8 * config.critic_steps * len(critics)
        state = torch.load(folder / CHECKPOINT, weights_only=True)["state"]
        assert set(state) == {"auto", "optimiser"} | critics | {f"{one} steps" for one in critics}
        assert ("code critic" in run.history[1]) == ("d_h" in critics)
        assert ("input critic" in run.history[1]) == ("d_x image" in critics)


# ---- kinds of labels, batch sizes ----------------------------------------------------------------


@pytest.mark.parametrize("config", [QUICK, OFF], ids=["on", "off"])
@pytest.mark.parametrize("kind", [*LABELS, *NO_LABELS])
def test_losses_are_finite_for_all_kinds_of_labels(kind: str, config: Config) -> None:
    run = trained((LABELS | NO_LABELS)[kind](), config)
    assert len(run.history) == config.epochs
    assert finite(run)
    assert ("classes" in run.history[0]) == (kind in LABELS)


@pytest.mark.parametrize("size", [2, 3, 1000])
@pytest.mark.parametrize("n", [8, 15])
def test_losses_are_finite_for_few_pairs_without_validation(n: int, size: int) -> None:
    assert finite(trained(clusters(n, 0, labelled=0.5), replace(QUICK, batch=size)))


def test_losses_are_finite_for_identical_items() -> None:
    data = clusters(16)
    same = Pairs(torch.ones(16, 20), torch.ones(16, 14), data.train.labels, data.train.labelled)
    assert finite(trained(replace(data, train=same)))


def test_too_high_learning_rate_raises_data_error() -> None:
    with pytest.raises(DataError, match=r"is (nan|inf) in epoch \d: lower the learning rate"):
        trained(clusters(), replace(QUICK, learning_rate=1e38))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"epochs": 0}, "epochs is 0, expected at least 1"),
        ({"batch": 1}, "batch is 1, expected at least 2"),
        ({"critic_steps": 0}, "critic_steps is 0, expected at least 1"),
        ({"code_critic": -1.0}, r"code_critic is -1\S*, expected at least 0"),
        (
            {"reconstruction_weight": float("nan")},
            "reconstruction_weight is nan, expected at least 0",
        ),
        ({"certainty": 1.0}, r"certainty is 1\S*, expected at most 0.9999"),
        (
            {"pairs": 0.0, "reconstruction": "none", "code_critic": 0.0},
            "no term but the labels has a weight: set pairs, reconstruction_weight or code_critic",
        ),
    ],
)
def test_invalid_settings_raise_config_error(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        replace(QUICK, **wrong)


# ---- learning ------------------------------------------------------------------------------------

LONGER = replace(QUICK, epochs=8, batch=60, hidden=32, warmup=3)


@pytest.mark.parametrize("labelled", [1.0, 0.25])
def test_training_beats_chance(labelled: float) -> None:
    run = trained(clusters(200, 60, labelled=labelled), LONGER)
    assert max(row["mAP"] for row in run.history) > 2 / CLASSES


def test_training_without_labels_beats_chance() -> None:
    run = trained(clusters(200, 60, labelled=0), LONGER)
    chance = sum(1 / rank for rank in range(1, 61)) / 60  # with identical codes
    assert max(row["pair mAP"] for row in run.history) > 1.5 * chance


def test_code_critic_has_more_entropy_than_the_penalty_at_the_same_map() -> None:
    data = clusters(240, 80, labelled=0.5, bits=32)
    health, quality = [], []
    settings: Any = ("penalty", "critic")
    for setting in settings:
        config, run = replace(LONGER, reconstruction="l2", codes=setting, critic_steps=5), Run(data)
        health.append(code_health(codes(data, config, run)))
        quality.append(run.best)
    penalty, critic = health
    assert critic["entropy"] > penalty["entropy"]
    assert critic["distinct"] > 1.1 * penalty["distinct"]
    assert quality[1] > quality[0] - 0.03


@pytest.mark.parametrize("reconstruction", ["critic", "l2"])
def test_reconstruction_alone_beats_no_loss(reconstruction: Any) -> None:
    # The only loss is the reconstruction of both modalities.
    alone = replace(
        LONGER, reconstruction=reconstruction, pairs=0.0, neighbours=0.0, code_critic=0.0
    )
    data = clusters(200, 60, labelled=0)
    kept = trained(data, alone).best
    nothing = trained(data, replace(alone, reconstruction_weight=0.0, code_critic=1e-9)).best
    assert kept > 1.3 * nothing


# ---- pixels --------------------------------------------------------------------------------------


def pictures(n: int, seed: int) -> Pairs:
    """Rendered pictures of three colours, as pixels; text features: the colour with noise."""
    rng = np.random.default_rng(seed)
    names, kind = list(COLOURS)[:3], np.arange(n) % 3
    squares = [
        render_picture((names[k], "circle", "in the middle"), "large", rng).resize(
            (64, 64), Image.BILINEAR
        )
        for k in kind
    ]
    image = torch.from_numpy(np.stack([np.asarray(one).reshape(-1) for one in squares]))
    labels = torch.nn.functional.one_hot(torch.from_numpy(kind), 3).float()
    noise = torch.from_numpy(rng.standard_normal((n, 3)).astype(np.float32))
    return Pairs(image, labels + 0.1 * noise, labels, torch.ones(n, dtype=torch.bool))


def test_training_on_pixels_beats_chance_and_saves_sheets(tmp_path: Path) -> None:
    data = TrainingData(pictures(48, 0), pictures(24, 1), 16, raw_images=True)
    run = trained(data, replace(LONGER, epochs=10, batch=16, critic_steps=1), folder=tmp_path)
    assert max(row["mAP"] for row in run.history) > 2 / 3
    assert finite(run)
    with Image.open(tmp_path / "decoded-010.png") as sheet:
        assert sheet.size[0] > 10 * 2 * 16
