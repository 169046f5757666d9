"""Splits are obeyed or drawn fairly, whatever the order; labels can be hidden."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xmodal.data.dataset import Dataset, Item, Problems
from xmodal.data.split import ROLES, split
from xmodal.errors import ConfigError, DataError

QUICK = settings(deadline=None, max_examples=40)


def pairs(n: int, *, texts: int | None = None, **fields: Any) -> Dataset:
    """``n`` pairs with ``texts`` different texts."""
    kinds = texts or n
    return Dataset(
        tuple(Item(f"i{k:04d}", Path(f"{k}.png"), f"text {k % kinds}", **fields) for k in range(n))
    )


# ---- split -----------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ROLES)
def test_named_splits_are_obeyed_in_any_spelling(role: str) -> None:
    data = pairs(40)
    for alias in ROLES[role]:
        told = tuple(
            replace(item, split=f" {alias.upper()} " if k < 20 else "train")
            for k, item in enumerate(data)
        )
        ids = split(replace(data, items=told), query=0, validation=0).ids()
        assert ids[role] == data.ids[: 40 if role == "train" else 20]


def test_parts_are_disjoint_and_complete() -> None:
    data = pairs(100)
    ids = split(data).ids()
    everything = [id_ for part in ids.values() for id_ in part]
    assert sorted(everything) == data.ids and set(ids) == set(ROLES)


def test_shares_are_shares_of_what_is_left() -> None:
    parts = split(pairs(100), query=0.2, validation=0.1)
    assert len(parts.query) == 20 and len(parts.validation) == 8  # round(0.1 * 80)
    assert len(parts.train) == 72 and len(parts.gallery) == 0


def test_a_share_of_zero_takes_none_and_a_small_one_takes_one() -> None:
    parts = split(pairs(20), query=0, validation=0.001)
    assert (len(parts.query), len(parts.validation), len(parts.train)) == (0, 1, 19)


def test_what_is_named_is_not_drawn_from_again() -> None:
    data = pairs(100)
    roles = ["test"] * 10 + ["gallery"] * 30 + [None] * 60
    told = tuple(replace(item, split=role) for item, role in zip(data, roles, strict=True))
    parts = split(replace(data, items=told), query=0.4, validation=0.1)
    assert parts.query.ids == data.ids[:10] and parts.gallery.ids == data.ids[10:40]
    assert len(parts.validation) == 6 and len(parts.train) == 54


def test_an_equal_text_moves_nobody_who_was_named() -> None:
    data = pairs(60, texts=20)
    roles = ["gallery"] * 20 + [None] * 40
    told = tuple(replace(item, split=role) for item, role in zip(data, roles, strict=True))
    assert split(replace(data, items=told), query=0.4).gallery.ids == data.ids[:20]


def test_an_unknown_split_name_means_train() -> None:
    told = tuple(replace(item, split="banana") for item in pairs(30))
    parts = split(Dataset(told), query=0, validation=0)
    assert len(parts.train) == 30


@QUICK
@given(st.integers(20, 60), st.integers(10, 20), st.integers(0, 5))
def test_items_of_equal_text_stay_together(n: int, texts: int, seed: int) -> None:
    data = pairs(n, texts=texts)
    shouted = tuple(
        replace(item, text=f"  {item.text.upper()}") if k % 2 and item.text else item
        for k, item in enumerate(data)
    )
    parts = split(replace(data, items=shouted), query=0.2, validation=0.2, seed=seed)
    place = {id_: role for role, ids in parts.ids().items() for id_ in ids}
    for first in range(texts):
        assert len({place[f"i{k:04d}"] for k in range(first, n, texts)}) == 1


@QUICK
@given(st.randoms(use_true_random=False), st.integers(0, 5))
def test_the_order_of_items_changes_nothing(random: Any, seed: int) -> None:
    data = pairs(50, texts=40)
    mixed = list(data)
    random.shuffle(mixed)
    one = split(data, seed=seed).ids()
    other = split(replace(data, items=tuple(mixed)), seed=seed).ids()
    assert {role: sorted(ids) for role, ids in other.items()} == one


def test_another_seed_is_another_split() -> None:
    assert split(pairs(100)).ids() == split(pairs(100)).ids()
    assert split(pairs(100)).query.ids != split(pairs(100), seed=1).query.ids


def test_more_items_move_none_between_query_and_train() -> None:
    """The order of hashes decides: with a larger share the old queries stay queries."""
    few = set(split(pairs(100), query=0.1, validation=0).query.ids)
    many = set(split(pairs(100), query=0.2, validation=0).query.ids)
    assert few < many


def test_too_few_pairs_say_so_and_why() -> None:
    data = pairs(5)
    data.problems.add("picture missing", "a.jpg")
    with pytest.raises(DataError, match=r"leaves 3 pairs .* at least 8; 1 x picture missing: a"):
        split(data)


@pytest.mark.parametrize("share", [-0.1, 0.5, 2.0, float("nan")])
def test_a_share_out_of_range_is_refused(share: float) -> None:
    with pytest.raises(ConfigError, match="query share is"):
        split(pairs(30), query=share)
    with pytest.raises(ConfigError, match="validation share is"):
        split(pairs(30), validation=share)


# ---- labels ----------------------------------------------------------------------------------


def test_labels_are_multi_hot_and_unlabelled_is_not_none_of_them() -> None:
    data = Dataset(
        (
            Item("a", text="a", labels=("shoe", "red")),
            Item("b", text="b", labels=None),
            Item("c", text="c", labels=("hat",)),
        )
    )
    assert data.classes == ("hat", "red", "shoe")
    hot, known = data.labels(("shoe", "red"))  # hat is not asked for
    assert hot.tolist() == [[True, True], [False, False], [False, False]]
    assert known.tolist() == [True, False, True]


@pytest.mark.parametrize(("share", "kept"), [(0, 0), (0.001, 1), (0.1, 5), (0.5, 25), (1, 50)])
def test_a_share_of_the_labels_is_kept(share: float, kept: int) -> None:
    half = tuple(
        replace(item, labels=("x",) if k % 2 else None) for k, item in enumerate(pairs(100))
    )
    data = Dataset(half)
    shown = data.with_label_share(share)
    assert sum(item.labels is not None for item in shown) == kept
    assert all(now.labels in (None, before.labels) for now, before in zip(shown, data, strict=True))
    assert [replace(item, labels=None) for item in shown] == [
        replace(item, labels=None) for item in data
    ]


def test_the_share_of_labels_depends_on_the_seed_and_not_on_the_order() -> None:
    data = pairs(60, labels=("x",))

    def labelled(of: Dataset, seed: int) -> set[str]:
        return {i.id for i in of.with_label_share(0.3, seed) if i.labels is not None}

    turned = replace(data, items=data.items[::-1])
    assert labelled(data, 1) == labelled(turned, 1) != labelled(data, 2)


@pytest.mark.parametrize("share", [2.0, -0.5, float("nan")])
def test_a_label_share_out_of_range_is_refused(share: float) -> None:
    with pytest.raises(ConfigError, match=r"label share is .* between 0 and 1"):
        pairs(3).with_label_share(share)


# ---- items and problems ----------------------------------------------------------------------


def test_pairs_have_both_sides_and_keep_the_problems() -> None:
    data = Dataset((Item("a", Path("a.png"), "a"), Item("b", Path("b.png")), Item("c", text="c")))
    data.problems.add("caption empty", "b")
    both = data.pairs()
    assert both.ids == ["a"] and both.problems is data.problems


def test_a_document_says_what_a_person_recognises_it_by() -> None:
    item = Item("a", Path("x/a.png"), "words", ("l",), {"price": 3, "text": "of a field"})
    expected = {"price": 3, "text": "words", "image": "x/a.png", "labels": ["l"]}
    assert item.document() == expected
    assert Item("b", fields={"price": 3}).document() == {"price": 3}


def test_problems_are_counted_and_the_first_are_named() -> None:
    problems = Problems()
    for name in "abcde":
        problems.add("picture missing", name)
    other = Problems()
    other.add("caption empty", Path("f.txt"))
    problems.extend(other)
    assert problems.counts() == {"picture missing": 5, "caption empty": 1}
    assert problems.lines() == [
        "5 x picture missing: a, b, c, and 2 more",
        "1 x caption empty: f.txt",
    ]
    assert len(problems) == 6 and problems.names("nothing") == []


def test_labels_of_no_items_have_a_shape() -> None:
    hot, known = Dataset(()).labels(("a", "b"))
    assert hot.shape == (0, 2) and known.shape == (0,) and hot.dtype == np.bool_
