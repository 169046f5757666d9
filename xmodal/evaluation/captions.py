"""Caption protocol: R@1, R@5, R@10 and median rank between pictures and captions, with intervals.

Within one part of the data, image -> text has one query per picture and ranks all captions;
text -> image has one query per caption and ranks all pictures. Relevant are the captions
(pictures) of the query's own unit, and R@k is the probability that at least one of them is among
the first k. Under ties every figure is the expectation over all orders of the tied items (see
:mod:`xmodal.evaluation.metrics`). A caption of another unit is a wrong result, even if its text is
equal to an own caption; equal texts have equal codes, hence are tied with it.

The 95 % intervals are percentiles of a bootstrap over units: queries of one unit are dependent,
and are drawn together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from xmodal.codes import BinaryCodes
from xmodal.data.spill import unit_rows
from xmodal.evaluation.baselines import Baseline, Ranked
from xmodal.evaluation.distance_counts import DistanceCounter
from xmodal.evaluation.metrics import Floats, TieGroups, expected_rank, hit_at
from xmodal.evaluation.search_stages import stage_distances
from xmodal.features.rows import Int64
from xmodal.features.units import Units
from xmodal.index.query_codes import QueryCodes
from xmodal.modality import DIRECTIONS, MODALITIES, Modality
from xmodal.vectors import expected_signs

Stages = Mapping[Modality, QueryCodes]
"""What the stages of a search rank, by modality."""
HIT_CUTS = (1, 5, 10)
"""The k of R@k."""
RESAMPLES = 1000
"""Resamples of the bootstrap."""
PERCENTILES = (2.5, 97.5)
"""Ends of the intervals."""
CHUNK_CELLS = 1 << 21
"""Distances that are computed at once: 8 MB of float32."""
MAX_RANKED_CELLS = 1 << 30
"""Distances other than those of Hamming that are computed in all for one direction."""


@dataclass(frozen=True)
class QueryFigures:
    """Figures of ``q`` queries of one direction, ordered by unit.

    ``hits`` (q, 3): probability of a hit within each of ``HIT_CUTS``. ``rank`` (q,): expected rank
    of the first relevant item. ``unit`` (q,): unit of the query.
    """

    hits: Floats
    rank: Floats
    unit: Int64


def measure_captions(
    units: Units,
    codes: Mapping[Modality, BinaryCodes],
    baselines: Iterable[Baseline] = (),
    *,
    outputs: Mapping[Modality, npt.NDArray[Any]] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Return the figures of one part of the data, in the layout of ``report.json``.

    ``codes``: of the pictures and captions of ``units``, row by row. ``outputs``: of the encoder
    before tanh, (p, bits) and (c, bits). Keys: ``units``, ``pictures``, ``captions``; the figures
    of :func:`caption_figures` of the codes by Hamming distance; the same under ``weighted`` and
    ``vectors``, the stages of a search, under ``outputs``, the cosine of the expected signs in
    float, and, for chance and each of ``baselines``, under ``baselines``.
    """
    features = {modality: units.features(modality) for modality in MODALITIES}
    rows = {"chance": caption_figures(units, constant_codes(units), seed=seed)}
    for baseline in baselines:
        rows[baseline.name] = caption_figures(units, baseline.ranked(features), seed=seed)
    found = {
        "units": len(units),
        "pictures": len(units.image_ids),
        "captions": len(units.text_ids),
        "bits": codes["image"].bits,
        **caption_figures(units, codes, seed=seed),
    }
    if outputs is not None:
        stages: Stages = {m: QueryCodes.of(values) for m, values in outputs.items()}
        without = {m: replace(one, vectors=None) for m, one in stages.items()}
        found["weighted"] = caption_figures(units, without, seed=seed)
        found["vectors"] = caption_figures(units, stages, seed=seed)
        signs = {m: expected_signs(values) for m, values in outputs.items()}
        found["outputs"] = caption_figures(units, signs, seed=seed)
    return found | {"baselines": rows}


def caption_figures(
    units: Units,
    queries: Ranked | Stages,
    database: Ranked | Stages | None = None,
    *,
    seed: int = 0,
) -> dict[str, Any]:
    """Return R@k (shares of 1), median rank and their intervals, in both directions, and rsum.

    ``database`` is by default the same as ``queries``. Keys: ``image_to_text`` and
    ``text_to_image``, each with ``r1``, ``r5``, ``r10``, ``median_rank``; ``rsum``, the sum of the
    six R@k in percent. Beside each figure, ``NAME_interval`` is its 95 % interval [low, high].
    """
    searched = queries if database is None else database
    directions = [
        query_figures(units, source, queries[source], searched[target])
        for source, target in DIRECTIONS
    ]
    names = [*(f"r{k}" for k in HIT_CUTS), "median_rank"]
    point = np.array([[*one.hits.mean(axis=0), np.median(one.rank)] for one in directions])
    resampled = _resampled_figures(directions, len(units), seed)
    intervals = np.percentile(resampled, PERCENTILES, axis=0)
    found: dict[str, Any] = {}
    for row, (source, target) in enumerate(DIRECTIONS):
        figures: dict[str, Any] = {}
        for column, name in enumerate(names):
            figures[name] = float(point[row, column])
            figures[f"{name}_interval"] = intervals[:, row, column].tolist()
        found[f"{source}_to_{target}"] = figures
    rsums = 100 * resampled[:, :, :-1].sum(axis=(1, 2))
    found["rsum"] = float(100 * point[:, :-1].sum())
    found["rsum_interval"] = np.percentile(rsums, PERCENTILES).tolist()
    return found


def constant_codes(units: Units) -> dict[Modality, BinaryCodes]:
    """Return equal codes for all pictures and captions: their figures are those of chance."""
    return {
        modality: BinaryCodes(np.zeros((len(units.features(modality)), 1), np.uint8), 8)
        for modality in MODALITIES
    }


def query_figures(
    units: Units,
    source: Modality,
    queries: BinaryCodes | QueryCodes | npt.NDArray[Any],
    database: BinaryCodes | QueryCodes | npt.NDArray[Any],
) -> QueryFigures:
    """Return the figures of all pictures (captions) of ``units`` as queries.

    ``queries`` has the rows of modality ``source``, ``database`` those of the other one. Codes are
    compared by counts of distances. For anything else distances are computed for some queries at a
    time, and with more than ``MAX_RANKED_CELLS`` of them evenly chosen units are the queries.
    Raises ValueError for a query whose unit has nothing of the other modality.
    """
    target: Modality = "text" if source == "image" else "image"
    offsets, unit_of_query = units.offsets(target), units.unit_of_rows(source)
    empty = np.flatnonzero(np.diff(offsets)[unit_of_query] == 0)
    if len(empty):
        id_ = units.ids[unit_of_query[empty[0]]]
        raise ValueError(f"unit {id_!r} has no {target}, expected at least one")
    if isinstance(queries, BinaryCodes) and isinstance(database, BinaryCodes):
        counter, width = DistanceCounter(database), np.diff(offsets)[unit_of_query].max(initial=0)
        parts = [
            _counted_group(counter, queries[rows], database, offsets, unit_of_query[rows])
            for rows in counter.chunks(len(queries), int(width) * database.packed.shape[1])
        ]
    else:
        chosen = _chosen_queries(unit_of_query, len(units), int(offsets[-1]))
        unit_of_query = unit_of_query[chosen]
        distances = _distances(queries, database, units.text_key if target == "text" else None)
        parts = [
            _first_group(distances(chosen[rows]), offsets, unit_of_query[rows])
            for rows in _chunks(len(chosen), int(offsets[-1]))
        ]
    groups = TieGroups(
        np.concatenate([one.total for one in parts]), np.concatenate([one.gain for one in parts])
    )
    hits = np.stack([hit_at(groups, k) for k in HIT_CUTS], axis=1)
    return QueryFigures(hits, expected_rank(groups), unit_of_query)


def _chosen_queries(unit_of_query: Int64, units: int, database: int) -> Int64:
    """Return the queries to rank by numbers other than Hamming distances.

    All, or those of evenly spaced units, so that at most ``MAX_RANKED_CELLS`` distances are needed.
    """
    share = MAX_RANKED_CELLS / max(1, len(unit_of_query) * database)
    if share >= 1:
        return np.arange(len(unit_of_query))
    chosen = np.zeros(units, np.bool_)
    chosen[np.linspace(0, units - 1, max(1, int(share * units))).astype(np.int64)] = True
    return np.flatnonzero(chosen[unit_of_query])


def _distances(
    queries: BinaryCodes | QueryCodes | npt.NDArray[Any],
    database: BinaryCodes | QueryCodes | npt.NDArray[Any],
    keys: Int64 | None,
) -> Callable[[Int64], npt.NDArray[Any]]:
    """Return a function: rows of queries -> their distances to the whole database, (q, n).

    The distance is the order of a search, or minus the cosine. ``keys`` (n,): rows
    of the database with equal keys are equal. Their cosines are computed once, since a matrix
    product may round equal rows differently, which would break their tie. Raises ValueError for
    codes and vectors together.
    """
    if isinstance(queries, QueryCodes) and isinstance(database, QueryCodes):
        if keys is not None:
            _, first, columns = np.unique(keys, return_index=True, return_inverse=True)
            database = database[first[columns]]
        return stage_distances(queries, database, vectors=queries.vectors is not None)
    if not isinstance(queries, np.ndarray) or not isinstance(database, np.ndarray):
        raise ValueError("codes are compared with vectors, expected two of one kind")
    vectors = -unit_rows(queries)
    if keys is None:
        items = unit_rows(database)
        return lambda rows: vectors[rows] @ items.T
    _, first, columns = np.unique(keys, return_index=True, return_inverse=True)
    distinct = unit_rows(database[first])
    return lambda rows: (vectors[rows] @ distinct.T)[:, columns]


def _counted_group(
    counter: DistanceCounter,
    queries: BinaryCodes,
    database: BinaryCodes,
    offsets: Int64,
    unit_of_query: Int64,
) -> TieGroups:
    """Return the groups of :func:`_first_group` by counts of the Hamming distances."""
    column, present = _own_columns(offsets, unit_of_query)
    different = queries.packed[:, None] ^ database.packed[column]
    own = np.bitwise_count(different).sum(axis=2, dtype=np.int64)
    nearest = own.min(axis=1, keepdims=True)
    counts = counter.counts(queries)[:, 0].astype(np.int64)
    tied = np.take_along_axis(counts, nearest, axis=1)[:, 0]
    before = np.take_along_axis(np.cumsum(counts, axis=1), nearest, axis=1)[:, 0] - tied
    return _two_groups(before, tied, np.count_nonzero((own == nearest) & present, axis=1))


def _first_group(distances: npt.NDArray[Any], offsets: Int64, unit_of_query: Int64) -> TieGroups:
    """Return two groups per query: the items before its first relevant item, and those tied.

    ``distances`` (q, n). The items of unit i are the columns ``offsets[i]:offsets[i + 1]``.
    """
    column, present = _own_columns(offsets, unit_of_query)
    own = np.take_along_axis(distances, column, axis=1)
    nearest = own.min(axis=1, keepdims=True)
    before = np.count_nonzero(distances < nearest, axis=1)
    tied = np.count_nonzero(distances == nearest, axis=1)
    return _two_groups(before, tied, np.count_nonzero((own == nearest) & present, axis=1))


def _own_columns(offsets: Int64, unit_of_query: Int64) -> tuple[Int64, npt.NDArray[np.bool_]]:
    """Return the items of each query's unit, (q, w), and which are not repeated ones."""
    start, end = offsets[unit_of_query], offsets[unit_of_query + 1]
    column = start[:, None] + np.arange(int((end - start).max(initial=0)))
    return np.minimum(column, end[:, None] - 1), column < end[:, None]


def _two_groups(
    before: npt.NDArray[np.integer],
    tied: npt.NDArray[np.integer],
    relevant: npt.NDArray[np.integer],
) -> TieGroups:
    total = np.stack([before, tied], axis=1).astype(np.float64)
    gain = np.stack([np.zeros_like(relevant), relevant], axis=1).astype(np.float64)
    return TieGroups(total, gain)


def _resampled_figures(
    directions: list[QueryFigures], units: int, seed: int
) -> npt.NDArray[np.float64]:
    """Return (resamples, directions, 4) figures of resamples of the units.

    Both directions have the same resamples. A resample draws as many units as there are; the
    figures are weighted by the number of draws of the unit of each query.
    """
    rng = np.random.default_rng(seed)
    counts = [np.bincount(one.unit, minlength=units) for one in directions]
    sums = [
        np.stack([np.bincount(one.unit, column, minlength=units) for column in one.hits.T], axis=1)
        for one in directions
    ]
    blocks = []
    for rows in _chunks(RESAMPLES, max(len(one.rank) for one in directions)):
        drawn = rng.integers(0, units, size=(rows.stop - rows.start, units))
        cell = drawn + (np.arange(len(drawn)) * units)[:, None]
        weights = np.bincount(cell.ravel(), minlength=drawn.size).reshape(drawn.shape)
        figures = [
            np.concatenate(
                [
                    (weights @ sums[place]) / (weights @ counts[place])[:, None],
                    _weighted_median(one.rank, weights[:, one.unit])[:, None],
                ],
                axis=1,
            )
            for place, one in enumerate(directions)
        ]
        blocks.append(np.stack(figures, axis=1))
    return np.concatenate(blocks)


def _weighted_median(values: Floats, weights: Int64) -> Floats:
    """Return the median of values (q,) that occur ``weights`` (resamples, q) times each."""
    order = np.argsort(values)
    cumulated = np.cumsum(weights[:, order], axis=1)
    total = cumulated[:, -1:]
    middle = [np.count_nonzero(cumulated <= (total - odd) // 2, axis=1) for odd in (1, 0)]
    return np.asarray((values[order][middle[0]] + values[order][middle[1]]) / 2)


def _chunks(rows: int, columns: int) -> Iterator[slice]:
    """Yield slices of rows of at most ``CHUNK_CELLS`` cells, at least one row each."""
    step = max(1, CHUNK_CELLS // max(1, columns))
    return (slice(start, min(start + step, rows)) for start in range(0, rows, step))
