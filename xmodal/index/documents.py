"""Documents as columns: codes of both sides, fields as JSON, and the Parquet file that keeps them.

The file is readable by any Parquet reader: ``id``, ``image`` and ``text`` (fixed-size binary, null
where a document has no code), ``fields`` (JSON). Its metadata says bits, bit order and encoder.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from xmodal.codes import BinaryCodes
from xmodal.errors import ConfigError, IndexFailure, IndexMismatch
from xmodal.modality import MODALITIES, Modality

FORMAT = "1"
BIT_ORDER = "most significant first"


@dataclass(frozen=True)
class Documents:
    """Codes and fields of ``n`` documents, aligned with ``ids``.

    ``packed[side]`` is (n, bits / 8) uint8, zero where ``present[side]``, (n,) bool, is false;
    ``fields`` holds one JSON object a document.
    """

    ids: list[str]
    packed: Mapping[Modality, npt.NDArray[np.uint8]]
    present: Mapping[Modality, npt.NDArray[np.bool_]]
    fields: list[str]

    @classmethod
    def of(
        cls,
        ids: Sequence[str],
        bits: int,
        codes: Mapping[Modality, BinaryCodes | None],
        fields: Sequence[Mapping[str, Any]] | None,
    ) -> Documents:
        """Documents as a caller hands them over; copies everything."""
        n = len(ids)
        packed, present = {}, {}
        for side in MODALITIES:
            given = codes.get(side)
            packed[side] = (
                np.zeros((n, bits // 8), np.uint8) if given is None else given.packed.copy()
            )
            present[side] = np.full(n, given is not None)
        texts = (
            ["{}"] * n
            if fields is None
            else [_to_json(one, id_) for one, id_ in zip(fields, ids, strict=True)]
        )
        return cls(list(ids), packed, present, texts)

    @classmethod
    def empty(cls, bits: int) -> Documents:
        """No documents."""
        return cls.of([], bits, {}, None)

    @classmethod
    def join(cls, parts: Sequence[Documents]) -> Documents:
        """The documents of all parts, in order."""
        return cls(
            [id_ for part in parts for id_ in part.ids],
            {side: np.concatenate([part.packed[side] for part in parts]) for side in MODALITIES},
            {side: np.concatenate([part.present[side] for part in parts]) for side in MODALITIES},
            [text for part in parts for text in part.fields],
        )

    def take(self, rows: Sequence[int] | npt.NDArray[np.int64]) -> Documents:
        """The documents at ``rows``, in that order."""
        where = np.asarray(rows, dtype=np.int64)
        return Documents(
            [self.ids[row] for row in where],
            {side: self.packed[side][where] for side in MODALITIES},
            {side: self.present[side][where] for side in MODALITIES},
            [self.fields[row] for row in where],
        )

    def write(self, path: Path, *, bits: int, encoder: str | None) -> None:
        """Write the Parquet file, page checksums included."""
        columns: dict[str, Any] = {"id": pa.array(self.ids, pa.string())}
        for side in MODALITIES:
            valid = pa.py_buffer(np.packbits(self.present[side], bitorder="little").tobytes())
            data = pa.py_buffer(np.ascontiguousarray(self.packed[side]))
            columns[side] = pa.FixedSizeBinaryArray.from_buffers(
                pa.binary(bits // 8), len(self.ids), [valid, data]
            )
        columns["fields"] = pa.array(self.fields, pa.large_string())
        table = pa.table(columns)
        metadata = {
            "xmodal.format": FORMAT,
            "xmodal.bits": str(bits),
            "xmodal.bit_order": BIT_ORDER,
            "xmodal.encoder": encoder or "",
        }
        metadata["xmodal.seal"] = _seal(table, metadata)
        table = table.replace_schema_metadata(metadata)
        pq.write_table(table, path, write_page_checksum=True, compression="zstd")

    @classmethod
    def read(cls, path: Path) -> tuple[Documents, int, str | None]:
        """Documents, bits and encoder of a file.

        Raises IndexFailure if it is damaged, IndexMismatch if it has an unknown layout.
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
        if metadata.pop("xmodal.seal", None) != _seal(table, metadata):
            raise _damaged(path, "its columns or metadata do not fit its seal")
        bits = int(metadata["xmodal.bits"])
        packed, present = {}, {}
        for side in MODALITIES:
            packed[side], present[side] = _from_arrow(table[side], bits // 8)
        documents = cls(table["id"].to_pylist(), packed, present, table["fields"].to_pylist())
        return documents, bits, metadata["xmodal.encoder"] or None


def _seal(table: pa.Table, metadata: Mapping[str, str]) -> str:
    """Checksum of what the page checksums do not cover: columns, number of rows, metadata."""
    ours = sorted(item for item in metadata.items() if item[0].startswith("xmodal."))
    columns = [(field.name, str(field.type)) for field in table.schema]
    return f"{zlib.crc32(json.dumps([ours, columns, table.num_rows]).encode()):08x}"


def _damaged(path: Path, why: object) -> IndexFailure:
    return IndexFailure(f"{path} is damaged ({' '.join(str(why).split())[:120]}): index again")


def _to_json(fields: Mapping[str, Any], id_: str) -> str:
    try:
        text = json.dumps(dict(fields), ensure_ascii=False, allow_nan=False)
        text.encode()  # fails here, not at a later save, for text that is not valid Unicode
        return text
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"the fields of {id_!r} cannot be stored ({error}): expected text, finite numbers, "
            "true/false, or lists of these"
        ) from None


def _from_arrow(column: Any, width: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
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
