"""The Parquet file of a local index: round trips, and detection of damaged bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from xmodal.codes import BinaryCodes
from xmodal.errors import IndexFailure, IndexMismatch
from xmodal.index.documents import DocumentBatch
from xmodal.index.parquet import read_documents, write_documents
from xmodal.modality import MODALITIES


def codes(*numbers: int) -> BinaryCodes:
    """Codes of 8 bits."""
    return BinaryCodes(np.array(numbers, np.uint8).reshape(-1, 1), 8)


@pytest.fixture
def documents() -> DocumentBatch:
    """Three documents: two with both codes, one with a text code only."""
    both = {"image": codes(0, 1), "text": codes(2, 3)}
    fields = [{"name": "é"}, {"n": [1, 2.5, None, True]}]
    alone = DocumentBatch.of(["t"], text=codes(255))
    return DocumentBatch.join([DocumentBatch.of(["a", "b"], **both, fields=fields), alone])


@pytest.fixture
def file(tmp_path: Path, documents: DocumentBatch) -> Path:
    """Their file."""
    write_documents(tmp_path / "file", documents, bits=8, fingerprint="e1")
    return tmp_path / "file"


def check_same(one: DocumentBatch, other: DocumentBatch) -> None:
    """Two sets of documents agree in every column."""
    assert (one.ids, one.fields) == (other.ids, other.fields)
    for modality in MODALITIES:
        assert np.array_equal(one.packed[modality], other.packed[modality])
        assert np.array_equal(one.present[modality], other.present[modality])


def test_writing_and_reading_gives_the_same(file: Path, documents: DocumentBatch) -> None:
    read, bits, fingerprint = read_documents(file)
    check_same(read, documents)
    assert (bits, fingerprint) == (8, "e1")


@pytest.mark.parametrize("n", [0, 1, 9])
def test_columns_without_any_code_and_no_documents(tmp_path: Path, n: int) -> None:
    ids = [f"{at}" for at in range(n)]
    written = DocumentBatch.of(ids, image=codes(*range(n)))
    write_documents(tmp_path / "file", written, bits=8, fingerprint=None)
    read, bits, fingerprint = read_documents(tmp_path / "file")
    check_same(read, written)
    assert (bits, fingerprint, read.present["text"].any()) == (8, None, False)


def test_row_groups_are_put_together(file: Path, documents: DocumentBatch) -> None:
    pq.write_table(pq.read_table(file), file, row_group_size=2)
    check_same(read_documents(file)[0], documents)


def test_any_reader_of_parquet_can_read_it(file: Path) -> None:
    table = pq.read_table(file)
    assert table.to_pylist() == [
        {"id": "a", "image": b"\x00", "text": b"\x02", "fields": '{"name": "é"}'},
        {"id": "b", "image": b"\x01", "text": b"\x03", "fields": '{"n": [1, 2.5, null, true]}'},
        {"id": "t", "image": None, "text": b"\xff", "fields": "{}"},
    ]
    kept = metadata(table)
    assert (kept["xmodal.bits"], kept["xmodal.encoder"]) == ("8", "e1")
    assert kept["xmodal.bit_order"] == "most significant first"


def metadata(table: pa.Table) -> dict[str, str]:
    return {key.decode(): value.decode() for key, value in table.schema.metadata.items()}


def test_taking_rows(documents: DocumentBatch) -> None:
    taken = documents.take([2, 0])
    assert (taken.ids, taken.fields) == (["t", "a"], ["{}", '{"name": "é"}'])
    assert taken.packed["text"].tolist() == [[255], [2]]
    assert taken.present["image"].tolist() == [False, True]


def test_flipped_bytes_are_noticed(file: Path, documents: DocumentBatch) -> None:
    good = file.read_bytes()
    noticed = 0
    for at in range(0, len(good), 5):
        file.write_bytes(good[:at] + bytes([good[at] ^ 1 << at % 8]) + good[at + 1 :])
        try:
            read, bits, fingerprint = read_documents(file)
        except (IndexFailure, IndexMismatch):
            noticed += 1
        else:  # a byte that no one reads (statistics, say) changes nothing
            check_same(read, documents)
            assert (bits, fingerprint) == (8, "e1"), at
    assert noticed > len(good) / 5 / 2


def test_a_truncated_file_is_noticed(file: Path) -> None:
    good = file.read_bytes()
    for length in (0, 3, 4, 100, len(good) // 2, len(good) - 1):
        file.write_bytes(good[:length])
        with pytest.raises(IndexFailure, match=r"file is damaged \(.+\): index again"):
            read_documents(file)


@pytest.mark.parametrize(
    ("error", "words", "change"),
    [
        (IndexMismatch, r"format '9', .* this version reads format '1'", {"xmodal.format": "9"}),
        (IndexMismatch, r"bit order 'least'", {"xmodal.bit_order": "least"}),
        (IndexFailure, r"damaged .* do not fit its seal", {"xmodal.bits": "16"}),
        (IndexFailure, r"damaged .* do not fit its seal", {"xmodal.encoder": "e2"}),
        (IndexFailure, r"damaged .* do not fit its seal", {"xmodal.seal": ""}),
    ],
)
def test_a_file_that_says_something_else(
    file: Path, error: type[Exception], words: str, change: dict[str, str]
) -> None:
    table = pq.read_table(file)
    pq.write_table(table.replace_schema_metadata(metadata(table) | change), file)
    with pytest.raises(error, match=words):
        read_documents(file)


def test_columns_that_were_changed(file: Path) -> None:
    table = pq.read_table(file)
    for changed in (table.drop_columns(["text"]), table.slice(0, 2)):
        pq.write_table(changed, file)
        with pytest.raises(IndexFailure, match="do not fit its seal"):
            read_documents(file)


def test_a_parquet_file_of_someone_else(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": ["x"]}), tmp_path / "file")
    with pytest.raises(IndexMismatch, match="has format None, bit order None"):
        read_documents(tmp_path / "file")
