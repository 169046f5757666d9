"""The local index: Hamming distances, weights and vectors, compared with FAISS.

    python benchmarks/scan.py [--quick] [--codes 1000000] [--bits 64 256]

Writes results/scan.md; takes about ten minutes, with ``--quick`` seconds and no file. Codes,
weights and vectors are of random outputs around n / 10 centres. All searches of a table run in
turn, in both orders, and ratios are of CPU times of the same round, which other work on the machine
affects least. Nearest documents of FAISS and of the index are asserted to be equal.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import faiss
import numpy as np
from harness.report import table, write

from xmodal.codes import BinaryCodes
from xmodal.index.documents import DocumentBatch
from xmodal.index.local import HammingIndex, open_folder
from xmodal.index.query_codes import QueryCodes
from xmodal.vectors import to_int8

SEED, K, CHUNK, QUERIES = 0, 10, 50_000, 100
TENTH = {"tenth": 0}
"""Filter that a tenth of the documents pass."""
Search = Callable[[int], object]
"""Searches for the query with a number, or for all queries."""


def outputs(n: int, bits: int, part: int) -> Iterator[np.ndarray]:
    """Outputs of n documents (part 0) or queries (part 1), in chunks."""
    centres = np.random.default_rng([SEED, bits]).normal(size=(max(1, n // 10), bits))
    rng = np.random.default_rng([SEED, bits, part])
    for start in range(0, n, CHUNK):
        count = min(CHUNK, n - start)
        noise = rng.normal(scale=0.5, size=(count, bits))
        yield (centres[rng.integers(len(centres), size=count)] + noise).astype(np.float32)


def fill(folder: Path, n: int, bits: int, per_document: int) -> HammingIndex:
    """An index of n codes with vectors, saved in a folder and opened again."""
    with open_folder(folder, bits=bits, create=True) as index:
        for number, values in enumerate(outputs(n, bits, 0)):
            codes = BinaryCodes.from_relaxed(values)
            rows = range(0, len(codes), per_document)
            ids = [f"{number * CHUNK + row:09d}" for row in rows]
            parts = [codes[row : row + per_document] for row in rows]
            index.add(
                DocumentBatch.of(
                    ids,
                    image=codes if per_document == 1 else parts,
                    image_vectors=to_int8(values),
                    fields=[{"tenth": row // per_document % 10} for row in rows],
                )
            )
    return open_folder(folder)


def in_turn(searches: dict[str, Search], rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Milliseconds and CPU milliseconds of each search; the first round is not counted."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in searches}
    for number in range(rounds + 1):
        for name in list(searches)[:: 1 if number % 2 else -1]:
            started, used = time.perf_counter(), time.process_time()
            searches[name](number % QUERIES)
            spent = time.perf_counter() - started, time.process_time() - used
            if number:
                times[name].append((1e3 * spent[0], 1e3 * spent[1]))
    return times


def compared(times: dict[str, list[tuple[float, float]]]) -> Iterator[tuple[str, ...]]:
    """Name, median ms, median CPU ms and its median ratio to "Hamming" of each search."""
    for name, values in times.items():
        wall, cpu = (statistics.median(column) for column in zip(*values, strict=True))
        pairs = zip(values, times["Hamming"], strict=True)
        ratio = statistics.median(one[1] / other[1] for one, other in pairs)
        yield name, f"{wall:.2f}", f"{cpu:.2f}", f"{ratio:.2f}"


def single(n: int, bits: int, rounds: int, folder: Path) -> list[list[object]]:
    """Rows of one query at a time."""
    alone = fill(folder / f"{bits}-1", n, bits, 1)
    fives = fill(folder / f"{bits}-5", n, bits, 5)
    flat = faiss.IndexBinaryFlat(bits)
    flat.add(alone.codes("image")[1].packed)
    queries = QueryCodes.of(next(outputs(QUERIES, bits, 1)))
    weighted = QueryCodes(queries.codes, queries.weights)
    # FAISS starts a thread per processor even for one query, and they wait for each other.
    faiss.omp_set_num_threads(1)
    for number in range(5):
        [hits] = alone.search(queries.codes[number : number + 1], K, target="image")
        distances, rows = flat.search(queries.codes.packed[number : number + 1], K)
        assert [hit.distance for hit in hits] == distances[0].tolist()
        assert [int(hit.id) for hit in hits] == rows[0].tolist()

    def of(
        index: HammingIndex, batch: BinaryCodes | QueryCodes, where: dict[str, int] | None = None
    ) -> Search:
        return lambda at: index.search(batch[at : at + 1], K, target="image", where=where)

    times = in_turn(
        {
            "FAISS, Hamming": lambda at: flat.search(queries.codes.packed[at : at + 1], K),
            "Hamming": of(alone, queries.codes),
            "weights": of(alone, weighted),
            "weights, then vectors": of(alone, queries),
            "Hamming, filter on a tenth": of(alone, queries.codes, TENTH),
            "weights, filter on a tenth": of(alone, weighted, TENTH),
            "Hamming, 5 codes a document": of(fives, queries.codes),
            "weights, 5 codes a document": of(fives, weighted),
            "weights, then vectors, 5 codes a document": of(fives, queries),
        },
        rounds,
    )
    return [[f"{n:,}", bits, *row] for row in compared(times)]


def batches(n: int, bits: int, rounds: int, folder: Path) -> list[list[object]]:
    """Rows of 100 queries in one call, with all processors, without and with a filter."""
    index = open_folder(folder / f"{bits}-1")
    codes = index.codes("image")[1]
    flat = faiss.IndexBinaryFlat(bits)
    flat.add(codes.packed)
    tenth = np.arange(n) % CHUNK % 10 == 0
    bitmap = np.packbits(tenth, bitorder="little")
    selected = faiss.SearchParameters(sel=faiss.IDSelectorBitmap(bitmap))
    queries = QueryCodes.of(next(outputs(QUERIES, bits, 1)))
    weighted = QueryCodes(queries.codes, queries.weights)
    packed = queries.codes.packed
    faiss.omp_set_num_threads(os.cpu_count() or 1)
    times = in_turn(
        {
            "FAISS, Hamming": lambda _: flat.search(packed, K),
            "FAISS, Hamming, filter on a tenth": lambda _: flat.search(packed, K, params=selected),
            "Hamming": lambda _: index.search(queries.codes, K, target="image"),
            "Hamming, filter on a tenth": lambda _: index.search(
                queries.codes, K, target="image", where=TENTH
            ),
            "weights": lambda _: index.search(weighted, K, target="image"),
            "weights, then vectors": lambda _: index.search(queries, K, target="image"),
        },
        rounds,
    )
    return [[f"{n:,}", bits, *row] for row in compared(times)]


START = """
import time
from pathlib import Path
import numpy
def memory():
    [line] = [x for x in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in x]
    return int(line.split()[1]) / 1024
before, started = memory(), time.perf_counter()
import xmodal.index.scan_kernel
imported = time.perf_counter()
xmodal.index.scan_kernel.kernel({words}, 4)
print(imported - started, time.perf_counter() - imported, memory() - before)
"""


def start(rounds: int) -> list[list[object]]:
    """Rows of what a new process needs before its first search with weights."""
    rows: list[list[object]] = []
    for bits in (64, 256, 1024):
        runs = []
        for _ in range(rounds):
            command = [sys.executable, "-c", START.format(words=bits // 64)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            runs.append([float(value) for value in done.stdout.split()])
        imported, compiled, memory = (
            statistics.median(column) for column in zip(*runs, strict=True)
        )
        rows.append([bits, f"{1e3 * imported:.0f}", f"{1e3 * compiled:.0f}", f"{memory:.0f}"])
    return rows


def main() -> None:
    """Run the benchmark and write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes, write no file")
    parser.add_argument("--codes", type=int, default=1_000_000)
    parser.add_argument("--bits", type=int, nargs="+", default=[64, 256])
    args = parser.parse_args()
    n, rounds = (50_000, 10) if args.quick else (args.codes, 60)
    header: list[object] = ["codes", "bits", "search", "ms", "CPU ms", "CPU, this / Hamming"]
    one, many = [header], [header]
    with tempfile.TemporaryDirectory() as folder:
        for bits in args.bits:
            one += single(n, bits, rounds, Path(folder))
            many += batches(n, bits, max(3, rounds // 10), Path(folder))
            for path in Path(folder).glob("*/*"):
                path.unlink()
    starts = [["bits", "import ms", "compilation ms", "memory MB"], *start(3 if args.quick else 9)]
    write(
        "scan",
        "Local search by Hamming distance, weights and vectors",
        "python benchmarks/scan.py",
        [
            (f"One query, k = {K}, window 300, median; FAISS has one thread", table(one)),
            (f"{QUERIES} queries in one call, all processors", table(many)),
            ("A new process, before its first search: import and compilation", table(starts)),
        ],
        keep=not args.quick,
    )


if __name__ == "__main__":
    main()
