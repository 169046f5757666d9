"""Karpathy's format: {"images": [{"filename", "filepath", "split", "sentences": [{"raw"}]}]}.

Karpathy and Fei-Fei, "Deep visual-semantic alignments for generating image descriptions", CVPR
2015: dataset_coco.json, dataset_flickr8k.json and dataset_flickr30k.json.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from xmodal.data.readers.reading import Reading

FILES = ("dataset_*.json", "dataset.json")
"""Usual names of the files in a folder."""


def is_karpathy(content: Any) -> bool:
    """Whether JSON content has a list of images with sentences."""
    images = content.get("images") if isinstance(content, dict) else None
    return isinstance(images, list) and any(
        isinstance(image, dict) and "sentences" in image for image in images[:100]
    )


def rows_of(content: dict[str, Any], reading: Reading) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield ("image N", row) for each picture, with all its captions and its split."""
    reading.sources.append("Karpathy's format")
    for number, image in enumerate(content["images"], 1):
        if not isinstance(image, dict):
            reading.problems.add("bad line", f"image {number} is not an object")
            continue
        folder, name = image.get("filepath"), image.get("filename")
        if isinstance(name, str) and isinstance(folder, str) and folder.strip():
            name = f"{folder.strip().rstrip('/')}/{name}"
        row = {"file_name": name, "captions": image.get("sentences"), "split": image.get("split")}
        yield f"image {number}", row
