"""Filling of an index: a local one is saved now and then, and goes on from there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import xmodal.index.filling
from xmodal.codes import BinaryCodes
from xmodal.index.documents import DocumentBatch
from xmodal.index.filling import Filling
from xmodal.index.local import HammingIndex, open_folder


def batches() -> Iterator[DocumentBatch]:
    """Yield ten batches of ten documents."""
    for number in range(10):
        codes = np.random.default_rng(number).integers(0, 256, (10, 8), np.uint8)
        ids = [f"{number}-{row}" for row in range(10)]
        fields = [{"row": row} for row in range(10)]
        yield DocumentBatch.of(ids, image=BinaryCodes(codes, 64), fields=fields)


def test_a_stopped_filling_leaves_an_index_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(xmodal.index.filling, "SAVE_EVERY", 25)
    saves: list[int] = []
    first = Filling(HammingIndex(64, folder=tmp_path / "i"), lambda: saves.append(1))
    for _, batch in zip(range(7), batches(), strict=False):
        first.add(batch)
    assert len(saves) == 2  # after 30 and 60 documents; the process is stopped here
    again = Filling(open_folder(tmp_path / "i"), compare=True)
    assert len(again.index) == 60
    for batch in batches():
        again.add(batch)
    again.index.close()
    assert (again.stored, again.unchanged) == (100, 60)
    found = open_folder(tmp_path / "i")
    assert len(found) == 100
    expected = HammingIndex(64)
    for batch in batches():
        expected.add(batch)
    for one, other in zip(found.batches(), expected.batches(), strict=True):
        assert one.ids == other.ids and one.fields == other.fields
        assert np.array_equal(one.packed["image"], other.packed["image"])


def test_a_changed_document_is_replaced(tmp_path: Path) -> None:
    batch = next(batches())
    filling = Filling(HammingIndex(64, folder=tmp_path / "i"), compare=True)
    filling.add(batch)
    changed = DocumentBatch.of(batch.ids, image=BinaryCodes(~batch.packed["image"], 64))
    filling.add(changed)
    assert filling.unchanged == 0 and len(filling.index) == 10
    stored = filling.index.get(batch.ids)
    assert np.array_equal(stored.packed["image"], changed.packed["image"])
