"""Data sets of pictures with captions: items, features and options of training.

    flickr8k-dev        trained on the split "train", queries are the split "dev"
    flickr8k-held-out   the split "train" alone: 1,000 pictures, by hash of the id, are the queries
    emoji-words         pictures with names; small-cnn and words; queries are 10 %
    emoji-minilm        the same with MobileNetV2 and MiniLM, where these are installed

In all of them a part of the training pictures is held out for validation, as in ``xmodal train``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from harness.tasks import content_hash, minilm
from xmodal.config import FEATURES, Options
from xmodal.data.dataset import Dataset
from xmodal.data.feature_file import read_feature_file
from xmodal.data.names import sorted_by_hash
from xmodal.data.readers.read import read
from xmodal.errors import ExtraMissing
from xmodal.features.from_file import FileSource, with_features

FLICKR = ("flickr8k/captions.jsonl", "flickr8k/features.npz")
EMOJI = "emoji/items.jsonl"
MOBILENET = "encoders/mobilenet_v2_imagenet_fp16.safetensors"
DEV, HELD_OUT = "flickr8k-dev", "flickr8k-held-out"
EMOJI_WORDS, EMOJI_MINILM = "emoji-words", "emoji-minilm"
FILES: dict[str, tuple[str, ...]] = {
    DEV: FLICKR,
    HELD_OUT: FLICKR,
    EMOJI_WORDS: (EMOJI,),
    EMOJI_MINILM: (EMOJI, MOBILENET),
}
"""The files of the data folder that a data set needs."""
QUERIES = 1000
"""Held-out pictures of "flickr8k-held-out"; half of the pictures if there are fewer than 2,000."""


@dataclass(frozen=True)
class CaptionSet:
    """Items, the options of their training, and their features if a file has them."""

    data: Dataset
    options: Options
    features: FileSource | None = None


def fingerprint(name: str, folder: Path) -> str:
    """Hash of the content of the files of a data set. Raises DataError if one is missing."""
    return content_hash(folder, FILES[name])


def available(name: str, folder: Path) -> bool:
    """Whether the files and packages of a data set exist."""
    if name == EMOJI_MINILM:
        try:
            minilm()
        except ExtraMissing:
            return False
    return all((folder / file).is_file() for file in FILES[name])


@lru_cache(maxsize=1)
def load(name: str, folder: Path) -> CaptionSet:
    """Read a data set."""
    if name in (EMOJI_WORDS, EMOJI_MINILM):
        words = ("small-cnn", "words")
        image, text = words if name == EMOJI_WORDS else (str(folder / MOBILENET), minilm())
        options = Options(image_backbone=image, text_backbone=text)
        return CaptionSet(read(folder / EMOJI), options)
    table, file = (folder / name for name in FLICKR)
    data, features = with_features(read(table, need_pictures=False), read_feature_file(file))
    options = Options(image_backbone=FEATURES, text_backbone=FEATURES)
    if name == HELD_OUT:
        return CaptionSet(_held_out(data), options, features)
    return CaptionSet(data, replace(options, split_map={"dev": "query"}), features)


def _held_out(data: Dataset) -> Dataset:
    """Return the training items, ``QUERIES`` of which are queries."""
    ids = sorted_by_hash((item.id for item in data if item.split == "train"), "tune")
    role = dict.fromkeys(ids, "train") | dict.fromkeys(ids[: min(QUERIES, len(ids) // 2)], "query")
    items = (replace(item, split=role[item.id]) for item in data if item.id in role)
    return replace(data, items=tuple(items))
