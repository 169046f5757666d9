"""What a dataset can teach: captions, captions and labels, labels only, or pictures only."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from xmodal.data.dataset import Dataset

SituationName = Literal["captions", "captions and labels", "labels only", "pictures only"]


@dataclass(frozen=True)
class Situation:
    """``name``: one of four situations; ``line``: the name and what it was recognised from."""

    name: SituationName
    line: str


def recognise(data: Dataset) -> Situation:
    """Return the situation of a dataset.

    Labels count if they were requested, see :func:`xmodal.data.readers.read.read`. Captions that
    are the labels do not count as captions.
    """
    captions = 0 if data.class_captions else int(data.sizes("text").sum())
    if data.lazy:
        pictures, different = int(data.sizes("image").sum()), captions
    else:
        pictures = len(set(data.pictures()))
        different = len({caption for item in data for caption in item.captions}) if captions else 0
    labelled = sum(labels is not None for labels in data.label_sets)
    name: SituationName
    if captions:
        name = "captions and labels" if labelled else "captions"
    else:
        name = "labels only" if labelled else "pictures only"
    parts = [f"{pictures:,} pictures"]
    if captions:
        parts.append(f"{captions:,} captions ({different:,} different)")
    if labelled:
        count = len(data.classes)
        parts.append(f"{labelled:,} items with {count:,} labels from {data.label_column}")
    source = f" in {data.source}" if data.source else ""
    hint = labels_hint(data) if name == "pictures only" else ""
    return Situation(name, f"{name}: {', '.join(parts)}{source}{hint}")


def labels_hint(data: Dataset) -> str:
    """Return a hint at labels from folders, "" if the pictures are in one folder."""
    folders = {image.parent for image in data.pictures() if isinstance(image, Path)}
    if len(folders) < 2:
        return ""
    return "; --labels-from folders uses the names of their folders as labels"
