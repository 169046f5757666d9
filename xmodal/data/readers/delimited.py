"""Delimited text with a header line: .csv, .tsv, .txt; a header may be given instead.

Values are separated by commas, semicolons, tabs or bars, whichever the first lines have, or by the
separator that is given. A quoted value may span lines. If its quote is not closed properly, only
its first line is lost.
"""

from __future__ import annotations

import csv
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from xmodal.data.picture_formats import is_picture_name
from xmodal.data.readers.columns import Columns
from xmodal.data.readers.reading import Reading
from xmodal.data.readers.text_lines import REMEDY, read_lines
from xmodal.errors import DataError

SEPARATORS = (",", ";", "\t", "|")
SAMPLE_LINES = 20
"""First lines that decide between separators."""
MAX_RECORD_LINES = 1000
"""Maximum number of lines of one row."""


def read_rows(path: Path, reading: Reading) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield ("line N", row), with N of the row's last line; record rows that cannot be read.

    Raises DataError for an empty file, a header that is missing or unreadable, or a repeated column
    name.
    """
    lines = _Lines(read_lines(path, reading))
    named = _skip_to_content(path, lines, reading)
    dialect = _dialect(lines, reading.separator or named)
    header = reading.header or _header(path, lines, dialect, reading.columns)
    for number, values in _records(lines, dialect, reading):
        if len(values) > len(header) and not any(values[len(header) :]):
            del values[len(header) :]  # separators at the end of the line
        if len(values) == len(header):
            yield f"line {number}", dict(zip(header, values, strict=True))
        elif values:
            reading.problems.add(
                "bad line", f"line {number} has {len(values)} values for {len(header)} columns"
            )


class _Lines:
    """Numbered lines; those after the next one can be looked at."""

    def __init__(self, lines: Iterator[tuple[int, str]]) -> None:
        self._lines = lines
        self._ahead: deque[tuple[int, str]] = deque()

    def next(self) -> tuple[int, str] | None:
        """Return the next line, None at the end."""
        return self._ahead.popleft() if self._ahead else next(self._lines, None)

    def ahead(self, number: int) -> Iterator[tuple[int, str]]:
        """Yield the next lines, ``number`` at most, which stay the next ones."""
        for place in range(number):
            if place == len(self._ahead):
                line = next(self._lines, None)
                if line is None:
                    return
                self._ahead.append(line)
            yield self._ahead[place]


@dataclass(frozen=True)
class _Dialect:
    """Separator of a table, and whether each separator is followed by a space."""

    separator: str
    spaced: bool = False

    def reader(self, lines: Iterator[str] | Sequence[str], strict: bool = False) -> Any:
        return csv.reader(
            lines, delimiter=self.separator, skipinitialspace=self.spaced, strict=strict
        )

    def values(self, line: str) -> list[str]:
        """Return the values of one line. Raises csv.Error."""
        if '"' in line or len(line) > csv.field_size_limit():
            return next(self.reader([line]), [])
        text = line.rstrip("\r\n")
        values = text.split(self.separator) if text else []
        return [value.lstrip(" ") for value in values] if self.spaced else values

    def number_of_values(self, line: str) -> int:
        """Return the number of values of a line, 0 if it cannot be read."""
        try:
            return len(self.values(line))
        except csv.Error:
            return 0


def _skip_to_content(path: Path, lines: _Lines, reading: Reading) -> str | None:
    """Skip empty lines and the line ``sep=;`` of a spreadsheet; return the separator it names.

    Raises DataError if there is no line, or the first one could not be decoded.
    """
    separator, expected, problems = None, 1, len(reading.problems)
    for number, line in iter(lambda: next(lines.ahead(1), None), None):
        text = line.strip(" \r\n")
        if number != expected:  # a line that was not decoded is missing
            break
        names_separator = text[:4].lower() == "sep=" and len(text) <= len("sep=,")
        if text and not names_separator:
            return separator
        separator = text[4:] or None if names_separator else separator
        expected += 1
        lines.next()
    if len(reading.problems) > problems:
        raise DataError(f"line 1 of {path}, the header, cannot be decoded: {REMEDY}")
    raise DataError(f"{path} is empty, expected a header line with column names")


def _dialect(lines: _Lines, separator: str | None) -> _Dialect:
    """Return how values are separated; by default, as gives most names in the header.

    Of separators that give equally many, the one that gives most of the lines as many values.
    """
    sample = [line for _, line in lines.ahead(SAMPLE_LINES)]
    header = sample[0]

    def fits(separator: str) -> tuple[int, int]:
        numbers = list(map(_Dialect(separator).number_of_values, sample))
        return numbers[0], Counter(numbers)[numbers[0]] if numbers[0] > 1 else 0

    dialect = _Dialect(separator or max(SEPARATORS, key=fits))
    try:
        names = dialect.values(header)
    except csv.Error:
        return dialect
    return _Dialect(dialect.separator, len(names) > 1 and all(x[:1] == " " for x in names[1:]))


def _header(path: Path, lines: _Lines, dialect: _Dialect, columns: Columns) -> Sequence[str]:
    """Return the names of the columns, which the next line has."""
    _, line = lines.next() or (0, "")
    try:
        names = [name.strip() for name in dialect.values(line)]
    except csv.Error as error:
        raise DataError(f"{path} has a header line that cannot be read: {error}") from None
    if any(map(is_picture_name, names)) and columns == Columns():
        raise DataError(
            f"the first line of {path} looks like data, expected column names: give them, for "
            f"example --columns {_proposed_names(names)}"
        )
    repeated = {name for name in names if name and names.count(name) > 1}
    if repeated:
        raise DataError(f"{path} names a column twice: {', '.join(names)}")
    return names


def _proposed_names(values: Sequence[str]) -> str:
    """Return names for the columns of a line of data: one picture, one text, others unnamed."""
    pictures = [place for place, value in enumerate(values) if is_picture_name(value)]
    others = [place for place in range(len(values)) if place not in pictures]
    text = max(others, key=lambda place: len(values[place]), default=None)
    return ",".join(
        "image" if place == pictures[0] else "text" if place == text else "-"
        for place in range(len(values))
    )


def _records(lines: _Lines, dialect: _Dialect, reading: Reading) -> Iterator[tuple[int, list[str]]]:
    """Yield (number of the last line, values) of each row."""
    while (found := lines.next()) is not None:
        number, line = found
        if '"' not in line:
            try:
                yield number, dialect.values(line)
            except csv.Error as error:
                reading.problems.add("bad line", f"line {number} ({error})")
            continue
        values: list[str]
        following = (text for _, text in lines.ahead(MAX_RECORD_LINES - 1))
        reader = dialect.reader(chain([line], following), strict=True)
        try:
            values = next(reader, [])
        except csv.Error:
            # Text after a closing quote. On one line, this is read as most programs do.
            if reader.line_num == 1 and line.count('"') % 2 == 0:
                yield number, dialect.values(line)
            else:
                reading.problems.add("bad line", f"line {number} opens a quote that is not closed")
            continue
        for _ in range(reader.line_num - 1):
            number, _ = lines.next() or found
        yield number, values
