"""What SCH-GAN's generator is worth: the tables and pictures of the method.

    python benchmarks/schgan.py --data FOLDER [--table main|ablation|faithful|bits|all]
                                [--seeds N] [--jobs N] [--quick] [--fresh] [--work FOLDER]
    python benchmarks/schgan.py --data FOLDER --row NAME|FILE.toml [--cell NAME] [--seeds N]

``--data`` is laid out as harness/tasks.py says, which also says how cells are called; rows are
the records in harness/plans/schgan/. Every training is a job whose result is kept in the work folder:
a run that was stopped or killed goes on when it is repeated. ``--quick`` tries each table with few
epochs in minutes and keeps no table; so does ``--row`` or ``--cell``, with all epochs, for one row
or one cell. ``--jobs`` processes share the cores, as many as cores if not told; OMP_NUM_THREADS is
heeded.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from harness import plots as pictures
from harness import rows
from harness import schgan_plans as plans
from harness import schgan_tables as verdicts
from harness.command_line import carry_out, command_line
from harness.jobs import Job, Places, known
from harness.report import RESULTS, write
from harness.schgan_plans import Plan

TITLES = {
    "main": "SCH-GAN: the shipped default, its adversary switched off, and the baselines, 32 bits",
    "ablation": "SCH-GAN: what its generator is worth, 32 bits",
    "faithful": "SCH-GAN as released, fault by fault: Wikipedia, official protocol, 32 bits",
    "bits": "SCH-GAN: codes of 16 to 128 bits",
    "alone": "SCH-GAN: single rows, 32 bits",
}
ABOUT = {
    "main": "Mean ± standard deviation over {seeds}, expected mAP; `i>t`: a picture asks, "
    "texts are searched. Training labels are hidden down to the share, by hash of id and seed; "
    "relevance is told by the true ones. No validation pairs: the last epoch counts. The issue "
    "names no text encoder for the fashion bars, so they stand beside both.",
    "ablation": "Mean ± standard deviation over {seeds}; differences are paired by seed, "
    "which also decides who is labelled. `updates`: steps of the hash network + steps of the "
    "generator. Nothing is chosen on anything: the last epoch counts.",
    "faithful": "Mean ± standard deviation over {seeds}, mAP of 693 test items.",
    "bits": "Mean ± standard deviation over {seeds}; `i`: of pictures, `t`: of texts.",
    "alone": "Mean ± standard deviation over {seeds}.",
}
SECTIONS: dict[str, Callable[[Plan, verdicts.Results], list[verdicts.Section]]] = {
    "main": verdicts.main,
    "ablation": verdicts.ablation,
    "faithful": verdicts.faithful,
    "bits": verdicts.bits,
    "alone": verdicts.alone,
}


def main() -> int:
    """Do the jobs, print the tables, keep those that are whole."""
    told = _arguments()
    return carry_out(told, _plans, lambda plan, places: _write(plan, places, told))


def _arguments() -> argparse.Namespace:
    parser = command_line(__doc__, work="schgan-work")
    parser.add_argument("--table", choices=(*plans.TABLES, "all"), default="all")
    parser.add_argument("--row", help="one row alone: its name, or a file")
    parser.add_argument("--cell", help="one cell alone")
    return parser.parse_args()


def _plans(told: argparse.Namespace) -> list[Plan]:
    if told.row or told.cell:
        found = [rows.chosen(told.row)] if told.row else list(rows.records().values())
        ablation = [f"{one}-{n}" for one in plans.ABLATION_SETS for n in plans.ABLATION_SHARES]
        seeds = told.seeds or (1 if told.quick else plans.SEEDS["ablation"])
        return [plans.alone(found, [told.cell] if told.cell else ablation, seeds, told.quick)]
    tables = plans.TABLES if told.table == "all" else (told.table,)
    return [plans.plan(table, told.seeds, told.quick) for table in tables]


def _write(plan: Plan, places: Places, told: argparse.Namespace) -> None:
    """Print a table; keep it and draw it unless it was only tried, or lacks results."""
    results = verdicts.Results(plan.jobs, places)
    count = len({job.seed for job in plan.jobs})
    seeds = f"{count} seed{'s' if count > 1 else ''}"
    about = [ABOUT[plan.table].format(seeds=seeds), "", *results.notes()]
    if told.quick:
        about.append("- **tried with few epochs and small towers: no figure here means anything**")
    keep = plan.table != "alone" and not told.quick
    folder = RESULTS if keep else told.work
    drawn = _pictures(plan, results, places, folder)
    sections = [("How to read", "\n".join(about).strip()), *SECTIONS[plan.table](plan, results)]
    for path, caption in drawn:
        sections.insert(2, (caption, f"![{caption}]({path.name})"))
    again = f"python benchmarks/schgan.py --data FOLDER --table {plan.table}"
    if plan.table == "alone":
        again = "python benchmarks/schgan.py " + " ".join(sys.argv[1:])
    elif told.seeds:
        again += f" --seeds {told.seeds}"
    write(f"schgan-{plan.table}", TITLES[plan.table], again, sections, keep=keep)


def _pictures(
    plan: Plan, results: verdicts.Results, places: Places, folder: Path
) -> list[tuple[Path, str]]:
    """Draw what a table has; paths and captions."""
    drawn = []
    if plan.table == "main":
        for text, caption in (("words", "`words`"), ("minilm", "MiniLM")):
            path = folder / f"schgan-main-{text}.png"
            if pictures.map_by_share(results, text, plans.SHARES, path):
                drawn.append((path, f"mAP by share of labels, fashion, names read by {caption}"))
    if plan.watch:
        path = folder / "schgan-ablation-picks.png"
        if pictures.picks(_histories(plan.watch, places), path):
            drawn.append((path, "What is picked over the epochs, fashion, 5 % labels"))
    return drawn


def _histories(jobs: Sequence[Job], places: Places) -> dict[str, list[list[dict[str, float]]]]:
    """By row, a history a seed; a row that is another's with all settings is left out."""
    found: dict[str, list[list[dict[str, float]]]] = {}
    seen: set[Path] = set()
    for job in jobs:
        result = known(job, places)
        if result is not None and job.row and job.path(places) not in seen:
            seen.add(job.path(places))
            found.setdefault(job.row.name, []).append(result["history"])
    return found


if __name__ == "__main__":
    sys.exit(main())
