"""Reciprocal rank fusion: sums by hand, ties by id, documents missing in a list."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xmodal.retrieval.fusion import RRF_CONSTANT, FusedRank, reciprocal_rank

IDS = st.lists(st.sampled_from("abcdefgh"), unique=True)


def test_scores_computed_by_hand() -> None:
    fused = reciprocal_rank([["a", "b", "c"], ["c", "a"]], constant=60)
    assert fused == [
        FusedRank("a", pytest.approx(1 / (60 + 1) + 1 / (60 + 2)), (1, 2)),
        FusedRank("c", pytest.approx(1 / (60 + 3) + 1 / (60 + 1)), (3, 1)),
        FusedRank("b", pytest.approx(1 / (60 + 2)), (2, None)),
    ]


def test_default_constant_is_that_of_the_paper() -> None:
    assert RRF_CONSTANT == 60
    assert reciprocal_rank([["a"]]) == [FusedRank("a", 1 / (60 + 1), (1,))]


def test_constant_weighs_first_ranks_against_presence_in_both_lists() -> None:
    lists = [["first", "x", "both"], ["y", "z", "both"]]
    # 1 / (0 + 1) = 1 against 2 / (0 + 3) = 2/3; 1 / (60 + 1) = 0.0164 against 2 / (60 + 3) = 0.0317
    assert reciprocal_rank(lists, constant=0)[0].id == "first"
    assert reciprocal_rank(lists, constant=60)[0].id == "both"


def test_equal_scores_are_ordered_by_id() -> None:
    assert [one.id for one in reciprocal_rank([["b", "a"], ["a", "b"]])] == ["a", "b"]
    assert [one.id for one in reciprocal_rank([["z", "é"], ["A", "😀"]])] == ["A", "z", "é", "😀"]


def test_empty_lists_contribute_nothing() -> None:
    assert reciprocal_rank([]) == []
    assert reciprocal_rank([[], []]) == []
    assert reciprocal_rank([["a"], []], constant=1) == [FusedRank("a", 1 / (1 + 1), (1, None))]


@given(lists=st.lists(IDS, max_size=4), constant=st.integers(0, 100))
def test_ranks_are_those_of_the_lists(lists: list[list[str]], constant: int) -> None:
    fused = reciprocal_rank(lists, constant)
    assert {one.id for one in fused} == {id_ for ids in lists for id_ in ids}
    for one in fused:
        ranks = tuple(ids.index(one.id) + 1 if one.id in ids else None for ids in lists)
        assert one.ranks == ranks
        assert one.score == pytest.approx(sum(1 / (constant + r) for r in ranks if r is not None))
    assert fused == sorted(fused, key=lambda one: (-one.score, one.id))
