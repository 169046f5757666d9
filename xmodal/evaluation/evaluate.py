"""Evaluation of encoders on data, and comparison of an index with the evaluated codes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from xmodal.config import Options
from xmodal.data.dataset import Dataset, Progress
from xmodal.data.split import Split, split
from xmodal.encoders.encoder import Encoder
from xmodal.errors import ConfigError, DataError, IndexMismatch
from xmodal.evaluation.protocol import Part, compare
from xmodal.evaluation.report import Report, combine
from xmodal.features.extract import source_offsets
from xmodal.index.contract import Hit, Index
from xmodal.modality import DIRECTIONS, MODALITIES

MAX_CHECKED_HITS = 1000
"""Number of hits of each query that :func:`check_index` compares."""


def evaluate(
    encoders: Encoder | Sequence[Encoder],
    data: Dataset,
    *,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> tuple[Report, list[tuple[Part, Part]]]:
    """Evaluate an encoder, or several that differ in their seed, on the query pairs of ``data``.

    Training and validation pairs of an encoder are in the database and are never queries. Data that
    the encoder was not trained on is split with the options of its training. Returns the report,
    and for each encoder the query part and the database part with their codes. Raises ConfigError
    for encoders of different methods or bits, DataError if there is no query.
    """
    several = [encoders] if isinstance(encoders, Encoder) else list(encoders)
    kinds = {f"{encoder.about['options']['method']} of {encoder.bits} bits" for encoder in several}
    if len(kinds) > 1:
        raise ConfigError(
            f"the encoders are {', '.join(sorted(kinds))}; a mean is over encoders that differ in "
            "their seed alone: evaluate them separately"
        )
    results = [_evaluate_one(encoder, data, cache, progress) for encoder in several]
    report = combine([report for report, _, _ in results])
    return report, [(query, database) for _, query, database in results]


def check_index(index: Index, query: Part, database: Part) -> str:
    """Search ``index`` with the codes of ``query`` and compare the hits with those of ``database``.

    The index may contain further documents. Returns a sentence with the number of searches. Raises
    IndexMismatch if an item of the database is missing or has another distance.
    """
    k = min(MAX_CHECKED_HITS, max(1, len(index)))
    searches = 0
    for source, target in DIRECTIONS:
        expected = query.codes[source].distances(database.codes[target])
        results = index.search(query.codes[source], k, target=target)
        for hits, distances in zip(results, expected, strict=True):
            # Items at the distance of the last of k hits may be cut off; nearer ones may not.
            limit = hits[-1].distance if len(hits) == k else index.bits + 1
            _check_hits(hits, dict(zip(database.ids, distances.tolist(), strict=True)), limit)
            searches += 1
    return f"{searches:,} searches, {k:,} nearest each: the items and distances are as measured"


def _check_hits(hits: Sequence[Hit], expected: dict[str, int], limit: int) -> None:
    """Raise IndexMismatch for another distance, or a missing item nearer than ``limit``."""
    found = {hit.id: hit.distance for hit in hits}
    for id_, distance in expected.items():
        indexed = found.get(id_)
        if indexed != distance and (indexed is not None or distance < limit):
            state = "missing" if indexed is None else f"at distance {indexed}"
            raise IndexMismatch(
                f"the index does not match the data: {id_!r} is {state}, expected at distance "
                f"{distance}: index the data again"
            )


def _evaluate_one(
    encoder: Encoder, data: Dataset, cache: Path | None, progress: Progress | None
) -> tuple[Report, Part, Part]:
    """Return the report of one encoder, its query part and its database part."""
    options = Options(**encoder.about["options"])
    usable, encoded = encoder.encode_pairs(data.pairs(), cache=cache, progress=progress)
    parts, trained = _split_as_trained(encoder, usable, options)
    row = {id_: number for number, id_ in enumerate(usable.ids)}
    first = {modality: source_offsets(usable, modality)[:-1] for modality in MODALITIES}

    def part(selected: Dataset, label_share: float = 1.0) -> Part:
        labels, labelled = selected.with_label_share(label_share, options.seed).labels(
            usable.classes
        )
        rows = np.array([row[id_] for id_ in selected.ids], dtype=np.int64)
        return Part(
            selected.ids,
            {
                modality: encoded[modality].features[first[modality][rows]]
                for modality in MODALITIES
            },
            labels,
            labelled,
            {modality: encoded[modality].codes[first[modality][rows]] for modality in MODALITIES},
        )

    query = part(parts.query)
    query_ids = set(parts.query.ids)
    database = part(usable.keep(lambda item: item.id not in query_ids))
    report = compare(
        part(parts.train, options.label_share if trained else 1.0),
        database,
        query,
        name=f"xmodal {options.method}",
        seed=options.seed,
        shared_space=encoder.shared_space,
        title=f"{data.name}: {encoder.bits} bits",
    )
    return report, query, database


def _split_as_trained(encoder: Encoder, data: Dataset, options: Options) -> tuple[Split, bool]:
    """Return the split of the training, and whether any pair of ``data`` occurred in it.

    If the training set aside no pair of ``data`` for queries, the pairs that it did not use become
    the queries.
    """
    roles = {id_: role for role, ids in encoder.split.items() for id_ in ids}
    trained = any(id_ in roles for id_ in data.ids)
    items = tuple(replace(item, split=roles.get(item.id, item.split)) for item in data)
    parts = split(
        replace(data, items=items),
        validation=0.0 if trained else options.validation,
        query=options.query,
        seed=options.split_seed,
    )
    used = {id_ for role in ("train", "validation") for id_ in encoder.split.get(role, ())}
    if trained and (not len(parts.query) or used.intersection(parts.query.ids)):
        parts = _with_new_queries(replace(data, items=items), roles.keys())
    return parts, trained


def _with_new_queries(data: Dataset, known: Collection[str]) -> Split:
    """Split data so that pairs that are not ``known`` are queries, unless they have a split.

    Raises DataError if there is no such pair.
    """
    new = {item.id for item in data if item.id not in known and not item.split}
    if not new:
        raise DataError(
            f"{data.name} has no pair for queries: all {len(data)} were used to train this "
            "encoder; evaluate with the data that it was trained on, or with other pairs"
        )
    items = tuple(replace(item, split="query") if item.id in new else item for item in data)
    return split(replace(data, items=items), validation=0.0, query=0.0)
