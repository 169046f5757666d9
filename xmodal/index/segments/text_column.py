"""Texts as two columns: their bytes (UTF-8) one after the other, and where each text ends.

Beside texts that ascend there may be samples of them, by which a search reads few places.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from xmodal.index.segments.columns import Array, Columns, Int64
from xmodal.index.spans import positions_of

COMPARED_AT_ONCE = 1 << 22
"""Bytes of texts that a bulk search compares in one step."""
SAMPLED, SAMPLE = 32, 16
"""Texts of which one is a sample, and bytes of a sample."""


def text_columns(name: str, texts: Iterable[str]) -> dict[str, Array]:
    """Return the columns of texts: ``NAME.ends`` (n + 1,) int64 from 0, ``NAME.bytes`` uint8."""
    encoded = [text.encode() for text in texts]
    ends = np.zeros(len(encoded) + 1, np.int64)
    np.cumsum(np.fromiter(map(len, encoded), np.int64, len(encoded)), out=ends[1:])
    content = np.frombuffer(b"".join(encoded), np.uint8)
    return {f"{name}.ends": ends, f"{name}.bytes": content}


def sample_columns(name: str, samples: Sequence[str], last: str) -> dict[str, Array]:
    """Return the samples of ascending texts, each ``SAMPLED``-th from the first.

    ``NAME.common``: the bytes with which all texts begin, which the first sample and ``last``, the
    last text, have in common. ``NAME.samples``: bytes of each sample after these, (m, SAMPLE),
    padded with zeros.
    """
    first = samples[0].encode()
    pairs = enumerate(zip(first, last.encode(), strict=False))
    start = next((place for place, (a, b) in pairs if a != b), len(first))
    cut = np.array([s.encode()[start : start + SAMPLE] for s in samples], f"S{SAMPLE}")
    return {
        f"{name}.common": np.frombuffer(first[:start], np.uint8),
        f"{name}.samples": cut.view(np.uint8).reshape(-1, SAMPLE),
    }


class TextColumn:
    """Texts of ``columns`` under a name; only what is read is checked. Raises IndexFailure."""

    def __init__(self, columns: Columns, name: str) -> None:
        self._columns, self._name = columns, name
        self._has_samples = f"{name}.samples" in columns.names
        nothing = np.zeros(0, np.int64)
        self._length = len(columns.rows(f"{name}.ends", nothing, nothing)) - 1

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, row: int) -> str:
        """Return one text; raises IndexError for a row that does not exist."""
        if not 0 <= row < self._length:
            raise IndexError(f"row {row} of {self._length} texts")
        return self.take(np.array([row]))[0]

    def __iter__(self) -> Iterator[str]:
        """Yield all texts in order."""
        for start in range(0, self._length, 1 << 14):
            yield from self.take(np.arange(start, min(start + (1 << 14), self._length)))

    def arrays(self) -> tuple[Int64, Array]:
        """Return ends and bytes of all texts."""
        return self._columns.whole(f"{self._name}.ends"), self._columns.whole(f"{self._name}.bytes")

    def take(self, rows: Sequence[int] | Int64) -> list[str]:
        """Return the texts at rows."""
        starts, ends, content = self._spans(np.asarray(rows, np.int64))
        data = content.data
        pairs = zip(starts.tolist(), ends.tolist(), strict=True)
        return [str(data[start:end], "utf-8") for start, end in pairs]

    def find(self, texts: Sequence[str]) -> Int64:
        """Return the row of each text, -1 if it is absent; the texts of the column must ascend."""
        rows = self.insertion_rows(texts)
        inside = np.flatnonzero(rows < self._length)
        found = self.take(rows[inside])
        absent = np.ones(len(texts), np.bool_)
        absent[inside] = [texts[i] != text for i, text in zip(inside.tolist(), found, strict=True)]
        rows[absent] = -1
        return rows

    def insertion_rows(self, texts: Sequence[str]) -> Int64:
        """Return for each text the number of texts of the column that are smaller.

        The texts of the column must ascend by code point, which is also the order of their bytes.
        """
        encoded = [text.encode() for text in texts]
        order = sorted(range(len(encoded)), key=lambda i: len(encoded[i]))
        rows = np.zeros(len(encoded), np.int64)
        start = 0
        while start < len(order):  # texts of similar lengths together
            size, end = 0, start
            while end < len(order) and (end == start or size <= COMPARED_AT_ONCE):
                end += 1
                size = (end - start) * len(encoded[order[end - 1]])
            part = order[start:end]
            rows[part] = self._insertion_rows([encoded[i] for i in part])
            start = end
        return rows

    def _insertion_rows(self, texts: list[bytes]) -> Int64:
        """Return the insertion rows of texts by a binary search for all of them at once."""
        lengths = np.fromiter(map(len, texts), np.int64, len(texts))
        width = int(lengths.max(initial=0)) + 1
        wanted = np.array(texts, dtype=f"S{width}")
        low, high = self._between_samples(texts)
        while len(active := np.flatnonzero(low < high)):
            middle = (low[active] + high[active]) // 2
            found, found_lengths = self._beginnings(middle, width)
            # Comparison ignores zeros at the end: such texts differ in length alone.
            smaller = found < wanted[active]
            smaller |= (found == wanted[active]) & (found_lengths < lengths[active])
            low[active[smaller]] = middle[smaller] + 1
            high[active[~smaller]] = middle[~smaller]
        return low

    def _between_samples(self, texts: list[bytes]) -> tuple[Int64, Int64]:
        """Return the smallest and the largest insertion row of texts that samples leave open."""
        low, high = np.zeros(len(texts), np.int64), np.full(len(texts), self._length)
        if not self._has_samples:
            return low, high
        common = self._columns.whole(f"{self._name}.common").tobytes()
        samples = self._columns.whole(f"{self._name}.samples").view(f"S{SAMPLE}")[:, 0]
        start = len(common)
        cut = np.array([text[start : start + SAMPLE] for text in texts], f"S{SAMPLE}")
        before = np.searchsorted(samples, cut)  # samples that are smaller
        low = np.where(before > 0, (before - 1) * SAMPLED + 1, 0)
        high = np.minimum(np.searchsorted(samples, cut, side="right") * SAMPLED, self._length)
        for at, text in enumerate(texts):
            if not text.startswith(common):
                low[at] = high[at] = 0 if text < common else self._length
        return low, high

    def _beginnings(self, rows: Int64, width: int) -> tuple[npt.NDArray[np.bytes_], Int64]:
        """Return at most ``width`` bytes of the texts at rows, and the lengths of these texts."""
        starts, ends, content = self._spans(rows)
        lengths = ends - starts
        counts = np.minimum(lengths, width)
        bytes_ = np.zeros((len(rows), width), np.uint8)
        used = np.arange(width) < counts[:, None]
        bytes_[used] = content[positions_of(starts, starts + counts)]
        return bytes_.view(f"S{width}")[:, 0], lengths

    def _spans(self, rows: Int64) -> tuple[Int64, Int64, Array]:
        """Return first byte, last byte + 1 and the bytes of texts; they were checked."""
        ends = self._columns.rows(f"{self._name}.ends", rows, rows + 2)
        first, last = ends[rows], ends[rows + 1]
        return first, last, self._columns.rows(f"{self._name}.bytes", first, last)
