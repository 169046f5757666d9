"""Tests of groups: equal pictures, unreadable pictures, chains of items, order of rows."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import pytest

from xmodal.data.dataset import Dataset
from xmodal.data.groups import with_groups
from xmodal.data.items import Item


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """Files a to d; a and copy have equal bytes."""
    contents = {"a": b"one", "b": b"two", "c": b"three", "d": b"four", "copy": b"one"}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    return {name: tmp_path / name for name in contents}


def groups(*items: Item) -> dict[str, str | None]:
    return {item.id: item.group for item in with_groups(Dataset(items))}


def test_group_is_the_hash_of_the_picture(files: dict[str, Path]) -> None:
    found = groups(Item("1", (files["a"],)), Item("2", (files["copy"],)), Item("3", (files["b"],)))
    assert found["1"] == found["2"] == hashlib.sha256(b"one").hexdigest()
    assert found["3"] == hashlib.sha256(b"two").hexdigest()


def test_item_without_a_readable_picture_has_the_group_of_its_id(files: dict[str, Path]) -> None:
    gone = files["a"].with_name("gone")
    found = groups(
        Item("x", (), ("same text",)),
        Item("y", (gone,), ("same text",)),
        Item("z", (gone,)),
        Item("folder", (gone.parent,)),
        Item("zero", (Path("a\0b"),)),
        Item("surrogate \ud83d"),
    )
    assert len(set(found.values())) == len(found)
    assert found["x"] == groups(Item("x"))["x"]


def test_items_are_joined_by_chains_in_any_order(files: dict[str, Path]) -> None:
    items = [
        Item("1", (files["a"], files["b"])),
        Item("2", (files["b"], files["c"])),
        Item("3", (files["c"],)),
        Item("4", (files["d"],)),
    ]
    expected = groups(*items)
    assert len({expected[id_] for id_ in "123"}) == 1 and expected["4"] != expected["1"]
    assert expected["1"] == min(hashlib.sha256(x).hexdigest() for x in (b"one", b"two", b"three"))
    for order in permutations(items):
        assert groups(*order) == expected


def test_everything_else_of_an_item_is_kept(files: dict[str, Path]) -> None:
    item = Item("1", (files["a"],), ("text",), ("label",), {"price": 3}, "train")
    data = Dataset((item,), name="data", label_column="kind")
    (grouped,) = with_groups(data)
    assert replace(grouped, group=None) == item and with_groups(data).label_column == "kind"
