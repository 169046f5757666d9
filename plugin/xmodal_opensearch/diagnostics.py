"""Measurements of an index, and advice: collisions of codes, recall of a graph, latencies."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from xmodal.codes import BinaryCodes
from xmodal.data.dataset import Progress
from xmodal.errors import IndexFailure, IndexMissing
from xmodal.index.query_codes import QueryCodes
from xmodal.modality import MODALITIES, Modality
from xmodal_opensearch.client.address import Address
from xmodal_opensearch.client.server import Server
from xmodal_opensearch.index import mapping
from xmodal_opensearch.index import queries as build
from xmodal_opensearch.index.aliases import describe
from xmodal_opensearch.index.approximate import Recall
from xmodal_opensearch.index.bit_order_check import store_self_test
from xmodal_opensearch.index.comparison import read_stored, source_fields
from xmodal_opensearch.index.queries import Query
from xmodal_opensearch.index.reading import sample_codes
from xmodal_opensearch.index.store import OpenSearchIndex
from xmodal_opensearch.index.strategies import STRATEGIES, Strategy, missing_requirement
from xmodal_opensearch.loading import load

MAX_CODES = 200_000
"""Number of codes of each modality that are read to count collisions."""
K = 10
ROUNDS, QUERIES = 3, 16
LOW_RECALL, LOW_DISTINCT, SLOW_MS = 0.95, 0.5, 100.0
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
    """Median time of one request at the client in ms, by search strategy, or ``graph``."""

    strategy: str
    modality: Modality
    milliseconds: float


@dataclass
class DiagnosticsReport:
    """All measurements; ``advice`` has one line for each recommended change."""

    index: str
    modalities: list[ModalityStats] = field(default_factory=list)
    recalls: list[tuple[Modality, Recall]] = field(default_factory=list)
    latencies: list[Latency] = field(default_factory=list)
    advice: list[str] = field(default_factory=list)


def diagnose(index: OpenSearchIndex, *, progress: Progress | None = None) -> DiagnosticsReport:
    """Measure collisions, recall of the graph, and latency of each strategy for this index."""
    report = DiagnosticsReport(repr(index))
    index.handle.refresh_always()
    if load.KEY in index.handle.read_meta():
        report.advice.append(
            "a load was killed and its index settings are still in effect: repeat the load, or run "
            "xmodal-opensearch doctor --repair"
        )
    for modality in MODALITIES:
        stats = _collisions(index, modality, progress)
        if stats.codes:
            report.modalities.append(stats)
            _measure_searches(index, modality, report)
    if report.modalities:
        report.advice += [*advice(report, index), *missing_parts(index)]
    else:
        report.advice.append("the index is empty: fill it with xmodal-opensearch load")
    return report


def repair(server: Server, address: Address) -> list[str]:
    """Store a missing self-test document, and restore the settings after a killed load.

    Returns one line for each repair. Raises IndexMissing.
    """
    repairs = []
    found = describe(server, address.index)
    if found is None:
        raise IndexMissing(f"no index {address.index} at {address.server}")
    name, content = found
    bits, fingerprint = mapping.read_meta(name, content["mappings"])
    layout = mapping.read_layout(name, bits, content["mappings"], content["settings"])
    ids = {"ids": [mapping.SELF_TEST_ID]}
    answer = server.request("POST", f"/{name}/_mget", ids, doing="reading the self-test document")
    if not answer["docs"][0].get("found"):
        store_self_test(server, name, bits, layout)
        repairs.append("stored the self-test document again")
    with OpenSearchIndex(server, address, bits=bits, fingerprint=fingerprint) as index:
        if load.restore_settings(index):
            repairs.append("restored the settings of before the load")
    return repairs or ["found nothing to repair"]


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


def _latency_advice(latencies: list[Latency], used: str) -> list[str]:
    """Advice on the strategy and the number of shards; ``used`` is the strategy of the index."""
    exact = [latency for latency in latencies if latency.strategy != GRAPH]
    if not exact:
        return []
    lines = []
    best = min(exact, key=lambda latency: latency.milliseconds)
    current = [one for one in exact if (one.strategy, one.modality) == (used, best.modality)]
    if current and best.strategy != used and best.milliseconds < 0.8 * current[0].milliseconds:
        lines.append(
            f"strategy={best.strategy} takes {best.milliseconds:.1f} ms, {used} "
            f"{current[0].milliseconds:.1f} ms: search with ?strategy={best.strategy}"
        )
    if best.milliseconds > SLOW_MS:
        lines.append(
            f"an exact search takes {best.milliseconds:.0f} ms: load a new version with more "
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
    for name, builder in _query_builders(index, modality).items():
        report.latencies.append(Latency(name, modality, _median_ms(index, builder, codes)))
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


def _median_ms(index: OpenSearchIndex, builder: QueryBuilder, codes: BinaryCodes) -> float:
    """Median time in ms of a search for each of ``codes``, over several rounds."""
    times: list[float] = []
    bodies = [build.search_body(builder(codes[row : row + 1]), K) for row in range(len(codes))]
    for number in range(ROUNDS + 1):
        for body in bodies:
            started = time.perf_counter()
            index.handle.search([body])
            if number:  # the first round fills caches
                times.append(1e3 * (time.perf_counter() - started))
    if not times:
        raise IndexFailure(f"{index.handle.address} has no codes to measure with")
    return statistics.median(times)
