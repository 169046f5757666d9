"""xmodal encode"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np

from xmodal.cli.options import (
    backbone_options,
    cache_option,
    column_options,
    columns_of,
    json_option,
    model_option,
)
from xmodal.cli.output import print_json, print_line, print_problems, progress_bars
from xmodal.data.readers.tables import read
from xmodal.errors import ConfigError


@click.command()
@click.argument("data", required=False, type=click.Path(path_type=Path))
@model_option
@click.option("--text", "texts", multiple=True, help="Encode this text.")
@click.option("--image", "images", multiple=True, help="Encode this picture.")
@click.option("--out", type=click.Path(path_type=Path), help="Write the codes of DATA (.npz).")
@backbone_options(None)
@column_options
@cache_option
@json_option
def encode(
    data: Path | None,
    model: Path,
    texts: tuple[str, ...],
    images: tuple[str, ...],
    out: Path | None,
    **given: Any,
) -> None:
    """Print codes of single texts and pictures in hexadecimal, or write those of DATA.

    The file of DATA has image_ids, image_codes, text_ids, text_codes: packed bits, most significant
    first.

    \b
    Example:
      xmodal encode --model my.model --text "red shoes" --image a.jpg
      xmodal encode photos/ --model my.model --out codes.npz
    """
    if (data is None) != (out is None) or (data is None and not texts and not images):
        raise ConfigError("give DATA with --out, or --text, or --image: see xmodal encode --help")

    from xmodal.encoders.folder import atomic_write
    from xmodal.encoders.load import load_encoder
    from xmodal.features.cache import default_cache

    encoder = load_encoder(
        model, image_backbone=given["image_backbone"], text_backbone=given["text_backbone"]
    )
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
    lines: list[dict[str, str]] = []
    if texts:
        codes = encoder.encode_texts(list(texts)).to_hex()
        lines += [{"text": one, "code": code} for one, code in zip(texts, codes, strict=True)]
    if images:
        codes = encoder.encode_images(list(images)).to_hex()
        lines += [{"image": one, "code": code} for one, code in zip(images, codes, strict=True)]
    for line in lines:
        if given["as_json"]:
            print_json(line)
        else:
            print_line(line["code"])
    if data is None or out is None:
        return
    dataset = read(data, columns_of(given))
    with progress_bars() as bars:
        sides = encoder.encode_data(dataset, cache=given["cache"] or default_cache(), progress=bars)
    arrays: dict[str, Any] = {"bits": np.array(encoder.bits)}
    for side, (ids, packed) in sides.items():
        arrays[f"{side}_ids"] = np.array(ids, dtype=str)
        arrays[f"{side}_codes"] = packed.packed
    with atomic_write(out) as file:
        np.savez(file, **arrays)
    print_problems(dataset.problems)
    counts = ", ".join(f"{len(ids):,} {side} codes" for side, (ids, _) in sides.items())
    print_line(f"{out}: {counts}")
