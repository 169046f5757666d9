"""Conversion of codes to signed bytes or 64-bit words, and of distances to scores, and back.

The server stores a binary vector as signed bytes, most significant bit first, and returns a Hamming
distance d as the float32 score 1 / (1 + d). Both conversions are exact for all widths up to 2048.

Every scored query has the boost ``SCALE``, a power of two, which changes only the exponents of the
scores. Document-level security adds 1 to the score of a document for each of a user's roles that
contains it. At this size a float32 is not changed by that, so scores, order and ties are those of
a user without restrictions.
"""

from __future__ import annotations

import numpy as np

from xmodal.codes import BinaryCodes
from xmodal.errors import CodeError, IndexFailure
from xmodal.vectors import MAX_KEY, Int8

SCALE = 2.0**60
"""Boost of every scored query; float32 values up to 2**127 are finite."""
SMALL_SCALE = 2.0**-2
"""Boost of queries whose scores show document-level security: with it they are 1 or more."""


def from_signed(rows: list[list[int]], bits: int) -> BinaryCodes:
    """Return the codes of the rows of ``BinaryCodes.to_signed``; raise CodeError for others."""
    for row in rows:
        if len(row) != bits // 8 or not all(-128 <= value <= 127 for value in row):
            raise CodeError(f"a stored code is not {bits // 8} signed bytes: {row!r:.80}")
    values = np.array(rows, dtype=np.int8).reshape(len(rows), bits // 8)
    return BinaryCodes(values.view(np.uint8), bits)


def to_words(codes: BinaryCodes) -> list[list[int]]:
    """Return each code as signed 64-bit integers, big-endian, padded with zeros at the end."""
    padded = np.zeros((len(codes), 8 * word_count(codes.bits)), dtype=np.uint8)
    padded[:, : codes.bits // 8] = codes.packed
    rows: list[list[int]] = padded.view(">i8").tolist()
    return rows


def from_words(rows: list[list[int]], bits: int) -> BinaryCodes:
    """Return the codes of the rows of ``to_words``; raise CodeError for another number of words."""
    for row in rows:
        if len(row) != word_count(bits):
            raise CodeError(
                f"a stored code is not {word_count(bits)} words of 64 bits: {row!r:.80}"
            )
    values = np.array(rows, dtype=">i8").reshape(len(rows), word_count(bits))
    return BinaryCodes(values.view(np.uint8)[:, : bits // 8].copy(), bits)


class RawJson(str):
    """JSON that is written as it is: its ``repr`` has no quotes."""

    __slots__ = ()
    __repr__ = str.__str__


def to_json_arrays(vectors: Int8) -> list[RawJson]:
    """Return each vector as a JSON array; much faster than by lists of Python's integers."""
    cells = _NUMBERS[vectors.view(np.uint8)].reshape(len(vectors), 5 * vectors.shape[1])
    used = cells != _PADDING
    text = cells[used].tobytes().decode("ascii")
    ends = np.cumsum(used.sum(axis=1)).tolist()
    starts = [0, *ends[:-1]] if ends else []
    return [RawJson(f"[{text[start : end - 1]}]") for start, end in zip(starts, ends, strict=True)]


_PADDING = ord(" ")
_NUMBERS = np.array(
    [list(f"{value},".ljust(5).encode()) for value in np.arange(256, dtype=np.uint8).view(np.int8)],
    np.uint8,
)
"""Text of each int8 with a comma, (256, 5), by its unsigned value; padded by spaces."""


def word_count(bits: int) -> int:
    """Return the number of 64-bit words of a code."""
    return -(-bits // 64)


def to_score(key: int) -> float:
    """Return the score of a key: a distance in bits, or one of ``rank_keys``."""
    return 1.0 / (1.0 + key)


def least_score(key: int) -> float:
    """Return a number below the float32 score of a key, and above the score of the next one."""
    return 1.0 / (1.5 + key)


def unscaled(score: float) -> float:
    """Return the score of a hit without the boost ``SCALE``: the float32 that its digits mean."""
    return float(np.float32(score)) / SCALE


def to_key(score: float) -> int:
    """Return the key of the score of a hit; exact below ``xmodal.vectors.MAX_KEY``.

    Raises IndexFailure for a number that is not the score of a key.
    """
    found = unscaled(score)
    key = round(1.0 / found - 1.0) if found > 0 else -1
    if not 0 <= key <= MAX_KEY or np.float32(to_score(key)) != found:
        raise IndexFailure(
            f"the server returned the score {score:g}, which is not that of a distance: something "
            "between xmodal and the index, such as a search pipeline or a plugin, changes scores"
        )
    return key
