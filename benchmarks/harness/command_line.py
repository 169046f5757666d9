"""What the scripts of many trainings have in common: arguments, threads, and how they end."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from harness.jobs import Places, run_all
from harness.schgan_plans import Plan
from xmodal.errors import XmodalError


def command_line(about: str | None, *, work: str) -> argparse.ArgumentParser:
    """A parser with the arguments that all of them take."""
    parser = argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=_count, help="of each table's own, if not told")
    parser.add_argument("--jobs", type=_count, help="processes")
    parser.add_argument("--quick", action="store_true", help="does it all run?")
    parser.add_argument("--fresh", action="store_true", help="repeat results of other code")
    parser.add_argument("--work", type=Path, default=Path(work))
    return parser


def carry_out(
    told: argparse.Namespace,
    plans: Callable[[argparse.Namespace], Sequence[Plan]],
    write: Callable[[Plan, Places], None],
) -> int:
    """Do the jobs of all plans, then write each; the exit status."""
    workers = told.jobs or os.cpu_count() or 1
    places = Places(told.data, told.work, threads(workers))

    def work() -> int:
        chosen = plans(told)
        every = [job for one in chosen for job in one.every]
        wrong = run_all(every, places, workers, fresh=told.fresh)
        for one in chosen:
            write(one, places)
        for line in wrong:
            print(f"failed: {line}", file=sys.stderr)
        return 1 if wrong else 0

    return ended(work)


def ended(work: Callable[[], int]) -> int:
    """The exit status of some work, whose mistakes and interruption are told in a line."""
    try:
        return work()
    except XmodalError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130


def threads(workers: int) -> int:
    """How many a job may use: its share of the cores, or OMP_NUM_THREADS if that is set.

    Workers read the variables when they start: numpy's threads heed nothing else, and threads that
    wait actively for each other on shared cores cost many times what they bring.
    """
    share = max(1, (os.cpu_count() or 1) // workers)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, str(share))
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    told = os.environ["OMP_NUM_THREADS"]
    return int(told) if told.isdecimal() and int(told) else share


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of 1 or more")
    return int(text)
