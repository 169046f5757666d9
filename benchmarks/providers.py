"""Execution providers of onnxruntime: items a second, time of loading, bits that differ.

    python benchmarks/providers.py --model PORTABLE_MODEL --data DATA [--items 500] [--rounds 5]
                                   [--quick]

Writes results/providers.md; takes minutes. Every provider of the installed onnxruntime that can be
started is measured beside the CPU's, in turn: a provider has a build of its own (onnxruntime-gpu,
onnxruntime-openvino, onnxruntime-directml), which is installed in place of the package onnxruntime.
The first round is not counted. Pictures are read and decoded in each round, as in indexing.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from pathlib import Path
from typing import Any

from harness.report import table, write

from xmodal import Encoder, load_encoder, read
from xmodal.data.problems import Problems
from xmodal.encoders.providers import PACKAGES, PROVIDERS, Provider
from xmodal.errors import ConfigError, ModelError
from xmodal.modality import MODALITIES, Modality

Sources = dict[Modality, list[Any]]


def loaded(model: Path) -> tuple[dict[Provider, Encoder], list[list[object]]]:
    """Return the encoder by provider, and rows with the seconds of loading or why there is none."""
    encoders: dict[Provider, Encoder] = {}
    rows: list[list[object]] = [["provider", "loading, s", "refused"]]
    for provider in PROVIDERS:
        started = time.perf_counter()
        try:
            encoders[provider] = load_encoder(model, engine="onnx", provider=provider)
        except (ConfigError, ModelError) as error:
            rows.append([provider, "-", str(error)])
        else:
            rows.append([provider, f"{time.perf_counter() - started:.2f}", "-"])
    return encoders, rows


def rates(encoders: dict[Provider, Encoder], sources: Sources, rounds: int) -> str:
    """Return a table of items a second; the providers are measured in turn."""
    rows: list[list[object]] = [["modality", "provider", "items/s, median", "range"]]
    for modality in MODALITIES:
        found: dict[Provider, list[float]] = {provider: [] for provider in encoders}
        for number in range(rounds + 1):
            for provider, encoder in encoders.items():
                started = time.perf_counter()
                encoder.encode(modality, sources[modality], problems=Problems())
                if number:
                    seconds = time.perf_counter() - started
                    found[provider].append(len(sources[modality]) / seconds)
        for provider, values in found.items():
            span = f"{min(values):.0f} to {max(values):.0f}"
            rows.append([modality, provider, f"{statistics.median(values):.0f}", span])
    return table(rows)


def differences(encoders: dict[Provider, Encoder], sources: Sources) -> str:
    """Return a table of the bits and codes of the sources that differ from those of the CPU."""
    rows: list[list[object]] = [["modality", "provider", "different bits", "different codes"]]
    for modality in MODALITIES:
        bits = {
            provider: encoder.encode(modality, sources[modality], problems=Problems())
            for provider, encoder in encoders.items()
        }
        unpacked = {provider: one.codes.to_bits() for provider, one in bits.items()}
        for provider, codes in unpacked.items():
            unequal = codes != unpacked["cpu"]
            whole = f"{int(unequal.any(axis=1).sum())} of {len(codes)}"
            rows.append([modality, provider, f"{int(unequal.sum())} of {codes.size:,}", whole])
    return table(rows)


def builds(provider_packages: Sequence[str]) -> str:
    """Return the installed builds of onnxruntime with their versions."""
    found = []
    for name in ("onnxruntime", *(one.partition(" ")[0] for one in provider_packages)):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return ", ".join(dict.fromkeys(found))


def main() -> None:
    """Run the benchmark and write the report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True, help="a portable model")
    parser.add_argument("--data", type=Path, required=True, help="pictures with texts")
    parser.add_argument("--items", type=int, default=500, help="[default: 500]")
    parser.add_argument("--rounds", type=int, default=5, help="[default: 5]")
    parser.add_argument("--quick", action="store_true", help="40 items, 1 round, no file")
    args = parser.parse_args()
    items, rounds = (40, 1) if args.quick else (args.items, args.rounds)
    data = read(args.data)
    sources: Sources = {
        modality: list(islice((one for item in data for one in item.sources(modality)), items))
        for modality in MODALITIES
    }
    encoders, rows = loaded(args.model)
    about = encoders["cpu"].about["options"]
    names = [Path(about[f"{modality}_backbone"]).name for modality in MODALITIES]
    write(
        "providers",
        f"Execution providers: {' and '.join(names)}, {encoders['cpu'].bits} bits",
        f"python benchmarks/providers.py --model {args.model.name} --data {args.data.name}",
        [
            (
                "Loading, with the comparison of codes",
                f"{builds(list(PACKAGES.values()))}\n\n" + table(rows),
            ),
            (f"{items} items, {rounds} rounds", rates(encoders, sources, rounds)),
            ("Codes beside those of the CPU", differences(encoders, sources)),
        ],
        keep=not args.quick,
    )


if __name__ == "__main__":
    main()
