"""Comparison of an index with evaluated codes (tests/training/test_train.py tests ``evaluate``)."""

from __future__ import annotations

import numpy as np
import pytest
from support.evaluation_parts import codes

from xmodal.codes import BinaryCodes
from xmodal.errors import IndexMismatch
from xmodal.evaluation import index_check
from xmodal.evaluation.index_check import check_index
from xmodal.index.documents import DocumentBatch
from xmodal.index.local import HammingIndex
from xmodal.modality import Modality


def random_codes(n: int, seed: int) -> BinaryCodes:
    return codes(np.random.default_rng(seed).integers(0, 256, size=n).tolist())


# The documents have one to three captions, the last one has none.
IDS = [f"d{number}" for number in range(12)]
IMAGES = random_codes(12, 0)
TEXTS = [
    random_codes((number + 1) % 4 if number == 11 else 1 + number % 3, number)
    for number in range(12)
]
DOCUMENTS = DocumentBatch.of(IDS, image=IMAGES, text=TEXTS)
QUERIES: dict[Modality, BinaryCodes] = {"image": random_codes(5, 20), "text": random_codes(70, 21)}


def index_of_documents() -> HammingIndex:
    index = HammingIndex(8)
    index.add(DOCUMENTS)
    return index


def test_check_index_accepts_the_evaluated_codes_among_other_documents() -> None:
    index = index_of_documents()
    index.add(["x1", "x2"], image=random_codes(2, 3), text=random_codes(2, 4))
    assert check_index(index, QUERIES, DOCUMENTS).startswith("75 searches")


def test_check_index_takes_a_choice_of_many_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_check, "MAX_CHECKED_QUERIES", 3)
    assert check_index(index_of_documents(), QUERIES, DOCUMENTS).startswith("6 searches")


def test_check_index_accepts_documents_that_are_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_check, "MAX_CHECKED_HITS", 4)
    assert "4 nearest" in check_index(index_of_documents(), QUERIES, DOCUMENTS)


def test_check_index_refuses_a_missing_document() -> None:
    index = index_of_documents()
    index.delete(["d2"])
    with pytest.raises(IndexMismatch, match="'d2' is missing"):
        check_index(index, QUERIES, DOCUMENTS)


def test_check_index_refuses_another_distance() -> None:
    index = index_of_documents()
    index.add(["d3"], image=codes([255 - int(IMAGES.packed[3, 0])]), text=[TEXTS[3]])
    with pytest.raises(IndexMismatch, match="'d3' is at distance"):
        check_index(index, QUERIES, DOCUMENTS)


def test_check_index_refuses_a_document_without_one_of_its_codes() -> None:
    index = index_of_documents()
    assert len(TEXTS[4]) == 2
    far, near = (TEXTS[4][row : row + 1] for row in (0, 1))
    index.add(["d4"], image=IMAGES[4:5], text=[far])
    only_near: dict[Modality, BinaryCodes] = {"image": near, "text": QUERIES["text"]}
    with pytest.raises(IndexMismatch, match=r"'d4' is at distance .* expected at distance 0"):
        check_index(index, only_near, DOCUMENTS)
