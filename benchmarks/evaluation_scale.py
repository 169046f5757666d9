"""Evaluation of many queries and documents: time, and memory, which no product of both enters.

    python benchmarks/evaluation_scale.py [--queries 100000] [--documents 1000000] [--bits 64 256]
        [--part 0.01] [--quick]

Writes results/evaluation-scale.md; takes up to an hour. Codes are random, a query and a
document share a label with probability 1/4. By labels: expected mAP, precision and graded NDCG in
both directions, and the natural pairs among the queries. By captions: R@k of one picture for each
query with captions that make up the documents. Before the whole, ``--part`` of the queries is
measured; the projection from it is printed beside the measurement. ``--part-only`` measures no
more. Each row is a process of its own; memory is the largest resident memory without files.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from harness.memory import MemoryCurve, in_process
from harness.report import table, write

from xmodal.codes import BinaryCodes
from xmodal.evaluation.captions import query_figures
from xmodal.evaluation.protocol import Evaluator, Part
from xmodal.features.units import Units
from xmodal.modality import DIRECTIONS, MODALITIES

CLASSES, LABELS = 24, 0.11
"""Classes, and probability that an item has one."""


def random_codes(rng: np.random.Generator, n: int, bits: int) -> BinaryCodes:
    return BinaryCodes(rng.integers(0, 256, (n, bits // 8), dtype=np.uint8), bits)


def random_part(rng: np.random.Generator, n: int, bits: int) -> Part:
    """Return labelled pairs without features."""
    labels = rng.random((n, CLASSES), dtype=np.float32) < LABELS
    codes = {modality: random_codes(rng, n, bits) for modality in MODALITIES}
    return Part([""] * n, {}, labels, np.ones(n, np.bool_), codes)


def by_labels(queries: int, documents: int, bits: int) -> tuple[float, float]:
    """Return seconds and GB of the figures by labels."""
    rng = np.random.default_rng(0)
    query, database = random_part(rng, queries, bits), random_part(rng, documents, bits)
    with MemoryCurve() as memory:
        Evaluator(query, database, query).codes()
        return memory.seconds, memory.peak


def by_captions(pictures: int, captions: int, bits: int) -> tuple[float, float]:
    """Return seconds and GB of the recall of pictures with equal numbers of captions."""
    rng = np.random.default_rng(0)
    codes = {"image": random_codes(rng, pictures, bits), "text": random_codes(rng, captions, bits)}
    nothing = np.zeros((0, 1), np.float16)
    units = Units(
        [""] * pictures,
        nothing,
        nothing,
        np.arange(pictures + 1),
        np.arange(pictures + 1) * captions // pictures,
        np.zeros((pictures, 0), np.bool_),
        np.zeros(pictures, np.bool_),
        np.arange(captions),
        [],
        [],
    )
    with MemoryCurve() as memory:
        for source, target in DIRECTIONS:
            query_figures(units, source, codes[source], codes[target])
        return memory.seconds, memory.peak


def main() -> None:
    """Run the benchmark and write the report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--queries", type=int, default=100_000, help="[default: 100,000]")
    parser.add_argument("--documents", type=int, default=1_000_000, help="[default: 1,000,000]")
    parser.add_argument("--bits", type=int, nargs="+", default=[64, 256], help="[default: 64 256]")
    parser.add_argument("--part", type=float, default=0.02, help="of the queries [default: 0.02]")
    parser.add_argument("--part-only", action="store_true", help="no measurement of the whole")
    parser.add_argument("--quick", action="store_true", help="1,000 x 10,000, no file")
    args = parser.parse_args()
    queries, documents = (1000, 10_000) if args.quick else (args.queries, args.documents)
    part = max(1, round(args.part * queries))
    header = ["figures", "bits", "queries x documents", "GB", "s", "projected s"]
    rows: list[list[Any]] = [header]
    for name, function in (("by labels", by_labels), ("by captions", by_captions)):
        for bits in args.bits:
            # The number of distances is proportional to that of the queries.
            seconds, memory = in_process(function, part, documents, bits)
            projected = seconds * queries / part
            size = f"{part:,} x {documents:,}"
            rows.append([name, bits, size, f"{memory:.2f}", f"{seconds:.1f}", ""])
            size = f"{queries:,} x {documents:,}"
            if args.part_only:
                rows.append([name, bits, size, "", "", f"{projected:.0f}"])
                continue
            seconds, memory = in_process(function, queries, documents, bits)
            rows.append([name, bits, size, f"{memory:.2f}", f"{seconds:.1f}", f"{projected:.0f}"])
    write(
        "evaluation-scale",
        "Evaluation of many queries and documents",
        f"python benchmarks/evaluation_scale.py --queries {queries} --documents {documents} "
        f"--bits {' '.join(map(str, args.bits))}",
        [("Each row in a process of its own", table(rows))],
        keep=not args.quick,
    )


if __name__ == "__main__":
    main()
