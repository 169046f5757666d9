"""One process of the fuzzer: runs one target by atheris until its time is over.

    python child.py TARGET FINDINGS [libFuzzer options] [folders of the corpus]

An uncaught exception, a run of more than MAX_SECONDS of processor time or of more than MAX_BYTES of
memory is written to the folder FINDINGS, once per kind and place, and the run goes on. libFuzzer
ends the process for a run that hangs and for a crash of native code.
"""

from __future__ import annotations

import hashlib
import logging
import resource
import sys
import time
import traceback
import warnings
from pathlib import Path

import atheris

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]
MAX_SECONDS = 2.0
MAX_BYTES = 500 << 20
RESET_PEAK = "5"
"""Written to ``clear_refs``, this resets the peak of resident memory (Linux)."""


class Watched:
    """A target whose findings are written to a folder; ``findings``: kinds and places so far."""

    def __init__(self, name: str, folder: Path) -> None:
        from fuzz.targets import TARGETS

        self.target, self.folder = TARGETS[name], folder
        self.findings: set[str] = set()

    def __call__(self, data: bytes) -> None:
        """Run the target once, and again if it was slow: a first run may import modules."""
        if self.run(data) > MAX_SECONDS and (seconds := self.run(data)) > MAX_SECONDS:
            self.record("slow", data, f"{seconds:.1f} s")

    def run(self, data: bytes) -> float:
        """Run the target once and return the seconds of processor time; record other findings."""
        memory, start = reset_peak(), time.process_time()
        try:
            self.target.run(data)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # panics of Rust code are no Exception
            self.record(f"{type(error).__name__} at {place(error)}", data, error)
            return 0.0
        seconds, grown = time.process_time() - start, peak() - memory
        if grown > MAX_BYTES:
            self.record("memory", data, f"{grown >> 20} MiB")
        return seconds

    def record(self, kind: str, data: bytes, detail: object) -> None:
        """Write a finding, unless there is one of its kind."""
        if kind in self.findings:
            return
        self.findings.add(kind)
        name = f"{self.target.name}-{hashlib.sha256(kind.encode()).hexdigest()[:8]}"
        text = (
            "".join(traceback.format_exception(detail))
            if isinstance(detail, BaseException)
            else str(detail)
        )
        if not (self.folder / f"{name}.bin").exists():
            (self.folder / f"{name}.bin").write_bytes(data)
            (self.folder / f"{name}.txt").write_text(f"{kind}\n{text}", errors="backslashreplace")


def place(error: BaseException) -> str:
    """Return the innermost line of xmodal of a traceback, without machine paths."""
    frames = traceback.extract_tb(error.__traceback__)
    inside = [frame for frame in frames if "/xmodal" in frame.filename] or frames
    frame = inside[-1]
    return f"{Path(frame.filename).name}:{frame.lineno} {frame.name}"


def reset_peak() -> int:
    """Reset the peak of resident memory, and return the memory used now, in bytes."""
    with open("/proc/self/clear_refs", "w") as file:
        file.write(RESET_PEAK)
    return peak()


def peak() -> int:
    """Return the peak of resident memory since the last reset, in bytes."""
    with open("/proc/self/status") as file:
        line = next(line for line in file if line.startswith("VmHWM"))
    return int(line.split()[1]) << 10


def main() -> None:
    """Run the seeds, then the fuzzer."""
    warnings.simplefilter("ignore")
    logging.disable()
    name, folder = sys.argv[1], Path(sys.argv[2])
    with atheris.instrument_imports(include=["xmodal"]):
        watched = Watched(name, folder)
        for seed in watched.target.seeds():  # imports the modules that the target needs
            watched.target.run(seed)
    # libFuzzer compares the peak of the process, which includes that of its parent before exec.
    limit = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10) + 2 * (MAX_BYTES >> 20)
    atheris.Setup([sys.argv[0], *sys.argv[3:], f"-rss_limit_mb={limit}"], watched)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
