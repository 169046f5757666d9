"""Millions of codes on one OpenSearch node: latency, memory, disk, and a model that predicts them.

    python benchmarks/opensearch_scale.py [--work FOLDER] [--sizes 64:1,5,10,20 128:1 256:1,5]
                                          [--rounds 150] [--slow-rounds 30] [--quick]

Writes results/opensearch-scale.md and, for sizing.py, results/opensearch-scale.json. Sizes are in
millions of codes; the first size of each width is 1: the model is fitted to these rows, and to
those of 1,000 and 100,000 codes, alone. The documents are loaded once and kept in ``--work``, which
takes an hour on 2 cores and 3 GB of disk; then the program takes 15 minutes. ``--load-only`` stops
there. ``--quick``: thousands in place of millions, in a temporary folder, no file.

A development node (full JIT) with the hamming plugin is started; each index has one shard and one
segment. Stock strategies search the same index. All searches of a round are single requests in
turn over all indexes, so that no index stays in the caches of the processor. CPU: time of all
threads of the server during the request, which other programs on the machine change less.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from harness.cluster_simulation import Cluster, simulate
from harness.opensearch_node import TARGET, K
from harness.report import RESULTS, table, write
from harness.scale_index import FILTER, Fixture, Loaded, random_codes
from harness.scan_model import FEWEST, ScanModel, deviation, percentile, save

from xmodal.codes import BinaryCodes
from xmodal_opensearch.index.store import OpenSearchIndex, open_opensearch
from xmodal_opensearch.node.process import Node
from xmodal_opensearch.server_plugin.build import plugin_folder

WAYS = ("hamming", "script", "knn")
SIZES = ("64:1,5,10,20", "128:1", "256:1,5")
QUICK = ("64:1,2", "256:1")
HEAP = "2g"
WARMUP = 60
"""Searches of each strategy before the measurement, for the JIT."""
QUERIES = 1_000
FEW = {"few": FEWEST, "some": 100_000}
"""Codes of the smallest indexes, to which the model is fitted, too."""
OFTEN = 3
"""Searches of each round in the indexes to which the model is fitted."""
Search = Callable[[BinaryCodes], object]


class Cell(NamedTuple):
    """One row of the table."""

    way: str
    bits: int
    codes: int
    filtered: bool


@dataclass
class Samples:
    """Milliseconds of the client's call, and of the server's threads."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def summary(self) -> dict[str, float]:
        """Median, 95th percentile, and median of the CPU time."""
        return {
            "p50": percentile(self.wall, 50),
            "p95": percentile(self.wall, 95),
            "cpu": percentile(self.cpu, 50),
        }


@dataclass(frozen=True)
class Opened:
    """An index, opened with each strategy. ``heap``, ``disk``: bytes; ``warm``: seconds."""

    loaded: Loaded
    ways: Mapping[str, OpenSearchIndex]
    heap: int
    disk: int
    warm: float


def open_index(node: Node, loaded: Loaded) -> Opened:
    """Open an index, load its codes into the plugin's cache, and measure its size."""
    uri = f"opensearch://127.0.0.1:{node.port}/{loaded.name}"
    ways = {way: open_opensearch(f"{uri}?strategy={way}") for way in WAYS}
    before = cache_bytes(node)
    started = time.perf_counter()
    server = ways["hamming"].handle.server
    doing = "warming up"
    server.request("POST", f"/_plugins/_hamming/warmup/{loaded.name}", doing=doing, timeout=600)
    warm = time.perf_counter() - started
    stats = node.get(f"/{loaded.name}/_stats/store,segments")["_all"]["primaries"]
    if stats["segments"]["count"] != 1:
        raise RuntimeError(f"{loaded.name} has {stats['segments']['count']} segments, expected 1")
    heap, disk = cache_bytes(node) - before, stats["store"]["size_in_bytes"]
    return Opened(loaded, ways, heap, disk, warm)


def cache_bytes(node: Node) -> int:
    """Bytes of the plugin's cache."""
    (stats,) = node.get("/_plugins/_hamming/stats")["nodes"].values()
    return int(stats["size_in_bytes"])


def measure(
    node: Node, indexes: Sequence[Opened], rounds: int, slow_rounds: int
) -> dict[Cell, Samples]:
    """Time all searches; those of stock strategies in ``slow_rounds`` of the ``rounds``."""
    searches: dict[Cell, Search] = {}
    for one in indexes:
        where: dict[bool, dict[str, Any] | None] = {False: None, True: FILTER}
        for way, index in one.ways.items():
            for filtered, condition in where.items():
                cell = Cell(way, one.loaded.bits, one.loaded.codes, filtered)
                searches[cell] = partial(index.search, k=K, target=TARGET, where=condition)
        check(one)
    samples: dict[Cell, Samples] = defaultdict(Samples)
    order, rng = list(searches), random.Random(0)
    slow_every = max(1, rounds // slow_rounds)
    smallest = min(cell.codes for cell in order if cell.codes > max(FEW.values()))
    for number in range(WARMUP):
        for cell in order:
            if cell.way == "hamming" or cell.codes <= smallest:
                searches[cell](query(cell.bits, number))
    for number in range(rounds):
        rng.shuffle(order)
        for cell in order:
            if cell.way == "hamming" or number % slow_every == 0:
                for again in range(OFTEN if cell.codes <= smallest else 1):
                    code = query(cell.bits, number + again * rounds)
                    timed(node, searches[cell], code, samples[cell])
        if number % 10 == 0:
            print(f"round {number} of {rounds}", flush=True)
    return samples


def check(one: Opened) -> None:
    """All strategies find the same documents."""
    for condition in (None, FILTER):
        query_codes = query(one.loaded.bits, QUERIES - 1)
        found = [
            [(hit.id, hit.distance) for hit in hits]
            for index in one.ways.values()
            for hits in index.search(query_codes, K, target=TARGET, where=condition)
        ]
        if any(hits != found[0] for hits in found):
            raise RuntimeError(f"strategies differ in {one.loaded.name}: {found}")


def query(bits: int, number: int) -> BinaryCodes:
    """One random code of no document."""
    return random_codes(bits, 10_000_000_000 + number % QUERIES, 1)


def timed(node: Node, search: Search, code: BinaryCodes, into: Samples) -> None:
    """Run one search and add its times."""
    before = cpu_milliseconds(node.pid)
    started = time.perf_counter()
    search(code)
    into.wall.append(1e3 * (time.perf_counter() - started))
    into.cpu.append(cpu_milliseconds(node.pid) - before)


def cpu_milliseconds(pid: int) -> float:
    """CPU time of all threads of a process (Linux)."""
    total = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        try:
            total += int(Path(f"/proc/{pid}/task/{task}/schedstat").read_text().split()[0])
        except (FileNotFoundError, ProcessLookupError):  # the thread has ended
            continue
    return total / 1e6


def fit(found: Mapping[Cell, dict[str, float]], size: int) -> dict[str, ScanModel]:
    """Models of each strategy and filter, fitted to the rows of at most ``size`` codes."""
    models = {}
    for way in WAYS:
        for filtered in (False, True):
            rows = {
                (cell.codes, -(-cell.bits // 64)): values
                for cell, values in found.items()
                if cell.way == way and cell.filtered == filtered and cell.codes <= size
            }
            high = {row: values["p95"] for row, values in rows.items()}
            for figure in ("p50", "cpu"):
                medians = {row: values[figure] for row, values in rows.items()}
                models[name_of(way, filtered, figure)] = ScanModel.fit(
                    medians, high if figure == "p50" else None
                )
    return models


def predictions(models: Mapping[str, ScanModel], cell: Cell) -> dict[str, float]:
    """What the models predict for a row."""
    wall, cpu = (models[name_of(cell.way, cell.filtered, figure)] for figure in ("p50", "cpu"))
    at = (cell.codes, cell.bits)
    return {"p50": wall.predict(*at), "p95": wall.predict_95(*at), "cpu": cpu.predict(*at)}


def name_of(way: str, filtered: bool, figure: str) -> str:
    """Name of a model: strategy, filter, figure."""
    return f"{way}, {'filter' if filtered else 'all'}, {figure}"


def spread_of(times: Sequence[float]) -> float:
    """Standard deviation of the logarithm of times, from two percentiles."""
    return math.log(percentile(times, 95) / percentile(times, 50)) / 1.645


def at_rates(one: Opened, model: ScanModel, spread: float, count: int) -> str:
    """Searches that arrive at random, measured on this node and simulated as in sizing.py."""
    rows: list[list[object]] = [["bits", "codes", "queries/s", "busy cores, simulated"]]
    rows[0] += ["p50, ms", "simulated", "deviation", "p95, ms", "simulated", "deviation"]
    cores, codes, bits = os.cpu_count() or 1, one.loaded.codes, one.loaded.bits
    for share in (0.1, 0.3, 0.5):
        rate = share * cores / model.predict(codes, bits) * 1e3
        found = simulate(Cluster(1, cores, 1), model, codes, bits, rate, spread=spread)
        times = arrivals(one, rate, count)
        row: list[object] = [bits, f"{codes:,}", f"{rate:.1f}", f"{found.utilisation:.0%}"]
        for percent, simulated in ((50, found.p50), (95, found.p95)):
            measured = percentile(times, percent)
            row += [f"{measured:.1f}", f"{simulated:.1f}", deviation(measured, simulated)]
        rows.append(row)
    return table(rows)


def arrivals(one: Opened, rate: float, count: int) -> list[float]:
    """Milliseconds from the arrival of each query to its answer, ``rate`` queries a second."""
    index, bits, rng = one.ways["hamming"], one.loaded.bits, random.Random(1)
    due, times = time.perf_counter(), list[float]()

    def search(number: int, arrival: float) -> None:
        index.search(query(bits, number), K, target=TARGET)
        times.append(1e3 * (time.perf_counter() - arrival))

    with ThreadPoolExecutor(16) as pool:
        for number in range(count):
            due += rng.expovariate(rate)
            time.sleep(max(0.0, due - time.perf_counter()))
            pool.submit(search, number, due)
    return times


def latency_table(
    samples: Mapping[Cell, Samples],
    found: Mapping[Cell, dict[str, float]],
    models: Mapping[str, ScanModel],
    size: int,
) -> str:
    """Measured times beside those that the model predicts."""
    header: list[object] = ["bits", "codes", "strategy", "filter", "samples"]
    for figure in ("p50, ms", "p95, ms", "CPU, ms"):
        header += [figure, "predicted", "deviation"]
    rows = [header]
    for cell in sorted(found, key=lambda one: (one.bits, one.codes, one.filtered, one.way)):
        row: list[object] = [cell.bits, f"{cell.codes:,}", cell.way]
        row += ["a tenth" if cell.filtered else "-", len(samples[cell].wall)]
        predicted = predictions(models, cell)
        for figure, value in found[cell].items():
            row += [f"{value:.1f}", f"{predicted[figure]:.1f}"]
            row.append("fitted" if cell.codes <= size else deviation(value, predicted[figure]))
        rows.append(row)
    return table(rows)


def index_table(indexes: Sequence[Opened]) -> str:
    """Size and preparation of each index; memory and disk are predicted from the smallest one."""
    header = ["bits", "codes", "heap, bytes a code", "predicted", "disk, bytes a document"]
    header += ["predicted", "load, documents/s", "merge to one segment, s", "warm-up, s"]
    rows: list[list[object]] = [[*header]]
    first: dict[int, Opened] = {}
    for one in indexes:
        base = first.setdefault(one.loaded.bits, one)
        row: list[object] = [one.loaded.bits, f"{one.loaded.codes:,}"]
        row += [f"{one.heap / one.loaded.codes:.2f}", one.loaded.bits // 8]
        row += [f"{one.disk / one.loaded.codes:.1f}", f"{base.disk / base.loaded.codes:.1f}"]
        row += [f"{one.loaded.rate:,.0f}", f"{one.loaded.merge_seconds:.0f}", f"{one.warm:.2f}"]
        rows.append(row)
    return table(rows)


def model_table(models: Mapping[str, ScanModel]) -> str:
    """The coefficients of the models."""
    rows: list[list[object]] = [["model", "request, ms", "ns a code", "ns a word of 64 bits"]]
    rows[0] += ["ms a doubling", "p95: ms for a root of a ms"]
    for name, model in models.items():
        values = [model.request, model.per_code, model.per_word, model.per_doubling, model.tail]
        rows.append([name, *(f"{value:.2f}" for value in values)])
    return table(rows)


def parse_sizes(texts: Sequence[str], unit: int) -> dict[int, list[int]]:
    """``64:1,5`` as width and numbers of codes."""
    sizes = {}
    for text in texts:
        bits, _, numbers = text.partition(":")
        sizes[int(bits)] = sorted(int(float(number) * unit) for number in numbers.split(","))
    return sizes


def main() -> None:
    """Run the benchmark and write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, help="folder of the loaded indexes (default: none)")
    parser.add_argument("--sizes", nargs="+", default=None, help="BITS:MILLIONS,...")
    parser.add_argument("--rounds", type=int, default=150)
    parser.add_argument("--slow-rounds", type=int, default=30, help="rounds of stock strategies")
    parser.add_argument("--processes", type=int, default=2, help="processes that load")
    parser.add_argument("--port", type=int, default=0, help="port of the node (default: any)")
    parser.add_argument("--load-only", action="store_true")
    parser.add_argument("--quick", action="store_true", help="thousands of codes, write no file")
    args = parser.parse_args()
    sizes = parse_sizes(
        args.sizes or (QUICK if args.quick else SIZES), 120_000 if args.quick else 1_000_000
    )
    rounds, slow = (20, 5) if args.quick else (args.rounds, args.slow_rounds)
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.work or Path(temporary)
        with Node.start(
            folder / "node",
            port=args.port,
            fast_start=False,
            heap=HEAP,
            extra_plugins=[plugin_folder(show=print)],
            settings={"hamming.breaker.limit": "50%"},
            timeout=600,
        ) as node:
            loaded = [
                one
                for bits, numbers in sizes.items()
                for kind, counts in [
                    *((kind, [n]) for kind, n in FEW.items()),
                    ("filling", numbers),
                ]
                for one in Fixture(node, folder, bits, args.processes, kind).ensure(counts)
            ]
            if args.load_only:
                return
            indexes = [open_index(node, one) for one in loaded]
            print(index_table(indexes), flush=True)
            samples = measure(node, indexes, rounds, slow)
            report(node, indexes, samples, keep=not args.quick)


def report(
    node: Node, indexes: Sequence[Opened], samples: Mapping[Cell, Samples], *, keep: bool
) -> None:
    """Fit the model and write tables and coefficients."""
    found = {cell: values.summary() for cell, values in samples.items()}
    size = min(one.loaded.codes for one in indexes if one.loaded.codes > max(FEW.values()))
    models = fit(found, size)
    (memory,) = node.get("/_nodes/stats/jvm")["nodes"].values()
    used = memory["jvm"]["mem"]["heap_used_in_bytes"] / 1e6
    large = [one for one in indexes if one.loaded.codes >= size]
    most = max(large, key=lambda one: one.loaded.bits * one.loaded.codes)
    times = samples[Cell("hamming", most.loaded.bits, most.loaded.codes, False)]
    sections = [
        (
            "Indexes",
            f"Heap in use by the node with all indexes open: {used:,.0f} MB of {HEAP}.\n\n"
            + index_table(large),
        ),
        (
            f"One search, k = {K}, time of the client's call, one client",
            f"Predicted: by the model, which is fitted to the rows of at most {size:,} codes "
            "alone.\n\n" + latency_table(samples, found, models, size),
        ),
        (
            "Queries at a rate, hamming without filter, beside the simulation of sizing.py",
            "The client and other programs use the same cores.\n\n"
            + at_rates(
                most,
                models[name_of("hamming", False, "p50")],
                spread_of(times.wall),
                300 if keep else 20,
            ),
        ),
        ("Model: request + codes x (ns a code + words x ns a word)", model_table(models)),
    ]
    write(
        "opensearch-scale",
        f"Millions of codes in OpenSearch {node.get('/')['version']['number']}",
        "python benchmarks/opensearch_scale.py",
        sections,
        keep=keep,
    )
    if keep:
        disk = {
            str(one.loaded.bits): one.disk / one.loaded.codes
            for one in large
            if one.loaded.codes == size
        }
        facts = {"disk_bytes_a_document": disk, "spread": spread_of(times.cpu)}
        save(RESULTS / "opensearch-scale.json", models, facts)


if __name__ == "__main__":
    main()
