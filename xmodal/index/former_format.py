"""Indexes of earlier versions: a Parquet file, ``documents.parquet``, and files of vectors.

They are read here and written by the next save in the present format (see
:mod:`xmodal.index.segments.commit`). Columns: ``id``; ``image`` and ``text``; ``fields`` (JSON);
``origin``, if one is known. In format 1 a code is fixed-size binary, null where a document has
none; in formats 2 and 3, ``image`` and ``text`` are lists of codes. In format 3, a file for each
modality beside the Parquet file has one row of ``dim`` int8 per code. The metadata contains format,
bits, bit order, the encoder's fingerprint (key ``xmodal.encoder``), the records of the files of
vectors and two checksums: that of the content of each column (key ``xmodal.columns``; the first
versions wrote none), and that of the metadata (key ``xmodal.seal``). Files of words are not read:
words are computed again.
"""

from __future__ import annotations

import json
import logging
import zlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from xmodal.checksums import bytes_of, is_damage
from xmodal.codes import check_bits
from xmodal.errors import CodeError, IndexFailure, IndexMismatch
from xmodal.index.documents import DocumentBatch, Vectors, to_offsets
from xmodal.index.segments.segment import Segment
from xmodal.modality import MODALITIES, Modality

ONE_CODE, SEVERAL_CODES, WITH_VECTORS = "1", "2", "3"
"""Formats: at most one code of each modality per document, lists of codes, lists and vectors."""
MANY = 100_000
"""Documents from which reading is announced."""
BIT_ORDER = "most significant first"
log = logging.getLogger(__name__)
_DAMAGE = (pa.ArrowException, CodeError, AttributeError, LookupError, TypeError, ValueError)
"""Exceptions for columns and metadata of other types or values than those of an index."""
FromArrow = Callable[[pa.Array, int], tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]]
"""Conversion of a column of codes of so many bytes to ``packed`` and ``offsets``."""


class StoredDocuments(NamedTuple):
    """Content of an index: documents, in order of id, width and fingerprint of their codes."""

    documents: DocumentBatch
    bits: int
    fingerprint: str | None

    def open_segments(self, folder: Path) -> list[Segment]:
        """Return the documents as one segment in memory."""
        return [Segment.of(self.documents)] if len(self.documents) else []


class VectorFile(NamedTuple):
    """Record of a file of vectors: its name, number and dimension of vectors, and CRC-32."""

    name: str
    rows: int
    dim: int
    checksum: int

    def read(self, folder: Path) -> npt.NDArray[np.int8]:
        """Return the vectors, (rows, dim); raises IndexFailure for a missing or damaged file."""
        path = folder / self.name
        try:
            content = path.read_bytes()
        except OSError as error:
            if not is_damage(error):
                raise IndexFailure(f"{path} cannot be read: {error.strerror}") from None
            raise _damaged(path, error.strerror or error) from None
        if len(content) != self.rows * self.dim or zlib.crc32(content) != self.checksum:
            raise _damaged(path, "its content does not match the checksum")
        return np.frombuffer(content, np.int8).reshape(self.rows, self.dim)


def read_former(path: Path) -> StoredDocuments:
    """Return the content of a Parquet file and of the files of vectors that it names.

    Raises IndexFailure for damaged files, IndexMismatch for an unknown format.
    """
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            if (number := file.metadata.num_rows) >= MANY:
                log.info(
                    "%s is of an earlier version: all %s documents are read; the next change "
                    "of the index converts them",
                    *(path, f"{number:,}"),
                )
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
        files = _vector_files(metadata.get("xmodal.vectors", "{}"))
    except _DAMAGE as error:
        raise _damaged(path, error) from None
    vectors: Vectors = {modality: file.read(path.parent) for modality, file in files.items()}
    try:
        documents = replace(documents, vectors=vectors)
    except CodeError as error:
        raise _damaged(path, error) from None
    return StoredDocuments(documents, bits, fingerprint or None)


def _vector_files(text: str) -> dict[Modality, VectorFile]:
    """Return the records of the files of vectors; raises TypeError, ValueError or LookupError."""
    records = json.loads(text)
    if not records:
        return {}
    files = {modality: VectorFile(**records[modality]) for modality in MODALITIES}
    for file in files.values():
        counts = (file.rows, file.dim, file.checksum)
        if not all(isinstance(count, int) and count >= 0 for count in counts):
            raise ValueError(f"the record of a file of vectors is {tuple(file)}")
        name = str(file.name)
        if not name.startswith("vectors-") or Path(name).name != file.name:
            raise ValueError(f"a file of vectors is named {name!r}")
    return files


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
    return IndexFailure(
        f"{path} is missing or damaged ({' '.join(str(reason).split())[:120]}): index again"
    )


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
