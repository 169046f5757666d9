"""mAP of SCH-GAN: default settings, ablation of its generator, the paper's program, code widths.

    python benchmarks/schgan.py --data FOLDER [--table main|ablation|faithful|bits|all]
                                [--seeds N] [--jobs N] [--quick] [--fresh] [--work FOLDER]
    python benchmarks/schgan.py --data FOLDER --row NAME|FILE.toml [--task NAME] [--seeds N]

Writes results/schgan-*.md and plots; takes a few hours on 2 cores, with ``--quick`` (few epochs)
minutes. The layout of ``--data`` and the names of tasks are those of benchmarks/harness/tasks.py;
the rows are the files of benchmarks/harness/plans/schgan/. Results of finished trainings are kept
in the work folder, so an interrupted run continues when the command is repeated. ``--quick``,
``--row`` and ``--task`` write no file. The threads of the ``--jobs`` processes (default: one per
core) are limited to the number of cores, or to OMP_NUM_THREADS per process.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from harness import plots, rows, schgan_plans, schgan_tables
from harness.command_line import run_plans, training_parser
from harness.jobs import Environment, Job, Plan, load_result
from harness.report import RESULTS, write
from harness.results import Results, Section

TITLES = {
    "main": "SCH-GAN: the default settings, the generator switched on, and the baselines, 32 bits",
    "ablation": "SCH-GAN: ablation of the generator, 32 bits",
    "faithful": "SCH-GAN as released, and its faults: Wikipedia, official protocol, 32 bits",
    "bits": "SCH-GAN: codes of 16 to 128 bits",
    "single": "SCH-GAN: single rows, 32 bits",
}
ABOUT = {
    "main": "Mean ± standard deviation over {seeds}, expected mAP; `i>t`: image queries, text "
    "database. The given share of training labels is kept, by hash of id and seed; relevance is "
    "determined by the true labels. No validation pairs: the last epoch is evaluated. The fashion "
    "targets do not specify a text encoder and are compared with both.",
    "ablation": "Mean ± standard deviation over {seeds}; differences are paired by seed, "
    "which also determines the labelled pairs. `updates`: steps of the hash network + steps of the "
    "generator. No validation pairs: the last epoch is evaluated.",
    "faithful": "Mean ± standard deviation over {seeds}, mAP of 693 test items.",
    "bits": "Mean ± standard deviation over {seeds}; `i`: image codes, `t`: text codes.",
    "single": "Mean ± standard deviation over {seeds}.",
}
SECTIONS: dict[str, Callable[[Plan, Results], list[Section]]] = {
    "main": schgan_tables.main,
    "ablation": schgan_tables.ablation,
    "faithful": schgan_tables.faithful,
    "bits": schgan_tables.bits,
    "single": schgan_tables.single,
}


def main() -> int:
    """Run the jobs and write the reports."""
    args = _arguments()
    return run_plans(args, _plans, lambda plan, environment: _write(plan, environment, args))


def _arguments() -> argparse.Namespace:
    parser = training_parser(__doc__, work="schgan-work")
    parser.add_argument("--table", choices=(*schgan_plans.TABLES, "all"), default="all")
    parser.add_argument("--row", help="run one row only: its name, or a file")
    parser.add_argument("--task", help="run one task only")
    return parser.parse_args()


def _plans(args: argparse.Namespace) -> list[Plan]:
    if args.row or args.task:
        found = [rows.find_row(args.row)] if args.row else list(rows.read_all().values())
        ablation = [
            f"{one}-{n}" for one in schgan_plans.ABLATION_SETS for n in schgan_plans.ABLATION_SHARES
        ]
        seeds = args.seeds or (1 if args.quick else schgan_plans.SEEDS["ablation"])
        return [
            schgan_plans.single(found, [args.task] if args.task else ablation, seeds, args.quick)
        ]
    tables = schgan_plans.TABLES if args.table == "all" else (args.table,)
    return [schgan_plans.plan(table, args.seeds, args.quick) for table in tables]


def _write(plan: Plan, environment: Environment, args: argparse.Namespace) -> None:
    """Write the report of a table with its plots; with --quick, --row or --task, only print it."""
    results = Results(plan.jobs, environment)
    count = len({job.seed for job in plan.jobs})
    seeds = f"{count} seed{'s' if count > 1 else ''}"
    about = [ABOUT[plan.table].format(seeds=seeds), "", *results.notes()]
    if args.quick:
        about.append("- **few epochs and small towers: the values are not meaningful**")
    keep = plan.table != "single" and not args.quick
    folder = RESULTS if keep else args.work
    drawn = _plots(plan, results, environment, folder)
    sections = [("How to read", "\n".join(about).strip()), *SECTIONS[plan.table](plan, results)]
    for path, caption in drawn:
        sections.insert(2, (caption, f"![{caption}]({path.name})"))
    command = f"python benchmarks/schgan.py --data FOLDER --table {plan.table}"
    if plan.table == "single":
        command = "python benchmarks/schgan.py " + " ".join(sys.argv[1:])
    elif args.seeds:
        command += f" --seeds {args.seeds}"
    write(f"schgan-{plan.table}", TITLES[plan.table], command, sections, keep=keep)


def _plots(
    plan: Plan, results: Results, environment: Environment, folder: Path
) -> list[tuple[Path, str]]:
    """Write the plots of a table; return their paths and captions."""
    drawn = []
    if plan.table == "main":
        for text, caption in (("words", "`words`"), ("minilm", "MiniLM")):
            path = folder / f"schgan-main-{text}.png"
            if plots.map_by_share(results, text, schgan_plans.SHARES, path):
                drawn.append((path, f"mAP by share of labels, fashion, names encoded by {caption}"))
    if plan.watch:
        path = folder / "schgan-ablation-picks.png"
        if plots.selected_negatives(_histories(plan.watch, environment), path):
            drawn.append((path, "Selected negatives by epoch, fashion, 5 % labels"))
    return drawn


def _histories(
    jobs: Sequence[Job], environment: Environment
) -> dict[str, list[list[dict[str, float]]]]:
    """Training histories by row, one per seed, without rows that equal an earlier row."""
    found: dict[str, list[list[dict[str, float]]]] = {}
    seen: set[Path] = set()
    for job in jobs:
        result = load_result(job, environment)
        if result is not None and job.row and job.path(environment) not in seen:
            seen.add(job.path(environment))
            found.setdefault(job.row.name, []).append(result["history"])
    return found


if __name__ == "__main__":
    sys.exit(main())
