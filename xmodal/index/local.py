"""The local index: exact search over segments of documents, stored in a folder.

Documents lie in segments (see :mod:`xmodal.index.segments.segment`), memory-mapped from files whose
content is checked when it is first used. Added documents are collected and become a segment at the
next search. A save writes new files and replaces the commit file (see
:mod:`xmodal.index.segments.commit`): if the process is killed, the folder contains the old index or
the new one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from xmodal.data.progress import Progress
from xmodal.errors import ConfigError, IndexMissing, XmodalError
from xmodal.index.documents import Codes, DocumentBatch, match_vectors, to_batch
from xmodal.index.folder import FileIdentity, check_folder, disk_usage, identity, is_index
from xmodal.index.saved_state import SavedState
from xmodal.index.segment_search import SegmentSearch
from xmodal.index.segments.column_file import Checked
from xmodal.index.segments.commit import FILE
from xmodal.index.segments.merging import joined_in_memory
from xmodal.index.segments.segment import Segment
from xmodal.index.segments.segment_list import SegmentList
from xmodal.index.validation import check_ids, check_width

PART = 100_000
"""Added documents that are written to a file before the next ones are collected."""


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
    check_folder(path)
    if is_index(path):
        return HammingIndex.load(path, bits=bits, fingerprint=fingerprint)
    if not create:
        found = f", which has no {FILE}" if path.exists() else ""
        raise IndexMissing(
            f"no index at {path}{found}: make one with xmodal index DATA --index {path}"
        )
    if bits is None:
        raise ConfigError(f"bits is None, expected the width of the codes of a new index at {path}")
    return HammingIndex(bits, fingerprint=fingerprint, folder=path)


class HammingIndex(SegmentSearch):
    """Exact search over codes in memory; see :class:`xmodal.index.contract.Index` for the contract.

    ``bits``: width of the codes. ``fingerprint``: of their encoder, or None if unknown. ``save``
    and ``close`` write the index to ``folder``; without a folder it exists in memory only.

    >>> import numpy as np
    >>> codes = xmodal.BinaryCodes.from_relaxed(np.eye(8) - 0.5)
    >>> index = xmodal.HammingIndex(8)
    >>> index.add([f"shoe-{n}" for n in range(8)], image=codes)
    8
    >>> [hit.id for hit in index.search(codes[3:4], 1, target="image")[0]]
    ['shoe-3']
    """

    def __init__(
        self, bits: int, *, fingerprint: str | None = None, folder: str | Path | None = None
    ) -> None:
        super().__init__(bits, Path(folder) if folder is not None else None)
        self.fingerprint = fingerprint
        self._saved = None if self.folder is None else SavedState(self.folder)
        self._unusable: FileIdentity | tuple[()] | None = ()  # () is the identity of no state
        self._dirty = folder is not None  # a new index is saved even if it is empty
        self._pending: list[DocumentBatch] = []

    @classmethod
    def load(cls, folder: Path, *, bits: int | None, fingerprint: str | None) -> HammingIndex:
        """Return the index saved in ``folder``; raises IndexMismatch or IndexFailure."""
        saved = SavedState(folder)
        found = saved.open(bits=bits, fingerprint=fingerprint)
        index = cls(found.bits, fingerprint=found.fingerprint, folder=folder)
        index._set(found.segments)
        index._saved, index._dirty = saved, False
        return index

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
        before: list[Segment | DocumentBatch] = [*self._segments.segments, *self._pending]
        if before:
            batch = match_vectors(batch, before[0].dim)
        if len(batch):
            self._pending.append(batch)
        self._dirty = True
        if sum(map(len, self._pending)) >= PART:
            self._complete()
        return len(batch)

    def delete(self, ids: Sequence[str]) -> int:
        """Remove documents; see the contract."""
        check_ids(ids)
        places = self._complete().find(list(set(ids)))
        count = int(np.count_nonzero(places.rows >= 0))
        if count:
            self._set(self._segments.without(places))
            self._dirty = True
        return count

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
        if self._saved is None:
            raise ConfigError("this index has no folder: pass one when the index is created")
        if not self._dirty:
            return
        self._set(self._saved.save(self.bits, self.fingerprint, self._complete()))
        self._dirty = False

    def check(self, progress: Progress = lambda job, done, total: None) -> list[Checked]:
        """Read all columns on disk; return those that are damaged. ``progress``: in bytes."""
        damaged, done, records = [], 0, self._segments.records
        total = sum(record.file.size for record in records)
        for part in chain.from_iterable(one.check() for one in self._segments.segments):
            done += part.size
            progress("checked", done, total)
            if part.damage is not None:
                damaged.append(part)
        return damaged

    def disk_usage(self) -> dict[str, int]:
        """Return the bytes of each file and subfolder of the index; none for one in memory."""
        return {} if self.folder is None else disk_usage(self.folder)

    def reload_if_changed(self) -> HammingIndex | None:
        """Return the index that another process saved in the folder, or None if unchanged.

        Unsaved documents of this index are not part of it. Raises the errors of
        :func:`open_folder`, once per version of the file: an unusable file is not read again.
        """
        if self._saved is None:
            return None
        folder = self._saved.folder
        found = identity(folder)
        if found in (self._saved.identity, self._unusable):
            return None
        try:
            return open_folder(folder, bits=self.bits, fingerprint=self.fingerprint)
        except XmodalError:
            self._unusable = found
            raise

    def _complete(self) -> SegmentList:
        """Return all segments, after one was made of pending documents; the last of an id stays."""
        if not self._pending:
            return self._segments
        segment = Segment.of(DocumentBatch.join(self._pending))
        if self.folder is not None and len(segment) >= PART:  # so that memory is bounded
            check_folder(self.folder)
            self.folder.mkdir(parents=True, exist_ok=True)
            segment = segment.write(self.folder)
        added = self._segments.added(segment)
        self._set(SegmentList(tuple(joined_in_memory(added.segments))))
        self._pending = []
        return self._segments
