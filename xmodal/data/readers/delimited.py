"""Delimited text with a header line: .csv (commas or semicolons) and .tsv (tabs)."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from xmodal.data.dataset import Problems
from xmodal.data.readers.text_lines import read_lines
from xmodal.errors import DataError


def read_rows(path: Path, problems: Problems) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield ("line N", row), with N of the row's last line; record rows of another length.

    Raises DataError for an empty file, an unreadable header, or a repeated column name.
    """
    lines = _CountedLines(read_lines(path, problems))
    first = next(lines, None)
    if first is None:
        raise DataError(f"{path} is empty, expected a header line with column names")
    delimiter = _delimiter(path, first)
    try:
        header = next(csv.reader([first], delimiter=delimiter))
    except csv.Error as error:
        raise DataError(f"{path} has a header line that cannot be read: {error}") from None
    if len(set(header)) != len(header):
        raise DataError(f"{path} names a column twice: {', '.join(header)}")
    reader = csv.reader(lines, delimiter=delimiter)
    while True:
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            problems.add("bad line", f"line {lines.number} ({error})")
            continue
        place = f"line {lines.number}"
        if len(values) == len(header):
            yield place, dict(zip(header, values, strict=True))
        elif values:
            problems.add("bad line", f"{place} has {len(values)} values for {len(header)} columns")


class _CountedLines:
    """Iterator over lines; ``number`` is that of the last line returned, in the file.

    ``csv.reader.line_num`` counts neither the header nor lines that are not in UTF-8.
    """

    def __init__(self, numbered: Iterator[tuple[int, str]]) -> None:
        self._numbered = numbered
        self.number = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        self.number, line = next(self._numbered)
        return line


def _delimiter(path: Path, header: str) -> str:
    if path.suffix.lower() == ".tsv":
        return "\t"
    return ";" if header.count(";") > header.count(",") else ","
