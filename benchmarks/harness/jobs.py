"""Jobs: one training with its evaluation, whose result is kept as a JSON file.

The file name contains a hash of the task, the content of its data, the method with all settings,
the seed, the bits and the version of xmodal. A job whose file exists is not run again, so an
interrupted program continues. A changed default makes another job; other changes of the code do
not, but each result stores a hash of the code, and the tables report results of other code.
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
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cache
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

import xmodal
from harness import tasks
from harness.memory import process_memory, reset_peak_memory
from harness.rows import Row
from xmodal.codes import BinaryCodes
from xmodal.evaluation.baselines import fit_baselines
from xmodal.evaluation.code_health import code_health
from xmodal.evaluation.metrics import by_radius, groups_by_labels
from xmodal.evaluation.protocol import Evaluator, Part
from xmodal.modality import DIRECTIONS, MODALITIES, Modality
from xmodal.training.methods.schgan_paper.config import Config as PaperConfig
from xmodal.training.methods.schgan_paper.train import with_selection_queries
from xmodal.training.run import Run
from xmodal.training.train import METHODS

MODEL = "codes"
"""How the figures of a trained row are called in its result; baselines have their own names."""
CODE = (
    "encoders/towers.py", "training/pseudo_labels.py", "training/losses.py",
    "training/prototypes.py", "training/critics.py", "training/pairs.py", "training/policy.py",
    "training/objective.py", "training/run.py", "training/validation.py", "linear_models.py",
    "evaluation/baselines.py", "evaluation/protocol.py", "evaluation/metrics.py",
    "evaluation/code_health.py", "codes.py", "data/synthetic.py",
)  # fmt: skip
"""Modules that results depend on, in addition to those of the method."""
Result = dict[str, Any]


@dataclass(frozen=True)
class Environment:
    """The folders of data and of results (``work``), and the number of threads of a job."""

    data: Path
    work: Path
    threads: int = 1


class Runnable(Protocol):
    """A job that :func:`run_all` runs: a training with its evaluation."""

    @property
    def label(self) -> str:
        """Description for progress messages."""

    @property
    def kind(self) -> str:
        """Jobs of one kind are expected to take the same time."""

    def inputs(self) -> dict[str, Any]:
        """Everything that the result depends on, except the content of the data."""

    def code(self) -> str:
        """A hash of the code that its result depends on."""

    def path(self, environment: Environment) -> Path:
        """The file of the result. Raises DataError if data is missing."""

    def prepare(self, environment: Environment) -> None:
        """What jobs share, done once before the worker processes start."""

    def measure(self, environment: Environment) -> Result:
        """Train and evaluate; the result is JSON."""


@dataclass(frozen=True)
class Job:
    """One training with its evaluation; without a row, that of the baselines."""

    task: tasks.Task
    row: Row | None
    seed: int
    bits: int = 32

    @property
    def label(self) -> str:
        """Description for progress messages."""
        row = self.row.name if self.row else "baselines"
        return f"{self.task.name} {row} {self.bits} bits seed {self.seed}"

    @property
    def kind(self) -> str:
        """Jobs of one kind are expected to take the same time."""
        return f"{re.sub('-[0-9]+', '', self.task.name)} {self.row.name if self.row else ''}"

    def inputs(self) -> dict[str, Any]:
        """Everything that the result depends on, except the content of the data."""
        return {
            "task": asdict(self.task),
            "method": self.row.method if self.row else "baselines",
            "config": asdict(self.row.config()) if self.row else {},
            "seed": self.seed,
            "bits": self.bits,
            "version": xmodal.__version__,
        }

    def code(self) -> str:
        """A hash of the code that its result depends on."""
        return code_hash(METHODS[self.row.method].__name__.split(".")[3] if self.row else "")

    def path(self, environment: Environment) -> Path:
        """The file of the result."""
        inputs = self.inputs() | {"data": tasks.fingerprint(self.task, environment.data)}
        return result_path(environment, self.task.name, inputs)

    def prepare(self, environment: Environment) -> None:
        """Encode the names or render the toy data."""
        tasks.prepare(self.task, environment.data, environment.work)

    def measure(self, environment: Environment) -> Result:
        """Train the row and evaluate it; without a row, evaluate the baselines."""
        return _trained(self, environment) if self.row else _baseline(self, environment)


@dataclass(frozen=True)
class Plan:
    """The jobs of a table. ``watch``: further jobs, of which only the training history is drawn."""

    table: str
    jobs: tuple[Job, ...]
    watch: tuple[Job, ...] = ()

    @property
    def all_jobs(self) -> tuple[Job, ...]:
        """``jobs`` and ``watch``."""
        return self.jobs + self.watch


def result_path(environment: Environment, name: str, inputs: dict[str, Any]) -> Path:
    """The file of the result of a job of task ``name``, with a hash of ``inputs``."""
    hashed = hashlib.blake2b(json.dumps(inputs, sort_keys=True).encode(), digest_size=8)
    words = (name, inputs["method"], inputs["bits"], inputs["seed"], hashed.hexdigest())
    return environment.work / f"{'-'.join(map(str, words))}.json"


def run(job: Runnable, environment: Environment) -> Result:
    """Run a job, write its result to its file (atomically) and return it."""
    torch.set_num_threads(environment.threads)
    result = job.inputs() | {"code": job.code()} | job.measure(environment)
    path = job.path(environment)
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    new.write_text(json.dumps(_without_nan(result), indent=1))
    os.replace(new, path)
    return result


def _trained(job: Job, environment: Environment) -> Result:
    assert job.row is not None
    config: Any = job.row.config()
    leak = getattr(config, "class_labels", "") == "all"
    loaded = tasks.load(job.task, environment.data, environment.work, job.seed, job.bits, leak=leak)
    data = loaded.data
    if isinstance(config, PaperConfig):
        data = with_selection_queries(data, loaded.queries(), config)
    training = Run(data, seed=job.seed, patience=10**6)
    reset_peak_memory()
    wall, processor = time.perf_counter(), time.process_time()
    with _updates() as updates:
        towers = METHODS[job.row.method].train(data, config, training)
    wall, processor = time.perf_counter() - wall, time.process_time() - processor

    def coded(part: Part) -> Part:
        codes: dict[Modality, BinaryCodes] = {
            modality: towers.codes(modality, torch.from_numpy(part.features[modality]))
            for modality in MODALITIES
        }
        return replace(part, codes=codes)

    query, database = coded(loaded.query), coded(loaded.database)
    return {
        "figures": {MODEL: Evaluator(query, database, query).codes()},
        "by radius": _by_radius(query, database),
        "health": {modality: code_health(database.codes[modality]) for modality in MODALITIES},
        "seconds": round(wall, 2),
        "processor_seconds": round(processor, 2),
        "memory": peak_memory(),
        "epochs": len(training.history),
        "updates": list(updates.values()),
        "history": training.history,
    }


def _by_radius(query: Part, database: Part) -> dict[str, Any]:
    """Precision and recall within each radius, by direction."""
    labels = query.labels, database.labels
    found = {}
    for source, target in DIRECTIONS:
        groups = groups_by_labels(query.codes[source], database.codes[target], *labels)
        precision, recall = by_radius(groups)
        found[f"{source}->{target}"] = {"precision": precision.tolist(), "recall": recall.tolist()}
    return found


def _baseline(job: Job, environment: Environment) -> Result:
    loaded = tasks.load(job.task, environment.data, environment.work, job.seed, job.bits)
    evaluator = Evaluator(loaded.query, loaded.database, loaded.query)
    figures = {"chance": evaluator.chance()}
    train = loaded.train
    for baseline in fit_baselines(
        train.features, train.labels, train.labelled, job.bits, seed=job.seed
    ):
        figures[baseline.name] = evaluator.baseline(baseline)
    return {"figures": figures}


@contextmanager
def _updates() -> Iterator[dict[int, int]]:
    """Count the steps of each optimiser within the block, in order of the first step."""
    counts: dict[int, int] = {}
    kept: list[Any] = []  # keeps the optimisers alive, so that ids are unique

    def count(optimiser: Any, *_: Any) -> None:
        if id(optimiser) not in counts:
            kept.append(optimiser)
        counts[id(optimiser)] = counts.get(id(optimiser), 0) + 1

    hook = register_optimizer_step_post_hook(count)
    try:
        yield counts
    finally:
        hook.remove()


def peak_memory() -> float | None:
    """Peak memory of this process since the reset, in MB; None if unknown."""
    peak = process_memory("VmHWM")
    return None if peak is None else round(peak / 2**20)


@cache
def code_hash(method: str, modules: tuple[str, ...] = CODE) -> str:
    """Hash of ``modules`` and those of a method, without comments and docstrings."""
    package = Path(xmodal.__file__).parent
    hashed = hashlib.blake2b(digest_size=4)
    own = package / "training" / "methods" / method
    files = sorted(own.rglob("*.py")) if method else []
    for file in [*(package / name for name in modules), *files]:
        hashed.update(ast.dump(_without_docstrings(ast.parse(file.read_text()))).encode())
    return hashed.hexdigest()


def _without_docstrings(tree: ast.Module) -> ast.Module:
    """Remove statements that consist of a string, from all blocks."""
    for node in ast.walk(tree):
        for name, block in ast.iter_fields(node):
            if isinstance(block, list) and block and isinstance(block[0], ast.stmt):
                kept = [one for one in block if not _is_text(one)]
                setattr(node, name, kept)
    return tree


def _is_text(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def load_result(job: Runnable, environment: Environment) -> Result | None:
    """The result of a job, or None if there is none yet."""
    path = job.path(environment)
    return json.loads(path.read_text()) if path.exists() else None


# ---- many jobs -----------------------------------------------------------------------------------


def run_all(
    jobs: Sequence[Runnable], environment: Environment, workers: int, fresh: bool = False
) -> list[str]:
    """Run all jobs without a result, with progress on stdout; return one line per failed job.

    ``fresh``: also run jobs whose result comes from other code.
    """
    unique = {job.path(environment): job for job in jobs}
    waiting = [job for path, job in unique.items() if not _usable(job, path, fresh)]
    print(f"{len(unique)} jobs, {len(unique) - len(waiting)} of them done", flush=True)
    for job in waiting:
        job.prepare(environment)
    workers = min(workers, len(waiting))
    progress, wrong = _Progress(waiting, max(1, workers)), []
    for job, seconds, error in _outcomes(waiting, environment, workers):
        progress.show(job, seconds, error)
        if error:
            wrong.append(f"{job.label}: {error}")
    return wrong


def _usable(job: Runnable, path: Path, fresh: bool) -> bool:
    return path.exists() and not (fresh and json.loads(path.read_text())["code"] != job.code())


def _outcomes(
    jobs: Sequence[Runnable], environment: Environment, workers: int
) -> Iterator[tuple[Runnable, float, str]]:
    """Each finished job with its seconds and its error message ("" if it succeeded)."""
    if workers < 2:
        yield from (_attempt(job, environment) for job in jobs)
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_exit_with_parent)
    try:
        for one in as_completed([pool.submit(_attempt, job, environment) for job in jobs]):
            yield one.result()
    except BaseException:
        for child in multiprocessing.active_children():
            child.terminate()
        pool.shutdown(cancel_futures=True)
        raise
    pool.shutdown()


def _exit_with_parent() -> None:
    """In a worker: ignore Ctrl-C, which the parent handles, and exit when the parent ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _attempt(job: Runnable, environment: Environment) -> tuple[Runnable, float, str]:
    started = time.perf_counter()
    trace = job.path(environment).with_suffix(".failed")
    try:
        run(job, environment)
        trace.unlink(missing_ok=True)
        error = ""
    except Exception as wrong:  # the other jobs continue
        trace.parent.mkdir(parents=True, exist_ok=True)
        trace.write_text(traceback.format_exc())
        error = f"{type(wrong).__name__}: {wrong}".splitlines()[0]
    return job, time.perf_counter() - started, error


class _Progress:
    """Prints a line per job, with an estimate of the remaining time from jobs of the same row."""

    def __init__(self, jobs: Sequence[Runnable], workers: int) -> None:
        self.left = list(jobs)
        self.count, self.workers = len(jobs), workers
        self.seconds: dict[str, list[float]] = {}

    def show(self, job: Runnable, seconds: float, error: str) -> None:
        self.left.remove(job)
        self.seconds.setdefault(job.kind, []).append(seconds)
        overall = float(np.mean([one for many in self.seconds.values() for one in many]))
        rest = sum(float(np.mean(self.seconds.get(one.kind, [overall]))) for one in self.left)
        done = self.count - len(self.left)
        state = f"FAILED {error}" if error else f"{seconds:.0f} s"
        ahead = f", about {_duration(rest / self.workers)} left" if self.left else ""
        print(f"[{done}/{self.count}] {job.label}: {state}{ahead}", flush=True)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def _without_nan(value: Any) -> Any:
    """Replace NaN, which JSON does not have, by None."""
    if isinstance(value, Mapping):
        return {key: _without_nan(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_without_nan(one) for one in value]
    return None if isinstance(value, float) and math.isnan(value) else value
