"""DocumentBatch: construction, presence masks, selection of rows, and its use by an index."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from xmodal.codes import BinaryCodes
from xmodal.errors import CodeError, ConfigError
from xmodal.index.documents import DocumentBatch, empty_columns, to_batch
from xmodal.index.local import HammingIndex
from xmodal.modality import MODALITIES


def codes(*numbers: int) -> BinaryCodes:
    """Return codes of 8 bits."""
    return BinaryCodes(np.array(numbers, np.uint8).reshape(-1, 1), 8)


@pytest.fixture
def mixed() -> DocumentBatch:
    """One batch of three documents: both codes, an image code only, a text code only."""
    packed, present = empty_columns(3, 8)
    packed["image"][:2, 0], present["image"][:2] = (1, 2), True
    packed["text"][[0, 2], 0], present["text"][[0, 2]] = (3, 4), True
    return DocumentBatch(["both", "image", "text"], packed, present, ['{"n": 1}', "{}", "{}"])


def test_of_marks_the_present_modalities() -> None:
    batch = DocumentBatch.of(["a", "b"], text=codes(5, 6), fields=[{"x": "é"}, {}])
    assert (len(batch), batch.bits, batch.fields) == (2, 8, ['{"x": "é"}', "{}"])
    assert batch.codes("text") == (["a", "b"], codes(5, 6))
    assert batch.codes("image") == ([], BinaryCodes.empty(8))
    assert batch.packed["image"].tolist() == [[0], [0]]


def test_of_copies_its_arguments() -> None:
    ids, packed, fields = ["a"], np.array([[7]], np.uint8), {"x": [1]}
    batch = DocumentBatch.of(ids, image=BinaryCodes(packed, 8), fields=[fields])
    ids.append("b")
    packed[:] = 0
    fields["x"].append(2)
    assert batch.codes("image") == (["a"], codes(7))
    assert batch.fields_by_id() == {"a": {"x": [1]}}


@pytest.mark.parametrize(
    ("error", "ids", "columns"),
    [
        (CodeError, ["a"], {}),
        (CodeError, ["a"], {"image": codes(1, 2)}),
        (CodeError, ["a"], {"image": codes(1), "text": BinaryCodes.from_hex(["0000"])}),
        (ConfigError, ["a"], {"image": codes(1), "fields": []}),
        (ConfigError, ["a"], {"image": codes(1), "fields": [{"x": float("inf")}]}),
        (ConfigError, ["a"], {"image": codes(1), "fields": [{"x": b"bytes"}]}),
        (ConfigError, "a", {"image": codes(1)}),
        (ConfigError, [""], {"image": codes(1)}),
    ],
)
def test_of_rejects_invalid_columns(
    error: type[Exception], ids: Any, columns: dict[str, Any]
) -> None:
    with pytest.raises(error):
        DocumentBatch.of(ids, **columns)


@pytest.mark.parametrize("changed", ["ids", "packed", "present", "fields"])
def test_columns_have_one_length(mixed: DocumentBatch, changed: str) -> None:
    columns: dict[str, Any] = {
        "ids": mixed.ids,
        "packed": mixed.packed,
        "present": mixed.present,
        "fields": mixed.fields,
    }
    column = columns[changed]
    columns[changed] = (
        column[:2] if isinstance(column, list) else {**column, "text": column["text"][:2]}
    )
    with pytest.raises(CodeError, match="3 ids" if changed != "ids" else "2 ids"):
        DocumentBatch(**columns)


def test_codes_of_both_modalities_have_one_width(mixed: DocumentBatch) -> None:
    packed = {"image": mixed.packed["image"], "text": np.zeros((3, 2), np.uint8)}
    with pytest.raises(CodeError, match="one width"):
        DocumentBatch(mixed.ids, packed, mixed.present, mixed.fields)  # type: ignore[arg-type]


def test_take_selects_rows_in_order(mixed: DocumentBatch) -> None:
    taken = mixed.take([2, 0])
    assert (taken.ids, taken.fields) == (["text", "both"], ["{}", '{"n": 1}'])
    assert taken.codes("text") == (["text", "both"], codes(4, 3))
    assert taken.codes("image") == (["both"], codes(1))
    assert len(mixed.take([])) == 0 and mixed.take([]).bits == 8


def test_join_keeps_order_and_presence(mixed: DocumentBatch) -> None:
    other = DocumentBatch.of(["x"], image=codes(9))
    joined = DocumentBatch.join([mixed, DocumentBatch.empty(8), other])
    assert joined.ids == ["both", "image", "text", "x"]
    assert joined.codes("image") == (["both", "image", "x"], codes(1, 2, 9))
    assert joined.codes("text") == (["both", "text"], codes(3, 4))
    assert joined.fields_by_id()["both"] == {"n": 1}


def test_join_rejects_no_parts_and_two_widths() -> None:
    with pytest.raises(CodeError, match="one width"):
        DocumentBatch.join([])
    with pytest.raises(CodeError, match=r"\[8, 16\]"):
        DocumentBatch.join([DocumentBatch.empty(8), DocumentBatch.empty(16)])


def test_to_batch_passes_a_batch_through(mixed: DocumentBatch) -> None:
    assert to_batch(mixed, image=None, text=None, fields=None) is mixed
    made = to_batch(["a"], image=codes(1), text=None, fields=[{"x": 1}])
    assert made.fields_by_id() == {"a": {"x": 1}}


@pytest.mark.parametrize("extra", ["image", "text", "fields"])
def test_to_batch_rejects_columns_beside_a_batch(mixed: DocumentBatch, extra: str) -> None:
    columns: dict[str, Any] = {"image": None, "text": None, "fields": None}
    columns[extra] = [{}] * 3 if extra == "fields" else codes(1, 2, 3)
    with pytest.raises(ConfigError):
        to_batch(mixed, **columns)


def test_to_batch_checks_ids_and_codes(mixed: DocumentBatch) -> None:
    nameless = DocumentBatch(["", "b", "c"], mixed.packed, mixed.present, mixed.fields)
    with pytest.raises(ConfigError, match="id ''"):
        to_batch(nameless, image=None, text=None, fields=None)
    present = {**mixed.present, "text": np.zeros(3, np.bool_)}
    without_code = DocumentBatch(mixed.ids, mixed.packed, present, mixed.fields)
    with pytest.raises(CodeError, match="'text' has no code"):
        to_batch(without_code, image=None, text=None, fields=None)


def test_local_index_stores_and_returns_a_mixed_batch(mixed: DocumentBatch) -> None:
    index = HammingIndex(8)
    assert index.add(mixed) == 3
    stored = index.get(["text", "unknown", "both", "image", "both"])
    assert stored.ids == ["text", "both", "image"]
    assert stored.fields_by_id() == {"text": {}, "both": {"n": 1}, "image": {}}
    assert stored.codes("image") == (["both", "image"], codes(1, 2))
    assert stored.codes("text") == (["text", "both"], codes(4, 3))
    for modality in MODALITIES:
        (hits,) = index.search(codes(0), 9, target=modality)
        assert {hit.id for hit in hits} == {"both", modality}
