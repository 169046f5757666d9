"""Speed of encoding, evaluation and training, with reference implementations.

    python benchmarks/speed.py [--images FOLDER] [--quick]

Writes results/speed.md; takes about ten minutes, with ``--quick`` a minute and no file. Without
``--images``, images are rendered. The backbone is torchvision's MobileNetV2 with random weights,
which are as fast as trained ones. Implementations that are compared run in turn.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from harness.report import table, write

from xmodal import BinaryCodes
from xmodal.config import PRECISIONS
from xmodal.data.images import Pixels
from xmodal.data.synthetic import write_synthetic_data
from xmodal.device import has_bfloat16
from xmodal.evaluation.metrics import average_precision, groups_by_labels, mean
from xmodal.features.backbones import ImageBackbone, load_image_backbone
from xmodal.features.extract import image_features
from xmodal.training.methods.schgan import train as schgan
from xmodal.training.pairs import Pairs
from xmodal.training.run import Run, TrainingData

SEED = 0


def in_turn(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each call. They run in turn (A B A B ...); the first round is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds + 1):
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            if number:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def encoding(images: list[Path], rounds: int) -> str:
    """Table of images per second in each precision: with decoding, and the forward pass alone."""
    from safetensors.torch import save_file
    from torchvision.models import mobilenet_v2

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "mobilenet_v2.safetensors")
        torch.manual_seed(SEED)
        save_file({k: v.contiguous() for k, v in mobilenet_v2().state_dict().items()}, path)
        backbones = {name: load_image_backbone(str(path), precision=name) for name in PRECISIONS}
    prepare = backbones["float32"].preprocessing.pixels
    pixels = [prepare(path) for path in images]
    batches = [np.stack(pixels[start : start + 32]) for start in range(0, len(pixels), 32)]
    calls: dict[str, Callable[[], object]] = {}
    for name, backbone in backbones.items():
        calls[f"{name} all"] = partial(image_features, backbone, images)
        calls[f"{name} forward"] = partial(_forward_all, backbone, batches)
    seconds = in_turn(calls, rounds)
    rows: list[list[object]] = [
        ["precision", "images", "decoding and encoding, 1/s", "forward pass alone, 1/s", "ratio"]
    ]
    for name in PRECISIONS:
        everything, forward = (
            len(images) / np.median(seconds[f"{name} {part}"]) for part in ("all", "forward")
        )
        ratio = f"{everything / forward:.2f}"
        rows.append([name, len(images), f"{everything:.0f}", f"{forward:.0f}", ratio])
    instructions = "has" if has_bfloat16() else "does not have"
    return f"{table(rows)}\n\nThis processor {instructions} instructions for bfloat16."


def _forward_all(backbone: ImageBackbone, batches: list[Pixels]) -> None:
    for batch in batches:
        backbone.forward(batch)


def evaluation(rounds: int) -> str:
    """Table of expected mAP at the size of MIRFlickr, and a loop over queries with a sort."""
    rng = np.random.default_rng(SEED)
    query = BinaryCodes(rng.integers(0, 256, (2000, 8), dtype=np.uint8), 64)
    database = BinaryCodes(rng.integers(0, 256, (18015, 8), dtype=np.uint8), 64)
    labels = rng.random((20015, 24)) < 0.1

    def by_xmodal() -> None:
        mean(average_precision(groups_by_labels(query, database, labels[:2000], labels[2000:])))

    def loop() -> None:
        for row in range(200):
            distance = query[row : row + 1].distances(database)[0]
            hits = (labels[row] & labels[2000:]).any(axis=1)[np.argsort(distance, kind="stable")]
            ranks = np.flatnonzero(hits) + 1
            (np.arange(1, len(ranks) + 1) / ranks).sum() / max(1, len(ranks))

    seconds = in_turn({"xmodal": by_xmodal, "loop": loop}, rounds)
    ours, by_loop = np.median(seconds["xmodal"]), 10 * np.median(seconds["loop"])
    return table(
        [
            ["queries x database", "bits", "xmodal s", "loop s (10 x a tenth of the queries)"],
            ["2,000 x 18,015", 64, f"{ours:.2f}", f"{by_loop:.2f}"],
        ]
    )


def training(n: int) -> str:
    """Table of the default settings on n pairs of features with 30 classes, 64 bits."""
    rng = np.random.default_rng(SEED)
    classes = rng.integers(0, 30, size=n)
    hot = torch.from_numpy(np.eye(30, dtype=np.float32)[classes])

    def features(dim: int) -> torch.Tensor:
        centres = rng.standard_normal((30, dim))
        values = centres[classes] + 2 * rng.standard_normal((n, dim))
        unit = values / np.linalg.norm(values, axis=1, keepdims=True)
        return torch.from_numpy(unit.astype(np.float32))

    pairs = Pairs(features(1280), features(384), hot, torch.ones(n, dtype=torch.bool))
    held = n // 10
    parts = [pairs.take(torch.arange(n - held)), pairs.take(torch.arange(n - held, n))]
    config = schgan.Config()
    run = Run(TrainingData(parts[0], parts[1], 64), seed=SEED, patience=config.epochs)
    started = time.perf_counter()
    schgan.train(run.data, config, run)
    seconds = time.perf_counter() - started
    rows = [["pairs", "features", "epochs", "seconds"]]
    rows.append([f"{n:,}", "1280 + 384", str(len(run.history)), f"{seconds:.1f}"])
    return table(rows)


def main() -> None:
    """Run the benchmark and write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path, help="folder of images to encode")
    parser.add_argument("--quick", action="store_true", help="small sizes, no file")
    args = parser.parse_args()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    rounds = 3 if args.quick else 9
    folder = args.images or write_synthetic_data(Path(tempfile.mkdtemp()), 256)
    images = sorted(p for p in folder.iterdir() if p.suffix in (".jpg", ".png", ".jpeg"))
    images = images[: 128 if args.quick else 640]
    write(
        "speed",
        "Speed",
        "python benchmarks/speed.py" + (f" --images {args.images.name}" if args.images else ""),
        [
            ("Encoding images (MobileNetV2)", encoding(images, 2 if args.quick else 5)),
            ("Evaluation", evaluation(rounds)),
            ("Training", training(1000 if args.quick else 5000)),
        ],
        keep=not args.quick,
    )


if __name__ == "__main__":
    main()
