"""xmodal index"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import click

from xmodal.cli.show import (
    backbone_options,
    cache_option,
    column_options,
    columns_of,
    data_argument,
    json_option,
    model_option,
    progress_bars,
    tell_problems,
    tell_way,
)
from xmodal.index import MODALITIES, open_index
from xmodal.readers import read


@click.command()
@data_argument
@model_option
@click.option("--index", "uri", required=True, help="Folder of the index, or its address.")
@backbone_options(None)
@column_options
@cache_option
@json_option
def index(data: Path, model: Path, uri: str, **given: Any) -> None:
    """Put the pictures and texts of DATA into an index; items that are there are replaced.

    \b
    Example:
      xmodal index photos/ --model my.model --index my.index
    """
    dataset = read(data, columns_of(given))

    from xmodal.cache import default_cache
    from xmodal.loading import load_encoder

    encoder = load_encoder(
        model, image_backbone=given["image_backbone"], text_backbone=given["text_backbone"]
    )
    target = open_index(uri, bits=encoder.bits, encoder=encoder.fingerprint, create=True)
    tell_way(uri, target)
    counts: Counter[str] = Counter()
    with progress_bars() as bars:
        cache = given["cache"] or default_cache()
        for addition in encoder.additions(dataset, cache=cache, progress=bars):
            target.add(**addition._asdict())
            counts["all"] += len(addition.ids)
            for side in MODALITIES:
                counts[side] += len(addition.ids) if getattr(addition, side) is not None else 0
            bars("indexed", counts["all"], len(dataset))
    documents = len(target)
    target.close()
    tell_problems(dataset.problems)
    if given["as_json"]:
        told: dict[str, Any] = {"index": uri, "documents": documents}
        told |= {side: counts[side] for side in MODALITIES}
        click.echo(json.dumps(told | {"problems": dataset.problems.counts()}))
    else:
        click.echo(
            f"{uri}: {documents:,} documents; from {data}: {counts['image']:,} pictures, "
            f"{counts['text']:,} texts"
        )
