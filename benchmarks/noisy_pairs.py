"""R@10 where a share of the captions belongs to other pictures, by the rule that leaves pairs out.

    python benchmarks/noisy_pairs.py --data FOLDER [--seeds N] [--jobs N] [--quick] [--fresh]
                                     [--work FOLDER] [--held-out] [--captions N]
                                     [--shares SHARE ...]

Of the 30,000 captions of the 6,000 training pictures of flickr8k 0, 20, 40 or 60 % are exchanged
at random. Rows are values of the setting ``noise``, with all pairs as lower and the right pairs
alone as upper bound. Writes results/noisy_pairs.md; with ``--captions 1`` results/noisy_pairs-1.md,
where a picture has one caption, right or wrong; with ``--held-out``
results/noisy_pairs-settings.md, trained on 5,000 training pictures and measured on the other 1,000,
with the estimates by which "auto" decides, on 50 to 5,000 pictures.
Takes hours on 2 cores, with ``--quick`` (one seed, 3 epochs, no file) minutes. An interrupted run
continues when the command is repeated.
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
from harness.noisy_jobs import TRUTH, JudgementJob, NoisyJob
from harness.recall_tables import DIRECTIONS, both, r10, shown
from harness.report import table, write
from harness.rows import Row

SEEDS = 3
SHARES = (0.4, 0.0, 0.2, 0.6)
"""Shares of exchanged captions, in the order in which they run."""
EPOCHS = 3
"""Epochs of ``--quick``."""
CAPTIONS = 5
"""Captions of a picture."""
ALL = "all pairs"
ROWS: dict[str, dict[str, Any]] = {
    ALL: {"noise": "none"},
    "auto": {"noise": "auto"},
    "linear models": {"noise": "linear"},
    "small loss": {"noise": "small-loss"},
    "two networks": {"noise": "two-networks"},
    "policy": {"noise": "policy"},
    TRUTH: {"noise": "none"},
}
"""Settings of each row."""
PICTURES = (50, 200, 1000, 5000)
"""Pictures of the estimates."""


def main() -> int:
    """Run the jobs and write the report."""
    parser = training_parser(__doc__, work="noisy-work")
    parser.add_argument("--captions", type=int, default=CAPTIONS, help="captions of a picture")
    parser.add_argument(
        "--shares", type=float, nargs="+", default=SHARES, help="of exchanged captions"
    )
    parser.add_argument("--held-out", action="store_true", help="without the split dev")
    args = parser.parse_args()
    return exit_status(lambda: _run(args))


def _run(args: argparse.Namespace) -> int:
    environment, workers = environment_of(args)
    common = {"epochs": EPOCHS} if args.quick else {}
    rows = [Row(name, "", "contrastive", common | settings) for name, settings in ROWS.items()]
    data_set = caption_sets.HELD_OUT if args.held_out else caption_sets.DEV
    seeds = range(1 if args.quick else args.seeds or SEEDS)
    jobs = [
        NoisyJob(data_set, share, args.captions, row, seed)
        for seed in seeds
        for share in args.shares
        for row in rows
        if share or row.name != TRUTH
    ]
    judged = [
        JudgementJob(data_set, share, captions, pictures=pictures)
        for captions in (CAPTIONS, 1)
        for pictures in PICTURES[: 2 if args.quick else None]
        for share in sorted(args.shares)
        if args.held_out
    ]
    failures = run_all([*judged, *jobs], environment, workers, fresh=args.fresh)
    sections = [("How to read", _about(len(seeds), data_set, args.captions))]
    clean = _results([job for job in jobs if not job.share], environment).get(ALL, [])
    for share in sorted(args.shares):
        found = _results([job for job in jobs if job.share == share], environment)
        sections.append((f"{share:.0%} of the captions exchanged", _table(found, clean)))
    if judged:
        sections.append(("Estimates of linear models", _estimates(judged, environment)))
    if args.quick:
        sections.insert(0, ("Quick run", "**few epochs: the values are not meaningful**"))
    flags = " --held-out" * args.held_out
    flags += f" --captions {args.captions}" * (args.captions != CAPTIONS)
    command = f"python benchmarks/noisy_pairs.py --data FOLDER{flags}"
    command += f" --seeds {args.seeds}" * bool(args.seeds)
    if tuple(args.shares) != SHARES:
        command += f" --shares {' '.join(map(str, args.shares))}"
    name = "noisy_pairs" + f"-{args.captions}" * (args.captions != CAPTIONS)
    name += "-settings" * args.held_out
    write(name, "Pairs that are wrong", command, sections, keep=not args.quick)
    return report_failures(failures)


def _about(seeds: int, data_set: str, captions: int) -> str:
    measured = "the split dev" if data_set == caption_sets.DEV else "1,000 training pictures"
    return (
        f"R@10 in percent on {measured}, 1,000 pictures and 5,000 captions, mean ± standard "
        f"deviation over {seeds} seed(s), which also choose the exchanged captions; {captions} "
        "caption(s) a training picture. i>t: a picture ranks captions; t>i: a caption ranks "
        "pictures; outputs: cosine before the sign; codes: Hamming distance of 256 bits. `-`: mean "
        f"of both directions of the outputs minus that of `{ALL}` without exchanged captions. "
        "Left out: share of the pairs. Precision: share of the left out pairs that is wrong. "
        "Recall: share of the wrong pairs that is left out. Wrong: share of the kept pairs that is "
        "wrong. CPU s: of the training."
    )


def _results(jobs: Sequence[NoisyJob], environment: Environment) -> dict[str, list[dict[str, Any]]]:
    """Return the results of each row that exist."""
    found: dict[str, list[dict[str, Any]]] = {job.row.name: [] for job in jobs}
    for job in jobs:
        if (result := load_result(job, environment)) is not None:
            found[job.row.name].append(result)
    return found


def _table(found: dict[str, list[dict[str, Any]]], clean: list[dict[str, Any]]) -> str:
    header = ["row", "outputs i>t", "outputs t>i", "-", "codes i>t", "codes t>i"]
    header += ["left out, %", "precision, %", "recall, %", "wrong, %", "CPU s"]
    body: list[list[str]] = [header]
    for name, results in found.items():
        paired = len(results) == len(clean) > 0
        body.append(
            [
                name,
                *(shown(r10(results, "outputs", direction)) for direction in DIRECTIONS),
                shown(both(results) - both(clean), "+") if paired else "-",
                *(shown(r10(results, "codes", direction)) for direction in DIRECTIONS),
                *_selection(results),
                shown(np.array([one["processor_seconds"] for one in results]), digits=0),
            ]
        )
    return table(body)


def _estimates(jobs: Sequence[JudgementJob], environment: Environment) -> str:
    """Return the table by which "auto" decides."""
    header = ["pictures", "captions", "exchanged, %", "estimate, %", "separation"]
    body = [[*header, "left out, %", "precision, %", "recall, %", "wrong, %"]]
    for job in jobs:
        if (result := load_result(job, environment)) is not None:
            estimate, separation = 100 * result["estimate"], result["separation"]
            size = [f"{job.pictures}", f"{job.captions}", f"{100 * job.share:.0f}"]
            values = [f"{estimate:.1f}", f"{separation:.2f}"]
            body.append([*size, *values, *_selection([result])])
    return table(body)


def _selection(results: Sequence[dict[str, Any]]) -> list[str]:
    """Return the cells of what is left out; "-" where a share is of nothing."""
    pairs, wrong, out, right_out = (
        np.array([one[name] for one in results], float)
        for name in ("pairs", "wrong", "left_out", "left_out_wrong")
    )
    parts = ((out, pairs), (right_out, out), (right_out, wrong), (wrong - right_out, pairs - out))
    return [shown(100 * a[b > 0] / b[b > 0]) for a, b in parts]


if __name__ == "__main__":
    sys.exit(main())
