"""Text files: detection of their encoding, decoding, and division into lines."""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Iterator
from pathlib import Path

from xmodal.data.readers.reading import Reading
from xmodal.errors import DataError

BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16, whose mark is its beginning
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
REMEDY = "save the file as UTF-8, or name its encoding with --encoding, for example cp1252"
_UNDECODED = re.compile("[\udc80-\udcff]")
"""Bytes that were not decoded, as the error handler "surrogateescape" represents them."""


def detect_encoding(data: bytes) -> str:
    """Return the encoding of a byte order mark, UTF-16 for many zero bytes, else UTF-8."""
    for mark, encoding in BYTE_ORDER_MARKS.items():
        if data.startswith(mark):
            return encoding
    sample = data[: min(len(data), 4096) // 2 * 2]
    zeros = [sample[start::2].count(0) / max(1, len(sample) // 2) for start in (0, 1)]
    if max(zeros) > 0.3 and min(zeros) < 0.1:
        return "utf-16-be" if zeros[0] > zeros[1] else "utf-16-le"
    return "utf-8"


def decode(path: Path, reading: Reading) -> tuple[str, str]:
    """Return the text of a file, without a byte order mark, and the name of its encoding.

    Undecodable bytes are lone surrogates in the text. Raises DataError where an encoding cannot
    represent them.
    """
    data = path.read_bytes()
    encoding = reading.encoding or detect_encoding(data)
    try:
        text = data.decode(encoding, "surrogateescape")
    except UnicodeError as error:
        reason = " ".join(str(error).split())[:100]
        raise DataError(f"{path} is not in {encoding.upper()} ({reason}): {REMEDY}") from None
    return text.removeprefix("\ufeff"), encoding.removesuffix("-sig").upper()


def read_text(path: Path, reading: Reading) -> str:
    """Return the text of a file. Raises DataError if some of it is not in its encoding."""
    text, encoding = decode(path, reading)
    found = _UNDECODED.search(text)
    if found:
        line = text.count("\n", 0, found.start()) + 1
        raise DataError(f"line {line} of {path} is not in {encoding}: {REMEDY}")
    return text


def read_lines(path: Path, reading: Reading) -> Iterator[tuple[int, str]]:
    r"""Yield (number, line) from 1; record undecodable lines. Lines end with \n, \r\n or \r."""
    text, encoding = decode(path, reading)
    damaged = _UNDECODED.search(text) is not None
    for number, line in enumerate(io.StringIO(text, newline=""), 1):
        if damaged and _UNDECODED.search(line):
            reading.problems.add(f"line not in {encoding} ({REMEDY})", f"line {number}")
        else:
            yield number, line
