"""The saved state of an index: its opening, and the saving of the next one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from xmodal import operating_system
from xmodal.errors import IndexFailure
from xmodal.index.folder import (
    FORMER_FILE,
    UNFINISHED,
    FileIdentity,
    identity,
    lock_index,
    remove_unused,
)
from xmodal.index.segments.commit import FILE, Commit, check_files, read_commit, write_commit
from xmodal.index.segments.merging import written
from xmodal.index.segments.segment import SegmentRecord
from xmodal.index.segments.segment_list import SegmentList
from xmodal.index.validation import check_identity

if TYPE_CHECKING:
    from xmodal.index.former_format import StoredDocuments


class Opened(NamedTuple):
    """What a saved state contains: width and fingerprint of the codes, and the segments."""

    bits: int
    fingerprint: str | None
    segments: SegmentList


class SavedState:
    """The state of an index in ``folder`` that this process opened or saved last, or none."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.identity: FileIdentity | None = None
        self._records: tuple[SegmentRecord, ...] = ()

    def open(self, *, bits: int | None, fingerprint: str | None) -> Opened:
        """Open the present state; raises IndexMismatch or IndexFailure."""
        found = identity(self.folder)
        try:
            content = _read(self.folder, found)
            check_identity(
                str(self.folder),
                bits=content.bits,
                fingerprint=content.fingerprint,
                expected_bits=bits,
                expected_fingerprint=fingerprint,
            )
            segments = SegmentList(tuple(content.open_segments(self.folder)))
        except IndexFailure:
            if identity(self.folder) == found:
                raise
            # Another process saved the index meanwhile.
            return self.open(bits=bits, fingerprint=fingerprint)
        self.identity, self._records = found, segments.records
        return Opened(content.bits, content.fingerprint or fingerprint, segments)

    def save(self, bits: int, fingerprint: str | None, segments: SegmentList) -> SegmentList:
        """Write segments and commit them; return the segments that were committed.

        Raises IndexFailure if another process changed the folder since it was opened, InUse if
        another process writes it now.
        """
        with lock_index(self.folder):
            if identity(self.folder) != self.identity:
                raise IndexFailure(
                    f"{self.folder} was changed by another process since it was opened: "
                    "open it again and repeat"
                )
            self._remove_unused(segments)
            new = self.folder / f"{UNFINISHED}{os.getpid()}"
            try:
                saved = SegmentList(tuple(written(segments.segments, self.folder)))
                commit = Commit(bits, fingerprint, saved.records)
                check_files(self.folder, commit)
                write_commit(new, commit)
                self._records = (*self._records, *commit.segments)  # until one is known to be it
                operating_system.replace(new, self.folder / FILE)
                self.identity, self._records = identity(self.folder), commit.segments
                operating_system.sync_folder(self.folder)
                segments = saved
            finally:
                new.unlink(missing_ok=True)
                self._remove_unused(segments)
        return segments

    def _remove_unused(self, segments: SegmentList) -> None:
        """Remove files in the folder that are of no saved state and none of these segments."""
        records = (*self._records, *segments.records)
        is_former = self.identity is not None and self.identity[0] == FORMER_FILE
        remove_unused(self.folder, Commit(0, None, records).files, former=not is_former)


def _read(folder: Path, state: FileIdentity | None) -> Commit | StoredDocuments:
    """Return what the file of a saved state contains; raises IndexFailure."""
    if state is not None and state[0] == FORMER_FILE:
        from xmodal.index.former_format import read_former  # imports pyarrow

        return read_former(folder / FORMER_FILE)
    return read_commit(folder / FILE)
