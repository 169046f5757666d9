"""Measurements of an index, and advice: collisions of codes, recall of a graph, latencies.

Latencies are compared in pairs: each query is sent with every strategy in turn, several times, and
the fastest time of each counts, because other load of the machine only adds time. A strategy is
faster if it is by a margin for so many queries that chance is excluded by a sign test.
"""

from __future__ import annotations

import math
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from xmodal.codes import BinaryCodes
from xmodal.data.progress import Progress
from xmodal.errors import IndexFailure, ServerFailure
from xmodal.index.query_codes import QueryCodes
from xmodal.modality import MODALITIES, Modality
from xmodal_opensearch.index import queries as build
from xmodal_opensearch.index.approximate import Recall
from xmodal_opensearch.index.comparison import read_stored, source_fields
from xmodal_opensearch.index.queries import Query
from xmodal_opensearch.index.reading import sample_codes
from xmodal_opensearch.index.store import OpenSearchIndex
from xmodal_opensearch.index.strategies import STRATEGIES, Strategy, missing_requirement

MAX_CODES = 200_000
"""Number of codes of each modality that are read to count collisions."""
K = 10
QUERIES = 16
ROUNDS, MIN_ROUNDS, TIME_LIMIT = 7, 3, 10.0
"""Rounds of the measurement of a modality; after the time limit (seconds) the least number."""
LOW_RECALL, LOW_DISTINCT, SLOW_MS = 0.95, 0.5, 100.0
MARGIN, SIGNIFICANCE = 0.8, 0.001
"""A faster strategy takes at most this part of the time; probability that it does so by chance."""
GRAPH = "graph"

QueryBuilder = Callable[[BinaryCodes], Query]


class ModalityStats(NamedTuple):
    """Codes of one modality: their number, how many were read, and collisions among these.

    ``distinct``: distinct codes / read codes. ``largest_group``: read codes that are equal to the
    most frequent one.
    """

    modality: Modality
    codes: int
    read: int
    distinct: float
    largest_group: int


class Latency(NamedTuple):
    """Times in ms of each query at the client by a search strategy, or ``graph``.

    A time is the fastest one of several requests.
    """

    strategy: str
    modality: Modality
    times: tuple[float, ...]

    @property
    def milliseconds(self) -> float:
        """Median of the queries."""
        return statistics.median(self.times)


@dataclass
class DiagnosticsReport:
    """All measurements; ``advice`` has one line for each recommended change.

    ``comparisons``: one line for each strategy that is not used.
    """

    index: str
    modalities: list[ModalityStats] = field(default_factory=list)
    recalls: list[tuple[Modality, Recall]] = field(default_factory=list)
    latencies: list[Latency] = field(default_factory=list)
    comparisons: list[str] = field(default_factory=list)
    advice: list[str] = field(default_factory=list)


def diagnose(index: OpenSearchIndex, *, progress: Progress | None = None) -> DiagnosticsReport:
    """Measure collisions, recall of the graph, and latency of each strategy for this index."""
    report = DiagnosticsReport(repr(index))
    try:
        index.handle.refresh_always()
    except ServerFailure as error:
        if error.status != 403:
            raise
        report.advice.append("new documents may be missing: this user may not refresh the index")
    for modality in MODALITIES:
        stats = _collisions(index, modality, progress)
        if stats.codes:
            report.modalities.append(stats)
            _measure_searches(index, modality, report)
    report.comparisons = compare_strategies(report.latencies, index.handle.strategy.name)
    if report.modalities:
        report.advice += [*advice(report, index), *missing_parts(index)]
    else:
        report.advice.append("the index is empty: fill it with xmodal-opensearch load")
    return report


def advice(report: DiagnosticsReport, index: OpenSearchIndex) -> list[str]:
    """Return the recommendations that follow from the measurements, at least one line."""
    lines = [
        f"only {stats.distinct:.0%} of the {stats.modality} codes are distinct, the largest group "
        f"of equal codes has {stats.largest_group:,}: use more bits"
        for stats in report.modalities
        if stats.distinct < LOW_DISTINCT
    ]
    lines += [
        f"the graph finds {recall.value:.0%} of the {K} nearest {target} codes: use search, which "
        "is exact, instead of search_approximate"
        for target, recall in report.recalls
        if recall.value < LOW_RECALL
    ]
    lines += _latency_advice(report.latencies, index.handle.strategy.name)
    return lines or ["no change recommended: exact search is fast, and most codes are distinct"]


def missing_parts(index: OpenSearchIndex) -> list[str]:
    """Return what an index lacks that searches use, one line each."""
    handle = index.handle
    lines = []
    if handle.dim is None:
        lines.append(
            "the documents have no vectors, so the second stage of searches is left out: load them "
            "again with an encoder that has vectors, into a new version (--new-version)"
        )
    if not (handle.has_words or handle.enriched):
        lines.append(
            "an earlier version made this index, without words for BM25: full-text search uses the "
            "server's analyzer; load a new version (--new-version)"
        )
    return lines


def is_faster(times: Sequence[float], than: Sequence[float]) -> bool:
    """Return whether ``times`` are faster by the margin; both have one time for each query.

    One-sided sign test: the probability of so many faster queries if half of them were expected.
    """
    count = len(times)
    faster = sum(a <= MARGIN * b for a, b in zip(times, than, strict=True))
    by_chance = sum(math.comb(count, n) for n in range(faster, count + 1)) / 2**count
    return count > 0 and by_chance < SIGNIFICANCE


def compare_strategies(latencies: Sequence[Latency], used: str) -> list[str]:
    """Return one line for each other exact strategy: faster than ``used``, or no difference."""
    times: dict[str, list[float]] = {}
    for latency in latencies:
        if latency.strategy != GRAPH:
            times.setdefault(latency.strategy, []).extend(latency.times)
    own = times.pop(used, [])
    lines = []
    for strategy, others in times.items():
        if len(others) != len(own):
            continue
        numbers = f"{statistics.median(others):.1f} and {statistics.median(own):.1f} ms"
        if is_faster(others, own):
            lines.append(f"strategy={strategy} is faster than {used} ({numbers})")
        elif is_faster(own, others):
            lines.append(f"strategy={strategy} is slower than {used} ({numbers})")
        else:
            lines.append(f"strategy={strategy}: no difference from {used} ({numbers})")
    return lines


def _latency_advice(latencies: Sequence[Latency], used: str) -> list[str]:
    """Advice on the strategy and the number of shards; ``used`` is the strategy of the index."""
    lines = [
        f"{line}: search with ?{line.split()[0]}"
        for line in compare_strategies(latencies, used)
        if " is faster " in line
    ]
    exact = [latency.milliseconds for latency in latencies if latency.strategy != GRAPH]
    if exact and min(exact) > SLOW_MS:
        lines.append(
            f"an exact search takes {min(exact):.0f} ms: load a new version with more "
            "shards (?shards=N) before you use a graph"
        )
    return lines


def _collisions(
    index: OpenSearchIndex, modality: Modality, progress: Progress | None
) -> ModalityStats:
    """Read the codes of a modality (at most 200,000) and count equal ones."""
    present = build.present(modality, index.handle.layout)
    query: Query = {"bool": {"filter": [present, *index.handle.filters(None)]}}
    total = index.handle.count(query)
    parts: list[BinaryCodes] = []
    read = codes = 0
    handle = index.handle
    for page in handle.scan(query, 5000, source_fields(modality, vectors=False)):
        sources = [hit["_source"] for hit in page]
        parts.append(read_stored(sources, modality, handle.layout, handle.bits).codes)
        read += len(page)
        codes += len(parts[-1])
        if progress is not None:
            progress(f"{modality} codes", read, min(total, MAX_CODES))
        if codes >= MAX_CODES:
            break
    if not parts:
        return ModalityStats(modality, total, 0, 1.0, 0)
    packed = BinaryCodes.concatenate(parts).packed
    _, counts = np.unique(packed, axis=0, return_counts=True)
    # With several codes per document, the number of unread ones is estimated.
    all_codes = codes if read >= total else round(codes * total / read)
    return ModalityStats(modality, all_codes, codes, len(counts) / codes, int(counts.max()))


def _measure_searches(
    index: OpenSearchIndex, modality: Modality, report: DiagnosticsReport
) -> None:
    """Add latencies, and the recall of the graph, for searches of ``modality`` to ``report``."""
    _, codes = sample_codes(index.handle, modality, QUERIES)
    builders = _query_builders(index, modality)
    report.latencies += _measure_latencies(index, modality, builders, codes)
    if index.handle.layout.has_graph:
        report.recalls.append((modality, index.measure_recall(K, target=modality)))


def _query_builders(index: OpenSearchIndex, modality: Modality) -> dict[str, QueryBuilder]:
    """Return the query builder of each strategy that fits the index and the server."""
    layout = index.handle.layout
    builders: dict[str, QueryBuilder] = {
        strategy.name: _query_builder(strategy, index, modality)
        for strategy in STRATEGIES.values()
        if layout.name in strategy.searches
        and not strategy.has_graph
        and not missing_requirement(strategy, index.handle.capabilities)
    }
    if layout.has_graph:
        builders[GRAPH] = lambda code: build.by_knn_all(modality, code, layout, [], K)
    return builders


def _query_builder(strategy: Strategy, index: OpenSearchIndex, modality: Modality) -> QueryBuilder:
    layout, builder = index.handle.layout, strategy.build
    if builder is None:
        nested = index.handle.queries_nested(modality)
        return lambda code: build.by_knn_all(modality, code, layout, [], K, nested=nested)
    return lambda code: build.by_all(builder, modality, QueryCodes(code), layout, [])


def _measure_latencies(
    index: OpenSearchIndex,
    modality: Modality,
    builders: Mapping[str, QueryBuilder],
    codes: BinaryCodes,
) -> list[Latency]:
    """Send each query with every strategy, in random order, in several rounds."""
    if not len(codes):
        raise IndexFailure(f"{index.handle.address} has no codes to measure with")
    rows = range(len(codes))
    requests = [
        (name, row, build.search_body(builder(codes[row : row + 1]), K))
        for row in rows
        for name, builder in builders.items()
    ]
    fastest = {(name, row): math.inf for name, row, _ in requests}
    order = random.Random(0)
    until = time.perf_counter() + TIME_LIMIT
    for number in range(ROUNDS + 1):
        order.shuffle(requests)
        requests.sort(key=lambda one: one[1])  # the strategies of a query one after the other
        for name, row, body in requests:
            started = time.perf_counter()
            index.handle.search([body])
            if number:  # the first round fills caches
                taken = 1e3 * (time.perf_counter() - started)
                fastest[name, row] = min(taken, fastest[name, row])
        if number >= MIN_ROUNDS and time.perf_counter() > until:
            break
    return [Latency(name, modality, tuple(fastest[name, row] for row in rows)) for name in builders]
