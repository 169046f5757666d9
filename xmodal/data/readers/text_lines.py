"""Lines of text files in UTF-8."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from xmodal.data.dataset import Problems


def read_lines(path: Path, problems: Problems) -> Iterator[tuple[int, str]]:
    """Yield (number, line) from 1, without a byte order mark; record lines not in UTF-8."""
    with open(path, "rb") as file:
        for number, raw in enumerate(file, 1):
            try:
                yield number, raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError:
                problems.add("bad line", f"line {number} is not in UTF-8")
