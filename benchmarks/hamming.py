"""The hamming query of the server plugin, compared with the exact strategies of the stock server.

    python benchmarks/hamming.py [--quick] [--codes 2000000] [--large 10000000]

Writes results/hamming.md; takes about half an hour, with ``--quick`` minutes and no file. A
development node with the plugin (full JIT, 2 GB of heap) is started. Codes are clustered as in
benchmarks/opensearch.py, in one shard and one segment. Then ``--large`` codes of 64 bits (0: skip)
without a merge of segments: latency, memory, and the first query after a restart of the node.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from harness.opensearch_node import (
    BATCH,
    FILTER,
    SEED,
    TARGET,
    K,
    clustered,
    drop,
    empty_request,
    exact_search,
    filled_index,
    medians,
)
from harness.report import table, write

from xmodal.codes import BinaryCodes
from xmodal.index.documents import DocumentBatch
from xmodal_opensearch.index.store import open_opensearch
from xmodal_opensearch.loading.load import load
from xmodal_opensearch.node.process import Node
from xmodal_opensearch.server_plugin.build import plugin_folder

WARMUP = 300
"""Searches before the measurement, for the JIT."""


def compare(node: Node, n: int, bits: int, rounds: int, notes: Path) -> list[list[object]]:
    """Rows of one code width: each strategy, without and with a filter on half the documents."""
    codes = clustered(n, bits)
    queries = codes[np.random.default_rng([SEED, 3]).permutation(n)[:rounds]]
    index, _ = filled_index(node, "script", codes, notes)
    indices = {"script": index}
    for name in ("knn", "hamming"):
        indices[name] = open_opensearch(
            str(index.handle.address).replace("strategy=script", f"strategy={name}")
        )
    indices["hamming"].handle.server.request(
        "POST", f"/_plugins/_hamming/warmup/{index.handle.name}", doing="warming up"
    )
    for number in range(WARMUP):
        exact_search(indices["hamming"], FILTER if number % 2 else None)(queries[:1])
    expected = index.search(queries[:5], K, target=TARGET, where=FILTER)
    assert indices["hamming"].search(queries[:5], K, target=TARGET, where=FILTER) == expected
    plain = medians(
        {"empty request": empty_request(index)}
        | {name: exact_search(one, None) for name, one in indices.items()},
        queries,
    )
    half = medians({name: exact_search(one, FILTER) for name, one in indices.items()}, queries)
    drop(index)
    for name in ("knn", "hamming"):
        indices[name].handle.server.close()
    rows: list[list[object]] = []
    for name, ms in plain.items():
        per_code = (ms - plain["empty request"]) * 1e6 / n
        rows.append(
            [
                f"{n:,}",
                bits,
                name,
                f"{ms:.1f}",
                "-" if name == "empty request" else f"{plain['script'] / ms:.1f}",
                "-" if name == "empty request" else f"{per_code:.1f}",
                f"{half[name]:.1f}" if name in half else "-",
                f"{half['script'] / half[name]:.1f}" if name in half else "-",
            ]
        )
    return rows


def large(node: Node, n: int, rounds: int, notes: Path) -> str:
    """n codes of 64 bits: latency, memory, first query after a restart."""
    rng = np.random.default_rng([SEED, n])

    def documents() -> Iterator[DocumentBatch]:
        for start in range(0, n, BATCH):
            count = min(BATCH, n - start)
            packed = rng.integers(0, 256, (count, 8), dtype=np.uint8)
            ids = [f"{number:08d}" for number in range(start, start + count)]
            yield DocumentBatch.of(ids, image=BinaryCodes(packed, 64))

    uri = f"opensearch://127.0.0.1:{node.port}/large"
    index = open_opensearch(uri, bits=64, fingerprint="benchmark", create=True)
    started = time.perf_counter()
    load(index, documents(), checkpoints=notes, total=n)
    loaded = time.perf_counter() - started
    queries = BinaryCodes(rng.integers(0, 256, (rounds, 8), dtype=np.uint8), 64)
    first = seconds(lambda: index.search(queries[:1], K, target=TARGET))
    for _ in range(WARMUP // 3):
        index.search(queries[:1], K, target=TARGET)
    times = [
        seconds(lambda row=row: index.search(queries[row : row + 1], K, target=TARGET))  # type: ignore[misc]
        for row in range(rounds)
    ]
    (stats,) = node.get("/_plugins/_hamming/stats")["nodes"].values()
    (memory,) = node.get("/_nodes/stats/jvm")["nodes"].values()
    heap = memory["jvm"]["mem"]["heap_used_in_bytes"] / 1e6
    index.handle.server.close()
    node.restart()
    again = open_opensearch(uri)
    after = seconds(lambda: again.search(queries[:1], K, target=TARGET))
    then = seconds(lambda: again.search(queries[1:2], K, target=TARGET))
    drop(again)
    return table(
        [
            ["measure", "value"],
            ["documents, 64 bits", f"{n:,}"],
            ["loading", f"{n / loaded:,.0f} docs/s"],
            [
                "cache of the plugin",
                f"{stats['size_in_bytes'] / 1e6:.0f} MB in {stats['cache_entries']} entries",
            ],
            ["heap in use, of 2 GB", f"{heap:,.0f} MB"],
            ["first query after loading", f"{1e3 * first:.0f} ms"],
            ["one query, median", f"{1e3 * statistics.median(times):.1f} ms"],
            ["first query after a restart of the node", f"{1e3 * after:.0f} ms"],
            ["second query after a restart", f"{1e3 * then:.1f} ms"],
        ]
    )


def seconds(call: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def main() -> None:
    """Run the benchmark and write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes, write no file")
    parser.add_argument("--codes", type=int, default=2_000_000)
    parser.add_argument("--large", type=int, default=10_000_000)
    args = parser.parse_args()
    n, many = (50_000, 100_000) if args.quick else (args.codes, args.large)
    header = ["codes", "bits", "strategy", "ms", "script / this", "ns per code above empty request"]
    rows: list[list[object]] = [[*header, "ms, filter on half", "script / this"]]
    with tempfile.TemporaryDirectory() as folder:
        notes = Path(folder, "notes")
        plugin = plugin_folder(show=print)
        with Node.start(
            Path(folder, "node"), fast_start=False, heap="2g", extra_plugins=[plugin]
        ) as node:
            version = node.get("/")["version"]["number"]
            for bits in (64, 256):
                rows += compare(node, n, bits, 20 if args.quick else 60, notes)
                print("\n".join(" | ".join(map(str, row)) for row in rows[-4:]), flush=True)
            sections = [(f"One search, k = {K}, time of the client's call, median", table(rows))]
            if many:
                sections.append(("Many codes on one node", large(node, many, 30, notes)))
    write(
        "hamming",
        f"The hamming query in OpenSearch {version}",
        "python benchmarks/hamming.py",
        sections,
        keep=not args.quick,
    )


if __name__ == "__main__":
    main()
