"""xmodal compress"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from xmodal.cli.options import json_option
from xmodal.cli.output import epoch_line, info, print_json, print_line, print_table, runnable
from xmodal.config import parse_settings
from xmodal.errors import ConfigError, require

BITS = 128
NAMES = {"sigah": "xmodal compress", "itq": "PCA + ITQ", "pca": "sign of PCA"}


@click.command()
@click.argument("features", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder to make.")
@click.option("--bits", type=int, help=f"Width of the codes [default: {BITS}].")
@click.option(
    "--apply",
    "finished",
    type=click.Path(path_type=Path),
    help="Code FEATURES as this folder's codes were made, and learn nothing.",
)
@click.option("--seed", type=int, help="Same seed, same codes [default: 0].")
@click.option("--set", "assignments", multiple=True, metavar="NAME=VALUE", help="SiGAH's setting.")
@click.option("--restart", is_flag=True, help="Replace what is in --out.")
@json_option
def compress(features: Path, out: Path, finished: Path | None, **given: Any) -> None:
    """Turn vectors of any model into binary codes, without labels.

    FEATURES is a .npy file of float16, float32 or float64 numbers, one vector a row. Codes that are
    near by Hamming distance belong to vectors that are near by cosine. The folder --out gets
    codes.npy: packed bits, most significant first, in the order of the rows.

    A stopped run goes on when the same command is given again.

    \b
    Example:
      xmodal compress features.npy --bits 128 --out my.codes
      xmodal compress other.npy --apply my.codes --out other.codes
    """
    require("xmodal compress", "torch")
    if finished is not None:
        _apply(features, out, finished, given)
        return
    settings = parse_settings(given["assignments"])
    bits = BITS if given["bits"] is None else given["bits"]
    seed = given["seed"] or 0

    from xmodal.data.vectors import read_features
    from xmodal.training.compress import compress as learn

    vectors = read_features(features)
    info(f"{features}: {len(vectors):,} vectors of {vectors.shape[1]:,} dimensions")
    done = learn(vectors, bits, out, settings, seed=seed, restart=given["restart"], show=epoch_line)
    told = {"codes": str(out), "fingerprint": done.compressor.fingerprint}
    if given["as_json"]:
        print_json(told | {"n": len(done.codes)} | done.report)
        return
    print_line(f"{out}: {len(done.codes):,} codes of {bits} bits, {told['fingerprint']}")
    measured, health = done.report["measured"], done.report["health"]
    columns = list(done.report["recall"]["sigah"])
    table = [["method", *columns]]
    for name, figures in done.report["recall"].items():
        table.append([NAMES[name], *(f"{figures[column]:.3f}" for column in columns)])
    k = measured["neighbours"]
    print_table(table)
    print_line(
        f"how many of the {k} exact cosine neighbours codes find: {measured['queries']:,} rows "
        f"that nothing learned from, among {measured['searched']:,} others"
    )
    print_line(
        f"codes: {health['distinct']:.0%} distinct, {health['largest_bucket']:.1%} on the "
        f"commonest; a bit's entropy {health['entropy']:.2f}, two bits' correlation "
        f"{health['correlation']:.2f}"
    )
    info(f"next: {runnable('xmodal')} compress OTHER.npy --apply {out} --out other.codes")


def _apply(features: Path, out: Path, finished: Path, given: dict[str, Any]) -> None:
    """Code other vectors with what is in the folder ``finished``."""
    learning = {"--bits": given["bits"], "--seed": given["seed"], "--set": given["assignments"]}
    for name, value in learning.items():
        if value is not None and value != ():
            raise ConfigError(f"{name} is for learning codes; --apply takes them as they are")

    from xmodal.data.vectors import read_features
    from xmodal.encoders.compressor import Compressor
    from xmodal.encoders.folder import COMPRESSOR, prepare_folder

    compressor = Compressor.load(finished)
    if out.resolve() == finished.resolve():
        raise ConfigError(f"--out is {out}, which --apply reads: name a new folder")
    vectors = read_features(features)
    codes = compressor.encode(vectors)
    if prepare_folder(out, COMPRESSOR, given["restart"]):
        raise ConfigError(f"{out} holds codes already: name a new folder, or add --restart")
    compressor.save(out, codes)
    told = {"codes": str(out), "fingerprint": compressor.fingerprint, "n": len(codes)}
    if given["as_json"]:
        print_json(told | {"bits": codes.bits})
    else:
        print_line(f"{out}: {len(codes):,} codes of {codes.bits} bits, {told['fingerprint']}")
