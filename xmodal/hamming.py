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
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from xmodal.codes import BinaryCodes, check_bits
from xmodal.documents import Documents
from xmodal.errors import ConfigError, IndexFailure, IndexMissing, XmodalError
from xmodal.index import (
    MODALITIES,
    Addition,
    Facets,
    Hit,
    Hits,
    Modality,
    check_documents,
    check_identity,
    check_ids,
    check_search,
    to_facets,
)
from xmodal.where import Condition, Exists, Scalar, canonical, parse, values_of

FILE, LOCK = "documents.parquet", "lock"


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
        return HammingIndex.load(path, bits=bits, encoder=encoder)
    if path.is_file() or (path.is_dir() and not all(map(_is_ours, path.iterdir()))):
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
        self._refused: tuple[int, ...] | None = ()  # the one that could not take its place
        self._dirty = folder is not None  # an index that was asked for exists, even empty
        self._pending: list[Documents] = []
        self._documents = Documents.empty(self.bits)
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
        self._pending.append(Documents.of(ids, self.bits, codes, fields))
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
        check_ids(ids)
        self._merge()
        gone = set(ids)
        keep = [row for row, id_ in enumerate(self._documents.ids) if id_ not in gone]
        removed = len(self._documents.ids) - len(keep)
        if removed:
            self._documents = self._documents.take(keep)
            self._dirty = True
            self._forget_derived()
        return removed

    def codes_of(self, ids: Sequence[str], side: Modality) -> tuple[list[str], BinaryCodes]:
        """Those of ``ids`` that have a code on ``side``; see the contract."""
        rows, present = self._rows(ids), self._documents.present[side]
        known = {id_: row for id_, row in rows.items() if present[row]}
        return list(known), BinaryCodes(
            self._documents.packed[side][list(known.values())], self.bits
        )

    def fields_of(self, ids: Sequence[str]) -> dict[str, Mapping[str, Any]]:
        """The fields of those of ``ids`` that are there; see the contract."""
        return {
            id_: json.loads(self._documents.fields[row]) for id_, row in self._rows(ids).items()
        }

    def facets(self, most: int = 20) -> Facets:
        """What a search can be narrowed by; see the contract."""
        self._merge()
        counts: dict[str, Counter[str]] = defaultdict(Counter)
        for text in self._documents.fields:
            for field, value in json.loads(text).items():
                said = {canonical(one) for one in values_of(value) if isinstance(one, Scalar)}
                counts[field].update(said)
        return to_facets(counts, most)

    def __len__(self) -> int:
        self._merge()
        return len(self._documents.ids)

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
            new = self.folder / f"saving-{os.getpid()}"
            try:
                self._documents.write(new, bits=self.bits, encoder=self.encoder)
                _sync(new)
                os.replace(new, target)
                _sync(self.folder)
            finally:
                new.unlink(missing_ok=True)
            self._seen = _identity(target)
        self._dirty = False

    @classmethod
    def load(cls, folder: Path, *, bits: int | None, encoder: str | None) -> HammingIndex:
        """The index saved in ``folder``, if it fits; see :func:`open_folder`."""
        seen = _identity(folder / FILE)
        documents, found_bits, found_encoder = Documents.read(folder / FILE)
        check_identity(
            str(folder),
            bits=found_bits,
            encoder=found_encoder,
            want_bits=bits,
            want_encoder=encoder,
        )
        index = cls(found_bits, encoder=found_encoder or encoder, folder=folder)
        index._documents = documents
        index._seen = seen
        index._dirty = False
        return index

    def renewed(self) -> HammingIndex | None:
        """The index as another process has saved it in the folder since; None if none did.

        What was added here and not saved is not in it. Raises what opening raises, once for each
        state of the folder: what cannot be used is not read again.
        """
        now = None if self.folder is None else _identity(self.folder / FILE)
        if self.folder is None or now in (self._seen, self._refused):
            return None
        try:
            return open_folder(self.folder, bits=self.bits, encoder=self.encoder)
        except XmodalError:
            self._refused = now
            raise

    def codes(self, side: Modality) -> tuple[list[str], BinaryCodes]:
        """The ids that have a code on a side, in order, and those codes."""
        self._merge()
        rows = np.flatnonzero(self._documents.present[side])
        packed = self._documents.packed[side][rows]
        return [self._documents.ids[row] for row in rows], BinaryCodes(packed, self.bits)

    def additions(self, size: int = 4096) -> Iterator[Addition]:
        """Everything in it, in a form that another index can add; at most ``size`` at a time."""
        self._merge()
        kept = self._documents
        shapes = kept.present["image"] * 2 + kept.present["text"]
        for shape in np.unique(shapes):
            rows = np.flatnonzero(shapes == shape)
            for start in range(0, len(rows), size):
                part = kept.take(rows[start : start + size])
                codes = {
                    side: BinaryCodes(part.packed[side], self.bits)
                    if part.present[side][0]
                    else None
                    for side in MODALITIES
                }
                fields: list[Mapping[str, Any]] = [json.loads(text) for text in part.fields]
                yield Addition(part.ids, codes["image"], codes["text"], fields)

    # ---- how it works ------------------------------------------------------------------------

    def _hit(self, row: int, distance: int) -> Hit:
        return Hit(self._documents.ids[row], distance, json.loads(self._documents.fields[row]))

    def _forget_derived(self) -> None:
        """Drop what is computed from the rows: FAISS copies, places of ids, inverted lists."""
        self._places: dict[str, int] | None = None
        self._flats: dict[Modality, tuple[Any, npt.NDArray[np.int64]]] = {}
        self._inverted: dict[str, dict[tuple[type, Any], npt.NDArray[np.int64]]] = {}

    def _rows(self, ids: Sequence[str]) -> dict[str, int]:
        """The rows of those of ``ids`` that are there, in the order asked for."""
        self._merge()
        if self._places is None:
            self._places = {id_: row for row, id_ in enumerate(self._documents.ids)}
        return {id_: self._places[id_] for id_ in ids if id_ in self._places}

    def _merge(self) -> None:
        """Bring pending additions into the rows, in order of id; the last of equal ids stays."""
        if not self._pending:
            return
        everything = Documents.join([self._documents, *self._pending])
        last = {id_: row for row, id_ in enumerate(everything.ids)}
        self._documents = everything.take([last[id_] for id_ in sorted(last)])
        self._pending = []
        self._forget_derived()

    def _flat(self, side: Modality) -> tuple[Any, npt.NDArray[np.int64]]:
        """A FAISS index over the codes of one side, and the row of each of its positions."""
        if side not in self._flats:
            rows = np.flatnonzero(self._documents.present[side])
            flat = faiss.IndexBinaryFlat(self.bits)
            flat.add(np.ascontiguousarray(self._documents.packed[side][rows]))
            self._flats[side] = flat, rows
        return self._flats[side]

    def _mask(self, conditions: Sequence[Condition]) -> npt.NDArray[np.bool_]:
        """Which rows fulfil all conditions, by inverted lists, value -> rows, built once each."""
        missing = {one.field for one in conditions} - set(self._inverted)
        if missing:
            lists: dict[str, dict[tuple[type, Any], list[int]]] = {
                field: defaultdict(list) for field in missing
            }
            for row, text in enumerate(self._documents.fields):
                fields = json.loads(text)
                for field in missing & fields.keys():
                    for value in values_of(fields[field]):
                        if isinstance(value, Scalar):
                            lists[field][type(value), value].append(row)
            for field, by_value in lists.items():
                self._inverted[field] = {key: np.array(rows) for key, rows in by_value.items()}
        mask = np.ones(len(self._documents.ids), dtype=np.bool_)
        for one in conditions:
            here = np.zeros(len(self._documents.ids), dtype=np.bool_)
            for (_, value), rows in self._inverted[one.field].items():
                if one.accepts(value):
                    here[rows] = True
            mask &= ~here if isinstance(one, Exists) and not one.present else here
        return mask


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
    """One writer at a time; the system releases the lock when the process ends or is killed.

    A symbolic link at the place of the lock is not followed. Raises IndexFailure.
    """
    from filelock import FileLock  # only a save needs it

    path = folder / LOCK
    lock = FileLock(path)
    try:
        if path.is_symlink():
            raise OSError("it is a symbolic link, expected a file")
        lock.acquire()
    except OSError as error:
        raise IndexFailure(
            f"{path} cannot be locked ({error.strerror or error}): remove it, or make the folder "
            "writable, and save again"
        ) from None
    try:
        yield
    finally:
        lock.release()


def _is_ours(path: Path) -> bool:
    """Whether a first save that was killed may have left this file."""
    return path.name == LOCK or path.name.startswith("saving-")


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
