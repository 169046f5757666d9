"""Loading of many documents into an index: resumable and idempotent.

Batches are numbered. A checkpoint file lists the stored batches with hashes of their bytes, so that
a killed load continues after them. If a batch differs from the checkpoint, it and all later batches
are sent again. Documents have their own ids, so sending a document twice stores it once.

During a load the index is not refreshed. The previous settings are saved in ``_meta.xmodal_load``
of the mapping, from which the next load or ``doctor --repair`` restores them after a kill.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from xmodal.data.progress import Progress
from xmodal.errors import IndexFailure
from xmodal.index.documents import DocumentBatch
from xmodal.writing import write_text
from xmodal_opensearch.client import bulk
from xmodal_opensearch.index.store import OpenSearchIndex
from xmodal_opensearch.loading.line_building import lines

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
    checkpoints: Path,
    total: int | Callable[[], int] = 0,
    workers: int = 2,
    processes: int = 1,
    no_replicas: bool = False,
    progress: Progress | None = None,
) -> bulk.Report:
    """Store all documents; ``failed`` of the report has the reasons of refused ones by id.

    ``checkpoints``: folder of the checkpoint file, which is removed at the end. ``total``: the
    number of documents, about, for ``progress``, or a function that returns it. ``workers``:
    requests at the same time. ``processes`` build them; 1 is this process. ``no_replicas``: remove
    replicas during the load, which is faster, but a lost node loses documents. Raises ServerFailure
    if the server is unavailable for longer than the client's retries, CodeError for codes of
    another width, ConfigError for an enriched index.
    """
    index.handle.check_owned()
    index.handle.store_fingerprint()
    checkpoint = Checkpoint(checkpoints / f"{index.handle.uuid}.load")
    refused: dict[str, str] = {}
    done = 0

    def unsent() -> Iterator[bulk.Batch]:
        nonlocal done
        for number, batch in enumerate(bulk.batches(made)):
            if checkpoint.has(number, batch):
                done += len(batch)
            else:
                yield batch

    def on_stored(batch: bulk.Batch, report: bulk.Report) -> None:
        nonlocal done
        done += len(batch)
        if not report.failed:  # a batch with failures is sent again, to report them again
            checkpoint.add(batch)
        if progress is not None:
            progress("stored", done, max(total() if callable(total) else total, done))

    with (
        settings_for_loading(index, no_replicas=no_replicas),
        closing(lines(index, batches, refused, processes=processes)) as made,
    ):
        report = index.handle.send(unsent(), workers=workers, done=on_stored)
        report.failed.update(refused)
        # Also refreshes the documents of a load that was killed before this line.
        index.handle.refresh_always()
    checkpoint.remove()
    return report


class Checkpoint:
    """File of the numbers and hashes of the batches that the server has stored."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stored: dict[int, str] = {}
        self._sent: dict[int, tuple[int, str]] = {}  # id() of a batch: its number and hash
        text = path.read_text(encoding="ascii", errors="replace") if path.exists() else ""
        for line in text.splitlines():
            number, _, digest = line.partition(" ")
            if number.isdecimal() and len(digest) == 32:
                self._stored[int(number)] = digest
        if text and not text.endswith("\n"):  # a kill may leave an incomplete line
            self._write()

    def has(self, number: int, batch: bulk.Batch) -> bool:
        """Return whether this batch is stored; a different batch invalidates all later entries."""
        digest = _digest(batch)
        if self._stored.get(number) == digest:
            return True
        if number in self._stored:
            self._stored = {n: other for n, other in self._stored.items() if n < number}
            self._write()
        self._sent[id(batch)] = number, digest
        return False

    def add(self, batch: bulk.Batch) -> None:
        """Add a batch that the server has stored."""
        number, digest = self._sent.pop(id(batch))
        self._stored[number] = digest
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "a", encoding="ascii") as file:
            file.write(f"{number} {digest}\n")

    def remove(self) -> None:
        """Delete the file, after which a load starts from the beginning."""
        self.path.unlink(missing_ok=True)

    def _write(self) -> None:
        lines = (f"{number} {digest}\n" for number, digest in sorted(self._stored.items()))
        write_text(self.path, "".join(lines))


@contextmanager
def settings_for_loading(index: OpenSearchIndex, *, no_replicas: bool = False) -> Iterator[None]:
    """Disable refreshes, and with ``no_replicas`` replicas, inside; restore the settings after."""
    settings = WHILE_LOADING | (NO_REPLICAS if no_replicas else {})
    before = settings_before_loading(index, settings)
    index.handle.write_meta({KEY: before})
    try:
        _set(index, settings)
        yield
    except BaseException:
        with suppress(IndexFailure):  # an unavailable server: the next load restores the settings
            restore_settings(index, before)
        raise
    restore_settings(index, before)


def settings_before_loading(index: OpenSearchIndex, names: Iterable[str]) -> dict[str, Any]:
    """Return settings from before any load: as saved by another load, or the present ones.

    A load saves the settings before it changes them and forgets them after it restored them, so
    settings between two equal readings of the saved ones are not those of a load.
    """
    saved = _saved(index)
    while True:
        answer = index.handle.server.request(
            "GET", f"/{index.handle.name}/_settings", doing="reading settings", flat_settings="true"
        )
        present = answer[index.handle.name]["settings"]
        before, saved = saved, _saved(index)
        if saved == before:
            return {name: present.get(name) for name in names} | (saved or {})


def restore_settings(index: OpenSearchIndex, before: Mapping[str, Any] | None = None) -> bool:
    """Restore the settings that a load changed; return whether there were any.

    ``before``: settings before this load, in case that another load forgot the saved ones.
    """
    saved = _saved(index)
    settings = {**(before or {}), **(saved or {})}
    if not settings:
        return False
    _set(index, settings)
    if saved is not None:
        index.handle.write_meta({KEY: None})
    return True


def _saved(index: OpenSearchIndex) -> dict[str, Any] | None:
    """Return the settings that a load saved, or None."""
    saved = index.handle.read_meta().get(KEY)
    return dict(saved) if isinstance(saved, Mapping) else None


def check_count(index: OpenSearchIndex, expected: int, *, exactly: bool = False) -> None:
    """Raise IndexFailure for fewer documents than ``expected``, and with ``exactly`` for more."""
    count = len(index)
    if exactly and count > expected:
        raise IndexFailure(
            f"{index.handle.address} has {count:,} documents, expected {expected:,}: an earlier "
            "load left others in this unfinished version; remove it with "
            "xmodal-opensearch delete --old-versions and load again"
        )
    if count < expected:
        raise IndexFailure(
            f"{index.handle.address} has {count:,} documents, expected {expected:,}: "
            "run the same command again"
        )


def _set(index: OpenSearchIndex, settings: Mapping[str, Any]) -> None:
    doing = "changing settings"
    index.handle.server.request(
        "PUT", f"/{index.handle.write_target()}/_settings", dict(settings), doing=doing
    )


def _digest(batch: bulk.Batch) -> str:
    hashed = hashlib.blake2b(digest_size=16)
    for line in batch:
        hashed.update(line.body)
    return hashed.hexdigest()
