"""Encoders against data: their codes and the baselines, measured by the protocol."""

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
from xmodal.evaluation.protocol import DIRECTIONS, Part, Report, combine, compare
from xmodal.index.contract import Index
from xmodal.modality import MODALITIES

CHECKED = 1000


def evaluate(
    encoders: Encoder | Sequence[Encoder],
    data: Dataset,
    *,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> tuple[Report, list[tuple[Part, Part]]]:
    """Measure an encoder, or several that differ in their seed, on the queries of ``data``.

    Pairs that an encoder was trained on, or chosen by, are the database and never queries. Data
    that it never saw is divided as training would divide it. Returns the report, and of each
    encoder the query part and the database part with their codes.
    """
    several = [encoders] if isinstance(encoders, Encoder) else list(encoders)
    kinds = {f"{one.about['options']['method']} of {one.bits} bits" for one in several}
    if len(kinds) > 1:
        raise ConfigError(
            f"the encoders are {', '.join(sorted(kinds))}; only encoders that differ in their seed "
            "have a mean: evaluate the others alone"
        )
    measured = [_measure(encoder, data, cache, progress) for encoder in several]
    return combine([report for report, _, _ in measured]), [(q, d) for _, q, d in measured]


def check_index(index: Index, query: Part, database: Part) -> str:
    """Ask an index with the queries, and compare its answers with the codes that were measured.

    The index may hold more than the database part. Returns a sentence that says what was compared;
    raises IndexMismatch if an item is missing among the nearest, or is told at another distance.
    """
    k = min(CHECKED, max(1, len(index)))
    asked = 0
    for ask, answer in DIRECTIONS:
        measured = query.codes[ask].distances(database.codes[answer])
        told = index.search(query.codes[ask], k, target=answer)
        for hits, row in zip(told, measured, strict=True):
            found = {hit.id: hit.distance for hit in hits}
            # What ties with the last hit may have been cut off; what is nearer may not.
            complete = hits[-1].distance if len(hits) == k else index.bits + 1
            for id_, distance in zip(database.ids, row.tolist(), strict=True):
                there = found.get(id_)
                if there != distance and (there is not None or distance < complete):
                    raise IndexMismatch(
                        f"the index does not hold what was measured: {answer} of {id_!r} is at "
                        f"distance {distance} by its code, there "
                        f"{'missing' if there is None else f'at {there}'}: index the data again"
                    )
            asked += 1
    return f"{asked:,} searches, the {k:,} nearest of each: the measured items at their distances"


def _measure(
    encoder: Encoder, data: Dataset, cache: Path | None, progress: Progress | None
) -> tuple[Report, Part, Part]:
    options = Options(**encoder.about["options"])
    usable, found = encoder.encode_pairs(data.pairs(), cache=cache, progress=progress)
    roles = {id_: role for role, ids in encoder.split.items() for id_ in ids}
    seen = any(id_ in roles for id_ in usable.ids)
    told = tuple(replace(item, split=roles.get(item.id, item.split)) for item in usable)
    parts = split(
        replace(usable, items=told),
        validation=0.0 if seen else options.validation,
        query=options.query,
        seed=options.split_seed,
    )
    learned = {id_ for role in ("train", "validation") for id_ in encoder.split.get(role, ())}
    if seen and (not len(parts.query) or learned.intersection(parts.query.ids)):
        # Nothing here was set aside for asking: what the encoder never saw may ask, if it is there.
        parts = _with_new_queries(replace(usable, items=told), roles.keys())
    row = {id_: place for place, id_ in enumerate(usable.ids)}

    def part(of: Dataset, label_share: float = 1.0) -> Part:
        labels, known = of.with_label_share(label_share, options.seed).labels(usable.classes)
        rows = np.array([row[id_] for id_ in of.ids], dtype=np.int64)
        return Part(
            of.ids,
            {side: found[side].features[rows] for side in MODALITIES},
            labels,
            known,
            {side: found[side].codes[rows] for side in MODALITIES},
        )

    query = part(parts.query)
    asked = set(parts.query.ids)
    database = part(usable.keep(lambda item: item.id not in asked))
    report = compare(
        part(parts.train, options.label_share if seen else 1.0),
        database,
        query,
        name=f"xmodal {options.method}",
        seed=options.seed,
        shared_space=encoder.shared_space,
        title=f"{data.name}: {encoder.bits} bits",
    )
    return report, query, database


def _with_new_queries(data: Dataset, known: Collection[str]) -> Split:
    """Divide data so that all pairs that are not ``known`` ask, unless their split says else."""
    new = [item.id for item in data if item.id not in known and not item.split]
    if not new:
        raise DataError(
            f"{data.name} has no pair to ask with: all {len(data)} were used to train this "
            "encoder; evaluate with the data that it was trained on, or with other pairs"
        )
    asking = set(new)
    items = tuple(replace(item, split="query") if item.id in asking else item for item in data)
    return split(replace(data, items=items), validation=0.0, query=0.0)
