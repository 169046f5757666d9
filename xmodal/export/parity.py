"""Comparison of the codes of an exported encoder with those of torch: equal bits, and mAP."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xmodal.data.dataset import Dataset, Item, Problems, Progress, sorted_by_hash
from xmodal.data.readers.read import read
from xmodal.data.synthetic import write_synthetic_data
from xmodal.encoders.encoder import Encoded, Encoder
from xmodal.errors import DataError
from xmodal.evaluation.metrics import average_precision, groups_by_codes, mean, shared_labels
from xmodal.modality import MODALITIES, Modality

MIN_PAIRS = 20
"""Labelled pairs below which no mAP is measured."""

Codes = dict[Modality, Encoded]


@dataclass(frozen=True)
class Sample:
    """Pictures and texts of a comparison; ``about`` describes them in the report."""

    about: str
    data: Dataset

    def sources(self, side: Modality) -> list[Any]:
        """The pictures, or the texts."""
        return [getattr(item, side) for item in self._having(side)]

    def labels(self) -> tuple[list[int], list[int], Any] | None:
        """Labelled pairs: rows among the pictures, rows among the texts, labels (n, c).

        None if there are too few.
        """
        image, text = ({one.id: row for row, one in enumerate(self._having(s))} for s in MODALITIES)
        pairs = self.data.pairs().keep(lambda item: bool(item.labels))
        if len(pairs) < MIN_PAIRS:
            return None
        hot, _ = pairs.labels(pairs.classes)
        return [image[id_] for id_ in pairs.ids], [text[id_] for id_ in pairs.ids], hot

    def _having(self, side: Modality) -> list[Item]:
        return [item for item in self.data if getattr(item, side) is not None]


def rendered(folder: Path, items: int) -> Sample:
    """``items`` rendered pictures, written into ``folder``, and their captions; without labels."""
    data = read(write_synthetic_data(folder, items, seed=1))
    return Sample(f"{items} rendered pictures and their captions", data)


def held_out(data: Dataset, encoder: Encoder, items: int) -> Sample:
    """At most ``items`` items: queries of the encoder's split, else items outside its training.

    Raises DataError if there are neither, or if all are pictures, or all are texts.
    """
    learned = {id_ for role in ("train", "validation") for id_ in encoder.split.get(role, ())}
    queries = set(encoder.split.get("query", ()))
    chosen, what = [id_ for id_ in data.ids if id_ in queries], "kept for asking"
    if not chosen:
        chosen, what = [id_ for id_ in data.ids if id_ not in learned], "never learned from"
    if not chosen:
        raise DataError(
            f"all {len(data)} items of {data.name} were learned from: check with others"
        )
    kept = set(sorted_by_hash(chosen, "check")[:items])
    part = data.keep(lambda item: item.id in kept)
    sample = Sample(f"{len(kept)} items of {data.name} that were {what}", part)
    for side in MODALITIES:
        if not sample.sources(side):
            raise DataError(f"there is no {side} among {sample.about}: check with others")
    return sample


def encode(
    encoder: Encoder, sample: Sample, problems: Problems, progress: Progress | None = None
) -> Codes:
    """Codes of both sides of a sample, computed without a cache."""
    return {
        side: encoder.encode(side, sample.sources(side), problems=problems, progress=progress)
        for side in MODALITIES
    }


def parity(one: Codes, other: Codes) -> dict[str, dict[str, float]]:
    """For each side: the shares of equal ``bits`` and of equal ``codes``, and the number ``n``.

    A side without items that both encoders can use is left out.
    """
    out: dict[str, dict[str, float]] = {}
    for side in MODALITIES:
        both = one[side].usable & other[side].usable
        equal = one[side].codes[both].to_bits() == other[side].codes[both].to_bits()
        if len(equal):
            bits, codes = float(equal.mean()), float(equal.all(axis=1).mean())
            out[str(side)] = {"bits": round(bits, 6), "codes": round(codes, 4), "n": len(equal)}
    return out


def quality(codes: Codes, sample: Sample) -> dict[str, float] | None:
    """Expected mAP of each direction, with the labelled pairs as queries and as database.

    Items that share a label are relevant. None without enough labels.
    """
    labelled = sample.labels()
    if labelled is None:
        return None
    image, text, labels = labelled
    good = codes["image"].usable[image] & codes["text"].usable[text]
    relevant = shared_labels(labels[good], labels[good]) > 0
    pictures = codes["image"].codes[np.array(image)[good]]
    texts = codes["text"].codes[np.array(text)[good]]
    directions = {"image->text": (pictures, texts), "text->image": (texts, pictures)}
    return {
        name: round(float(mean(average_precision(groups_by_codes(query, database, relevant)))), 4)
        for name, (query, database) in directions.items()
    }
