"""COCO captions: {"images": [{"id", "file_name"}], "annotations": [{"image_id", "caption"}]}.

Lin et al., "Microsoft COCO: common objects in context", ECCV 2014; https://cocodataset.org.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from xmodal.data.readers.reading import Reading
from xmodal.errors import DataError

FILES = ("captions_*.json", "annotations/captions_*.json")
"""Usual places of the files in a folder."""


def is_coco(content: Any) -> bool:
    """Whether JSON content has the lists of COCO."""
    return isinstance(content, dict) and all(
        isinstance(content.get(name), list) for name in ("images", "annotations")
    )


def rows_of(
    content: dict[str, Any], reading: Reading, split: str | None = None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield ("image N", row) for each picture, with all its captions and ``split``.

    Captions of unknown pictures are recorded. Raises DataError if no annotation has a caption, as
    in the files of boxes.
    """
    captions: dict[Any, list[Any]] = {}
    images = [image for image in content["images"] if isinstance(image, dict)]
    known = {_key(image.get("id")) for image in images}
    for number, annotation in enumerate(content["annotations"], 1):
        if not isinstance(annotation, dict) or "caption" not in annotation:
            reading.problems.add("annotation without a caption", f"annotation {number}")
        elif (key := _key(annotation.get("image_id"))) in known:
            captions.setdefault(key, []).append(annotation["caption"])
        else:
            reading.problems.add("caption of an unknown picture", f"annotation {number}")
    if not captions:
        raise DataError(
            "the annotations have no caption of a known picture, expected a file such as "
            "annotations/captions_train2017.json"
        )
    reading.sources.append("COCO captions")
    for number, image in enumerate(images, 1):
        row = {"file_name": image.get("file_name"), "captions": captions.get(_key(image.get("id")))}
        yield f"image {number}", row | ({} if split is None else {"split": split})


def split_of(path: Path) -> str:
    """Return the split in the name of a file: "train2017" of captions_train2017.json."""
    return re.sub(r"^captions_", "", path.stem)


def _key(value: Any) -> str:
    return str(value)
