"""Filling an index with many documents: resumable, idempotent, named failures, settings put back.

Batches are numbered. Those that the server has taken are noted in a file beside a hash of their
bytes, so that a killed load goes on where it was; the first batch that differs from what was noted
makes everything after it count as not sent. Ids are the documents' own: sending twice stores once.

While it runs the index does not refresh; what was set before stands in ``_meta.xmodal_load`` of the
mapping, so that the next load, or doctor, puts it back even if this one is killed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from xmodal.data.dataset import Progress
from xmodal.errors import ConfigError, IndexFailure
from xmodal.index.documents import DocumentBatch
from xmodal.index.validation import check_ids, check_width
from xmodal_opensearch.client import bulk
from xmodal_opensearch.index.bulk_lines import index_line, source_codes
from xmodal_opensearch.index.store import OpenSearchIndex

KEY = "xmodal_load"
WHILE_LOADING: dict[str, Any] = {"index.refresh_interval": "-1"}
NO_REPLICAS: dict[str, Any] = {
    "index.auto_expand_replicas": "false",
    "index.number_of_replicas": 0,
}


def load(
    index: OpenSearchIndex,
    batches: Iterable[DocumentBatch],
    *,
    notes: Path,
    total: int = 0,
    workers: int = 2,
    no_replicas: bool = False,
    progress: Progress | None = None,
) -> bulk.Report:
    """Store all documents; ``failed`` of the report names those that could not be, and why.

    ``notes`` is the folder of the checkpoint, removed when all is stored. ``no_replicas`` takes
    the replicas away meanwhile: faster, and a node lost meanwhile loses documents. Raises
    ServerFailure if the server stays away longer than the client is patient, CodeError for codes of
    other bits, ConfigError for an index whose documents are somebody's own.
    """
    index.handle.check_owned()
    index.handle.store_fingerprint()
    checkpoint = Checkpoint(notes / f"{index.handle.uuid}.load")
    refused: dict[str, str] = {}
    done = 0

    def unsent() -> Iterator[bulk.Batch]:
        nonlocal done
        for number, batch in enumerate(bulk.batches(lines(index, batches, refused))):
            if checkpoint.has(number, batch):
                done += len(batch)
            else:
                yield batch

    def note(batch: bulk.Batch, report: bulk.Report) -> None:
        nonlocal done
        done += len(batch)
        if not report.failed:  # else they are sent, and named, once more
            checkpoint.note(batch)
        if progress is not None:
            progress("stored", done, max(total, done))

    with settings_for_loading(index, no_replicas=no_replicas):
        report = index.handle.send(unsent(), workers=workers, done=note)
        report.failed.update(refused)
        # Also what a load stored that was killed before it came here.
        index.handle.refresh_always()
    checkpoint.remove()
    return report


def lines(
    index: OpenSearchIndex, batches: Iterable[DocumentBatch], refused: dict[str, str]
) -> Iterator[bulk.Line]:
    """Yield the bulk lines of all documents; ``refused`` receives the reason of each other one."""
    for batch in batches:
        check_width(batch.bits, index.bits)
        sources = source_codes(batch, index.handle.layout)
        for id_, codes, fields in zip(batch.ids, sources, batch.fields, strict=True):
            try:
                check_ids([id_])
                yield index_line(id_, codes, json.loads(fields))
            except ConfigError as error:
                refused[id_] = str(error)


class Checkpoint:
    """Which batches the server has taken: a file of their numbers and hashes of their bytes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._taken: dict[int, str] = {}
        self._sent: dict[int, tuple[int, str]] = {}  # id() of a batch: its number and hash
        text = path.read_text(encoding="ascii", errors="replace") if path.exists() else ""
        for line in text.splitlines():
            number, _, digest = line.partition(" ")
            if number.isdecimal() and len(digest) == 32:
                self._taken[int(number)] = digest
        if text and not text.endswith("\n"):  # a kill may leave half a line
            self._write()

    def has(self, number: int, batch: bulk.Batch) -> bool:
        """Whether this very batch was taken; a different one ends what the notes are good for."""
        digest = _digest(batch)
        if self._taken.get(number) == digest:
            return True
        if number in self._taken:
            self._taken = {n: one for n, one in self._taken.items() if n < number}
            self._write()
        self._sent[id(batch)] = number, digest
        return False

    def note(self, batch: bulk.Batch) -> None:
        """The server has taken it."""
        number, digest = self._sent.pop(id(batch))
        self._taken[number] = digest
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "a", encoding="ascii") as file:
            file.write(f"{number} {digest}\n")

    def remove(self) -> None:
        """Everything is stored: the next load begins anew."""
        self.path.unlink(missing_ok=True)

    def _write(self) -> None:
        new = self.path.with_suffix(".new")
        new.write_text("".join(f"{n} {one}\n" for n, one in sorted(self._taken.items())), "ascii")
        new.replace(self.path)


@contextmanager
def settings_for_loading(index: OpenSearchIndex, *, no_replicas: bool = False) -> Iterator[None]:
    """No refreshes (and, if asked, no replicas) inside; what was set before is put back after."""
    wanted = WHILE_LOADING | (NO_REPLICAS if no_replicas else {})
    index.handle.write_meta({KEY: settings_before_loading(index, wanted)})
    try:
        _set(index, wanted)
        yield
    except BaseException:
        with suppress(IndexFailure):  # the server may be what failed: the next load does it then
            restore_settings(index)
        raise
    restore_settings(index)


def settings_before_loading(index: OpenSearchIndex, names: Iterable[str]) -> dict[str, Any]:
    """Settings as they were before any load: noted by one that was killed, else as they are now."""
    answer = index.handle.server.request(
        "GET", f"/{index.handle.name}/_settings", doing="reading settings", flat_settings="true"
    )
    now = answer[index.handle.name]["settings"]
    noted = index.handle.read_meta().get(KEY)
    return {name: now.get(name) for name in names} | dict(
        noted if isinstance(noted, Mapping) else {}
    )


def restore_settings(index: OpenSearchIndex) -> bool:
    """Restore the settings that a load changed; whether there were any."""
    noted = index.handle.read_meta().get(KEY)
    if not isinstance(noted, Mapping):
        return False
    _set(index, dict(noted))
    index.handle.write_meta({KEY: None})
    return True


def check_count(index: OpenSearchIndex, expected: int, *, exactly: bool = False) -> None:
    """Raises IndexFailure if fewer documents can be found than were stored, or (exactly) more."""
    found = len(index)
    if exactly and found > expected:
        raise IndexFailure(
            f"{index.handle.address}: {found:,} documents can be found, {expected:,} were stored: "
            "an earlier load left others in this unfinished version; remove it with "
            "xmodal-opensearch delete --old-versions and load again"
        )
    if found < expected:
        raise IndexFailure(
            f"{index.handle.address}: {found:,} documents can be found, {expected:,} were stored: "
            "run the same command again"
        )


def _set(index: OpenSearchIndex, settings: Mapping[str, Any]) -> None:
    doing = "changing settings"
    index.handle.server.request(
        "PUT", f"/{index.handle.name}/_settings", dict(settings), doing=doing
    )


def _digest(batch: bulk.Batch) -> str:
    hashed = hashlib.blake2b(digest_size=16)
    for line in batch:
        hashed.update(line.body)
    return hashed.hexdigest()
