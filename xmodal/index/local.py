"""The local index: exact search over codes in memory and vectors on disk, stored in a folder.

Documents are sorted by id, so that ties in order of position follow the tie rule of the contract
(see :mod:`xmodal.index.code_search`). Added documents are collected and merged at the next search.

The folder contains a Parquet file, ``documents.parquet`` (see :mod:`xmodal.index.parquet`), and the
files of vectors (see :mod:`xmodal.index.vector_file`) and words (see
:mod:`xmodal.index.full_text`) that it names. A save writes new files, syncs
them and renames the Parquet file over the old one: if the process is killed, the folder contains
the old index or the new one.
"""

from __future__ import annotations

import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from xmodal.codes import BinaryCodes, check_bits
from xmodal.errors import ConfigError, IndexFailure, IndexMissing, XmodalError
from xmodal.index.code_search import CodeSearch, Match, Part
from xmodal.index.contract import (
    WINDOW,
    Facets,
    Hit,
    Hits,
    WordsHit,
    WordsQuery,
    to_facets,
)
from xmodal.index.documents import Codes, DocumentBatch, match_vectors, to_batch
from xmodal.index.filters import (
    All,
    Condition,
    Not,
    Scalar,
    canonical,
    parse,
    unknown_field,
    values_of,
)
from xmodal.index.full_text import PREFIX as WORDS
from xmodal.index.full_text import FullText, WordsFile
from xmodal.index.moved_pictures import find_pictures
from xmodal.index.origins import Entry, read_origin
from xmodal.index.parquet import read_documents, write_documents
from xmodal.index.query_codes import QueryCodes, to_query_codes
from xmodal.index.scan import CodeColumn
from xmodal.index.validation import (
    check_dim,
    check_identity,
    check_ids,
    check_k,
    check_search,
    check_target,
    check_width,
)
from xmodal.index.vector_file import (
    CHECKSUMS,
    MappedVectors,
    VectorFiles,
    remove_unused,
    write_vectors,
)
from xmodal.index.vector_file import PREFIX as VECTORS
from xmodal.modality import MODALITIES, Modality
from xmodal.writing import NEW, in_use

FILE, LOCK, UNFINISHED = "documents.parquet", "lock", "saving-"
MODEL_FOLDER, MODEL_RECORD = "model", "model.json"
"""Encoder that was fitted for an index, and record of its encoder's path; see
:mod:`xmodal.encoders.index_model`."""
FileIdentity = tuple[int, int, int]


def open_folder(
    folder: str | Path,
    *,
    bits: int | None = None,
    fingerprint: str | None = None,
    create: bool = False,
) -> HammingIndex:
    """Open the index in ``folder``, or with ``create`` make one of ``bits`` bits there.

    Raises IndexMissing, IndexMismatch, ConfigError if ``bits`` is missing, and IndexFailure for a
    folder that is not an index.
    """
    path = Path(folder)
    _check_folder(path)
    if (path / FILE).is_file():
        return HammingIndex.load(path, bits=bits, fingerprint=fingerprint)
    if not create:
        found = f", which has no {FILE}" if path.exists() else ""
        raise IndexMissing(
            f"no index at {path}{found}: make one with xmodal index DATA --index {path}"
        )
    if bits is None:
        raise ConfigError(f"bits is None, expected the width of the codes of a new index at {path}")
    return HammingIndex(bits, fingerprint=fingerprint, folder=path)


@contextmanager
def lock_index(folder: Path) -> Iterator[None]:
    """Hold the lock of an index, so that no other process saves it meanwhile.

    ``save`` holds it by itself. Raises InUse if another process holds it, IndexFailure for a folder
    that is not an index and for a lock that is a symbolic link, OSError if it cannot be written.
    """
    from filelock import FileLock, Timeout  # required by a save only

    _check_folder(folder)
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    path = Path(os.path.realpath(folder), LOCK)
    if path.is_symlink():
        raise IndexFailure(f"{path} is a symbolic link, expected a file: remove it")
    lock = FileLock(path, timeout=0, is_singleton=True)  # nested ones of a thread are allowed
    try:
        lock.acquire()
    except Timeout:
        raise in_use(folder) from None
    try:
        yield
    except BaseException:
        if is_new and os.listdir(folder) == [LOCK]:
            path.unlink()
            folder.rmdir()
        raise
    finally:
        lock.release()


def _check_folder(path: Path) -> None:
    """Raise IndexFailure for a file, and for a folder with other files than those of an index."""
    if (path / FILE).is_file():
        return
    if path.is_file() or (path.is_dir() and not all(map(_is_left_by_save, path.iterdir()))):
        raise IndexFailure(
            f"{path} exists and is not an index (it has no {FILE}): choose a new folder"
        )


class HammingIndex:
    """Exact search over codes in memory; see :class:`xmodal.index.contract.Index` for the contract.

    ``bits``: width of the codes. ``fingerprint``: of their encoder, or None if unknown. ``save``
    and ``close`` write the index to ``folder``; without a folder it exists in memory only.
    """

    def __init__(
        self, bits: int, *, fingerprint: str | None = None, folder: str | Path | None = None
    ) -> None:
        self.bits = check_bits(bits)
        self.fingerprint = fingerprint
        self.folder = Path(folder) if folder is not None else None
        self._loaded_file: FileIdentity | None = None
        self._unusable_file: tuple[int, ...] | None = ()  # () is the identity of no file
        self._dirty = folder is not None  # a new index is saved even if it is empty
        self._pending: list[DocumentBatch] = []
        self._documents = DocumentBatch.empty(self.bits)
        self._vector_files: VectorFiles = {}  # of the last save
        self._mapped = MappedVectors()  # the files that the vectors are read from
        self._full_text = FullText()
        self._words_file: WordsFile | None = None  # of the last save
        self._row_by_id: dict[str, int] = {}
        self._clear_derived()

    def add(
        self,
        documents: DocumentBatch | Sequence[str],
        *,
        image: Codes | None = None,
        text: Codes | None = None,
        fields: Sequence[Mapping[str, Any]] | None = None,
    ) -> int:
        """Store documents; see the contract. ``save`` and ``close`` make them durable."""
        batch = to_batch(documents, image=image, text=text, fields=fields)
        check_width(batch.bits, self.bits)
        if len(self._documents) or self._pending:
            batch = match_vectors(batch, self.dim)
        if len(batch):
            self._pending.append(batch)
        self._dirty = True
        return len(batch)

    def search(
        self,
        queries: BinaryCodes | QueryCodes,
        k: int,
        *,
        target: Modality,
        where: Mapping[str, Any] | None = None,
        radius: int | None = None,
        window: int = WINDOW,
    ) -> Hits:
        """Return the best ``k`` documents for each query; see the contract."""
        check_search(queries, self.bits, k, target, radius)
        queries = to_query_codes(queries)
        check_dim(queries, self.dim)
        conditions = parse(where)
        self._merge()
        found = self._code_search(target).search(
            queries,
            k,
            radius=self.bits if radius is None else radius,
            window=window,
            masks=[self._mask(conditions)] if conditions else None,
        )
        return [[self._hit(match) for match in matches] for matches in found]

    def search_words(
        self,
        queries: Sequence[WordsQuery],
        k: int,
        *,
        target: Modality,
        where: Mapping[str, Any] | None = None,
    ) -> list[list[WordsHit]]:
        """Return the best ``k`` documents for each query; see the contract of a full-text index."""
        check_target(target)
        check_k(k)
        conditions = parse(where)
        self._merge()
        offsets = self._documents.offsets[target]
        accepted = offsets[1:] > offsets[:-1]
        if conditions:
            accepted &= self._mask(conditions)
        ids, ranking = self._documents.ids, self._full_text.ranking(self._documents)
        return [
            [
                WordsHit(ids[found.row], found.score, found.matched)
                for found in ranking.search(query.text, query.excluded, k, accepted)
            ]
            for query in queries
        ]

    @property
    def dim(self) -> int | None:
        """Dimension of the stored vectors, or None without vectors."""
        return next((part.dim for part in (self._documents, *self._pending) if len(part)), None)

    def measure(
        self, query: BinaryCodes | QueryCodes, ids: Sequence[str], *, target: Modality
    ) -> dict[str, Hit]:
        """Return the hits that documents would be for one query; see the contract."""
        check_search(query, self.bits, 1, target, None)
        query = to_query_codes(query)
        check_dim(query, self.dim)
        self._merge()
        matches = self._code_search(target).measure(query, [self._rows_of_ids(ids)])
        return {hit.id: hit for hit in map(self._hit, matches)}

    def count(self, target: Modality, where: Mapping[str, Any] | None = None) -> int:
        """Return the number of documents with a code of ``target``; see the contract."""
        self._merge()
        return int((self._mask(parse(where)) & self._documents.present[target]).sum())

    def delete(self, ids: Sequence[str]) -> int:
        """Remove documents; see the contract."""
        check_ids(ids)
        self._merge()
        removed = set(ids)
        rows = [row for row, id_ in enumerate(self._documents.ids) if id_ not in removed]
        count = len(self._documents) - len(rows)
        if count:
            self._verify_vectors()
            self._documents = self._documents.take(rows)
            self._dirty = True
            self._clear_derived()
        return count

    def get(self, ids: Sequence[str]) -> DocumentBatch:
        """Return codes and fields of the ids that exist; see the contract."""
        self._merge()
        return self._take(self._rows_of_ids(ids))

    def entries(
        self, *, where: Mapping[str, Any] | None = None, source: str | None = None
    ) -> Iterator[Entry]:
        """Yield documents without codes; see :class:`xmodal.index.origins.ListedIndex`."""
        conditions = parse(where)
        self._merge()
        documents, origins = self._documents, self._documents.origin_texts()
        rows = np.flatnonzero(self._mask(conditions)) if conditions else range(len(documents))
        for row in rows:
            origin = read_origin(origins[row])
            if source is None or (origin is not None and origin.source == source):
                yield Entry(documents.ids[row], json.loads(documents.fields[row]), origin)

    def count_codes(self) -> dict[Modality, int]:
        """Return the number of stored codes of each modality."""
        self._merge()
        return {modality: len(self._documents.packed[modality]) for modality in MODALITIES}

    def disk_usage(self) -> dict[str, int]:
        """Return the bytes of each file and subfolder of the index; none for one in memory."""
        if self.folder is None:
            return {}
        return {
            path.name: sum(one.stat().st_size for one in _files(path))
            for path in sorted(self.folder.iterdir())
        }

    def facets(self, max_values: int = 20) -> Facets:
        """Return fields by which a search can be narrowed; see the contract."""
        self._merge()
        counts: dict[str, Counter[str]] = defaultdict(Counter)
        for text in self._documents.fields:
            for field, value in json.loads(text).items():
                scalars = (item for item in values_of(value) if isinstance(item, Scalar))
                counts[field].update(set(map(canonical, scalars)))
        return to_facets(counts, max_values)

    def __len__(self) -> int:
        self._merge()
        return len(self._documents)

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
        """Write the index to its folder, atomically; no effect if nothing changed.

        Raises ConfigError without a folder, IndexFailure if another process changed the file since
        it was opened, InUse if another process writes the folder now.
        """
        if self.folder is None:
            raise ConfigError("this index has no folder: pass one when the index is created")
        if not self._dirty:
            return
        self._merge()
        target = self.folder / FILE
        with lock_index(self.folder):
            if _identity(target) != self._loaded_file:
                raise IndexFailure(
                    f"{self.folder} was changed by another process since it was opened: "
                    "open it again and repeat"
                )
            for leftover in self.folder.glob(f"{UNFINISHED}*"):  # of a killed process
                leftover.unlink()
            self._remove_unused()
            new = self.folder / f"{UNFINISHED}{os.getpid()}"
            try:
                vectors = self._documents.vectors if len(self._documents) else {}
                files = write_vectors(self.folder, vectors)
                words = self._full_text.write(self.folder, self._documents)
                write_documents(
                    new,
                    self._documents,
                    bits=self.bits,
                    fingerprint=self.fingerprint,
                    vectors=files,
                    words=words,
                )
                _sync(new)
                os.replace(new, target)
                self._vector_files, self._words_file = files, words
                _sync(self.folder)
            finally:
                new.unlink(missing_ok=True)
                self._remove_unused()
            self._loaded_file = _identity(target)
            self._map_vectors(MappedVectors.open(self.folder, files))
        self._dirty = False

    @classmethod
    def load(cls, folder: Path, *, bits: int | None, fingerprint: str | None) -> HammingIndex:
        """Return the index saved in ``folder``; raises IndexMismatch or IndexFailure."""
        identity = _identity(folder / FILE)
        stored = read_documents(folder / FILE)
        check_identity(
            str(folder),
            bits=stored.bits,
            fingerprint=stored.fingerprint,
            expected_bits=bits,
            expected_fingerprint=fingerprint,
        )
        try:
            vectors = MappedVectors.open(folder, stored.vectors)
        except IndexFailure:
            if _identity(folder / FILE) == identity:
                raise
            # Another process saved the index after the Parquet file was read.
            return cls.load(folder, bits=bits, fingerprint=fingerprint)
        index = cls(stored.bits, fingerprint=stored.fingerprint or fingerprint, folder=folder)
        index._documents = stored.documents
        index._map_vectors(vectors)
        index._full_text = FullText(stored.documents, folder, stored.words)
        index._words_file = stored.words
        index._loaded_file = identity
        index._dirty = False
        return index

    def reload_if_changed(self) -> HammingIndex | None:
        """Return the index that another process saved in the folder, or None if unchanged.

        Unsaved documents of this index are not part of it. Raises the errors of
        :func:`open_folder`, once per version of the file: an unusable file is not read again.
        """
        if self.folder is None:
            return None
        identity = _identity(self.folder / FILE)
        if identity in (self._loaded_file, self._unusable_file):
            return None
        try:
            return open_folder(self.folder, bits=self.bits, fingerprint=self.fingerprint)
        except XmodalError:
            self._unusable_file = identity
            raise

    def codes(self, modality: Modality) -> tuple[list[str], BinaryCodes]:
        """Return all codes of ``modality``, in order of id, and the document id of each."""
        self._merge()
        return self._documents.codes(modality)

    def batches(self, size: int = 4096) -> Iterator[DocumentBatch]:
        """Yield all documents in order of id, at most ``size`` per batch."""
        self._merge()
        for start in range(0, len(self._documents), size):
            yield self._take(np.arange(start, min(start + size, len(self._documents))))

    # ---- implementation ------------------------------------------------------------------------

    def _hit(self, match: Match) -> Hit:
        return Hit(
            self._documents.ids[match.row],
            match.distance,
            self._fields(match.row),
            nearest=match.nearest,
            similarity=match.similarity,
        )

    def _fields(self, row: int) -> dict[str, Any]:
        """Return the fields of a document, with the present paths of its pictures."""
        fields: dict[str, Any] = json.loads(self._documents.fields[row])
        if self.folder is None or not self._documents.origins:
            return fields
        return find_pictures(fields, self._documents.origins[row], self.folder)

    def _rows_of_ids(self, ids: Sequence[str]) -> npt.NDArray[np.int64]:
        """Return the rows of the ids that exist, each once, in the order of ``ids``."""
        if not self._row_by_id:
            self._row_by_id = {id_: row for row, id_ in enumerate(self._documents.ids)}
        rows = self._row_by_id
        return np.array([rows[id_] for id_ in dict.fromkeys(ids) if id_ in rows], np.int64)

    def _remove_unused(self) -> None:
        """Remove the files of vectors and words in the folder that are not those of the last save.

        A killed save left them, or they are of the save before the last one.
        """
        assert self.folder is not None
        vectors = {file.name for file in self._vector_files.values()}
        checksums = {f"{name}{CHECKSUMS}" for name in vectors}
        remove_unused(self.folder, VECTORS, vectors | checksums)
        remove_unused(self.folder, WORDS, {self._words_file.name} if self._words_file else ())

    def _take(self, rows: npt.NDArray[np.int64]) -> DocumentBatch:
        """Return documents; raises IndexFailure if their vectors on disk are damaged."""
        for modality, offsets in self._documents.offsets.items():
            self._mapped.check(modality, offsets[rows], offsets[rows + 1])
        return self._documents.take(rows)

    def _map_vectors(self, mapped: MappedVectors) -> None:
        """Take the vectors from files that are mapped into memory."""
        self._documents = replace(self._documents, vectors=mapped.vectors)
        self._vector_files, self._mapped = mapped.files, mapped

    def _verify_vectors(self) -> None:
        """Raise IndexFailure if the vectors on disk, which will be copied, are damaged."""
        self._mapped.verify()
        self._mapped = MappedVectors()

    def _clear_derived(self) -> None:
        """Drop data computed from the rows: rows by id, scans of codes, inverted lists."""
        self._row_by_id = {}
        self._searches: dict[Modality, CodeSearch] = {}
        self._inverted: dict[str, dict[tuple[type, Any], npt.NDArray[np.int64]]] = {}

    def _merge(self) -> None:
        """Merge pending documents into the rows, sorted by id; of equal ids the last remains."""
        if not self._pending:
            return
        self._verify_vectors()
        joined = DocumentBatch.join([self._documents, *self._pending])
        last_row = {id_: row for row, id_ in enumerate(joined.ids)}
        self._documents = joined.take([last_row[id_] for id_ in sorted(last_row)])
        self._pending = []
        self._clear_derived()

    def _code_search(self, modality: Modality) -> CodeSearch:
        """Return the search over the codes of one modality."""
        if modality not in self._searches:
            documents, offsets = self._documents, self._documents.offsets[modality]
            part = Part(
                CodeColumn.of(documents.packed[modality]),
                lambda rows: [documents.ids[row] for row in rows],
                None if (np.diff(offsets) == 1).all() else offsets,
                vectors=partial(self._checked_vectors, modality) if documents.vectors else None,
            )
            self._searches[modality] = CodeSearch([part])
        return self._searches[modality]

    def _checked_vectors(
        self, modality: Modality, starts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.int8]:
        """Return all vectors of one modality; those of the ranges are verified."""
        self._mapped.check(modality, starts, ends)
        return self._documents.vectors[modality]

    def _mask(self, conditions: Sequence[Condition]) -> npt.NDArray[np.bool_]:
        """Return which rows fulfil all conditions, shape (documents,).

        Raises ConfigError for a field that no document has, unless no document has any field.
        """
        self._invert({condition.field for condition in conditions} - set(self._inverted))
        for condition in conditions:
            if not self._inverted[condition.field] and (known := self._fields_with_values()):
                raise unknown_field(condition.field, known)
        return self._rows_of_all(conditions)

    def _rows_of_all(self, conditions: Sequence[Condition]) -> npt.NDArray[np.bool_]:
        """Return which rows fulfil all conditions, shape (documents,)."""
        mask = np.ones(len(self._documents), dtype=np.bool_)
        for condition in conditions:
            mask &= self._rows_accepted(condition)
        return mask

    def _rows_accepted(self, condition: Condition) -> npt.NDArray[np.bool_]:
        """Return which rows fulfil one condition, shape (documents,)."""
        if isinstance(condition, Not):
            return ~self._rows_accepted(condition.condition)
        if isinstance(condition, All):
            return self._rows_of_all(condition.conditions)
        accepted = np.zeros(len(self._documents), dtype=np.bool_)
        for (_, value), rows in self._inverted[condition.field].items():
            if condition.accepts(value):
                accepted[rows] = True
        return accepted

    def _fields_with_values(self) -> set[str]:
        """Return the fields of which a document has a value."""
        return {
            field
            for text in self._documents.fields
            for field, value in json.loads(text).items()
            if any(isinstance(item, Scalar) for item in values_of(value))
        }

    def _invert(self, names: Set[str]) -> None:
        """Build the inverted lists, (type, value) -> rows, of the fields ``names``."""
        if not names:
            return
        lists: dict[str, dict[tuple[type, Any], list[int]]] = {
            field: defaultdict(list) for field in names
        }
        for row, text in enumerate(self._documents.fields):
            fields = json.loads(text)
            for field in names & fields.keys():
                for value in values_of(fields[field]):
                    if isinstance(value, Scalar):
                        lists[field][type(value), value].append(row)
        for field, by_value in lists.items():
            self._inverted[field] = {key: np.array(rows) for key, rows in by_value.items()}


def _is_left_by_save(path: Path) -> bool:
    """Return whether a killed first indexing may have left this file or folder."""
    if path.name in (MODEL_FOLDER, MODEL_RECORD, LOCK):
        return True
    begins = (UNFINISHED, VECTORS, WORDS, f"{MODEL_RECORD}{NEW}", f".{MODEL_FOLDER}.")
    return path.name.startswith(begins)


def _identity(path: Path) -> FileIdentity | None:
    """Return inode, modification time in ns and size of a file, or None if it is missing."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    return stat.st_ino, stat.st_mtime_ns, stat.st_size


def _files(path: Path) -> Iterator[Path]:
    """Yield a file, or all files below a folder."""
    yield from (one for one in path.rglob("*") if one.is_file()) if path.is_dir() else (path,)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
