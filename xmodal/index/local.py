"""The local index: exact Hamming search in memory by FAISS, stored in a folder.

Rows are sorted by id, so that the order in which ``IndexBinaryFlat`` returns ties (by position) is
the tie rule of the contract. Added documents are collected and merged at the next search.

The folder contains one Parquet file, ``documents.parquet`` (see :mod:`xmodal.index.parquet`). A
save writes a new file, syncs it and renames it over the old one: after a kill at any moment the
folder holds the old index or the new one.
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
from xmodal.errors import ConfigError, IndexFailure, IndexMissing, XmodalError
from xmodal.index.contract import Facets, Hit, Hits, to_facets
from xmodal.index.documents import DocumentBatch, to_batch
from xmodal.index.filters import Condition, Exists, Scalar, canonical, parse, values_of
from xmodal.index.parquet import read_documents, write_documents
from xmodal.index.validation import check_identity, check_ids, check_search, check_width
from xmodal.modality import Modality

FILE, LOCK = "documents.parquet", "lock"


def open_folder(
    folder: str | Path,
    *,
    bits: int | None = None,
    fingerprint: str | None = None,
    create: bool = False,
) -> HammingIndex:
    """Open the index kept in ``folder``, or with ``create`` make one of ``bits`` bits there.

    Raises IndexMissing, IndexMismatch, or IndexFailure for a folder that is not an index.
    """
    path = Path(folder)
    if (path / FILE).is_file():
        return HammingIndex.load(path, bits=bits, fingerprint=fingerprint)
    if path.is_file() or (path.is_dir() and not all(map(_is_ours, path.iterdir()))):
        raise IndexFailure(
            f"{path} exists and is not an index (it has no {FILE}): name a new folder"
        )
    if not create:
        raise IndexMissing(f"no index at {path}: make one with xmodal index DATA --index {path}")
    if bits is None:
        raise ConfigError(f"to make a new index at {path}, say how many bits its codes have")
    return HammingIndex(bits, fingerprint=fingerprint, folder=path)


class HammingIndex:
    """Exact search over codes in memory; see :class:`xmodal.index.contract.Index` for the contract.

    ``bits`` and ``fingerprint`` are what the index holds. With ``folder`` it is saved there by
    ``save`` and ``close``; without, it lives in memory only.
    """

    def __init__(
        self, bits: int, *, fingerprint: str | None = None, folder: str | Path | None = None
    ) -> None:
        self.bits = check_bits(bits)
        self.fingerprint = fingerprint
        self.folder = Path(folder) if folder is not None else None
        self._seen: tuple[int, ...] | None = None  # the file that this content came from
        self._refused: tuple[int, ...] | None = ()  # the one that could not take its place
        self._dirty = folder is not None  # an index that was asked for exists, even empty
        self._pending: list[DocumentBatch] = []
        self._documents = DocumentBatch.empty(self.bits)
        self._places: dict[str, int] | None = None
        self._forget_derived()

    def add(
        self,
        documents: DocumentBatch | Sequence[str],
        *,
        image: BinaryCodes | None = None,
        text: BinaryCodes | None = None,
        fields: Sequence[Mapping[str, Any]] | None = None,
    ) -> int:
        """Store documents; see the contract. ``save`` and ``close`` make them durable."""
        batch = to_batch(documents, image=image, text=text, fields=fields)
        check_width(batch.bits, self.bits)
        self._pending.append(batch)
        self._dirty = True
        return len(batch)

    def search(
        self,
        queries: BinaryCodes,
        k: int,
        *,
        target: Modality,
        where: Mapping[str, Any] | None = None,
        radius: int | None = None,
    ) -> Hits:
        """The best ``k`` a query on modality ``target``; see the contract."""
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

    def get(self, ids: Sequence[str]) -> DocumentBatch:
        """Codes and fields of the ids that exist; see the contract."""
        self._merge()
        if self._places is None:
            self._places = {id_: row for row, id_ in enumerate(self._documents.ids)}
        places: dict[str, int] = self._places
        return self._documents.take([places[id_] for id_ in dict.fromkeys(ids) if id_ in places])

    def facets(self, max_values: int = 20) -> Facets:
        """Fields by which a search can be narrowed; see the contract."""
        self._merge()
        counts: dict[str, Counter[str]] = defaultdict(Counter)
        for text in self._documents.fields:
            for field, value in json.loads(text).items():
                values = {canonical(one) for one in values_of(value) if isinstance(one, Scalar)}
                counts[field].update(values)
        return to_facets(counts, max_values)

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
                write_documents(new, self._documents, bits=self.bits, fingerprint=self.fingerprint)
                _sync(new)
                os.replace(new, target)
                _sync(self.folder)
            finally:
                new.unlink(missing_ok=True)
            self._seen = _identity(target)
        self._dirty = False

    @classmethod
    def load(cls, folder: Path, *, bits: int | None, fingerprint: str | None) -> HammingIndex:
        """The index saved in ``folder``, if it fits; see :func:`open_folder`."""
        seen = _identity(folder / FILE)
        documents, found_bits, found_fingerprint = read_documents(folder / FILE)
        check_identity(
            str(folder),
            bits=found_bits,
            fingerprint=found_fingerprint,
            expected_bits=bits,
            expected_fingerprint=fingerprint,
        )
        index = cls(found_bits, fingerprint=found_fingerprint or fingerprint, folder=folder)
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
            return open_folder(self.folder, bits=self.bits, fingerprint=self.fingerprint)
        except XmodalError:
            self._refused = now
            raise

    def codes(self, modality: Modality) -> tuple[list[str], BinaryCodes]:
        """Return the ids that have a code of ``modality``, sorted, and these codes."""
        self._merge()
        return self._documents.codes(modality)

    def batches(self, size: int = 4096) -> Iterator[DocumentBatch]:
        """Yield all documents in order of id, at most ``size`` per batch."""
        self._merge()
        for start in range(0, len(self._documents), size):
            yield self._documents.take(range(start, min(start + size, len(self._documents))))

    # ---- how it works ------------------------------------------------------------------------

    def _hit(self, row: int, distance: int) -> Hit:
        return Hit(self._documents.ids[row], distance, json.loads(self._documents.fields[row]))

    def _forget_derived(self) -> None:
        """Drop what is computed from the rows: FAISS copies, places of ids, inverted lists."""
        self._places = None
        self._flats: dict[Modality, tuple[Any, npt.NDArray[np.int64]]] = {}
        self._inverted: dict[str, dict[tuple[type, Any], npt.NDArray[np.int64]]] = {}

    def _merge(self) -> None:
        """Bring pending additions into the rows, in order of id; the last of equal ids stays."""
        if not self._pending:
            return
        everything = DocumentBatch.join([self._documents, *self._pending])
        last = {id_: row for row, id_ in enumerate(everything.ids)}
        self._documents = everything.take([last[id_] for id_ in sorted(last)])
        self._pending = []
        self._forget_derived()

    def _flat(self, modality: Modality) -> tuple[Any, npt.NDArray[np.int64]]:
        """A FAISS index over the codes of one modality, and the row of each of its positions."""
        if modality not in self._flats:
            rows = np.flatnonzero(self._documents.present[modality])
            flat = faiss.IndexBinaryFlat(self.bits)
            flat.add(np.ascontiguousarray(self._documents.packed[modality][rows]))
            self._flats[modality] = flat, rows
        return self._flats[modality]

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
