"""Speed as ratios, side by side in one run: search, encoding, evaluation, training.

    python benchmarks/speed.py [--images FOLDER] [--quick]

Without ``--images`` pictures are rendered; the backbone is torchvision's MobileNetV2 with random
weights, which take as long as trained ones.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
import torch
from record import table, write

from xmodal import BinaryCodes
from xmodal.backbones import load_image_backbone
from xmodal.features import image_features
from xmodal.hamming import HammingIndex
from xmodal.metrics import average_precision, groups_by_codes, mean, shared_labels
from xmodal.toy import write_world
from xmodal.training.methods.schgan import train as schgan
from xmodal.training.pairs import Pairs
from xmodal.training.run import Run, TrainingData

SEED = 0


def in_turn(ways: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each way, A B A B ..., after one round that is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            if number:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def search(n: int, rounds: int) -> str:
    """Local search against bare FAISS calls and numpy, k = 10."""
    rng = np.random.default_rng(SEED)
    rows: list[list[object]] = [
        ["codes", "bits", "queries", "xmodal ms", "bare FAISS ms", "ratio", "numpy ms"]
    ]
    for bits in (64, 128, 256):
        codes = BinaryCodes(rng.integers(0, 256, (n, bits // 8), dtype=np.uint8), bits)
        index = HammingIndex(bits)
        index.add([f"{number:07d}" for number in range(n)], image=codes)
        bare = faiss.IndexBinaryFlat(bits)
        bare.add(codes.packed)
        words = codes.packed.view(np.uint64)
        for queries in (1, 100):
            asked = BinaryCodes(rng.integers(0, 256, (queries, bits // 8), dtype=np.uint8), bits)

            def by_numpy(asked: BinaryCodes = asked, words: np.ndarray = words) -> None:
                query = asked.packed.view(np.uint64)[0]
                distances = np.bitwise_count(words ^ query).sum(axis=1)
                np.argpartition(distances, 10)

            def by_faiss(asked: BinaryCodes = asked, bare: faiss.IndexBinaryFlat = bare) -> None:
                before = faiss.omp_get_max_threads()
                faiss.omp_set_num_threads(min(before, len(asked)))
                bare.search(asked.packed, 10)
                faiss.omp_set_num_threads(before)

            def by_xmodal(asked: BinaryCodes = asked, index: HammingIndex = index) -> None:
                index.search(asked, 10, target="image")

            ways: dict[str, Callable[[], object]] = {"xmodal": by_xmodal, "faiss": by_faiss}
            if queries == 1:
                ways["numpy"] = by_numpy
            seconds = in_turn(ways, rounds * (10 if queries == 1 else 1))
            ours, theirs = np.median(seconds["xmodal"]), np.median(seconds["faiss"])
            slow = f"{1e3 * np.median(seconds['numpy']):.1f}" if queries == 1 else "-"
            rows.append(
                [f"{n:,}", bits, queries, f"{1e3 * ours:.2f}", f"{1e3 * theirs:.2f}",
                 f"{ours / theirs:.2f}", slow]
            )  # fmt: skip
    return table(rows)


def encoding(images: list[Path], rounds: int) -> str:
    """Pictures a second with decoding, against the bare forward pass on ready pixels."""
    from safetensors.torch import save_file
    from torchvision.models import mobilenet_v2

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "mobilenet_v2.safetensors")
        torch.manual_seed(SEED)
        save_file({k: v.contiguous() for k, v in mobilenet_v2().state_dict().items()}, path)
        backbone = load_image_backbone(str(path))
    pixels = [backbone.preprocessing.pixels(path) for path in images]
    batches = [np.stack(pixels[start : start + 32]) for start in range(0, len(pixels), 32)]
    seconds = in_turn(
        {
            "whole": lambda: image_features(backbone, images),
            "bare": lambda: [backbone.forward(batch) for batch in batches],
        },
        rounds,
    )
    whole, bare = (len(images) / np.median(seconds[name]) for name in ("whole", "bare"))
    return table(
        [
            ["pictures", "decoded and encoded, a second", "bare forward, a second", "ratio"],
            [len(images), f"{whole:.0f}", f"{bare:.0f}", f"{whole / bare:.2f}"],
        ]
    )


def evaluation(rounds: int) -> str:
    """Expected mAP at MIRFlickr's size, against a plain loop over queries that sorts."""
    rng = np.random.default_rng(SEED)
    query = BinaryCodes(rng.integers(0, 256, (2000, 8), dtype=np.uint8), 64)
    database = BinaryCodes(rng.integers(0, 256, (18015, 8), dtype=np.uint8), 64)
    labels = rng.random((20015, 24)) < 0.1

    def whole() -> None:
        relevance = shared_labels(labels[:2000], labels[2000:]) > 0
        mean(average_precision(groups_by_codes(query, database, relevance)))

    def loop() -> None:
        for row in range(200):
            distance = query[row : row + 1].distances(database)[0]
            hits = (labels[row] & labels[2000:]).any(axis=1)[np.argsort(distance, kind="stable")]
            ranks = np.flatnonzero(hits) + 1
            (np.arange(1, len(ranks) + 1) / ranks).sum() / max(1, len(ranks))

    seconds = in_turn({"whole": whole, "loop": loop}, rounds)
    ours, theirs = np.median(seconds["whole"]), 10 * np.median(seconds["loop"])
    return table(
        [
            ["queries x database", "bits", "xmodal s", "plain loop s (10 x a tenth of it)"],
            ["2,000 x 18,015", 64, f"{ours:.2f}", f"{theirs:.2f}"],
        ]
    )


def training(n: int) -> str:
    """The default settings on n pairs of features with 30 classes, 64 bits."""
    rng = np.random.default_rng(SEED)
    classes = rng.integers(0, 30, size=n)
    hot = torch.from_numpy(np.eye(30, dtype=np.float32)[classes])

    def side(dim: int) -> torch.Tensor:
        centres = rng.standard_normal((30, dim))
        values = centres[classes] + 2 * rng.standard_normal((n, dim))
        unit = values / np.linalg.norm(values, axis=1, keepdims=True)
        return torch.from_numpy(unit.astype(np.float32))

    pairs = Pairs(side(1280), side(384), hot, torch.ones(n, dtype=torch.bool))
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
    """Print everything and write results/speed.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path, help="folder of pictures to encode")
    parser.add_argument("--quick", action="store_true", help="smaller sizes, for a look")
    told = parser.parse_args()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    rounds = 3 if told.quick else 9
    folder = told.images or write_world(Path(tempfile.mkdtemp()), 256)
    images = sorted(p for p in folder.iterdir() if p.suffix in (".jpg", ".png", ".jpeg"))
    images = images[: 128 if told.quick else 640]
    write(
        "speed",
        "Speed",
        "python benchmarks/speed.py" + (f" --images {told.images.name}" if told.images else ""),
        [
            ("Local search, k = 10", search(100_000 if told.quick else 1_000_000, rounds)),
            ("Encoding pictures (MobileNetV2)", encoding(images, 2 if told.quick else 5)),
            ("Evaluation", evaluation(rounds)),
            ("Training", training(1000 if told.quick else 5000)),
        ],
    )


if __name__ == "__main__":
    main()
