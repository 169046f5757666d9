"""Jobs on data with wrong pairs: one training with its figures, or one judgement of the pairs."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch

import xmodal
from harness import noisy_sets
from harness.caption_set_job import CaptionSetJob
from harness.jobs import Environment, Result
from harness.rows import Row
from harness.semi_jobs import BITS, recall
from xmodal.features.units import Bool
from xmodal.training.methods.contrastive.belief import by_chance, separation, wrong_share
from xmodal.training.methods.contrastive.noise import Sifted
from xmodal.training.methods.contrastive.train import CaptionRun, Rounds, train
from xmodal.training.methods.contrastive.trainer import CaptionData

TRUTH = "right pairs alone"
"""Name of the row that leaves out the pairs that are wrong."""


@dataclass(frozen=True)
class NoisyJob(CaptionSetJob):
    """One training on a set of :mod:`harness.noisy_sets`, without validation, and its figures.

    ``share``: of the captions that are exchanged. ``captions``: of a picture.
    """

    share: float
    captions: int
    row: Row
    seed: int

    @property
    def label(self) -> str:
        """Description for progress messages."""
        return f"{self.data_set} {self.share:.0%} exchanged, {self.row.name}, seed {self.seed}"

    @property
    def kind(self) -> str:
        """Jobs of one kind are expected to take the same time."""
        return self.row.name

    def inputs(self) -> dict[str, Any]:
        """Everything that the result depends on, except the content of the data."""
        return {
            "data set": f"{self.data_set} {self.share} of {self.captions} captions exchanged",
            "method": "contrastive",
            "truth": self.row.name == TRUTH,
            "config": asdict(self.row.config()),
            "seed": self.seed,
            "bits": BITS,
            "version": xmodal.__version__,
        }

    def measure(self, environment: Environment) -> Result:
        """Train and measure.

        ``codes``, ``outputs``: R@1, R@5, R@10 by direction; ``pairs``, ``wrong``, ``left_out``,
        ``left_out_wrong``: numbers of pairs; ``processor_seconds``: of the training.
        """
        torch.set_num_threads(environment.threads)
        made = noisy_sets.load(
            self.data_set, self.share, self.captions, self.seed, environment.data
        )
        none = made.measured.take(np.arange(0))
        known = self.row.name == TRUTH
        train_units = made.right_pairs() if known else made.train
        run = CaptionRun(CaptionData(train_units, none, BITS), seed=self.seed)
        started = time.process_time()
        towers = train(run.data, self.row.config(), run)
        seconds = time.process_time() - started
        out = made.wrong if known else np.zeros(len(made.wrong), np.bool_)
        if run.sifted is not None:
            out = ~run.sifted.kept
        return {
            **recall(towers, made.measured),
            **_selection(made.wrong, out),
            "processor_seconds": round(seconds, 1),
        }


@dataclass(frozen=True)
class JudgementJob(NoisyJob):
    """The judgement of the pairs of some training pictures by linear models, without a training.

    ``pictures``: chosen by the seed.
    """

    row: Row = field(default_factory=lambda: Row("linear", "", "contrastive", {"noise": "linear"}))
    seed: int = 0
    pictures: int = 5000

    @property
    def label(self) -> str:
        """Description for progress messages."""
        return f"{self.pictures} pictures, {self.captions} captions, {self.share:.0%} exchanged"

    def inputs(self) -> dict[str, Any]:
        """Everything that the result depends on, except the content of the data."""
        return super().inputs() | {"pictures": self.pictures}

    def measure(self, environment: Environment) -> Result:
        """Judge the pairs.

        ``estimate``: of the share of wrong pairs; ``separation``; numbers of pairs.
        """
        torch.set_num_threads(environment.threads)
        made = noisy_sets.load(
            self.data_set, self.share, self.captions, self.seed, environment.data, self.pictures
        )
        none = made.measured.take(np.arange(0))
        run = CaptionRun(CaptionData(made.train, none, BITS), seed=self.seed)
        sieve = Rounds(run.data, self.row.config(), run).sieve
        shares = sieve.shares((), np.random.default_rng(self.seed))
        judged = Sifted(made.train, by_chance(shares))
        return {
            "estimate": wrong_share(shares),
            "separation": separation(judged.belief),
            **_selection(made.wrong, ~judged.kept),
        }


def _selection(wrong: Bool, out: Bool) -> dict[str, int]:
    """Return numbers of pairs, by which are wrong and which are left out, (c,)."""
    return {
        "pairs": len(wrong),
        "wrong": int(wrong.sum()),
        "left_out": int(out.sum()),
        "left_out_wrong": int((out & wrong).sum()),
    }
