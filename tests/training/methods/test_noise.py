"""Wrong pairs: probabilities, what is left out, the rules, and runs that continue."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from xmodal.features.units import Bool, Units
from xmodal.features.unpaired import Unpaired
from xmodal.training.methods.contrastive.belief import (
    by_chance,
    by_gaussians,
    separation,
    wrong_share,
)
from xmodal.training.methods.contrastive.config import Config
from xmodal.training.methods.contrastive.noise import without_captions
from xmodal.training.methods.contrastive.pair_policy import learn_pairs, pair_gains
from xmodal.training.methods.contrastive.sieve import AUTO_SEPARATION, half_of_captions
from xmodal.training.methods.contrastive.train import CaptionRun, train
from xmodal.training.methods.contrastive.trainer import CaptionData

QUICK = Config(epochs=3, batch=64, hidden=16)
UNITS, CAPTIONS = 150, 3


def unit_rows(values: Any) -> Any:
    """Return rows of length 1, float16."""
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float16)


def noisy(share: float, spread: float = 0.3, captions: int = CAPTIONS) -> tuple[Units, Bool]:
    """Return units, and which of their captions are of other pictures.

    ``spread``: deviation of a caption from its picture in a common space.
    """
    rng = np.random.default_rng(0)
    hidden = rng.standard_normal((UNITS, 8))
    other = spread * rng.standard_normal((UNITS * captions, 8))
    image = hidden @ rng.standard_normal((8, 24))
    text = (np.repeat(hidden, captions, axis=0) + other) @ rng.standard_normal((8, 18))
    rows = np.arange(len(text))
    exchanged = rng.permutation(rows)[: round(share * len(rows))]
    rows[exchanged] = rng.permutation(exchanged)
    unit = np.repeat(np.arange(UNITS), captions)
    names = [f"{number:03}" for number in range(UNITS)]
    units = Units(
        names,
        unit_rows(image),
        unit_rows(text)[rows],
        np.arange(UNITS + 1),
        np.arange(0, len(text) + 1, captions),
        np.zeros((UNITS, 0), np.bool_),
        np.zeros(UNITS, np.bool_),
        rows,
        names,
        [f"{number:03}#{k}" for number in range(UNITS) for k in range(captions)],
    )
    return units, unit[rows] != unit


def trained(units: Units, config: Config, **run: Any) -> tuple[CaptionRun, str]:
    made = CaptionRun(CaptionData(units, units.take(np.arange(0)), 16), **run)
    towers = train(made.data, config, made)
    text = torch.from_numpy(units.text[:].astype(np.float32))
    return made, "".join(towers.codes("text", text).to_hex())


# ---- probabilities ---------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [0.0, 0.3, 0.7])
def test_the_share_of_wrong_pairs_is_estimated_and_the_right_ones_are_probable(
    wrong: float,
) -> None:
    rng = np.random.default_rng(0)
    right = rng.random(2000) >= wrong
    shares = np.where(right, rng.beta(1, 60, 2000), 1 - rng.random(2000))
    assert wrong_share(shares) == pytest.approx(wrong, abs=0.05)
    kept = by_chance(shares) >= 0.5
    assert kept[right].mean() > 0.85
    assert right[kept].mean() > 0.85


def test_losses_of_two_normal_distributions_are_divided() -> None:
    rng = np.random.default_rng(0)
    right = rng.random(1000) < 0.7
    losses = np.where(right, rng.normal(1, 0.4, 1000), rng.normal(6, 1.5, 1000))
    assert ((by_gaussians(losses) >= 0.5) == right).mean() > 0.97


def test_the_separation_is_large_for_a_mixture_and_small_for_shares_that_fall_slowly() -> None:
    rng = np.random.default_rng(0)
    right = rng.random(5000) < 0.6
    mixture = np.where(right, rng.beta(0.2, 8, 5000), rng.random(5000))
    assert separation(by_chance(mixture)) > AUTO_SEPARATION
    for shape in (0.15, 0.3, 0.6):
        falling = rng.beta(shape, 1, 5000)
        assert separation(by_chance(np.maximum(falling, 1e-4))) < AUTO_SEPARATION


def test_equal_losses_give_finite_probabilities() -> None:
    assert np.isfinite(by_gaussians(np.ones(20))).all()
    assert np.isfinite(by_chance(np.full(20, 0.25))).all()


# ---- what is left out ------------------------------------------------------------------------


def test_units_without_captions_are_left_out() -> None:
    units, _ = noisy(0)
    removed = np.zeros(len(units.text), np.bool_)
    removed[[0, 1, 2, 4]] = True
    left = without_captions(units, removed)
    assert list(left.ids) == list(units.ids[1:])
    assert list(left.text_ids[:3]) == ["001#0", "001#2", "002#0"]
    assert np.array_equal(left.text[:], units.text[~removed])
    assert np.array_equal(left.image[:], units.image[1:])
    assert left.text_offsets[:3].tolist() == [0, 2, 5]
    assert np.array_equal(left.text_key, units.text_key[~removed])


def test_both_halves_have_a_caption_of_most_units() -> None:
    units, _ = noisy(0)
    half = half_of_captions(units)
    assert half.mean() == pytest.approx(0.5, abs=0.01)
    for number in (0, 1):
        assert len(without_captions(units, half != number)) == UNITS


# ---- rules -----------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["linear", "auto", "small-loss", "two-networks", "policy"])
def test_a_rule_leaves_out_mostly_wrong_pairs(rule: Any) -> None:
    units, wrong = noisy(0.4)
    run, _ = trained(units, replace(QUICK, noise=rule))
    assert run.sifted is not None
    out = ~run.sifted.kept
    assert wrong[out].mean() > 1.5 * wrong.mean()
    assert out[wrong].mean() > 0.5


def test_right_pairs_gain_more_than_random_ones_where_the_rule_is_right() -> None:
    units, wrong = noisy(0.4)
    half = half_of_captions(units)
    for judged in (half == 0, half == 1):
        part = without_captions(units, judged)
        run = CaptionRun(CaptionData(part, units.take(np.arange(0)), 16))
        scout = train(run.data, replace(QUICK, noise="none"), run)
        rng = np.random.default_rng(0)
        gain = pair_gains(units, judged, ~wrong, scout, QUICK.temperature, rng).numpy()
        right = ~wrong[judged]
        assert gain[right].mean() > 0.1 > gain[~right].mean()


def test_the_policy_leaves_out_what_the_rule_leaves_out_and_pairs_that_lose() -> None:
    units, wrong = noisy(0.4)
    image, text = units.caption_pairs()
    pairs = Unpaired(units.image[image], units.text[text])
    rng = np.random.default_rng(0)
    doubtful = np.where(wrong, 0.4, 0.6)
    none = torch.zeros(len(wrong))
    kept = learn_pairs(pairs, doubtful, none, QUICK.temperature, rng) >= 0.5
    assert (kept == ~wrong).mean() > 0.9
    gain = torch.from_numpy(rng.normal(np.where(wrong, 0.0, 3.0))).float()
    kept = learn_pairs(pairs, np.full(len(wrong), 0.6), gain, QUICK.temperature, rng) >= 0.5
    assert kept[~wrong].mean() > 0.7 > 0.5 > kept[wrong].mean()


@pytest.mark.parametrize("spread", [0.3, 3.0, 30.0])
def test_auto_changes_nothing_without_wrong_pairs_however_weak_the_right_ones(
    spread: float,
) -> None:
    units, _ = noisy(0, spread, captions=2)
    run, codes = trained(units, replace(QUICK, noise="auto"))
    assert run.sifted is None
    assert codes == trained(units, replace(QUICK, noise="none"))[1]


@pytest.mark.parametrize("rule", ["auto", "linear", "small-loss", "two-networks", "policy"])
@pytest.mark.parametrize("count", [1, 2, 8])
def test_few_pairs_are_trained_by_every_rule(rule: Any, count: int) -> None:
    units, _ = noisy(0)
    trained(units.take(np.arange(count)), replace(QUICK, epochs=1, noise=rule))


def test_the_towers_are_those_of_the_kept_pairs() -> None:
    units, _ = noisy(0.4)
    run, codes = trained(units, replace(QUICK, noise="linear"))
    assert run.sifted is not None
    made = CaptionRun(CaptionData(run.sifted.units(), units.take(np.arange(0)), 16))
    towers = train(made.data, replace(QUICK, noise="none"), made)
    text = torch.from_numpy(units.text[:].astype(np.float32))
    assert codes == "".join(towers.codes("text", text).to_hex())


@pytest.mark.parametrize("last", [1, 4, 7])
def test_a_run_stopped_in_any_training_continues_with_the_same_codes(
    tmp_path: Path, last: int
) -> None:
    units, _ = noisy(0.4)
    config = replace(QUICK, noise="policy")

    class Stop(Exception):
        pass

    def stop(epoch: int, *_: Any) -> None:
        if epoch == last:
            raise Stop

    with pytest.raises(Stop):
        trained(units, config, folder=tmp_path, show=stop)
    whole, codes = trained(units, config)
    again, same = trained(units, config, folder=tmp_path)
    assert same == codes and len(whole.history) == 3 * QUICK.epochs
    assert whole.sifted is not None and again.sifted is not None
    assert np.array_equal(whole.sifted.belief, again.sifted.belief)
