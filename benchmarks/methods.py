"""mAP of five adversarial hashing methods, each with its adversary on and off.

    python benchmarks/methods.py --data FOLDER [--only METHOD] [--seeds N] [--jobs N]
                                 [--quick] [--fresh] [--work FOLDER]

Writes results/methods.md and three plots; takes a few hours on 2 cores, with ``--quick`` (few
epochs, few tasks) minutes. The layout of ``--data`` is that of benchmarks/harness/tasks.py; the
rows are the files of benchmarks/harness/plans/methods/. Results of finished trainings are kept in
the work folder, so an interrupted run continues when the command is repeated. ``--quick`` and
``--only`` (the jobs of one method) write no file.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from harness import methods_tables, plots, rows
from harness.command_line import run_plans, training_parser
from harness.jobs import Environment, Job, Plan
from harness.report import RESULTS, write
from harness.results import Results
from harness.rows import Row
from harness.tasks import find_task

from xmodal.errors import ConfigError

FOLDER = rows.PLANS / "methods"
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
DETAILED = ("fashion-minilm-names", "wikipedia-roph-tfidf-clean")
"""Data sets with several shares of labels and with the rows of ``ADDITIONAL``."""
SEVERAL_WIDTHS = DETAILED[1:]
"""Data sets with several code widths."""
SHARES = (5, 25)
"""Percent of labels, in addition to 100."""
BITS = (16, 64, 128)
"""Code widths in addition to 32, for the rows with adversary."""
QUICK = ("wikipedia-roph-tfidf-clean-100", "toy-pixels-words-100")
ADDITIONAL = ("schgan-critic", "ssah-none", "multiadversarial-l2")
"""Rows other than adversary on and off: 32 bits and all labels only."""
WITHOUT_LABELS = ("sigah",)
"""Methods that use no labels."""


def main() -> int:
    """Run the jobs and write the report."""
    parser = training_parser(__doc__, work="methods-work")
    parser.add_argument("--only", help="run one method only")
    args = parser.parse_args()
    return run_plans(
        args,
        lambda args: [plan(args.only, args.seeds or SEEDS, args.quick)],
        lambda plan, environment: _write(plan, environment, args),
    )


def plan(only: str | None, seeds: int, quick: bool) -> Plan:
    """All jobs, ordered by importance. Raises ConfigError if no row has the method ``only``."""
    found = [row for row in rows.read_all(FOLDER).values() if only in (None, row.method)]
    if not found:
        known = dict.fromkeys(row.method for row in rows.read_all(FOLDER).values())
        raise ConfigError(f"no row has the method {only!r}, expected one of {', '.join(known)}")
    count = range(1 if quick else seeds)
    if quick:
        return Plan("methods", _jobs(QUICK, [None, *(row.quick() for row in found)], count, 16))
    pairs = [row for row in found if row.name not in ADDITIONAL]
    labelled = [row for row in pairs if row.method not in WITHOUT_LABELS]
    detailed = [f"{name}-100" for name in DETAILED]
    jobs = _jobs([f"{name}-100" for name in SETS], [None, *pairs], count, 32)
    jobs += _jobs(detailed, [row for row in found if row.name in ADDITIONAL], count, 32)
    shares = [f"{name}-{share}" for name in DETAILED for share in SHARES]
    jobs += _jobs(shares, [None, *labelled], count, 32)
    adversarial = [row for row in pairs if not row.name.endswith("-off")]
    for bits in BITS:
        jobs += _jobs([f"{name}-100" for name in SEVERAL_WIDTHS], [None, *adversarial], count, bits)
    return Plan("methods", jobs)


def _jobs(
    names: Sequence[str], found: Sequence[Row | None], seeds: range, bits: int
) -> tuple[Job, ...]:
    tasks = [find_task(name) for name in names]
    return tuple(Job(task, row, seed, bits) for seed in seeds for task in tasks for row in found)


def _write(plan: Plan, environment: Environment, args: argparse.Namespace) -> None:
    results = Results(plan.jobs, environment)
    keep = not (args.quick or args.only)
    folder = RESULTS if keep else args.work
    sections = methods_tables.sections(plan, results)
    found = {job.row.name: job.row for job in plan.jobs if job.row}
    on = {method: pair[0] for method, pair in methods_tables.switches(found).items()}
    for path, caption in plots.methods(plan, results, on, folder):
        sections.append((caption, f"![{caption}]({path.name})"))
    if args.quick:
        sections.insert(0, ("Quick run", "**few epochs: the values are not meaningful**"))
    write(
        "methods",
        "Five adversarial hashing methods, with and without their adversary",
        "python benchmarks/methods.py --data FOLDER"
        + (f" --seeds {args.seeds}" * bool(args.seeds)),
        sections,
        keep=keep,
    )


if __name__ == "__main__":
    sys.exit(main())
