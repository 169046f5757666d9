"""Evaluation of encoders on data."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from xmodal.codes import BinaryCodes
from xmodal.config import Options
from xmodal.data.dataset import Dataset
from xmodal.data.groups import with_groups
from xmodal.data.names import take_names
from xmodal.data.progress import Progress
from xmodal.data.split import Split, split, with_roles
from xmodal.encoders.encoder import Encoded, Encoder
from xmodal.errors import ConfigError, DataError
from xmodal.evaluation.baselines import Baseline, fit_baselines
from xmodal.evaluation.captions import measure_captions
from xmodal.evaluation.code_health import code_health
from xmodal.evaluation.protocol import Part, compare
from xmodal.evaluation.report import Report, combine
from xmodal.features.rows import FeatureRows
from xmodal.features.units import FeatureTable, Units
from xmodal.index.documents import DocumentBatch
from xmodal.modality import MODALITIES, Modality

MEASURED_PARTS = ("query", "validation")
"""Parts of a split whose captions are measured."""


@dataclass(frozen=True)
class CodedUnits:
    """Units and the codes of their pictures and captions, row by row."""

    units: Units
    codes: Mapping[Modality, BinaryCodes]

    def pairs(self) -> Part:
        """Return one row for each caption, with a picture of its unit."""
        image, text = self.units.caption_pairs()
        unit = self.units.unit_of_rows("text")
        return Part(
            take_names(self.units.text_ids, text),
            {
                "image": FeatureRows.of(self.units.image).take(image),
                "text": FeatureRows.of(self.units.text).take(text),
            },
            self.units.labels[unit],
            self.units.labelled[unit],
            {"image": self.codes["image"][image], "text": self.codes["text"][text]},
        )


@dataclass(frozen=True)
class Evaluated:
    """What was evaluated, for TREC files and the comparison with an index (index_check.py).

    ``captions``: the units of each measured part. ``by_labels``: query pairs and database pairs, or
    None if nothing was measured by labels. ``make_documents``: see ``documents``.
    """

    captions: Mapping[str, CodedUnits]
    by_labels: tuple[Part, Part] | None
    make_documents: Callable[[], DocumentBatch]

    @cached_property
    def documents(self) -> DocumentBatch:
        """Codes of all pairs but those of the query part, without fields."""
        return self.make_documents()


def evaluate(
    encoders: Encoder | Sequence[Encoder],
    data: Dataset,
    *,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> tuple[Report, list[Evaluated]]:
    """Evaluate an encoder, or several that differ in their seed, on the query pairs of ``data``.

    Captions are measured within the query part and within the validation part. If there are labels,
    query pairs are also searched in all other pairs. Training and validation pairs of an encoder
    are never queries. Data that the encoder was not trained on is split with the options of its
    training. Returns the report, and what was evaluated for each encoder. Raises ConfigError for
    encoders of different methods or bits, DataError if there is no query.

    >>> data = xmodal.read("photos", label_column="labels")
    >>> report, _ = xmodal.evaluate(xmodal.load_encoder("my.model"), data)
    >>> 0 <= report.captions["query"]["text_to_image"]["r10"] <= 1
    True
    """
    several = [encoders] if isinstance(encoders, Encoder) else list(encoders)
    kinds = {f"{encoder.about['options']['method']} of {encoder.bits} bits" for encoder in several}
    if len(kinds) > 1:
        raise ConfigError(
            f"the encoders are {', '.join(sorted(kinds))}; a mean is over encoders that differ in "
            "their seed alone: evaluate them separately"
        )
    results = [_evaluate_one(encoder, data, cache, progress) for encoder in several]
    return combine([report for report, _ in results]), [evaluated for _, evaluated in results]


def _evaluate_one(
    encoder: Encoder, data: Dataset, cache: Path | None, progress: Progress | None
) -> tuple[Report, Evaluated]:
    """Return the report of one encoder, and what was evaluated."""
    options = Options(**encoder.about["options"])
    pairs = with_groups(data.pairs())
    usable, encoded = encoder.encode_pairs(pairs, cache=cache, progress=progress)
    parts, trained = _split_as_trained(encoder, usable, options)
    table = _table(usable, encoded)

    def coded(part: Dataset) -> CodedUnits:
        return _coded_units(table.units(part, usable.classes), encoded)

    train = coded(
        parts.train.with_label_share(options.label_share if trained else 1.0, options.seed)
    ).units
    baselines = _fitted(train, encoder, options.seed)
    name = f"xmodal {options.method}"
    measured = {role: coded(getattr(parts, role)) for role in MEASURED_PARTS}
    measured = {role: part for role, part in measured.items() if len(part.units)}
    captions = {
        role: measure_captions(
            part.units,
            part.codes,
            baselines,
            outputs=_outputs(encoder, part.units),
            seed=options.seed,
        )
        for role, part in measured.items()
    }
    others = np.ones(len(usable), np.bool_)
    others[usable.positions_of(parts.query)] = False
    rest = np.flatnonzero(others)
    database = coded(usable.take(rest))
    facts: dict[str, Any] = {
        "bits": encoder.bits,
        "training": f"{len(train):,} pictures, {len(train.text_ids):,} captions",
    }
    comparison, by_labels = None, None
    if usable.classes:
        by_labels = measured["query"].pairs(), database.pairs()
        comparison = compare(baselines, by_labels[1], by_labels[0], name=name)
        facts["labelled in training"] = f"{int(train.labelled.sum())} of {len(train)}"
        if comparison is None:
            by_labels = None
            facts["labels"] = "no query shares a label with another pair: nothing to measure"
    report = Report(
        f"{data.name}: {encoder.bits} bits",
        comparison.rows if comparison else {},
        facts | (comparison.facts if comparison else {}),
        {str(modality): code_health(database.codes[modality]) for modality in MODALITIES},
        captions=captions,
        name=name,
    )
    return report, Evaluated(measured, by_labels, partial(_documents, table, encoded, rest))


def _table(usable: Dataset, encoded: Mapping[Modality, Encoded]) -> FeatureTable:
    """Return the features as a table, whose rows are numbered as those of ``encoded``."""
    rows = {modality: FeatureRows(one.features) for modality, one in encoded.items()}
    offsets = {modality: usable.offsets(modality) for modality in MODALITIES}
    return FeatureTable(usable, rows, offsets)


def _coded_units(units: Units, encoded: Mapping[Modality, Encoded]) -> CodedUnits:
    """Add codes to units of a table of :func:`_table`."""
    codes = {}
    for modality, one in encoded.items():
        rows = units.features(modality)
        assert isinstance(rows, FeatureRows) and rows.rows is not None
        codes[modality] = one.codes[rows.rows]
    return CodedUnits(units, codes)


def _fitted(train: Units, encoder: Encoder, seed: int) -> list[Baseline]:
    """Return the baselines, fitted to all captions of the training units."""
    unit = train.unit_of_rows("text")
    return list(
        fit_baselines(
            {"image": train.image, "text": train.text},
            train.labels[unit],
            train.labelled[unit],
            encoder.bits,
            seed=seed,
            shared_space=encoder.shared_space,
            pairs=train.caption_pairs(),
        )
    )


def _outputs(encoder: Encoder, units: Units) -> dict[Modality, npt.NDArray[Any]] | None:
    """Return the real-valued outputs of the encoder by modality, if it has them."""
    found: dict[Modality, npt.NDArray[Any]] = {}
    for modality in MODALITIES:
        values = encoder.outputs(modality, units.features(modality))
        if values is None:
            return None
        found[modality] = values
    return found


def _documents(
    table: FeatureTable, encoded: Mapping[Modality, Encoded], rows: npt.NDArray[np.int64]
) -> DocumentBatch:
    """Return the codes of the items at ``rows`` as documents without fields."""
    ids = list(table.data.ids)
    packed = {modality: one.codes.packed for modality, one in encoded.items()}
    whole = DocumentBatch(ids, packed, table.offsets, ["{}"] * len(ids))
    return whole.take(rows)


def _split_as_trained(encoder: Encoder, data: Dataset, options: Options) -> tuple[Split, bool]:
    """Return the split of the training, and whether any pair of ``data`` occurred in it.

    If the training set aside no pair of ``data`` for queries, the pairs that it did not use become
    the queries.
    """
    roles = {id_: role for role, ids in encoder.split.items() for id_ in ids}
    known = [roles.get(id_) for id_ in data.ids]
    unnamed = [
        name if role is None else None for name, role in zip(data.splits, known, strict=True)
    ]
    others = with_roles(data.with_splits(unnamed), options.split_map).splits
    named = data.with_splits([one or other for one, other in zip(known, others, strict=True)])
    trained = any(role is not None for role in known)
    parts = split(
        named,
        validation=0.0 if trained else options.validation,
        query=options.query,
        seed=options.split_seed,
    )
    used = any(roles.get(id_) in ("train", "validation") for id_ in parts.query.ids)
    if trained and (not len(parts.query) or used):
        parts = _with_new_queries(named, roles.keys())
    return parts, trained


def _with_new_queries(data: Dataset, known: Collection[str]) -> Split:
    """Split data so that pairs without a split whose group has no ``known`` pair are queries.

    Raises DataError if there is no such pair.
    """
    groups, ids = data.grouping, data.ids
    is_known = np.zeros(len(groups.names), np.bool_)
    is_known[groups.codes[np.array([id_ in known for id_ in ids], np.bool_)]] = True
    unnamed = np.array([not name for name in data.splits], np.bool_)
    new = unnamed & ~is_known[groups.codes]
    if not new.any():
        raise DataError(
            f"{data.name} has no pair for queries: all {len(data)} were used to train this "
            "encoder; evaluate with the data that it was trained on, or with other pairs"
        )
    splits = ["query" if one else name for one, name in zip(new, data.splits, strict=True)]
    return split(data.with_splits(splits), validation=0.0, query=0.0)
