"""Whether an exact search could read less than all codes: by substrings, or by prefixes.

    python benchmarks/sublinear.py --data FOLDER [--quick] [--codes 1000000 10000000]

Writes results/sublinear.md; takes about ten minutes and 4 GB, with ``--quick`` a minute and no
file. The layout of ``--data`` is that of benchmarks/harness/tasks.py. Codes: ITQ codes of all
pictures of ``fashion`` and ``flickr8k``, copied, with a share of flipped bits, and random codes.
Queries: codes of pictures that are not copied.

- Multi-index hashing (Norouzi, Punjani, Fleet, CVPR 2012) divides a code into m substrings. A code
  within d bits of the query is within d / m bits in one of them. The table has the numbers of
  look-ups and of codes that must be read, for the exact d of each query and the better of two m,
  and the time that numpy needs to read so many codes at random places and to count their bits. The
  lists and their duplicates, and the search for d, are not in it, so it is a lower bound.
- A prefix scan reads the first 64 bits of all codes, and the other words of the blocks that can
  contain a result. The table has the share of such blocks.

All run in one thread, times are CPU times, and the scan is that of xmodal.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from math import comb
from pathlib import Path

import numpy as np
from harness.command_line import exit_status
from harness.report import table, write

from xmodal.codes import BinaryCodes
from xmodal.index.scan import CodeColumn, CodeScan, ScanQueries
from xmodal.linear_models import Matrix, Projections, itq, pca, unit

SEED, QUERIES, ROUNDS, CHUNK = 0, 20, 9, 100_000
WINDOWS = (10, 300)
"""Nearest codes that a search needs: k, and the window of a search with vectors."""
SUBSTRINGS = {64: (3, 4), 256: (11, 16)}
FLIPPED = (0.05, 0.2)


def features(data: Path) -> Matrix:
    """Features of all pictures, of unit length."""
    names = {
        "fashion/image_features_mobilenet_v2.npz": "features",
        "flickr8k/features.npz": "image",
    }
    arrays = [np.load(data / path, allow_pickle=False)[key] for path, key in names.items()]
    return unit(np.concatenate(arrays).astype(np.float32))


def real_codes(rows: Matrix, bits: int) -> BinaryCodes:
    """ITQ codes of all rows, fitted to them, in random order."""
    project = pca(rows, bits)
    rng = np.random.default_rng(SEED)
    fitted = itq(rows, rows[:0], Projections(project, project), rng=rng, rounds=20)
    return BinaryCodes.from_relaxed(fitted.image(rows)[rng.permutation(len(rows))])


def sources(real: BinaryCodes, n: int) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Name, n packed codes and packed queries of each kind of codes."""
    rng = np.random.default_rng(SEED)
    queries, base, bits = real.packed[:QUERIES], real.packed[QUERIES:], real.bits
    for flipped in FLIPPED:
        packed = np.empty((n, bits // 8), np.uint8)
        for start in range(0, n, CHUNK):
            rows = packed[start : start + CHUNK]
            noise = rng.random((len(rows), bits), dtype=np.float32) < flipped
            rows[:] = base[rng.integers(len(base), size=len(rows))] ^ np.packbits(noise, axis=1)
        yield f"pictures, {flipped:.0%} of bits flipped", packed, queries
    draw = [rng.integers(0, 256, (m, bits // 8), dtype=np.uint8) for m in (n, QUERIES)]
    yield "random", draw[0], draw[1]


def needed(bits: int, m: int, distances: np.ndarray) -> list[list[tuple[int, int]]]:
    """For each query the width and the radius of each of m substrings, radius -1 for none.

    ``distances``: the distance of the last result of each query. A code within d bits has a
    substring i <= a within r bits, or one of the others within r - 1, with d = m * r + a.
    """
    widths = [len(part) for part in np.array_split(np.arange(bits), m)]
    return [
        [(width, d // m - (place > d % m)) for place, width in enumerate(widths)]
        for d in distances.tolist()
    ]


def substrings(packed: np.ndarray, m: int) -> Iterator[np.ndarray]:
    """Each of the m substrings of all codes, (n,) uint32."""
    bits = 8 * packed.shape[1]
    for part in np.array_split(np.arange(bits), m):
        first, last = int(part[0]) // 8, int(part[-1]) // 8
        value = np.zeros(len(packed), np.uint64)
        for byte in range(first, last + 1):
            value = value << np.uint64(8) | packed[:, byte]
        value >>= np.uint64(8 * (last + 1) - int(part[-1]) - 1)
        yield (value & np.uint64((1 << len(part)) - 1)).astype(np.uint32)


def hashed(packed: np.ndarray, queries: np.ndarray, distances: np.ndarray) -> tuple[int, int, int]:
    """The better m, and the medians of the look-ups and of the codes to read with it."""
    found = []
    for m in SUBSTRINGS[8 * packed.shape[1]]:
        radii = needed(8 * packed.shape[1], m, distances)
        codes = np.zeros(len(queries), np.int64)
        parts = zip(substrings(packed, m), substrings(queries, m), strict=True)
        for place, (column, asked) in enumerate(parts):
            for number, value in enumerate(asked):
                _, radius = radii[number][place]
                codes[number] += np.count_nonzero(np.bitwise_count(column ^ value) <= radius)
        lookups = [
            sum(comb(width, ones) for width, radius in row for ones in range(radius + 1))
            for row in radii
        ]
        found.append((m, int(np.median(lookups)), int(np.median(codes))))
    return min(found, key=lambda one: one[1] + one[2])


def milliseconds(*calls: Callable[[], object]) -> list[float]:
    """Median CPU time of each call, in turn."""
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(ROUNDS):
        for call, spent in zip(calls, times, strict=True):
            started = time.process_time()
            call()
            spent.append(1e3 * (time.process_time() - started))
    return [statistics.median(spent) for spent in times]


def rows(name: str, packed: np.ndarray, asked: np.ndarray) -> Iterator[list[object]]:
    """The row of each window for one kind of codes."""
    n, bits = len(packed), 8 * packed.shape[1]
    column = CodeColumn.of(packed)
    scan, queries = CodeScan([column]), ScanQueries.of(asked, None)
    options = {"radius": bits, "searched": [None]}
    minima = scan.minima(queries, **options)
    prefixes = CodeScan([CodeColumn(column.words[:1], n)])
    first = ScanQueries(queries.rows[:, :, :1], 64)
    of_prefixes = prefixes.minima(first, radius=64, searched=[None])
    rng = np.random.default_rng(SEED)
    for window in WINDOWS:
        found = [
            scan.nearest(queries[number : number + 1], minima[number], window, **options)
            for number in range(QUERIES)
        ]
        distances = np.array([int(codes.keys.max()) for codes in found])
        survivors = np.mean(of_prefixes <= distances[:, None])
        m, look_ups, codes = hashed(packed, asked, distances)
        places = rng.integers(0, n, look_ups + codes)

        def scanned(window: int = window) -> object:
            found = scan.minima(queries[:1], **options)
            return scan.nearest(queries[:1], found[0], window, **options)

        def read(places: np.ndarray = places) -> object:
            return np.bitwise_count(packed.view(np.uint64)[places] ^ queries.rows[0, :1]).sum(1)

        times = [f"{value:.2f}" for value in milliseconds(scanned, read)]
        prefix = f"{survivors:.0%}" if bits > 64 else ""
        share = f"{codes:,} ({codes / n:.1%})"
        divided = f"{m} x {bits / m:.0f} bits"
        start = [name, f"{n:,}", bits, window, int(np.median(distances)), times[0]]
        yield [*start, divided, f"{look_ups:,}", share, times[1], prefix]


def main() -> int:
    """Run the benchmark and write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--quick", action="store_true", help="small sizes, write no file")
    parser.add_argument("--codes", type=int, nargs="+", default=[1_000_000, 10_000_000])
    args = parser.parse_args()
    return exit_status(lambda: _write(args))


def _write(args: argparse.Namespace) -> int:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
    pictures = features(args.data)
    header = (
        "codes|n|bits|results|distance of the last|scan, CPU ms|substrings|look-ups|codes to read"
    )
    header += "|at least, CPU ms|blocks left by 64 bits"
    body: list[list[object]] = [[*header.split("|")]]
    for bits in SUBSTRINGS:
        real = real_codes(pictures, bits)
        for n in [100_000] if args.quick else args.codes:
            for source in sources(real, n):
                body += rows(*source)
    write(
        "sublinear",
        "Exact search without reading all codes",
        f"python benchmarks/sublinear.py --data FOLDER; seed {SEED}, threads: 1",
        [(f"Medians of {QUERIES} queries", table(body))],
        keep=not args.quick,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
