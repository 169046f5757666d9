"""One `xmodal search` from a cold start: seconds, peak memory, and whether torch was imported.

    python benchmarks/cold_start.py [--demo demo] [--rounds 9] [--engine auto] [--quick]

Writes results/cold_start.md; takes a minute. The model and the index are those of ``xmodal demo``,
which runs first if ``--demo`` is not its folder. Each round is a whole process, a text query and a
picture query in turn; the first round fills the page cache and does not count.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from harness.report import table, write

TEXT = "a blue star at the top"
# Runs the command, then writes whether torch was imported into the file that argv[1] names.
PROGRAM = """
import sys
record = sys.argv.pop(1)
from xmodal.cli import main
try:
    main()
finally:
    open(record, "w").write(str("torch" in sys.modules))
"""


class Search(NamedTuple):
    """Seconds and peak memory in MB of a process, and whether it imported torch."""

    seconds: float
    memory: float
    torch: bool


def search(*words: object) -> Search:
    """Run one ``xmodal search``; this process must have no larger peak memory than its child."""
    with tempfile.NamedTemporaryFile("r") as record:
        command = [sys.executable, "-c", PROGRAM, record.name, "search", *map(str, words)]
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"{' '.join(command[4:])} exited with status {process.returncode}")
        return Search(seconds, usage.ru_maxrss / 1e3, record.read() == "True")


def prepare(folder: Path, pictures: int) -> None:
    """Run ``xmodal demo`` unless the folder has its model with the portable encoder."""
    if not (folder / "model" / "portable" / "config.json").exists():
        code = "from xmodal.cli import main; main()"
        demo = ("demo", "--out", folder, "--pictures", pictures)
        subprocess.run([sys.executable, "-c", code, *map(str, demo)], check=True)


def main() -> None:
    """Run the benchmark and write the report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--demo", type=Path, default=Path("demo"))
    parser.add_argument("--rounds", type=int, default=9, help="processes per query [default: 9]")
    parser.add_argument("--engine", default="auto", help="auto, onnx or torch")
    parser.add_argument("--quick", action="store_true", help="two rounds, no file")
    args = parser.parse_args()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    prepare(args.demo, 400 if args.quick else 2880)
    options = ("--model", args.demo / "model", "--index", args.demo / "index")
    options += ("--engine", args.engine)
    picture = next((args.demo / "pictures").glob("*.png"))
    queries = {"text": (TEXT,), "picture": ("--image", picture)}
    found: dict[str, list[Search]] = {kind: [] for kind in queries}
    for number in range((2 if args.quick else args.rounds) + 1):
        for kind, query in queries.items():
            one = search(*query, *options)
            if number:
                found[kind].append(one)
    rows: list[list[object]] = [
        ["query", "seconds, median", "range", "peak memory MB, median", "torch imported"]
    ]
    for kind, runs in found.items():
        seconds = [one.seconds for one in runs]
        memory = statistics.median(one.memory for one in runs)
        span = f"{min(seconds):.2f} to {max(seconds):.2f}"
        torch = "yes" if any(one.torch for one in runs) else "no"
        rows.append([kind, f"{statistics.median(seconds):.2f}", span, f"{memory:.0f}", torch])
    write(
        "cold_start",
        "One xmodal search from a cold start, the model of the demo",
        f"python benchmarks/cold_start.py --engine {args.engine}",
        [(f"Whole processes, median of {len(found['text'])}", table(rows))],
        keep=not args.quick,
    )


if __name__ == "__main__":
    main()
