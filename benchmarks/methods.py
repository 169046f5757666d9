"""Five adversarial hashing methods, each with its own adversary on and off: one table.

    python benchmarks/methods.py --data FOLDER [--only METHOD] [--seeds N] [--jobs N]
                                 [--quick] [--fresh] [--work FOLDER]

``--data`` is laid out as harness/tasks.py says; rows are the records in benchmarks/harness/plans/methods/.
Every training is a job whose result is kept in the work folder: a run that was stopped or killed
goes on when it is repeated. ``--quick`` tries everything with few epochs on a few cells, in
minutes, and keeps no table; ``--only`` does the jobs of one method and keeps none either.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from harness import methods_tables, rows
from harness import plots as pictures
from harness import tasks as sets
from harness.command_line import carry_out, command_line
from harness.jobs import Job, Places
from harness.report import RESULTS, write
from harness.rows import Row
from harness.schgan_plans import Plan
from harness.schgan_tables import Results

from xmodal.errors import ConfigError

FOLDER = Path(__file__).parent / "harness" / "plans" / "methods"
SEEDS = 3
SETS = (
    "fashion-minilm-names",
    "fashion-minilm-removed",
    "wikipedia-roph-tfidf-clean",
    "wikipedia-roph-tfidf-official",
    "wikipedia-sift-lda-clean",
    "wikipedia-sift-lda-official",
    "toy-pixels-words",
)
CLOSELY = ("fashion-minilm-names", "wikipedia-roph-tfidf-clean")
"""Sets on which the share of labels varies, and rows beside on and off run."""
WIDE = CLOSELY[1:]
"""Where the bits vary."""
SHARES = (5, 25)
"""Beside 100 %."""
BITS = (16, 64, 128)
"""Beside 32; there each method has its adversary on."""
QUICK = ("wikipedia-roph-tfidf-clean-100", "toy-pixels-words-100")
BESIDE = ("schgan-critic", "ssah-none", "multiadversarial-l2")
"""Rows beside on and off: at 32 bits and with all labels alone."""
WITHOUT_LABELS = ("sigah",)
"""Methods to which the share of labels means nothing."""


def main() -> int:
    """Do the jobs, print the tables, keep them if they are whole."""
    parser = command_line(__doc__, work="methods-work")
    parser.add_argument("--only", help="one method alone")
    told = parser.parse_args()
    return carry_out(
        told,
        lambda told: [plan(told.only, told.seeds or SEEDS, told.quick)],
        lambda plan, places: _write(plan, places, told),
    )


def plan(only: str | None, seeds: int, quick: bool) -> Plan:
    """All jobs, the most telling first. Raises ConfigError if nobody knows the method ``only``."""
    found = [row for row in rows.records(FOLDER).values() if only in (None, row.method)]
    if not found:
        known = dict.fromkeys(row.method for row in rows.records(FOLDER).values())
        raise ConfigError(f"there is no method {only!r} here, expected one of {', '.join(known)}")
    count = range(1 if quick else seeds)
    if quick:
        return Plan("methods", _jobs(QUICK, [None, *(row.quick() for row in found)], count, 16))
    pairs = [row for row in found if row.name not in BESIDE]
    learn = [row for row in pairs if row.method not in WITHOUT_LABELS]
    whole = [f"{name}-100" for name in CLOSELY]
    jobs = _jobs([f"{name}-100" for name in SETS], [None, *pairs], count, 32)
    jobs += _jobs(whole, [row for row in found if row.name in BESIDE], count, 32)
    shares = [f"{name}-{share}" for name in CLOSELY for share in SHARES]
    jobs += _jobs(shares, [None, *learn], count, 32)
    adversarial = [row for row in pairs if not row.name.endswith("-off")]
    for bits in BITS:
        jobs += _jobs([f"{name}-100" for name in WIDE], [None, *adversarial], count, bits)
    return Plan("methods", jobs)


def _jobs(
    cells: Sequence[str], found: Sequence[Row | None], seeds: range, bits: int
) -> tuple[Job, ...]:
    named = [sets.named(name) for name in cells]
    return tuple(Job(cell, row, seed, bits) for seed in seeds for cell in named for row in found)


def _write(plan: Plan, places: Places, told: argparse.Namespace) -> None:
    results = Results(plan.jobs, places)
    keep = not (told.quick or told.only)
    folder = RESULTS if keep else told.work
    sections = methods_tables.sections(plan, results)
    found = {job.row.name: job.row for job in plan.jobs if job.row}
    on = {method: pair[0] for method, pair in methods_tables.switches(found).items()}
    for path, caption in pictures.methods(plan, results, on, folder):
        sections.append((caption, f"![{caption}]({path.name})"))
    if told.quick:
        sections.insert(0, ("Tried", "**few epochs: no figure here means anything**"))
    write(
        "methods",
        "Five adversarial hashing methods, their own adversary on and off",
        "python benchmarks/methods.py --data FOLDER"
        + (f" --seeds {told.seeds}" * bool(told.seeds)),
        sections,
        keep=keep,
    )


if __name__ == "__main__":
    sys.exit(main())
