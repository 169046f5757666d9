"""Validation of towers during training: expected mAP of pairs, or R@k of units."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from xmodal.codes import BinaryCodes
from xmodal.encoders.torch_encoder import as_tensor
from xmodal.encoders.towers import Towers
from xmodal.evaluation.captions import HIT_CUTS, query_figures
from xmodal.evaluation.metrics import (
    TieGroups,
    average_precision,
    groups_by_labels,
    groups_of_pairs,
    mean,
)
from xmodal.features.units import Units
from xmodal.modality import DIRECTIONS, MODALITIES, Modality
from xmodal.training.pairs import Pairs, TrainingPairs, even_choice

MAX_UNITS = 500
"""Units on which R@k is measured after an epoch."""
MAX_VALIDATION = 20_000
"""Validation pairs that are measured after an epoch, evenly chosen."""
MAX_DATABASE = 2000
"""Training pairs in the validation database."""
MIN_LABELLED = 20
"""Labelled pairs that queries and database each need for the figure ``mAP``."""


def validation_map(
    towers: Towers, validation: TrainingPairs, train: TrainingPairs
) -> dict[str, float]:
    """Expected mAP of the binary codes of validation pairs, mean of both directions.

    ``pair mAP``: the relevant item of a query is the other half of its own pair, among the
    validation pairs, of which at most ``MAX_VALIDATION`` are measured. ``mAP``: the relevant items
    are training pairs that share a label; the figure is absent if fewer than 20 queries or database
    pairs are labelled. Empty without validation pairs.
    """
    if not len(validation):
        return {}
    measured = validation.take(even_choice(len(validation), MAX_VALIDATION))
    database = train.take(even_choice(len(train), MAX_DATABASE))
    codes = _codes(towers, measured)
    figures = {
        "pair mAP": _map(groups_of_pairs(codes[one], codes[other]) for one, other in DIRECTIONS)
    }
    if min(int(measured.labelled.sum()), int(database.labelled.sum())) >= MIN_LABELLED:
        queries, database = _labelled(measured), _labelled(database)
        codes, searched = _codes(towers, queries), _codes(towers, database)
        labels = [part.labels.cpu().numpy() > 0 for part in (queries, database)]
        figures["mAP"] = _map(
            groups_by_labels(codes[one], searched[other], *labels) for one, other in DIRECTIONS
        )
    return figures


def validation_recall(towers: Towers, units: Units) -> dict[str, float]:
    """R@1, R@5 and R@10 of the binary codes of validation units, mean of both directions.

    Measured on at most ``MAX_UNITS`` units, see :mod:`xmodal.evaluation.captions`; empty without
    units.
    """
    if not len(units):
        return {}
    chosen = units.take(even_choice(len(units), MAX_UNITS).numpy())
    codes: dict[Modality, BinaryCodes] = {
        modality: towers.codes(modality, as_tensor(np.asarray(chosen.features(modality))))
        for modality in MODALITIES
    }
    hits = [
        query_figures(chosen, source, codes[source], codes[target]).hits.mean(axis=0)
        for source, target in DIRECTIONS
    ]
    return {f"R@{k}": float(x) for k, x in zip(HIT_CUTS, np.mean(hits, axis=0), strict=True)}


def _codes(towers: Towers, pairs: Pairs) -> dict[Modality, BinaryCodes]:
    return {"image": towers.codes("image", pairs.image), "text": towers.codes("text", pairs.text)}


def _map(directions: Iterable[TieGroups]) -> float:
    """Return the expected mAP, mean of both directions."""
    return float(np.mean([mean(average_precision(groups)) for groups in directions]))


def _labelled(pairs: Pairs) -> Pairs:
    return pairs.take(pairs.labelled.nonzero().flatten())
