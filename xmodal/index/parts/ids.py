"""Ids of the documents of parts in an index that other sources may have filled too."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import count

from xmodal.data.readers.seen_texts import SeenTexts
from xmodal.errors import ConfigError
from xmodal.index.contract import Index
from xmodal.index.documents import DocumentBatch
from xmodal.index.origins import ListedIndex, Origin, read_origin
from xmodal.index.parts.part import Part
from xmodal.index.update import CHUNK, id_prefix


@dataclass
class PartIds:
    """Which documents of parts an index has, and under which ids it stores them.

    ``apart``: ids of documents by source and id of item, where they differ because another source
    has that id. ``existing``: number of documents that are replaced. ``missing``: ids of documents
    of the parts' sources that no part has.
    """

    apart: dict[tuple[str, str], str] = field(default_factory=dict)
    existing: int = 0
    missing: list[str] = field(default_factory=list)

    def applied(self, batch: DocumentBatch) -> DocumentBatch:
        """Return a batch of a part under the ids of the index."""
        if not self.apart:
            return batch
        origins = map(read_origin, batch.origin_texts())
        ids = [
            id_ if origin is None else self.apart.get((origin.source, origin.item), id_)
            for id_, origin in zip(batch.ids, origins, strict=True)
        ]
        return replace(batch, ids=ids)


class NewIds:
    """Ids of the documents of a source of which an index has none, found batch by batch.

    ``existing``: number of documents that replace one of unknown origin. ``renamed``: ids of
    documents by id of item, where another source has this id.
    """

    def __init__(self, index: Index) -> None:
        self._index = index if len(index) else None
        self._taken, self._found = SeenTexts(), PartIds()

    @property
    def existing(self) -> int:
        """Number of documents that replace one."""
        return self._found.existing

    @property
    def renamed(self) -> dict[str, str]:
        """Ids of documents by id of item, where they differ."""
        return {item: id_ for (_, item), id_ in self._found.apart.items()}

    def applied(self, batch: DocumentBatch) -> DocumentBatch:
        """Return a batch of the source under the ids of the index."""
        if self._index is None:
            return batch
        _resolve(self._index, batch, self._taken, self._found)
        return self._found.applied(batch)


def is_new_source(index: Index, source: str) -> bool:
    """Return whether an index has no document of a source, nor of one that may have moved to it.

    False for an index with documents that cannot be listed.
    """
    if not len(index):
        return True
    if not isinstance(index, ListedIndex):
        return False
    known = {entry.origin.source for entry in index.entries() if entry.origin is not None}
    moved = (one for one in known if os.path.isabs(one) and not os.path.exists(one))
    return source not in known and not any(moved)


def resolve_ids(index: Index, parts: Sequence[Part]) -> PartIds:
    """Compare the documents of complete listings with those of an index, which is not changed.

    The parts of one listing need no comparison with an empty index. Memory: 16 to 32 bytes a
    document, and the ids that differ. Raises ConfigError for an index that cannot list documents.
    """
    found = PartIds()
    if not len(index) and len({part.info.listing for part in parts}) == 1:
        return found
    if not isinstance(index, ListedIndex):
        raise ConfigError("an index of this backend cannot list its documents, as updates require")
    ids, items = SeenTexts(), SeenTexts()
    for part in parts:
        for batch in part.batches():
            _resolve(index, batch, ids, found)
            for origin in map(read_origin, batch.origin_texts()):
                if origin is not None:
                    items.add(_key(origin))
    for source in dict.fromkeys(part.info.source for part in parts):
        for id_, _, origin in index.entries(source=source):
            if origin is not None and _key(origin) not in items:
                found.missing.append(id_)
    return found


def _key(origin: Origin) -> str:
    return f"{origin.source}\0{origin.item}"


def _resolve(index: Index, batch: DocumentBatch, taken: SeenTexts, found: PartIds) -> None:
    """Add the ids of a batch to ``taken`` and ``found``.

    The index may have a document of an unknown origin under such an id: it is replaced.
    """
    waiting = dict(zip(batch.ids, map(read_origin, batch.origin_texts()), strict=True))
    for depth in count():
        if not waiting:
            return
        wanted = {
            name: f"{id_prefix(origin.source, depth) if origin else ''}{name}"
            for name, origin in waiting.items()
        }
        stored = dict(_origins(index, list(wanted.values())))
        for name, id_ in wanted.items():
            mine, other = waiting[name], stored.get(id_)
            is_free = mine is None or other is None or _key(other) == _key(mine)
            if not is_free or not (taken.add(id_) or mine is None):
                continue
            del waiting[name]
            found.existing += id_ in stored
            if mine is not None and id_ != name:
                found.apart[mine.source, mine.item] = id_


def _origins(index: Index, ids: Sequence[str]) -> Iterator[tuple[str, Origin | None]]:
    """Yield id and origin of the documents that the index has."""
    for start in range(0, len(ids), CHUNK):
        stored = index.get(ids[start : start + CHUNK])
        yield from zip(stored.ids, map(read_origin, stored.origin_texts()), strict=True)
