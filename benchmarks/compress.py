"""Recall of exact cosine neighbours by unsupervised codes: SiGAH, and others of as many bits.

    python benchmarks/compress.py --data FOLDER [--seeds N] [--quick] [--work FOLDER]

Writes results/compress.md; takes about an hour on 2 cores, with ``--quick`` (few vectors, 2 epochs,
no file) a minute. The layout of ``--data`` is that of benchmarks/harness/tasks.py. The program runs
``xmodal compress`` on the image features and on the names encoded by MiniLM; 1,000 vectors are
queries and are not used for training or for the choice of the epoch. Others: ITQ, PCA, and those of
harness/vector_peers.py. An interrupted run continues when repeated.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections import defaultdict
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from harness import tasks
from harness.command_line import exit_status, set_threads, training_parser
from harness.report import table, write
from harness.results import shown
from harness.vector_peers import peers

from xmodal.config import configure
from xmodal.encoders.folder import HISTORY
from xmodal.linear_models import Matrix
from xmodal.training.compress import compress
from xmodal.training.methods.sigah.train import Config

SEEDS = 3
BITS = (32, 64, 128)
ROWS: dict[str, dict[str, Any]] = {"sigah": {}, "no adversary": {"adversary": False}}
"""Settings by row; the baselines are taken from the report of the first one."""
BASELINES = ("itq", "pca")
Figures = dict[tuple[str, int, str], list[dict[str, float]]]
"""Metrics of each seed, by vectors, bits and row."""


def main() -> int:
    """Run the benchmark and write the report."""
    args = training_parser(__doc__, work="compress-work").parse_args()
    return exit_status(lambda: _write(args))


def _write(args: argparse.Namespace) -> int:
    found = measure(args)
    sections = [
        ("How to read", _about(found)),
        ("Recall of exact cosine neighbours", _table(found)),
    ]
    if args.quick:
        sections.insert(0, ("Quick run", "**few epochs: the values are not meaningful**"))
    title, command = "SiGAH: unsupervised codes of vectors", "python benchmarks/compress.py"
    write("compress", title, f"{command} --data FOLDER", sections, keep=not args.quick)
    return 0


def vectors(data: Path, work: Path) -> dict[str, Matrix]:
    """The vectors to compress, float32 (n, dim), by name."""
    images = np.load(data / tasks.FASHION[1], allow_pickle=False)["features"]
    names = np.array(tasks.texts("minilm", tasks.COLUMNS["names"], data, work))
    return {"images, MobileNetV2": images, "names, MiniLM": names}


def measure(args: argparse.Namespace) -> Figures:
    """Metrics of all rows; each training has its own folder in the work folder."""
    set_threads(1)
    seeds, widths = args.seeds or SEEDS, BITS
    quick: dict[str, Any] = {}
    if args.quick:
        seeds, widths, quick = 1, BITS[:1], {"epochs": 2}
    found: Figures = defaultdict(list)
    for name, features in vectors(args.data, args.work).items():
        rows = features[:600] if args.quick else features
        for bits, seed, (row, settings) in product(widths, range(seeds), ROWS.items()):
            report, seconds = _trained(rows, bits, settings | quick, seed, args)
            recall = report["recall"]
            print(f"{name}, {bits} bits, seed {seed}, {row}: {recall}", flush=True)
            gap = {"above itq": recall["sigah"]["recall@10"] - recall["itq"]["recall@10"]}
            own = recall["sigah"] | gap | report["health"] | {"seconds": seconds}
            found[name, bits, row].append(own)
            for one in BASELINES if row == "sigah" else ():
                found[name, bits, one].append(recall[one])
        for bits, seed in product(widths, range(seeds)):
            for one, figures in peers(rows, bits, seed):
                found[name, bits, one].append(figures)
    return found


def _trained(
    rows: Matrix, bits: int, settings: dict[str, Any], seed: int, args: argparse.Namespace
) -> tuple[dict[str, Any], float]:
    """The report of one training, loaded if it exists, and the seconds of its epochs."""
    config = asdict(configure(Config, settings))
    key = hashlib.blake2b(json.dumps([config, bits, seed]).encode(), digest_size=6)
    key.update(np.ascontiguousarray(rows).tobytes())
    folder: Path = args.work / key.hexdigest()
    report = compress(rows, bits, folder, settings, seed=seed, restart=args.fresh).report
    lines = (folder / HISTORY).read_text(encoding="utf-8").splitlines()
    return report, sum(json.loads(line)["seconds"] for line in lines)


def _about(found: Figures) -> str:
    seeds = max(map(len, found.values()))
    return (
        f"Mean ± standard deviation over {seeds} seeds. `recall@10`: share of the ten exact cosine "
        "neighbours among the ten nearest codes (expected value over ties); `in first 100`: among "
        "the hundred nearest. `above itq`: recall@10 minus that of iterative quantization (ITQ), "
        "by seed. The epoch is selected on 500 other vectors. `no adversary`: SiGAH without the "
        "auto-encoder that discriminates decoded vectors. `float query`: no code of the query. "
        "seconds: of the epochs, on one core."
    )


COLUMNS = {
    "recall@10": ("", 3),
    "in first 100": ("", 3),
    "above itq": ("+", 3),
    "distinct": ("", 3),
    "entropy": ("", 3),
    "seconds": ("", 0),
}
"""Metrics, with the format of their signs and the number of their decimals."""


def _table(found: Figures) -> str:
    body = [["vectors", "bits", "row", *COLUMNS]]
    for (name, bits, row), figures in sorted(found.items(), key=lambda one: one[0][:2]):
        line = [name, str(bits), row]
        for column, form in COLUMNS.items():
            line.append(shown(np.array([one[column] for one in figures if column in one]), *form))
        body.append(line)
    return table(body)


if __name__ == "__main__":
    sys.exit(main())
