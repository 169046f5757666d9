"""What an index is like and what would be better: measured on this very index, never assumed."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from xmodal.codes import BinaryCodes
from xmodal.data import Progress
from xmodal.errors import IndexFailure, IndexMissing
from xmodal.index import MODALITIES, Modality
from xmodal_opensearch import load, mapping
from xmodal_opensearch import queries as build
from xmodal_opensearch.address import Address
from xmodal_opensearch.mapping import field_of
from xmodal_opensearch.queries import Query
from xmodal_opensearch.self_test import put_self_test
from xmodal_opensearch.server import Server
from xmodal_opensearch.store import OpenSearchIndex, Recall
from xmodal_opensearch.versions import describe
from xmodal_opensearch.ways import WAYS, lack

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
    index.server.request("POST", f"/{index.name}/_refresh", doing="refreshing")
    if load.KEY in index.read_meta():
        out.advice.append(
            "a load was killed here and the settings for loading are still set: run it again, or "
            "xmodal-opensearch doctor --repair"
        )
    for side in MODALITIES:
        found = _side(index, side, progress)
        if found.codes:
            out.sides.append(found)
    for found in out.sides:
        _, asked = index.sample(found.side, ASKED)
        for way, ask in _ways(index, found.side).items():
            out.latencies.append(Latency(way, found.side, _median_ms(index, ask, asked)))
        if index.layout.has_graph:
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
        put_self_test(server, name, bits, layout)
        done.append("the self-test document was stored again")
    with OpenSearchIndex(server, address, bits=bits, encoder=encoder) as index:
        if load.put_back(index):
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
        now = [one for one in exact if one.way == index.way.name and one.side == best.side]
        if now and best.way != index.way.name and best.milliseconds < 0.8 * now[0].milliseconds:
            out.append(
                f"way={best.way} answers in {best.milliseconds:.1f} ms, {index.way.name} in "
                f"{now[0].milliseconds:.1f}: ask with ?way={best.way}"
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
    query: Query = {"bool": {"filter": [index.layout.present(name), *index.filters(None)]}}
    answer = index.server.search(f"/{index.name}/_count", {"query": query}, doing="counting")
    total = int(answer["count"])
    parts: list[BinaryCodes] = []
    read = 0
    for page in index.scan(query, 5000, [name]):
        parts.append(index.layout.codes([hit["_source"][name] for hit in page], index.bits))
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
    for way in WAYS.values():
        if index.layout.name not in way.searches or way.has_graph or lack(way, index.can):
            continue
        if way.build is None:
            out[way.name] = lambda code: build.by_knn(name, code, [], K)
        else:
            made = way.build
            out[way.name] = lambda code, made=made: made(name, code, index.layout, [], None)  # type: ignore[misc]
    if index.layout.has_graph:
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
            index.ask([body])
            if number:  # the first round warms caches
                times.append(1e3 * (time.perf_counter() - started))
    if not times:
        raise IndexFailure(f"{index.address} holds no codes to ask with")
    return statistics.median(times)
