"""Text files: detection of their encoding, decoding, and division into lines."""

from __future__ import annotations

import codecs
import gzip
import io
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from typing import TextIO

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
COMPRESSED = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd"}
"""Compression of each ending of a text file."""
MAX_LINE = 2**25
"""Maximum number of characters of a line."""
SAMPLE_BYTES = 4096
"""First bytes of a file, by which its encoding is detected."""
UNDECODED = re.compile("[\udc80-\udcff]")
"""Bytes that were not decoded, as the error handler "surrogateescape" represents them."""


def detect_encoding(data: bytes) -> str:
    """Return the encoding of a byte order mark, UTF-16 for many zero bytes, else UTF-8."""
    for mark, encoding in BYTE_ORDER_MARKS.items():
        if data.startswith(mark):
            return encoding
    sample = data[: len(data) // 2 * 2]
    zeros = [sample[start::2].count(0) / max(1, len(sample) // 2) for start in (0, 1)]
    if max(zeros) > 0.3 and min(zeros) < 0.1:
        return "utf-16-be" if zeros[0] > zeros[1] else "utf-16-le"
    return "utf-8"


@contextmanager
def open_text(path: Path, reading: Reading) -> Iterator[tuple[TextIO, str]]:
    r"""Open a text file, compressed or not; give it with the name of its encoding.

    The text has no byte order mark; undecodable bytes are lone surrogates in it. Lines end with \n,
    \r\n or \r. Raises DataError for a file that cannot be decompressed, also while it is read, and
    where an encoding cannot represent undecodable bytes.
    """
    encoding = reading.encoding or ""
    try:
        with _open_binary(path) as file:
            encoding = encoding or detect_encoding(file.peek(SAMPLE_BYTES)[:SAMPLE_BYTES])
            text = io.TextIOWrapper(file, encoding, "surrogateescape", newline="")
            yield text, encoding.removesuffix("-sig").upper()
    except UnicodeError as error:
        reason = " ".join(str(error).split())[:100]
        raise DataError(f"{path} is not in {encoding.upper()} ({reason}): {REMEDY}") from None
    except (EOFError, zlib.error, OSError, ValueError) as error:
        if path.suffix.lower() not in COMPRESSED or getattr(error, "errno", None) is not None:
            raise
        raise DataError(f"{path} cannot be decompressed ({error}): make it again") from None


def _open_binary(path: Path) -> io.BufferedReader:
    """Open a file of bytes; decompress one with an ending of COMPRESSED."""
    compression = COMPRESSED.get(path.suffix.lower())
    if compression is None:
        return open(path, "rb")
    if compression == "gzip":
        return io.BufferedReader(gzip.open(path))
    import pyarrow as pa

    return io.BufferedReader(pa.CompressedInputStream(pa.OSFile(str(path)), compression))


def read_text(path: Path, reading: Reading) -> str:
    """Return the text of a small file.

    Raises DataError if it has more than MAX_LINE characters, or some of it is not in its encoding.
    """
    with open_text(path, reading) as (file, encoding):
        text = file.read(MAX_LINE + 1).removeprefix("\ufeff")
    if len(text) > MAX_LINE:
        raise DataError(f"{path} has more than {MAX_LINE:,} characters, expected a caption")
    refuse_undecoded(text, 1, path, encoding)
    return text


def refuse_undecoded(text: str, line: int, path: Path, encoding: str) -> None:
    """Raise DataError if a text that begins in a line has bytes that were not decoded."""
    found = None if text.isascii() else UNDECODED.search(text)
    if found:
        line += text.count("\n", 0, found.start())
        raise DataError(f"line {line} of {path} is not in {encoding}: {REMEDY}")


def read_lines(path: Path, reading: Reading) -> Iterator[tuple[int, str]]:
    r"""Yield (number, line) from 1; lines end with \n, \r\n or \r.

    Lines that are not in the encoding, or have more than MAX_LINE characters, are recorded.
    """
    with open_text(path, reading) as (file, encoding):
        lines = iter(partial(file.readline, MAX_LINE), "")
        for number in count(1):
            line = next(lines, "")
            if not line:
                return
            if number == 1:
                line = line.removeprefix("\ufeff")
            if len(line) == MAX_LINE and line[-1] not in "\r\n":
                for rest in lines:
                    if rest[-1] in "\r\n":
                        break
                reading.problems.add(f"line of more than {MAX_LINE:,} characters", f"line {number}")
            elif not line.isascii() and UNDECODED.search(line):
                reading.problems.add(f"line not in {encoding} ({REMEDY})", f"line {number}")
            else:
                yield number, line
