"""Pictures and captions without a pair: items, selection of pairs, rounds of training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from xmodal.data.dataset import Dataset
from xmodal.data.items import Item
from xmodal.data.unpaired import unpaired_items, with_texts
from xmodal.encoders.towers import Towers
from xmodal.errors import ConfigError, DataError
from xmodal.features.units import Units
from xmodal.features.unpaired import Unpaired
from xmodal.training.methods.contrastive.config import Config
from xmodal.training.methods.contrastive.generator import by_picture, gains, learn
from xmodal.training.methods.contrastive.initial import start_from_linear_models
from xmodal.training.methods.contrastive.losses import caption_contrast, taught_contrast
from xmodal.training.methods.contrastive.selection import Embedded, Pool, choose, mutual, transport
from xmodal.training.methods.contrastive.train import CaptionRun, stages, train, with_choice
from xmodal.training.methods.contrastive.trainer import CaptionData
from xmodal.training.methods.contrastive.unpaired import Choice, UnpairedConfig

QUICK = Config(epochs=2, batch=32, hidden=16, unpaired_rounds=2)


def rows(n: int, dim: int, seed: int = 0) -> Any:
    """Return ``n`` random rows of length 1, float16."""
    return unit(np.random.default_rng(seed).standard_normal((n, dim)))


def unit(made: Any) -> Any:
    """Return rows of length 1, float16."""
    return (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float16)


def units(n: int) -> Units:
    """Return ``n`` units with one picture and two captions each."""
    names = [str(i) for i in range(n)]
    return Units(
        names,
        rows(n, 24),
        rows(2 * n, 18, seed=1),
        np.arange(n + 1),
        np.arange(0, 2 * n + 1, 2),
        np.zeros((n, 0), np.bool_),
        np.zeros(n, np.bool_),
        np.arange(2 * n),
        names,
        [f"{i}" for i in range(2 * n)],
    )


def data() -> CaptionData:
    unpaired = Unpaired(rows(50, 24, seed=2), rows(70, 18, seed=3))
    return CaptionData(units(40), units(0), 16, unpaired=unpaired)


def trained(config: Config = QUICK, **run: Any) -> tuple[CaptionRun, str]:
    made = CaptionRun(data(), **run)
    towers = train(made.data, config, made)
    text = torch.from_numpy(made.data.train.text.astype(np.float32))
    return made, "".join(towers.codes("text", text).to_hex())


# ---- items -----------------------------------------------------------------------------------


def test_items_with_one_side_are_unpaired_but_not_those_of_pairs_or_other_parts() -> None:
    photo, other = Path("photo.jpg"), Path("other.jpg")
    made = Dataset(
        (
            Item("pair", images=(photo,), captions=("a dog",)),
            Item("same picture", images=(photo,)),
            Item("same bytes", images=(Path("copy.jpg"),)),
            Item("same text", captions=("a dog",)),
            Item("held out", images=(Path("test.jpg"),), split="test"),
            Item("picture", images=(other,), split="train"),
            Item("texts", captions=("a cat", "a cow")),
            Item("repeated", captions=("a cat",)),
        )
    )
    hashes = {photo: "1", Path("copy.jpg"): "1", other: "2", Path("test.jpg"): "3"}
    found = unpaired_items(made, hashes)
    assert [item.images for item in found.pictures] == [(other,)]
    assert [item.captions for item in found.texts] == [("a cat",), ("a cow",)]
    few = unpaired_items(made, hashes, limit=1)
    assert len(few.pictures) <= 1 and len(few.texts) <= 1


def test_each_line_of_a_file_is_a_text(tmp_path: Path) -> None:
    file = tmp_path / "texts.txt"
    file.write_text("a  red\tsquare\n\n  a blue circle\n")
    made = with_texts(Dataset(()), file)
    assert [item.captions for item in made] == [("a red square",), ("a blue circle",)]
    file.write_text("\n")
    with pytest.raises(DataError, match="has no text"):
        with_texts(made, file)


# ---- selection -------------------------------------------------------------------------------


def test_mutual_neighbours_equal_a_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    image, text = (torch.randn(n, 6, generator=generator) for n in (9, 12))
    similar = (image @ text.T).numpy()
    expected = [
        (i, j)
        for i in range(9)
        for j in range(12)
        if j in np.argsort(-similar[i])[:3] and i in np.argsort(-similar[:, j])[:3]
    ]
    found = mutual(Embedded(image, text), 3)
    assert sorted(zip(found.image.tolist(), found.text.tolist(), strict=True)) == expected


@pytest.mark.parametrize("rule", ["mutual", "nearest", "random", "soft", "transport"])
def test_a_rule_names_existing_rows_in_order_of_the_pictures(rule: Any) -> None:
    embedded = Embedded(torch.randn(9, 6), torch.randn(4, 6))
    config = UnpairedConfig(unpaired=rule)
    found = choose(embedded, config, np.random.default_rng(0))
    assert len(found) and set(found.text) <= set(range(4))
    assert np.all(np.diff(found.image) >= 0) and found.image.max() < 9


def test_transport_gives_pictures_and_captions_equal_masses() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.arange(4).repeat(8, 1)
    plan = transport(torch.randn(8, 4, generator=generator), rows, 4).softmax(dim=1)
    assert plan.sum(0).tolist() == pytest.approx([2.0] * 4, abs=0.02)


def test_captions_are_drawn_by_their_probabilities() -> None:
    pool = Pool(torch.tensor([[7, 3]] * 200), torch.zeros(200, 2))
    drawn = pool.draw(torch.tensor([[0.25, 0.75]] * 200), np.random.default_rng(0))
    assert np.all(np.diff(drawn.image) >= 0)
    assert (drawn.text == 3).mean() == pytest.approx(0.75, abs=0.05)


def test_the_policy_learns_which_candidates_are_rewarded() -> None:
    made = data().unpaired
    assert made is not None
    pool = Pool(torch.arange(10).repeat(50, 1), torch.zeros(50, 10))
    reward = torch.full((50, 10), -1.0)
    reward[:, 4] = 3.0
    torch.manual_seed(0)
    found = learn(made, pool, reward, 0.05, np.random.default_rng(0))
    assert float(found[:, 4].mean()) > 1.5 / 10


def test_the_reward_is_larger_for_true_pairs() -> None:
    rng = np.random.default_rng(0)
    hidden = rng.standard_normal((60, 6))
    image, text = (hidden @ rng.standard_normal((6, n)) for n in (24, 18))
    scale = [
        (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float16) for x in (image, text)
    ]
    held_out = replace(
        units(30), image=scale[0][:30], text=scale[1][:30], text_offsets=np.arange(31)
    )
    towers = Towers(24, 18, 16, hidden=16, kind="residual").eval()
    start_from_linear_models(towers, held_out, False, rng)
    unpaired = Unpaired(image[30:], text[30:])
    pool = Pool(torch.arange(30).repeat(30, 1), torch.zeros(30, 30))
    reward = by_picture(gains(towers, held_out, unpaired, pool, 0.05))
    assert float(reward.diagonal().mean()) > 0.5


def test_chosen_pairs_follow_the_given_ones_with_their_weight() -> None:
    made = data()
    assert made.unpaired is not None
    joined = with_choice(made, made.unpaired, Choice(np.array([3, 3, 8]), np.array([5, 1, 5])), 0.3)
    assert joined.weights is not None
    assert joined.weights.tolist() == pytest.approx([1.0] * 40 + [0.3] * 2)
    chosen = joined.train.take(np.array([40, 41]))
    assert np.array_equal(chosen.image[:], made.unpaired.image[[3, 8]])
    assert np.array_equal(chosen.text[:], made.unpaired.text[[5, 1, 5]])
    assert chosen.text_offsets.tolist() == [0, 2, 3]
    assert chosen.text_key[0] == chosen.text_key[2] != chosen.text_key[1]


# ---- rounds ----------------------------------------------------------------------------------


def test_unpaired_data_adds_rounds_and_changes_the_codes() -> None:
    run, codes = trained()
    assert len(run.history) == 3 * QUICK.epochs and len(run.choices) == 2
    assert trained()[1] == codes
    without, others = trained(replace(QUICK, unpaired="none"))
    assert len(without.history) == QUICK.epochs and not without.choices
    assert others != codes


def test_the_loss_of_a_teacher_that_knows_the_pairs_is_the_contrast() -> None:
    u, v = torch.rand(4, 8) * 2 - 1, torch.rand(4, 8) * 2 - 1
    weight, none = torch.tensor([1.0, 1.0, 0.5, 0.5]), torch.zeros(4, 4, dtype=torch.bool)
    taught = taught_contrast(u, v, 0.1, 100 * torch.eye(4), weight < 1, weight)
    assert float(taught) == pytest.approx(
        float(caption_contrast(u, v, 0.1, none, weight)), rel=1e-4
    )


@pytest.mark.parametrize(
    ("rule", "last"),
    [*(("mutual", last) for last in (1, 2, 3, 5)), ("policy", 5), ("distilled", 7)],
)
def test_a_run_stopped_in_any_round_continues_with_the_same_codes(
    tmp_path: Path, rule: Any, last: int
) -> None:
    config = replace(QUICK, unpaired=rule, unpaired_students=2)

    class Stop(Exception):
        pass

    def stop(epoch: int, *_: Any) -> None:
        if epoch == last:
            raise Stop

    with pytest.raises(Stop):
        trained(config, folder=tmp_path, show=stop)
    whole, codes = trained(config)
    assert trained(config, folder=tmp_path)[1] == codes
    assert len(whole.history) == QUICK.epochs * len(stages(config, unpaired=True))


@pytest.mark.parametrize(
    "wrong", [{"unpaired_weight": 1.5}, {"unpaired_rounds": 0}, {"unpaired_neighbours": 0}]
)
def test_invalid_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Config(**wrong)
