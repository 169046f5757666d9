"""Jobs on data with captions: training and evaluation, as by the command ``xmodal train``."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from typing import Any

import xmodal
from harness import caption_sets
from harness.caption_set_job import CaptionSetJob
from harness.jobs import (
    CODE,
    Environment,
    Result,
    code_hash,
    peak_memory,
)
from harness.memory import reset_peak_memory
from harness.rows import Row
from xmodal.data.split import with_roles
from xmodal.encoders.feature_encoder import FeatureEncoder
from xmodal.evaluation.evaluate import evaluate
from xmodal.training.train import METHODS, train

MODULES = (
    *CODE, "training/train.py", "training/negatives.py", "features/units.py", "data/split.py",
    "evaluation/captions.py", "evaluation/evaluate.py",
)  # fmt: skip
"""Modules that results depend on, in addition to those of the method."""


@dataclass(frozen=True)
class CaptionJob(CaptionSetJob):
    """One training on a data set of :mod:`harness.caption_sets`, with its evaluation."""

    row: Row
    seed: int
    bits: int

    @property
    def label(self) -> str:
        """Description for progress messages."""
        return f"{self.data_set} {self.row.name} {self.bits} bits seed {self.seed}"

    @property
    def kind(self) -> str:
        """Jobs of one kind are expected to take the same time."""
        return f"{self.data_set} {self.row.method} {self.row.settings}"

    def inputs(self) -> dict[str, Any]:
        """Everything that the result depends on, except the content of the data."""
        return {
            "data set": self.data_set,
            "method": self.row.method,
            "config": asdict(self.row.config()),
            "seed": self.seed,
            "bits": self.bits,
            "version": xmodal.__version__,
        }

    def code(self) -> str:
        """A hash of the code that its result depends on."""
        return code_hash(METHODS[self.row.method].__name__.split(".")[3], MODULES)

    def measure(self, environment: Environment) -> Result:
        """Train and evaluate; the result has the figures of ``report.json`` by captions.

        ``processor_seconds``: of the training; ``total_processor_seconds``: with reading and
        evaluation. ``memory``: peak, in MB.
        """
        reset_peak_memory()
        started = time.process_time()
        given = caption_sets.load(self.data_set, environment.data)
        options = replace(given.options, method=self.row.method, bits=self.bits, seed=self.seed)
        cache = environment.work / "features"
        before = time.process_time()
        encoder: Any = train(
            given.data, None, options, self.row.settings, cache=cache, features=given.features
        )
        trained = time.process_time()
        if given.features is not None:
            encoder = FeatureEncoder(encoder, given.features)
        report, _ = evaluate(encoder, with_roles(given.data, options.split_map), cache=cache)
        return {
            "captions": report.captions["query"],
            "training": report.facts["training"],
            "health": report.health,
            "epoch": encoder.about["figures"].get("epoch"),
            "processor_seconds": round(trained - before, 2),
            "total_processor_seconds": round(time.process_time() - started, 2),
            "memory": peak_memory(),
        }
