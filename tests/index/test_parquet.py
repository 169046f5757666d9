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
    """Return codes of 8 bits."""
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
    """The Parquet file of these documents."""
    write_documents(tmp_path / "file", documents, bits=8, fingerprint="e1")
    return tmp_path / "file"


def check_same(one: DocumentBatch, other: DocumentBatch) -> None:
    """Assert that two batches are equal in every column."""
    assert (one.ids, one.fields) == (other.ids, other.fields)
    for modality in MODALITIES:
        assert np.array_equal(one.packed[modality], other.packed[modality])
        assert np.array_equal(one.offsets[modality], other.offsets[modality])


def test_documents_survive_writing_and_reading(file: Path, documents: DocumentBatch) -> None:
    read, bits, fingerprint, *_ = read_documents(file)
    check_same(read, documents)
    assert (bits, fingerprint) == (8, "e1")


@pytest.mark.parametrize("n", [0, 1, 9])
def test_empty_columns_and_empty_files_survive(tmp_path: Path, n: int) -> None:
    ids = [f"{at}" for at in range(n)]
    written = DocumentBatch.of(ids, image=codes(*range(n)))
    write_documents(tmp_path / "file", written, bits=8, fingerprint=None)
    read, bits, fingerprint, *_ = read_documents(tmp_path / "file")
    check_same(read, written)
    assert (bits, fingerprint, read.present["text"].any()) == (8, None, False)


@pytest.fixture
def several() -> DocumentBatch:
    """Four documents with 2, 0, 3 and 1 image codes, and with no text code or one."""
    return DocumentBatch.of(
        ["a", "b", "c", "d"],
        image=[codes(1, 2), codes(), codes(3, 4, 5), codes(6)],
        text=[codes(), codes(7), codes(8), codes()],
    )


def test_several_codes_survive_writing_and_reading(tmp_path: Path, several: DocumentBatch) -> None:
    file = tmp_path / "file"
    write_documents(file, several, bits=8, fingerprint="e1")
    check_same(read_documents(file)[0], several)
    table = pq.read_table(file)
    assert metadata(table)["xmodal.format"] == "2"
    assert table["image"].to_pylist() == [[b"\1", b"\2"], [], [b"\3", b"\4", b"\5"], [b"\6"]]
    pq.write_table(table, file, row_group_size=3)
    check_same(read_documents(file)[0], several)


def test_one_code_per_document_is_written_in_the_first_format(
    tmp_path: Path, several: DocumentBatch
) -> None:
    write_documents(tmp_path / "file", several.take([1, 3]), bits=8, fingerprint=None)
    table = pq.read_table(tmp_path / "file")
    assert metadata(table)["xmodal.format"] == "1"
    assert table["image"].to_pylist() == [None, b"\6"]


def test_row_groups_are_joined(file: Path, documents: DocumentBatch) -> None:
    pq.write_table(pq.read_table(file), file, row_group_size=2)
    check_same(read_documents(file)[0], documents)


def test_file_has_plain_parquet_columns(file: Path) -> None:
    table = pq.read_table(file)
    assert table.to_pylist() == [
        {"id": "a", "image": b"\x00", "text": b"\x02", "fields": '{"name": "é"}'},
        {"id": "b", "image": b"\x01", "text": b"\x03", "fields": '{"n": [1, 2.5, null, true]}'},
        {"id": "t", "image": None, "text": b"\xff", "fields": "{}"},
    ]
    entries = metadata(table)
    assert (entries["xmodal.bits"], entries["xmodal.encoder"]) == ("8", "e1")
    assert entries["xmodal.bit_order"] == "most significant first"


def metadata(table: pa.Table) -> dict[str, str]:
    return {key.decode(): value.decode() for key, value in table.schema.metadata.items()}


def test_flipped_bits_are_detected(file: Path, documents: DocumentBatch) -> None:
    good = file.read_bytes()
    detected = 0
    for at in range(0, len(good), 5):
        file.write_bytes(good[:at] + bytes([good[at] ^ 1 << at % 8]) + good[at + 1 :])
        try:
            read, bits, fingerprint, *_ = read_documents(file)
        except (IndexFailure, IndexMismatch):
            detected += 1
        else:  # an unread byte, such as of statistics
            check_same(read, documents)
            assert (bits, fingerprint) == (8, "e1"), at
    assert detected > len(good) / 5 / 2


def test_truncated_file_is_detected(file: Path) -> None:
    good = file.read_bytes()
    for length in (0, 3, 4, 100, len(good) // 2, len(good) - 1):
        file.write_bytes(good[:length])
        with pytest.raises(IndexFailure, match="file is damaged"):
            read_documents(file)


@pytest.mark.parametrize(
    ("error", "message", "change"),
    [
        (
            IndexMismatch,
            r"format '9', .* this version reads formats 1, 2, 3",
            {"xmodal.format": "9"},
        ),
        (IndexMismatch, r"bit order 'least'", {"xmodal.bit_order": "least"}),
        (IndexFailure, "damaged .* checksum", {"xmodal.bits": "16"}),
        (IndexFailure, "damaged .* checksum", {"xmodal.encoder": "e2"}),
        (IndexFailure, "damaged .* checksum", {"xmodal.seal": ""}),
    ],
)
def test_changed_metadata_is_detected(
    file: Path, error: type[Exception], message: str, change: dict[str, str]
) -> None:
    table = pq.read_table(file)
    pq.write_table(table.replace_schema_metadata(metadata(table) | change), file)
    with pytest.raises(error, match=message):
        read_documents(file)


def test_changed_columns_are_detected(file: Path) -> None:
    table = pq.read_table(file)
    for changed in (table.drop_columns(["text"]), table.slice(0, 2)):
        pq.write_table(changed, file)
        with pytest.raises(IndexFailure, match="checksum"):
            read_documents(file)


@pytest.mark.parametrize("name", ["id", "image", "text", "fields"])
def test_other_content_of_a_column_is_detected(
    tmp_path: Path, file: Path, documents: DocumentBatch, name: str
) -> None:
    """Page checksums are right in a file whose offsets lead to the pages of another column."""
    table = pq.read_table(file)
    other = table.take([1, 0, 2])
    at = table.column_names.index(name)
    pq.write_table(table.set_column(at, table.schema.field(at), other[name]), file)
    with pytest.raises(IndexFailure, match=f"column {name} does not match the checksum"):
        read_documents(file)


def test_missing_text_is_detected(file: Path) -> None:
    table = pq.read_table(file)
    fields = pa.array(["{}", None, "{}"], pa.large_string())
    pq.write_table(table.set_column(3, table.schema.field(3), fields), file)
    with pytest.raises(IndexFailure, match="damaged"):
        read_documents(file)


def test_other_parquet_file_is_rejected(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": ["x"]}), tmp_path / "file")
    with pytest.raises(IndexMismatch, match="has format None, bit order None"):
        read_documents(tmp_path / "file")
