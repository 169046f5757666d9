"""JSON Lines (.jsonl, .ndjson): one JSON object a line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from xmodal.data.readers.reading import Reading
from xmodal.data.readers.text_lines import read_lines


def read_rows(path: Path, reading: Reading) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield ("line N", row); record lines that are not JSON objects, skip empty ones."""
    for number, line in read_lines(path, reading):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            reading.problems.add("bad line", f"line {number} is not JSON ({error})")
            continue
        if isinstance(row, dict):
            yield f"line {number}", row
        else:
            reading.problems.add("bad line", f"line {number} is not an object")
