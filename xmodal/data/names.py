"""Sequences of texts that are made when they are asked for, and their order by a hash."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import overload

import numpy as np
import numpy.typing as npt
import xxhash

Int64 = npt.NDArray[np.int64]

BLOCK = 1 << 16
"""Texts that exist at the same time."""
DIGEST_BYTES = 16
"""First bytes of a digest, by which texts are ordered."""


class Names(Sequence[str]):
    """Texts ``make(row)`` for each of ``rows`` (n,), which are not stored."""

    def __init__(self, make: Callable[[int], str], rows: Int64 | range) -> None:
        self._make, self._rows = make, rows

    @classmethod
    def numbers(cls, count: int) -> Names:
        """Return the numbers from 0 to ``count`` - 1 as texts."""
        return cls(str, range(count))

    @classmethod
    def of_array(cls, array: npt.NDArray[np.generic]) -> Names:
        """Return the texts or whole numbers of an array (n,), which may be memory-mapped."""
        if array.dtype.kind == "S":
            return cls(lambda row: bytes(array[row]).decode(errors="replace"), range(len(array)))
        return cls(lambda row: str(array[row]), range(len(array)))

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, place: int) -> str: ...

    @overload
    def __getitem__(self, place: slice) -> Names: ...

    def __getitem__(self, place: int | slice) -> str | Names:
        if isinstance(place, slice):
            return Names(self._make, self._rows[place])
        return self._make(int(self._rows[place]))

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self._rows), BLOCK):
            rows = self._rows[start : start + BLOCK]
            yield from map(self._make, rows if isinstance(rows, range) else rows.tolist())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or len(other) != len(self):
            return False
        return all(one == two for one, two in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def take(self, places: npt.NDArray[np.integer]) -> Names:
        """Return the texts at ``places``."""
        if isinstance(self._rows, range):
            return Names(self._make, self._rows.start + self._rows.step * places.astype(np.int64))
        return Names(self._make, self._rows[places])


def take_names(names: Sequence[str], places: npt.NDArray[np.integer]) -> Sequence[str]:
    """Return the texts at ``places``: a list of a list."""
    if isinstance(names, Names):
        return names.take(places)
    return [names[place] for place in places.tolist()]


def digest_order(digests: Iterable[bytes]) -> Int64:
    """Return the positions of digests of at least 16 bytes in ascending order; it is stable."""
    blocks: list[npt.NDArray[np.uint64]] = []
    found = iter(digests)
    while block := b"".join(digest[:DIGEST_BYTES] for digest in islice(found, BLOCK)):
        blocks.append(np.frombuffer(block, ">u8").astype(np.uint64).reshape(-1, 2))
    keys = np.concatenate(blocks) if blocks else np.zeros((0, 2), np.uint64)
    return np.lexsort((keys[:, 1], keys[:, 0]))


def hash_order(names: Iterable[str], salt: str) -> Int64:
    """Return the positions of names in a pseudo-random order, see :func:`sorted_by_hash`."""
    return digest_order(hashlib.blake2b(f"{salt}\0{name}".encode()).digest() for name in names)


def sorted_by_hash(names: Iterable[str], salt: str) -> list[str]:
    """Return ``names`` in a pseudo-random order that depends only on the names and ``salt``."""
    known = list(names)
    return [known[place] for place in hash_order(known, salt).tolist()]


def sample_size(share: float, count: int) -> int:
    """Return the size of a share: rounded, at least 1 unless ``share`` or ``count`` is 0."""
    return max(1, round(share * count)) if share and count else 0


def sample_by_hash(names: Iterable[str], share: float, salt: str) -> list[str]:
    """Return the first ``share`` of :func:`sorted_by_hash`, :func:`sample_size` of them.

    The sample of a larger share contains that of a smaller one.
    """
    ranked = sorted_by_hash(names, salt)
    return ranked[: sample_size(share, len(ranked))]


def first_repeated(names: Sequence[str]) -> str | None:
    """Return a text that occurs before, the first one, or None if all differ."""
    hashes = np.fromiter(
        (xxhash.xxh3_64_intdigest(name.encode(errors="surrogatepass")) for name in names),
        np.uint64,
        len(names),
    )
    ordered = np.sort(hashes)
    repeated = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    seen: set[str] = set()
    for place in np.flatnonzero(np.isin(hashes, repeated)).tolist():
        if (name := names[place]) in seen:
            return name
        seen.add(name)
    return None
