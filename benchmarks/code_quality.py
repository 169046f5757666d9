"""What codes lose against the float outputs of the same network, and how to lose less.

    python benchmarks/code_quality.py --data FOLDER [--seeds N] [--jobs N] [--quick] [--fresh]
                                      [--work FOLDER] [--held-out] [--report]

Codes of 256 bits for the captions of flickr8k, by the contrastive method. Writes
results/code_quality.md: the default, a start with ITQ instead of a frame, and codes whose first
bits are trained as codes, on the split dev, 3 seeds. With ``--held-out``
results/code_quality-settings.md: all trials, of 20 epochs, trained on a part of the training
pictures and measured on 1,000 others; the split dev is not read. A training takes about a minute,
with ``--quick`` (one seed, 3 epochs, no file) seconds. An interrupted run
continues when the command is repeated.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from harness import caption_sets
from harness.code_jobs import FLOAT, HAMMING, WEIGHTED, CodeJob
from harness.code_trials import ITQ, Trial
from harness.command_line import environment_of, exit_status, report_failures, training_parser
from harness.jobs import Environment, load_result, run_all
from harness.report import table, write

SEEDS = 3
BITS = 256
Figures = dict[str, list[float]]
"""R@1, R@5, R@10 of both directions, image -> text first, by what is ranked."""
WIDTHS = (64, 128)
"""Bits of the codes that are compared with prefixes."""
EPOCHS, HELD_OUT_EPOCHS = 3, 20
"""Epochs of ``--quick``, and of the trials of ``--held-out``, which are compared alone."""
BASE = Trial("default")
"""The row that others are compared with."""
ROTATED = Trial("begins with ITQ", directions=ITQ)
PREFIXES = Trial("first 64 and 128 bits trained (prefixes=64)", {"prefixes": 64})
ROWS = (BASE, ROTATED, PREFIXES)
FRAMED = Trial("begins in a frame of 96 directions", directions=96)
"""A trial of codes of ``WIDTHS`` bits, which begin with ITQ by default."""
NAMES = [row.name for row in ROWS]
LINEAR = (
    Trial("linear model, ITQ of 256 directions", directions=ITQ, untrained=True),
    *(
        Trial(f"linear model, frame of {n} directions", directions=n, untrained=True)
        for n in (64, 96, 128, 256)
    ),
)
"""Linear models before training."""
TRIALS = (
    *ROWS,
    FRAMED,
    Trial("prefixes=64, equal weights", {"prefixes": 64}, prefix_power=0),
    Trial("prefixes=64, weights 4, 2, 1", {"prefixes": 64}, prefix_power=1),
    Trial("prefixes=64, equal weights, begins with ITQ", {"prefixes": 64}, ITQ, 0),
    *LINEAR,
    Trial("40 epochs", {"epochs": 40}),
    Trial("40 epochs, begins with ITQ", {"epochs": 40}, ITQ),
    Trial("40 epochs, prefixes=64", {"epochs": 40, "prefixes": 64}),
    Trial("80 epochs", {"epochs": 80}),
    Trial("caption_mix 1", {"caption_mix": 1.0}),
    Trial("outputs and signs compared", compared="outputs and signs"),
    Trial("signs compared", compared="signs"),
    Trial("all compared", compared="all"),
    Trial("correlated bits penalised", decorrelate=10.0),
    Trial("noise of .5", noise=0.5),
    Trial("no quantisation term", {"quantise": 0.0}),
    Trial("quantisation term .3", {"quantise": 0.3}),
    Trial("linear maps fixed", {"linear_rate": 0.0}),
    *(Trial(f"linear_rate {rate}", {"linear_rate": rate}) for rate in (0.3, 1.0)),
    *(Trial(f"learning_rate {rate}", {"learning_rate": rate}) for rate in (0.002, 0.004)),
    *(Trial(f"batches of {units}", {"batch": units}) for units in (256, 128)),
)
"""Trials of ``--held-out``."""


def main() -> int:
    """Run the jobs and write the report."""
    parser = training_parser(__doc__, work="code-quality-work")
    parser.add_argument("--held-out", action="store_true", help="trials, without the split dev")
    parser.add_argument("--report", action="store_true", help="tables of what is done; no training")
    args = parser.parse_args()
    return exit_status(lambda: _run(args))


def _run(args: argparse.Namespace) -> int:
    environment, workers = environment_of(args)
    trials = TRIALS if args.held_out else ROWS
    epochs = EPOCHS if args.quick else HELD_OUT_EPOCHS if args.held_out else 0
    if epochs:
        trials = tuple(replace(t, settings={"epochs": epochs} | t.settings) for t in trials)
    data_set = caption_sets.HELD_OUT if args.held_out else caption_sets.DEV
    seeds = range(1 if args.quick or args.held_out else SEEDS)
    if args.seeds:
        seeds = range(args.seeds)
    jobs = [
        CodeJob(data_set, trial, seed, bits)
        for seed in seeds
        for trial in trials
        for bits in _widths(trial)
    ]
    failures = run_all([] if args.report else jobs, environment, workers, fresh=args.fresh)
    sections = [
        ("How to read", _about(len(seeds), data_set)),
        (f"Codes of {BITS} bits", _table(jobs, environment)),
        ("Prefixes beside codes of their own", _prefixes(jobs, environment)),
    ]
    if args.quick:
        sections.insert(0, ("Quick run", "**few epochs: the values are not meaningful**"))
    command = "python benchmarks/code_quality.py --data FOLDER" + " --held-out" * args.held_out
    command += f" --seeds {args.seeds}" * bool(args.seeds)
    name = "code_quality" + "-settings" * args.held_out
    write(name, "Codes and the floats they are made of", command, sections, keep=not args.quick)
    return report_failures(failures)


def _widths(trial: Trial) -> tuple[int, ...]:
    """Return the bits of the codes that are trained by a trial."""
    if trial.name == FRAMED.name:
        return WIDTHS
    return (BITS, *WIDTHS) if trial.name == BASE.name else (BITS,)


def _about(seeds: int, data_set: str) -> str:
    measured = "the split dev" if data_set == caption_sets.DEV else "1,000 training pictures"
    return (
        f"Percent on {measured}, 1,000 pictures and 5,000 captions, mean ± standard deviation over "
        f"{seeds} seed(s), without ± of one seed; `-`: not run. i>t: a picture ranks captions; "
        "t>i: a caption ranks pictures; rsum: sum of R@1, R@5 and R@10 of both directions. "
        "Hamming: distance of codes. Weighted: the query's outputs in 4 bits with the codes, the "
        "first stage of a search. Float: cosine of the same vectors in float. Closed: share of the "
        f"distance between Hamming and float of `{BASE.name}` that the row closes, by rsum. CPU s: "
        "of the training."
    )


def _table(jobs: Sequence[CodeJob], environment: Environment) -> str:
    found: dict[str, list[Figures]] = {job.trial.name: [] for job in jobs if job.bits == BITS}
    seconds: dict[str, list[float]] = {name: [] for name in found}
    for job in jobs:
        result = load_result(job, environment)
        if job.bits == BITS and result is not None:
            found[job.trial.name].append(result["figures"])
            seconds[job.trial.name].append(result["processor_seconds"])
    base = found[BASE.name]
    header = ["row", "Hamming rsum", "closed, %", "i>t R@10", "t>i R@10"]
    header += ["weighted rsum", "closed, %", "i>t R@10", "t>i R@10", "float rsum", "CPU s"]
    body: list[list[str]] = [header]
    for name, results in found.items():
        cells = [name]
        for kind in (HAMMING, WEIGHTED):
            cells += [_shown(_rsum(results, kind)), _closed(results, base, kind)]
            cells += [_shown(_column(results, kind, column)) for column in (2, 5)]
        cells += [_shown(_rsum(results, FLOAT)), _shown(np.array(seconds[name]), 0)]
        body.append(cells)
    return table(body)


def _prefixes(jobs: Sequence[CodeJob], environment: Environment) -> str:
    """Figures of codes of few bits: those of their own, and prefixes."""
    found: dict[tuple[int, str], list[Figures]] = {}
    for job in jobs:
        measured = job.trial.name in {*NAMES, FRAMED.name} or "prefixes" in job.trial.settings
        if (result := load_result(job, environment)) is None or not measured:
            continue
        if job.bits < BITS:
            key = job.bits, f"{job.trial.name}, codes of their own"
            found.setdefault(key, []).append({HAMMING: result["figures"][HAMMING]})
            continue
        for width in WIDTHS:
            key = width, f"{job.trial.name}, first of {BITS} bits"
            found.setdefault(key, []).append({HAMMING: result["figures"][str(width)]})
    body = [["bits", "codes", "i>t R@10", "t>i R@10", "rsum"]]
    for (bits, name), results in sorted(found.items(), key=lambda one: one[0][0]):
        cells = [_shown(_column(results, HAMMING, column)) for column in (2, 5)]
        body.append([str(bits), name, *cells, _shown(_rsum(results, HAMMING))])
    return table(body)


def _column(results: Sequence[Figures], kind: str, column: int) -> np.ndarray:
    return np.array([one[kind][column] for one in results])


def _rsum(results: Sequence[Figures], kind: str) -> np.ndarray:
    return np.array([sum(one[kind]) for one in results])


def _closed(results: Sequence[Figures], base: Sequence[Figures], kind: str) -> str:
    """The share of the distance of the base row that is closed, of means over the seeds."""
    if not results or not base:
        return "-"
    codes, floats = _rsum(base, HAMMING).mean(), _rsum(base, FLOAT).mean()
    return f"{100 * (_rsum(results, kind).mean() - codes) / (floats - codes):.0f}"


def _shown(values: np.ndarray, digits: int = 1) -> str:
    if not len(values):
        return "-"
    deviation = f" ± {values.std(ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{values.mean():.{digits}f}{deviation}"


if __name__ == "__main__":
    sys.exit(main())
