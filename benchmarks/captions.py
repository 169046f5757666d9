"""R@1, R@5, R@10 of pictures and captions: widths, methods, negatives, with baselines.

    python benchmarks/captions.py --data FOLDER [--seeds N] [--jobs N] [--quick] [--fresh]
                                  [--work FOLDER] [--bits N]

Writes results/captions.md, with ``--bits`` results/captions-N.md with the default method at this
width alone; takes about an hour on 2 cores, with ``--quick`` (one seed, 3 epochs, no
file) a few minutes. The layout of ``--data`` is that of benchmarks/harness/tasks.py, of which
flickr8k is required; the table of emoji is left out if its data or the backbones are missing.
Results of finished trainings are kept in the work folder, so an interrupted run continues when the
command is repeated.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace

from harness import caption_sets, caption_tables
from harness.caption_jobs import CaptionJob
from harness.caption_tables import CaptionResults
from harness.command_line import (
    environment_of,
    exit_status,
    report_failures,
    training_parser,
)
from harness.jobs import run_all
from harness.report import write
from harness.rows import Row

SEEDS = 3
WIDTHS = (256, 64, 128, 384, 512)
"""Bits of the default method, the default first."""
DEFAULT_BITS = WIDTHS[0]
DEFAULT = Row("contrastive", "the default for captions", "contrastive")
NEGATIVES = tuple(
    Row(f"contrastive, negatives {kind}", "", "contrastive", {"negatives": kind})
    for kind in ("random", "semi-hard", "policy")
)
"""Rows with additional hard negatives."""
SCHGAN = Row("schgan", "one pair for each caption", "schgan")
EMOJI = (caption_sets.EMOJI_WORDS, caption_sets.EMOJI_MINILM)
EPOCHS = 3
"""Epochs of ``--quick``."""


def main() -> int:
    """Run the jobs and write the report."""
    parser = training_parser(__doc__, work="captions-work")
    parser.add_argument("--bits", type=int, help="one width of the default method alone")
    args = parser.parse_args()
    return exit_status(lambda: _run(args))


def _run(args: argparse.Namespace) -> int:
    environment, workers = environment_of(args)
    chosen = jobs(args)
    failures = run_all(chosen, environment, workers, fresh=args.fresh)
    bits = args.bits or DEFAULT_BITS
    sections = caption_tables.sections(CaptionResults(chosen, environment), bits)
    if args.quick:
        sections.insert(0, ("Quick run", "**few epochs: the values are not meaningful**"))
    command = "python benchmarks/captions.py --data FOLDER"
    command += f" --seeds {args.seeds}" * bool(args.seeds)
    command += f" --bits {args.bits}" * bool(args.bits)
    name = f"captions-{args.bits}" if args.bits else "captions"
    write(name, "Pictures and captions", command, sections, keep=not args.quick)
    return report_failures(failures)


def jobs(args: argparse.Namespace) -> list[CaptionJob]:
    """All jobs, ordered by importance."""
    rows = (DEFAULT, *NEGATIVES, SCHGAN)
    if args.quick:
        rows = tuple(replace(row, settings=row.settings | {"epochs": EPOCHS}) for row in rows)
    default, *others, schgan = rows
    dev = caption_sets.DEV
    emoji = [name for name in EMOJI if caption_sets.available(name, args.data)]
    seeds = range(1 if args.quick else args.seeds or SEEDS)
    widths = (args.bits,) if args.bits else WIDTHS
    found = [CaptionJob(dev, default, seed, bits) for bits in widths for seed in seeds]
    if args.bits:
        return found
    for seed in seeds:
        found += [CaptionJob(dev, row, seed, DEFAULT_BITS) for row in others]
        found += [CaptionJob(name, default, seed, DEFAULT_BITS) for name in emoji]
        found.append(CaptionJob(dev, schgan, seed, DEFAULT_BITS))
    return found


if __name__ == "__main__":
    sys.exit(main())
