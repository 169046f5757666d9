"""Comparison of an index with evaluated codes (tests/training/test_train.py tests ``evaluate``)."""

from __future__ import annotations

import pytest
from support.evaluation_parts import random_part

from xmodal.errors import IndexMismatch
from xmodal.evaluation.evaluate import check_index
from xmodal.index.local import HammingIndex

DATABASE, QUERY = random_part(20, 1), random_part(5, 2)


def index_of_database() -> HammingIndex:
    index = HammingIndex(8)
    codes = DATABASE.codes
    index.add(DATABASE.ids, image=codes["image"], text=codes["text"])
    return index


def test_check_index_accepts_the_evaluated_codes_among_other_documents() -> None:
    index = index_of_database()
    other = random_part(3, 4)
    index.add(["x1", "x2", "x3"], image=other.codes["image"], text=other.codes["text"])
    assert check_index(index, QUERY, DATABASE).startswith("10 searches")


def test_check_index_refuses_a_missing_item() -> None:
    index = index_of_database()
    index.delete(["c"])
    with pytest.raises(IndexMismatch, match="'c' is missing"):
        check_index(index, QUERY, DATABASE)


def test_check_index_refuses_another_distance() -> None:
    index = index_of_database()
    codes = DATABASE.codes["image"]
    index.add(["d"], image=codes[3:4], text=DATABASE.codes["image"][4:5])
    with pytest.raises(IndexMismatch, match="'d' is at distance"):
        check_index(index, QUERY, DATABASE)
