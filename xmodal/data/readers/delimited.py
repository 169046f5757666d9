"""Delimited text with a header line: .csv, .tsv, .txt.

Fields are separated by commas, semicolons, tabs or bars, whichever the header has most of. A
quoted field may span lines. If its quote is not closed properly, only its first line is lost.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from xmodal.data.readers.reading import Reading
from xmodal.data.readers.text_lines import REMEDY, read_lines
from xmodal.errors import DataError

DELIMITERS = (",", ";", "\t", "|")
MAX_RECORD_LINES = 1000
"""Maximum number of lines of one row."""


def read_rows(path: Path, reading: Reading) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield ("line N", row), with N of the row's last line; record rows that cannot be read.

    Raises DataError for an empty file, an unreadable header, or a repeated column name.
    """
    lines = list(read_lines(path, reading))
    start = next((k for k, (_, line) in enumerate(lines) if _is_content(line)), None)
    if start is None or lines[start][0] != start + 1:  # a line that was not decoded is missing
        if reading.problems:
            raise DataError(f"line 1 of {path}, the header, cannot be decoded: {REMEDY}")
        raise DataError(f"{path} is empty, expected a header line with column names")
    header, dialect = _header(path, lines[start][1])
    for number, used in _records(lines, start + 1, dialect, len(header), reading):
        place = f"line {number}"
        if len(used) == len(header):
            yield place, dict(zip(header, used, strict=True))
        elif used:
            reading.problems.add(
                "bad line", f"{place} has {len(used)} values for {len(header)} columns"
            )


@dataclass(frozen=True)
class _Dialect:
    """Delimiter of a table, and whether each delimiter is followed by a space."""

    delimiter: str
    spaced: bool

    def reader(self, lines: Iterator[str] | Sequence[str], strict: bool) -> Any:
        return csv.reader(
            lines, delimiter=self.delimiter, skipinitialspace=self.spaced, strict=strict
        )


def _is_content(line: str) -> bool:
    """Whether a line is neither empty nor the line ``sep=;`` of a spreadsheet."""
    text = line.strip()
    return bool(text) and not (text.lower().startswith("sep=") and len(text) <= len("sep=,"))


def _header(path: Path, line: str) -> tuple[list[str], _Dialect]:
    delimiter = max(DELIMITERS, key=line.count)
    try:
        names = next(csv.reader([line], delimiter=delimiter, skipinitialspace=True))
        raw = next(csv.reader([line], delimiter=delimiter))
    except (csv.Error, StopIteration) as error:
        raise DataError(f"{path} has a header line that cannot be read: {error}") from None
    names = [name.strip() for name in names]
    repeated = {name for name in names if name and names.count(name) > 1}
    if repeated:
        raise DataError(f"{path} names a column twice: {', '.join(names)}")
    spaced = len(raw) > 1 and all(name.startswith(" ") for name in raw[1:])
    return names, _Dialect(delimiter, spaced)


def _records(
    lines: Sequence[tuple[int, str]], start: int, dialect: _Dialect, columns: int, reading: Reading
) -> Iterator[tuple[int, list[str]]]:
    """Yield (number of the last line, values) of each row."""
    position = start
    while position < len(lines):
        number, line = lines[position]
        if '"' not in line:
            position += 1
            try:
                values: list[str] = next(dialect.reader([line], strict=False), [])
            except csv.Error as error:
                reading.problems.add("bad line", f"line {number} ({error})")
                continue
            yield number, values
            continue
        following = (text for _, text in islice(lines, position, position + MAX_RECORD_LINES))
        reader = dialect.reader(following, strict=True)
        try:
            values = next(reader, [])
        except csv.Error:
            # Text after a closing quote. On one line, this is read as most programs do.
            if reader.line_num == 1 and _is_closed(line):
                values = next(dialect.reader([line], strict=False), [])
                yield number, values
            else:
                reading.problems.add("bad line", f"line {number} opens a quote that is not closed")
            position += 1
            continue
        position += reader.line_num
        yield lines[position - 1][0], values


def _is_closed(line: str) -> bool:
    """Whether a line has an even number of quotes."""
    return line.count('"') % 2 == 0
