"""Pictures without captions and captions without pictures, beside the pairs of a dataset."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from xmodal.data.dataset import Dataset
from xmodal.data.items import ImageSource, Item
from xmodal.data.readers.read import read
from xmodal.data.readers.reading import Reading
from xmodal.data.readers.text_lines import read_lines
from xmodal.data.split import role_of
from xmodal.errors import DataError

MAX_UNPAIRED = 50_000
"""Items with pictures alone, and with texts alone, that are used; of more, evenly chosen ones."""


@dataclass(frozen=True)
class UnpairedItems:
    """Items with one picture and no caption, and items with one caption and no picture."""

    pictures: tuple[Item, ...] = ()
    texts: tuple[Item, ...] = ()

    def __bool__(self) -> bool:
        """Whether there are pictures and texts: pairs are chosen of both."""
        return bool(self.pictures and self.texts)

    def enough(self, pairs: int) -> bool:
        """Whether there are at least as many pictures, and texts, as ``pairs``.

        With fewer the pairs decide, and the further trainings cost more than they add.
        """
        return bool(self) and min(len(self.pictures), len(self.texts)) >= pairs

    @property
    def line(self) -> str:
        """Return the counts as text."""
        return (
            f"{len(self.pictures):,} pictures without captions and {len(self.texts):,} texts "
            "without pictures"
        )


def unpaired_items(
    data: Dataset,
    hashes: Mapping[ImageSource, str | None] | None = None,
    split_map: Mapping[str, str] | None = None,
    limit: int = MAX_UNPAIRED,
) -> UnpairedItems:
    """Return the different pictures and captions of items that are no pairs.

    At most ``limit`` of each are returned. Left out are items whose split is not the training part,
    captions that a pair has, and pictures that a pair has: under the same path, or with equal
    ``hashes`` where these are given.
    """
    has_image, has_text = data.sizes("image") > 0, data.sizes("text") > 0
    if not (has_image ^ has_text).any():
        return UnpairedItems()
    training = np.array([_is_training(split, split_map or {}) for split in data.splits], np.bool_)
    one_sided = [
        item
        for alone in (has_image & ~has_text, has_text & ~has_image)
        for item in data.take(_evenly(np.flatnonzero(alone & training), limit))
    ]
    pairs = data.pairs()
    known_texts = {caption for item in pairs for caption in item.captions}
    known_pictures = {_picture(image, hashes) for item in pairs for image in item.images}
    pictures: dict[object, Item] = {}
    texts: dict[str, Item] = {}
    for item in one_sided:
        for number, image in enumerate(item.images):
            key = _picture(image, hashes)
            if key not in known_pictures:
                pictures.setdefault(key, Item(_id(item, number), images=(image,)))
        for number, caption in enumerate(item.captions):
            if caption not in known_texts:
                texts.setdefault(caption, Item(_id(item, number), captions=(caption,)))
    return UnpairedItems(*(tuple(x.values())[:limit] for x in (pictures, texts)))


def with_pictures(data: Dataset, folder: Path) -> Dataset:
    """Return the data with the pictures of a folder as items without captions.

    Captions of the folder are not read into the items. Raises the errors of ``read``.
    """
    found = read(folder)
    data.problems.extend(found.problems)
    return _with_items(data, (replace(one, captions=()) for one in found if one.images), folder)


def with_texts(data: Dataset, file: Path, encoding: str | None = None) -> Dataset:
    """Return the data with each line of a text file that is not empty as a caption of its own.

    Raises DataError for a file that does not exist, cannot be read or has no text.
    """
    if not file.is_file():
        raise DataError(f"--unpaired-texts {file}: expected a file with a text on each line")
    reading = Reading(encoding=encoding, problems=data.problems)
    lines = ((number, " ".join(line.split())) for number, line in read_lines(file, reading))
    items = [Item(f"line {number}", captions=(line,)) for number, line in lines if line]
    if not items:
        raise DataError(f"--unpaired-texts {file} has no text, expected one on each line")
    return _with_items(data, items, file)


def _with_items(data: Dataset, items: Iterable[Item], source: Path) -> Dataset:
    """Add items under ids that begin with the path of their source."""
    ids = set(data.ids)
    added = [replace(item, id=f"{source}/{item.id}", labels=None, split=None) for item in items]
    for item in added:
        if item.id in ids:
            data.problems.add("id repeated, the first one stays", item.id)
    return replace(data, items=(*data.items, *(item for item in added if item.id not in ids)))


def _is_training(split: str | None, split_map: Mapping[str, str]) -> bool:
    return split is None or role_of(split, split_map) == "train"


def _picture(image: ImageSource, hashes: Mapping[ImageSource, str | None] | None) -> object:
    """Return the hash of a picture's bytes, or its path where that is not known."""
    return (hashes or {}).get(image) or image


def _id(item: Item, number: int) -> str:
    return f"{item.id}#{number}" if number else item.id


def _evenly(rows: npt.NDArray[np.int64], limit: int) -> npt.NDArray[np.int64]:
    return rows[np.linspace(0, len(rows) - 1, min(len(rows), limit)).astype(np.int64)]
