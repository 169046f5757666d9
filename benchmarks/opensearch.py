"""OpenSearch: latency of each search strategy, and throughput of loading.

    python benchmarks/opensearch.py [--quick] [--sizes 10000 100000 1000000] [--graph-up-to N]

Writes results/opensearch.md; takes about an hour, with ``--quick`` minutes and no file. A
development node (full JIT, 2 GB of heap) is started and removed. Codes are clustered (a tenth as
many centres as codes, each bit flipped with probability 1/8), in one shard and one segment. Loading
is compared with plain bulk requests. Not measured: faiss graphs, as the node has no native library.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from harness.opensearch_node import (
    BATCH,
    FILTER,
    SEED,
    TARGET,
    K,
    Search,
    clustered,
    drop,
    empty_request,
    exact_search,
    filled_index,
    medians,
    to_batches,
)
from harness.report import table, write
from opensearchpy import OpenSearch

from xmodal.codes import BinaryCodes
from xmodal.index.documents import DocumentBatch
from xmodal.index.local import HammingIndex
from xmodal_opensearch.client import bulk
from xmodal_opensearch.index.store import OpenSearchIndex, open_opensearch
from xmodal_opensearch.loading.line_building import lines
from xmodal_opensearch.loading.load import load
from xmodal_opensearch.node.process import Node


def graph_search(index: OpenSearchIndex, where: dict[str, Any] | None) -> Search:
    """An approximate search by the HNSW graph; the client measures its recall once."""
    return lambda query: index.search_approximate(query, K, target=TARGET, where=where)


def latency(node: Node, sizes: list[int], rounds: int, graph_up_to: int, notes: Path) -> str:
    """Latency of each strategy, by number and width of codes, with and without a filter."""
    header = [
        "codes",
        "bits",
        "strategy",
        "ms",
        "ms, filter on half",
        "recall@10",
        "load + merge, s",
    ]
    rows: list[list[object]] = [list(header)]
    for bits in (64, 256):
        for n in sizes:
            codes = clustered(n, bits)
            queries = codes[np.random.default_rng([SEED, 1]).permutation(n)[:rounds]]
            found = one_size(node, codes, queries, n <= graph_up_to, notes)
            print("\n".join(" | ".join(map(str, row)) for row in found), flush=True)
            rows += found
    return table(rows)


def one_size(
    node: Node, codes: BinaryCodes, queries: BinaryCodes, with_graph: bool, notes: Path
) -> list[list[object]]:
    """The rows of one number and width of codes."""
    local = HammingIndex(codes.bits)
    for one in to_batches(codes):
        local.add(one)
    made = {name: filled_index(node, name, codes, notes) for name in ("script", "long")}
    if with_graph:
        made["lucene-hnsw"] = filled_index(node, "lucene-hnsw", codes, notes)
    indexes = {name: index for name, (index, _) in made.items()}
    seconds = {name: f"{took:.0f}" for name, (_, took) in made.items()} | {"knn": "as script"}
    by_knn = open_opensearch(
        str(indexes["script"].handle.address).replace("strategy=script", "strategy=knn")
    )

    def searches(where: dict[str, Any] | None) -> dict[str, Search]:
        out = {"local index, no server": exact_search(local, where)}
        out["script"] = exact_search(indexes["script"], where)
        out["knn"] = exact_search(by_knn, where)
        out["long"] = exact_search(indexes["long"], where)
        if with_graph:
            out["lucene-hnsw"] = graph_search(indexes["lucene-hnsw"], where)
        return out

    recall = {}
    if with_graph:
        measured = indexes["lucene-hnsw"].search_approximate(queries[:1], K, target=TARGET)
        recall["lucene-hnsw"] = f"{measured.recall.value:.2f}"
    empty = {"empty request": empty_request(indexes["script"])}
    plain, half = medians(empty | searches(None), queries), medians(searches(FILTER), queries)
    by_knn.handle.server.close()
    for index in indexes.values():
        drop(index)
    return [
        [
            f"{len(codes):,}",
            codes.bits,
            name,
            f"{ms:.1f}",
            f"{half[name]:.1f}" if name in half else "-",
            recall.get(name, "exact" if name in half else "-"),
            seconds.get(name, "-"),
        ]
        for name, ms in plain.items()
    ]


def loading(node: Node, n: int, rounds: int, notes: Path) -> str:
    """Documents with two codes, a caption and two fields: `load`, and plain bulk requests."""
    codes = clustered(n, 64)
    words = "red blue green shoes shirt on the left of a small large cat".split()
    rng = np.random.default_rng([SEED, 2])

    def documents() -> Iterator[DocumentBatch]:
        for start in range(0, n, BATCH):
            part = codes[start : start + BATCH]
            drawn = rng.integers(len(words), size=(len(part), 6))
            captions = [" ".join(words[number] for number in row) for row in drawn]
            fields = [{"text": text, "price": len(text)} for text in captions]
            yield DocumentBatch.of(
                [f"{start + r:08d}" for r in range(len(part))], image=part, text=part, fields=fields
            )

    batches = list(documents())
    client = OpenSearch([{"host": "127.0.0.1", "port": node.port}], pool_maxsize=2)
    ways: dict[str, Callable[[OpenSearchIndex], float]] = {
        "opensearch-py, prepared bodies": lambda index: plain_rate(client, index, batches),
        "xmodal load": lambda index: load_rate(index, batches, notes, 1),
        "xmodal load, 2 processes": lambda index: load_rate(index, batches, notes, 2),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    order = list(ways)
    for number in range(rounds):
        order.reverse()
        for place, name in enumerate(order):
            uri = f"opensearch://127.0.0.1:{node.port}/load-{number}-{place}"
            index = open_opensearch(uri, bits=64, fingerprint="benchmark", create=True)
            rates[name].append(ways[name](index))
            drop(index)
    median = {name: statistics.median(values) for name, values in rates.items()}
    rows: list[list[object]] = [["documents", "rounds", "way", "docs/s", "ratio to the first"]]
    first = median[next(iter(ways))]
    rows += [
        [f"{n:,}", rounds, name, f"{rate:,.0f}", f"{rate / first:.2f}"]
        for name, rate in median.items()
    ]
    return table(rows)


def load_rate(
    index: OpenSearchIndex, batches: list[DocumentBatch], notes: Path, processes: int
) -> float:
    """Documents a second of ``load``."""
    n = sum(map(len, batches))
    started = time.perf_counter()
    load(index, batches, checkpoints=notes, total=n, processes=processes)
    return n / (time.perf_counter() - started)


def plain_rate(client: OpenSearch, index: OpenSearchIndex, batches: list[DocumentBatch]) -> float:
    """Documents a second of plain bulk requests, whose bodies are made before."""
    bodies = [
        b"".join(line.body for line in batch) for batch in bulk.batches(lines(index, batches, {}))
    ]
    server, name = index.handle.server, index.handle.name
    server.request("PUT", f"/{name}/_settings", {"index.refresh_interval": "-1"}, doing="setting")
    started = time.perf_counter()
    with ThreadPoolExecutor(2) as pool:
        sent = [pool.submit(client.bulk, body=body, index=name) for body in bodies]
        answers = [future.result() for future in sent]
    server.request("POST", f"/{name}/_refresh", doing="refreshing")
    seconds = time.perf_counter() - started
    assert not any(answer["errors"] for answer in answers)
    return sum(map(len, batches)) / seconds


def main() -> None:
    """Run the benchmark and write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--only-loading", action="store_true", help="print this table only, write no file"
    )
    parser.add_argument("--quick", action="store_true", help="small sizes, write no file")
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--graph-up-to", type=int, default=100_000, help="no graph for more codes")
    args = parser.parse_args()
    sizes = [5_000] if args.quick else args.sizes
    with tempfile.TemporaryDirectory() as folder:
        notes = Path(folder, "notes")
        with Node.start(Path(folder, "node"), fast_start=False, heap="2g") as node:
            version = node.get("/")["version"]["number"]
            warmup, _ = filled_index(node, "script", clustered(5_000, 64), notes)
            medians({"warmup": exact_search(warmup, None)}, clustered(500, 64))
            drop(warmup)
            bulk_table = loading(
                node, 10_000 if args.quick else 300_000, 2 if args.quick else 5, notes
            )
            if args.only_loading:
                print(bulk_table)
                return
            times = latency(node, sizes, 20 if args.quick else 60, args.graph_up_to, notes)
    write(
        "opensearch",
        f"OpenSearch {version}",
        "python benchmarks/opensearch.py" + (" --quick" if args.quick else ""),
        [
            ("Loading, two workers", bulk_table),
            (f"One search, k = {K}, time of the client's call, median", times),
        ],
        keep=not args.quick,
    )


if __name__ == "__main__":
    main()
