"""Indexes of earlier versions: reading, conversion, and detection of damaged bytes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.former_index import write_former

from xmodal.codes import BinaryCodes
from xmodal.errors import IndexFailure, IndexMismatch
from xmodal.index.documents import DocumentBatch
from xmodal.index.folder import FORMER_FILE
from xmodal.index.former_format import _checksum, read_former
from xmodal.index.local import FILE, open_folder
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
    return write_former(tmp_path, documents, bits=8, fingerprint="e1")


def check_same(one: DocumentBatch, other: DocumentBatch) -> None:
    """Assert that two batches are equal in every column."""
    assert (one.ids, one.fields) == (other.ids, other.fields)
    for modality in MODALITIES:
        assert np.array_equal(one.packed[modality], other.packed[modality])
        assert np.array_equal(one.offsets[modality], other.offsets[modality])


def test_documents_survive_writing_and_reading(file: Path, documents: DocumentBatch) -> None:
    read, bits, fingerprint = read_former(file)
    check_same(read, documents)
    assert (bits, fingerprint) == (8, "e1")


@pytest.mark.parametrize("n", [0, 1, 9])
def test_empty_columns_and_empty_files_survive(tmp_path: Path, n: int) -> None:
    ids = [f"{at}" for at in range(n)]
    written = DocumentBatch.of(ids, image=codes(*range(n)))
    read, bits, fingerprint = read_former(write_former(tmp_path, written, bits=8, fingerprint=None))
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
    file = write_former(tmp_path, several, bits=8, fingerprint="e1")
    check_same(read_former(file)[0], several)
    table = pq.read_table(file)
    assert metadata(table)["xmodal.format"] == "2"
    assert table["image"].to_pylist() == [[b"\1", b"\2"], [], [b"\3", b"\4", b"\5"], [b"\6"]]
    pq.write_table(table, file, row_group_size=3)
    check_same(read_former(file)[0], several)


def test_row_groups_are_joined(file: Path, documents: DocumentBatch) -> None:
    pq.write_table(pq.read_table(file), file, row_group_size=2)
    check_same(read_former(file)[0], documents)


def metadata(table: pa.Table) -> dict[str, str]:
    return {key.decode(): value.decode() for key, value in table.schema.metadata.items()}


def test_flipped_bits_are_detected(file: Path, documents: DocumentBatch) -> None:
    good = file.read_bytes()
    detected = 0
    for at in range(0, len(good), 5):
        file.write_bytes(good[:at] + bytes([good[at] ^ 1 << at % 8]) + good[at + 1 :])
        try:
            read, bits, fingerprint = read_former(file)
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
        with pytest.raises(IndexFailure, match=f"{FORMER_FILE} is missing or damaged"):
            read_former(file)


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
        read_former(file)


def test_changed_columns_are_detected(file: Path) -> None:
    table = pq.read_table(file)
    for changed in (table.drop_columns(["text"]), table.slice(0, 2)):
        pq.write_table(changed, file)
        with pytest.raises(IndexFailure, match="checksum"):
            read_former(file)


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
        read_former(file)


def test_missing_text_is_detected(file: Path) -> None:
    table = pq.read_table(file)
    fields = pa.array(["{}", None, "{}"], pa.large_string())
    pq.write_table(table.set_column(3, table.schema.field(3), fields), file)
    with pytest.raises(IndexFailure, match="damaged"):
        read_former(file)


def test_other_parquet_file_is_rejected(tmp_path: Path) -> None:
    file = tmp_path / FORMER_FILE
    pq.write_table(pa.table({"id": ["x"]}), file)
    with pytest.raises(IndexMismatch, match="has format None, bit order None"):
        read_former(file)


# ---- conversion ------------------------------------------------------------------------------


@pytest.fixture
def with_vectors(several: DocumentBatch) -> DocumentBatch:
    """The documents with several codes, with vectors and origins."""
    vectors = {m: np.arange(3 * len(several.packed[m]), dtype=np.int8) for m in MODALITIES}
    return replace(
        several,
        vectors={m: vectors[m].reshape(-1, 3) for m in MODALITIES},
        origins=["", '["/x","b"]', "", ""],
    )


@pytest.mark.parametrize("kind", ["documents", "several", "with_vectors"])
def test_index_of_an_earlier_version_is_read_and_converted_by_a_save(
    tmp_path: Path, request: pytest.FixtureRequest, kind: str
) -> None:
    expected: DocumentBatch = request.getfixturevalue(kind)
    write_former(tmp_path, expected, bits=8, fingerprint="e1")
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    index = open_folder(tmp_path, bits=8, fingerprint="e1")
    index.close()  # nothing changed
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before
    index.add(["z"], image=codes(9)) if index.dim is None else index.delete(["nothing", "d"])
    index.close()
    kept = [row for row, id_ in enumerate(expected.ids) if index.dim is None or id_ != "d"]
    assert FILE in [path.name for path in tmp_path.iterdir()]
    assert not [name for name in before if (tmp_path / name).exists()]
    again = open_folder(tmp_path)
    found = again.get(expected.ids)
    check_same(found, expected.take(kept))
    assert (found.origins, again.fingerprint) == (expected.take(kept).origins, "e1")
    for modality in found.vectors:
        assert np.array_equal(found.vectors[modality], expected.take(kept).vectors[modality])


def test_damaged_vectors_are_found(tmp_path: Path, with_vectors: DocumentBatch) -> None:
    file = write_former(tmp_path, with_vectors, bits=8, fingerprint=None)
    vectors = tmp_path / "vectors-text-0"
    content = vectors.read_bytes()
    for wrong in (content[:-1], content + b"\0", bytes(len(content)), None):
        vectors.unlink()
        if wrong is not None:
            vectors.write_bytes(wrong)
        with pytest.raises(IndexFailure, match="vectors-text-0 is missing or damaged"):
            read_former(file)
        vectors.touch()


def test_names_of_files_outside_of_the_folder_are_refused(
    tmp_path: Path, with_vectors: DocumentBatch
) -> None:
    file = write_former(tmp_path, with_vectors, bits=8, fingerprint=None)
    table = pq.read_table(file)
    found = metadata(table)
    found["xmodal.vectors"] = found["xmodal.vectors"].replace("vectors-text", "../vectors-text")
    del found["xmodal.seal"]
    found["xmodal.seal"] = _checksum(table, found)
    pq.write_table(table.replace_schema_metadata(found), file, write_page_checksum=True)
    with pytest.raises(IndexFailure, match=r"damaged .*\.\./vectors"):
        read_former(file)
