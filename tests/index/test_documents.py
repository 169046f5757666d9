"""DocumentBatch: construction, offsets, selection of rows, and its use by an index."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from xmodal.codes import BinaryCodes
from xmodal.errors import CodeError, ConfigError
from xmodal.index.documents import DocumentBatch, to_batch, to_offsets
from xmodal.index.local import HammingIndex
from xmodal.index.origins import Origin, read_origin
from xmodal.modality import MODALITIES


def codes(*numbers: int) -> BinaryCodes:
    """Return codes of 8 bits."""
    return BinaryCodes(np.array(numbers, np.uint8).reshape(-1, 1), 8)


@pytest.fixture
def mixed() -> DocumentBatch:
    """One batch of three documents: both codes, an image code only, a text code only."""
    return DocumentBatch(
        ["both", "image", "text"],
        {"image": codes(1, 2).packed, "text": codes(3, 4).packed},
        {"image": to_offsets([1, 1, 0]), "text": to_offsets([1, 0, 1])},
        ['{"n": 1}', "{}", "{}"],
    )


@pytest.fixture
def several() -> DocumentBatch:
    """Four documents with 2, 0, 3 and 1 image codes, and 0, 1, 1 and 2 text codes."""
    return DocumentBatch.of(
        ["a", "b", "c", "d"],
        image=[codes(1, 2), codes(), codes(3, 4, 5), codes(6)],
        text=[codes(), codes(7), codes(8), codes(9, 10)],
    )


def test_of_one_code_per_id() -> None:
    batch = DocumentBatch.of(["a", "b"], text=codes(5, 6), fields=[{"x": "é"}, {}])
    assert (len(batch), batch.bits, batch.fields) == (2, 8, ['{"x": "é"}', "{}"])
    assert batch.codes("text") == (["a", "b"], codes(5, 6))
    assert batch.codes("image") == ([], BinaryCodes.empty(8))
    assert batch.packed["image"].shape == (0, 1)
    assert batch.present["image"].tolist() == [False, False]
    assert batch.present["text"].tolist() == [True, True]


def test_of_several_codes_per_id(several: DocumentBatch) -> None:
    assert several.offsets["image"].tolist() == [0, 2, 2, 5, 6]
    assert several.counts("text").tolist() == [0, 1, 1, 2]
    assert several.present["image"].tolist() == [True, False, True, True]
    assert several.codes("image") == (["a", "a", "c", "c", "c", "d"], codes(1, 2, 3, 4, 5, 6))
    assert several.codes("text") == (["b", "c", "d", "d"], codes(7, 8, 9, 10))


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
        (CodeError, ["a"], {"image": [codes(1), codes(2)]}),
        (CodeError, ["a", "b"], {"image": [codes(1), BinaryCodes.from_hex(["0000"])]}),
        (CodeError, ["a", "b"], {"image": [codes(1), codes(2)], "text": [codes(1)]}),
        (CodeError, [], {"image": []}),
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


@pytest.mark.parametrize("changed", ["ids", "packed", "offsets", "fields"])
def test_columns_have_one_length(mixed: DocumentBatch, changed: str) -> None:
    columns: dict[str, Any] = {
        "ids": mixed.ids,
        "packed": mixed.packed,
        "offsets": mixed.offsets,
        "fields": mixed.fields,
    }
    column = columns[changed]
    columns[changed] = (
        column[:2] if isinstance(column, list) else {**column, "text": column["text"][:-1]}
    )
    with pytest.raises(CodeError, match="3 ids" if changed != "ids" else "2 ids"):
        DocumentBatch(**columns)


def test_codes_of_both_modalities_have_one_width(mixed: DocumentBatch) -> None:
    packed = {"image": mixed.packed["image"], "text": np.zeros((2, 2), np.uint8)}
    with pytest.raises(CodeError, match="one width"):
        DocumentBatch(mixed.ids, packed, mixed.offsets, mixed.fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("offsets", [[0, 1, 2], [0, 1, 1, 1], [1, 1, 2, 2], [0, 2, 1, 2]])
def test_offsets_rise_from_zero_to_the_number_of_codes(
    mixed: DocumentBatch, offsets: list[int]
) -> None:
    changed = {**mixed.offsets, "text": np.array(offsets)}
    with pytest.raises(CodeError, match="text offsets"):
        DocumentBatch(mixed.ids, mixed.packed, changed, mixed.fields)


def test_take_selects_rows_in_order(mixed: DocumentBatch) -> None:
    taken = mixed.take([2, 0])
    assert (taken.ids, taken.fields) == (["text", "both"], ["{}", '{"n": 1}'])
    assert taken.codes("text") == (["text", "both"], codes(4, 3))
    assert taken.codes("image") == (["both"], codes(1))
    assert len(mixed.take([])) == 0 and mixed.take([]).bits == 8


def test_take_and_join_keep_all_codes(several: DocumentBatch) -> None:
    taken = several.take([2, 1, 0, 2])
    assert taken.codes("image") == (
        ["c"] * 3 + ["a"] * 2 + ["c"] * 3,
        codes(3, 4, 5, 1, 2, 3, 4, 5),
    )
    assert taken.counts("text").tolist() == [1, 1, 0, 1]
    joined = DocumentBatch.join([several.take([3]), several.take([]), several.take([0, 1])])
    assert joined.codes("image") == (["d", "a", "a"], codes(6, 1, 2))
    assert joined.codes("text") == (["d", "d", "b"], codes(9, 10, 7))


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
    nameless = DocumentBatch(["", "b", "c"], mixed.packed, mixed.offsets, mixed.fields)
    with pytest.raises(ConfigError, match="id ''"):
        to_batch(nameless, image=None, text=None, fields=None)
    without_code = DocumentBatch.of(["a", "b"], image=[codes(1), codes()])
    with pytest.raises(CodeError, match="'b' has no code"):
        to_batch(without_code, image=None, text=None, fields=None)
    with pytest.raises(CodeError, match="'b' has no code"):
        to_batch(["a", "b"], image=[codes(1), codes()], text=None, fields=None)


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


# ---- origins ---------------------------------------------------------------------------------


def test_origins_follow_their_documents(mixed: DocumentBatch) -> None:
    known = replace(mixed, origins=[Origin("/a", id_).to_text() for id_ in mixed.ids])
    assert [read_origin(text) for text in known.take([2, 0]).origins] == [
        Origin("/a", "text"),
        Origin("/a", "both"),
    ]
    joined = DocumentBatch.join([mixed, known])
    assert joined.origins == ["", "", "", *known.origins]
    assert (mixed.origins, mixed.origin_texts()) == ([], ["", "", ""])
    with pytest.raises(CodeError, match="2 origins"):
        replace(mixed, origins=["", ""])
