"""OpenSearch: latency of each way to search, and loading against bare bulk requests, in one run.

    python benchmarks/opensearch.py [--quick] [--sizes 10000 100000 1000000] [--no-graph-above N]

A development node is started for it (full JIT, 2 GB of heap) and thrown away. Codes are clustered
(a tenth as many centres as codes, each bit flipped with probability 1/8), one shard, one segment.
Faiss' graph is left out: the node has no native library.
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
from harness.report import table, write
from opensearchpy import OpenSearch

from xmodal.codes import BinaryCodes
from xmodal.hamming import HammingIndex
from xmodal.index import Addition
from xmodal_opensearch import bulk
from xmodal_opensearch.load import lines, load
from xmodal_opensearch.node import Node
from xmodal_opensearch.store import OpenSearchIndex, open_opensearch

SEED = 0
K = 10
PART = 20_000
SIDE = "image"
FILTER = {"part": 1}


def clustered(n: int, bits: int) -> BinaryCodes:
    """Codes around centres, so that neighbours are near, as learned codes have them."""
    rng = np.random.default_rng([SEED, n, bits])
    centres = rng.integers(0, 2, (max(1, n // 10), bits), dtype=np.uint8)
    out = np.empty((n, bits // 8), dtype=np.uint8)
    for start in range(0, n, PART):
        count = min(PART, n - start)
        chosen = centres[rng.integers(len(centres), size=count)]
        flipped = chosen ^ (rng.random((count, bits)) < 0.125)
        out[start : start + count] = np.packbits(flipped, axis=1)
    return BinaryCodes(out, bits)


def additions(codes: BinaryCodes) -> Iterator[Addition]:
    """Documents with an image code and one field to filter by."""
    for start in range(0, len(codes), PART):
        part = codes[start : start + PART]
        rows = range(start, start + len(part))
        yield Addition([f"{n:08d}" for n in rows], part, None, [{"part": n % 2} for n in rows])


def filled(node: Node, way: str, codes: BinaryCodes, notes: Path) -> tuple[OpenSearchIndex, float]:
    """A new index with all codes in one segment, and how many seconds that took."""
    name = f"bench-{way}-{codes.bits}-{len(codes)}"
    uri = f"opensearch://127.0.0.1:{node.port}/{name}?way={way}"
    index = open_opensearch(uri, bits=codes.bits, encoder="benchmark", create=True)
    started = time.perf_counter()
    load(index, additions(codes), notes=notes, total=len(codes))
    index.server.request(
        "POST", f"/{index.name}/_forcemerge", doing="merging", timeout=3600, max_num_segments=1
    )
    index.refresh()
    return index, time.perf_counter() - started


def drop(index: OpenSearchIndex) -> None:
    """Remove it."""
    index.server.request("DELETE", f"/{index.name}", doing="deleting")
    index.server.close()


def medians(ways: dict[str, Callable[[BinaryCodes], Any]], asked: BinaryCodes) -> dict[str, float]:
    """Median milliseconds of each way, asked in turn, after a round that is not counted."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(len(asked)):
        for name, ask in ways.items():
            query = asked[number : number + 1]
            started = time.perf_counter()
            ask(query)
            if number >= len(asked) // 5:
                times[name].append(1e3 * (time.perf_counter() - started))
    return {name: statistics.median(some) for name, some in times.items()}


Ask = Callable[[BinaryCodes], object]


def searching(index: OpenSearchIndex | HammingIndex, where: dict[str, Any] | None) -> Ask:
    """The whole of a search, as a user's program sees it."""
    return lambda query: index.search(query, K, target=SIDE, where=where)


def asking_the_graph(index: OpenSearchIndex, where: dict[str, Any] | None) -> Ask:
    """The same, by the graph; its recall is measured once and remembered."""
    return lambda query: index.search_approximate(query, K, target=SIDE, where=where)


def asking_nothing(index: OpenSearchIndex) -> Ask:
    """What a request costs that finds nothing."""
    nothing = {"size": 0, "query": {"match_none": {}}}
    return lambda query: index.ask([nothing])


def latency(node: Node, sizes: list[int], rounds: int, graph_up_to: int, notes: Path) -> str:
    """Each way at each size and width, without and with a filter over half of the documents."""
    header = ["codes", "bits", "way", "ms", "ms, half filtered out", "recall@10", "load + merge, s"]
    rows: list[list[object]] = [list(header)]
    for bits in (64, 256):
        for n in sizes:
            codes = clustered(n, bits)
            asked = codes[np.random.default_rng([SEED, 1]).permutation(n)[:rounds]]
            found = one_size(node, codes, asked, n <= graph_up_to, notes)
            print("\n".join(" | ".join(map(str, row)) for row in found), flush=True)
            rows += found
    return table(rows)


def one_size(
    node: Node, codes: BinaryCodes, asked: BinaryCodes, with_graph: bool, notes: Path
) -> list[list[object]]:
    """The rows of one number and width of codes."""
    local = HammingIndex(codes.bits)
    for one in additions(codes):
        local.add(**one._asdict())
    made = {way: filled(node, way, codes, notes) for way in ("script", "long")}
    if with_graph:
        made["lucene-hnsw"] = filled(node, "lucene-hnsw", codes, notes)
    indexes = {way: index for way, (index, _) in made.items()}
    seconds = {way: f"{took:.0f}" for way, (_, took) in made.items()} | {"knn": "as script"}
    by_knn = open_opensearch(str(indexes["script"].address).replace("way=script", "way=knn"))

    def ways(where: dict[str, Any] | None) -> dict[str, Ask]:
        out = {"local index, no server": searching(local, where)}
        out["script"] = searching(indexes["script"], where)
        out["knn"] = searching(by_knn, where)
        out["long"] = searching(indexes["long"], where)
        if with_graph:
            out["lucene-hnsw"] = asking_the_graph(indexes["lucene-hnsw"], where)
        return out

    recall = {}
    if with_graph:
        measured = indexes["lucene-hnsw"].search_approximate(asked[:1], K, target=SIDE)
        recall["lucene-hnsw"] = f"{measured.recall.value:.2f}"
    empty = {"empty request": asking_nothing(indexes["script"])}
    plain, half = medians(empty | ways(None), asked), medians(ways(FILTER), asked)
    by_knn.server.close()
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
    """Whole documents (two codes, a caption, two fields), against the same bodies sent bare."""
    codes = clustered(n, 64)
    words = "red blue green shoes shirt on the left of a small large cat".split()
    rng = np.random.default_rng([SEED, 2])

    def documents() -> Iterator[Addition]:
        for start in range(0, n, PART):
            part = codes[start : start + PART]
            chosen = rng.integers(len(words), size=(len(part), 6))
            captions = [" ".join(words[one] for one in row) for row in chosen]
            fields = [{"text": text, "price": len(text)} for text in captions]
            yield Addition([f"{start + r:08d}" for r in range(len(part))], part, part, fields)

    every = list(documents())
    client = OpenSearch([{"host": "127.0.0.1", "port": node.port}], pool_maxsize=2)
    ours, bare = [], []
    for number in range(rounds):
        for way in ("ours", "bare") if number % 2 == 0 else ("bare", "ours"):
            uri = f"opensearch://127.0.0.1:{node.port}/load-{way}-{number}"
            index = open_opensearch(uri, bits=64, encoder="benchmark", create=True)
            if way == "ours":
                started = time.perf_counter()
                load(index, every, notes=notes, total=n)
                ours.append(n / (time.perf_counter() - started))
            else:
                bodies = [
                    b"".join(line.body for line in batch)
                    for batch in bulk.batches(lines(index, every, {}))
                ]
                settings = {"index.refresh_interval": "-1"}
                index.server.request("PUT", f"/{index.name}/_settings", settings, doing="setting")
                started = time.perf_counter()
                with ThreadPoolExecutor(2) as pool:
                    sent = [pool.submit(client.bulk, body=one, index=index.name) for one in bodies]
                    answers = [one.result() for one in sent]
                index.server.request("POST", f"/{index.name}/_refresh", doing="refreshing")
                bare.append(n / (time.perf_counter() - started))
                assert not any(answer["errors"] for answer in answers)
            drop(index)
    mine, theirs = statistics.median(ours), statistics.median(bare)
    return table(
        [
            ["documents", "rounds", "xmodal load, docs/s", "opensearch-py, bodies ready", "ratio"],
            [f"{n:,}", rounds, f"{mine:,.0f}", f"{theirs:,.0f}", f"{mine / theirs:.2f}"],
        ]
    )


def main() -> None:
    """Print everything and write results/opensearch.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only-loading", action="store_true", help="print that table, keep none")
    parser.add_argument("--quick", action="store_true", help="smaller sizes, for a look")
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--graph-up-to", type=int, default=100_000, help="larger ones are skipped")
    told = parser.parse_args()
    sizes = [5_000] if told.quick else told.sizes
    with tempfile.TemporaryDirectory() as folder:
        notes = Path(folder, "notes")
        with Node.start(Path(folder, "node"), quick=False, heap="2g") as node:
            version = node.get("/")["version"]["number"]
            warm, _ = filled(node, "script", clustered(5_000, 64), notes)
            medians({"warm": searching(warm, None)}, clustered(500, 64))
            drop(warm)
            bulk_table = loading(
                node, 10_000 if told.quick else 300_000, 2 if told.quick else 5, notes
            )
            if told.only_loading:
                print(bulk_table)
                return
            times = latency(node, sizes, 20 if told.quick else 60, told.graph_up_to, notes)
    write(
        "opensearch",
        f"OpenSearch {version}",
        "python benchmarks/opensearch.py" + (" --quick" if told.quick else ""),
        [
            ("Loading, two workers", bulk_table),
            (f"One search, k = {K}, whole call of the client, median", times),
        ],
        keep=not told.quick,
    )


if __name__ == "__main__":
    main()
