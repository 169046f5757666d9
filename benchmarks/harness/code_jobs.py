"""Jobs that train codes of captions by a trial, and measure codes, prefixes and float outputs."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

import xmodal
from harness import caption_sets
from harness.caption_set_job import CaptionSetJob
from harness.code_trials import Trial, fit
from harness.jobs import Environment, Result
from xmodal.codes import BinaryCodes
from xmodal.config import configure
from xmodal.data.groups import with_groups
from xmodal.data.split import split as split_pairs
from xmodal.encoders.torch_encoder import as_tensor
from xmodal.evaluation.captions import query_figures
from xmodal.features.units import FeatureTable, Units
from xmodal.index.query_codes import QueryCodes
from xmodal.modality import DIRECTIONS, MODALITIES
from xmodal.training.methods.contrastive.config import Config
from xmodal.training.methods.contrastive.trainer import CaptionData
from xmodal.vectors import expected_signs

PREFIXES = (64, 128)
"""First bits that are measured as codes of their own, where a code has more."""
HAMMING, WEIGHTED, FLOAT = "hamming", "weighted", "float"
Outputs = dict[Any, Any]
"""Outputs of the towers (n, bits) by modality."""


@dataclass(frozen=True)
class CodeJob(CaptionSetJob):
    """One training by a trial on a data set of :mod:`harness.caption_sets`, and its figures."""

    MODULES = (*CaptionSetJob.MODULES, "index/query_codes.py")

    trial: Trial
    seed: int
    bits: int

    @property
    def label(self) -> str:
        """Description for progress messages."""
        return f"{self.data_set} {self.trial.name}, {self.bits} bits, seed {self.seed}"

    @property
    def kind(self) -> str:
        """Jobs of one kind are expected to take the same time."""
        return f"{self.bits} {self.trial.untrained} {self.config.epochs}"

    @property
    def config(self) -> Config:
        """The configuration of the method. Raises ConfigError for an unknown setting."""
        return configure(Config, self.trial.settings)

    def inputs(self) -> dict[str, Any]:
        """Everything that the result depends on, except the content of the data."""
        trial = asdict(self.trial)
        del trial["name"], trial["settings"]
        return {
            "data set": self.data_set,
            "method": "contrastive",
            "trial": trial,
            "config": asdict(self.config),
            "seed": self.seed,
            "bits": self.bits,
            "version": xmodal.__version__,
        }

    def measure(self, environment: Environment) -> Result:
        """Train and measure.

        ``figures``: R@1, R@5, R@10 of both directions in percent, image -> text first, by the name
        of what is ranked. ``processor_seconds``: of the training.
        """
        torch.set_num_threads(environment.threads)
        train, measured = _units(self.data_set, environment.data)
        none = measured.take(np.zeros(0, np.int64))
        started = time.process_time()
        data = CaptionData(train, none, self.bits)
        towers = fit(data, self.trial, self.config, self.seed)
        seconds = time.process_time() - started
        outputs = {
            m: towers.outputs(m, as_tensor(np.asarray(measured.features(m)[:]))) for m in MODALITIES
        }
        return {"figures": figures(measured, outputs), "processor_seconds": round(seconds, 1)}


def figures(units: Units, outputs: Outputs) -> dict[str, list[float]]:
    """Return R@k of both directions in percent by what is ranked, from outputs (n, bits).

    Codes by Hamming distance, codes by the weighted distance, float vectors, and codes of the first
    bits under their number.
    """
    weighted = {m: replace(QueryCodes.of(x), vectors=None) for m, x in outputs.items()}
    ranked: dict[str, Outputs] = {
        HAMMING: {m: BinaryCodes.from_relaxed(x) for m, x in outputs.items()},
        WEIGHTED: weighted,
        FLOAT: {m: expected_signs(x) for m, x in outputs.items()},
    }
    for width in PREFIXES:
        if width < outputs["image"].shape[1]:
            ranked[f"{width}"] = {
                m: BinaryCodes.from_relaxed(x[:, :width]) for m, x in outputs.items()
            }
    return {name: _recall(units, one) for name, one in ranked.items()}


def _recall(units: Units, ranked: Outputs) -> list[float]:
    hits = [
        query_figures(units, source, ranked[source], ranked[target]).hits.mean(axis=0)
        for source, target in DIRECTIONS
    ]
    return [100 * float(hit) for hit in np.concatenate(hits)]


@lru_cache(maxsize=1)
def _units(name: str, folder: Path) -> tuple[Units, Units]:
    """Return the training units, as ``xmodal train`` chooses them, and the measured ones."""
    given = caption_sets.load(name, folder)
    assert given.features is not None
    table = FeatureTable.of(with_groups(given.data), given.features)
    options = given.options
    parts = split_pairs(
        table.data,
        validation=options.validation,
        query=options.query,
        seed=options.split_seed,
        split_map=options.split_map,
    )
    return table.units(parts.train), table.units(parts.query)
