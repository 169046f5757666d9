"""Single pictures that are sources of their own, with the caption files beside them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path

from xmodal.data.items import Item
from xmodal.data.packed import is_picture_file
from xmodal.data.problems import Problems
from xmodal.data.readers.beside import Beside, CaptionFiles
from xmodal.data.readers.reading import Reading
from xmodal.data.readers.walk import Tree


def read_pictures(paths: Iterable[Path], reading: Reading) -> Iterator[Item]:
    """Yield the items of pictures under the ids that are their paths; record missing ones."""
    captions = False
    for folder, pictures in groupby(paths, key=lambda path: path.parent):
        beside = Beside(folder, reading)
        files = [CaptionFiles(Tree(folder, Problems()).listing(folder))] if folder.is_dir() else []
        for path in pictures:
            if is_picture_file(path):
                yield beside.item(path.as_posix(), path, files)
            else:
                reading.problems.add("picture missing", path)
        captions = captions or beside.captions
    reading.sources.append("caption files beside the pictures" if captions else "single pictures")
