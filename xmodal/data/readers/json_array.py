"""JSON (.json): one list of objects, or an object of a caption format (COCO, Karpathy)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from xmodal.data.readers import coco, karpathy
from xmodal.data.readers.json_stream import read_elements
from xmodal.data.readers.reading import Reading
from xmodal.errors import DataError

Kind = Literal["COCO", "Karpathy", "list", "other"]
SAMPLE = 100
"""Elements of a list by which its kind is found."""


def read_rows(path: Path, reading: Reading) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield ("row N", row) from 1; record elements that are not objects.

    Raises DataError if the file is neither a JSON list nor of a caption format.
    """
    kind, key = kind_of(path, reading)
    if kind == "other":
        raise DataError(
            f"{path} holds a JSON {key}, expected a list of objects, COCO captions or the Karpathy "
            "format"
        )
    if kind == "Karpathy":
        yield from karpathy.read_rows(path, reading)
    elif kind == "COCO":
        yield from coco.read_rows(path, reading)
    else:
        for element in read_elements(path, reading):
            if element.key != key or not element.number:
                continue
            if isinstance(element.value, dict):
                yield f"row {element.number}", element.value
            else:
                reading.problems.add("bad line", f"row {element.number} is not an object")


def kind_of(path: Path, reading: Reading) -> tuple[Kind, str | None]:
    """Return the kind of a JSON file; of a "list", its key if it is not the whole file.

    Of "other", the type of its content. Raises DataError if it is not JSON as far as it is read.
    """
    objects: dict[str, bool] = {}  # keys of lists: whether they hold objects
    for key, number, value in read_elements(path, reading):
        if key is None:
            if number or value == []:
                return "list", None
            return "other", type(value).__name__
        if key == "images" and number <= SAMPLE and karpathy.is_image(value):
            return "Karpathy", None
        if value == [] and not number:
            objects[key] = False
        elif number == 1:
            objects[key] = isinstance(value, dict)
        both = "images" in objects and "annotations" in objects
        if both and (key == "annotations" or number > SAMPLE):
            return "COCO", None
    if {"images", "annotations"} <= objects.keys():
        return "COCO", None
    lists = [key for key, holds_objects in objects.items() if holds_objects]
    return ("list", lists[0]) if len(lists) == 1 else ("other", "dict")
