"""Adding of many documents to an index: a local one is saved now and then."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from xmodal.index.contract import Index
from xmodal.index.documents import DocumentBatch
from xmodal.index.local import HammingIndex
from xmodal.modality import MODALITIES

SAVE_EVERY = 300_000
"""Documents after which a local index is saved, so that a stopped command can go on from there."""


@dataclass
class Filling:
    """Adds documents to ``index``.

    ``saved``: called after each save but the last one, which closing the index makes. ``compare``:
    documents that the index has as they are stay as they are. ``stored``: number of documents of
    all batches, ``unchanged``: of those that the index had.
    """

    index: Index
    saved: Callable[[], object] = lambda: None
    compare: bool = False
    stored: int = 0
    unchanged: int = 0

    def __post_init__(self) -> None:
        self._unsaved = 0

    def add(self, batch: DocumentBatch) -> None:
        """Add documents."""
        self.stored += len(batch)
        if self.compare and _is_equal(self.index.get(batch.ids), batch):
            self.unchanged += len(batch)
            return
        self.index.add(batch)
        self._unsaved += len(batch)
        if self._unsaved >= SAVE_EVERY and isinstance(self.index, HammingIndex):
            self._unsaved = 0
            if self.index.folder is not None:
                self.index.save()
                self.saved()


def _is_equal(stored: DocumentBatch, batch: DocumentBatch) -> bool:
    """Return whether two batches hold equal documents in the same order."""
    if stored.ids != batch.ids or stored.origin_texts() != batch.origin_texts():
        return False
    if stored.fields != batch.fields or stored.vectors.keys() != batch.vectors.keys():
        return False
    return all(
        np.array_equal(one[modality], other[modality])
        for one, other in (
            (stored.packed, batch.packed),
            (stored.offsets, batch.offsets),
            (stored.vectors, batch.vectors),
        )
        for modality in MODALITIES
        if modality in one
    )
