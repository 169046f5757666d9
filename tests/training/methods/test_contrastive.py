"""The contrastive method: batches, losses, repeatability, continued runs, learning."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from xmodal.encoders.towers import Towers
from xmodal.errors import ConfigError
from xmodal.evaluation.captions import query_figures
from xmodal.features.units import Units
from xmodal.linear_models import frame
from xmodal.training.methods.contrastive.batches import Sampler
from xmodal.training.methods.contrastive.config import Config
from xmodal.training.methods.contrastive.initial import start_from_linear_models
from xmodal.training.methods.contrastive.losses import caption_contrast
from xmodal.training.methods.contrastive.train import CaptionRun, train
from xmodal.training.methods.contrastive.trainer import CaptionData, rate_factor, width_shares
from xmodal.training.run import Run

QUICK = Config(epochs=3, batch=32, hidden=16)
BITS = 32
CPU = torch.device("cpu")


def units(n: int = 160, seed: int = 0, captions: int = 3, labels: int = 0) -> Units:
    """Pictures and captions that are noisy linear images of hidden vectors."""
    rng = np.random.default_rng(seed)
    maps = np.random.default_rng(99)
    to_image, to_text = maps.standard_normal((12, 24)), maps.standard_normal((12, 18))
    hidden = rng.standard_normal((n, 12))
    count = np.arange(n) % captions + 1
    unit = np.repeat(np.arange(n), count)
    image = hidden @ to_image + 0.3 * rng.standard_normal((n, 24))
    text = hidden[unit] @ to_text + 1.5 * rng.standard_normal((len(unit), 18))
    multi_hot = np.zeros((n, labels), np.bool_)
    if labels:
        multi_hot[np.arange(n), np.arange(n) % labels] = True
    return Units(
        [f"{i:04}" for i in range(n)],
        _unit(image),
        _unit(text),
        np.arange(n + 1),
        np.concatenate([[0], np.cumsum(count)]),
        multi_hot,
        np.full(n, bool(labels)),
        np.arange(len(unit)),
        [f"{i}" for i in range(n)],
        [f"{i}" for i in range(len(unit))],
    )


def _unit(rows: Any) -> Any:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)


def data(labels: int = 0) -> CaptionData:
    return CaptionData(units(labels=labels), units(40, seed=1, labels=labels), BITS)


def trained(config: Config = QUICK, seed: int = 0, labels: int = 0, **run: Any) -> CaptionRun:
    made = CaptionRun(data(labels), seed=seed, **run)
    made.towers = train(made.data, config, made)  # type: ignore[attr-defined]
    return made


def codes(run: Any) -> list[str]:
    held_out = run.data.validation
    text = torch.from_numpy(held_out.text.astype(np.float32))
    return list(run.towers.codes("text", text).to_hex())


# ---- parts -----------------------------------------------------------------------------------


def test_contrast_equals_a_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    u, v = (torch.rand(5, 8, generator=generator) * 2 - 1 for _ in range(2))
    excluded = torch.zeros(5, 5, dtype=torch.bool)
    excluded[1, 3] = excluded[3, 1] = True
    total = 0.0
    for a, b in ((u, v), (v, u)):
        for i in range(5):
            scores = [float(a[i] @ b[j]) / (8 * 0.2) for j in range(5)]
            kept = [math.exp(x) for j, x in enumerate(scores) if not excluded[i, j]]
            total -= scores[i] - math.log(sum(kept))
    found = float(caption_contrast(u, v, 0.2, excluded))
    assert found == pytest.approx(total / 10, rel=1e-5)


def test_batches_have_captions_of_their_own_units() -> None:
    made = units()
    sampler = Sampler(made, 0.0, CPU)
    chosen = np.array([5, 11, 3])
    drawn = set()
    for seed in range(30):
        batch = sampler.batch(chosen, np.random.default_rng(seed))
        for row, unit in enumerate(chosen):
            own = made.text[made.text_offsets[unit] : made.text_offsets[unit + 1]]
            found = [k for k, one in enumerate(own) if np.allclose(one, batch.text[row].numpy())]
            assert len(found) == 1
            drawn.add((int(unit), found[0]))
        assert torch.allclose(batch.image, torch.from_numpy(made.image[chosen]).float())
    assert len(drawn) == sum(int(x) for x in np.diff(made.text_offsets)[chosen])


def test_equal_captions_of_two_units_are_no_negatives() -> None:
    made = replace(units(captions=1), text_key=np.array([0, 1, 0, *range(2, 159)]))
    batch = Sampler(made, 0.5, CPU).batch(np.array([0, 1, 2]), np.random.default_rng(0))
    expected = torch.zeros(3, 3, dtype=torch.bool)
    expected[0, 2] = expected[2, 0] = True
    assert torch.equal(batch.equal, expected)


def test_mixed_captions_are_unit_vectors_between_two_own_captions() -> None:
    made = units()
    batch = Sampler(made, 0.5, CPU).batch(np.array([2, 5]), np.random.default_rng(1))
    assert batch.text.norm(dim=1).tolist() == pytest.approx([1.0, 1.0], abs=1e-5)


def test_towers_begin_as_a_linear_model_that_finds_captions() -> None:
    made = data()
    towers = Towers(24, 18, BITS, hidden=16, kind="residual").eval()
    start_from_linear_models(towers, made.train, False, np.random.default_rng(0))
    assert recall_at_10(towers, made.validation) > 2 * 10 / len(made.validation)


def recall_at_10(towers: Towers, held_out: Units) -> float:
    image = towers.codes("image", torch.from_numpy(held_out.image.astype(np.float32)))
    text = towers.codes("text", torch.from_numpy(held_out.text.astype(np.float32)))
    return float(query_figures(held_out, "text", text, image).hits[:, 2].mean())


def test_rate_factor_rises_and_ends_near_zero() -> None:
    factors = [rate_factor(step, 100, 10) for step in range(100)]
    assert factors[0] == pytest.approx(0.1) and max(factors) == max(factors[9:12])
    assert factors[-1] < 0.01


# ---- runs ------------------------------------------------------------------------------------


@pytest.mark.parametrize("negatives", ["none", "random", "semi-hard", "policy"])
def test_equal_seeds_give_equal_codes_and_others_differ(negatives: Any) -> None:
    config = replace(QUICK, negatives=negatives, warmup=0)
    first, again, other = trained(config), trained(config), trained(config, seed=1)
    assert codes(first) == codes(again)
    assert codes(first) != codes(other)
    assert all(math.isfinite(x) for row in first.history for x in row.values())


def test_the_policy_is_trained_only_where_it_selects() -> None:
    assert "reward" in trained(replace(QUICK, negatives="policy")).history[0]
    assert "reward" not in trained(replace(QUICK, negatives="random")).history[0]


def test_a_stopped_run_continues_with_the_same_codes(tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop(epoch: int, *_: Any) -> None:
        if epoch == 2:
            raise Stop

    whole = trained(folder=None)
    with pytest.raises(Stop):
        trained(folder=tmp_path, show=stop)
    assert codes(trained(folder=tmp_path)) == codes(whole)


def test_the_last_epoch_is_used() -> None:
    assert trained().best_epoch == QUICK.epochs


def test_labels_add_their_terms() -> None:
    assert "classes" in trained(labels=4).history[0]
    assert "classes" not in trained().history[0]


def test_training_finds_captions_better_than_its_first_epoch() -> None:
    run = trained(Config(epochs=20, batch=32, hidden=32, dropout=0.1))
    held_out = run.data.validation
    chance = 10 / len(held_out)
    assert run.history[-1]["R@10"] > 2 * chance


def test_little_data_trains() -> None:
    small = CaptionData(units(9), units(2, seed=1).take(np.zeros(0, np.int64)), 16)
    run = CaptionRun(small)
    towers = train(small, QUICK, run)
    assert towers.bits == 16 and "R@1" not in run.history[-1]


@pytest.mark.parametrize(
    "wrong", [{"dropout": 1.5}, {"temperature": 0.0}, {"batch": 1}, {"caption_mix": -0.1}]
)
def test_invalid_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Config(**wrong)


def test_a_run_of_pairs_keeps_its_best_epoch() -> None:
    assert not Run(data()).is_better({"mAP": -2.0})  # type: ignore[arg-type]


# ---- frames and prefixes ---------------------------------------------------------------------


def test_a_frame_has_rotations_side_by_side() -> None:
    found = frame(6, 16, np.random.default_rng(0))
    assert found.shape == (6, 16)
    for block in (found[:, :6], found[:, 6:12]):
        assert np.allclose(block @ block.T, np.eye(6), atol=1e-5)
    assert np.allclose(np.linalg.norm(found[:, 12:], axis=0), 1, atol=1e-5)
    assert not np.allclose(found[:, :6], found[:, 6:12])


@pytest.mark.parametrize("frames", [[], [(32, 8)], [(32, 64)], [(8, 4), (8, 6), (16, 9)]])
def test_each_frame_begins_with_projections_of_mean_length_one_a_bit(
    frames: list[tuple[int, int]],
) -> None:
    made = data()
    towers = Towers(24, 18, BITS, hidden=16, kind="residual").eval()
    start_from_linear_models(towers, made.train, False, np.random.default_rng(0), frames)
    outputs = towers.outputs("image", torch.from_numpy(made.train.image.astype(np.float32)))
    begin = 0
    for bits, _ in frames or [(BITS, BITS)]:
        lengths = np.linalg.norm(outputs[:, begin : begin + bits], axis=1)
        assert lengths.mean() == pytest.approx(math.sqrt(bits), rel=0.1)
        begin += bits
    assert recall_at_10(towers, made.validation) > 2 * 10 / len(made.validation)


def test_prefixes_of_codes_are_trained_and_are_the_codes_of_shorter_towers() -> None:
    whole = trained()
    made = trained(replace(QUICK, prefixes=8))
    assert made.data.bits == BITS and Config(prefixes=8).prefix_widths(BITS) == (8, 16)
    towers, other = made.towers, whole.towers  # type: ignore[attr-defined]
    text = torch.from_numpy(made.data.validation.text.astype(np.float32))
    assert not np.array_equal(towers.outputs("text", text), other.outputs("text", text))
    shorter = towers.prefix(16).codes("text", text)
    assert shorter.bits == 16
    assert np.array_equal(shorter.packed, towers.codes("text", text).packed[:, :2])
    with pytest.raises(ConfigError, match="there are 32 bits, the first 40 were asked for"):
        towers.prefix(40)


@pytest.mark.parametrize(
    ("prefixes", "bits", "frames"),
    [(0, 64, []), (0, 128, []), (0, 256, [(256, 96)]), (64, 128, [(64, 48), (64, 68)])],
)
def test_many_bits_and_prefixes_begin_in_frames(
    prefixes: int, bits: int, frames: list[tuple[int, int]]
) -> None:
    assert Config(prefixes=prefixes).frames(bits) == frames


@pytest.mark.parametrize(("prefixes", "bits", "widths"), [(64, 256, (64, 128)), (64, 64, ())])
def test_prefixes_are_doubled_up_to_the_whole_code(
    prefixes: int, bits: int, widths: tuple[int, ...]
) -> None:
    config = Config(prefixes=prefixes)
    assert config.prefix_widths(bits) == widths and Config().prefix_widths(bits) == ()
    assert sum(size for size, _ in config.frames(bits)) == (bits if widths else 0)
    shares = width_shares((*widths, bits), 0.5)
    assert sum(shares.values()) == pytest.approx(1) and list(shares) == [*widths, bits]
    assert sorted(shares.values(), reverse=True) == list(shares.values())
    with pytest.raises(ConfigError, match="prefixes is 12, expected a multiple of 8"):
        Config(prefixes=12)
