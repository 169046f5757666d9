"""Groups: items that show the same thing, by the bytes of their pictures.

Rows of a table with ids of their own are separate items, although they may have one picture. A
split must not separate them, and none of their captions is wrong for the others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import replace

from xmodal.data.dataset import Dataset
from xmodal.data.items import ImageSource, Item
from xmodal.data.picture_files import picture_hashes


def with_groups(data: Dataset, hashes: Mapping[ImageSource, str | None] | None = None) -> Dataset:
    """Return a copy in which every item has a group.

    Items with a common picture (equal bytes), id or former group are one group, and so are items
    that such items connect. The name of a group is the smallest SHA-256 of its pictures, in
    hexadecimal digits; without a readable picture it is the SHA-256 of the id. It does not depend
    on the order of the items. ``hashes``: of all pictures, see
    :func:`~xmodal.data.picture_files.picture_hashes`; by default every picture is read once.
    """
    if data.lazy:  # no pictures, and ids that differ
        return replace(data, items=data.lazy.with_groups())
    hash_of = hashes
    if hash_of is None:
        hash_of = picture_hashes(data.pictures())
    keys = [list(_keys(item, hash_of)) for item in data]
    parent: dict[str, str] = {}

    def root(key: str) -> str:
        while parent.setdefault(key, key) != key:
            parent[key] = key = parent[parent[key]]
        return key

    for first, *others in keys:
        for other in others:
            one, two = sorted((root(first), root(other)))  # picture keys sort before id keys
            parent[two] = one
    names = (root(first).removeprefix(ID_KEY) for first, *_ in keys)
    items = (replace(item, group=name) for item, name in zip(data, names, strict=True))
    return replace(data, items=tuple(items))


ID_KEY = "id "
"""Prefix of the keys of ids; it sorts after hexadecimal digits."""


def _keys(item: Item, hash_of: Mapping[ImageSource, str | None]) -> Iterator[str]:
    """Yield the keys that an item shares with the other items of its group."""
    yield ID_KEY + hashlib.sha256(item.id.encode(errors="surrogatepass")).hexdigest()
    if item.group is not None:
        yield f"{ID_KEY}group {item.group}"
    for source in item.images:
        if (digest := hash_of[source]) is not None:
            yield digest
