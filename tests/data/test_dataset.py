"""Tests of datasets: labels, label shares, pairs; order by hash."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from xmodal.data.dataset import Dataset
from xmodal.data.items import Item
from xmodal.data.names import sample_by_hash, sorted_by_hash
from xmodal.errors import ConfigError


def pairs(n: int, labels: tuple[str, ...] | None = None) -> Dataset:
    """Return ``n`` pairs with equal labels."""
    items = (Item(f"i{k:04d}", (Path(f"{k}.png"),), (f"text {k}",), labels) for k in range(n))
    return Dataset(tuple(items))


# ---- labels ----------------------------------------------------------------------------------


def test_labels_are_multi_hot_and_unlabelled_items_are_marked() -> None:
    data = Dataset(
        (
            Item("a", captions=("a",), labels=("shoe", "red")),
            Item("b", captions=("b",), labels=None),
            Item("c", captions=("c",), labels=("hat",)),
        )
    )
    assert data.classes == ("hat", "red", "shoe")
    multi_hot, labelled = data.labels(("shoe", "red"))  # the label "hat" is ignored
    assert multi_hot.tolist() == [[True, True], [False, False], [False, False]]
    assert labelled.tolist() == [True, False, True]


@pytest.mark.parametrize(("share", "expected"), [(0, 0), (0.001, 1), (0.1, 5), (0.5, 25), (1, 50)])
def test_with_label_share_hides_only_labels(share: float, expected: int) -> None:
    data = Dataset(
        tuple(replace(item, labels=("x",) if k % 2 else None) for k, item in enumerate(pairs(100)))
    )
    found = data.with_label_share(share)
    assert sum(item.labels is not None for item in found) == expected
    assert all(
        after.labels in (None, before.labels) for after, before in zip(found, data, strict=True)
    )
    assert [replace(item, labels=None) for item in found] == [
        replace(item, labels=None) for item in data
    ]


def test_with_label_share_depends_on_the_seed_and_not_on_the_order() -> None:
    data = pairs(60, labels=("x",))

    def labelled(data: Dataset, seed: int) -> set[str]:
        return {item.id for item in data.with_label_share(0.3, seed) if item.labels is not None}

    reverse = replace(data, items=data.items[::-1])
    assert labelled(data, 1) == labelled(reverse, 1) != labelled(data, 2)


@pytest.mark.parametrize("share", [2.0, -0.5, float("nan")])
def test_label_share_out_of_range_raises_config_error(share: float) -> None:
    with pytest.raises(ConfigError, match=f"label share is {share}"):
        pairs(3).with_label_share(share)


# ---- pairs and order -------------------------------------------------------------------------


def test_pairs_have_both_modalities_and_share_the_problems() -> None:
    data = Dataset(
        (Item("a", (Path("a.png"),), ("a",)), Item("b", (Path("b.png"),)), Item("c", (), ("c",)))
    )
    data.problems.add("caption empty", "b")
    found = data.pairs()
    assert found.ids == ["a"] and found.problems is data.problems


def test_labels_of_no_items_have_two_axes() -> None:
    multi_hot, labelled = Dataset(()).labels(("a", "b"))
    assert multi_hot.shape == (0, 2) and labelled.shape == (0,) and multi_hot.dtype == np.bool_


def test_sample_by_hash_depends_on_names_and_salt_and_is_nested() -> None:
    names = [str(k) for k in range(50)]
    assert sorted_by_hash(names, "a") == sorted_by_hash(names[::-1], "a")
    assert sorted_by_hash(names, "a") != sorted_by_hash(names, "b")
    small, large = (sample_by_hash(names, share, "a") for share in (0.1, 0.5))
    assert (len(small), len(large)) == (5, 25) and set(small) < set(large)
    assert sample_by_hash([], 0.5, "a") == []
