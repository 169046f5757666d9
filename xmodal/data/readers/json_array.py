"""JSON (.json): one list of objects, or an object of a caption format (COCO, Karpathy)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from xmodal.data.readers import coco, karpathy
from xmodal.data.readers.reading import Reading
from xmodal.data.readers.text_lines import read_text
from xmodal.errors import DataError


def load_json(path: Path, reading: Reading) -> Any:
    """Return the content of a JSON file. Raises DataError if it is not JSON."""
    try:
        return json.loads(read_text(path, reading))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON: {error}") from None


def read_rows(path: Path, reading: Reading) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield ("row N", row) from 1; record elements that are not objects.

    Raises DataError if the file is neither a JSON list nor of a caption format.
    """
    content = load_json(path, reading)
    if karpathy.is_karpathy(content):
        yield from karpathy.rows_of(content, reading)
        return
    if coco.is_coco(content):
        yield from coco.rows_of(content, reading)
        return
    if not isinstance(content, list):
        raise DataError(
            f"{path} holds a JSON {type(content).__name__}, expected a list of objects, COCO "
            "captions or the Karpathy format"
        )
    for number, row in enumerate(content, 1):
        if isinstance(row, dict):
            yield f"row {number}", row
        else:
            reading.problems.add("bad line", f"row {number} is not an object")
