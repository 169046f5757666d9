"""Memory, disk, latency and cost of exact Hamming search in OpenSearch, up to a billion codes.

    python benchmarks/sizing.py [--rate 20] [--target 300] [--cores 16] [--memory 64]
                                [--bandwidth 100] [--price 0.7] [--quick]

Writes results/sizing.md in a minute; needs no server. Latencies are those of the model that
opensearch_scale.py fitted on this machine (results/opensearch-scale.json). The plan for a billion
codes is the smallest cluster of which a simulation (harness/cluster_simulation.py) answers
``--rate`` queries a second, 95 % of them within ``--target`` milliseconds.

``--cores``, ``--memory`` (GB), ``--bandwidth`` (GB/s) and ``--price`` (an hour) describe one node.
Bandwidth and price are assumptions, not measured.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from harness.cluster_simulation import Cluster, Outcome, simulate
from harness.report import RESULTS, table, write
from harness.scan_model import ScanModel, load

WIDTHS = (64, 128, 256)
BILLION = 1_000_000_000
MAX_HEAP = 31.0
"""GB; above, references in the heap of Java take 8 bytes."""
CACHE_SHARE = 0.5
"""Share of the heap for the codes: `hamming.breaker.limit`. Merges need room for old and new."""
HOURS_A_MONTH = 730


@dataclass(frozen=True)
class Node:
    """One node: GB of memory, GB/s that it reads from it, and the price of an hour."""

    cores: int
    memory: float
    bandwidth: float
    price: float

    @property
    def cache(self) -> float:
        """GB of codes on the heap, which has at most half of the memory."""
        return CACHE_SHARE * min(MAX_HEAP, self.memory / 2)


@dataclass(frozen=True)
class Plan:
    """A cluster, and its simulated searches."""

    bits: int
    copies: int
    cluster: Cluster
    outcome: Outcome


def disk_bytes(facts: Mapping[str, Any], bits: int) -> float:
    """Bytes of a document on disk with one code of this width, from those of the measured ones."""
    known = sorted((int(width), size) for width, size in facts["disk_bytes_a_document"].items())
    widths, sizes = zip(*known, strict=True)
    return float(np.interp(bits, widths, sizes))


def per_million(models: Mapping[str, ScanModel], facts: Mapping[str, Any]) -> str:
    """Memory, disk and CPU time of a million codes, by width and strategy."""
    header = ["bits", "heap of the plugin, MB", "disk, MB"]
    ways = ("hamming", "script", "knn")
    header += [f"{way}{extra}, ms" for way in ways for extra in ("", ", filter of a tenth")]
    rows: list[list[object]] = [[*header]]
    for bits in WIDTHS:
        row: list[object] = [bits, -(-bits // 64) * 8, f"{disk_bytes(facts, bits):.0f}"]
        for way in ways:
            for kind in ("all", "filter"):
                row.append(f"{models[f'{way}, {kind}, cpu'].scan(1e6, bits):.2f}")
        rows.append(row)
    return table(rows)


def clusters(node: Node, bits: int, copies: int, rate: float) -> Iterator[Cluster]:
    """Clusters by growing size that hold and read the codes; at most a shard for each core."""
    codes = BILLION * -(-bits // 64) * 8 / 1e9
    smallest = max(
        copies,
        math.ceil(codes * copies / node.cache),
        math.ceil(codes * rate / node.bandwidth),
    )
    for nodes in range(smallest, smallest + 200):
        cores = nodes * node.cores // copies
        for shards in sorted({nodes, 2 * nodes, 4 * nodes, cores}):
            if shards <= cores:
                yield Cluster(nodes, node.cores, shards, copies)


def plan(
    model: ScanModel, node: Node, bits: int, copies: int, rate: float, target: float, spread: float
) -> Plan | None:
    """The smallest cluster that meets the target; of equal ones that with the fewest shards."""
    for cluster in clusters(node, bits, copies, rate):
        outcome = simulate(cluster, model, BILLION, bits, rate, spread=spread)
        if outcome.p95 <= target:
            return Plan(bits, copies, cluster, outcome)
    return None


def plan_table(
    plans: list[Plan], model: ScanModel, node: Node, facts: Mapping[str, Any], rate: float
) -> str:
    """Nodes, shards, memory, disk, simulated times, and cost of each plan."""
    header = ["bits", "copies", "nodes", "shards", "codes a shard", "codes a node, GB of heap"]
    header += [
        "disk a node, GB",
        "p50, ms",
        "p95, ms",
        "busy cores",
        "read from memory, GB/s a node",
    ]
    header += ["core seconds a query", "price a month", "price of a million queries"]
    rows: list[list[object]] = [[*header]]
    for one in plans:
        nodes, shards = one.cluster.nodes, one.cluster.shards
        code_bytes = -(-one.bits // 64) * 8
        heap = BILLION * code_bytes * one.copies / nodes / 1e9
        disk = BILLION * disk_bytes(facts, one.bits) * one.copies / nodes / 1e9
        month = nodes * node.price * HOURS_A_MONTH
        row: list[object] = [one.bits, one.copies, nodes, shards, f"{BILLION / shards:,.0f}"]
        row += [f"{heap:.1f}", f"{disk:.0f}", f"{one.outcome.p50:.0f}", f"{one.outcome.p95:.0f}"]
        row += [
            f"{one.outcome.utilisation:.0%}",
            f"{rate * BILLION * code_bytes / nodes / 1e9:.0f}",
        ]
        row += [f"{model.scan(BILLION, one.bits) / 1e3:.1f}", f"{month:,.0f}"]
        row.append(f"{month / (rate * HOURS_A_MONTH * 3600) * 1e6:,.0f}")
        rows.append(row)
    return table(rows)


def load_table(plans: list[Plan], model: ScanModel, spread: float) -> str:
    """Simulated times of the plans without a second copy at several rates."""
    rates = (1, 5, 10, 20, 40)
    rows: list[list[object]] = [["bits", "copies", *(f"{rate}/s: p50, p95, ms" for rate in rates)]]
    for one in plans:
        row: list[object] = [one.bits, one.copies]
        for rate in rates:
            found = simulate(one.cluster, model, BILLION, one.bits, rate, spread=spread)
            row.append(f"{found.p50:.0f}, {found.p95:.0f}" if found.p50 < np.inf else "overloaded")
        rows.append(row)
    return table(rows)


def main() -> None:
    """Compute the plans and write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=20, help="queries a second")
    parser.add_argument("--target", type=float, default=300, help="milliseconds of 95 %%")
    parser.add_argument("--cores", type=int, default=16)
    parser.add_argument("--memory", type=float, default=64, help="GB")
    parser.add_argument("--bandwidth", type=float, default=100, help="GB/s of a node's memory")
    parser.add_argument("--price", type=float, default=0.7, help="of a node and hour")
    parser.add_argument("--quick", action="store_true", help="write no file")
    args = parser.parse_args()
    models, facts = load(RESULTS / "opensearch-scale.json")
    node = Node(args.cores, args.memory, args.bandwidth, args.price)
    model, spread = models["hamming, all, cpu"], float(facts["spread"])
    found = [
        plan(model, node, bits, copies, args.rate, args.target, spread)
        for bits in WIDTHS
        for copies in (1, 2)
    ]
    plans = [one for one in found if one is not None]
    described = (
        f"Nodes of {node.cores} cores and {node.memory:g} GB, of which {node.cache:g} GB are codes "
        f"on the heap; {node.bandwidth:g} GB/s from memory. {args.rate:g} queries a "
        f"second, 95 % within {args.target:g} ms. Price: "
        f"{node.price:g} a node and hour, an example."
    )
    sections = [
        (
            "A million codes: CPU time of one core, without that of a request",
            per_million(models, facts),
        ),
        (
            "A billion codes: the smallest clusters that meet the target, by simulation",
            f"{described}\n\n{plan_table(plans, model, node, facts, args.rate)}",
        ),
        ("The same clusters at other rates", load_table(plans, model, spread)),
    ]
    write("sizing", "Sizing", "python benchmarks/sizing.py", sections, keep=not args.quick)


if __name__ == "__main__":
    main()
