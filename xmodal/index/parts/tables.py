"""Documents of a part as an Arrow table, and their checksum."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from xmodal.checksums import bytes_of
from xmodal.index.documents import DocumentBatch
from xmodal.index.parts.info import PartInfo
from xmodal.modality import MODALITIES

if TYPE_CHECKING:
    import pyarrow as pa

UInt8 = npt.NDArray[np.uint8]


def schema(info: PartInfo) -> pa.Schema:
    import pyarrow as pa

    texts = [(name, pa.large_string()) for name in ("id", "fields", "origin")]
    columns = [(str(m), _list_type(info.bits // 8)) for m in MODALITIES]
    if info.dim is not None:
        columns += [(f"{m}_vectors", _list_type(info.dim)) for m in MODALITIES]
    return pa.schema([pa.field(name, kind, nullable=False) for name, kind in texts + columns])


def _list_type(width: int) -> Any:
    import pyarrow as pa

    return pa.large_list(pa.field("element", pa.binary(width), nullable=False))


def to_table(batch: DocumentBatch, schema: pa.Schema) -> pa.Table:
    import pyarrow as pa

    texts = {"id": batch.ids, "fields": batch.fields, "origin": batch.origin_texts()}
    columns: dict[str, Any] = {
        n: pa.array(values, pa.large_string()) for n, values in texts.items()
    }
    for modality in MODALITIES:
        offsets = batch.offsets[modality]
        columns[modality] = _lists(offsets, batch.packed[modality])
        if batch.vectors:
            columns[f"{modality}_vectors"] = _lists(offsets, batch.vectors[modality].view(np.uint8))
    return pa.table(columns, schema=schema)


def _lists(offsets: npt.NDArray[np.int64], rows: UInt8) -> pa.Array:
    """Return lists of rows of bytes (m, width)."""
    import pyarrow as pa

    kind = _list_type(rows.shape[1])
    data = pa.py_buffer(np.ascontiguousarray(rows))
    values = pa.FixedSizeBinaryArray.from_buffers(kind.value_type, len(rows), [None, data])
    return pa.LargeListArray.from_arrays(pa.array(offsets), values, type=kind)


def to_batch(table: pa.Table, info: PartInfo) -> DocumentBatch:
    """Return the documents of a row group. Raises exceptions of pyarrow, ValueError, LookupError,
    AttributeError for other columns than those of a part.
    """
    packed, offsets, vectors = {}, {}, {}
    for modality in MODALITIES:
        packed[modality], offsets[modality] = _rows_of(table[modality], info.bits // 8)
        if info.dim is not None:
            rows, _ = _rows_of(table[f"{modality}_vectors"], info.dim)
            vectors[modality] = rows.view(np.int8)
    texts = (table[name].to_pylist() for name in ("id", "fields", "origin"))
    ids, fields, origins = texts
    return DocumentBatch(ids, packed, offsets, fields, vectors, origins)


def _rows_of(column: Any, width: int) -> tuple[UInt8, npt.NDArray[np.int64]]:
    """Return rows of bytes (m, width) and offsets (n + 1,) of a column of lists."""
    array = column.combine_chunks()
    if array.type.value_type.byte_width != width or array.null_count:
        raise ValueError(f"a column of type {array.type}, expected {width} bytes")
    offsets = array.offsets.to_numpy()
    values = array.values.slice(offsets[0], offsets[-1] - offsets[0])
    data = values.buffers()[1]
    start = values.offset * width
    content = np.frombuffer(data if data is not None else b"", np.uint8)
    rows = content[start : start + len(values) * width].reshape(-1, width)
    return rows, offsets - offsets[0]


def checksum(batch: DocumentBatch) -> int:
    """Return the CRC-32 of the content of a batch."""
    found = 0
    for texts in (batch.ids, batch.fields, batch.origin_texts()):
        encoded = [text.encode() for text in texts]
        lengths = np.array([len(text) for text in encoded], "<i8")
        found = zlib.crc32(b"".join(encoded), zlib.crc32(bytes_of(lengths), found))
    for modality in MODALITIES:
        offsets = batch.offsets[modality].astype("<i8", copy=False)
        found = zlib.crc32(bytes_of(offsets), found)
        found = zlib.crc32(bytes_of(batch.packed[modality]), found)
        if batch.vectors:
            found = zlib.crc32(bytes_of(batch.vectors[modality]), found)
    return found
