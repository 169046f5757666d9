"""Speed and memory of streamed encoding into a part.

    python benchmarks/encoding.py [--only pictures] [--pictures 600] [--rounds 5]
    python benchmarks/encoding.py [--only memory] [--rows 10000000]

Writes results/encoding.md and results/encoding-memory.md; with ``--quick``, small and no files.
First table: pictures from disk are encoded into a part, in turn with
the bare forward pass of the same model on decoded arrays in memory. The backbone is torchvision's
ResNet-50 with random weights, which are as fast as trained ones. Second table: memory of one
process while rows of precomputed features (.npy files) stream into a part. Anonymous memory is what
the process allocates; the rest is mapped files, which the system takes back at any time.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from harness.memory import process_memory
from harness.report import table, write
from PIL import Image

from xmodal.data.feature_file import read_feature_file
from xmodal.data.images import Pixels
from xmodal.data.problems import Problems
from xmodal.data.readers.read import stream
from xmodal.data.sharding import Shard
from xmodal.encoders.calibration import Confidence, EvenCurve
from xmodal.encoders.feature_stream import encode_features
from xmodal.encoders.pipeline import encode_stream
from xmodal.encoders.torch_encoder import BackboneRef, TrainedEncoder
from xmodal.encoders.towers import Towers
from xmodal.features.backbones import load_image_backbone, load_text_backbone
from xmodal.features.rows import unit_float16
from xmodal.index.documents import DocumentBatch
from xmodal.index.parts.info import PartInfo
from xmodal.index.parts.writing import write_part
from xmodal.modality import Modality

SEED, BITS, DIM = 0, 64, 64
SIDES = (500, 375)
"""Pixels of a picture, as in Flickr30k and COCO."""
MEMORY, SPEED = "Memory of streamed encoding", "Speed of streamed encoding"
POINTS = 10
"""Rows of the table of memory."""


def make_pictures(folder: Path, number: int) -> None:
    """Write JPEG files of smooth noise, with about as many bytes as photos of their size."""
    rng = np.random.default_rng(SEED)
    for place in range(number):
        small = rng.integers(0, 256, (96, 128, 3), dtype=np.uint8)
        image = Image.fromarray(small).resize(SIDES, Image.Resampling.BICUBIC)
        image.save(folder / f"{place:06}.jpg", quality=90)


def make_encoder(image: str, image_dim: int, text_dim: int, fingerprint: str) -> TrainedEncoder:
    """Return an encoder with random towers of an image backbone and the text backbone words."""
    torch.manual_seed(SEED)
    towers = Towers(image_dim, text_dim, BITS, hidden=256)
    refs: dict[Modality, BackboneRef] = {
        "image": BackboneRef(image, fingerprint),
        "text": BackboneRef("words", load_text_backbone("words").fingerprint),
    }
    return TrainedEncoder(towers, refs, Confidence(even=EvenCurve(1.0, 0.0, BITS)))


def pictures(number: int, rounds: int) -> str:
    """Table of pictures per second: from disk into a part, and the bare forward pass."""
    from safetensors.torch import save_file
    from torchvision.models import resnet50

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        torch.manual_seed(SEED)
        path = folder / "resnet50.safetensors"
        save_file({k: v.contiguous() for k, v in resnet50().state_dict().items()}, path)
        backbone = load_image_backbone(str(path))
        words = load_text_backbone("words")
        encoder = make_encoder(str(path), backbone.dim, words.dim, backbone.fingerprint)
        (folder / "photos").mkdir()
        make_pictures(folder / "photos", number)
        paths = sorted((folder / "photos").iterdir())
        size = sum(one.stat().st_size for one in paths) // number
        decoded = [encoder.image_backbone.preprocessing.pixels(one) for one in paths]
        step = backbone.batch
        batches = [np.stack(decoded[at : at + step]) for at in range(0, number, step)]
        calls: dict[str, Callable[[], object]] = {
            "from disk into a part": lambda: to_part(encoder, folder / "photos"),
            "forward pass of decoded arrays": lambda: forward(encoder, batches),
            "decoding alone, one thread": lambda: [
                encoder.image_backbone.preprocessing.pixels(one) for one in paths
            ],
        }
        seconds, processor = in_turn(calls, rounds)
    bare = "forward pass of decoded arrays"
    header = "way", "pictures", "1/s", "share of the forward pass", "processor ms each", "share"
    rows: list[list[object]] = [list(header)]
    for way, times in seconds.items():
        share = np.median(np.array(seconds[bare]) / np.array(times))
        used = np.median(np.array(processor[bare]) / np.array(processor[way]))
        each = 1000 * np.median(processor[way]) / number
        rate = number / np.median(times)
        rows.append([way, number, f"{rate:.1f}", f"{share:.2f}", f"{each:.1f}", f"{used:.2f}"])
    note = (
        f"Pictures of {SIDES[0]} x {SIDES[1]} pixels, {size:,} bytes; medians of {rounds} rounds."
    )
    return f"{table(rows)}\n\n{note} Parts run as in `xmodal encode`."


def to_part(encoder: TrainedEncoder, folder: Path) -> None:
    """Encode a folder into a part."""
    problems = Problems()
    items = stream(folder, problems=problems)
    batches = encode_stream(encoder, items, source="photos", problems=problems)
    info = PartInfo(encoder.fingerprint, BITS, "", "photos", Shard())
    write_part(folder.parent / "part.parquet", info, batches, problems)


def forward(encoder: TrainedEncoder, batches: list[Pixels]) -> None:
    """Compute the outputs of decoded pictures."""
    for batch in batches:
        encoder.outputs("image", unit_float16(encoder.image_backbone.forward(batch)))


def in_turn(
    calls: dict[str, Callable[[], object]], rounds: int
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Seconds of each call, and seconds of the processors; the first round is not counted.

    The calls run in turn: A B A B ...
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    processor: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds + 1):
        for name, call in calls.items():
            started = time.perf_counter(), time.process_time()
            call()
            if number:
                seconds[name].append(time.perf_counter() - started[0])
                processor[name].append(time.process_time() - started[1])
    return seconds, processor


def memory(rows: int) -> str:
    """Table of memory and rate while rows of features stream into a part."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name, "features.npy")
        rng = np.random.default_rng(SEED)
        block = rng.standard_normal((100_000, DIM)).astype(np.float16)
        stored = np.lib.format.open_memmap(path, "w+", np.float16, (rows, DIM))
        for start in range(0, rows, len(block)):
            part = block[: rows - start]
            stored[start : start + len(part)] = np.roll(part, start // len(block), axis=1)
        del stored
        encoder = make_encoder("features", DIM, DIM, "features")
        file = read_feature_file([path, path])
        problems = Problems()
        lines: list[list[object]] = [
            ["documents", "anonymous memory, MB", "mapped files, MB", "documents/s", "seconds"]
        ]
        batches = encode_features(
            encoder, file, shard=Shard(), source="features", problems=problems, vectors=False
        )
        info = PartInfo(encoder.fingerprint, BITS, "", "features", Shard(), vectors=False)
        write_part(Path(name, "p.parquet"), info, watched(batches, rows, lines), problems)
        size = Path(name, "p.parquet").stat().st_size
    note = (
        f"{DIM} numbers in float16 a row, {BITS} bits, pictures and texts; the part has "
        f"{size / 1e6:,.0f} MB."
    )
    return f"{table(lines)}\n\n{note}"


def watched(
    batches: Iterator[DocumentBatch], rows: int, lines: list[list[object]]
) -> Iterator[DocumentBatch]:
    """Yield the batches; add lines of memory."""
    number, started = 0, time.perf_counter()
    marks = [round(rows * part / POINTS) for part in range(1, POINTS + 1)]
    for batch in batches:
        yield batch
        number += len(batch)
        if marks and number >= marks[0]:
            marks.pop(0)
            seconds = time.perf_counter() - started
            sizes = [f"{(process_memory(kind) or 0) / 1e6:,.0f}" for kind in ("RssAnon", "RssFile")]
            lines.append([f"{number:,}", *sizes, f"{number / seconds:,.0f}", f"{seconds:,.0f}"])
            print(*lines[-1], flush=True)


def main() -> None:
    """Run the measurements and write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=600)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="small, and no file")
    parser.add_argument("--only", choices=["memory", "pictures"])
    given = parser.parse_args()
    number, rows, rounds = given.pictures, given.rows, given.rounds
    if given.quick:
        number, rows, rounds = 64, 50_000, 1
    command = "python benchmarks/encoding.py"
    if given.only != "pictures":
        section = ("Memory", memory(rows))
        write(
            "encoding-memory", MEMORY, f"{command} --only memory", [section], keep=not given.quick
        )
    if given.only != "memory":
        section = ("Pictures from disk", pictures(number, rounds))
        write("encoding", SPEED, f"{command} --only pictures", [section], keep=not given.quick)


if __name__ == "__main__":
    main()
