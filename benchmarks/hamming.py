"""The hamming query inside the server, against the stock exact ways, on one index in one run.

    python benchmarks/hamming.py [--quick] [--codes 2000000] [--large 10000000]

A development node with the plugin is started (full JIT, 2 GB of heap). Codes are clustered as in
benchmarks/opensearch.py, one shard, one segment. Then ``--large`` codes of 64 bits (0: none), in as
many segments as loading left: latency, memory, and the first query after a restart of the node.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from harness.report import table, write
from opensearch import FILTER, PART, SIDE, K, asking_nothing, clustered, drop, filled, medians

from xmodal.codes import BinaryCodes
from xmodal.index import Addition
from xmodal_opensearch.load import load
from xmodal_opensearch.node import Node
from xmodal_opensearch.server_plugin import plugin_folder
from xmodal_opensearch.store import OpenSearchIndex, open_opensearch

SEED = 0
WARM = 300


def whole(index: OpenSearchIndex, where: dict[str, Any] | None) -> Callable[[BinaryCodes], object]:
    """A search as a user's program makes it."""
    return lambda query: index.search(query, K, target=SIDE, where=where)


def against_stock(node: Node, n: int, bits: int, rounds: int, notes: Path) -> list[list[object]]:
    """Rows of one width: each way clean and with a filter over half of the documents."""
    codes = clustered(n, bits)
    asked = codes[np.random.default_rng([SEED, 3]).permutation(n)[:rounds]]
    index, _ = filled(node, "script", codes, notes)
    ways = {"script": index}
    for way in ("knn", "hamming"):
        ways[way] = open_opensearch(str(index.address).replace("way=script", f"way={way}"))
    ways["hamming"].server.request("POST", f"/{index.name}/_plugins/_hamming/warm", doing="warming")
    for number in range(WARM):  # the JIT compiles what is asked often
        whole(ways["hamming"], FILTER if number % 2 else None)(asked[:1])
    want = index.search(asked[:5], K, target=SIDE, where=FILTER)
    assert ways["hamming"].search(asked[:5], K, target=SIDE, where=FILTER) == want
    plain = medians(
        {"empty request": asking_nothing(index)}
        | {way: whole(one, None) for way, one in ways.items()},
        asked,
    )
    half = medians({way: whole(one, FILTER) for way, one in ways.items()}, asked)
    drop(index)
    for way in ("knn", "hamming"):
        ways[way].server.close()
    rows: list[list[object]] = []
    for way, ms in plain.items():
        per_code = (ms - plain["empty request"]) * 1e6 / n
        rows.append(
            [
                f"{n:,}",
                bits,
                way,
                f"{ms:.1f}",
                "-" if way == "empty request" else f"{plain['script'] / ms:.1f}",
                "-" if way == "empty request" else f"{per_code:.1f}",
                f"{half[way]:.1f}" if way in half else "-",
                f"{half['script'] / half[way]:.1f}" if way in half else "-",
            ]
        )
    return rows


def large(node: Node, n: int, rounds: int, notes: Path) -> str:
    """Many codes of 64 bits: latency, memory, and what a restart costs."""
    rng = np.random.default_rng([SEED, n])

    def documents() -> Iterator[Addition]:
        for start in range(0, n, PART):
            count = min(PART, n - start)
            packed = rng.integers(0, 256, (count, 8), dtype=np.uint8)
            ids = [f"{number:08d}" for number in range(start, start + count)]
            yield Addition(ids, BinaryCodes(packed, 64), None, [{}] * count)

    uri = f"opensearch://127.0.0.1:{node.port}/large"
    index = open_opensearch(uri, bits=64, encoder="benchmark", create=True)
    started = time.perf_counter()
    load(index, documents(), notes=notes, total=n)
    loaded = time.perf_counter() - started
    asked = BinaryCodes(rng.integers(0, 256, (rounds, 8), dtype=np.uint8), 64)
    first = seconds(lambda: index.search(asked[:1], K, target=SIDE))
    for _ in range(WARM // 3):
        index.search(asked[:1], K, target=SIDE)
    times = [
        seconds(lambda row=row: index.search(asked[row : row + 1], K, target=SIDE))  # type: ignore[misc]
        for row in range(rounds)
    ]
    told = node.get("/_plugins/_hamming/stats")["nodes"]
    (stats,) = told.values()
    (memory,) = node.get("/_nodes/stats/jvm")["nodes"].values()
    heap = memory["jvm"]["mem"]["heap_used_in_bytes"] / 1e6
    index.server.close()
    node.restart()
    again = open_opensearch(uri)
    after = seconds(lambda: again.search(asked[:1], K, target=SIDE))
    then = seconds(lambda: again.search(asked[1:2], K, target=SIDE))
    drop(again)
    return table(
        [
            ["what", "figure"],
            ["documents, 64 bits", f"{n:,}"],
            ["loaded", f"{n / loaded:,.0f} docs/s"],
            ["columns in memory", f"{stats['size_in_bytes'] / 1e6:.0f} MB in {stats['columns']}"],
            ["heap in use, of 2 GB", f"{heap:,.0f} MB"],
            ["first query after loading", f"{1e3 * first:.0f} ms"],
            ["one query, median", f"{1e3 * statistics.median(times):.1f} ms"],
            ["first query after a restart of the node", f"{1e3 * after:.0f} ms"],
            ["the next one", f"{1e3 * then:.1f} ms"],
        ]
    )


def seconds(what: Callable[[], object]) -> float:
    """How long it takes."""
    started = time.perf_counter()
    what()
    return time.perf_counter() - started


def main() -> None:
    """Print everything and write results/hamming.md; ``--quick`` prints alone."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="smaller sizes, for a look")
    parser.add_argument("--codes", type=int, default=2_000_000)
    parser.add_argument("--large", type=int, default=10_000_000)
    told = parser.parse_args()
    n, many = (50_000, 100_000) if told.quick else (told.codes, told.large)
    header = ["codes", "bits", "way", "ms", "script / this", "ns a code above empty"]
    rows: list[list[object]] = [[*header, "ms, half filtered out", "script / this"]]
    with tempfile.TemporaryDirectory() as folder:
        notes = Path(folder, "notes")
        plugin = plugin_folder(show=print)
        with Node.start(
            Path(folder, "node"), quick=False, heap="2g", extra_plugins=[plugin]
        ) as node:
            version = node.get("/")["version"]["number"]
            for bits in (64, 256):
                rows += against_stock(node, n, bits, 20 if told.quick else 60, notes)
                print("\n".join(" | ".join(map(str, row)) for row in rows[-4:]), flush=True)
            sections = [(f"One search, k = {K}, whole call of the client, median", table(rows))]
            if many:
                sections.append(("Many codes on one node", large(node, many, 30, notes)))
    write(
        "hamming",
        f"The hamming query in OpenSearch {version}",
        "python benchmarks/hamming.py",
        sections,
        keep=not told.quick,
    )


if __name__ == "__main__":
    main()
