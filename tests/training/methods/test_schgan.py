"""SCH-GAN, training runs: settings, kinds of labels, batch sizes, learning."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from support.clusters import CLASSES, LABELS, NO_LABELS, clusters, finite
from torch.optim.optimizer import register_optimizer_step_post_hook

from xmodal.codes import BinaryCodes
from xmodal.errors import DataError
from xmodal.training.methods.schgan import train as schgan
from xmodal.training.methods.schgan.config import Config
from xmodal.training.pairs import Pairs
from xmodal.training.run import Run, TrainingData

QUICK = Config(epochs=3, batch=40, hidden=24, warmup=0, negatives="policy")


def trained(data: TrainingData, config: Config = QUICK, seed: int = 0) -> Run:
    """Return a finished run."""
    run = Run(data, seed=seed)
    schgan.train(data, config, run)
    return run


def codes(data: TrainingData, config: Config = QUICK, seed: int = 0) -> BinaryCodes:
    """Train, and return the codes of both modalities of the validation pairs."""
    towers = schgan.train(data, config, Run(data, seed=seed))
    sides = [towers.codes("image", data.validation.image)]
    return BinaryCodes.concatenate([*sides, towers.codes("text", data.validation.text)])


# ---- repeatability -------------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", ["exact", "reinforce"])
def test_codes_depend_on_the_seed(estimator: Any) -> None:
    data, config = clusters(labelled=0.5), replace(QUICK, estimator=estimator)
    first = codes(data, config, seed=1)
    torch.rand(3)  # earlier random numbers have no effect
    assert codes(data, config, seed=1) == first
    assert codes(data, config, seed=2) != first


def test_training_does_not_change_global_random_state() -> None:
    data = clusters()
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].tolist()
    before = [tensor.clone() for tensor in vars(data.train).values()]
    trained(data)
    assert torch.equal(torch.get_rng_state(), state)
    assert np.random.get_state()[1].tolist() == numpy_state
    assert all(map(torch.equal, before, vars(data.train).values()))


def test_each_negatives_setting_gives_other_codes() -> None:
    data, config = clusters(labelled=0.5, bits=64), replace(QUICK, triplet=10.0, policy_rate=0.05)
    settings: Any = ("random", "semi-hard", "policy")
    found = {setting: codes(data, replace(config, negatives=setting)) for setting in settings}
    found["reinforce"] = codes(data, replace(config, negatives="policy", estimator="reinforce"))
    for one, other in combinations(found, 2):
        assert found[one] != found[other], f"{one} and {other} gave the same codes"


def test_adversary_has_no_effect_during_warmup() -> None:
    data = clusters(labelled=0.5)
    late = replace(QUICK, warmup=QUICK.epochs)
    by_rule = [codes(data, replace(late, negatives=setting)) for setting in ("random", "semi-hard")]
    assert by_rule[0] == by_rule[1]


STRONG = replace(
    QUICK, epochs=2, triplet=10.0, quantise=0.5, balance=0.5, decorrelate=5.0, neighbours=20.0
)


@pytest.fixture(scope="module")
def all_terms() -> BinaryCodes:
    """Codes of a training in which every term has a weight."""
    return codes(clusters(labelled=0.5, bits=64), STRONG)


@pytest.mark.parametrize(
    "switched_off",
    ["triplet", "pairs", "classes", "neighbours", "quantise", "balance", "decorrelate"],
)
def test_each_loss_term_changes_the_codes(switched_off: str, all_terms: BinaryCodes) -> None:
    data, less = clusters(labelled=0.5, bits=64), replace(STRONG, **{switched_off: 0.0})
    assert codes(data, less) != all_terms


def test_pseudo_labels_change_codes_only_with_unlabelled_pairs() -> None:
    without = replace(QUICK, pseudo_labels=False)
    some, every = clusters(labelled=0.5, bits=64), clusters(bits=64)
    assert codes(some) != codes(some, without)
    assert codes(every) == codes(every, without)


# ---- an epoch ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "batch", "steps"), [(400, 40, 10), (400, 512, 8), (120, 40, 8), (20, 40, 10), (5, 40, 3)]
)
def test_epoch_has_8_steps_if_there_are_enough_pairs(n: int, batch: int, steps: int) -> None:
    taken: list[int] = []
    hook = register_optimizer_step_post_hook(lambda one, *_: taken.append(id(one)))
    try:
        trained(clusters(n, 0), replace(QUICK, batch=batch, epochs=2, negatives="random"))
    finally:
        hook.remove()
    assert len(taken) == 2 * steps
    assert len(set(taken)) == 1  # the policy has no optimiser steps


WATCHED = {"picks off margin", "picks that match", "others that match"}


def test_negative_statistics_are_logged_for_labelled_validation_pairs() -> None:
    data = clusters(labelled=0.5)
    for row in trained(data).history:
        assert set(row) > WATCHED
        assert 0 < row["picks off margin"] < 1
        assert 0 <= row["picks that match"] <= 1
        assert 0 <= row["others that match"] < 0.5
    assert not set(trained(data, replace(QUICK, triplet=0.0)).history[0]) & WATCHED
    unlabelled = torch.zeros(len(data.validation), dtype=torch.bool)
    hidden = replace(data, validation=replace(data.validation, labelled=unlabelled))
    assert not set(trained(hidden).history[0]) & WATCHED


def test_negative_candidates_use_pseudo_labels_and_not_hidden_labels() -> None:
    # 14 of 59 other items share the class; pseudo-labels of the clusters are almost always right.
    data = clusters(labelled=0.5)
    by_chance = trained(data, replace(QUICK, pseudo_labels=False)).history
    assert [row["others that match"] for row in by_chance] == pytest.approx([14 / 59] * 3)
    assert all(row["others that match"] < 0.1 for row in trained(data).history)


# ---- kinds of labels -----------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", ["exact", "reinforce"])
@pytest.mark.parametrize("kind", [*LABELS, *NO_LABELS])
def test_losses_are_finite_for_all_kinds_of_labels(kind: str, estimator: Any) -> None:
    run = trained((LABELS | NO_LABELS)[kind](), replace(QUICK, estimator=estimator))
    assert len(run.history) == QUICK.epochs
    assert finite(run)


@pytest.mark.parametrize("negatives", ["random", "semi-hard", "policy"])
@pytest.mark.parametrize("size", [3, 7, 1000])
def test_losses_are_finite_for_any_batch_size(size: int, negatives: Any) -> None:
    config = replace(QUICK, batch=size, epochs=2, negatives=negatives)
    run = trained(clusters(15, labelled=0.5), config)
    assert finite(run)


def test_losses_are_finite_for_identical_items() -> None:
    data = clusters(16)
    same = Pairs(torch.ones(16, 20), torch.ones(16, 14), data.train.labels, data.train.labelled)
    run = trained(replace(data, train=same))
    assert finite(run)


def test_too_high_learning_rate_raises_data_error() -> None:
    with pytest.raises(DataError, match=r"is nan in epoch \d: lower the learning rate"):
        trained(clusters(), replace(QUICK, learning_rate=1e38))


# ---- learning ------------------------------------------------------------------------------------


@pytest.mark.parametrize("negatives", ["policy", "random"])
@pytest.mark.parametrize("labelled", [1.0, 0.25])
def test_training_beats_chance(negatives: Any, labelled: float) -> None:
    data = clusters(200, 60, labelled=labelled)
    config = replace(QUICK, epochs=8, batch=100, negatives=negatives, warmup=2)
    run = trained(data, config)
    chance = 1 / CLASSES
    assert max(row["mAP"] for row in run.history) > 2 * chance


def test_training_without_labels_beats_chance() -> None:
    data = clusters(200, 60, labelled=0)
    run = trained(data, replace(QUICK, epochs=8, batch=100))
    chance = sum(1 / rank for rank in range(1, 61)) / 60  # with identical codes
    assert max(row["pair mAP"] for row in run.history) > 1.5 * chance
