"""JSON (.json): one list of objects."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from xmodal.data.dataset import Problems
from xmodal.errors import DataError


def read_rows(path: Path, problems: Problems) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield ("row N", row) from 1; record elements that are not objects.

    Raises DataError if the file is not a JSON list.
    """
    try:
        rows = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON: {error}") from None
    if not isinstance(rows, list):
        raise DataError(f"{path} holds a JSON {type(rows).__name__}, expected a list of objects")
    for number, row in enumerate(rows, 1):
        if isinstance(row, dict):
            yield f"row {number}", row
        else:
            problems.add("bad line", f"row {number} is not an object")
