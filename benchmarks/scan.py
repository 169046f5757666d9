"""The local index by Hamming distance, weights and vectors, compared with other exact searches.

    python benchmarks/scan.py [--quick] [--codes 1000000] [--bits 64 128 256] [--threads 2]

Writes results/scan.md; takes about ten minutes, with ``--quick`` seconds and no file. Codes,
weights and vectors are of random outputs around n / 10 centres, the filter passes a tenth of the
documents at random. Peers: FAISS, numpy, and if they are installed usearch and a loop compiled by
numba. All searches of a table run in turn, in both orders; times are medians of 9 rounds, ratios
medians of the ratios of each round. OMP_WAIT_POLICY is PASSIVE unless set. Distances of all peers
are asserted to be those of the index.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

# Before FAISS is loaded: its waiting threads would take the processor from the next search.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import faiss
import numpy as np
from harness.report import table, write

from xmodal.codes import BinaryCodes
from xmodal.index.code_search import CodeSearch, Part
from xmodal.index.contract import Index
from xmodal.index.documents import DocumentBatch
from xmodal.index.local import open_folder
from xmodal.index.query_codes import QueryCodes
from xmodal.index.scan import CodeColumn, CodeScan, ScanQueries
from xmodal.vectors import to_int8

SEED, K, CHUNK, QUERIES, ROUNDS = 0, 10, 50_000, 100, 9
TENTH = {"tenth": 1}
"""Filter that a tenth of the documents pass."""
Search = Callable[[int], object]
"""Searches for the query with a number, or for all queries."""
Times = dict[str, list[float]]
"""Milliseconds of each search in each round."""


def outputs(n: int, bits: int, part: int) -> Iterator[np.ndarray]:
    """Outputs of n documents (part 0) or queries (part 1), in chunks."""
    centres = np.random.default_rng([SEED, bits]).normal(size=(max(1, n // 10), bits))
    rng = np.random.default_rng([SEED, bits, part])
    for start in range(0, n, CHUNK):
        count = min(CHUNK, n - start)
        noise = rng.normal(scale=0.5, size=(count, bits))
        yield (centres[rng.integers(len(centres), size=count)] + noise).astype(np.float32)


def tenth(n: int) -> np.ndarray:
    """Documents that pass the filter, (n,) bool."""
    return np.random.default_rng(SEED).random(n) < 0.1


def fill(folder: Path, n: int, bits: int, per_document: int) -> Index:
    """An index of n codes with vectors, saved in a folder and opened again."""
    passes = tenth(n).astype(int).tolist()
    with open_folder(folder, bits=bits, create=True) as index:
        for number, values in enumerate(outputs(n, bits, 0)):
            codes = BinaryCodes.from_relaxed(values)
            rows = range(0, len(codes), per_document)
            parts = [codes[row : row + per_document] for row in rows]
            index.add(
                DocumentBatch.of(
                    [f"{number * CHUNK + row:09d}" for row in rows],
                    image=codes if per_document == 1 else parts,
                    image_vectors=to_int8(values),
                    fields=[{"tenth": passes[number * CHUNK + row]} for row in rows],
                )
            )
    return open_folder(folder)


def in_turn(searches: dict[str, Search], calls: int) -> Times:
    """Times of each search: in each round the median of some calls; one round is not counted."""
    times: Times = {name: [] for name in searches}
    for number in range(ROUNDS + 1):
        for name in list(searches)[:: 1 if number % 2 else -1]:
            spent = []
            for call in range(calls):
                started = time.perf_counter()
                searches[name]((number * calls + call) % QUERIES)
                spent.append(1e3 * (time.perf_counter() - started))
            if number:
                times[name].append(statistics.median(spent))
    return times


def compared(times: Times) -> Iterator[tuple[str, ...]]:
    """Name, median ms, and how often FAISS' time in it, for each search."""
    for name, values in times.items():
        ratios = [faiss_ms / own for faiss_ms, own in zip(fastest(times), values, strict=True)]
        yield name, f"{statistics.median(values):.2f}", f"{statistics.median(ratios):.2f}"


def fastest(times: Times) -> list[float]:
    """The time of the faster call of FAISS in each round."""
    of_faiss = [values for name, values in times.items() if name.startswith("FAISS")]
    return [min(values) for values in zip(*of_faiss, strict=True)]


def numpy_search(words: np.ndarray, mask: np.ndarray | None) -> Callable[[np.ndarray], np.ndarray]:
    """The smallest distances to a query of words, by numpy; ``words``: (words, n)."""

    def search(query: np.ndarray) -> np.ndarray:
        ones = np.bitwise_count(words ^ query[:, None])
        distances = ones.sum(axis=0, dtype=np.uint16)
        if mask is not None:
            distances = distances[mask]
        return np.sort(np.partition(distances, K - 1)[:K])

    return search


def numba_search(words: np.ndarray, threads: int) -> Callable[[np.ndarray], np.ndarray]:
    """The smallest distances to a query of words, by a loop that numba compiles."""
    import numba
    from llvmlite import ir
    from numba.core import types
    from numba.extending import intrinsic

    @intrinsic
    def ones(context: object, value: object) -> object:
        def build(context: object, builder: ir.IRBuilder, signature: object, args: list) -> object:
            return builder.ctpop(args[0])

        return types.uint64(types.uint64), build

    @numba.njit(parallel=True, boundscheck=False)
    def fill_distances(words: np.ndarray, query: np.ndarray, distances: np.ndarray) -> None:
        size = 4096
        for block in numba.prange((words.shape[1] + size - 1) // size):
            for i in range(block * size, min((block + 1) * size, words.shape[1])):
                total = np.uint64(0)
                for word in range(words.shape[0]):
                    total += ones(words[word, i] ^ query[word])
                distances[i] = total

    numba.set_num_threads(threads)
    distances = np.empty(words.shape[1], np.uint16)

    def search(query: np.ndarray) -> np.ndarray:
        fill_distances(words, query, distances)
        limit = np.partition(distances[: 1 << 15], K - 1)[K - 1]
        near = distances[distances <= limit]
        return np.sort(np.partition(near, K - 1)[:K])

    return search


def usearch_search(packed: np.ndarray, threads: int) -> Callable[[np.ndarray], np.ndarray]:
    """The distances of the nearest codes to packed queries, by usearch."""
    from usearch.index import MetricKind, search

    def of(queries: np.ndarray) -> np.ndarray:
        options = {"exact": True, "threads": threads}
        found = search(packed, queries, K, MetricKind.Hamming, dtype="b1", **options)
        return np.asarray(found.distances)

    return of


def tables(n: int, bits: int, threads: int, folder: Path) -> list[list[list[object]]]:
    """Rows of each of the five tables for one width."""
    alone, fives = fill(folder / "1", n, bits, 1), fill(folder / "5", n, bits, 5)
    packed = np.concatenate([BinaryCodes.from_relaxed(part).packed for part in outputs(n, bits, 0)])
    flat = faiss.IndexBinaryFlat(bits)
    flat.add(packed)
    passes = tenth(n)
    bitmap = np.packbits(passes, bitorder="little")
    selected = faiss.SearchParameters(sel=faiss.IDSelectorBitmap(bitmap))
    queries = QueryCodes.of(next(outputs(QUERIES, bits, 1)))
    weighted = QueryCodes(queries.codes, queries.weights)
    asked = queries.codes.packed
    column = CodeColumn.of(packed)
    words = np.ascontiguousarray(column.words[:, :n])
    query_words = ScanQueries.of(asked, None).rows[:, 0]

    def by_faiss(count: int, number: int, params: object = None) -> Search:
        def search(at: int) -> object:
            faiss.omp_set_num_threads(count)
            rows = asked[at : at + 1] if number == 1 else asked
            return flat.search(rows, K, params=params)

        return search

    def by_index(
        index: Index, batch: BinaryCodes | QueryCodes, where: dict[str, int] | None, number: int
    ) -> Search:
        return lambda at: index.search(
            batch[at : at + 1] if number == 1 else batch, K, target="image", where=where
        )

    def by_words(search: Callable[[np.ndarray], np.ndarray]) -> Search:
        return lambda at: search(query_words[at])

    peers: dict[str, Search] = {"numpy": by_words(numpy_search(words, None))}
    if importlib.util.find_spec("numba"):
        peers["loop compiled by numba"] = by_words(numba_search(words, threads))
    if importlib.util.find_spec("usearch"):
        nearest = usearch_search(packed, threads)
        peers["usearch, exact"] = lambda at: nearest(asked[at : at + 1])
    filtered = {"numpy, filter": by_words(numpy_search(words, passes))}

    for at in range(5):
        [hits] = alone.search(queries.codes[at : at + 1], K, target="image")
        distances, rows = flat.search(asked[at : at + 1], K)
        assert [hit.distance for hit in hits] == distances[0].tolist()
        assert [int(hit.id) for hit in hits] == rows[0].tolist()
        for name, peer in peers.items():
            assert np.ravel(peer(at)).tolist() == distances[0].tolist(), name
        [hits] = alone.search(queries.codes[at : at + 1], K, target="image", where=TENTH)
        distances, _ = flat.search(asked[at : at + 1], K, params=selected)
        assert [hit.distance for hit in hits] == distances[0].tolist()

    counts = sorted({1, threads})
    faiss_one = {f"FAISS, threads: {count}": by_faiss(count, 1) for count in counts}
    faiss_filter = {f"FAISS, selector, threads: {t}": by_faiss(t, 1, selected) for t in counts}
    faiss_batch = {f"FAISS, threads: {threads}": by_faiss(threads, QUERIES)}
    faiss_both = {f"FAISS, selector, threads: {threads}": by_faiss(threads, QUERIES, selected)}
    codes = queries.codes
    found = [
        in_turn({**faiss_one, **peers, "xmodal": by_index(alone, codes, None, 1)}, 5),
        in_turn({**faiss_filter, **filtered, "xmodal": by_index(alone, codes, TENTH, 1)}, 5),
        in_turn({**faiss_batch, "xmodal": by_index(alone, codes, None, QUERIES)}, 1),
        in_turn({**faiss_both, "xmodal": by_index(alone, codes, TENTH, QUERIES)}, 1),
        in_turn(
            {
                **faiss_one,
                "Hamming, 5 codes a document": by_index(fives, codes, None, 1),
                "weights": by_index(alone, weighted, None, 1),
                "weights, filter": by_index(alone, weighted, TENTH, 1),
                "weights, 5 codes a document": by_index(fives, weighted, None, 1),
                "weights, then vectors": by_index(alone, queries, None, 1),
                "weights, then vectors, 5 codes a document": by_index(fives, queries, None, 1),
            },
            5,
        ),
    ]
    results = [[[f"{n:,}", bits, *row] for row in compared(times)] for times in found]
    return [*results, [[f"{n:,}", bits, *row] for row in parts_of_a_call(column, alone, codes)]]


def parts_of_a_call(
    column: CodeColumn, index: Index, codes: BinaryCodes
) -> Iterator[tuple[str, str]]:
    """Name and median ms of each step of a search of one query by Hamming distance."""
    scan, query = CodeScan([column]), ScanQueries.of(codes.packed[:1], None)
    search = CodeSearch([Part(column, lambda rows: [str(row) for row in rows])])
    minima = scan.minima(query, radius=codes.bits, searched=[None])
    options = {"radius": codes.bits, "searched": [None]}
    times = in_turn(
        {
            "minima of blocks (compiled loop)": lambda _: scan.minima(query, **options),
            "codes of the best blocks": lambda _: scan.nearest(query, minima[0], K, **options),
            "CodeSearch.search": lambda _: search.search(
                QueryCodes(codes[:1]), K, radius=codes.bits, window=K
            ),
            "HammingIndex.search": lambda _: index.search(codes[:1], K, target="image"),
        },
        5,
    )
    for name, values in times.items():
        yield name, f"{statistics.median(values):.3f}"


START = """
import time
started = time.perf_counter()
import numpy as np
with_numpy = time.perf_counter()
from xmodal.codes import BinaryCodes
from xmodal.index.code_search import CodeSearch, Part
from xmodal.index.query_codes import QueryCodes
from xmodal.index.scan import CodeColumn
imported = time.perf_counter()
outputs = np.random.default_rng(0).normal(size=(1000, {bits})).astype(np.float32)
column = CodeColumn.of(BinaryCodes.from_relaxed(outputs).packed)
queries = QueryCodes.of(outputs[:1])
search = CodeSearch([Part(column, lambda rows: [str(row) for row in rows])])
began = time.perf_counter()
search.search(queries, 10, radius={bits}, window=10)
print(with_numpy - started, imported - with_numpy, time.perf_counter() - began)
"""


def start(widths: list[int], rounds: int) -> list[list[object]]:
    """Rows of what a new process needs for its first search with weights in 1,000 codes."""
    rows: list[list[object]] = [["bits", "import of numpy, ms", "other imports", "first search"]]
    for bits in widths:
        runs = []
        for _ in range(rounds):
            command = [sys.executable, "-c", START.format(bits=bits)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            runs.append([float(value) for value in done.stdout.split()])
        medians = (statistics.median(column) for column in zip(*runs, strict=True))
        rows.append([bits, *(f"{1e3 * value:.0f}" for value in medians)])
    return rows


def main() -> None:
    """Run the benchmark and write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes, write no file")
    parser.add_argument("--codes", type=int, default=1_000_000)
    parser.add_argument("--bits", type=int, nargs="+", default=[64, 128, 256])
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.threads])
    n = 50_000 if args.quick else args.codes
    header: list[object] = ["codes", "bits", "search", "ms", "FAISS' time / this"]
    collected: list[list[list[object]]] = [[header] for _ in range(5)]
    collected.append([["codes", "bits", "step", "ms"]])
    for bits in args.bits:
        with tempfile.TemporaryDirectory() as folder:
            for rows, more in zip(
                collected, tables(n, bits, args.threads, Path(folder)), strict=True
            ):
                rows += more
    headings = (
        f"One query, k = {K}",
        f"One query, k = {K}, filter on a random tenth",
        f"{QUERIES} queries in one call",
        f"{QUERIES} queries in one call, filter on a random tenth",
        "One query by the other stages of xmodal, window 300",
        "Steps of a search",
    )
    sections = [(f"{title}", table(rows)) for title, rows in zip(headings, collected, strict=True)]
    starts = start([64, 256, 1024], 3 if args.quick else ROUNDS)
    sections.append(("A new process, first search with weights", table(starts)))
    write(
        "scan",
        "Exact local search by Hamming distance, weights and vectors",
        f"python benchmarks/scan.py; seed {SEED}, threads: {args.threads}, medians of {ROUNDS}",
        sections,
        keep=not args.quick,
    )


if __name__ == "__main__":
    main()
