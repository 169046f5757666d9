"""xmodal compress"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from xmodal.cli.epochs import EpochLines
from xmodal.cli.options import json_option
from xmodal.cli.output import info, print_json, print_line, print_table, runnable
from xmodal.config import parse_settings
from xmodal.errors import ConfigError, require

DEFAULT_BITS = 128
ROW_NAMES = {"sigah": "xmodal compress", "itq": "PCA + ITQ", "pca": "sign of PCA"}


@click.command()
@click.argument("features", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder to create.")
@click.option("--bits", type=int, help=f"Bits of a code [default: {DEFAULT_BITS}].")
@click.option(
    "--apply",
    "learned",
    type=click.Path(path_type=Path),
    help="Encode FEATURES with the compressor in this folder, without training.",
)
@click.option("--seed", type=int, help="Random seed; equal seeds give equal codes [default: 0].")
@click.option(
    "--set", "assignments", multiple=True, metavar="NAME=VALUE", help="Set a setting of SiGAH."
)
@click.option(
    "--restart", is_flag=True, help="Replace the folder --out when the new codes are complete."
)
@json_option
def compress(features: Path, out: Path, learned: Path | None, **params: Any) -> None:
    """Compress vectors of any model to binary codes, without labels.

    FEATURES is a .npy file, (n, dim), of float16, float32 or float64. Hamming distances of codes
    approximate cosine distances of vectors. The result is codes.npy in the folder --out: packed
    bits, most significant bit first, one row per vector.

    To continue an interrupted training, run the same command again.

    \b
    Example:
      xmodal compress features.npy --bits 128 --out my.codes
      xmodal compress other.npy --apply my.codes --out other.codes
    """
    require("xmodal compress", "torch")
    if learned is not None:
        _apply(features, out, learned, params)
        return
    settings = parse_settings(params["assignments"])
    bits = DEFAULT_BITS if params["bits"] is None else params["bits"]
    seed = params["seed"] or 0

    from xmodal.data.vectors import read_features
    from xmodal.training.compress import compress as train_compressor

    vectors = read_features(features)
    info(f"{features}: {len(vectors):,} vectors of {vectors.shape[1]:,} dimensions")
    compressed = train_compressor(
        vectors, bits, out, settings, seed=seed, restart=params["restart"], show=EpochLines()
    )
    codes, report = compressed.codes, compressed.report
    summary = {"codes": str(out), "fingerprint": compressed.compressor.fingerprint}
    if params["as_json"]:
        print_json(summary | {"n": len(codes)} | report)
        return
    print_line(f"{out}: {len(codes):,} codes of {bits} bits, {summary['fingerprint']}")
    measured, health = report["measured"], report["health"]
    columns = list(report["recall"]["sigah"])
    table = [["method", *columns]]
    for name, figures in report["recall"].items():
        table.append([ROW_NAMES[name], *(f"{figures[column]:.3f}" for column in columns)])
    k = measured["neighbours"]
    print_table(table)
    print_line(
        f"recall of the {k} exact cosine neighbours of {measured['queries']:,} held-out vectors "
        f"among {measured['searched']:,} others"
    )
    print_line(
        f"codes: {health['distinct']:.0%} distinct, {health['largest_bucket']:.1%} equal to the "
        f"most frequent one; entropy of a bit {health['entropy']:.2f}, correlation of two bits "
        f"{health['correlation']:.2f}"
    )
    info(f"next: {runnable('xmodal')} compress OTHER.npy --apply {out} --out other.codes")


def _apply(features: Path, out: Path, learned: Path, params: dict[str, Any]) -> None:
    """Write the codes of vectors with the compressor of the folder ``learned``."""
    training_options = {
        "--bits": params["bits"],
        "--seed": params["seed"],
        "--set": params["assignments"],
    }
    for name, value in training_options.items():
        if value is not None and value != ():
            raise ConfigError(f"{name} is an option of training; remove it, or --apply")

    from xmodal.data.vectors import read_features
    from xmodal.encoders.compressor import Compressor
    from xmodal.encoders.folder import COMPRESSOR, open_run

    compressor = Compressor.load(learned)
    if out.resolve() == learned.resolve():
        raise ConfigError(f"--out and --apply are both {out}: name a new folder")
    vectors = read_features(features)
    with open_run(out, COMPRESSOR, params["restart"]) as place:
        if place.work is None or place.finished:
            raise ConfigError(f"{out} contains codes: name a new folder, or add --restart")
        place.clear()
        codes = compressor.encode(vectors)
        compressor.save(place.work, codes)
        place.complete()
    summary = {"codes": str(out), "fingerprint": compressor.fingerprint, "n": len(codes)}
    if params["as_json"]:
        print_json(summary | {"bits": codes.bits})
    else:
        print_line(f"{out}: {len(codes):,} codes of {codes.bits} bits, {summary['fingerprint']}")
