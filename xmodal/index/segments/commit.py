"""The commit file of a local index, ``index.json``: which segments are the index.

It has bits, fingerprint, and a record of each segment. It is written whole, synced and renamed, so
that a folder contains the old index or the new one at any moment; files that it does not name are
left over and removed by the next save. Its own content is covered by a digest.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from xmodal.checksums import DIGEST_KEY, is_damage, with_digest
from xmodal.codes import check_bits
from xmodal.errors import CodeError, IndexFailure, IndexMismatch
from xmodal.index.segments.column_file import FileRecord, unreadable
from xmodal.index.segments.deletions import DELETED, DeletedRecord
from xmodal.index.segments.segment import PREFIX, Segment, SegmentRecord

FILE = "index.json"
FORMAT = 4
"""Number of the format; 1 to 3 are those of :mod:`xmodal.index.former_format`."""


class Commit(NamedTuple):
    """Content of the commit file: width of codes, fingerprint of their encoder, and segments."""

    bits: int
    fingerprint: str | None
    segments: tuple[SegmentRecord, ...]

    @property
    def files(self) -> dict[str, int | None]:
        """Names of all files of the segments, with their sizes where they are recorded."""
        files: dict[str, int | None] = {}
        for one in self.segments:
            files[one.name] = one.file.size
            if one.deleted is not None:
                files[one.deleted.name] = -(-one.documents // 8)
        return files

    def open_segments(self, folder: Path) -> list[Segment]:
        """Open all segments; raises IndexFailure."""
        return [Segment.open(folder, record) for record in self.segments]


def write_commit(new: Path, commit: Commit) -> None:
    """Write a commit file under the name ``new``, and sync it."""
    with open(new, "w", encoding="utf-8", newline="\n") as file:
        file.write(_to_text(commit))
        file.flush()
        os.fsync(file.fileno())


def read_commit(path: Path) -> Commit:
    """Return the content of a commit file; raises IndexFailure, IndexMismatch, OSError."""
    try:
        text = path.read_bytes().decode()
        content = json.loads(text)
        found = content["format"]
        if isinstance(found, int) and found > FORMAT:
            raise IndexMismatch(
                f"{path} has format {found}, this version reads formats up to {FORMAT}: index "
                "again, or use the version that wrote it"
            )
        commit = Commit(
            check_bits(content["bits"]),
            content["fingerprint"],
            tuple(map(_read_segment, content["segments"])),
        )
        if _to_text(commit) != text:
            raise ValueError(f"its content does not match its {DIGEST_KEY}")
    except (OSError, ValueError, TypeError, LookupError, AttributeError, CodeError) as error:
        if isinstance(error, PermissionError):
            raise IndexFailure(f"{path}: permission denied, this user may not read it") from None
        if isinstance(error, OSError) and not is_damage(error):
            raise
        reason = getattr(error, "strerror", None) or error
        raise IndexFailure(
            f"{path} is damaged ({' '.join(str(reason).split())[:120]}): index again"
        ) from None
    return commit


def check_files(folder: Path, commit: Commit) -> None:
    """Raise IndexFailure if a file that a commit names is missing or has another size."""
    for name, size in commit.files.items():
        try:
            found = (folder / name).stat().st_size
        except OSError as error:
            raise unreadable(folder / name, error) from None
        if found != size:
            raise unreadable(folder / name, ValueError(f"{found} bytes, expected {size}"))


def _to_text(commit: Commit) -> str:
    """Return the whole content of a commit file; there is one text for each commit."""
    content: dict[str, Any] = {
        "format": FORMAT,
        "bits": commit.bits,
        "fingerprint": commit.fingerprint,
        "segments": [_segment_to_json(one) for one in commit.segments],
    }
    return json.dumps(with_digest(content), indent=1, ensure_ascii=False) + "\n"


def _segment_to_json(record: SegmentRecord) -> dict[str, Any]:
    deleted = None if record.deleted is None else record.deleted._asdict()
    return {**record._asdict(), "file": record.file._asdict(), "deleted": deleted}


def _read_segment(content: dict[str, Any]) -> SegmentRecord:
    """Return the record of a segment; raises ValueError, TypeError or KeyError for other JSON."""
    deleted = content["deleted"]
    record = SegmentRecord(
        _checked(content["name"], lambda name: _is_name(name, PREFIX)),
        _checked(content["documents"], _is_count),
        FileRecord(*(_checked(content["file"][key], _is_count) for key in FileRecord._fields)),
        None
        if deleted is None
        else DeletedRecord(
            _checked(deleted["name"], lambda name: _is_name(name, DELETED)),
            _checked(deleted["checksum"], _is_count),
        ),
    )
    return record


def _checked(value: Any, accepts: Callable[[Any], bool]) -> Any:
    if not accepts(value):
        raise ValueError(f"{value!r} is no value of the record of a segment")
    return value


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_name(name: object, prefix: str) -> bool:
    """Whether a recorded name is that of a file in the folder itself."""
    return isinstance(name, str) and name.startswith(prefix) and os.path.basename(name) == name
