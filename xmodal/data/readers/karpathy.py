"""Karpathy's format: {"images": [{"filename", "filepath", "split", "sentences": [{"raw"}]}]}.

Karpathy and Fei-Fei, "Deep visual-semantic alignments for generating image descriptions", CVPR
2015: dataset_coco.json, dataset_flickr8k.json and dataset_flickr30k.json.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from xmodal.data.readers.json_stream import read_elements
from xmodal.data.readers.reading import Reading

FILES = ("dataset_*.json", "dataset.json")
"""Usual names of the files in a folder."""


def is_image(value: Any) -> bool:
    """Whether an element of the list of images has the sentences of the format."""
    return isinstance(value, dict) and "sentences" in value


def read_rows(path: Path, reading: Reading) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield ("image N", row) for each picture, with all its captions and its split."""
    reading.sources.append("Karpathy's format")
    for key, number, image in read_elements(path, reading):
        if key != "images" or not number:
            continue
        if not isinstance(image, dict):
            reading.problems.add("bad line", f"image {number} is not an object")
            continue
        folder, name = image.get("filepath"), image.get("filename")
        if isinstance(name, str) and isinstance(folder, str) and folder.strip():
            name = f"{folder.strip().rstrip('/')}/{name}"
        row = {"file_name": name, "captions": image.get("sentences"), "split": image.get("split")}
        yield f"image {number}", row
