"""Whether the `hamming` query could compare a prefix of each code first.

    python benchmarks/prefix.py --data FOLDER [--quick] [--codes 1000000]

Writes results/prefix.md; takes five minutes, with ``--quick`` seconds and no file. Codes of 256
bits, k = 10. The layout of ``--data`` is that of benchmarks/harness/tasks.py.

- Exact: a document whose prefix differs from the query in more bits than the k-th result differs in
  all of its bits is no result. The table has the share of documents, and of blocks of 1,024 (the
  unit in which the plugin reads codes), that remain with the best possible bound: the distance of
  the k-th result, known from the start.
- Approximate: the share of the ten results that are among the 1,000 or 10,000 documents with the
  nearest prefixes. A document counts as a result if its distance is that of one of the ten.

Codes: those of sublinear.py (real codes of pictures, copied with flipped bits; random ones), and
codes whose first 64 bits are made to stand alone: ITQ of the first 64 principal components, and
another ITQ of the others.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from harness.command_line import exit_status
from harness.report import table, write
from sublinear import SEED, features, real_codes, sources

from xmodal.codes import BinaryCodes
from xmodal.linear_models import Matrix, Projections, itq, pca

BITS, K, BLOCK = 256, 10, 1024
PREFIXES = (64, 128)
WINDOWS = (1_000, 10_000)


def standalone_prefix(rows: Matrix) -> BinaryCodes:
    """Codes of 256 bits of all rows, in random order, whose first 64 bits are codes themselves."""
    project = pca(rows, BITS)
    rng = np.random.default_rng(SEED)
    parts = []
    for columns in (slice(0, PREFIXES[0]), slice(PREFIXES[0], BITS)):

        def part(x: np.ndarray, columns: slice = columns) -> Matrix:
            return project(x)[:, columns]

        fitted = itq(rows, rows[:0], Projections(part, part), rng=rng, rounds=20)
        parts.append(fitted.image(rows))
    return BinaryCodes.from_relaxed(np.concatenate(parts, axis=1)[rng.permutation(len(rows))])


def measure(packed: np.ndarray, query: np.ndarray) -> Iterator[float]:
    """The distance of the k-th result, and for each prefix: shares and recalls in percent."""
    words = packed.view(np.uint64)
    bits = np.bitwise_count(words ^ query.view(np.uint64))
    distances = bits.sum(1, dtype=np.int32)
    last = np.partition(distances, K - 1)[K - 1]
    yield float(last)
    for prefix in PREFIXES:
        near = bits[:, : prefix // 64].sum(1, dtype=np.int32)
        remains = near <= last
        whole = remains[: len(remains) // BLOCK * BLOCK].reshape(-1, BLOCK)
        yield 100 * float(remains.mean())
        yield 100 * float(whole.any(axis=1).mean())
        for window in WINDOWS:
            chosen = np.argpartition(near, window)[:window]
            found = np.count_nonzero(distances[chosen] <= last)
            yield 100 * min(found, K) / K


def main() -> int:
    """Run the benchmark and write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--codes", type=int, default=1_000_000)
    parser.add_argument("--quick", action="store_true", help="50,000 codes, write no file")
    args = parser.parse_args()
    return exit_status(lambda: _write(args))


def _write(args: argparse.Namespace) -> int:
    pictures = features(args.data)
    n = 50_000 if args.quick else args.codes
    header = ["codes", "n", "distance of the last"]
    for prefix in PREFIXES:
        header += [f"{prefix} bits: documents left, %", "blocks left, %"]
        header += [f"results in {window:,}, %" for window in WINDOWS]
    rows: list[list[object]] = [[*header]]
    kinds = {"": real_codes(pictures, BITS), ", prefix of its own": standalone_prefix(pictures)}
    for kind, real in kinds.items():
        for name, packed, queries in sources(real, n):
            if name == "random" and kind:
                continue
            values = np.mean([list(measure(packed, query)) for query in queries], axis=0)
            rows.append([name + kind, f"{n:,}", *(f"{value:.1f}" for value in values)])
            print(" | ".join(map(str, rows[-1])), flush=True)
    write(
        "prefix",
        f"The first bits of codes of {BITS} bits, k = {K}",
        "python benchmarks/prefix.py --data FOLDER",
        [("Means of 20 queries", table(rows))],
        keep=not args.quick,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
