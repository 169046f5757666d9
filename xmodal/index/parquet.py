"""The Parquet file of a local index.

Columns: ``id``; ``image`` and ``text``; ``fields`` (JSON); ``origin``, if one is known. Format 1,
which earlier versions read too, is written if no document has several codes of one modality: a code
is fixed-size binary, null where a document has none. In format 2, ``image`` and ``text`` are lists
of codes. Format 3 has the columns of format 2, and files of vectors beside it (see
:mod:`xmodal.index.vector_file`); earlier versions, which would not write these files again, do not
read it. The file's metadata contains format, bits, bit order, the encoder's fingerprint (key
``xmodal.encoder``), the records of the files of vectors and of words (see
:mod:`xmodal.index.full_text`) and two checksums. That of the content of each column (key
``xmodal.columns``; earlier versions wrote none) does not depend on headers and offsets in the file,
which checksums of pages leave out; that of the metadata (key ``xmodal.seal``) covers all of these.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from xmodal.checksums import bytes_of, is_damage
from xmodal.codes import check_bits
from xmodal.errors import CodeError, IndexFailure, IndexMismatch
from xmodal.index.documents import DocumentBatch, to_offsets
from xmodal.index.full_text import WordsFile
from xmodal.index.vector_file import VectorFiles, blocks_to_json, files_from_json, files_to_json
from xmodal.modality import MODALITIES, Modality

ONE_CODE, SEVERAL_CODES, WITH_VECTORS = "1", "2", "3"
"""Formats: at most one code of each modality per document, lists of codes, lists and vectors."""
BIT_ORDER = "most significant first"
_DAMAGE = (pa.ArrowException, CodeError, AttributeError, LookupError, TypeError, ValueError)
"""Exceptions for columns and metadata of other types or values than those of an index."""
FromArrow = Callable[[pa.Array, int], tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]]
"""Conversion of a column of codes of so many bytes to ``packed`` and ``offsets``."""


class StoredDocuments(NamedTuple):
    """Content of a file: documents, without their vectors, and the records of other files.

    ``words``: of the file of words, None if an earlier version wrote the index.
    """

    documents: DocumentBatch
    bits: int
    fingerprint: str | None
    vectors: VectorFiles
    words: WordsFile | None


def write_documents(
    path: Path,
    documents: DocumentBatch,
    *,
    bits: int,
    fingerprint: str | None,
    vectors: VectorFiles | None = None,
    words: WordsFile | None = None,
) -> None:
    """Write documents to a new file, with page checksums.

    ``vectors``, ``words``: records of the files beside it.
    """
    several = any((documents.counts(modality) > 1).any() for modality in MODALITIES)
    several = several or bool(vectors)
    to_arrow = _lists_to_arrow if several else _codes_to_arrow
    columns: dict[str, Any] = {"id": pa.array(documents.ids, pa.string())}
    columns |= {modality: to_arrow(documents, modality) for modality in MODALITIES}
    columns["fields"] = pa.array(documents.fields, pa.large_string())
    if documents.origins:
        columns["origin"] = pa.array(documents.origins, pa.large_string())
    table = pa.table(columns)
    metadata = {
        "xmodal.format": WITH_VECTORS if vectors else SEVERAL_CODES if several else ONE_CODE,
        "xmodal.bits": str(bits),
        "xmodal.bit_order": BIT_ORDER,
        "xmodal.encoder": fingerprint or "",
    }
    if vectors:
        metadata["xmodal.vectors"] = files_to_json(vectors)
        metadata["xmodal.vector_blocks"] = blocks_to_json(vectors)
    if words:
        metadata["xmodal.words"] = words.to_json()
    metadata["xmodal.columns"] = json.dumps(_column_checksums(table, documents))
    metadata["xmodal.seal"] = _checksum(table, metadata)
    table = table.replace_schema_metadata(metadata)
    pq.write_table(table, path, write_page_checksum=True, compression="zstd")


def read_documents(path: Path) -> StoredDocuments:
    """Return the content of a file.

    Raises IndexFailure for a damaged file, IndexMismatch for an unknown format.
    """
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            table = file.read()
        metadata = {k.decode(): v.decode() for k, v in (table.schema.metadata or {}).items()}
    except PermissionError:
        raise IndexFailure(f"{path}: permission denied, this user may not read it") from None
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        if not is_damage(error):
            raise
        raise _damaged(path, error) from None
    layout = metadata.get("xmodal.format"), metadata.get("xmodal.bit_order")
    from_arrow = FROM_ARROW.get(layout[0] or "")
    if from_arrow is None or layout[1] != BIT_ORDER:
        raise IndexMismatch(
            f"{path} has format {layout[0]!r}, bit order {layout[1]!r}; this version reads formats "
            f"{', '.join(FROM_ARROW)}, {BIT_ORDER!r}: index again, or use the version that wrote it"
        )
    if metadata.pop("xmodal.seal", None) != _checksum(table, metadata):
        raise _damaged(path, "columns or metadata do not match the checksum")
    try:
        bits, fingerprint = check_bits(int(metadata["xmodal.bits"])), metadata["xmodal.encoder"]
        documents = _to_documents(table, from_arrow, bits)
        if "xmodal.columns" in metadata:
            _check_columns(table, documents, json.loads(metadata["xmodal.columns"]))
        blocks = metadata.get("xmodal.vector_blocks", "{}")
        vectors = files_from_json(metadata.get("xmodal.vectors", "{}"), blocks)
    except _DAMAGE as error:
        raise _damaged(path, error) from None
    words = WordsFile.from_json(metadata.get("xmodal.words", ""))
    return StoredDocuments(documents, bits, fingerprint or None, vectors, words)


def _to_documents(table: pa.Table, from_arrow: FromArrow, bits: int) -> DocumentBatch:
    """Return the columns as documents."""
    packed, offsets = {}, {}
    for modality in MODALITIES:
        packed[modality], offsets[modality] = from_arrow(_one_array(table[modality]), bits // 8)
    return DocumentBatch(
        table["id"].to_pylist(),
        packed,
        offsets,
        table["fields"].to_pylist(),
        origins=table["origin"].to_pylist() if "origin" in table.column_names else [],
    )


def _column_checksums(table: pa.Table, documents: DocumentBatch) -> dict[str, int]:
    """Return the CRC-32 of the content of each column: offsets of texts or codes, then their bytes.

    ``documents``: those of the table.
    """
    found = {}
    for name in table.column_names:
        if name in MODALITIES:
            offsets, content = documents.offsets[name], documents.packed[name]
        else:
            offsets, content = _text_buffers(_one_array(table[name]))
        found[name] = zlib.crc32(
            bytes_of(content), zlib.crc32(bytes_of(offsets.astype("<i8", copy=False)))
        )
    return found


def _check_columns(table: pa.Table, documents: DocumentBatch, expected: Mapping[str, int]) -> None:
    """Raise ValueError if the content of a column is not what was written."""
    found = _column_checksums(table, documents)
    wrong = [name for name in found if found[name] != expected[name]]
    if wrong:
        raise ValueError(f"the content of column {wrong[0]} does not match the checksum")


def _text_buffers(array: pa.Array) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]]:
    """Return the offsets (n + 1,) and the bytes of a column of texts without nulls."""
    if array.null_count:
        raise ValueError("a text is missing")
    _, ends, data = array.buffers()
    kind = np.int64 if pa.types.is_large_string(array.type) else np.int32
    if not len(array):
        return np.zeros(1, np.int64), np.zeros(0, np.uint8)
    offsets = np.frombuffer(ends, kind)[array.offset :][: len(array) + 1].astype(np.int64)
    content = np.frombuffer(data or b"", np.uint8)[offsets[0] : offsets[-1]]
    return offsets - offsets[0], content


def _checksum(table: pa.Table, metadata: Mapping[str, str]) -> str:
    """Return the CRC-32 of columns, number of rows and metadata, which page checksums omit."""
    entries = sorted(item for item in metadata.items() if item[0].startswith("xmodal."))
    columns = [(field.name, str(field.type)) for field in table.schema]
    return f"{zlib.crc32(json.dumps([entries, columns, table.num_rows]).encode()):08x}"


def _damaged(path: Path, reason: object) -> IndexFailure:
    return IndexFailure(f"{path} is damaged ({' '.join(str(reason).split())[:120]}): index again")


def _codes_to_arrow(documents: DocumentBatch, modality: Modality) -> pa.Array:
    """Return the column of documents with at most one code each: the code, or null."""
    packed, present = documents.packed[modality], documents.present[modality]
    if not present.all():
        codes, packed = packed, np.zeros((len(present), packed.shape[1]), np.uint8)
        packed[present] = codes
    return _binary_array(packed, np.packbits(present, bitorder="little"))


def _lists_to_arrow(documents: DocumentBatch, modality: Modality) -> pa.Array:
    """Return the column of documents with any number of codes: lists of codes."""
    codes = _binary_array(documents.packed[modality], None)
    # Parquet names the values of a list "element"; the checksum includes names of types.
    kind = pa.large_list(pa.field("element", codes.type))
    return pa.LargeListArray.from_arrays(pa.array(documents.offsets[modality]), codes, type=kind)


def _binary_array(
    packed: npt.NDArray[np.uint8], valid: npt.NDArray[np.uint8] | None
) -> pa.FixedSizeBinaryArray:
    """Return rows of bytes as an array; ``valid``: bitmap of the rows that are not null."""
    n, width = packed.shape
    bitmap = None if valid is None else pa.py_buffer(valid.tobytes())
    data = pa.py_buffer(np.ascontiguousarray(packed))
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(width), n, [bitmap, data])


def _one_array(column: pa.ChunkedArray) -> pa.Array:
    """Return the chunks of a column as one array."""
    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], array.type)
    return array


def _codes_from_arrow(
    array: pa.Array, width: int
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Return ``packed`` and ``offsets`` of a column with at most one code per document."""
    valid = array.buffers()[0] if array.null_count else None
    present = np.ones(len(array), np.bool_)
    if valid is not None:
        # Not array.is_valid(): it imports pyarrow.compute, a quarter of a second of every search.
        bits = np.unpackbits(np.frombuffer(valid, np.uint8), bitorder="little")
        present = bits[array.offset : array.offset + len(array)].astype(np.bool_)
    return _to_numpy(array, width)[present], to_offsets(present)


def _lists_from_arrow(
    array: pa.Array, width: int
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Return ``packed`` and ``offsets`` of a column of lists of codes."""
    offsets = array.offsets.to_numpy()
    codes = array.values.slice(offsets[0], offsets[-1] - offsets[0])
    return _to_numpy(codes, width), offsets - offsets[0]


def _to_numpy(array: pa.Array, width: int) -> npt.NDArray[np.uint8]:
    """Return the bytes of an array of fixed-size binary, (n, width) uint8; a copy."""
    data = array.buffers()[1]
    if len(array) == 0 or data is None:
        return np.zeros((len(array), width), np.uint8)
    start, end = array.offset * width, (array.offset + len(array)) * width
    return np.frombuffer(data, np.uint8)[start:end].reshape(-1, width).copy()


FROM_ARROW = {
    ONE_CODE: _codes_from_arrow,
    SEVERAL_CODES: _lists_from_arrow,
    WITH_VECTORS: _lists_from_arrow,
}
