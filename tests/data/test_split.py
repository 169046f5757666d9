"""Tests of split: names, random shares, groups, few captions, seeds, errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xmodal.data.dataset import Dataset
from xmodal.data.items import Item
from xmodal.data.split import ROLE_NAMES, ROLES, Role, check_split_map, role_of, split
from xmodal.errors import ConfigError, DataError

QUICK = settings(deadline=None, max_examples=40)


def pairs(n: int, *, texts: int | None = None) -> Dataset:
    """Return ``n`` pairs with ``texts`` different texts (default ``n``)."""
    return Dataset(
        tuple(
            Item(f"i{k:04d}", (Path(f"{k}.png"),), (f"text {k % (texts or n)}",)) for k in range(n)
        )
    )


def with_splits(data: Dataset, names: Sequence[str | None]) -> Dataset:
    """Return ``data`` with the given split name of each item."""
    items = (replace(item, split=name) for item, name in zip(data, names, strict=True))
    return replace(data, items=tuple(items))


@pytest.mark.parametrize("role", ROLES)
def test_split_names_are_matched_without_case_and_spaces(role: Role) -> None:
    data = pairs(40)
    for alias in ROLE_NAMES[role]:
        named = with_splits(data, [f" {alias.upper()} "] * 20 + ["train"] * 20)
        ids = split(named, query=0, validation=0).ids()
        assert ids[role] == data.ids[: 40 if role == "train" else 20]


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("Train2014", "train"),
        ("train-00001", "train"),
        ("TrainVal", "train"),
        ("VAL_unseen", "validation"),
        ("dev-clean", "validation"),
        ("devA", "validation"),
        ("test.B", "query"),
        ("testB", "query"),
        ("test-dev2015", "query"),
        ("Hold-Out", "query"),
        ("held_out_2", "query"),
        ("eval 1", "query"),
        ("Gallery", "gallery"),
        ("contest", None),
        ("trainer", None),
        ("2017", None),
        ("", None),
    ],
)
def test_split_names_are_understood_with_suffixes(name: str, role: Role | None) -> None:
    assert role_of(name) == role


def test_split_map_decides_and_is_checked() -> None:
    data = pairs(40)
    named = with_splits(data, ["Teil 1"] * 12 + ["dev"] * 8 + [None] * 20)
    parts = split(named, query=0.2, validation=0, split_map={"teil 1": "train", "DEV": "test"})
    assert parts.query.ids == data.ids[12:20] and len(parts.train) == 32
    check_split_map(named, {"teil 1": "query"})
    with pytest.raises(ConfigError, match=r"there is no part 'blue', expected one of train"):
        check_split_map(named, {"dev": "blue"})
    with pytest.raises(ConfigError, match=r"has the splits Teil 1, dev"):
        check_split_map(named, {"val": "query"})


def test_unknown_split_name_is_refused_with_all_names() -> None:
    named = with_splits(pairs(30), ["banana"] * 10 + ["val2017"] * 5 + ["train"] * 15)
    with pytest.raises(ConfigError) as refused:
        split(named)
    message = str(refused.value)
    assert "'banana' (10 items: not understood)" in message and "\n" not in message
    assert "'val2017' (5 items: validation)" in message and "--split-map banana=PART" in message


def test_column_without_training_pairs_says_why() -> None:
    named = with_splits(pairs(30), ["val2017"] * 10 + ["Test"] * 20)
    with pytest.raises(DataError) as refused:
        split(named)
    message = str(refused.value)
    assert "0 pairs" in message and "'val2017' is validation" in message and "\n" not in message
    assert "10 validation, 20 query" in message


def test_split_parts_are_disjoint_and_complete() -> None:
    data = pairs(100)
    ids = split(data).ids()
    assert sorted(id_ for part in ids.values() for id_ in part) == data.ids and set(ids) == set(
        ROLES
    )


def test_split_takes_about_its_shares() -> None:
    parts = split(pairs(2000), query=0.2, validation=0.1)
    assert len(parts.query) == pytest.approx(400, abs=80)
    assert len(parts.validation) == pytest.approx(200, abs=60)
    assert len(parts.gallery) == 0
    for seed in range(50):
        parts = split(pairs(60), seed=seed)
        assert len(parts.query) >= 3 and len(parts.validation) >= 3


def test_split_share_of_zero_takes_none_and_a_small_share_one() -> None:
    parts = split(pairs(20), query=0, validation=0.001)
    assert (len(parts.query), len(parts.validation), len(parts.train)) == (0, 1, 19)
    assert len(split(pairs(20), query=0.001, validation=0.001).train) == 18


def test_split_samples_only_from_training_and_unnamed_items() -> None:
    data = pairs(100)
    named = with_splits(data, ["test"] * 10 + ["gallery"] * 30 + ["train"] * 30 + [None] * 30)
    parts = split(named, query=0.4, validation=0.2)
    assert parts.query.ids == data.ids[:10] and parts.gallery.ids == data.ids[10:40]
    assert {*parts.validation.ids, *parts.train.ids} == set(data.ids[40:])
    assert len(parts.validation) > 0


def test_split_is_stable_under_added_data() -> None:
    few, many = split(pairs(300)).ids(), split(pairs(500)).ids()
    for role in ROLES:
        assert set(few[role]) <= set(many[role])


@QUICK
@given(st.integers(20, 60), st.integers(2, 5), st.integers(0, 5))
def test_groups_are_never_separated(n: int, size: int, seed: int) -> None:
    items = [replace(item, group=f"g{k // size}") for k, item in enumerate(pairs(n))]
    names = ["val", "test", "train", None, None, None]
    items = [replace(item, split=names[k * seed % 6]) for k, item in enumerate(items)]
    for data in (pairs(n), Dataset(tuple(items))):
        grouped = [replace(item, group=f"g{k // size}") for k, item in enumerate(data)]
        try:
            parts = split(replace(data, items=tuple(grouped)), query=0.2, validation=0.2, seed=seed)
        except DataError:
            continue
        part_of: dict[str | None, set[str]] = {}
        for role in ROLES:
            for item in getattr(parts, role):
                part_of.setdefault(item.group, set()).add(role)
        assert all(len(roles) == 1 for roles in part_of.values())
        assert sum(len(ids) for ids in parts.ids().values()) == n


def test_group_of_several_named_parts_is_held_out_and_recorded() -> None:
    data = pairs(30)
    names = ["train", "test", "val", "train", None] + ["train"] * 25
    items = [replace(item, group="same" if k < 5 else item.id) for k, item in enumerate(data)]
    named = with_splits(replace(data, items=tuple(items)), names)
    parts = split(named, query=0, validation=0)
    assert parts.query.ids == data.ids[:5] and len(parts.train) == 25
    [(kind, count)] = data.problems.count_by_kind().items()
    assert "several splits" in kind and "query" in kind and count == 4


def test_small_data_keeps_the_pairs_that_training_needs() -> None:
    for seed in range(30):
        parts = split(pairs(10), query=0.4, validation=0.4, seed=seed)
        assert len(parts.train) >= 8 and len(parts.query) == len(parts.validation) == 1


def test_every_one_of_few_captions_is_in_training() -> None:
    for seed in range(20):
        parts = split(pairs(60, texts=5), query=0.45, validation=0.45, seed=seed)
        assert len({item.captions for item in parts.train}) == 5
    named = with_splits(pairs(60, texts=5), ["test"] * 40 + [None] * 20)
    assert len(split(named, query=0.4).query) == 40


@QUICK
@given(st.randoms(use_true_random=False), st.integers(0, 5))
def test_split_does_not_depend_on_the_order_of_items(random: Any, seed: int) -> None:
    data = pairs(50, texts=40)
    shuffled = list(data)
    random.shuffle(shuffled)
    expected = split(data, seed=seed).ids()
    found = split(replace(data, items=tuple(shuffled)), seed=seed).ids()
    assert {role: sorted(ids) for role, ids in found.items()} == expected


def test_split_depends_on_the_seed() -> None:
    assert split(pairs(100)).ids() == split(pairs(100)).ids()
    assert split(pairs(100)).query.ids != split(pairs(100), seed=1).query.ids


def test_split_with_a_larger_share_contains_the_smaller_sample() -> None:
    few, many = split(pairs(100), query=0.1), split(pairs(100), query=0.2, validation=0.2)
    assert set(few.query.ids) < set(many.query.ids)
    assert set(few.validation.ids) < set(many.validation.ids)


def test_split_of_too_few_pairs_names_their_number_and_the_problems() -> None:
    data = pairs(5)
    data.problems.add("picture missing", "a.jpg")
    with pytest.raises(DataError, match=r" 3 pairs .* 8 .*; 1 x picture missing: a\.jpg"):
        split(data)


@pytest.mark.parametrize("share", [-0.1, 0.5, 2.0, float("nan")])
def test_split_share_out_of_range_raises_config_error(share: float) -> None:
    with pytest.raises(ConfigError, match="query"):
        split(pairs(30), query=share)
    with pytest.raises(ConfigError, match="validation"):
        split(pairs(30), validation=share)
