"""Mutations of models, portable models, compressed codes, feature caches and indexes.

    python benchmarks/corruption.py [--count 2000] [--seed 0] [--work work/corruption] [--quick]

Each mutation changes one file of a copy of an artefact: flipped bits, changed bytes, truncation,
more bytes, zeroed ranges, swapped blocks, a missing file, a folder in its place, the file of
another artefact of the same shapes. The copy is loaded and used: texts and pictures are encoded,
both targets of an index are searched by codes, vectors, words and filters. Right is one line that
names the file, or results that are equal to those of the undamaged artefact. Uses run in processes
of their own, which are started again after a crash. Writes results/corruption.md; takes ten
minutes. Exit status 1 if a result is wrong.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from harness.mutations import BAD, CRASHED, GOOD, SLOW, Mutation, classify, mutations
from harness.report import table, write

SHARES = {"model": 3, "float32": 4, "int8": 3, "codes": 3, "cache": 3, "index": 4}
"""Relative numbers of mutations of each artefact."""
LIMIT, DEADLINE = 10.0, 120.0
"""Seconds that a use may take, and after which the process is stopped; the latter includes its
start and the uses of undamaged artefacts."""
MEMORY = 8 << 30
"""Bytes of address space of a process."""
SHOWN = 20
"""Wrong results that are listed."""


class Outcome(NamedTuple):
    """Result of a mutation of an artefact, a message, and seconds of the use."""

    artefact: str
    mutation: Mutation
    result: str
    message: str
    seconds: float


def work(made: Path, connection: Connection) -> None:
    """Receive names of artefacts and mutations, send results; a process runs this."""
    from harness.artefacts import artefacts

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # native libraries print before they abort
    by_name = {artefact.name: artefact for artefact in artefacts(made)}
    expected: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        while True:
            name, mutation = connection.recv()
            artefact = by_name[name]
            if name not in expected:
                expected[name] = undamaged(artefact, Path(scratch))
            started = time.perf_counter()
            result = classify(artefact, mutation, expected[name], Path(scratch))
            connection.send((*result, time.perf_counter() - started))


def undamaged(artefact: Any, scratch: Path) -> Any:
    """Return what a copy of the undamaged artefact gives; the second use gives the same."""
    import shutil

    found = []
    for _ in range(2):
        shutil.rmtree(scratch / "copy", ignore_errors=True)
        found.append(artefact.use(Path(shutil.copytree(artefact.folder, scratch / "copy"))))
    if found[0] != found[1]:
        raise SystemExit(f"{artefact.name} gives other results the second time")
    return found[1]


class Worker:
    """A process that classifies mutations; it is started again after a crash or a timeout."""

    def __init__(self, made: Path) -> None:
        self._made = made
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, child = context.Pipe()
        self._process = context.Process(target=work, args=(self._made, child), daemon=True)
        self._process.start()
        child.close()

    def run(self, name: str, mutation: Mutation) -> Outcome:
        """Return the outcome of one mutation."""
        self._connection.send((name, mutation))
        seconds = DEADLINE
        try:
            if self._connection.poll(DEADLINE):
                result, message, seconds = self._connection.recv()
            else:
                result, message = SLOW, f"more than {DEADLINE:.0f} s"
        except (EOFError, ConnectionError):
            self._process.join()
            result, message = CRASHED, f"exit status {self._process.exitcode}"
        if result in GOOD and seconds > LIMIT:
            result, message = SLOW, f"{seconds:.1f} s"
        if result in (SLOW, CRASHED):
            self.stop()
            self._start()
        return Outcome(name, mutation, result, message, seconds)

    def stop(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.join()
        self._connection.close()


def outcomes(made: Path, count: int, seed: int) -> Iterator[Outcome]:
    """Yield the outcomes of all mutations."""
    from harness.artefacts import artefacts

    worker, total = Worker(made), sum(SHARES.values())
    for artefact in artefacts(made):
        part = mutations(artefact, round(count * SHARES[artefact.name] / total), seed)
        for mutation in part:
            yield worker.run(artefact.name, mutation)
    worker.stop()


def by_artefact(found: Sequence[Outcome]) -> str:
    """Return the table of results by artefact."""
    rows: list[list[object]] = [["artefact", "mutations", *GOOD, *BAD, "slowest, s"]]
    for name in [*SHARES, "all"]:
        part = [one for one in found if name in (one.artefact, "all")]
        counts = Counter(one.result for one in part)
        slowest = max((one.seconds for one in part), default=0)
        numbers = [counts[result] for result in (*GOOD, *BAD)]
        rows.append([name, len(part), *numbers, f"{slowest:.1f}"])
    return table(rows)


def by_kind(found: Sequence[Outcome]) -> str:
    """Return the table of results by kind of mutation."""
    rows: list[list[object]] = [["mutation", "number", *GOOD, *BAD]]
    for kind in dict.fromkeys(sorted(one.mutation.kind for one in found)):
        part = [one for one in found if one.mutation.kind == kind]
        counts = Counter(one.result for one in part)
        rows.append([kind, len(part), *(counts[result] for result in (*GOOD, *BAD))])
    return table(rows)


def main() -> int:
    """Run the benchmark, write the report, return the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=2000, help="mutations [default: 2000]")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=Path("work/corruption"), help="artefacts")
    parser.add_argument("--quick", action="store_true", help="100 mutations, no file")
    args = parser.parse_args()
    from harness.artefacts import make_all

    if not (args.work / "complete").exists():
        make_all(args.work)
    count, found = 100 if args.quick else args.count, []
    for outcome in outcomes(args.work, count, args.seed):
        found.append(outcome)
        if outcome.result in BAD:
            print(describe(outcome), file=sys.stderr, flush=True)
        elif len(found) % 100 == 0:
            print(f"{len(found):,} of {count:,}", file=sys.stderr, flush=True)
    wrong = [one for one in found if one.result in BAD]
    sections = [("By artefact", by_artefact(found)), ("By mutation", by_kind(found))]
    if wrong:
        sections.append(("Wrong", "\n".join(f"- {describe(one)}" for one in wrong[:SHOWN])))
    write(
        "corruption",
        "One damaged file: refused in one line, or without effect",
        f"python benchmarks/corruption.py --count {count} --seed {args.seed}",
        sections,
        keep=not args.quick,
    )
    return 1 if wrong else 0


def describe(one: Outcome) -> str:
    """Return one line about an outcome."""
    message = " ".join(one.message.split())[:300]
    return f"{one.artefact}/{one.mutation.file}, {one.mutation.kind}: {one.result} ({message})"


if __name__ == "__main__":
    sys.exit(main())
