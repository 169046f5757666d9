"""COCO captions: {"images": [{"id", "file_name"}], "annotations": [{"image_id", "caption"}]}.

Lin et al., "Microsoft COCO: common objects in context", ECCV 2014; https://cocodataset.org.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from xmodal.data.readers.json_stream import read_elements
from xmodal.data.readers.reading import Reading
from xmodal.data.readers.seen_texts import SeenTexts
from xmodal.errors import DataError

FILES = ("captions_*.json", "annotations/captions_*.json")
"""Usual places of the files in a folder."""


def read_rows(
    path: Path, reading: Reading, split: str | None = None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield ("image N", row) for each picture, with all its captions and ``split``.

    The captions are in memory; captions of unknown pictures are recorded. Raises DataError if no
    annotation has a caption, as in the files of boxes.
    """
    captions = _captions(path, reading)
    if not captions:
        raise DataError(
            "the annotations have no caption of a known picture, expected a file such as "
            "annotations/captions_train2017.json"
        )
    reading.sources.append("COCO captions")
    of_split = {} if split is None else {"split": split}
    for number, image in _numbered(path, reading, "images"):
        if isinstance(image, dict):
            found = captions.get(str(image.get("id")))
            yield (
                f"image {number}",
                {"file_name": image.get("file_name"), "captions": found, **of_split},
            )


def _captions(path: Path, reading: Reading) -> dict[str, list[Any]]:
    """Return the captions by id of their picture."""
    captions: dict[str, list[Any]] = {}
    known = SeenTexts()
    for _, image in _numbered(path, reading, "images"):
        if isinstance(image, dict):
            known.add(str(image.get("id")))
    for number, annotation in _numbered(path, reading, "annotations"):
        if not isinstance(annotation, dict) or "caption" not in annotation:
            reading.problems.add("annotation without a caption", f"annotation {number}")
        elif (key := str(annotation.get("image_id"))) in known:
            captions.setdefault(key, []).append(annotation["caption"])
        else:
            reading.problems.add("caption of an unknown picture", f"annotation {number}")
    return captions


def _numbered(path: Path, reading: Reading, key: str) -> Iterator[tuple[int, Any]]:
    """Yield the elements of the list of a key, with their numbers from 1."""
    for element in read_elements(path, reading):
        if element.key == key and element.number:
            yield element.number, element.value


def split_of(path: Path) -> str:
    """Return the split in the name of a file: "train2017" of captions_train2017.json."""
    return re.sub(r"^captions_", "", path.stem)
