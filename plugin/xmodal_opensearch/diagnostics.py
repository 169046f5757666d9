"""What an index is like and what would be better: measured on this very index, never assumed."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from xmodal.codes import BinaryCodes
from xmodal.data.dataset import Progress
from xmodal.errors import IndexFailure, IndexMissing
from xmodal.modality import MODALITIES, Modality
from xmodal_opensearch.client.address import Address
from xmodal_opensearch.client.server import Server
from xmodal_opensearch.index import mapping
from xmodal_opensearch.index import queries as build
from xmodal_opensearch.index.aliases import describe
from xmodal_opensearch.index.approximate import Recall
from xmodal_opensearch.index.bit_order_check import store_self_test
from xmodal_opensearch.index.mapping import field_of
from xmodal_opensearch.index.queries import Query
from xmodal_opensearch.index.reading import sample_codes
from xmodal_opensearch.index.store import OpenSearchIndex
from xmodal_opensearch.index.strategies import STRATEGIES, missing_requirement
from xmodal_opensearch.loading import load

MOST_READ = 200_000
K = 10
ROUNDS, ASKED = 3, 16
LOW_RECALL, LOW_DISTINCT, SLOW_MS = 0.95, 0.5, 100.0


class Side(NamedTuple):
    """The codes of one side: how many, how many were read, and how they collide."""

    side: Modality
    codes: int
    read: int
    distinct: float
    largest: int


class Latency(NamedTuple):
    """Median milliseconds of one query, as the client sees it, and what it was compared with."""

    way: str
    side: Modality
    milliseconds: float


@dataclass
class Checkup:
    """Everything that was found; ``advice`` says what to do, best first."""

    index: str
    sides: list[Side] = field(default_factory=list)
    recalls: list[tuple[Modality, Recall]] = field(default_factory=list)
    latencies: list[Latency] = field(default_factory=list)
    advice: list[str] = field(default_factory=list)


def examine(index: OpenSearchIndex, *, progress: Progress | None = None) -> Checkup:
    """Measure collisions, recall of the graph, and latency of each way that fits the index."""
    out = Checkup(repr(index))
    index.handle.refresh_always()
    if load.KEY in index.handle.read_meta():
        out.advice.append(
            "a load was killed here and the settings for loading are still set: run it again, or "
            "xmodal-opensearch doctor --repair"
        )
    for side in MODALITIES:
        found = _side(index, side, progress)
        if found.codes:
            out.sides.append(found)
    for found in out.sides:
        _, asked = sample_codes(index.handle, found.side, ASKED)
        for way, ask in _ways(index, found.side).items():
            out.latencies.append(Latency(way, found.side, _median_ms(index, ask, asked)))
        if index.handle.layout.has_graph:
            recall = index.measure_recall(K, target=found.side)
            out.recalls.append((found.side, recall))
    if out.sides:
        out.advice += advice(out, index)
    else:
        out.advice.append("the index is empty: fill it with xmodal-opensearch load")
    return out


def repair(server: Server, address: Address) -> list[str]:
    """Bring back a lost self-test and the settings that a killed load left; say what was done.

    Raises IndexMissing.
    """
    done = []
    found = describe(server, address.index)
    if found is None:
        raise IndexMissing(f"no index {address.index} at {address.server}")
    name, content = found
    bits, encoder = mapping.read_meta(name, content["mappings"])
    layout = mapping.read_layout(name, bits, content["mappings"], content["settings"])
    kept = server.request(
        "POST", f"/{name}/_mget", {"ids": [mapping.SELF_TEST_ID]}, doing="looking"
    )
    if not kept["docs"][0].get("found"):
        store_self_test(server, name, bits, layout)
        done.append("the self-test document was stored again")
    with OpenSearchIndex(server, address, bits=bits, fingerprint=encoder) as index:
        if load.restore_settings(index):
            done.append("the settings are as they were before the load")
    return done or ["nothing was to be repaired"]


def advice(found: Checkup, index: OpenSearchIndex) -> list[str]:
    """What to do, from what was measured."""
    out = []
    for side in found.sides:
        if side.distinct < LOW_DISTINCT:
            out.append(
                f"only {side.distinct:.0%} of the {side.side} codes are distinct, the largest "
                f"group of equal ones has {side.largest:,}: more bits would tell them apart"
            )
    for target, recall in found.recalls:
        if recall.value < LOW_RECALL:
            out.append(
                f"the graph finds {recall.value:.0%} of the true {K} nearest {target} codes: use "
                "search, which is exact, not search_approximate"
            )
    exact = [one for one in found.latencies if one.way != "graph"]
    if exact:
        best = min(exact, key=lambda one: one.milliseconds)
        used = index.handle.strategy.name
        now = [one for one in exact if one.way == used and one.side == best.side]
        if now and best.way != used and best.milliseconds < 0.8 * now[0].milliseconds:
            out.append(
                f"strategy={best.way} answers in {best.milliseconds:.1f} ms, {used} in "
                f"{now[0].milliseconds:.1f}: search with ?strategy={best.way}"
            )
        if best.milliseconds > SLOW_MS:
            out.append(
                f"an exact search takes {best.milliseconds:.0f} ms: load into a new version with "
                "more shards (?shards=N) before you think of a graph"
            )
    return out or ["nothing to mend: exact search is fast here and the codes tell items apart"]


def _side(index: OpenSearchIndex, side: Modality, progress: Progress | None) -> Side:
    """Read the codes of a side (the first 200,000) and count how they collide."""
    name = field_of(side)
    query: Query = {
        "bool": {"filter": [index.handle.layout.present(name), *index.handle.filters(None)]}
    }
    total = index.handle.count(query)
    parts: list[BinaryCodes] = []
    read = 0
    for page in index.handle.scan(query, 5000, [name]):
        parts.append(index.handle.layout.codes([hit["_source"][name] for hit in page], index.bits))
        read += len(page)
        if progress is not None:
            progress(f"{side} codes", read, min(total, MOST_READ))
        if read >= MOST_READ:
            break
    if not parts:
        return Side(side, total, 0, 1.0, 0)
    packed = BinaryCodes.concatenate(parts).packed
    _, counts = np.unique(packed, axis=0, return_counts=True)
    return Side(side, total, read, len(counts) / read, int(counts.max()))


def _ways(index: OpenSearchIndex, side: Modality) -> dict[str, Callable[[BinaryCodes], Query]]:
    """What can be asked of this index on this server: the query of each way."""
    name = field_of(side)
    out: dict[str, Callable[[BinaryCodes], Query]] = {}
    for strategy in STRATEGIES.values():
        if (
            index.handle.layout.name not in strategy.searches
            or strategy.has_graph
            or missing_requirement(strategy, index.handle.capabilities)
        ):
            continue
        if strategy.build is None:
            out[strategy.name] = lambda code: build.by_knn(name, code, [], K)
        else:
            made = strategy.build
            out[strategy.name] = lambda code, made=made: made(
                name, code, index.handle.layout, [], None
            )  # type: ignore[misc]
    if index.handle.layout.has_graph:
        out["graph"] = lambda code: build.by_knn(name, code, [], K)
    return out


def _median_ms(
    index: OpenSearchIndex, ask: Callable[[BinaryCodes], Query], asked: BinaryCodes
) -> float:
    times: list[float] = []
    bodies: Sequence[dict[str, object]] = [
        build.search_body(ask(asked[row : row + 1]), K) | {"_source": False}
        for row in range(len(asked))
    ]
    for number in range(ROUNDS + 1):
        for body in bodies:
            started = time.perf_counter()
            index.handle.search([body])
            if number:  # the first round warms caches
                times.append(1e3 * (time.perf_counter() - started))
    if not times:
        raise IndexFailure(f"{index.handle.address} holds no codes to ask with")
    return statistics.median(times)
