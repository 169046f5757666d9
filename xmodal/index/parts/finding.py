"""Finding of parts, which must be all shards of each listing and of one encoder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from xmodal.data.remote import address, find_remote, is_remote, is_remote_file, list_remote
from xmodal.errors import IndexFailure, IndexMismatch
from xmodal.index.parts.part import ENDING, Part, is_part


def find_parts(paths: Sequence[Path]) -> list[Part]:
    """Open the parts at ``paths``, files or folders of them; an empty list if these have none.

    Raises IndexMismatch unless the parts are all shards of each listing, each once, and all of one
    encoder, and for parts beside other files; IndexFailure for a damaged one, and for a remote path
    without parts; RemoteFailure.
    """
    files = [one for path in paths for one in _files(path)]
    found = [path for path in files if is_part(path)]
    if not found:
        if remote := next(filter(is_remote, paths), None):
            raise IndexFailure(
                f"{address(remote)} has no parts of xmodal encode, expected those alone on a "
                "remote file system: encode the data first"
            )
        return []
    if others := [path for path in files if path not in set(found)]:
        raise IndexMismatch(
            f"{address(others[0])} is no part beside {len(found):,} parts of xmodal encode: load "
            "other data by a command of its own"
        )
    parts = [Part(path) for path in found]
    _check_same_encoder(parts)
    for listing in dict.fromkeys(part.info.listing for part in parts):
        _check_complete([part for part in parts if part.info.listing == listing])
    return sorted(parts, key=lambda part: (part.info.source, part.info.listing, part.info.shard))


def _files(path: Path) -> list[Path]:
    """Return the files of a folder, of a remote pattern, or of a path."""
    if not is_remote(path):
        return sorted(path.glob(f"*{ENDING}")) if path.is_dir() else [path]
    if set("*?") & set(path.name):
        return find_remote(path)
    if is_remote_file(path):
        return [path]
    return [one for one, _ in list_remote(path) if one.suffix.lower() == ENDING]


def _check_same_encoder(parts: Sequence[Part]) -> None:
    first = parts[0]
    for part in parts:
        mine, other = (one.info for one in (first, part))
        if (mine.fingerprint, mine.bits) != (other.fingerprint, other.bits):
            raise IndexMismatch(
                f"{part.name} was encoded by {other.fingerprint} ({other.bits} bits), {first.name} "
                f"by {mine.fingerprint} ({mine.bits} bits), expected parts of one model"
            )
    if len({part.info.dim for part in parts if len(part)}) > 1:
        raise IndexMismatch(
            f"some of the parts beside {first.name} have vectors, others none: encode all of them "
            "with or without --no-vectors"
        )


def _check_complete(parts: Sequence[Part]) -> None:
    """Raise IndexMismatch unless parts of one listing are all of its shards, each once."""
    count = parts[0].info.shard.count
    seen: dict[int, Path] = {}
    for part in parts:
        shard = part.info.shard
        if shard.count != count:
            raise IndexMismatch(
                f"{part.name} is shard {shard}, {parts[0].name} is shard {parts[0].info.shard}: "
                "expected the same number of shards"
            )
        if shard.number in seen:
            raise IndexMismatch(
                f"{address(seen[shard.number])} and {part.name} are both shard {shard}, expected "
                "one of them"
            )
        seen[shard.number] = part.path
    if missing := [number for number in range(1, count + 1) if number not in seen]:
        shown = ", ".join(map(str, missing[:10])) + (", ..." if len(missing) > 10 else "")
        raise IndexMismatch(
            f"{len(missing):,} of {count:,} shards are missing beside {parts[0].name}: {shown}; "
            "encode them (xmodal encode --shard), or add their files"
        )
