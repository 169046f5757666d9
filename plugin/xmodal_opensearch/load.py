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
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from xmodal.errors import ConfigError, IndexFailure
from xmodal.index import MODALITIES, Addition
from xmodal_opensearch import bulk
from xmodal_opensearch.exact import ExactIndex
from xmodal_opensearch.mapping import field_of

Progress = Callable[[str, int, int], None]
KEY = "xmodal_load"
WHILE_LOADING: dict[str, Any] = {"index.refresh_interval": "-1"}
WITHOUT_COPIES: dict[str, Any] = {
    "index.auto_expand_replicas": "false",
    "index.number_of_replicas": 0,
}


def load(
    index: ExactIndex,
    additions: Iterable[Addition],
    *,
    notes: Path,
    total: int = 0,
    workers: int = 2,
    without_copies: bool = False,
    progress: Progress | None = None,
) -> bulk.Report:
    """Store all documents; ``failed`` of the report names those that could not be, and why.

    ``notes`` is the folder of the checkpoint, removed when all is stored. ``without_copies`` takes
    the replicas away meanwhile: faster, and a node lost meanwhile loses documents. Raises
    ServerFailure if the server stays away longer than the client is patient.
    """
    index.remember_encoder()
    checkpoint = Checkpoint(notes / f"{index.uuid}.load")
    refused: dict[str, str] = {}
    done = 0

    def unsent() -> Iterator[bulk.Batch]:
        nonlocal done
        for number, batch in enumerate(bulk.batches(lines(index, additions, refused))):
            if checkpoint.has(number, batch):
                done += len(batch)
            else:
                yield batch

    def note(batch: bulk.Batch, report: bulk.Report) -> None:
        nonlocal done
        done += len(batch)
        checkpoint.note(batch)
        if progress is not None:
            progress("stored", done, max(total, done))

    with settings_for_loading(index, without_copies=without_copies):
        report = index.send(unsent(), workers=workers, done=note)
    report.failed.update(refused)
    index.refresh()
    checkpoint.remove()
    return report


def lines(
    index: ExactIndex, additions: Iterable[Addition], refused: dict[str, str]
) -> Iterator[bulk.Line]:
    """The bulk lines of all documents; what cannot be stored goes to ``refused``, with why."""
    for addition in additions:
        columns = {
            field_of(side): index.layout.values(getattr(addition, side))
            for side in MODALITIES
            if getattr(addition, side) is not None
        }
        for row, id_ in enumerate(addition.ids):
            ours = {name: values[row] for name, values in columns.items()}
            try:
                yield bulk.index_line(id_, ours, addition.fields[row])
            except ConfigError as error:
                refused[id_] = str(error)


class Checkpoint:
    """Which batches the server has taken: a file of their numbers and hashes of their bytes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._numbers: dict[bytes, int] = {}
        self._taken: dict[int, str] = {}
        if path.exists():
            for line in path.read_text(encoding="ascii", errors="replace").splitlines():
                number, _, digest = line.partition(" ")
                if number.isdecimal() and len(digest) == 32:  # a kill may leave half a line
                    self._taken[int(number)] = digest

    def has(self, number: int, batch: bulk.Batch) -> bool:
        """Whether this very batch was taken; a different one ends what the notes are good for."""
        digest = _digest(batch)
        if self._taken.get(number) == digest:
            return True
        if number in self._taken:
            self._taken = {n: one for n, one in self._taken.items() if n < number}
            self._write()
        self._numbers[_key(batch)] = number
        return False

    def note(self, batch: bulk.Batch) -> None:
        """The server has taken it."""
        number = self._numbers.pop(_key(batch))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "a", encoding="ascii") as file:
            file.write(f"{number} {_digest(batch)}\n")

    def remove(self) -> None:
        """Everything is stored: the next load begins anew."""
        self.path.unlink(missing_ok=True)

    def _write(self) -> None:
        new = self.path.with_suffix(".new")
        new.write_text("".join(f"{n} {one}\n" for n, one in sorted(self._taken.items())), "ascii")
        new.replace(self.path)


@contextmanager
def settings_for_loading(index: ExactIndex, *, without_copies: bool = False) -> Iterator[None]:
    """No refreshes (and, if asked, no replicas) inside; what was set before is put back after."""
    index.write_meta({KEY: before_loading(index)})
    wanted = WHILE_LOADING | (WITHOUT_COPIES if without_copies else {})
    _set(index, wanted)
    try:
        yield
    finally:
        put_back(index)


def before_loading(index: ExactIndex) -> dict[str, Any]:
    """The settings as they were before any load, which one that was killed has noted."""
    noted = index.read_meta().get(KEY)
    if isinstance(noted, Mapping):
        return dict(noted)
    answer = index.server.request(
        "GET", f"/{index.name}/_settings", doing="reading settings", flat_settings="true"
    )
    now = answer[index.name]["settings"]
    return {name: now.get(name) for name in (WHILE_LOADING | WITHOUT_COPIES)}


def put_back(index: ExactIndex) -> bool:
    """Restore the settings that a load changed; whether there were any."""
    noted = index.read_meta().get(KEY)
    if not isinstance(noted, Mapping):
        return False
    _set(index, dict(noted))
    index.write_meta({KEY: None})
    return True


def check_count(index: ExactIndex, expected: int) -> None:
    """Raises IndexFailure if fewer documents can be found than were stored."""
    found = len(index)
    if found < expected:
        raise IndexFailure(
            f"{index.address}: {found:,} documents can be found, {expected:,} were stored: "
            "run the same command again"
        )


def _set(index: ExactIndex, settings: Mapping[str, Any]) -> None:
    doing = "changing settings"
    index.server.request("PUT", f"/{index.name}/_settings", dict(settings), doing=doing)


def _digest(batch: bulk.Batch) -> str:
    hashed = hashlib.blake2b(digest_size=16)
    for line in batch:
        hashed.update(line.body)
    return hashed.hexdigest()


def _key(batch: bulk.Batch) -> bytes:
    return json.dumps([batch[0].id, batch[-1].id, len(batch)]).encode()
