"""Tests of split: named splits, random shares, equal texts, seeds, errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xmodal.data.dataset import Dataset, Item
from xmodal.data.split import ROLES, split
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
def test_split_names_are_matched_without_case_and_spaces(role: str) -> None:
    data = pairs(40)
    for alias in ROLES[role]:
        named = with_splits(data, [f" {alias.upper()} "] * 20 + ["train"] * 20)
        ids = split(named, query=0, validation=0).ids()
        assert ids[role] == data.ids[: 40 if role == "train" else 20]


def test_split_parts_are_disjoint_and_complete() -> None:
    data = pairs(100)
    ids = split(data).ids()
    assert sorted(id_ for part in ids.values() for id_ in part) == data.ids and set(ids) == set(
        ROLES
    )


def test_split_takes_validation_share_of_the_pairs_without_queries() -> None:
    parts = split(pairs(100), query=0.2, validation=0.1)
    assert len(parts.query) == 20 and len(parts.validation) == 8  # round(0.1 * 80)
    assert len(parts.train) == 72 and len(parts.gallery) == 0


def test_split_share_of_zero_takes_none_and_a_small_share_one() -> None:
    parts = split(pairs(20), query=0, validation=0.001)
    assert (len(parts.query), len(parts.validation), len(parts.train)) == (0, 1, 19)


def test_split_samples_only_from_unnamed_items() -> None:
    data = pairs(100)
    named = with_splits(data, ["test"] * 10 + ["gallery"] * 30 + [None] * 60)
    parts = split(named, query=0.4, validation=0.1)
    assert parts.query.ids == data.ids[:10] and parts.gallery.ids == data.ids[10:40]
    assert len(parts.validation) == 6 and len(parts.train) == 54


def test_split_keeps_named_items_with_texts_equal_to_sampled_ones() -> None:
    data = pairs(60, texts=20)
    named = with_splits(data, ["gallery"] * 20 + [None] * 40)
    assert split(named, query=0.4).gallery.ids == data.ids[:20]


def test_unknown_split_name_means_train() -> None:
    named = with_splits(pairs(30), ["banana"] * 30)
    assert len(split(named, query=0, validation=0).train) == 30


@QUICK
@given(st.integers(20, 60), st.integers(10, 20), st.integers(0, 5))
def test_split_keeps_items_of_equal_text_together(n: int, texts: int, seed: int) -> None:
    data = pairs(n, texts=texts)
    respelled = tuple(
        replace(item, captions=(f"  {item.captions[0].upper()}",)) if k % 2 else item
        for k, item in enumerate(data)
    )
    parts = split(replace(data, items=respelled), query=0.2, validation=0.2, seed=seed)
    part_of = {id_: role for role, ids in parts.ids().items() for id_ in ids}
    for first in range(texts):
        assert len({part_of[f"i{k:04d}"] for k in range(first, n, texts)}) == 1


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
    few = set(split(pairs(100), query=0.1, validation=0).query.ids)
    many = set(split(pairs(100), query=0.2, validation=0).query.ids)
    assert few < many


def test_split_of_too_few_pairs_names_their_number_and_the_problems() -> None:
    data = pairs(5)
    data.problems.add("picture missing", "a.jpg")
    with pytest.raises(DataError, match=r" 3 pairs .* 8; 1 x picture missing: a\.jpg"):
        split(data)


@pytest.mark.parametrize("share", [-0.1, 0.5, 2.0, float("nan")])
def test_split_share_out_of_range_raises_config_error(share: float) -> None:
    with pytest.raises(ConfigError, match="query"):
        split(pairs(30), query=share)
    with pytest.raises(ConfigError, match="validation"):
        split(pairs(30), validation=share)
