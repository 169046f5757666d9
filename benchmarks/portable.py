"""Torch, ONNX and int8 ONNX encoders: start-up, latency, throughput, parity of codes, size.

    python benchmarks/portable.py [--data items.jsonl --image-backbone mobilenet_v2.safetensors \\
        --text-backbone PATH] [--rounds 9] [--seed 0] [--work FOLDER] [--quick]

Writes results/portable.md; takes about half an hour, with ``--quick`` minutes and no file. Trains
an encoder (kept in the work folder), exports it as ONNX and as int8 ONNX, indexes the data and
searches. Without ``--data``, synthetic data and the built-in backbones are used. Start-up: a whole
``xmodal search`` process; latency: one query, with decoding, in a process that has loaded the
model. Torch computes in the precision of this machine.
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
from xmodal.data.problems import Problems
from xmodal.data.synthetic import write_synthetic_data

RUNTIMES = ("torch", "onnx", "onnx int8")
BITS = 64
XMODAL = ("-c", "from xmodal.cli import main; main()")


def xmodal(*words: object) -> None:
    """Run an xmodal command."""
    print("$ xmodal", *words, flush=True)
    subprocess.run([sys.executable, *XMODAL, *map(str, words)], check=True)


def whole_search(*words: object) -> tuple[float, float]:
    """Seconds and peak memory (MB) of an ``xmodal search`` process.

    A child process inherits the peak memory of its parent, so torch must not be imported here
    before the last call.
    """
    command = [sys.executable, *XMODAL, "search", *map(str, words), "--json"]
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} exited with status {process.returncode}")
    return seconds, usage.ru_maxrss / 1e3


def prepare(args: argparse.Namespace) -> tuple[Path, dict[str, Path], dict[str, Path]]:
    """The path of the data, and by runtime the model and the index in the work folder."""
    work = args.work / ("quick" if args.quick else f"seed{args.seed}")
    data, label_column = args.data, args.label_column
    if data is None:
        label_column = "labels"
        data = work / "pictures"
        if not data.exists():
            write_synthetic_data(data, 400 if args.quick else 2880)
    backbones = ("--image-backbone", args.image_backbone, "--text-backbone", args.text_backbone)
    models = dict(zip(RUNTIMES, (work / "x.model", work / "x.onnx", work / "x8.onnx"), strict=True))
    settings = ("--set", "epochs=2") if args.quick else ()
    options = ("--bits", BITS, "--seed", args.seed, "--no-report", "--no-portable")
    labels = ("--label-column", label_column) if label_column else ()
    xmodal("train", data, "--out", models["torch"], *backbones, *options, *labels, *settings)
    items = ("--check", data, "--items", 50 if args.quick else 500)
    for runtime, more in (("onnx", ()), ("onnx int8", ("--int8",))):
        if not models[runtime].exists():
            export = ("export", "--model", models["torch"], "--onnx", models[runtime])
            xmodal(*export, *items, *more)
    # ONNX searches the index of torch; the int8 encoder has its own fingerprint and index.
    indexes = {"torch": work / "x.index", "onnx": work / "x.index", "onnx int8": work / "x8.index"}
    for runtime in ("torch", "onnx int8"):
        index = ("--index", indexes[runtime], "--no-portable")
        xmodal("index", data, "--model", models[runtime], *index)
    return data, models, indexes


def starts(data: Dataset, models: dict[str, Path], indexes: dict[str, Path], rounds: int) -> str:
    """Table of start-up times and memory; the runtimes run in turn."""
    pair = data.pairs().items[0]
    rows: list[list[object]] = [["query", "runtime", "seconds", "range", "memory MB"]]
    for kind, query in (("text", pair.captions[:1]), ("image", ("--image", pair.images[0]))):
        found: dict[str, list[tuple[float, float]]] = {runtime: [] for runtime in RUNTIMES}
        for number in range(rounds + 1):
            for runtime in RUNTIMES:
                model = ("--model", models[runtime], "--index", indexes[runtime])
                measured = whole_search(*query, *model)
                if number:  # the first round fills the page cache
                    found[runtime].append(measured)
        for runtime in RUNTIMES:
            seconds, memory = zip(*found[runtime], strict=True)
            span = f"{min(seconds):.2f} to {max(seconds):.2f}"
            median = f"{statistics.median(seconds):.2f}"
            rows.append([kind, runtime, median, span, f"{statistics.median(memory):.0f}"])
    return table(rows)


def latency(data: Dataset, encoders: dict[str, Encoder], rounds: int) -> str:
    """Table of the latency of single queries in a process that has loaded the models, in turn."""
    rows: list[list[object]] = [["query", "runtime", "ms, median", "ms, p90"]]
    pairs = list(islice(cycle(data.pairs().items), rounds + 1))
    for modality in ("text", "image"):
        milliseconds: dict[str, list[float]] = {runtime: [] for runtime in RUNTIMES}
        for number, item in enumerate(pairs):
            for runtime, encoder in encoders.items():
                started = time.perf_counter()
                encoder.encode(modality, item.sources(modality)[:1])
                if number:
                    milliseconds[runtime].append(1e3 * (time.perf_counter() - started))
        for runtime, found in milliseconds.items():
            median, p90 = statistics.median(found), statistics.quantiles(found, n=10)[8]
            rows.append([modality, runtime, f"{median:.1f}", f"{p90:.1f}"])
    return table(rows)


def throughput(data: Dataset, encoders: dict[str, Encoder], items: int) -> str:
    """Table of items a second without a cache, as in indexing; the runtimes run in turn."""
    rows: list[list[object]] = [["modality", "runtime", "items/s, median", "range"]]
    for modality in ("image", "text"):
        sources = [one for item in data for one in item.sources(modality)]
        sources = list(dict.fromkeys(sources))[:items]
        rates: dict[str, list[float]] = {runtime: [] for runtime in RUNTIMES}
        for _ in range(3):
            for runtime, encoder in encoders.items():
                started = time.perf_counter()
                encoder.encode(modality, sources, problems=Problems())
                rates[runtime].append(len(sources) / (time.perf_counter() - started))
        for runtime, found in rates.items():
            span = f"{min(found):.0f} to {max(found):.0f}"
            rows.append([modality, runtime, f"{statistics.median(found):.0f}", span])
    return table(rows)


def parity(encoders: dict[str, Encoder]) -> str:
    """Tables of the parity that the exports have measured and stored in the models."""
    rows: list[list[object]] = [
        ["runtime", "compared with", "modality", "equal bits", "equal codes", "items"]
    ]
    quality: list[list[object]] = [["runtime", "mAP image->text", "mAP text->image"]]
    for runtime in RUNTIMES[1:]:
        export = encoders[runtime].about["export"]
        for other, modalities in export["agreement"].items():
            if " with " in other:  # of the graphs before quantization: in the rows of onnx
                continue
            for modality, one in modalities.items():
                bits, codes = f"{one['bits']:.3%}", f"{one['codes']:.1%}"
                rows.append([runtime, other, modality, bits, codes, one["n"]])
    for name, values in export["mAP"].items():
        quality.append([name, *(f"{values[way]:.4f}" for way in ("image->text", "text->image"))])
    shown = f"On {export['checked on']}.\n\n{table(rows)}"
    return f"{shown}\n\n{table(quality)}" if len(quality) > 1 else shown


def sizes(models: dict[str, Path], backbones: tuple[str, str]) -> str:
    """Table of sizes on disk; an ONNX model contains its backbones, a torch model does not."""
    backbone_bytes = sum(_bytes(Path(spec.partition("?")[0])) for spec in backbones)
    rows: list[list[object]] = [["model", "MB", "with its backbones, MB"]]
    for runtime, folder in models.items():
        own = _bytes(folder)
        whole = own + backbone_bytes * (runtime == "torch")
        rows.append([runtime, f"{own / 1e6:.1f}", f"{whole / 1e6:.1f}"])
    return table(rows)


def _bytes(path: Path) -> int:
    files = [path] if path.is_file() else path.rglob("*") if path.is_dir() else []
    return sum(one.stat().st_size for one in files if one.is_file())


def main() -> None:
    """Run the benchmark and write the report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="images with texts, as for xmodal train")
    parser.add_argument("--label-column", help="label column of --data [default: no labels]")
    parser.add_argument("--image-backbone", default="small-cnn")
    parser.add_argument("--text-backbone", default="words")
    parser.add_argument("--rounds", type=int, help="processes per runtime [default: 9]")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=Path("portable-work"))
    parser.add_argument("--quick", action="store_true", help="small data, few rounds, no file")
    args = parser.parse_args()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    rounds = args.rounds or (2 if args.quick else 9)
    path, models, indexes = prepare(args)
    data = read(path)
    started = starts(data, models, indexes, rounds)
    encoders = {runtime: load_encoder(folder) for runtime, folder in models.items()}
    queries = latency(data, encoders, 10 if args.quick else 100)
    many = throughput(data, encoders, 60 if args.quick else 600)
    options = encoders["torch"].about["options"]
    names = ["/".join(Path(options[f"{name}_backbone"]).parts[-2:]) for name in ("image", "text")]
    arguments = f" --data {path.name} --image-backbone {names[0]} --text-backbone {names[1]}"
    threads = os.environ.get("OMP_NUM_THREADS", "not set")
    write(
        "portable",
        f"Portable models: {names[0]} and {names[1]}, {BITS} bits, seed {args.seed}",
        "python benchmarks/portable.py" + (arguments if args.data else ""),
        [
            (
                f"An `xmodal search` process, median of {rounds} (OMP_NUM_THREADS {threads})",
                started,
            ),
            ("One query in a process with the model loaded", queries),
            ("Many items in a process with the model loaded, without a cache", many),
            ("Parity", parity(encoders)),
            ("Size on disk", sizes(models, (args.image_backbone, args.text_backbone))),
            (
                "Versions of the export",
                f"`{json.dumps(encoders['onnx'].about['export']['versions'])}`",
            ),
        ],
        keep=not args.quick,
    )


if __name__ == "__main__":
    main()
