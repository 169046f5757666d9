"""Damaged copies of what xmodal stores: one mutation of one file, and what the use of it does."""

from __future__ import annotations

import logging
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xmodal.errors import XmodalError

REFUSED, MENDED, NO_EFFECT = "refused", "mended", "no effect"
OTHER, NOT_NAMED, TRACEBACK = "silently other", "file not named", "traceback"
CRASHED, SLOW = "crashed", "too slow"
GOOD = (REFUSED, MENDED, NO_EFFECT)
"""Results that are right: one line that names the file, or equal results."""
BAD = (OTHER, NOT_NAMED, TRACEBACK, CRASHED, SLOW)


@dataclass(frozen=True)
class Artefact:
    """A folder that xmodal wrote.

    ``use``: loads a copy of the folder, uses it, and returns everything that it gives. ``other``: a
    folder with the files of another artefact of the same shapes.
    """

    name: str
    folder: Path
    other: Path
    use: Callable[[Path], Any]

    def files(self) -> list[str]:
        """Return the sorted paths of the files, relative to the folder."""
        found = (path for path in self.folder.rglob("*") if path.is_file())
        return sorted(str(path.relative_to(self.folder)) for path in found if path.name != "lock")


@dataclass(frozen=True)
class Mutation:
    """One mutation of one file, the same for the same ``seed``."""

    kind: str
    file: str
    seed: str

    def apply(self, folder: Path, other: Path) -> None:
        """Change the file in ``folder``; ``other``: folder with the file of another artefact."""
        path, rng = folder / self.file, random.Random(self.seed)
        if self.kind == "missing":
            path.unlink()
        elif self.kind == "folder":
            path.unlink()
            path.mkdir()
        elif self.kind == "other file":
            candidates = sorted(other.glob(_pattern(self.file)))
            path.write_bytes(candidates[0].read_bytes() if candidates else b"")
        else:
            path.write_bytes(CHANGES[self.kind](path.read_bytes(), rng))


def _pattern(file: str) -> str:
    """Return the pattern of the names of a file; some names end in a random number."""
    stem, dot, ending = file.partition(".")
    parts = stem.split("-")
    return file if len(parts) == 1 else f"{'-'.join(parts[:-1])}-*{dot}{ending}"


def _flipped(data: bytes, rng: random.Random) -> bytes:
    out = bytearray(data or b"\0")
    out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    return bytes(out)


def _changed(data: bytes, rng: random.Random) -> bytes:
    out = bytearray(data or b"\0")
    at = rng.randrange(len(out))
    out[at] = (out[at] + rng.randrange(1, 256)) % 256
    return bytes(out)


def _truncated(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.choice((0, len(data) // 2, len(data) - 1, rng.randrange(len(data) + 1)))]


def _longer(data: bytes, rng: random.Random) -> bytes:
    return data + rng.choice((b"\0", b"\n", rng.randbytes(rng.randrange(1, 100))))


def _zeroed(data: bytes, rng: random.Random) -> bytes:
    start, size = rng.randrange(len(data) + 1), rng.choice((1, 16, 512, 4096))
    end = min(len(data), start + size)
    return data[:start] + bytes(end - start) + data[end:]


def _swapped(data: bytes, rng: random.Random) -> bytes:
    """Swap two blocks of the same size; blocks of 512 and 4096 bytes are those of a disk."""
    sizes = [size for size in (1, 4, 16, 512, 4096) if 2 * size <= len(data)]
    if not sizes:
        return data
    size = rng.choice(sizes)
    one, two = sorted(rng.sample(range(len(data) // size), 2))
    blocks = [data[at * size : (at + 1) * size] for at in (one, two)]
    between = data[(one + 1) * size : two * size]
    return data[: one * size] + blocks[1] + between + blocks[0] + data[(two + 1) * size :]


CHANGES: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "bit flipped": _flipped,
    "byte changed": _changed,
    "truncated": _truncated,
    "longer": _longer,
    "zeroed": _zeroed,
    "blocks swapped": _swapped,
}
KINDS = {
    **{"bit flipped": 6, "byte changed": 4, "truncated": 2, "longer": 1, "zeroed": 3},
    **{"blocks swapped": 3, "missing": 1, "folder": 1, "other file": 1},
}
"""Kinds of mutations, and how often each is chosen."""


def mutations(artefact: Artefact, count: int, seed: int = 0) -> list[Mutation]:
    """Return ``count`` mutations; each file has the same chance."""
    rng = random.Random(f"{artefact.name} {seed}")
    files = artefact.files()
    kinds = rng.choices(list(KINDS), list(KINDS.values()), k=count)
    return [
        Mutation(kind, rng.choice(files), f"{artefact.name} {seed} {number}")
        for number, kind in enumerate(kinds)
    ]


class _Warnings(logging.Handler):
    """Handler that keeps the messages of a logger."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a message."""
        self.lines.append(record.getMessage())


def _is_named(mutation: Mutation, message: str, folder: Path) -> bool:
    """Whether a message is one line that names the file.

    A file of another artefact is whole: the message may name a file that does not belong to it.
    """
    name = str(folder) if mutation.kind == "other file" else Path(mutation.file).name
    return name in message and "\n" not in message


def classify(
    artefact: Artefact, mutation: Mutation, expected: Any, scratch: Path
) -> tuple[str, str]:
    """Apply a mutation to a copy of an artefact and use it; return the result and a message.

    ``expected``: what the undamaged artefact gives.
    """
    copy = scratch / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(artefact.folder, copy)
    mutation.apply(copy, artefact.other)
    handler, logger = _Warnings(), logging.getLogger("xmodal")
    logger.addHandler(handler)
    try:
        found = artefact.use(copy)
    except XmodalError as error:
        message = str(error)
        return (REFUSED if _is_named(mutation, message, copy) else NOT_NAMED), message
    except Exception as error:
        return TRACEBACK, f"{type(error).__name__}: {error}"
    finally:
        logger.removeHandler(handler)
    if found != expected:
        return OTHER, f"{found!r}"[:500]
    return (MENDED if handler.lines else NO_EFFECT), "; ".join(handler.lines)
