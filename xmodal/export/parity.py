"""Parity: share of equal bits, and mAP, of an exported encoder and of torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xmodal.data.dataset import Dataset
from xmodal.data.items import Item
from xmodal.data.names import sorted_by_hash
from xmodal.data.problems import Problems
from xmodal.data.progress import Progress
from xmodal.data.readers.read import read
from xmodal.data.synthetic import write_synthetic_data
from xmodal.encoders.encoder import Encoded, Encoder
from xmodal.errors import DataError
from xmodal.evaluation.metrics import average_precision, groups_by_labels, mean
from xmodal.modality import MODALITIES, Modality

MIN_PAIRS = 20
"""Smallest number of labelled pairs for which mAP is measured."""

Codes = dict[Modality, Encoded]


@dataclass(frozen=True)
class Sample:
    """Pictures and texts of a comparison; ``about``: their description in the model card."""

    about: str
    data: Dataset

    def sources(self, modality: Modality) -> list[Any]:
        """Return the first picture or the first caption of each item."""
        return [item.sources(modality)[0] for item in self._items_with(modality)]

    def labels(self) -> tuple[list[int], list[int], Any] | None:
        """Return the labelled pairs: rows of pictures, rows of texts, labels (n, c).

        None if there are fewer than ``MIN_PAIRS``.
        """
        image, text = (
            {item.id: row for row, item in enumerate(self._items_with(modality))}
            for modality in MODALITIES
        )
        pairs = self.data.pairs().keep(lambda item: bool(item.labels))
        if len(pairs) < MIN_PAIRS:
            return None
        hot, _ = pairs.labels(pairs.classes)
        return [image[id_] for id_ in pairs.ids], [text[id_] for id_ in pairs.ids], hot

    def _items_with(self, modality: Modality) -> list[Item]:
        return [item for item in self.data if item.sources(modality)]


def rendered(folder: Path, items: int) -> Sample:
    """Render ``items`` pictures with captions into ``folder``; the sample has no labels."""
    data = read(write_synthetic_data(folder, items, seed=1))
    return Sample(f"{items} rendered pictures and their captions", data)


def held_out(data: Dataset, encoder: Encoder, items: int) -> Sample:
    """Select at most ``items`` queries of the encoder's split, else items outside its training.

    Raises DataError if there are neither, or no pictures or no texts among them.
    """
    training = {id_ for role in ("train", "validation") for id_ in encoder.split.get(role, ())}
    queries = set(encoder.split.get("query", ()))
    ids, what = [id_ for id_ in data.ids if id_ in queries], "held-out queries"
    if not ids:
        ids, what = [id_ for id_ in data.ids if id_ not in training], "not training items"
    if not ids:
        raise DataError(f"all {len(data)} items of {data.name} are training items: use other items")
    sampled = set(sorted_by_hash(ids, "check")[:items])
    part = data.keep(lambda item: item.id in sampled)
    sample = Sample(f"{len(sampled)} items of {data.name} ({what})", part)
    for modality in MODALITIES:
        if not sample.sources(modality):
            raise DataError(f"there is no {modality} among {sample.about}: use other items")
    return sample


def encode(
    encoder: Encoder, sample: Sample, problems: Problems, progress: Progress | None = None
) -> Codes:
    """Encode both modalities of a sample without a cache."""
    return {
        modality: encoder.encode(
            modality, sample.sources(modality), problems=problems, progress=progress
        )
        for modality in MODALITIES
    }


def parity(one: Codes, other: Codes) -> dict[str, dict[str, float]]:
    """Return for each modality the shares of equal ``bits`` and ``codes``, and the number ``n``.

    Only items that are usable for both encoders count; a modality without any is left out.
    """
    out: dict[str, dict[str, float]] = {}
    for modality in MODALITIES:
        both = one[modality].usable & other[modality].usable
        equal = one[modality].codes[both].to_bits() == other[modality].codes[both].to_bits()
        if len(equal):
            bits, codes = float(equal.mean()), float(equal.all(axis=1).mean())
            out[modality] = {"bits": round(bits, 6), "codes": round(codes, 4), "n": len(equal)}
    return out


def expected_map(codes: Codes, sample: Sample) -> dict[str, float] | None:
    """Return the expected mAP of each direction; the labelled pairs are queries and database.

    Items that share a label are relevant. None if there are fewer than ``MIN_PAIRS`` of them.
    """
    labelled = sample.labels()
    if labelled is None:
        return None
    image, text, labels = labelled
    usable = codes["image"].usable[image] & codes["text"].usable[text]
    labels = labels[usable] > 0
    images = codes["image"].codes[np.array(image)[usable]]
    texts = codes["text"].codes[np.array(text)[usable]]
    directions = {"image->text": (images, texts), "text->image": (texts, images)}
    return {
        name: round(
            float(mean(average_precision(groups_by_labels(query, database, labels, labels)))), 4
        )
        for name, (query, database) in directions.items()
    }
