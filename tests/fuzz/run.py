"""Fuzz one target with atheris (coverage-guided), and print what was found.

    python tests/fuzz/run.py TARGET --seconds 60 --corpus FOLDER

Inputs that reach new code are kept in FOLDER/TARGET, findings in FOLDER/findings. The exit status
is 1 if there are findings. A finding is repeated by ``run.py TARGET --input FILE``.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

HANG_SECONDS = 30
"""Wall-clock time after which libFuzzer ends a run; the limit of processor time is in child.py."""
_STATUS = re.compile(r"#(\d+)\s.*?cov: (\d+)(?:.*?exec/s: (\d+))?")


@dataclass
class Result:
    """Runs of a target, covered branches, and findings: kind and input by file name."""

    target: str
    runs: int
    seconds: float
    coverage: int
    findings: dict[str, tuple[str, bytes]]

    def line(self) -> str:
        """Return the result in one line."""
        speed = self.runs / max(self.seconds, 1e-9)
        return (
            f"{self.target:<16} {self.runs:>10,} runs {speed:>8,.0f}/s"
            f"  coverage {self.coverage:>6,}  findings {len(self.findings)}"
        )

    def details(self) -> str:
        """Return the findings: name, kind, traceback and input."""
        return "".join(
            f"  {file}: {text.strip()}\n  base64 {base64.b64encode(data).decode()}\n"
            for file, (text, data) in self.findings.items()
        )


def run_child(*arguments: object) -> tuple[int, str]:
    """Run child.py in a process; return its exit status and standard error."""
    program = str(Path(__file__).with_name("child.py"))
    ran = subprocess.run(
        [sys.executable, program, *map(str, arguments)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )
    return ran.returncode, ran.stderr


def fuzz(
    target: str,
    seconds: float,
    corpus: Path,
    random_seed: int = 0,
    run: Callable[..., tuple[int, str]] = run_child,
) -> Result:
    """Run a target for so many seconds, in as many processes as it takes.

    ``random_seed``: of the fuzzer; 0 is another one each time. ``run``: runs child.py.
    """
    from fuzz.registry import MAX_BYTES
    from fuzz.targets import TARGETS

    own, found = corpus / target, corpus / "findings"
    for path in (own, found):
        path.mkdir(parents=True, exist_ok=True)
    for seed in TARGETS[target].seeds():
        (own / hashlib.sha1(seed).hexdigest()).write_bytes(seed)
    started, runs, coverage = time.monotonic(), 0, 0
    while (left := seconds - (time.monotonic() - started)) > 1 or not runs:
        options = [f"-max_total_time={max(1, int(left))}", f"-max_len={MAX_BYTES}"]
        options += [f"-timeout={HANG_SECONDS}", f"-artifact_prefix={found / target}-"]
        options += [f"-seed={random_seed}"]
        code, errors = run(target, found, *options, own)
        status = [match.groups() for match in _STATUS.finditer(errors)]
        if not status:
            raise RuntimeError(f"the process of {target} ended at once:\n{errors[-3000:]}")
        runs += int(status[-1][0])
        coverage = max(coverage, *(int(one[1]) for one in status))
        if code:
            _add_reason(found, target, errors)
    return Result(target, runs, time.monotonic() - started, coverage, findings(found, target))


def _add_reason(found: Path, target: str, output: str) -> None:
    """Write the last lines of a process that libFuzzer ended beside the input of its last run."""
    for path in found.glob(f"{target}-*"):
        text = path.with_suffix(".txt")
        if path.suffix not in (".txt", ".bin") and not text.exists():
            text.write_text(f"{path.name.split('-')[1]} of the process\n{output[-4000:]}")


def findings(found: Path, target: str) -> dict[str, tuple[str, bytes]]:
    """Return kind and input of the findings of a target, by file name."""
    inputs = [path for path in sorted(found.glob(f"{target}-*")) if path.suffix != ".txt"]
    texts = {path: path.with_suffix(".txt") for path in inputs}
    return {
        path.name: (text.read_text() if text.exists() else "", path.read_bytes())
        for path, text in texts.items()
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status."""
    from fuzz.targets import TARGETS, available

    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("target", choices=[*available(), "all"])
    parser.add_argument("--seconds", type=float, default=60, help="of each target (default: 60)")
    parser.add_argument("--corpus", type=Path, help="default: a temporary folder")
    parser.add_argument("--input", type=Path, help="run one input, with its traceback")
    given = parser.parse_args(arguments)
    if given.input:
        TARGETS[given.target].run(given.input.read_bytes())
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        corpus = given.corpus or Path(temporary)
        failed = False
        for name in available() if given.target == "all" else [given.target]:
            result = fuzz(name, given.seconds, corpus)
            print(result.line(), flush=True)
            print(result.details(), end="", flush=True)
            failed |= bool(result.findings)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
