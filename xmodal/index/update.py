"""Update of an index from a source: what is new, changed, unchanged, moved and gone.

An item is known by its id in its source, a picture by the hash of its bytes. The id of a document
is the id of its item; where a document of another source has this id already, the end of the
source's path is put before it (``holiday/a.jpg``).

- A document whose pictures and captions did not change keeps its codes: it is not encoded again.
- A document is *moved* if its item is gone, its pictures are no longer at their paths, and an item
  has pictures of the same bytes. The document of this item takes its place.
- A document is *gone* if its item is gone and it is not moved.
- A source that is no longer at its path has *moved* if an item of the same id and content is in
  this source, which takes over all its documents.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

from xmodal.data.dataset import Dataset
from xmodal.data.items import FeatureName, ImageSource, Item
from xmodal.data.packed import is_picture_file
from xmodal.data.picture_files import joint_hash, picture_hashes, picture_stamp
from xmodal.data.progress import Progress
from xmodal.errors import ConfigError
from xmodal.index.contract import Index
from xmodal.index.documents import DocumentBatch, fields_to_json
from xmodal.index.origins import Entry, ListedIndex, Origin, read_origin
from xmodal.modality import MODALITIES

CHUNK = 4096
"""Documents that are read from the index at a time."""


@dataclass
class Update:
    """Changes of an index that make it hold the items of one source.

    ``encode``: items to encode, under the ids of their documents. ``rewritten``: documents with the
    codes that the index has and with new fields, ids or origins. ``apart``: ids of documents by id
    of item, where they differ because of another source. ``moved``: ids of the documents that
    others take the place of. ``gone``: ids of documents without an item. ``existing``: ids of the
    items' documents that the index has. ``unchanged``: number of documents that stay as they are.
    ``counts``: codes of the documents that are not encoded.
    """

    encode: Dataset
    origins: dict[str, str]
    rewritten: list[DocumentBatch] = field(default_factory=list)
    apart: dict[str, str] = field(default_factory=dict)
    moved: list[str] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    existing: set[str] = field(default_factory=set)
    unchanged: int = 0
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(MODALITIES, 0))

    def with_origins(self, batch: DocumentBatch) -> DocumentBatch:
        """Return encoded items as documents with their origins."""
        return replace(batch, origins=[self.origins[id_] for id_ in batch.ids])

    def number_existing(self, batch: DocumentBatch) -> int:
        """Return the number of documents of a batch that replace one of the same id."""
        return len(self.existing.intersection(batch.ids))


def plan_update(
    index: Index,
    data: Dataset,
    source: str,
    *,
    reuse: bool = True,
    progress: Progress | None = None,
) -> Update:
    """Compare the items of a source with the documents of an index; the index is not changed.

    ``source``: see :class:`~xmodal.index.origins.Origin`. ``reuse``: False encodes all items again,
    for codes that depend on more than pictures and captions. Raises ConfigError for an index whose
    documents cannot be listed.
    """
    if not isinstance(index, ListedIndex):
        raise ConfigError("an index of this backend cannot list its documents, as updates require")
    items = {item.id: item for item in data}
    known, gone = _stored(index.entries(source=source), items)
    origins = _origins(data, source, known, progress)
    left: list[_Stored] = []
    for former in _former_sources(index, items, known, origins):
        of_former = _stored(index.entries(source=former), items)
        known, gone = of_former[0] | known, gone + of_former[1]
        left += of_former[1]
    ids, existing = _document_ids(index, items, known, source)
    moved_from, moved = _moves(gone, origins, known)
    update = Update(
        data,
        {ids[name]: origins[name].to_text() for name in items},
        apart={name: id_ for name, id_ in ids.items() if id_ != name and name not in known},
        moved=moved,
        gone=[one.id for one in gone if one.id not in set(moved)],
        existing=existing,
    )
    _rename_source(index, update, [one for one in left if one.id not in set(moved)], source)
    candidates: dict[str, str] = {}
    for name in items if reuse else ():
        before = moved_from.get(name) or known.get(name)
        if before is not None and _has_same_pictures(items[name], before, origins[name]):
            candidates[name] = before.id
    kept = _keep_codes(index, update, items, ids, candidates)
    renamed = (replace(item, id=ids[item.id]) for item in data if item.id not in kept)
    update.encode = replace(data, items=tuple(renamed))
    return update


@dataclass(frozen=True)
class _Stored:
    """A document of the index; ``images``: paths of its pictures."""

    id: str
    origin: Origin | None
    images: tuple[str, ...] = ()
    captions: tuple[str, ...] = ()


def _stored(
    entries: Iterable[Entry], items: Mapping[str, Item]
) -> tuple[dict[str, _Stored], list[_Stored]]:
    """Return the documents of the source by id of their item, and those whose item is gone."""
    known, gone = {}, []
    for id_, fields, origin in entries:
        assert origin is not None
        if origin.item in items:
            known[origin.item] = _Stored(id_, origin)
        else:
            gone.append(_Stored(id_, origin, tuple(_as_list(fields.get("image")))))
    return known, gone


def _origins(
    data: Dataset, source: str, stored: Mapping[str, _Stored], progress: Progress | None
) -> dict[str, Origin]:
    """Return the origin of each item; pictures with the stamp of their document are not read."""
    known = {name: one.origin for name, one in stored.items() if one.origin is not None}
    stamps = {item.id: joint_hash([picture_stamp(one) for one in item.images]) for item in data}
    changed = [
        item
        for item in data
        if item.id not in known or not stamps[item.id] or known[item.id].stamp != stamps[item.id]
    ]
    hashes = picture_hashes((image for item in changed for image in item.images), progress)
    pictures = {item.id: joint_hash([hashes[image] for image in item.images]) for item in changed}
    return {
        item.id: Origin(
            source,
            item.id,
            pictures[item.id] if item.id in pictures else known[item.id].pictures,
            stamps[item.id],
        )
        for item in data
    }


def origin_of(item: Item, source: str, hashes: Mapping[ImageSource, str | None]) -> Origin:
    """Return the origin of an item; ``hashes``: of its pictures, see ``picture_hashes``."""
    return Origin(
        source,
        item.id,
        joint_hash([hashes[image] for image in item.images]),
        joint_hash([picture_stamp(image) for image in item.images]),
    )


def _former_sources(
    index: Index,
    items: Mapping[str, Item],
    known: Mapping[str, _Stored],
    origins: Mapping[str, Origin],
) -> set[str]:
    """Return the sources that are no longer at their paths and of which an item is known here.

    An item is known by its id and content.
    """
    new = [name for name in items if name not in known]
    former: set[str] = set()
    for one in _documents(index, new):
        before, item = one.origin, items[one.id]
        if before is None or before.source in former or before.item != item.id:
            continue
        paths = [before.source, *one.images]
        if not os.path.isabs(before.source) or any(map(is_picture_file, paths)):
            continue
        pictures = origins[item.id].pictures
        if before.pictures == pictures and one.captions == item.captions:
            if pictures or not item.images:
                former.add(before.source)
    return former


def _rename_source(index: Index, update: Update, documents: Sequence[_Stored], source: str) -> None:
    """Add documents of a moved source that have no item to the update, under the new source."""
    origin_of = {one.id: one.origin for one in documents if one.origin is not None}
    for ids in _chunks(origin_of):
        found = index.get(ids)
        texts = [origin_of[id_]._replace(source=source).to_text() for id_ in found.ids]
        update.rewritten.append(replace(found, origins=texts))
        update.existing.update(found.ids)


def _document_ids(
    index: Index, items: Mapping[str, Item], known: Mapping[str, _Stored], source: str
) -> tuple[dict[str, str], set[str]]:
    """Return the id of the document of each item, and those of them that the index has.

    The index may have a document of an unknown origin under such an id: it is replaced.
    """
    ids = {name: one.id for name, one in known.items()}
    taken, existing = set(ids.values()), set(ids.values())
    for depth in count():
        waiting = [name for name in items if name not in ids]
        if not waiting:
            break
        prefix = id_prefix(source, depth)
        wanted = {name: f"{prefix}{name}" for name in waiting}
        others = {one.id: one.origin for one in _documents(index, wanted.values())}
        reserved = taken | (items.keys() if depth else set())
        for name, id_ in wanted.items():
            if id_ not in reserved and others.get(id_) is None:
                ids[name] = id_
                taken.add(id_)
                if id_ in others:
                    existing.add(id_)
    return ids, existing


def id_prefix(source: str, depth: int) -> str:
    """Return the last ``depth`` parts of a source, as the beginning of ids."""
    parts = [part for part in source.replace(os.sep, "/").split("/") if part]
    if depth > len(parts):
        return f"{source}~{depth}/"
    return "".join(f"{part}/" for part in parts[len(parts) - depth :])


def _documents(index: Index, ids: Iterable[str]) -> Iterator[_Stored]:
    """Yield the documents of the ids that the index has."""
    for chunk in _chunks(ids):
        found = index.get(chunk)
        for id_, text, origin in zip(found.ids, found.fields, found.origin_texts(), strict=True):
            fields = json.loads(text)
            images, captions = (tuple(_as_list(fields.get(name))) for name in MODALITIES)
            yield _Stored(id_, read_origin(origin), images, captions)


def _moves(
    gone: Sequence[_Stored], origins: Mapping[str, Origin], known: Mapping[str, _Stored]
) -> tuple[dict[str, _Stored], list[str]]:
    """Return the former document of each moved item, and the ids of all moved documents."""
    by_pictures: dict[str, list[str]] = {}
    for name, origin in origins.items():
        if origin.pictures:
            by_pictures.setdefault(origin.pictures, []).append(name)
    moved_from: dict[str, _Stored] = {}
    moved = []
    for one in gone:
        names = by_pictures.get(one.origin.pictures) if one.origin is not None else None
        if not names or any(map(is_picture_file, one.images)):
            continue
        moved.append(one.id)
        new = (name for name in names if name not in moved_from and name not in known)
        if (free := next(new, None)) is not None:
            moved_from[free] = one
    return moved_from, moved


def _has_same_pictures(item: Item, before: _Stored, origin: Origin) -> bool:
    """Return whether the pictures of an item are those of a document, by their bytes."""
    if any(isinstance(one, FeatureName) for one in (*item.images, *item.captions)):
        return False
    if before.origin is None:
        return False
    return before.origin.pictures == origin.pictures and bool(origin.pictures or not item.images)


def _keep_codes(
    index: Index,
    update: Update,
    items: Mapping[str, Item],
    ids: Mapping[str, str],
    candidates: Mapping[str, str],
) -> set[str]:
    """Add the documents that keep their codes to the update; return the ids of their items.

    ``candidates``: ids of the documents with the same pictures, by id of item. They keep their
    codes if they have the same captions and a code for each picture and caption.
    """
    kept = set()
    for names in _chunks(candidates):
        stored = index.get([candidates[name] for name in names])
        row_of = {id_: row for row, id_ in enumerate(stored.ids)}
        counts = {modality: stored.counts(modality).tolist() for modality in MODALITIES}
        rows, new_ids, new_fields = [], [], []
        for name in names:
            item, row = items[name], row_of[candidates[name]]
            old = json.loads(stored.fields[row])
            if [*_as_list(old.get("text"))] != [*item.captions] or any(
                counts[modality][row] != len(item.sources(modality)) for modality in MODALITIES
            ):
                continue
            try:
                new = fields_to_json(item.document(), name)
            except ConfigError:  # the encoder records it
                continue
            kept.add(name)
            for modality in MODALITIES:
                update.counts[modality] += counts[modality][row]
            same = stored.ids[row] == ids[name] and json.loads(new) == old
            if same and stored.origin_texts()[row] == update.origins[ids[name]]:
                update.unchanged += 1
            else:
                rows.append(row)
                new_ids.append(ids[name])
                new_fields.append(new)
        if rows:
            origins = [update.origins[id_] for id_ in new_ids]
            update.rewritten.append(
                replace(stored.take(rows), ids=new_ids, fields=new_fields, origins=origins)
            )
    return kept


def _chunks(ids: Iterable[str]) -> Iterator[list[str]]:
    """Yield ids in lists of at most CHUNK."""
    every = list(ids)
    for start in range(0, len(every), CHUNK):
        yield every[start : start + CHUNK]


def _as_list(value: Any) -> list[Any]:
    return [] if value is None else value if isinstance(value, list) else [value]
