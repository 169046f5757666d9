"""Jobs of the tables: each trains and measures once, and leaves one JSON file.

The name of the file holds a hash of the cell, the content of its data, the method with all its
settings, the seed, the bits and the version of xmodal: what is there already is not run again, so
whatever was killed goes on. A changed default is another job; so is nothing else in the code, but
each result says which code it comes from, and the tables count the strangers.
"""

from __future__ import annotations

import ast
import hashlib
import json
import math
import multiprocessing
import os
import re
import signal
import threading
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import cache
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import numpy as np
import sets
import torch
from rows import Row
from torch.optim.optimizer import register_optimizer_step_post_hook

import xmodal
from xmodal.codes import BinaryCodes
from xmodal.evaluation import DIRECTIONS, Measure, Part, fitted_baselines
from xmodal.index import MODALITIES, Modality
from xmodal.metrics import by_radius, code_health, groups_by_codes, shared_labels
from xmodal.training.methods.schgan_paper.config import Config as PaperConfig
from xmodal.training.methods.schgan_paper.train import with_selection_queries
from xmodal.training.run import Run
from xmodal.training.train import METHODS

MODEL = "codes"
"""How the figures of a trained row are called in its result; baselines have their own names."""
LEARNS = (
    "towers.py", "training/pseudo_labels.py", "training/losses.py", "training/prototypes.py",
    "training/critics.py", "training/pairs.py", "training/policy.py", "training/objective.py",
    "training/run.py", "training/validation.py", "linear_models.py", "baselines.py",
    "evaluation.py", "metrics.py", "codes.py", "toy.py",
)  # fmt: skip
"""Modules that results depend on, beside the method's own."""
Result = dict[str, Any]


@dataclass(frozen=True)
class Places:
    """Where data is read and results are kept; how many threads a job may use."""

    data: Path
    work: Path
    threads: int = 1


@dataclass(frozen=True)
class Job:
    """One training and its figures; without a row, those of the baselines."""

    cell: sets.Cell
    row: Row | None
    seed: int
    bits: int = 32

    @property
    def label(self) -> str:
        """For people."""
        row = self.row.name if self.row else "baselines"
        return f"{self.cell.name} {row} {self.bits} bits seed {self.seed}"

    def told(self) -> dict[str, Any]:
        """All that the result depends on, but for the data's content."""
        return {
            "cell": asdict(self.cell),
            "method": self.row.method if self.row else "baselines",
            "config": asdict(self.row.config()) if self.row else {},
            "seed": self.seed,
            "bits": self.bits,
            "version": xmodal.__version__,
        }

    def code(self) -> str:
        """A hash of the code that its result depends on."""
        return code(METHODS[self.row.method].__name__.split(".")[3] if self.row else "")

    def path(self, places: Places) -> Path:
        """The file of its result."""
        told = self.told() | {"data": sets.fingerprint(self.cell, places.data)}
        hashed = hashlib.blake2b(json.dumps(told, sort_keys=True).encode(), digest_size=8)
        name = f"{self.cell.name}-{told['method']}-{self.bits}-{self.seed}-{hashed.hexdigest()}"
        return places.work / f"{name}.json"


def run(job: Job, places: Places) -> Result:
    """Do a job and keep its result."""
    torch.set_num_threads(places.threads)
    result = job.told() | {"code": job.code()}
    result |= _trained(job, places) if job.row else _baseline(job, places)
    path = job.path(places)
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    new.write_text(json.dumps(_without_nan(result), indent=1))
    os.replace(new, path)
    return result


def _trained(job: Job, places: Places) -> Result:
    assert job.row is not None
    config: Any = job.row.config()
    leak = getattr(config, "class_labels", "") == "all"
    loaded = sets.load(job.cell, places.data, places.work, job.seed, job.bits, leak=leak)
    data = loaded.data
    if isinstance(config, PaperConfig):
        data = with_selection_queries(data, loaded.queries(), config)
    training = Run(data, seed=job.seed, patience=10**6)
    _forget_peak()
    wall, processor = time.perf_counter(), time.process_time()
    with _updates() as updates:
        towers = METHODS[job.row.method].train(data, config, training)
    wall, processor = time.perf_counter() - wall, time.process_time() - processor

    def coded(part: Part) -> Part:
        codes: dict[Modality, BinaryCodes] = {
            side: towers.codes(side, torch.from_numpy(part.features[side])) for side in MODALITIES
        }
        return replace(part, codes=codes)

    query, database = coded(loaded.query), coded(loaded.database)
    return {
        "figures": {MODEL: Measure(query, database, query, True).coded()},
        "by radius": _by_radius(query, database),
        "health": {side: code_health(database.codes[side]) for side in MODALITIES},
        "seconds": round(wall, 2),
        "processor_seconds": round(processor, 2),
        "memory": _peak(),
        "epochs": len(training.history),
        "updates": list(updates.values()),
        "history": training.history,
    }


def _by_radius(query: Part, database: Part) -> dict[str, Any]:
    """Precision and recall of what lies within each radius, by direction."""
    relevant = shared_labels(query.labels, database.labels) > 0
    found = {}
    for ask, answer in DIRECTIONS:
        groups = groups_by_codes(query.codes[ask], database.codes[answer], relevant)
        precision, recall = by_radius(groups)
        found[f"{ask}->{answer}"] = {"precision": precision.tolist(), "recall": recall.tolist()}
    return found


def _baseline(job: Job, places: Places) -> Result:
    loaded = sets.load(job.cell, places.data, places.work, job.seed, job.bits)
    measure = Measure(loaded.query, loaded.database, loaded.query, True)
    figures = {"chance": measure.chance()}
    for name, projections, as_floats in fitted_baselines(loaded.train, job.bits, job.seed, False):
        figures[name] = measure.projected(projections, as_floats)
    return {"figures": figures}


@contextmanager
def _updates() -> Iterator[dict[int, int]]:
    """Steps of each optimiser while this lasts, the first to step first."""
    counts: dict[int, int] = {}
    kept: list[Any] = []  # ids are those of living optimisers

    def count(optimiser: Any, *_: Any) -> None:
        if id(optimiser) not in counts:
            kept.append(optimiser)
        counts[id(optimiser)] = counts.get(id(optimiser), 0) + 1

    hook = register_optimizer_step_post_hook(count)
    try:
        yield counts
    finally:
        hook.remove()


def _forget_peak() -> None:
    """Let the kernel count this process's most memory from now on; Linux alone can."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak() -> float | None:
    """The most memory that was in use since, in MB, of the whole process; None if unknown."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return round(int(line.split()[1]) / 1024)
    return None


@cache
def code(method: str) -> str:
    """A hash of ``LEARNS`` and a method, whatever their comments and docstrings say."""
    package = Path(xmodal.__file__).parent
    hashed = hashlib.blake2b(digest_size=4)
    own = package / "training" / "methods" / method
    files = sorted(own.rglob("*.py")) if method else []
    for file in [*(package / name for name in LEARNS), *files]:
        hashed.update(ast.dump(_without_docstrings(ast.parse(file.read_text()))).encode())
    return hashed.hexdigest()


def _without_docstrings(tree: ast.Module) -> ast.Module:
    """Strings that stand alone say something to people only."""
    for node in ast.walk(tree):
        for name, block in ast.iter_fields(node):
            if isinstance(block, list) and block and isinstance(block[0], ast.stmt):
                kept = [one for one in block if not _is_text(one)]
                setattr(node, name, kept)
    return tree


def _is_text(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def known(job: Job, places: Places) -> Result | None:
    """Its result, if there is one."""
    path = job.path(places)
    return json.loads(path.read_text()) if path.exists() else None


# ---- many of them --------------------------------------------------------------------------------


def run_all(jobs: Sequence[Job], places: Places, workers: int, fresh: bool = False) -> list[str]:
    """Do what is not done yet, and say how it goes; what went wrong, a line each.

    ``fresh``: results of other code are repeated.
    """
    unique = {job.path(places): job for job in jobs}
    waiting = [job for path, job in unique.items() if not _usable(job, path, fresh)]
    print(f"{len(unique)} jobs, {len(unique) - len(waiting)} of them done", flush=True)
    for cell in {job.cell: None for job in waiting}:
        sets.prepare(cell, places.data, places.work)
    workers = min(workers, len(waiting))
    progress, wrong = _Progress(waiting, max(1, workers)), []
    for job, seconds, error in _outcomes(waiting, places, workers):
        progress.show(job, seconds, error)
        if error:
            wrong.append(f"{job.label}: {error}")
    return wrong


def _usable(job: Job, path: Path, fresh: bool) -> bool:
    return path.exists() and not (fresh and json.loads(path.read_text())["code"] != job.code())


def _outcomes(
    jobs: Sequence[Job], places: Places, workers: int
) -> Iterator[tuple[Job, float, str]]:
    """Each job with its seconds and its error, as they end."""
    if workers < 2:
        yield from (_attempt(job, places) for job in jobs)
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_follow_parent)
    try:
        for one in as_completed([pool.submit(_attempt, job, places) for job in jobs]):
            yield one.result()
    except BaseException:
        for child in multiprocessing.active_children():
            child.terminate()
        pool.shutdown(cancel_futures=True)
        raise
    pool.shutdown()


def _follow_parent() -> None:
    """In a worker: leave Ctrl-C to the parent, and end when the parent is gone, killed or not."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _attempt(job: Job, places: Places) -> tuple[Job, float, str]:
    started = time.perf_counter()
    trace = job.path(places).with_suffix(".failed")
    try:
        run(job, places)
        trace.unlink(missing_ok=True)
        error = ""
    except Exception as wrong:  # one row that fails leaves the others alone
        trace.parent.mkdir(parents=True, exist_ok=True)
        trace.write_text(traceback.format_exc())
        error = f"{type(wrong).__name__}: {wrong}".splitlines()[0]
    return job, time.perf_counter() - started, error


class _Progress:
    """A line a job, with an estimate of the rest by what jobs of the same row took."""

    def __init__(self, jobs: Sequence[Job], workers: int) -> None:
        self.left = list(jobs)
        self.count, self.workers = len(jobs), workers
        self.seconds: dict[str, list[float]] = {}

    def show(self, job: Job, seconds: float, error: str) -> None:
        self.left.remove(job)
        self.seconds.setdefault(self._kind(job), []).append(seconds)
        overall = float(np.mean([one for many in self.seconds.values() for one in many]))
        rest = sum(
            float(np.mean(self.seconds.get(self._kind(one), [overall]))) for one in self.left
        )
        done = self.count - len(self.left)
        state = f"FAILED {error}" if error else f"{seconds:.0f} s"
        ahead = f", about {_duration(rest / self.workers)} left" if self.left else ""
        print(f"[{done}/{self.count}] {job.label}: {state}{ahead}", flush=True)

    @staticmethod
    def _kind(job: Job) -> str:
        return f"{re.sub('-[0-9]+', '', job.cell.name)} {job.row.name if job.row else ''}"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def _without_nan(value: Any) -> Any:
    """JSON has no NaN."""
    if isinstance(value, Mapping):
        return {key: _without_nan(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_without_nan(one) for one in value]
    return None if isinstance(value, float) and math.isnan(value) else value
