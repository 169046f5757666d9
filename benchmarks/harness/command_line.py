"""Command line of the programs that run many trainings: options, threads, exit status."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from harness.jobs import Environment, Plan, run_all
from xmodal.errors import XmodalError


def training_parser(about: str | None, *, work: str) -> argparse.ArgumentParser:
    """A parser with the common options; ``work``: default of the work folder."""
    parser = argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="see benchmarks/harness/tasks.py")
    parser.add_argument("--seeds", type=_count, help="[default: the number of each table]")
    parser.add_argument("--jobs", type=_count, help="number of processes [default: one per core]")
    parser.add_argument("--quick", action="store_true", help="few epochs, no table is written")
    parser.add_argument(
        "--fresh", action="store_true", help="repeat jobs whose result comes from other code"
    )
    parser.add_argument("--work", type=Path, default=Path(work))
    return parser


def run_plans(
    args: argparse.Namespace,
    plans: Callable[[argparse.Namespace], Sequence[Plan]],
    write: Callable[[Plan, Environment], None],
) -> int:
    """Run the jobs of all plans, then call ``write`` with each plan; return the exit status."""
    environment, workers = environment_of(args)

    def work() -> int:
        chosen = plans(args)
        jobs = [job for plan in chosen for job in plan.all_jobs]
        failures = run_all(jobs, environment, workers, fresh=args.fresh)
        for plan in chosen:
            write(plan, environment)
        return report_failures(failures)

    return exit_status(work)


def environment_of(args: argparse.Namespace) -> tuple[Environment, int]:
    """The environment of the options, and the number of processes; sets the threads."""
    workers = args.jobs or os.cpu_count() or 1
    return Environment(args.data, args.work, set_threads(workers)), workers


def report_failures(failures: Sequence[str]) -> int:
    """Print failed jobs to stderr; return the exit status."""
    for line in failures:
        print(f"failed: {line}", file=sys.stderr)
    return 1 if failures else 0


def exit_status(work: Callable[[], int]) -> int:
    """Call ``work``; an XmodalError (2) or Ctrl-C (130) is printed as one line to stderr."""
    try:
        return work()
    except XmodalError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command continues", file=sys.stderr)
        return 130


def set_threads(workers: int) -> int:
    """Set and return the threads of a job: its share of the cores, or OMP_NUM_THREADS if set.

    The environment variables are set because worker processes of numpy read nothing else.
    OMP_WAIT_POLICY is PASSIVE: on shared cores, active waiting is many times slower.
    """
    share = max(1, (os.cpu_count() or 1) // workers)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, str(share))
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    value = os.environ["OMP_NUM_THREADS"]
    return int(value) if value.isdecimal() and int(value) else share


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}, expected an integer of 1 or more")
    return int(text)
