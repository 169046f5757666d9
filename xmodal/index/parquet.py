"""The Parquet file of a local index.

Columns: ``id``; ``image`` and ``text`` (fixed-size binary, null where a document has no code);
``fields`` (JSON). The file's metadata contains format, bits, bit order, the encoder's fingerprint
(key ``xmodal.encoder``) and a checksum (key ``xmodal.seal``).
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from xmodal.errors import IndexFailure, IndexMismatch
from xmodal.index.documents import DocumentBatch
from xmodal.modality import MODALITIES

FORMAT = "1"
BIT_ORDER = "most significant first"


def write_documents(
    path: Path, documents: DocumentBatch, *, bits: int, fingerprint: str | None
) -> None:
    """Write documents to a new file, with page checksums."""
    columns: dict[str, Any] = {"id": pa.array(documents.ids, pa.string())}
    for modality in MODALITIES:
        valid = np.packbits(documents.present[modality], bitorder="little")
        data = pa.py_buffer(np.ascontiguousarray(documents.packed[modality]))
        columns[modality] = pa.FixedSizeBinaryArray.from_buffers(
            pa.binary(bits // 8), len(documents), [pa.py_buffer(valid.tobytes()), data]
        )
    columns["fields"] = pa.array(documents.fields, pa.large_string())
    table = pa.table(columns)
    metadata = {
        "xmodal.format": FORMAT,
        "xmodal.bits": str(bits),
        "xmodal.bit_order": BIT_ORDER,
        "xmodal.encoder": fingerprint or "",
    }
    metadata["xmodal.seal"] = _checksum(table, metadata)
    table = table.replace_schema_metadata(metadata)
    pq.write_table(table, path, write_page_checksum=True, compression="zstd")


def read_documents(path: Path) -> tuple[DocumentBatch, int, str | None]:
    """Return documents, bits and fingerprint of a file.

    Raises IndexFailure for a damaged file, IndexMismatch for an unknown format.
    """
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            table = file.read()
        metadata = {k.decode(): v.decode() for k, v in (table.schema.metadata or {}).items()}
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise _damaged(path, error) from None
    layout = metadata.get("xmodal.format"), metadata.get("xmodal.bit_order")
    if layout != (FORMAT, BIT_ORDER):
        raise IndexMismatch(
            f"{path} has format {layout[0]!r}, bit order {layout[1]!r}; this version reads "
            f"format {FORMAT!r}, {BIT_ORDER!r}: index again, or use the version that wrote it"
        )
    if metadata.pop("xmodal.seal", None) != _checksum(table, metadata):
        raise _damaged(path, "columns or metadata do not match the checksum")
    bits = int(metadata["xmodal.bits"])
    packed, present = {}, {}
    for modality in MODALITIES:
        packed[modality], present[modality] = _from_arrow(table[modality], bits // 8)
    documents = DocumentBatch(table["id"].to_pylist(), packed, present, table["fields"].to_pylist())
    return documents, bits, metadata["xmodal.encoder"] or None


def _checksum(table: pa.Table, metadata: Mapping[str, str]) -> str:
    """Return the CRC-32 of columns, number of rows and metadata, which page checksums omit."""
    entries = sorted(item for item in metadata.items() if item[0].startswith("xmodal."))
    columns = [(field.name, str(field.type)) for field in table.schema]
    return f"{zlib.crc32(json.dumps([entries, columns, table.num_rows]).encode()):08x}"


def _damaged(path: Path, reason: object) -> IndexFailure:
    return IndexFailure(f"{path} is damaged ({' '.join(str(reason).split())[:120]}): index again")


def _from_arrow(column: Any, width: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    """Return a column's codes, (n, width) uint8, zero where null, and its validity, (n,) bool."""
    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], array.type)
    n = len(array)
    present = np.asarray(array.is_valid().to_numpy(zero_copy_only=False), dtype=np.bool_)
    data = array.buffers()[1]
    if n == 0 or data is None:
        return np.zeros((n, width), np.uint8), present
    flat = np.frombuffer(data, np.uint8)[array.offset * width : (array.offset + n) * width]
    packed = flat.reshape(n, width).copy()
    packed[~present] = 0
    return packed, present
