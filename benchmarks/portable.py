"""Torch, ONNX and ONNX in int8, side by side in one run: start, latency, agreement, size.

    python benchmarks/portable.py [--data items.jsonl --image-backbone mobilenet_v2.safetensors \\
        --text-backbone PATH] [--rounds 9] [--seed 0] [--work FOLDER] [--quick]

Trains an encoder (once: the work folder keeps it), exports it both ways, indexes the data, and
searches. Without ``--data`` a world is rendered, behind the two built-in backbones. Start is that
of a whole ``xmodal search`` process, from its call to its end; latency that of one query in a
process that has the model loaded, decoding included. Torch computes in this machine's precision.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from itertools import cycle, islice
from pathlib import Path

from harness.report import table, write

from xmodal import Dataset, Encoder, load_encoder, read
from xmodal.toy import write_world

WAYS = ("torch", "onnx", "onnx int8")
BITS = 64
XMODAL = ("-c", "from xmodal.cli import main; main()")


def xmodal(*words: object) -> None:
    """Run an xmodal command as a person would."""
    print("$ xmodal", *words, flush=True)
    subprocess.run([sys.executable, *XMODAL, *map(str, words)], check=True)


def whole_search(*words: object) -> tuple[float, float]:
    """Seconds of a search's process, and megabytes of memory that it took.

    A process starts with the peak of the one that called it, which therefore has to be small: torch
    is not imported here before all of these are done.
    """
    command = [sys.executable, *XMODAL, "search", *map(str, words), "--json"]
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return seconds, usage.ru_maxrss / 1e3


def prepare(told: argparse.Namespace) -> tuple[Path, dict[str, Path], dict[str, Path]]:
    """The data, and of each way the model and its index, in the work folder."""
    work = told.work / ("quick" if told.quick else f"seed{told.seed}")
    data = told.data
    if data is None:
        data = work / "world"
        if not data.exists():
            write_world(data, 400 if told.quick else 2880)
    backbones = ("--image-backbone", told.image_backbone, "--text-backbone", told.text_backbone)
    models = dict(zip(WAYS, (work / "x.model", work / "x.onnx", work / "x8.onnx"), strict=True))
    settings = ("--set", "epochs=2") if told.quick else ()
    chosen = ("--bits", BITS, "--seed", told.seed, "--no-report")
    xmodal("train", data, "--out", models["torch"], *backbones, *chosen, *settings)
    items = ("--check", data, "--items", 50 if told.quick else 500)
    for way, more in (("onnx", ()), ("onnx int8", ("--int8",))):
        if not models[way].exists():
            export = ("export", "--model", models["torch"], "--onnx", models[way])
            xmodal(*export, *items, *more)
    # An index that torch fills is asked by the graphs as well; int8 has an encoder of its own.
    own = {"torch": work / "x.index", "onnx": work / "x.index", "onnx int8": work / "x8.index"}
    for way in ("torch", "onnx int8"):
        xmodal("index", data, "--model", models[way], "--index", own[way])
    return data, models, own


def starts(data: Dataset, models: dict[str, Path], indexes: dict[str, Path], rounds: int) -> str:
    """Whole processes, in turn."""
    pair = data.pairs().items[0]
    rows: list[list[object]] = [["search by", "computed by", "seconds", "range", "memory MB"]]
    for what, asked in (("words", (pair.text,)), ("a picture", ("--image", pair.image))):
        found: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
        for number in range(rounds + 1):
            for way in WAYS:
                told = whole_search(*asked, "--model", models[way], "--index", indexes[way])
                if number:  # the first round fills the system's caches of files
                    found[way].append(told)
        for way in WAYS:
            seconds, memory = zip(*found[way], strict=True)
            span = f"{min(seconds):.2f} to {max(seconds):.2f}"
            median = f"{statistics.median(seconds):.2f}"
            rows.append([what, way, median, span, f"{statistics.median(memory):.0f}"])
    return table(rows)


def latency(data: Dataset, encoders: dict[str, Encoder], rounds: int) -> str:
    """One query at a time in a process that is warm, in turn; another query each round."""
    rows: list[list[object]] = [["query", "computed by", "ms, median", "ms, 90 % are below"]]
    pairs = list(islice(cycle(data.pairs().items), rounds + 1))
    for what, side in (("a text", "text"), ("a picture", "image")):
        milliseconds: dict[str, list[float]] = {way: [] for way in WAYS}
        for number, item in enumerate(pairs):
            for way, encoder in encoders.items():
                started = time.perf_counter()
                encoder.encode(side, [getattr(item, side)])  # type: ignore[arg-type]
                if number:
                    milliseconds[way].append(1e3 * (time.perf_counter() - started))
        for way, found in milliseconds.items():
            median, most = statistics.median(found), statistics.quantiles(found, n=10)[8]
            rows.append([what, way, f"{median:.1f}", f"{most:.1f}"])
    return table(rows)


def agreement(encoders: dict[str, Encoder]) -> str:
    """What the exports measured and wrote down."""
    rows: list[list[object]] = [["of", "with", "side", "equal bits", "equal codes", "items"]]
    quality: list[list[object]] = [["computed by", "mAP image->text", "mAP text->image"]]
    for way in WAYS[1:]:
        told = encoders[way].about["export"]
        for other, sides in told["agreement"].items():
            if " with " in other:  # that of the graphs before they became int8: said above
                continue
            for side, one in sides.items():
                bits, codes = f"{one['bits']:.3%}", f"{one['codes']:.1%}"
                rows.append([way, other, side, bits, codes, one["n"]])
    for name, ways in told["mAP"].items():
        quality.append([name, *(f"{ways[way]:.4f}" for way in ("image->text", "text->image"))])
    shown = f"On {told['checked on']}.\n\n{table(rows)}"
    return f"{shown}\n\n{table(quality)}" if len(quality) > 1 else shown


def sizes(models: dict[str, Path], backbones: tuple[str, str]) -> str:
    """Bytes on disk; a trained encoder names its backbones, a portable one has them inside."""
    beside = sum(_bytes(Path(spec.partition("?")[0])) for spec in backbones)
    rows: list[list[object]] = [["model", "MB", "with its backbones, MB"]]
    for way, folder in models.items():
        own = _bytes(folder)
        rows.append([way, f"{own / 1e6:.1f}", f"{(own + beside * (way == 'torch')) / 1e6:.1f}"])
    return table(rows)


def _bytes(path: Path) -> int:
    files = [path] if path.is_file() else path.rglob("*") if path.is_dir() else []
    return sum(one.stat().st_size for one in files if one.is_file())


def main() -> None:
    """Print everything and, unless it is quick, write results/portable.md."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="pictures with texts, as for xmodal train")
    parser.add_argument("--image-backbone", default="small-cnn")
    parser.add_argument("--text-backbone", default="words")
    parser.add_argument("--rounds", type=int, help="processes of each way [default: 9]")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=Path("portable-work"))
    parser.add_argument("--quick", action="store_true", help="does it all run?")
    told = parser.parse_args()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    rounds = told.rounds or (2 if told.quick else 9)
    path, models, indexes = prepare(told)
    data = read(path)
    started = starts(data, models, indexes, rounds)
    encoders = {way: load_encoder(folder) for way, folder in models.items()}
    queries = latency(data, encoders, 10 if told.quick else 100)
    options = encoders["torch"].about["options"]
    names = ["/".join(Path(options[f"{side}_backbone"]).parts[-2:]) for side in ("image", "text")]
    chosen = f" --data {path.name} --image-backbone {names[0]} --text-backbone {names[1]}"
    threads = os.environ.get("OMP_NUM_THREADS", "not set")
    write(
        "portable",
        f"Portable models: {names[0]} and {names[1]}, {BITS} bits, seed {told.seed}",
        "python benchmarks/portable.py" + (chosen if told.data else ""),
        [
            (f"A whole `xmodal search`, median of {rounds} (OMP_NUM_THREADS {threads})", started),
            ("One query in a warm process", queries),
            ("Agreement", agreement(encoders)),
            ("On disk", sizes(models, (told.image_backbone, told.text_backbone))),
            ("Made with", f"`{json.dumps(encoders['onnx'].about['export']['versions'])}`"),
        ],
        keep=not told.quick,
    )


if __name__ == "__main__":
    main()
