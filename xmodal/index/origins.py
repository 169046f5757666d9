"""Origin of a document: the source that it was read from, and what identifies it there.

``xmodal index`` stores an origin with each document, beside its fields. It decides which documents
an indexing of the same source replaces, moves or, with ``--prune``, removes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

from xmodal.data.remote import address, is_remote
from xmodal.modality import Modality


class Origin(NamedTuple):
    """Where a document comes from.

    ``source``: resolved path of the folder or table, or the name that ``--source`` gives. ``item``:
    id of the item in this source. ``pictures``: hash of the bytes of its pictures. ``stamp``: hash
    of their sizes and modification times. Both are "" if unknown.
    """

    source: str
    item: str
    pictures: str = ""
    stamp: str = ""

    def to_text(self) -> str:
        """Return the text that an index stores."""
        return json.dumps(self, ensure_ascii=False, separators=(",", ":"))


def read_origin(text: str | None) -> Origin | None:
    """Return the origin of a stored text, None for a document without one."""
    return Origin(*json.loads(text)) if text else None


def source_of(data: str | Path) -> str:
    """Return the name of the source DATA: its path, absolute and without symbolic links, or
    its address.
    """
    return address(data) if is_remote(data) else os.path.realpath(data)


class Entry(NamedTuple):
    """A stored document without its codes; ``origin`` is None if unknown."""

    id: str
    fields: Mapping[str, Any]
    origin: Origin | None


@runtime_checkable
class ListedIndex(Protocol):
    """An index whose documents can be listed."""

    def entries(
        self, *, where: Mapping[str, Any] | None = None, source: str | None = None
    ) -> Iterator[Entry]:
        """Yield documents in order of id: those that pass the filters, or those of one source.

        Raises ConfigError for invalid filters.
        """

    def count_codes(self) -> dict[Modality, int]:
        """Return the number of stored codes of each modality."""

    def disk_usage(self) -> dict[str, int]:
        """Return the bytes on disk, by file or part."""
