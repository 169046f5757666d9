"""Conversion of codes to signed bytes or 64-bit words, and of distances to scores, and back.

The server stores a binary vector as signed bytes, most significant bit first, and returns a Hamming
distance d as the float32 score 1 / (1 + d). Both conversions are exact for all widths up to 2048.
"""

from __future__ import annotations

import numpy as np

from xmodal.codes import BinaryCodes
from xmodal.errors import CodeError


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


def word_count(bits: int) -> int:
    """Return the number of 64-bit words of a code."""
    return -(-bits // 64)


def to_score(key: int) -> float:
    """Return the score of a key: a distance in bits, or one of ``rank_keys``."""
    return 1.0 / (1.0 + key)


def least_score(key: int) -> float:
    """Return a number below the float32 score of a key, and above the score of the next one."""
    return 1.0 / (1.5 + key)


def to_key(score: float) -> int:
    """Return the key of a float32 score; exact below ``xmodal.vectors.MAX_KEY``."""
    return round(1.0 / score - 1.0)
