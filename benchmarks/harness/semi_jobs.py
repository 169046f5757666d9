"""Jobs on data with few pairs: one training by a rule for the unpaired data, and its figures."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

import xmodal
from harness import semi_sets
from harness.caption_set_job import CaptionSetJob
from harness.jobs import Environment, Result
from harness.rows import Row
from xmodal.encoders.torch_encoder import as_tensor
from xmodal.encoders.towers import Towers
from xmodal.evaluation.captions import HIT_CUTS, query_figures
from xmodal.features.units import Units
from xmodal.modality import DIRECTIONS, MODALITIES
from xmodal.training.methods.contrastive.train import CaptionRun, train, with_choice
from xmodal.training.methods.contrastive.trainer import CaptionData
from xmodal.vectors import expected_signs

TRUTH = "true captions"
"""Name of the row whose chosen pairs are the true ones."""
BITS = 256


@dataclass(frozen=True)
class SemiJob(CaptionSetJob):
    """One training on a set of :mod:`harness.semi_sets`, without validation, and its figures."""

    paired: int
    row: Row
    seed: int

    @property
    def label(self) -> str:
        """Description for progress messages."""
        return f"{self.data_set} {self.paired} pairs, {self.row.name}, seed {self.seed}"

    @property
    def kind(self) -> str:
        """Jobs of one kind are expected to take the same time."""
        return f"{self.paired} {self.row.name}"

    def inputs(self) -> dict[str, Any]:
        """Everything that the result depends on, except the content of the data."""
        return {
            "data set": f"{self.data_set} {self.paired} of {semi_sets.POOL}",
            "method": "contrastive",
            "truth": self.row.name == TRUTH,
            "config": asdict(self.row.config()),
            "seed": self.seed,
            "bits": BITS,
            "version": xmodal.__version__,
        }

    def measure(self, environment: Environment) -> Result:
        """Train and measure.

        ``codes``, ``outputs``: R@1, R@5, R@10 by direction; ``choices``: pictures, pairs and true
        pairs of each choice; ``processor_seconds``: of the training.
        """
        torch.set_num_threads(environment.threads)
        made = semi_sets.load(self.data_set, self.paired, self.seed, environment.data)
        none = made.measured.take(torch.zeros(0, dtype=torch.long).numpy())
        data = CaptionData(made.paired, none, BITS, unpaired=made.unpaired)
        config = self.row.config()
        if self.row.name == TRUTH:
            data = with_choice(data, made.unpaired, made.truth(), 1.0)
            config = replace(config, unpaired="none")
        run = CaptionRun(data, seed=self.seed)
        started = time.process_time()
        towers = train(data, config, run)
        seconds = time.process_time() - started
        return {
            **recall(towers, made.measured),
            "choices": [
                {
                    "pictures": len(set(one.image.tolist())),
                    "pairs": len(one),
                    "right": made.right(one),
                }
                for one in run.choices
            ],
            "processor_seconds": round(seconds, 1),
        }


def recall(towers: Towers, units: Units) -> dict[str, Any]:
    """Return R@k of the codes and of the outputs, by direction."""
    features = {m: as_tensor(units.features(m)[:]) for m in MODALITIES}
    codes = {m: towers.codes(m, features[m]) for m in MODALITIES}
    outputs = {m: expected_signs(towers.outputs(m, features[m])) for m in MODALITIES}
    found: dict[str, Any] = {}
    for name, ranked in (("codes", codes), ("outputs", outputs)):
        found[name] = {}
        for source, target in DIRECTIONS:
            hits = query_figures(units, source, ranked[source], ranked[target]).hits.mean(axis=0)  # type: ignore[arg-type]
            found[name][f"{source}_to_{target}"] = {
                f"r{k}": float(hit) for k, hit in zip(HIT_CUTS, hits, strict=True)
            }
    return found
