"""R@k with frozen backbones and with backbones whose last blocks are trained.

    python benchmarks/fine_tune.py --data FOLDER [--seeds N] [--jobs N] [--quick] [--fresh]
                                   [--work FOLDER] [--held-out]

Two sets of flickr8k, measured on the split dev: `captions` (6,000 training pictures by their stored
features, MiniLM trained on their captions) and `pictures` (the 1,500 training pictures that are
there as files, MobileNetV2 and MiniLM trained). Rows are frozen and trained backbones, each without
further negatives, with negatives at random and with those of SCH-GAN's policy. Writes
results/fine_tune.md; with ``--held-out`` results/fine_tune-settings.md, the choice of the settings:
trained on five of six training pictures and measured on the others. Takes hours on 2 cores, with
``--quick`` (one seed, 2 epochs, no file) minutes, most of them for the states in front of the
blocks. An interrupted run continues when the command is repeated.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from harness import tuning_sets
from harness.command_line import (
    environment_of,
    exit_status,
    report_failures,
    training_parser,
)
from harness.jobs import Environment, load_result, run_all
from harness.report import table, write
from harness.rows import Row
from harness.tuning_jobs import TuningJob
from harness.tuning_sets import CAPTIONS, PICTURES

SEEDS = 3
BITS = 256
BLOCKS = {CAPTIONS: ("text:4", "text:2"), PICTURES: ("text:2", "image:1", "text:2,image:1")}
"""Trained blocks of each set; the last ones also with further negatives."""
NEGATIVES = ("random", "policy")
FROZEN = "frozen"
TRIALS: dict[str, dict[str, dict[str, Any]]] = {
    CAPTIONS: {
        "default": {},
        "rate 1e-4": {"fine_tune_rate": 1e-4},
        "rate 1e-3": {"fine_tune_rate": 1e-3},
        "20 epochs, batch 256": {"epochs": 20, "batch": 256},
    },
    PICTURES: {
        "default": {},
        "rate 1e-4": {"fine_tune_rate": 1e-4},
        "text:2": {"fine_tune": "text:2"},
    },
}
"""Settings of ``--held-out``, with the last one of ``BLOCKS`` where no blocks are named."""
QUICK = {"epochs": 2}
Result = dict[str, Any]
Values = npt.NDArray[np.float64]


def main() -> int:
    """Run the jobs and write the report."""
    parser = training_parser(__doc__, work="fine-tune-work")
    parser.add_argument("--held-out", action="store_true", help="settings, without the split dev")
    args = parser.parse_args()
    return exit_status(lambda: _run(args))


def _run(args: argparse.Namespace) -> int:
    environment, workers = environment_of(args)
    seeds = range(1 if args.quick else args.seeds or SEEDS)
    common = QUICK if args.quick else {}
    named = _trials if args.held_out else _rows
    rows = {name: named(name) for name in tuning_sets.NAMES}
    jobs = {
        (name, row): [
            TuningJob(
                name, Row(row, "", "contrastive", common | settings), seed, BITS, args.held_out
            )
            for seed in seeds
        ]
        for name, of_set in rows.items()
        for row, settings in of_set.items()
    }
    everything = [job for of_row in jobs.values() for job in of_row]
    ordered = sorted(everything, key=lambda job: job.seed)
    failures = run_all(ordered, environment, workers, fresh=args.fresh)
    sections = [("How to read", _about(len(seeds), args.held_out))]
    for name in rows:
        of_rows: dict[str, Sequence[TuningJob]] = {
            row: of_row for (one, row), of_row in jobs.items() if one == name
        }
        sections.append((_heading(name, args.held_out), _table(of_rows, environment)))
    if args.quick:
        sections.insert(0, ("Quick run", "**few epochs: the values are not meaningful**"))
    command = f"python benchmarks/fine_tune.py --data FOLDER{' --held-out' * args.held_out}"
    command += f" --seeds {args.seeds}" * bool(args.seeds)
    report = "fine_tune" + "-settings" * args.held_out
    write(report, "Trained backbones", command, sections, keep=not args.quick)
    return report_failures(failures)


def _rows(name: str) -> dict[str, dict[str, Any]]:
    """Return the settings of the rows of a set."""
    blocks = BLOCKS[name]
    rows: dict[str, dict[str, Any]] = {FROZEN: {}}
    rows |= {f"{FROZEN}, negatives {one}": {"negatives": one} for one in NEGATIVES}
    rows |= {one: {"fine_tune": one} for one in blocks}
    return rows | {
        f"{blocks[-1]}, negatives {one}": {"fine_tune": blocks[-1], "negatives": one}
        for one in NEGATIVES
    }


def _trials(name: str) -> dict[str, dict[str, Any]]:
    """Return the settings of the trials of a set."""
    default = {"fine_tune": BLOCKS[name][-1]}
    trials = {row: default | settings for row, settings in TRIALS[name].items()}
    return {FROZEN: {}, **trials}


def _heading(name: str, held_out: bool) -> str:
    pictures = {CAPTIONS: "6,000 training pictures", PICTURES: "1,500 training pictures"}[name]
    trained = {CAPTIONS: "features of pictures from a file", PICTURES: "with both backbones"}[name]
    return f"{name}: {pictures}{', one of six is measured' * held_out}, {trained}"


def _about(seeds: int, held_out: bool) -> str:
    measured = "training pictures that were held out" if held_out else "the split dev"
    return (
        f"rsum: sum of R@1, R@5 and R@10 of both directions in percent, on {measured}, mean ± "
        f"standard deviation over {seeds} seed(s). float: cosine of the outputs before the sign; "
        f"codes: Hamming distance of {BITS} bits; `+`: minus that of `{FROZEN}`, seed by seed. "
        "CPU s: processor seconds of the training; states: the largest processor seconds that a "
        "job took to compute or read features and states, which are cached by the first one."
    )


def _table(jobs: dict[str, Sequence[TuningJob]], environment: Environment) -> str:
    found = {
        row: [one for job in of_row if (one := load_result(job, environment)) is not None]
        for row, of_row in jobs.items()
    }
    header = ["row", "float", "+", "codes", "+", "i>t R@10", "t>i R@10", "CPU s", "states"]
    body: list[list[str]] = [header]
    for row, results in found.items():
        cells = [row]
        for kind in ("outputs", "codes"):
            values, frozen = _rsum(results, kind), _rsum(found[FROZEN], kind)
            paired = len(values) == len(frozen) > 0 and row != FROZEN
            cells += [_shown(values), _shown(values - frozen, sign="+") if paired else "-"]
        cells += [
            _shown(_values(results, lambda one, way=way: 100 * one["codes"][way]["r10"]))  # type: ignore[misc]
            for way in ("image_to_text", "text_to_image")
        ]
        states = _values(results, lambda one: one["states_seconds"])
        cells.append(_shown(_values(results, lambda one: one["processor_seconds"]), digits=0))
        body.append([*cells, f"{states.max():.0f}" if len(states) else "-"])
    return table(body)


def _rsum(results: Sequence[Result], kind: str) -> Values:
    return _values(results, lambda one: 100 * sum(sum(way.values()) for way in one[kind].values()))


def _values(results: Sequence[Result], figure: Callable[[Result], float]) -> Values:
    return np.array([figure(one) for one in results], np.float64)


def _shown(values: Values, sign: str = "", digits: int = 1) -> str:
    if not len(values):
        return "-"
    deviation = f" ± {values.std(ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{values.mean():{sign}.{digits}f}{deviation}"


if __name__ == "__main__":
    sys.exit(main())
