"""JSON files read element by element, with the values of ``json.load``, NaN included."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, TextIO

from xmodal.data.readers.reading import Reading
from xmodal.data.readers.text_lines import open_text, refuse_undecoded
from xmodal.errors import DataError

CHUNK = 2**18
"""Characters that are read at a time."""
MAX_VALUE = 2**25
"""Maximum number of characters of an element."""
_LITERAL = len("-Infinity")
_FRACTION = len("e+0")
_SPACE = " \t\n\r"


class Element(NamedTuple):
    """An element of a list that is the whole file, or the value of a key of it.

    ``key``: None if the file is no object. ``number``: from 1 in a list. It is 0 at the beginning
    of a list, where ``value`` is [], and for a value that is no list.
    """

    key: str | None
    number: int
    value: Any


def read_elements(path: Path, reading: Reading) -> Iterator[Element]:
    """Yield the elements of a JSON file; lists that are deeper are values.

    Raises DataError if it is not JSON, or an element has more than MAX_VALUE characters.
    """
    with open_text(path, reading) as (file, encoding):
        text = _Text(file, path, encoding)
        if text.next_character() == "{":
            for key in text.keys():
                yield from _values(text, key)
        else:
            yield from _values(text, None)
        if text.next_character():
            text.refuse("Extra data")


def _values(text: _Text, key: str | None) -> Iterator[Element]:
    if text.next_character() != "[":
        yield Element(key, 0, text.value())
        return
    yield Element(key, 0, [])
    for number, _ in enumerate(text.members("[", "]"), 1):
        yield Element(key, number, text.value())


class _Text:
    """The text of a file from a position on, of which a part is in memory."""

    def __init__(self, file: TextIO, path: Path, encoding: str) -> None:
        self._file, self._path, self._encoding = file, path, encoding
        self._decoder = json.JSONDecoder()
        self._text, self._position, self._line = "", 0, 1
        self._is_complete = False
        self._read_more()
        self._text = self._text.removeprefix("\ufeff")

    def next_character(self) -> str:
        """Return the next character that is no space, "" at the end."""
        while True:
            rest = self._text[self._position : self._position + 1]
            if rest and rest not in _SPACE:
                return rest
            if rest:
                self._position += 1
            elif self._is_complete:
                return ""
            else:
                self._read_more()

    def members(self, begin: str, end: str) -> Iterator[None]:
        """Yield before each member of a list or object, which is then to be read."""
        self._take(begin, "Expecting value")
        if self.next_character() == end:
            self._position += 1
            return
        while True:
            yield
            if self.next_character() == end:
                self._position += 1
                return
            self._take(",", "Expecting ',' delimiter")

    def keys(self) -> Iterator[str]:
        """Yield the keys of an object, before its values, which are then to be read."""
        for _ in self.members("{", "}"):
            if self.next_character() != '"':
                self.refuse("Expecting property name enclosed in double quotes")
            key = self.value()
            self._take(":", "Expecting ':' delimiter")
            yield key

    def value(self) -> Any:
        """Return the next value."""
        self.next_character()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._position)
            except json.JSONDecodeError as error:
                cut_off = error.msg.startswith("Unterminated") or (
                    error.pos > len(self._text) - _LITERAL
                )
                if self._is_complete or not cut_off:
                    self.refuse(error.msg, error.pos)
            except (ValueError, RecursionError) as error:
                self.refuse(str(error))
            else:
                following = self._text[end : end + _FRACTION]
                if self._is_complete or following.strip(".eE+-"):
                    self._position = end
                    return value
            if len(self._text) - self._position > MAX_VALUE:
                self.refuse(f"a value has more than {MAX_VALUE:,} characters")
            self._read_more()

    def refuse(self, reason: str, position: int | None = None) -> NoReturn:
        """Raise DataError with the line of a position, default: the next character."""
        place = self._position if position is None else position
        line = self._line + self._text.count("\n", 0, place)
        raise DataError(f"{self._path} is not JSON: {reason}: line {line}") from None

    def _take(self, character: str, reason: str) -> None:
        if self.next_character() != character:
            self.refuse(reason)
        self._position += 1

    def _read_more(self) -> None:
        """Forget the text before the position, and at least double the rest."""
        self._line += self._text.count("\n", 0, self._position)
        rest = self._text[self._position :]
        more = self._file.read(max(CHUNK, len(rest)))
        line = self._line + rest.count("\n")
        refuse_undecoded(more, line, self._path, self._encoding)
        self._is_complete = not more
        self._text, self._position = rest + more, 0
