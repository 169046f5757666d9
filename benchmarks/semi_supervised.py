"""R@10 with few captioned pictures, many pictures without captions and many captions alone.

    python benchmarks/semi_supervised.py --data FOLDER [--seeds N] [--jobs N] [--quick] [--fresh]
                                         [--work FOLDER] [--held-out] [--curve]

Of the 6,000 training pictures of flickr8k 300 or 600 keep their five captions; the other pictures
and 15,000 of their captions have no pair. Rows are rules that choose captions for pictures, with
the pairs alone as lower and the true captions as upper bound. Writes results/semi_supervised.md;
with ``--curve`` results/semi_supervised-curve.md, 150 to 2,400 pictures with captions, by few rows;
with ``--held-out`` results/semi_supervised-settings.md, settings of the rules, trained on 5,000
training pictures and measured on the other 1,000. Takes hours on 2 cores, with ``--quick`` (one
seed, 3 epochs, no file) minutes. An interrupted run continues when the command is repeated.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from harness import caption_sets
from harness.command_line import environment_of, exit_status, report_failures, training_parser
from harness.jobs import Environment, load_result, run_all
from harness.recall_tables import DIRECTIONS, both, r10, shown
from harness.report import table, write
from harness.rows import Row
from harness.semi_jobs import TRUTH, SemiJob

SEEDS = 3
PAIRED = (300, 600)
"""Pictures with captions."""
CURVE = (150, 300, 600, 1200, 2400)
"""Pictures with captions of ``--curve``."""
EPOCHS = 3
"""Epochs of ``--quick``."""
ALONE = "pairs alone"
ROWS: dict[str, dict[str, Any]] = {
    ALONE: {"unpaired": "none"},
    "random captions": {"unpaired": "random", "unpaired_rounds": 1},
    "five nearest": {"unpaired": "nearest"},
    "mutual neighbours": {"unpaired": "mutual"},
    "distilled ensemble": {"unpaired": "distilled"},
    "soft nearest": {"unpaired": "soft"},
    "optimal transport": {"unpaired": "transport"},
    "policy": {"unpaired": "policy"},
    TRUTH: {"unpaired": "none"},
}
"""Settings of each row."""
LATER = ("random captions", "five nearest", "soft nearest")
"""Rows that run after the other rows of a seed."""
CURVE_ROWS = (ALONE, "mutual neighbours", "distilled ensemble", TRUTH)
TRIALS: dict[str, dict[str, Any]] = {
    "mutual neighbours": {},
    "1 round": {"unpaired_rounds": 1},
    "3 rounds": {"unpaired_rounds": 3},
    "5 neighbours": {"unpaired_neighbours": 5},
    "20 neighbours": {"unpaired_neighbours": 20},
    "weight .1": {"unpaired_weight": 0.1},
    "weight 1": {"unpaired_weight": 1.0},
    "distilled": {"unpaired": "distilled"},
    "distilled, temperature .03": {"unpaired": "distilled", "unpaired_temperature": 0.03},
    "distilled, temperature .1": {"unpaired": "distilled", "unpaired_temperature": 0.1},
    "distilled, weight 1": {"unpaired": "distilled", "unpaired_weight": 1.0},
    "transport": {"unpaired": "transport"},
    "transport, temperature .03": {"unpaired": "transport", "unpaired_temperature": 0.03},
}
"""Settings of ``--held-out``."""


def main() -> int:
    """Run the jobs and write the report."""
    parser = training_parser(__doc__, work="semi-work")
    parser.add_argument("--curve", action="store_true", help="150 to 2,400 pictures with captions")
    parser.add_argument("--held-out", action="store_true", help="settings, without the split dev")
    args = parser.parse_args()
    return exit_status(lambda: _run(args))


def _run(args: argparse.Namespace) -> int:
    environment, workers = environment_of(args)
    names = TRIALS if args.held_out else ROWS
    if args.curve:
        names = {name: ROWS[name] for name in CURVE_ROWS}
    common = {"epochs": EPOCHS} if args.quick else {}
    rows = [Row(name, "", "contrastive", common | settings) for name, settings in names.items()]
    data_set = caption_sets.HELD_OUT if args.held_out else caption_sets.DEV
    seeds = range(1 if args.quick else args.seeds or SEEDS)
    sizes = CURVE if args.curve else PAIRED
    jobs = [
        SemiJob(data_set, paired, row, seed) for seed in seeds for paired in sizes for row in rows
    ]
    ordered = sorted(jobs, key=lambda job: (job.seed, job.row.name in LATER))
    failures = run_all(ordered, environment, workers, fresh=args.fresh)
    sections = [("How to read", _about(len(seeds), data_set))]
    sections += [
        (
            f"{paired} pictures with captions",
            _table([j for j in jobs if j.paired == paired], environment),
        )
        for paired in sizes
    ]
    if args.quick:
        sections.insert(0, ("Quick run", "**few epochs: the values are not meaningful**"))
    flags = " --curve" * args.curve + " --held-out" * args.held_out
    command = f"python benchmarks/semi_supervised.py --data FOLDER{flags}"
    command += f" --seeds {args.seeds}" * bool(args.seeds)
    name = "semi_supervised" + "-curve" * args.curve + "-settings" * args.held_out
    write(name, "Few pairs, many pictures and captions", command, sections, keep=not args.quick)
    return report_failures(failures)


def _about(seeds: int, data_set: str) -> str:
    measured = "the split dev" if data_set == caption_sets.DEV else "1,000 training pictures"
    return (
        f"R@10 in percent on {measured}, 1,000 pictures and 5,000 captions, mean ± standard "
        f"deviation over {seeds} seed(s), which also choose the pictures with captions. i>t: a "
        "picture ranks captions; t>i: a caption ranks pictures; outputs: cosine before the sign; "
        "codes: Hamming distance of 256 bits. `+`: mean of both directions of the outputs minus "
        f"that of `{ALONE}`, the first row where it is missing. Pairs: chosen pairs of the last "
        "round, and the share of them that is true. CPU s: of the training."
    )


def _table(jobs: Sequence[SemiJob], environment: Environment) -> str:
    found: dict[str, list[dict[str, Any]]] = {job.row.name: [] for job in jobs}
    for job in jobs:
        if (result := load_result(job, environment)) is not None:
            found[job.row.name].append(result)
    base = both(found[next(iter(found))])
    header = ["row", "outputs i>t", "outputs t>i", "+", "codes i>t", "codes t>i"]
    body: list[list[str]] = [[*header, "pairs", "true, %", "CPU s"]]
    for name, results in found.items():
        gain = both(results)
        paired = len(gain) == len(base) > 0
        body.append(
            [
                name,
                *(shown(r10(results, "outputs", direction)) for direction in DIRECTIONS),
                shown(gain - base, "+") if paired else "-",
                *(shown(r10(results, "codes", direction)) for direction in DIRECTIONS),
                *_choice(results),
                shown(np.array([one["processor_seconds"] for one in results]), digits=0),
            ]
        )
    return table(body)


def _choice(results: Sequence[dict[str, Any]]) -> list[str]:
    last = [one["choices"][-1] for one in results if one["choices"]]
    if not last:
        return ["-", "-"]
    pairs = np.mean([one["pairs"] for one in last])
    share = np.array([100 * one["right"] / max(1, one["pairs"]) for one in last])
    return [f"{pairs:,.0f}", shown(share, digits=2)]


if __name__ == "__main__":
    sys.exit(main())
