"""Pictures with captions whose backbones are trained further, from flickr8k.

    captions    all pictures with features; features of pictures from the file, texts by MiniLM
    pictures    pictures with a file: 1,500 for training and 1,000 of dev; by MobileNetV2 and MiniLM

``held_out``: training pictures alone; one of six, by hash of the id, is measured.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

from harness import caption_sets
from harness.tasks import minilm
from xmodal.config import Options
from xmodal.data.dataset import Dataset
from xmodal.data.groups import with_groups
from xmodal.data.items import Item
from xmodal.data.names import sorted_by_hash
from xmodal.data.picture_files import picture_hashes
from xmodal.data.problems import Problems
from xmodal.data.split import with_roles
from xmodal.errors import DataError
from xmodal.features.backbones import load_image_backbone, load_text_backbone
from xmodal.features.extract import Array, Usable
from xmodal.features.from_file import FileSource
from xmodal.features.rows import Features
from xmodal.features.states import Sides, StateSource
from xmodal.features.units import BackboneSource, FeatureTable, Units
from xmodal.modality import Modality
from xmodal.training.fine_tune import state_source
from xmodal.training.methods.contrastive.trainer import CaptionData
from xmodal.training.methods.contrastive.tuning_config import parse_blocks

CAPTIONS, PICTURES = "captions", "pictures"
NAMES = (CAPTIONS, PICTURES)
HELD_OUT_SHARE = 6
"""One of so many training pictures is measured with ``held_out``."""


@dataclass(frozen=True)
class FromFile:
    """Features of pictures from a file, those of texts from a backbone whose blocks are trained."""

    file: FileSource
    states: StateSource
    raw: bool = False
    sides: Sides = field(default_factory=dict)

    def features(
        self, modality: Modality, items: Sequence[Item], problems: Problems
    ) -> tuple[Array | Features, Usable]:
        """Return the features of all sources of the items."""
        if modality == "image":
            return self.file.features(modality, items, problems)
        return self.states.features(modality, items, problems)


@lru_cache(maxsize=1)
def _items(name: str, folder: Path, held_out: bool) -> tuple[Dataset, FileSource]:
    """Return the items in their parts, and the file of the features."""
    given = caption_sets.load(caption_sets.DEV, folder)
    assert given.features is not None
    data = with_roles(given.data, {"dev": "query"})
    if name == PICTURES:
        lines = (folder / caption_sets.FLICKR[0]).read_text(encoding="utf-8").splitlines()
        rows = [row for row in map(json.loads, lines) if "file_name" in row]
        pictures = {row["id"]: folder / "flickr8k" / row["file_name"] for row in rows}
        items = tuple(
            replace(item, images=(pictures[item.id],)) for item in data if item.id in pictures
        )
        data = replace(data, items=items)
    if held_out:
        ids = sorted_by_hash((item.id for item in data if item.split == "train"), "tune")
        query = set(ids[: len(ids) // HELD_OUT_SHARE])
        items = tuple(
            replace(item, split="query" if item.id in query else "train")
            for item in data
            if item.split == "train"
        )
        data = replace(data, items=items)
    return with_groups(data, picture_hashes(data.pictures())), given.features


def load(
    name: str, folder: Path, cache: Path, blocks: str, bits: int, *, held_out: bool
) -> tuple[CaptionData, Units]:
    """Return the data of a training of ``blocks``, and the units that are measured.

    The states in front of the blocks, and the features of frozen backbones, are in ``cache``.
    """
    data, file = _items(name, folder, held_out)
    image = str(folder / caption_sets.MOBILENET)
    backbones = BackboneSource(load_image_backbone(image), load_text_backbone(minilm()), cache)
    states = state_source(backbones, parse_blocks(blocks), Options())
    source = states if name == PICTURES else FromFile(file, states, sides=states.sides)
    table = FeatureTable.of(data, source)
    if len(table.data) < len(data):
        raise DataError(
            f"{len(table.data)} of {len(data)} items of the set {name} have a picture and a "
            f"caption that can be read, expected all: {data.problems.summary_lines()[0]}"
        )
    train, measured = (
        table.units(table.data.keep(lambda item, part=part: item.split == part))  # type: ignore[misc]
        for part in ("train", "query")
    )
    none = measured.take(measured.image_offsets[:0])
    return CaptionData(train, none, bits, sides=states.sides), measured
