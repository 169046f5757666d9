"""Binary codes: sign rule, bit order, packing and Hamming distance, defined in this module only.

A code is a row of ``bits`` bits, packed into ``bits / 8`` bytes with the most significant bit
first (the default of ``numpy.packbits`` and the order that OpenSearch documents). A relaxed
value greater than 0 is bit 1; everything else, 0 and -0.0 included, is bit 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from xmodal.errors import CodeError

MAX_BITS = 2048
"""Largest width: a server's score 1 / (1 + d) in float32 is exact up to this distance."""


def check_bits(bits: int) -> int:
    """Return ``bits``. Raise CodeError if it is no multiple of 8 from 8 to MAX_BITS."""
    if not isinstance(bits, int | np.integer) or isinstance(bits, bool):
        raise CodeError(f"bits is {bits!r}, expected a whole number")
    if bits <= 0 or bits % 8 or bits > MAX_BITS:
        raise CodeError(f"bits is {bits}, expected a multiple of 8 between 8 and {MAX_BITS}")
    return int(bits)


@dataclass(frozen=True, eq=False)
class BinaryCodes:
    """``n`` binary codes of one width.

    ``packed`` has shape (n, bits / 8) and type uint8; the array is made read-only. Raises
    CodeError if shape, type and ``bits`` do not fit together.

    >>> codes = xmodal.BinaryCodes.from_relaxed([[0.5] * 8, [-0.5] * 8])
    >>> codes.bits, len(codes), codes[:1].distances(codes).tolist()
    (8, 2, [[0, 8]])
    """

    packed: npt.NDArray[np.uint8]
    bits: int

    def __post_init__(self) -> None:
        check_bits(self.bits)
        packed = self.packed
        if not isinstance(packed, np.ndarray) or packed.dtype != np.uint8:
            kind = getattr(packed, "dtype", type(packed).__name__)
            raise CodeError(f"packed codes are {kind}, expected a numpy array of uint8")
        if packed.ndim != 2 or packed.shape[1] != self.bits // 8:
            raise CodeError(
                f"packed codes have shape {packed.shape}, expected (n, {self.bits // 8}) "
                f"for {self.bits} bits"
            )
        view = np.ascontiguousarray(packed).view()
        view.flags.writeable = False
        object.__setattr__(self, "packed", view)

    @classmethod
    def from_relaxed(cls, values: npt.ArrayLike) -> BinaryCodes:
        """Return the codes of relaxed values, shape (n, bits): bit 1 where a value is above 0.

        Raise CodeError for a wrong shape and for NaN, which has no sign.
        """
        array = np.asarray(values)
        if array.ndim != 2:
            raise CodeError(f"relaxed codes have shape {array.shape}, expected (n, bits)")
        if array.dtype.kind == "f" and np.isnan(array).any():
            rows = np.flatnonzero(np.isnan(array).any(axis=1))
            raise CodeError(
                f"{len(rows)} relaxed codes contain NaN (first in row {rows[0]}): "
                "a NaN has no sign; check the features that were encoded"
            )
        return cls(np.packbits(array > 0, axis=1), check_bits(array.shape[1]))

    @classmethod
    def from_hex(cls, texts: Sequence[str], bits: int | None = None) -> BinaryCodes:
        """Return the codes of hexadecimal strings of equal length, the format of ``to_hex``.

        ``bits`` is required only if ``texts`` may be empty. Raise CodeError for other text.
        """
        try:
            rows = [bytes.fromhex(text) for text in texts]
        except ValueError as error:
            raise CodeError(f"a code is not hexadecimal: {error}") from None
        width = check_bits(bits) // 8 if bits is not None else len(rows[0]) if rows else 0
        wrong = next(
            (text for text, row in zip(texts, rows, strict=True) if len(row) != width), None
        )
        if wrong is not None:
            raise CodeError(f"code {wrong!r} has {len(wrong) * 4} bits, expected {width * 8}")
        packed = np.frombuffer(b"".join(rows), dtype=np.uint8).reshape(len(rows), width)
        return cls(packed, width * 8)

    @classmethod
    def empty(cls, bits: int) -> BinaryCodes:
        """Return zero codes of a given width."""
        return cls(np.zeros((0, check_bits(bits) // 8), dtype=np.uint8), bits)

    @classmethod
    def concatenate(cls, parts: Sequence[BinaryCodes]) -> BinaryCodes:
        """Return the codes of all ``parts`` in order.

        Raise CodeError for an empty list of parts or for several widths.
        """
        widths = {part.bits for part in parts}
        if len(widths) != 1:
            raise CodeError(f"cannot join codes of {sorted(widths)} bits, expected one width")
        return cls(np.concatenate([part.packed for part in parts]), widths.pop())

    def __len__(self) -> int:
        return len(self.packed)

    def __getitem__(self, rows: slice | Sequence[int] | npt.NDArray[Any]) -> BinaryCodes:
        """Return the codes at ``rows``: a slice, positions or a mask, never one integer."""
        if isinstance(rows, int | np.integer):
            raise CodeError(f"codes[{rows}] is one row; write codes[{rows}:{rows + 1}]")
        return BinaryCodes(self.packed[rows], self.bits)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, BinaryCodes):
            return NotImplemented
        return self.bits == other.bits and np.array_equal(self.packed, other.packed)

    __hash__ = None  # type: ignore[assignment]  # compared by content, like the array inside

    def __repr__(self) -> str:
        return f"BinaryCodes({len(self)} codes of {self.bits} bits)"

    def to_bits(self) -> npt.NDArray[np.uint8]:
        """Return the bits, shape (n, bits), values 0 and 1, in the order of the relaxed values."""
        return np.unpackbits(self.packed, axis=1)

    def to_signs(self) -> npt.NDArray[np.float32]:
        """Return the bits as signs, shape (n, bits), values -1 and +1."""
        return self.to_bits().astype(np.float32) * 2 - 1

    def to_signed(self) -> list[list[int]]:
        """Return the bytes of each code as bits / 8 signed integers, -128 to 127."""
        rows: list[list[int]] = self.packed.view(np.int8).tolist()
        return rows

    def to_hex(self) -> list[str]:
        """Return one lower-case hexadecimal string per code."""
        return [row.tobytes().hex() for row in self.packed]

    def distances(self, others: BinaryCodes) -> npt.NDArray[np.uint16]:
        """Return Hamming distances in bits, shape (len(self), len(others)).

        Raise CodeError for codes of another width.
        """
        if self.bits != others.bits:
            raise CodeError(
                f"cannot compare codes of {self.bits} and {others.bits} bits: "
                "both must come from one encoder"
            )
        rows, columns = self._words(), others._words()
        out = np.zeros((len(self), len(others)), dtype=np.uint16)
        for chunk in _row_chunks(len(self), len(others)):
            for word in range(rows.shape[1]):
                out[chunk] += np.bitwise_count(rows[chunk, word, None] ^ columns[None, :, word])
        return out

    def _words(self) -> npt.NDArray[Any]:
        """Return the packed bytes as the widest unsigned integers that divide a row."""
        width = self.bits // 8
        size = next(size for size in (8, 4, 2, 1) if width % size == 0)
        return self.packed.view(f"u{size}")


def _row_chunks(rows: int, columns: int, cells: int = 1 << 18) -> Iterator[slice]:
    """Return slices of rows so small that intermediate results fit the processor's cache."""
    step = max(1, cells // max(1, columns))
    return (slice(start, start + step) for start in range(0, rows, step))
