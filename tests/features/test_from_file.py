"""Matching of items with a file of features, and lookup of their features."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from xmodal.data.dataset import Dataset
from xmodal.data.feature_file import FeatureFile
from xmodal.data.groups import with_groups
from xmodal.data.items import FeatureName, Item
from xmodal.data.problems import Problems
from xmodal.errors import DataError
from xmodal.features.from_file import with_features

RNG = np.random.default_rng(0)
PLACES = {"a": 0, "b": 1, "c": 2}


def file(ids: list[str] | None = None, captions: int = 2) -> FeatureFile:
    rows = {"image": RNG.standard_normal((3, 5)), "text": RNG.standard_normal((3 * captions, 4))}
    offsets = {"image": np.arange(4), "text": np.arange(4) * captions}
    return FeatureFile("f.npz", 3, rows, offsets, ids)  # type: ignore[arg-type]


@pytest.mark.parametrize("ids", [["a", "b", "c"], ["in/a.jpg", "in/b.jpg", "in/c.jpg"], None])
def test_items_are_matched_by_id_picture_or_order(ids: list[str] | None) -> None:
    items = tuple(
        Item(name, (Path(f"in/{name}.jpg"),), (f"{name} one", f"{name} two")) for name in PLACES
    )
    stored = file(ids)
    data, source = with_features(Dataset(items), stored)
    assert [replace(item, group=None) for item in data] == list(items)
    for name, place in PLACES.items():
        item = items[place]
        rows, usable = source.features("text", [item], Problems())
        expected = stored.rows["text"][2 * place : 2 * place + 2]
        expected = expected / np.linalg.norm(expected, axis=1, keepdims=True)
        assert usable.all() and rows.dtype == np.float16
        np.testing.assert_allclose(rows, expected, atol=1e-3)
        assert source.row_of["image"][Path(f"in/{name}.jpg")] == place


@pytest.mark.parametrize("stored_ids", [["a.jpg", "b.jpg", "c.jpg"], ["a", "b", "c"]])
def test_rows_with_ids_of_their_own_share_the_captions_of_a_picture(stored_ids: list[str]) -> None:
    items = tuple(
        Item(f"{number}", (Path(f"in/{name}.jpg"),), (f"{name} {caption}",))
        for number, (name, caption) in enumerate((n, c) for c in range(2) for n in PLACES)
    )
    data, source = with_features(Dataset(items), file(stored_ids))
    assert source.row_of["text"]["b 0"] == 2 and source.row_of["text"]["b 1"] == 3
    groups = [item.group for item in with_groups(data)]  # the pictures do not exist
    assert len(set(groups)) == 3 and groups[:3] == groups[3:]


def test_items_without_sources_have_names_that_are_not_stored() -> None:
    data, source = with_features(file(["a", "b", "c"]).dataset(), file(["a", "b", "c"]))
    item = data.items[1]
    assert item.images == ("b",) and item.captions == ("b#0", "b#1")
    assert all(isinstance(one, FeatureName) for one in (*item.images, *item.captions))
    assert item.document() == {} and data.pairs().ids == data.ids
    assert source.fingerprint("image") == "features-image-5"


def test_other_numbers_and_unknown_items_are_said_in_one_line() -> None:
    items = (Item("a", (Path("a.jpg"),), ("one",)),)
    with pytest.raises(DataError, match=r"'a' of data has 1 captions, f\.npz has 2 features"):
        with_features(Dataset(items), file(["a", "b", "c"]))
    with pytest.raises(DataError, match="3 items and no ids, data has 1 items"):
        with_features(Dataset(items), file())
    with pytest.raises(DataError, match=r"none of 1 items .* 'x'"):
        with_features(Dataset((Item("x"),)), file(["a", "b", "c"]))
    data, _ = with_features(Dataset((Item("x"), Item("a"))), file(["a", "b", "c"]))
    assert data.ids == ["a"]
    assert data.problems.names("item without features in f.npz") == ["x"]


def test_unusable_features_are_counted_and_left_out() -> None:
    stored = file(["a", "b", "c"])
    stored.rows["text"][1], stored.rows["text"][2] = np.nan, 0
    data, source = with_features(stored.dataset(), stored)
    problems = Problems()
    rows, usable = source.features("text", data.items, problems)
    assert usable.tolist() == [True, False, False, True, True, True] and not rows[1:3].any()
    assert problems.count_by_kind() == {"feature of a caption is zero, NaN or infinite": 2}
    with pytest.raises(DataError, match="a#1"):
        source.rows("text", ["a#1"], None)
