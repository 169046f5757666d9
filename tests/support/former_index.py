"""Writing of local indexes in the formats 1 to 3 of earlier versions; see former_format.py."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from xmodal.index.documents import DocumentBatch
from xmodal.index.folder import FORMER_FILE
from xmodal.index.former_format import BIT_ORDER, _checksum, _column_checksums
from xmodal.modality import MODALITIES, Modality


def write_former(
    folder: Path, documents: DocumentBatch, *, bits: int, fingerprint: str | None
) -> Path:
    """Write documents, in order of id, as earlier versions did; return the Parquet file."""
    folder.mkdir(parents=True, exist_ok=True)
    several = any((documents.counts(modality) > 1).any() for modality in MODALITIES)
    to_arrow = _lists if several or documents.vectors else _codes
    columns: dict[str, Any] = {"id": pa.array(documents.ids, pa.string())}
    columns |= {modality: to_arrow(documents, modality) for modality in MODALITIES}
    columns["fields"] = pa.array(documents.fields, pa.large_string())
    if documents.origins:
        columns["origin"] = pa.array(documents.origins, pa.large_string())
    table = pa.table(columns)
    metadata = {
        "xmodal.format": "3" if documents.vectors else "2" if several else "1",
        "xmodal.bits": str(bits),
        "xmodal.bit_order": BIT_ORDER,
        "xmodal.encoder": fingerprint or "",
        "xmodal.words": json.dumps({"name": "words-0", "checksum": 0, "version": "1"}),
    }
    (folder / "words-0").write_bytes(b"words")
    if documents.vectors:
        records = {m: _write_vectors(folder, m, documents.vectors[m]) for m in MODALITIES}
        metadata["xmodal.vectors"] = json.dumps(records)
    metadata["xmodal.columns"] = json.dumps(_column_checksums(table, documents))
    metadata["xmodal.seal"] = _checksum(table, metadata)
    path = folder / FORMER_FILE
    table = table.replace_schema_metadata(metadata)
    pq.write_table(table, path, write_page_checksum=True, compression="zstd")
    return path


def _write_vectors(
    folder: Path, modality: Modality, vectors: npt.NDArray[np.int8]
) -> dict[str, Any]:
    """Write a file of vectors, and one for the checksums of its blocks; return its record."""
    name, content = f"vectors-{modality}-0", vectors.tobytes()
    (folder / name).write_bytes(content)
    (folder / f"{name}.crc").write_bytes(b"checksums of blocks")
    rows, dim = vectors.shape
    return {"name": name, "rows": rows, "dim": dim, "checksum": zlib.crc32(content)}


def _codes(documents: DocumentBatch, modality: Modality) -> pa.Array:
    """Return the column of documents with at most one code each: the code, or null."""
    packed = documents.packed[modality]
    codes = iter([row.tobytes() for row in packed])
    present = documents.present[modality].tolist()
    return pa.array([next(codes) if one else None for one in present], pa.binary(packed.shape[1]))


def _lists(documents: DocumentBatch, modality: Modality) -> pa.Array:
    """Return the column of documents with any number of codes: lists of codes."""
    packed = documents.packed[modality]
    codes = pa.array([row.tobytes() for row in packed], pa.binary(packed.shape[1]))
    kind = pa.large_list(pa.field("element", codes.type))
    return pa.LargeListArray.from_arrays(pa.array(documents.offsets[modality]), codes, type=kind)
