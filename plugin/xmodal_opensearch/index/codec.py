"""How codes travel: signed bytes or signed 64-bit words, and distances as scores. Nowhere else.

The server stores a binary vector as signed bytes, most significant bit first, and answers a Hamming
distance d as the score 1 / (1 + d), a float32. Both turn back exactly for every width we allow.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from xmodal.codes import BinaryCodes
from xmodal.errors import CodeError


def from_signed(rows: list[list[int]], bits: int) -> BinaryCodes:
    """Codes of what ``BinaryCodes.to_signed`` made. Raises CodeError for other values."""
    for row in rows:
        if len(row) != bits // 8 or not all(-128 <= value <= 127 for value in row):
            raise CodeError(f"a stored code is not {bits // 8} signed bytes: {row!r:.80}")
    values = np.array(rows, dtype=np.int8).reshape(len(rows), bits // 8)
    return BinaryCodes(values.view(np.uint8), bits)


def to_words(codes: BinaryCodes) -> list[list[int]]:
    """One list of signed 64-bit integers a code, big-endian, zeros behind the last bit."""
    rows: list[list[int]] = _padded(codes).view(">i8").tolist()
    return rows


def from_words(rows: list[list[int]], bits: int) -> BinaryCodes:
    """Codes of what ``to_words`` made. Raises CodeError for another number of words."""
    if any(len(row) != word_count(bits) for row in rows):
        raise CodeError(f"a stored code is not {word_count(bits)} words of 64 bits: {rows[0]!r:.80}")
    values = np.array(rows, dtype=">i8").reshape(len(rows), word_count(bits))
    return BinaryCodes(values.view(np.uint8)[:, : bits // 8].copy(), bits)


def word_count(bits: int) -> int:
    """How many 64-bit words a code takes."""
    return -(-bits // 64)


def to_score(distance: int) -> float:
    """The score of a distance in bits."""
    return 1.0 / (1.0 + distance)


def to_distance(score: float) -> int:
    """The distance of a score; exact for every distance up to 2048, float32 rounding included."""
    return round(1.0 / score - 1.0)


def _padded(codes: BinaryCodes) -> npt.NDArray[np.uint8]:
    wide = np.zeros((len(codes), 8 * word_count(codes.bits)), dtype=np.uint8)
    wide[:, : codes.bits // 8] = codes.packed
    return wide
