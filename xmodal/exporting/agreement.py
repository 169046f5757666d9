"""How far an exported encoder agrees with that of torch, and what the differences cost."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xmodal.data import Dataset, Item, Problems, Progress, by_hash
from xmodal.encoder import Encoded, Encoder
from xmodal.errors import DataError
from xmodal.index import MODALITIES, Modality
from xmodal.metrics import average_precision, groups_by_codes, mean, shared_labels
from xmodal.readers import read
from xmodal.toy import write_world

ENOUGH = 20
"""Labelled pairs with which mAP is worth measuring."""

Codes = dict[Modality, Encoded]


@dataclass(frozen=True)
class Sample:
    """Pictures and texts to compare by; ``about`` says what they are."""

    about: str
    data: Dataset

    def sources(self, side: Modality) -> list[Any]:
        """The pictures or the texts."""
        return [getattr(item, side) for item in self._having(side)]

    def labels(self) -> tuple[list[int], list[int], Any] | None:
        """Rows of labelled pairs among pictures and among texts, and labels (n, c); or None."""
        image, text = ({one.id: row for row, one in enumerate(self._having(s))} for s in MODALITIES)
        pairs = self.data.pairs().keep(lambda item: bool(item.labels))
        if len(pairs) < ENOUGH:
            return None
        hot, _ = pairs.labels(pairs.classes)
        return [image[id_] for id_ in pairs.ids], [text[id_] for id_ in pairs.ids], hot

    def _having(self, side: Modality) -> list[Item]:
        return [item for item in self.data if getattr(item, side) is not None]


def rendered(folder: Path, items: int) -> Sample:
    """As many pictures and captions of the toy world, rendered into a folder; without labels."""
    data = read(write_world(folder, items, seed=1)).with_label_share(0.0)
    return Sample(f"{items} rendered pictures and their captions", data)


def held_out(data: Dataset, encoder: Encoder, items: int) -> Sample:
    """At most so many items: those that the encoder keeps for asking, else what it did not learn.

    Raises DataError if there is neither, or if they have pictures alone, or texts alone.
    """
    learned = {id_ for role in ("train", "validation") for id_ in encoder.split.get(role, ())}
    asking = set(encoder.split.get("query", ()))
    chosen, what = [id_ for id_ in data.ids if id_ in asking], "kept for asking"
    if not chosen:
        chosen, what = [id_ for id_ in data.ids if id_ not in learned], "never learned from"
    if not chosen:
        raise DataError(
            f"all {len(data)} items of {data.name} were learned from: check with others"
        )
    kept = set(by_hash(chosen, "check")[:items])
    part = data.keep(lambda item: item.id in kept)
    sample = Sample(f"{len(kept)} items of {data.name} that were {what}", part)
    for side in MODALITIES:
        if not sample.sources(side):
            raise DataError(f"there is no {side} among {sample.about}: check with others")
    return sample


def encode(
    encoder: Encoder, sample: Sample, problems: Problems, progress: Progress | None = None
) -> Codes:
    """Both sides of a sample; nothing is taken from a cache."""
    return {
        side: encoder.encode(side, sample.sources(side), problems=problems, progress=progress)
        for side in MODALITIES
    }


def agreement(ours: Codes, theirs: Codes) -> dict[str, dict[str, float]]:
    """Of each side: the share of equal ``bits``, that of equal ``codes``, and of how many."""
    out: dict[str, dict[str, float]] = {}
    for side in MODALITIES:
        both = ours[side].usable & theirs[side].usable
        equal = ours[side].codes[both].to_bits() == theirs[side].codes[both].to_bits()
        if len(equal):
            bits, codes = float(equal.mean()), float(equal.all(axis=1).mean())
            out[str(side)] = {"bits": round(bits, 6), "codes": round(codes, 4), "n": len(equal)}
    return out


def quality(codes: Codes, sample: Sample) -> dict[str, float] | None:
    """Expected mAP of each direction, labelled pairs asking among themselves; None without labels.

    Relevant is what shares a label.
    """
    told = sample.labels()
    if told is None:
        return None
    image, text, labels = told
    good = codes["image"].usable[image] & codes["text"].usable[text]
    relevant = shared_labels(labels[good], labels[good]) > 0
    pictures = codes["image"].codes[np.array(image)[good]]
    texts = codes["text"].codes[np.array(text)[good]]
    ways = {"image->text": (pictures, texts), "text->image": (texts, pictures)}
    return {
        way: round(float(mean(average_precision(groups_by_codes(ask, to, relevant)))), 4)
        for way, (ask, to) in ways.items()
    }
