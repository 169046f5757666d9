"""DSH-GANs, training runs: settings, kinds of labels, batch sizes, pixels, learning."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.clusters import CLASSES, LABELS, NO_LABELS, clusters, finite
from support.shapes import rendered_pairs

from xmodal.codes import BinaryCodes
from xmodal.errors import ConfigError, DataError
from xmodal.training.methods.dshgan import train as dshgan
from xmodal.training.methods.dshgan.config import Config
from xmodal.training.objective import HashNetwork
from xmodal.training.pairs import Pairs
from xmodal.training.prototypes import ClassPrototypes
from xmodal.training.run import Run, TrainingData

QUICK = Config(epochs=2, batch=40, hidden=24, latent=16, warmup=0, pretraining=2)
OFF = replace(QUICK, synthetic=False)
BY_TEXT = replace(QUICK, condition="text")


def trained(data: TrainingData, config: Config = QUICK, seed: int = 0) -> Run:
    """Return a finished run."""
    run = Run(data, seed=seed)
    dshgan.train(data, config, run)
    return run


def codes(
    data: TrainingData, config: Config = QUICK, seed: int = 0, run: Run | None = None
) -> BinaryCodes:
    """Train, and return the codes of both modalities of the validation pairs."""
    towers = dshgan.train(data, config, run or Run(data, seed=seed))
    sides = [towers.codes("image", data.validation.image)]
    return BinaryCodes.concatenate([*sides, towers.codes("text", data.validation.text)])


# ---- repeatability -------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [QUICK, OFF, BY_TEXT], ids=["label", "off", "text"])
def test_codes_depend_on_the_seed(config: Config) -> None:
    data = clusters(labelled=0.5)
    first = codes(data, config, seed=1)
    torch.rand(3)  # earlier random numbers have no effect
    assert codes(data, config, seed=1) == first
    assert codes(data, config, seed=2) != first


class StopRun(Exception):
    """Raised to stop a run."""


@pytest.mark.parametrize("config", [QUICK, replace(QUICK, code_critic=0.1)], ids=["", "critic"])
def test_stopped_run_continues_with_the_same_result(config: Config, tmp_path: Path) -> None:
    data = clusters(labelled=0.5)

    def stop(epoch: int, *_: object) -> None:
        if epoch == 1:
            raise StopRun

    with pytest.raises(StopRun):
        dshgan.train(data, config, Run(data, folder=tmp_path, show=stop))
    assert codes(data, config, run=Run(data, folder=tmp_path)) == codes(data, config)


def test_training_does_not_change_global_random_state() -> None:
    data = clusters()
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].tolist()
    before = [tensor.clone() for tensor in vars(data.train).values()]
    trained(data)
    assert torch.equal(torch.get_rng_state(), state)
    assert np.random.get_state()[1].tolist() == numpy_state
    assert all(map(torch.equal, before, vars(data.train).values()))


# ---- settings ------------------------------------------------------------------------------------

FIGURES = {"adversary", "adversary accuracy", "fooling", "generator triplets", "generator classes"}


def test_without_synthetic_no_generator_is_built(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = clusters(labelled=0.5, bits=64)
    on = trained(data)
    assert set(on.history[-1]) > FIGURES | {"synthetic triplets", "synthetic accuracy"}
    with_synthetic = codes(data)
    monkeypatch.delattr(dshgan, "Gan")  # building one would fail
    assert codes(data, OFF) != with_synthetic
    assert not set(trained(data, OFF).history[-1]) & (FIGURES | {"synthetic triplets"})


def test_hash_network_starts_the_same_with_and_without_synthetic() -> None:
    data, alone = clusters(labelled=0.5), replace(QUICK, synthetic_share=0.0, epochs=1)
    on, off = trained(data, alone), trained(data, replace(alone, synthetic=False))
    # With features the adversary has no effect on the towers: only dropout differs.
    for term in ("classes", "pairs", "real triplets"):
        assert on.history[0][term] == pytest.approx(off.history[0][term], rel=0.1)


def test_synthetic_triplets_start_after_warmup() -> None:
    data = clusters(labelled=0.5)
    rows = trained(data, replace(QUICK, warmup=2, epochs=3)).history
    assert [("synthetic triplets" in row) for row in rows] == [False, False, True]
    assert all(row["real triplets"] > 0 for row in rows)


STRONG = replace(QUICK, triplet=10.0, margin=0.5)


@pytest.fixture(scope="module")
def with_strong_triplets() -> BinaryCodes:
    """Codes of a training with a large triplet weight."""
    return codes(clusters(labelled=0.5, bits=64), STRONG)


@pytest.mark.parametrize(
    "changed",
    [
        {"synthetic_share": 1.0},
        {"synthetic_classes": 2.0},
        {"condition": "text"},
        {"pretraining": 0},
        {"synthetic_queries": 1.0},
        {"penalty": 0.0},
        {"reconstruction_weight": 0.0},
        {"noise": 3},
        {"code_critic": 0.5},
        {"pseudo_labels": False},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_each_setting_changes_the_codes(
    changed: dict[str, Any], with_strong_triplets: BinaryCodes
) -> None:
    data = clusters(labelled=0.5, bits=64)
    assert codes(data, replace(STRONG, **changed)) != with_strong_triplets


def test_code_critic_is_logged() -> None:
    assert "code critic" in trained(clusters(), replace(OFF, code_critic=0.1)).history[0]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"margin": 1.5}, "margin is 1.5, expected at most 1"),
        ({"synthetic_queries": 0.0}, "synthetic_queries is 0.0, expected at least"),
        ({"synthetic_share": -0.1}, "synthetic_share is -0.1, expected at least 0"),
        ({"noise": 0}, "noise is 0, expected at least 1"),
        ({"code_critic": float("nan")}, "code_critic is nan"),
    ],
)
def test_invalid_settings_raise_config_error(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        Config(**wrong)
    assert "\n" not in str(caught.value)


# ---- kinds of labels -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "pseudo_labels"), [*((kind, True) for kind in LABELS), ("several", False)]
)
def test_losses_are_finite_for_all_kinds_of_labels(kind: str, pseudo_labels: bool) -> None:
    run = trained(LABELS[kind](), replace(QUICK, pseudo_labels=pseudo_labels))
    assert len(run.history) == QUICK.epochs
    assert finite(run)


@pytest.mark.parametrize("kind", NO_LABELS)
def test_condition_text_trains_without_labels_and_condition_label_raises(kind: str) -> None:
    data = NO_LABELS[kind]()
    with pytest.raises(ConfigError, match=r"needs labels and no .* \(--set condition=text\)$"):
        trained(data)
    assert finite(trained(data, OFF))
    run = trained(data, replace(BY_TEXT, synthetic_classes=1.0))
    assert finite(run)
    named = {"generator classes", "synthetic accuracy", "classes", "synthetic classes"}
    assert not set(run.history[0]) & named


def test_condition_text_trains_with_labels() -> None:
    assert finite(trained(LABELS["several"](), BY_TEXT))


# ---- batch sizes ---------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [QUICK, BY_TEXT], ids=["label", "text"])
@pytest.mark.parametrize("n", [8, 15])
def test_losses_are_finite_for_few_pairs(n: int, config: Config) -> None:
    assert finite(trained(clusters(n, 0, labelled=0.5), replace(config, batch=2)))


def test_losses_are_finite_for_a_batch_of_one_pair() -> None:
    assert finite(trained(clusters(3, 0), replace(QUICK, batch=2)))
    assert finite(trained(clusters(1, 0), replace(QUICK, batch=2)))


def test_losses_are_finite_for_identical_items() -> None:
    data = clusters(16)
    same = Pairs(torch.ones(16, 20), torch.ones(16, 14), data.train.labels, data.train.labelled)
    assert finite(trained(replace(data, train=same)))


def test_too_high_learning_rate_raises_data_error() -> None:
    with pytest.raises(DataError, match=r"is nan in epoch \d: lower the learning rate"):
        trained(clusters(), replace(QUICK, learning_rate=1e38))


# ---- learning ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "labelled"),
    [(QUICK, 1.0), (QUICK, 0.25), (BY_TEXT, 0.25), (OFF, 0.25)],
    ids=["all labels", "label", "text", "off"],
)
def test_training_beats_chance(config: Config, labelled: float) -> None:
    run = trained(clusters(200, 60, labelled=labelled), replace(config, epochs=6, warmup=2))
    assert max(row["mAP"] for row in run.history) > 2.5 / CLASSES


def test_training_without_labels_beats_chance() -> None:
    run = trained(clusters(200, 60, labelled=0), replace(BY_TEXT, epochs=6))
    chance = sum(1 / rank for rank in range(1, 61)) / 60  # with identical codes
    assert max(row["pair mAP"] for row in run.history) > 1.5 * chance


def test_synthetic_pairs_have_their_class_and_vary(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    plain = dshgan.Gan.__init__

    def kept(self: Any, *given: Any) -> None:
        plain(self, *given)
        made.append(self)

    monkeypatch.setattr(dshgan.Gan, "__init__", kept)
    data = clusters(200, 120, labelled=0.25)
    run = trained(data, replace(QUICK, epochs=4, latent=128, pretraining=250))
    assert run.history[-1]["synthetic accuracy"] > 0.8
    assert 0.5 < run.history[-1]["adversary accuracy"] < 0.98
    condition = torch.eye(CLASSES).repeat_interleave(50, dim=0)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        synthetic = made[0].g.sample(condition)
    real = data.validation
    kind, known = condition.argmax(1), real.labels.argmax(1)
    for features, truth in zip(synthetic, (real.image, real.text), strict=True):
        centres = torch.stack([features[kind == c].mean(0) for c in range(CLASSES)])
        predicted = torch.cdist(truth, centres).argmin(1)
        assert (
            float((predicted == known).float().mean()) > 0.8
        )  # synthetic centres classify real items
        spread = [
            torch.stack([rows[of == c].std(0) for c in range(CLASSES)]).mean()
            for rows, of in ((features, kind), (truth, known))
        ]
        assert 0.3 < float(spread[0] / spread[1]) < 1.5  # .1 without reconstruction


# ---- pixels --------------------------------------------------------------------------------------


PIXELS = replace(QUICK, epochs=5, batch=8, learning_rate=2e-3, feature_dropout=0.0, warmup=1)


def test_training_on_pixels_beats_chance_and_saves_sheets(tmp_path: Path) -> None:
    data = rendered_pairs(64, 30)
    run = Run(data, folder=tmp_path)
    dshgan.train(data, PIXELS, run)
    assert max(row["mAP"] for row in run.history) > 2 / 5
    assert {"adversary", "synthetic triplets", "fooling"} < set(run.history[-1])
    assert [path.name for path in tmp_path.glob("*.png")] == ["synthetic-005.png"]
    with Image.open(tmp_path / "synthetic-005.png") as sheet:
        assert sheet.height > 5 * 128  # a row a class
        assert len(sheet.getcolors(1 << 24) or []) > 100


def test_frozen_batch_norm_keeps_running_statistics() -> None:
    data = rendered_pairs(8, 0)
    d = HashNetwork(data.towers(16), ClassPrototypes(5, 16, 0.2))
    before = [one.clone() for one in d.buffers()]
    with dshgan._frozen_batch_norm(d):
        d(data.train.image.float(), data.train.text)
    changed = [not torch.equal(*two) for two in zip(before, d.buffers(), strict=True)]
    assert sum(changed) == 5  # batch counters only
    d(data.train.image, data.train.text)
    changed = [not torch.equal(*two) for two in zip(before, d.buffers(), strict=True)]
    assert sum(changed) == 15  # mean, variance and count of five layers


def test_adversary_weight_changes_codes_of_pixels() -> None:
    data = rendered_pairs(16, 10)
    alone = replace(PIXELS, epochs=1, synthetic_share=0.0)
    assert codes(data, replace(alone, adversary=0.0)) != codes(data, replace(alone, adversary=5.0))
