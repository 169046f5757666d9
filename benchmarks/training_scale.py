"""Memory of training on many pairs, whose features are in a file.

    python benchmarks/training_scale.py [--pairs 10000000] [--dim 128] [--steps 300]
        [--methods schgan contrastive] [--folder DIR] [--quick]

Writes results/training-scale.md; takes an hour, and 550 bytes of the folder for each pair of
128 + 128 float16 numbers. The features are those of 100 clusters with noise, in a .npz file with
ids and labels; half of the labels are used. Each method runs in a process of its own: the file is
read, the towers are trained for ``--steps`` steps, the confidence is calibrated, and the encoder is
saved. Memory is resident memory without pages of files, which the system drops when it needs them.
evaluation_scale.py measures evaluation.
"""

from __future__ import annotations

import argparse
import tempfile
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from harness.memory import MemoryCurve, anonymous_memory, in_process
from harness.report import table, write

from xmodal.config import FEATURES, Options
from xmodal.data.feature_file import read_feature_file
from xmodal.encoders.towers import Towers
from xmodal.features.from_file import with_features
from xmodal.modality import MODALITIES
from xmodal.training.train import METHODS
from xmodal.training.train import train as train_encoder

CLUSTERS, BITS, BLOCK = 100, 64, 100_000
VALIDATION = 20_000
PHASES = ("read", "train")


class EnoughSteps(Exception):
    """The steps of the benchmark are done."""


def write_features(path: Path, pairs: int, dim: int) -> None:
    """Write a .npz file with ids, image, text (pairs, dim) float16, and labels of 10 classes."""
    rng = np.random.default_rng(0)
    cluster = rng.integers(0, CLUSTERS, pairs, dtype=np.uint8)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for modality in MODALITIES:
            centres = rng.normal(size=(CLUSTERS, dim)).astype(np.float32)
            with _array(archive, modality, (pairs, dim), "<f2") as member:
                for start in range(0, pairs, BLOCK):
                    of_pairs = centres[cluster[start : start + BLOCK]]
                    noise = rng.standard_normal(of_pairs.shape, dtype=np.float32)
                    member.write((of_pairs + noise).astype(np.float16).tobytes())
        for name, dtype in (("ids", "<U12"), ("labels", "<U2")):
            with _array(archive, name, (pairs,), dtype) as member:
                for start in range(0, pairs, BLOCK):
                    part = cluster[start : start + BLOCK]
                    rows = np.arange(start, start + len(part))
                    texts = rows.astype(str) if name == "ids" else (part % 10).astype(str)
                    member.write(texts.astype(dtype).tobytes())


def _array(archive: zipfile.ZipFile, name: str, shape: tuple[int, ...], dtype: str) -> Any:
    """Return a member of an archive after the header of an array was written to it."""
    member = archive.open(f"{name}.npy", "w", force_zip64=True)
    header = {"descr": dtype, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(member, header)
    return member


def run(method: str, path: Path, pairs: int, steps: int) -> tuple[float, ...]:
    """Return GB before, then seconds and the peak in GB of each of ``PHASES``."""
    before = anonymous_memory()
    _limit(METHODS[method], steps)
    options = Options(
        method=method,
        bits=BITS,
        image_backbone=FEATURES,
        text_backbone=FEATURES,
        label_share=0.5,
        query=0.0,
        validation=VALIDATION / pairs,
    )
    found: list[float] = []
    with MemoryCurve() as memory:
        file = read_feature_file(path)
        data, source = with_features(file.dataset("labels"), file)
        found += [memory.seconds, memory.peak]
    with MemoryCurve() as memory, tempfile.TemporaryDirectory() as folder:
        train_encoder(data, Path(folder) / "model", options, features=source)
        found += [memory.seconds, memory.peak]
    return before, *found


def _limit(module: ModuleType, steps: int) -> None:
    """End a method after ``steps`` steps and a validation, with untrained towers."""
    method = module.train

    def train(data: Any, config: Any, run: Any) -> Towers:
        log, done = run.log, 0

        def limited(figures: Any) -> None:
            nonlocal done
            log(figures)
            done += 1
            if done >= steps:
                raise EnoughSteps

        run.log = limited
        try:
            towers: Towers = method(data, config, run)
        except EnoughSteps:
            dims = (getattr(data.train, modality).shape[1] for modality in MODALITIES)
            towers = Towers(*dims, data.bits, hidden=512)
        run.validate(towers)
        return towers

    module.train = train  # type: ignore[attr-defined]


def main() -> None:
    """Run the benchmark and write the report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--dim", type=int, default=128, help="of each modality [default: 128]")
    parser.add_argument("--steps", type=int, default=300, help="[default: 300]")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=["schgan", "contrastive"])
    parser.add_argument("--folder", type=Path, help="for the features [default: temporary]")
    parser.add_argument("--quick", action="store_true", help="50,000 pairs, 20 steps, no file")
    args = parser.parse_args()
    numbers, steps = ([50_000], 20) if args.quick else (args.pairs, args.steps)
    columns = [f"{phase}: s, peak GB" for phase in PHASES]
    rows: list[list[Any]] = [["pairs", "method", "GB at start", *columns, "bytes a pair"]]
    for pairs in numbers:
        with tempfile.TemporaryDirectory(dir=args.folder) as name:
            path = Path(name) / "features.npz"
            write_features(path, pairs, args.dim)
            for method in args.methods:
                before, *found = in_process(run, method, path, pairs, steps)
                seconds, peaks = found[::2], found[1::2]
                cells = [f"{s:.0f}, {gb:.2f}" for s, gb in zip(seconds, peaks, strict=True)]
                each = 1e9 * (max(peaks) - before) / pairs
                rows.append([f"{pairs:,}", method, f"{before:.2f}", *cells, f"{each:.0f}"])
                print(rows[-1], flush=True)
    chosen = " ".join(map(str, numbers))
    methods = " ".join(args.methods)
    write(
        "training-scale",
        "Memory of training on many pairs",
        f"python benchmarks/training_scale.py --pairs {chosen} --dim {args.dim} --steps {steps} "
        f"--methods {methods}",
        [("Resident memory without files, each row in a process of its own", table(rows))],
        keep=not args.quick,
    )


if __name__ == "__main__":
    main()
