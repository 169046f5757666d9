"""Units: groups of items with distinct pictures and all captions, whatever the order of rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from xmodal.data.dataset import Dataset
from xmodal.data.items import Item
from xmodal.data.problems import Problems
from xmodal.features.extract import Array, Usable
from xmodal.features.units import FeatureTable, Units
from xmodal.modality import Modality

ITEMS = (
    Item("x", (Path("1.png"),), ("a", "b"), labels=("red",), group="g1"),
    Item("y", (Path("1.png"),), ("c",), group="g1"),
    Item("z", (Path("2.png"), Path("3.png")), ("a", "unreadable", "d"), group="g0"),
    Item("w", (Path("4.png"),), ("unreadable",), group="g2"),
)


class NamedSource:
    """Features that are made of the names of the sources; "unreadable" is unusable."""

    raw = False

    def features(
        self, modality: Modality, items: Sequence[Item], problems: Problems
    ) -> tuple[Array, Usable]:
        names = [str(source) for item in items for source in item.sources(modality)]
        rows = [[float(ord(name[0])), float(len(name))] for name in names]
        usable = np.array([name != "unreadable" for name in names])
        for name in np.array(names)[~usable]:
            problems.add("caption", name)
        return np.array(rows, np.float16), usable


def table(items: Sequence[Item] = ITEMS) -> FeatureTable:
    return FeatureTable.of(Dataset(tuple(items)), NamedSource())


def units(items: Sequence[Item] = ITEMS) -> Units:
    made = table(items)
    return made.units(made.data, ("blue", "red"))


def test_items_without_a_usable_caption_are_dropped_and_recorded() -> None:
    made = table()
    assert made.data.ids == ["x", "y", "z"]
    assert made.data.problems.count_by_kind() == {"caption": 2}
    assert made.offsets["text"].tolist() == [0, 2, 3, 5]
    assert made.offsets["image"].tolist() == [0, 1, 2, 4]


def test_a_unit_has_the_distinct_pictures_and_all_captions_of_its_group() -> None:
    made = units()
    assert made.ids == ["g0", "g1"]
    assert made.image_offsets.tolist() == [0, 2, 3]
    assert made.text_offsets.tolist() == [0, 2, 5]
    assert made.image_ids == ["z#0", "z#1", "x"]
    assert made.text_ids == ["z#0", "z#1", "x#0", "x#1", "y"]
    assert chr(int(np.asarray(made.text)[1, 0])) == "d"
    assert made.labels.tolist() == [[False, False], [False, True]]
    assert made.labelled.tolist() == [False, True]


def test_equal_captions_have_equal_keys() -> None:
    key = units().text_key
    assert key[0] == key[2]
    assert len(set(key.tolist())) == 4


def test_units_do_not_depend_on_the_order_of_items() -> None:
    first, second = units(), units(ITEMS[::-1])
    assert first.ids == second.ids and first.text_ids == second.text_ids
    assert np.array_equal(first.text, second.text) and np.array_equal(first.image, second.image)


def test_take_keeps_the_rows_of_the_chosen_units() -> None:
    taken = units().take(np.array([1]))
    assert taken.ids == ["g1"] and taken.text_ids == ["x#0", "x#1", "y"]
    assert taken.image_offsets.tolist() == [0, 1] and taken.text_offsets.tolist() == [0, 3]
    assert len(units().take(np.zeros(0, np.int64))) == 0


def test_caption_pairs_use_the_pictures_of_a_unit_in_turn() -> None:
    image, text = units().caption_pairs()
    assert image.tolist() == [0, 1, 2, 2, 2]
    assert text.tolist() == [0, 1, 2, 3, 4]


def test_pair_rows_follow_the_items_of_a_part() -> None:
    made = table()
    part = replace(made.data, items=made.data.items[::-1])
    image, text, item = made.pair_rows(part)
    assert item.tolist() == [0, 0, 1, 2, 2]
    assert text.tolist() == [3, 4, 2, 0, 1]
    assert image.tolist() == [2, 3, 1, 0, 0]


def test_an_item_without_a_group_is_a_unit_of_its_own() -> None:
    made = units([replace(item, group=None) for item in ITEMS])
    assert made.ids == ["x", "y", "z"]
