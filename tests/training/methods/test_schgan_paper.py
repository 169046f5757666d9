"""The released SCH-GAN: settings, rewards, schedule and runs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.clusters import CLASSES, clusters
from support.released import QUICK, SMALL, networks, weights
from torch.optim.optimizer import register_optimizer_step_post_hook

from xmodal.config import Options, configure
from xmodal.encoders.calibration import Confidence
from xmodal.encoders.load import load_encoder
from xmodal.encoders.torch_encoder import BackboneRef, TrainedEncoder
from xmodal.encoders.towers import ReleasedTower, Towers
from xmodal.errors import ConfigError
from xmodal.modality import MODALITIES
from xmodal.training.methods.schgan_paper import losses as terms
from xmodal.training.methods.schgan_paper import networks as paper_networks
from xmodal.training.methods.schgan_paper import train as paper
from xmodal.training.methods.schgan_paper.config import FAULTS, Config
from xmodal.training.run import Run
from xmodal.training.train import train

# ---- settings ------------------------------------------------------------------------------------


def test_default_config_has_none_of_the_eleven_faults() -> None:
    assert len(FAULTS) == 11
    corrected, released = asdict(Config()), asdict(Config.as_released())
    named = {name: value for fault in FAULTS.values() for name, value in fault.items()}
    assert len(named) == sum(map(len, FAULTS.values()))  # no setting is in two faults
    assert {name: released[name] for name in named} == named
    assert {name for name in corrected if corrected[name] != released[name]} == set(named)


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_can_be_set_and_corrected_alone(fault: str) -> None:
    corrected = {name: getattr(Config(), name) for name in FAULTS[fault]}
    assert replace(Config.with_faults(fault), **corrected) == Config()
    assert replace(Config.as_released(**corrected), **FAULTS[fault]) == Config.as_released()
    assert configure(Config, json.loads(json.dumps(FAULTS[fault]))) == Config.with_faults(fault)


def test_invalid_settings_raise_config_error() -> None:
    with pytest.raises(ConfigError, match=r"no fault 'typo'; there are zero pair labels, soft"):
        Config.with_faults("typo")
    with pytest.raises(ConfigError, match=r"query_share is 2, expected at most 1"):
        Config(query_share=2)
    with pytest.raises(ConfigError, match=r"picks is 1, expected at least 2"):
        Config(picks=1)


# ---- rewards, by hand ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "gap", "expected"),
    [
        ("A", 0.0, 1 / 2),
        ("A", -3.0, 1 / 2),
        ("A", math.log(3), 3 / 4),
        ("B", 0.0, 1.0),
        ("B", 1.0, 1 / 10),
        ("B", -2.0, 1 / 100),
        ("C", -1.0, math.log(2)),
        ("C", math.log(3), math.log(4)),
    ],
)
def test_rewards_equal_values_by_hand(kind: Any, gap: float, expected: float) -> None:
    width = terms.reward_width(torch.zeros(1, 1), Config.as_released())
    assert float(terms.rewards(torch.tensor(gap), kind, width)) == pytest.approx(expected)


def test_reward_b_is_largest_on_the_margin_and_a_c_for_hard_items() -> None:
    gap = torch.linspace(-4, 4, 9)  # from easy to hard items
    best = {kind: int(terms.rewards(gap, kind, 1.0).argmax()) for kind in ("A", "B", "C")}
    assert best == {"A": 8, "B": 4, "C": 8}


def test_distances_equal_those_of_the_released_codes() -> None:
    z, other = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(0))
    expected = (torch.sigmoid(z) - torch.sigmoid(other)).square().sum(1)
    u, v = torch.tanh(z / 2), torch.tanh(other / 2)
    assert torch.allclose(terms.own_distances(u, v), expected, atol=1e-5)
    assert torch.allclose(terms.distances(u, v).diagonal(), expected, atol=1e-5)


# ---- schedule ------------------------------------------------------------------------------------


def test_generator_has_two_passes_for_each_of_the_discriminator() -> None:
    steps: list[int] = []
    hook = register_optimizer_step_post_hook(lambda one, *_: steps.append(id(one)))
    data = clusters(120, labelled=0.5)
    try:
        paper.train(data, replace(QUICK, generator_pretraining=False), Run(data))
    finally:
        hook.remove()
    # 60 queries: 4 triplets each in batches of 20, then 2 steps a pass; two directions of all.
    runs = [(one == steps[0], len(list(same))) for one, same in groupby(steps)]
    assert runs == [(True, 2 * 12)] + [(False, 2 * 2 * 2), (True, 2 * 2)] * 2


def test_query_batches_use_query_share_and_a_pool_of_all_pairs() -> None:
    both = networks(
        clusters(100, labelled=0.4), replace(QUICK, queries_per_step=10, query_share=0.5)
    )
    steps_of_a_pass = list(paper_networks.query_batches(both, np.random.default_rng(0)))
    assert [modality for modality, _, _ in steps_of_a_pass] == [*MODALITIES] * 2
    assert all(len(rows) == 10 and int(rows.max()) < 40 for _, rows, _ in steps_of_a_pass)
    assert all(len(set(pool.tolist())) == len(pool) == 10 for _, _, pool in steps_of_a_pass)
    assert (
        max(int(pool.max()) for _, _, pool in steps_of_a_pass) >= 40
    )  # unlabelled pairs are candidates


def test_draw_triplets_returns_labelled_matches_and_non_matches() -> None:
    both = networks(clusters(100, labelled=0.4), QUICK)
    triplets = paper.draw_triplets(both, np.random.default_rng(0))
    assert triplets.shape == (4 * 40, 3)
    assert int(triplets.max()) < 40
    query, positive, negative = (triplets % CLASSES).T
    assert torch.equal(query, positive)
    assert not bool((query == negative).any())


def test_patience_does_not_end_pretraining() -> None:
    data, config = clusters(40), replace(QUICK, pretraining=4, pretraining_rate=1e-9, epochs=3)
    run = Run(data, patience=1)
    paper.train(data, replace(config, learning_rate=1e-9), run)
    assert run.best_epoch <= 4
    assert len(run.history) == 5  # four of pretraining, one without a better score


# ---- runs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [QUICK, Config.as_released(**SMALL)])
def test_stopped_run_continues_with_the_same_result(tmp_path: Path, config: Config) -> None:
    data = clusters(84, 30, labelled=0.5)
    if config.best_epoch == "queries":
        data = paper.with_selection_queries(data, data.validation, config)
    config = replace(config, pretraining=2, redraw=2)
    expected = weights(paper.train(data, config, Run(data, seed=3)))

    for stop in (1, 2, 3):
        folder = tmp_path / str(stop)
        folder.mkdir()

        def show(epoch: int, _count: int, _figures: Mapping[str, float], last: int = stop) -> None:
            if epoch == last:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            paper.train(data, config, Run(data, 3, folder, "me", show=show))
        torch.rand(7)  # random numbers in between have no effect
        assert torch.equal(weights(paper.train(data, config, Run(data, 3, folder, "me"))), expected)
    assert not torch.equal(weights(paper.train(data, config, Run(data, seed=4))), expected)


@pytest.mark.parametrize("reward", ["A", "B", "C"])
@pytest.mark.parametrize("labelled", [1.0, 0.3, 0.0])
def test_losses_are_finite_for_every_reward_and_label_share(reward: Any, labelled: float) -> None:
    data = clusters(60, 30, labelled=labelled)
    for config in (Config(**SMALL, reward=reward), Config.as_released(**SMALL, reward=reward)):
        chosen = paper.with_selection_queries(data, data.validation, config)
        run = Run(chosen)
        paper.train(chosen, config, run)
        assert len(run.history) == 3
        assert np.isfinite([value for row in run.history for value in row.values()]).all()


@pytest.mark.parametrize("columns", [0, 1])
def test_training_runs_without_negatives(columns: int) -> None:
    data = clusters(30)
    pairs = replace(data.train, labels=torch.ones(30, columns))
    alike = replace(data, train=pairs, validation=pairs)
    run = Run(alike)
    paper.train(alike, QUICK, run)
    assert len(run.history) == 3


def test_one_query_a_step_has_the_released_learning_rate() -> None:
    data = clusters(20, 10)
    run = Run(data)
    paper.train(data, replace(QUICK, queries_per_step=1, epochs=1), run)
    assert run.history[1]["learning rate"] == pytest.approx(1e-4)


@pytest.mark.parametrize("labelled", [1.0, 0.25])
def test_training_beats_chance(labelled: float) -> None:
    data = clusters(200, 60, labelled=labelled)
    run = Run(data)
    paper.train(data, replace(QUICK, pretraining=6, epochs=4), run)
    assert max(row["mAP"] for row in run.history) > 2 / CLASSES


# ---- released towers -----------------------------------------------------------------------------


def test_released_towers_give_the_bits_of_the_release() -> None:
    torch.manual_seed(0)
    towers = Towers(12, 7, 16, hidden=300, kind="released")
    inputs = torch.randn(50, 12)
    first, _, last = towers.image.head
    h = torch.sigmoid(last(torch.tanh(first(inputs))))
    assert np.array_equal(towers.codes("image", inputs).to_bits(), (h >= 0.5).numpy())
    drawn, bias = first.weight.detach(), first.bias.detach()
    assert float(drawn.abs().max()) <= 0.2  # normal with std .1, truncated at two std: .088
    assert float(drawn.std()) == pytest.approx(0.088, abs=0.003)
    assert float(bias.abs().max()) == 0


def test_released_towers_can_be_saved_and_loaded(tmp_path: Path) -> None:
    data = clusters()
    towers = paper.train(data, QUICK, Run(data))
    refs = {modality: BackboneRef("words", "words-1") for modality in MODALITIES}
    encoder = TrainedEncoder(towers, refs, Confidence())
    encoder.save(tmp_path)
    again = load_encoder(tmp_path)
    assert isinstance(again.towers.image, ReleasedTower)
    for modality in MODALITIES:
        features = getattr(data.validation, modality)
        assert again.towers.codes(modality, features) == towers.codes(modality, features)


def test_config_without_tower_kind_is_loaded(tmp_path: Path) -> None:
    refs = {modality: BackboneRef("words", "words-1") for modality in MODALITIES}
    encoder = TrainedEncoder(Towers(20, 14, 16, hidden=8), refs, Confidence())
    encoder.save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["towers"].pop("kind") == "practical"
    config.pop("sha256", None)  # added by later versions
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert load_encoder(tmp_path).fingerprint == encoder.fingerprint


def test_pixels_raise_config_error(dataset: Any, cache: Path) -> None:
    options = Options("schgan-paper", 16, image_backbone="small-cnn", text_backbone="words")
    with pytest.raises(ConfigError, match=r"take feature vectors, not pixels: choose another"):
        train(dataset, None, options, SMALL, cache=cache)
