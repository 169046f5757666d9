"""The local index: exact Hamming search in memory (FAISS underneath), kept in a folder.

Rows are held in order of id, so that the order in which ``IndexBinaryFlat`` returns ties (by
position) *is* the tie rule of the contract. Additions are collected and merged at the next search.

On disk an index is one Parquet file, ``documents.parquet``: id, image code, text code, fields as
JSON, with bits, bit order and encoder in the file's metadata. A save writes a new file, syncs it
and renames it over the old one, so that a kill at any moment leaves the old index or the new one.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from xmodal.codes import BinaryCodes, check_bits
from xmodal.errors import ConfigError, IndexFailure, IndexMismatch, IndexMissing
from xmodal.index import (
    MODALITIES,
    Hit,
    Hits,
    Modality,
    check_documents,
    check_identity,
    check_search,
)
from xmodal.where import Exists, parse, values_of

FILE = "documents.parquet"
FORMAT = "1"
BIT_ORDER = "most significant first"


def open_folder(
    folder: str | Path,
    *,
    bits: int | None = None,
    encoder: str | None = None,
    create: bool = False,
) -> HammingIndex:
    """Open the index kept in ``folder``, or with ``create`` make one of ``bits`` bits there.

    Raises IndexMissing, IndexMismatch, or IndexFailure for a folder that is not an index.
    """
    path = Path(folder)
    if (path / FILE).is_file():
        return HammingIndex._load(path, bits, encoder)
    if path.is_file() or (path.is_dir() and any(path.iterdir())):
        raise IndexFailure(
            f"{path} exists and is not an index (it has no {FILE}): name a new folder"
        )
    if not create:
        raise IndexMissing(f"no index at {path}: make one with xmodal index DATA --index {path}")
    if bits is None:
        raise ConfigError(f"to make a new index at {path}, say how many bits its codes have")
    return HammingIndex(bits, encoder=encoder, folder=path)


class HammingIndex:
    """Exact search over codes in memory; see :class:`xmodal.index.Index` for the contract.

    ``bits`` and ``encoder`` are what the index holds. With ``folder`` it is saved there by
    ``save`` and ``close``; without, it lives in memory only.
    """

    def __init__(
        self, bits: int, *, encoder: str | None = None, folder: str | Path | None = None
    ) -> None:
        self.bits = check_bits(bits)
        self.encoder = encoder
        self.folder = Path(folder) if folder is not None else None
        self._seen: tuple[int, ...] | None = None  # the file that this content came from
        self._dirty = folder is not None  # an index that was asked for exists, even empty
        self._pending: list[tuple[list[str], _Rows]] = []
        self._ids: list[str] = []
        self._rows = _Rows.empty(self.bits)
        self._forget_derived()

    def add(
        self,
        ids: Sequence[str],
        *,
        image: BinaryCodes | None = None,
        text: BinaryCodes | None = None,
        fields: Sequence[Mapping[str, Any]] | None = None,
    ) -> int:
        """Store documents; see the contract. They become durable with ``save`` or ``close``."""
        codes: dict[Modality, BinaryCodes | None] = {"image": image, "text": text}
        check_documents(ids, self.bits, codes, fields)
        texts = [_to_json(one, i) for one, i in zip(fields, ids, strict=True)] if fields else None
        self._pending.append((list(ids), _Rows.of(len(ids), self.bits, codes, texts)))
        self._dirty = True
        return len(ids)

    def search(
        self,
        queries: BinaryCodes,
        k: int,
        *,
        target: Modality,
        where: Mapping[str, Any] | None = None,
        radius: int | None = None,
    ) -> Hits:
        """The best ``k`` a query on side ``target``; see the contract."""
        check_search(queries, self.bits, k, target, radius)
        conditions = parse(where)
        self._merge()
        flat, rows = self._flat(target)
        allowed = None
        count = len(rows)
        if conditions:
            mask = self._mask(conditions)[rows]
            count = int(mask.sum())
            # The selector reads this buffer while FAISS searches: it must stay alive until then.
            allowed = np.packbits(mask, bitorder="little")
        if count == 0 or len(queries) == 0:
            return [[] for _ in range(len(queries))]
        parameters = (
            faiss.SearchParameters(sel=faiss.IDSelectorBitmap(allowed))
            if allowed is not None
            else None
        )
        with _threads_for(len(queries)):
            distances, found = flat.search(queries.packed, min(k, count), params=parameters)
        limit = self.bits if radius is None else radius
        return [
            [self._hit(rows[p], d) for d, p in zip(ds, ps, strict=True) if p >= 0 and d <= limit]
            for ds, ps in zip(distances.tolist(), found.tolist(), strict=True)
        ]

    def delete(self, ids: Sequence[str]) -> int:
        """Remove documents; see the contract."""
        self._merge()
        gone = set(ids)
        keep = [row for row, one in enumerate(self._ids) if one not in gone]
        removed = len(self._ids) - len(keep)
        if removed:
            self._ids = [self._ids[row] for row in keep]
            self._rows = self._rows.take(np.array(keep, dtype=np.int64))
            self._dirty = True
            self._forget_derived()
        return removed

    def __len__(self) -> int:
        self._merge()
        return len(self._ids)

    def __enter__(self) -> HammingIndex:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is None:
            self.close()

    def close(self) -> None:
        """Save, if the index has a folder."""
        if self.folder is not None:
            self.save()

    def save(self) -> None:
        """Write everything to the folder: after a kill at any moment it holds the old or the new.

        Raises IndexFailure if another process changed the index since it was opened here.
        """
        if self.folder is None:
            raise ConfigError("this index has no folder: give one when it is made")
        if not self._dirty:
            return
        self._merge()
        self.folder.mkdir(parents=True, exist_ok=True)
        target = self.folder / FILE
        with _lock(self.folder):
            if _identity(target) != self._seen:
                raise IndexFailure(
                    f"{self.folder} was changed by another process since it was opened: "
                    "open it again and repeat"
                )
            for left in self.folder.glob("saving-*"):  # of a process that was killed
                left.unlink()
            handle, name = tempfile.mkstemp(prefix="saving-", dir=self.folder)
            os.close(handle)
            try:
                pq.write_table(self._table(), name, write_page_checksum=True, compression="zstd")
                _sync(Path(name))
                os.replace(name, target)
                _sync(self.folder)
            finally:
                Path(name).unlink(missing_ok=True)
            self._seen = _identity(target)
        self._dirty = False

    def codes(self, side: Modality) -> tuple[list[str], BinaryCodes]:
        """The ids that have a code on a side, in order, and those codes."""
        self._merge()
        rows = np.flatnonzero(self._rows.present[side])
        return [self._ids[row] for row in rows], BinaryCodes(
            self._rows.packed[side][rows], self.bits
        )

    # ---- how it works ------------------------------------------------------------------------

    def _hit(self, row: int, distance: int) -> Hit:
        return Hit(self._ids[row], distance, json.loads(self._rows.fields[row]))

    def _forget_derived(self) -> None:
        """Drop what is computed from the rows: FAISS copies and inverted lists."""
        self._flats: dict[Modality, tuple[Any, npt.NDArray[np.int64]]] = {}
        self._inverted: dict[str, dict[tuple[type, Any], npt.NDArray[np.int64]]] = {}

    def _merge(self) -> None:
        """Bring pending additions into the rows, in order of id; the last of equal ids stays."""
        if not self._pending:
            return
        ids = self._ids + [one for batch, _ in self._pending for one in batch]
        rows = _Rows.join([self._rows, *(rows for _, rows in self._pending)])
        last = {one: position for position, one in enumerate(ids)}
        self._ids = sorted(last)
        self._rows = rows.take(np.array([last[one] for one in self._ids], dtype=np.int64))
        self._pending = []
        self._forget_derived()

    def _flat(self, side: Modality) -> tuple[Any, npt.NDArray[np.int64]]:
        """A FAISS index over the codes of one side, and the row of each of its positions."""
        if side not in self._flats:
            rows = np.flatnonzero(self._rows.present[side])
            flat = faiss.IndexBinaryFlat(self.bits)
            flat.add(np.ascontiguousarray(self._rows.packed[side][rows]))
            self._flats[side] = flat, rows
        return self._flats[side]

    def _mask(self, conditions: Sequence[Any]) -> npt.NDArray[np.bool_]:
        """Which rows fulfil all conditions, by inverted lists (value -> rows) built once a field."""
        missing = {one.field for one in conditions} - set(self._inverted)
        if missing:
            lists: dict[str, dict[tuple[type, Any], list[int]]] = {
                field: defaultdict(list) for field in missing
            }
            for row, text in enumerate(self._rows.fields):
                fields = json.loads(text)
                for field in missing & fields.keys():
                    for value in values_of(fields[field]):
                        if isinstance(value, str | int | float):
                            lists[field][type(value), value].append(row)
            for field, by_value in lists.items():
                self._inverted[field] = {key: np.array(rows) for key, rows in by_value.items()}
        mask = np.ones(len(self._ids), dtype=np.bool_)
        for one in conditions:
            here = np.zeros(len(self._ids), dtype=np.bool_)
            for (_, value), rows in self._inverted[one.field].items():
                if one.accepts(value):
                    here[rows] = True
            mask &= ~here if isinstance(one, Exists) and not one.present else here
        return mask

    # ---- the file ----------------------------------------------------------------------------

    def _table(self) -> pa.Table:
        columns: dict[str, Any] = {"id": pa.array(self._ids, pa.string())}
        kind = pa.binary(self.bits // 8)
        for side in MODALITIES:
            valid = pa.py_buffer(np.packbits(self._rows.present[side], bitorder="little").tobytes())
            data = pa.py_buffer(np.ascontiguousarray(self._rows.packed[side]))
            columns[side] = pa.FixedSizeBinaryArray.from_buffers(
                kind, len(self._ids), [valid, data]
            )
        columns["fields"] = pa.array(self._rows.fields, pa.large_string())
        metadata = {
            "xmodal.format": FORMAT,
            "xmodal.bits": str(self.bits),
            "xmodal.bit_order": BIT_ORDER,
            "xmodal.encoder": self.encoder or "",
        }
        return pa.table(columns).replace_schema_metadata(metadata)

    @classmethod
    def _load(cls, folder: Path, bits: int | None, encoder: str | None) -> HammingIndex:
        path = folder / FILE
        seen = _identity(path)
        try:
            with pq.ParquetFile(path, page_checksum_verification=True) as file:
                table = file.read()
            metadata = {k.decode(): v.decode() for k, v in (table.schema.metadata or {}).items()}
        except (pa.ArrowException, OSError) as error:
            raise IndexFailure(
                f"{path} is damaged ({' '.join(str(error).split())[:120]}): index again"
            ) from None
        layout = metadata.get("xmodal.format"), metadata.get("xmodal.bit_order")
        if layout != (FORMAT, BIT_ORDER):
            raise IndexMismatch(
                f"{path} has format {layout[0]!r}, bit order {layout[1]!r}; this version reads "
                f"format {FORMAT!r}, {BIT_ORDER!r}: index again, or use the version that wrote it"
            )
        index = cls(
            int(metadata["xmodal.bits"]), encoder=metadata["xmodal.encoder"] or None, folder=folder
        )
        check_identity(
            str(folder),
            bits=index.bits,
            encoder=index.encoder,
            want_bits=bits,
            want_encoder=encoder,
        )
        if index.encoder is None:
            index.encoder = encoder
        table = table.combine_chunks()
        packed, present = {}, {}
        for side in MODALITIES:
            packed[side], present[side] = _from_arrow(table[side], index.bits // 8)
        index._ids = table["id"].to_pylist()
        index._rows = _Rows(packed, present, table["fields"].to_pylist())
        index._seen = seen
        index._dirty = False
        return index


class _Rows:
    """Codes, their presence and fields of documents, aligned by row.

    ``packed[side]`` is (n, bits / 8) uint8, zero where ``present[side]`` (n,) is false.
    """

    def __init__(
        self,
        packed: dict[Modality, npt.NDArray[np.uint8]],
        present: dict[Modality, npt.NDArray[np.bool_]],
        fields: list[str],
    ) -> None:
        self.packed, self.present, self.fields = packed, present, fields

    @classmethod
    def of(
        cls,
        n: int,
        bits: int,
        codes: Mapping[Modality, BinaryCodes | None],
        fields: list[str] | None,
    ) -> _Rows:
        packed, present = {}, {}
        for side, given in codes.items():
            packed[side] = (
                np.zeros((n, bits // 8), np.uint8) if given is None else given.packed.copy()
            )
            present[side] = np.full(n, given is not None)
        return cls(packed, present, fields if fields is not None else ["{}"] * n)

    @classmethod
    def empty(cls, bits: int) -> _Rows:
        return cls.of(0, bits, dict.fromkeys(MODALITIES), None)

    @classmethod
    def join(cls, parts: Sequence[_Rows]) -> _Rows:
        return cls(
            {side: np.concatenate([part.packed[side] for part in parts]) for side in MODALITIES},
            {side: np.concatenate([part.present[side] for part in parts]) for side in MODALITIES},
            [text for part in parts for text in part.fields],
        )

    def take(self, rows: npt.NDArray[np.int64]) -> _Rows:
        return _Rows(
            {side: self.packed[side][rows] for side in MODALITIES},
            {side: self.present[side][rows] for side in MODALITIES},
            [self.fields[row] for row in rows],
        )


def _to_json(fields: Mapping[str, Any], id_: str) -> str:
    try:
        return json.dumps(dict(fields), ensure_ascii=False, allow_nan=False)
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


@contextmanager
def _threads_for(queries: int) -> Iterator[None]:
    """FAISS on one thread for one query: threads that wait busily cost more than they bring."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(min(before, queries))
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """One writer at a time; the system lets go of the lock when a process ends, however it ends."""
    with open(folder / "lock", "w") as file:
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        except ImportError:  # no such lock on this system: the check against ``_seen`` remains
            pass
        yield


def _identity(path: Path) -> tuple[int, ...] | None:
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    return stat.st_ino, stat.st_mtime_ns, stat.st_size


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
