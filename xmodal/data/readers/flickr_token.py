"""Flickr token files: ``name#number<tab>caption`` a line, without a header.

Hodosh et al., "Framing image description as a ranking task", JAIR 2013 (Flickr8k.token.txt);
Young et al., TACL 2014 (results_20130124.token of Flickr30k).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from xmodal.data.readers.reading import Reading
from xmodal.data.readers.text_lines import read_lines

FILES = ("*.token.txt", "*.token")
"""Usual names of the files in a folder."""
_LINE = re.compile(r"(.+?)#\w+\t(.*)", re.DOTALL)


def is_token_file(path: Path, reading: Reading) -> bool:
    """Whether the first line that is not empty has the form of the format."""
    lines = (line for _, line in read_lines(path, reading))
    first = next((line for line in lines if line.strip()), "")
    return _LINE.fullmatch(first) is not None


def read_rows(path: Path, reading: Reading) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield ("line N", row); record lines of another form."""
    reading.sources.append("a Flickr token file")
    for number, line in read_lines(path, reading):
        found = _LINE.fullmatch(line)
        if found:
            yield f"line {number}", {"file_name": found[1], "caption": found[2]}
        elif line.strip():
            reading.problems.add(
                "bad line", f"line {number} is not of the form name#number<tab>caption"
            )
