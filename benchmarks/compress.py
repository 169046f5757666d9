"""SiGAH without labels: exact cosine neighbours that codes keep, against ITQ and PCA, one table.

    python benchmarks/compress.py --data FOLDER [--seeds N] [--quick] [--work FOLDER]

``--data`` is laid out as benchmarks/sets.py says. What is compressed: the pictures' features and
the names as MiniLM reads them, by ``xmodal compress`` as it is. Of the rows 1,000 ask the others,
and neither learn nor choose anything. A run that was stopped or killed goes on when it is repeated;
``--quick`` tries everything on few rows, in a minute, and keeps no table.
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
import sets
from commandline import command_line, ended, threads
from record import table, write
from verdicts import shown

from xmodal.config import configure
from xmodal.linear_models import Matrix
from xmodal.training.compress import compress
from xmodal.training.methods.sigah.train import Config

SEEDS = 3
BITS = (32, 64, 128)
ROWS: dict[str, dict[str, Any]] = {"sigah": {}, "no adversary": {"adversary": False}}
"""Settings of what is trained; the first trains beside the baselines of its report."""
BASELINES = ("itq", "pca")
Found = dict[tuple[str, int, str], list[dict[str, float]]]
"""Figures of each seed, by what was compressed, bits and row."""


def main() -> int:
    """Compress everything, print the table, keep it if it is whole."""
    told = command_line(__doc__, work="compress-work").parse_args()
    return ended(lambda: _write(told))


def _write(told: argparse.Namespace) -> int:
    found = measured(told)
    sections = [("How to read", _about(found)), ("Neighbours that codes keep", _table(found))]
    if told.quick:
        sections.insert(0, ("Tried", "**few epochs: no figure here means anything**"))
    title, command = "SiGAH: codes of any vectors, without labels", "python benchmarks/compress.py"
    write("compress", title, f"{command} --data FOLDER", sections, keep=not told.quick)
    return 0


def vectors(data: Path, work: Path) -> dict[str, Matrix]:
    """What is compressed: rows (n, dim) by name."""
    images = np.load(data / sets.FASHION[1], allow_pickle=False)["features"]
    names = np.array(sets.texts("minilm", sets.COLUMNS["names"], data, work))
    return {"pictures, MobileNetV2": images, "names, MiniLM": names}


def measured(told: argparse.Namespace) -> Found:
    """Figures of all rows; each training is kept in a folder of its own."""
    threads(1)
    seeds, widths = told.seeds or SEEDS, BITS
    quick: dict[str, Any] = {}
    if told.quick:
        seeds, widths, quick = 1, BITS[:1], {"epochs": 2}
    found: Found = defaultdict(list)
    for name, features in vectors(told.data, told.work).items():
        rows = features[:600] if told.quick else features
        for bits, seed, (row, settings) in product(widths, range(seeds), ROWS.items()):
            report = _trained(rows, bits, settings | quick, seed, told)
            recall = report["recall"]
            print(f"{name}, {bits} bits, seed {seed}, {row}: {recall}", flush=True)
            gap = {"above itq": recall["sigah"]["recall@10"] - recall["itq"]["recall@10"]}
            own = recall["sigah"] | gap | report["health"]
            found[name, bits, row].append(own)
            for one in BASELINES if row == "sigah" else ():
                found[name, bits, one].append(recall[one])
    return found


def _trained(
    rows: Matrix, bits: int, settings: dict[str, Any], seed: int, told: argparse.Namespace
) -> dict[str, Any]:
    """The report of one training; a finished one is only loaded."""
    config = asdict(configure(Config, settings))
    what = hashlib.blake2b(json.dumps([config, bits, seed]).encode(), digest_size=6)
    what.update(np.ascontiguousarray(rows).tobytes())
    folder: Path = told.work / what.hexdigest()
    return compress(rows, bits, folder, settings, seed=seed, restart=told.fresh).report


def _about(found: Found) -> str:
    seeds = max(map(len, found.values()))
    return (
        f"Mean ± standard deviation over {seeds} seeds. `recall@10`: expected share of the ten "
        "exact cosine neighbours among the ten nearest codes, over ties; `in first 100`: among the "
        "hundred nearest. `above itq`: recall@10 minus that of iterative quantisation, by seed. "
        "The epoch is chosen by 500 rows that neither ask nor learn. `no adversary`: the same "
        "without the auto-encoder that judges decoded vectors."
    )


COLUMNS = {
    "recall@10": "",
    "in first 100": "",
    "above itq": "+",
    "distinct": "",
    "entropy": "",
}
"""Figures, and how their signs are shown."""


def _table(found: Found) -> str:
    body = [["vectors", "bits", "row", *COLUMNS]]
    for (name, bits, row), figures in found.items():
        line = [name, str(bits), row]
        for column, sign in COLUMNS.items():
            line.append(shown(np.array([one[column] for one in figures if column in one]), sign))
        body.append(line)
    return table(body)


if __name__ == "__main__":
    sys.exit(main())
