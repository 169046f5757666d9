"""Choice of the settings of the contrastive method, on training pictures alone.

    python benchmarks/tune.py --data FOLDER [--seeds N] [--jobs N] [--quick] [--fresh]
                              [--work FOLDER]

Trains on 5,000 of the 6,000 training pictures of flickr8k and measures on the other 1,000, chosen
by hash of the id; the split dev is never read. A trial changes one setting from its default, at 64
and at 256 bits. Each trial is printed as it ends; results/tune.md has all of them. Takes about
three hours on 2 cores, with ``--quick`` (one seed, 3 epochs, few trials, no file) minutes. An
interrupted run continues when the command is repeated.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from harness import caption_sets
from harness.caption_jobs import CaptionJob
from harness.caption_tables import DIRECTIONS, OUTPUTS, CaptionResults, recall, rsum, shown
from harness.command_line import (
    environment_of,
    exit_status,
    report_failures,
    training_parser,
)
from harness.jobs import Environment, run_all
from harness.report import table, write
from harness.rows import Row

from xmodal.training.methods.contrastive.config import Config

SEEDS = 2
WIDTHS = (256, 64)
TRIALS: dict[str, tuple[Any, ...]] = {
    "temperature": (0.03, 0.07, 0.1),
    "quantise": (0.0, 0.3, 1.0),
    "dropout": (0.2, 0.3, 0.5),
    "epochs": (20, 60, 80),
    "learning_rate": (5e-4, 2e-3),
    "linear_rate": (0.0, 0.3, 1.0),
    "caption_mix": (0.0, 0.25, 1.0),
    "hidden": (256, 1024),
    "negatives": ("random", "semi-hard", "policy"),
}
"""Values of each setting, in addition to the default."""
QUICK = ("temperature",)
"""Settings of ``--quick``."""
EPOCHS = 3
"""Epochs of ``--quick``."""


def main() -> int:
    """Run the trials and write the report."""
    args = training_parser(__doc__, work="tune-work").parse_args()
    return exit_status(lambda: _run(args))


def trials(quick: bool) -> list[Row]:
    """The defaults, then the rows with one changed setting."""
    common = {"epochs": EPOCHS} if quick else {}
    rows = [Row("defaults", "", "contrastive", common)]
    for name, values in TRIALS.items():
        if not quick or name in QUICK:
            rows += [
                Row(f"{name} {value}", "", "contrastive", common | {name: value})
                for value in values
                if value != getattr(Config(), name)
            ]
    return rows


def _run(args: argparse.Namespace) -> int:
    environment, workers = environment_of(args)
    rows = trials(args.quick)
    seeds = range(1 if args.quick else args.seeds or SEEDS)
    jobs = {
        (row.name, bits): [CaptionJob(caption_sets.HELD_OUT, row, seed, bits) for seed in seeds]
        for row in rows
        for bits in WIDTHS
    }
    failures: list[str] = []
    for (name, bits), of_trial in jobs.items():
        failures += run_all(of_trial, environment, workers, fresh=args.fresh)
        results = CaptionResults(of_trial, environment)
        values = results.values((caption_sets.HELD_OUT, name, bits), rsum())
        print(f"trial {name}, {bits} bits: rsum {shown(values)}", flush=True)
    everything = [job for of_trial in jobs.values() for job in of_trial]
    sections = [
        ("How to read", _about(len(seeds))),
        ("Trials", _table(rows, everything, environment)),
    ]
    if args.quick:
        sections.insert(0, ("Quick run", "**few epochs: the values are not meaningful**"))
    command = "python benchmarks/tune.py --data FOLDER" + f" --seeds {args.seeds}" * bool(
        args.seeds
    )
    write("tune", "Settings of the contrastive method", command, sections, keep=not args.quick)
    return report_failures(failures)


def _about(seeds: int) -> str:
    return (
        f"Mean ± standard deviation over {seeds} seed(s), in percent; `-`: not run. Training "
        "pictures of flickr8k: 5,000 for training (at most 300 of them are held out for "
        "validation), 1,000 others are measured, chosen by hash. The last epoch is measured. A "
        "trial changes one setting of the defaults; `+`: rsum minus that of the defaults, mean "
        "over the seeds. i>t: a picture ranks captions; t>i: a caption ranks "
        "pictures; rsum: sum of R@1, R@5 and R@10 of both directions; float: rsum of the outputs "
        "before the sign."
    )


def _table(rows: list[Row], jobs: list[CaptionJob], environment: Environment) -> str:
    results = CaptionResults(jobs, environment)
    body = [["trial", "bits", "rsum", "+", "i>t R@10", "t>i R@10", "float", "CPU s"]]
    for bits in WIDTHS:
        default = results.values((caption_sets.HELD_OUT, rows[0].name, bits), rsum())
        for row in rows:
            key = caption_sets.HELD_OUT, row.name, bits
            found = results.values(key, rsum())
            paired = len(found) and len(found) == len(default)
            gain = f"{(found - default).mean():+.1f}" if paired else "-"
            cells = [shown(results.values(key, recall(direction, 10))) for direction in DIRECTIONS]
            seconds = results.numbers(key, "processor_seconds")
            cells += [
                shown(results.values(key, rsum(OUTPUTS))),
                f"{seconds.mean():.0f}" if len(seconds) else "-",
            ]
            body.append([row.name, str(bits), shown(found), gain, *cells])
    return table(body)


if __name__ == "__main__":
    sys.exit(main())
