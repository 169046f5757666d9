"""Jobs: one training with frozen or trained backbones, and its figures."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any

import torch

import xmodal
from harness import caption_sets, tuning_sets
from harness.caption_set_job import CaptionSetJob
from harness.jobs import Environment, Result
from harness.rows import Row
from harness.semi_jobs import recall
from xmodal.training.methods.contrastive.train import CaptionRun, train
from xmodal.training.methods.contrastive.tuning import with_features


@dataclass(frozen=True)
class TuningJob(CaptionSetJob):
    """One training on a set of :mod:`harness.tuning_sets`, without validation, and its figures."""

    MODULES = (*CaptionSetJob.MODULES, "features/states.py", "features/backbones/blocks.py")

    row: Row
    seed: int
    bits: int
    held_out: bool = False

    @property
    def label(self) -> str:
        """Description for progress messages."""
        return f"{self.data_set}, {self.row.name}, {self.bits} bits, seed {self.seed}"

    @property
    def kind(self) -> str:
        """Jobs of one kind are expected to take the same time."""
        return f"{self.data_set} {self.row.settings.get('fine_tune')}"

    def inputs(self) -> dict[str, Any]:
        """Everything that the result depends on, except the content of the data."""
        return {
            "data set": f"{self.data_set}{' held out' * self.held_out}",
            "method": "contrastive",
            "config": asdict(self.row.config()),
            "seed": self.seed,
            "bits": self.bits,
            "version": xmodal.__version__,
        }

    def stored_set(self) -> str:
        """The data set whose content the result depends on."""
        return caption_sets.DEV

    def measure(self, environment: Environment) -> Result:
        """Train and measure.

        ``codes``, ``outputs``: R@1, R@5, R@10 by direction; ``seconds`` and ``processor_seconds``:
        of the training; ``states_seconds``: processor seconds of the features and states, which are
        read from the cache if they are in it.
        """
        torch.set_num_threads(environment.threads)
        config = self.row.config()
        before = time.process_time()
        data, measured = tuning_sets.load(
            self.data_set,
            environment.data,
            environment.work / "features",
            config.fine_tune,
            self.bits,
            held_out=self.held_out,
        )
        run = CaptionRun(data, seed=self.seed)
        wall, started = time.perf_counter(), time.process_time()
        towers = train(data, config, run)
        return {
            "seconds": round(time.perf_counter() - wall, 1),
            "processor_seconds": round(time.process_time() - started, 1),
            "states_seconds": round(started - before, 1),
            **recall(towers, with_features(measured, data.sides)),
        }
