"""Pictures of a local index that was moved or copied together with its pictures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from xmodal.data.packed import is_picture_file
from xmodal.data.picture_files import joint_hash, picture_hashes
from xmodal.index.origins import read_origin

PARENTS = 2
"""Folders above an index below which pictures are searched."""


def find_pictures(fields: dict[str, Any], origin_text: str, folder: Path) -> dict[str, Any]:
    """Return the fields of a document with the present paths of its pictures.

    ``folder``: of the index. Pictures that are not at their paths are searched below the two
    folders above it, by the ends of their paths. They must have the hash of the document's origin;
    otherwise the fields are returned unchanged.
    """
    origin, stored = read_origin(origin_text), fields.get("image")
    if origin is None or not origin.pictures or stored is None:
        return fields
    several = isinstance(stored, list)
    paths = [str(path) for path in stored] if several else [str(stored)]
    if all(map(is_picture_file, paths)):
        return fields
    found = [next(_candidates(path, folder), None) for path in paths]
    present = [Path(path) for path in found if path is not None]
    if len(present) < len(paths):
        return fields
    hashes = picture_hashes(present)
    if joint_hash([hashes[path] for path in present]) != origin.pictures:
        return fields
    return fields | {"image": found if several else found[0]}


def _candidates(path: str, folder: Path) -> Iterator[str]:
    """Yield the files that a picture may be now, the most similar path first."""
    if is_picture_file(path):
        yield path
    ends = Path(path).parts[1:]
    for parent in list(folder.absolute().parents)[:PARENTS]:
        for start in range(len(ends)):
            candidate = parent.joinpath(*ends[start:])
            if is_picture_file(candidate):
                yield str(candidate)
