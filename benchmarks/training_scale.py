"""Memory of training on many pairs, whose features are in a memory-mapped file.

    python benchmarks/training_scale.py [--pairs 10000000] [--dim 128] [--steps 300]
        [--methods schgan contrastive] [--folder DIR] [--quick]

Writes results/training-scale.md; takes half an hour, and 512 bytes of the folder for each pair of
128 + 128 float16 numbers. The features are those of 100 clusters with noise, half of the pairs are
labelled. Each method trains in a process of its own: what it computes before the first step,
``--steps`` steps of its first epoch, and a validation of the towers. Memory is resident memory
without the pages of the mapped file, which the system drops when it needs them.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness.memory import MemoryCurve, anonymous_memory, in_process
from harness.report import table, write

from xmodal.config import configure
from xmodal.encoders.torch_encoder import RowTensor
from xmodal.features.rows import FeatureRows
from xmodal.features.units import Units
from xmodal.modality import MODALITIES
from xmodal.training.methods.contrastive.train import CaptionData, CaptionRun
from xmodal.training.pairs import StoredPairs
from xmodal.training.run import Run, TrainingData
from xmodal.training.train import METHODS

CLUSTERS, BITS, BLOCK = 100, 64, 100_000
PARTS = 8
"""Parts of the run whose peaks are printed."""


class EnoughSteps(Exception):
    """The steps of the benchmark are done."""


def write_features(folder: Path, pairs: int, dim: int) -> None:
    """Write ``image.npy`` and ``text.npy`` (pairs, dim) float16, and ``cluster.npy`` (pairs,)."""
    rng = np.random.default_rng(0)
    centres = {m: rng.normal(size=(CLUSTERS, dim)).astype(np.float32) for m in MODALITIES}
    files = {
        m: np.lib.format.open_memmap(folder / f"{m}.npy", "w+", np.float16, (pairs, dim))
        for m in MODALITIES
    }
    cluster = rng.integers(0, CLUSTERS, pairs, dtype=np.uint8)
    for start in range(0, pairs, BLOCK):
        part = cluster[start : start + BLOCK]
        for modality, file in files.items():
            noise = rng.standard_normal((len(part), dim), dtype=np.float32)
            file[start : start + BLOCK] = centres[modality][part] + noise
            file.flush()
    np.save(folder / "cluster.npy", cluster)


def stored_pairs(folder: Path, rows: np.ndarray[Any, Any]) -> StoredPairs:
    """Return the pairs at ``rows``."""
    stored = [np.load(folder / f"{modality}.npy", mmap_mode="r") for modality in MODALITIES]
    image, text = (RowTensor(FeatureRows(one, rows, scaled=True)) for one in stored)
    cluster = np.load(folder / "cluster.npy")[rows]
    labels = np.zeros((len(rows), 10), np.bool_)
    labels[np.arange(len(rows)), cluster % 10] = True
    return StoredPairs(image, text, RowTensor(FeatureRows(labels)), torch.from_numpy(rows % 2 == 0))


def units_of(pairs: StoredPairs) -> Units:
    """Return one unit for each pair."""
    n = len(pairs)
    ends, names = np.arange(n + 1), [""] * n
    return Units(
        *(names, pairs.image.stored, pairs.text.stored, ends, ends),
        *(np.asarray(pairs.labels.stored), pairs.labelled.numpy(), np.arange(n), names, names),
    )


def train(method: str, folder: Path, pairs: int, steps: int) -> tuple[float, ...]:
    """Return GB before, then seconds and the peaks of the run, in GB."""
    before = anonymous_memory()
    with MemoryCurve() as memory:
        order = np.random.default_rng(1).permutation(pairs)
        held_out = np.sort(order[: pairs // 50])
        rest = np.sort(order[pairs // 50 :])
        del order
        parts = stored_pairs(folder, rest), stored_pairs(folder, held_out)
        run: Run
        if method == "contrastive":
            units = units_of(parts[0]), units_of(parts[1])
            run = _Limited(CaptionRun)(CaptionData(*units, BITS))
        else:
            run = _Limited(Run)(TrainingData(*parts, BITS))
        run.steps = steps  # type: ignore[attr-defined]
        module = METHODS[method]
        config = configure(module.Config, {"epochs": 1})
        try:
            towers = module.train(run.data, config, run)
        except EnoughSteps:
            towers = TrainingData(*parts, BITS).towers(512)
        run.validate(towers)
        return before, memory.seconds, memory.peak, *memory.peaks(PARTS)


def _Limited(kind: type[Run]) -> type[Run]:
    """Return a run that ends after ``steps`` records of a step."""

    class Limited(kind):  # type: ignore[misc,valid-type]
        steps = 0

        def log(self, figures: Any) -> None:
            super().log(figures)
            self.steps -= 1
            if self.steps <= 0:
                raise EnoughSteps

    return Limited


def main() -> None:
    """Run the benchmark and write the report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--dim", type=int, default=128, help="of each modality [default: 128]")
    parser.add_argument("--steps", type=int, default=300, help="[default: 300]")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--folder", type=Path, help="for the features [default: temporary]")
    parser.add_argument("--quick", action="store_true", help="20,000 pairs, 20 steps, no file")
    args = parser.parse_args()
    numbers, steps = ([20_000], 20) if args.quick else (args.pairs, args.steps)
    rows: list[list[Any]] = [["pairs", "method", "GB at start", "peak GB", "s", "peaks of eighths"]]
    for pairs in numbers:
        with tempfile.TemporaryDirectory(dir=args.folder) as name:
            write_features(Path(name), pairs, args.dim)
            for method in args.methods:
                before, seconds, peak, *curve = in_process(train, method, Path(name), pairs, steps)
                shown = " ".join(f"{value:.2f}" for value in curve)
                cells = [f"{pairs:,}", method, f"{before:.2f}", f"{peak:.2f}", f"{seconds:.0f}"]
                rows.append([*cells, shown])
                print(rows[-1], flush=True)
    chosen = " ".join(map(str, numbers))
    write(
        "training-scale",
        "Memory of training on many pairs",
        f"python benchmarks/training_scale.py --pairs {chosen} --dim {args.dim} --steps {steps}",
        [("Resident memory without files, each row in a process of its own", table(rows))],
        keep=not args.quick,
    )


if __name__ == "__main__":
    main()
