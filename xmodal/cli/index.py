"""xmodal index"""

from __future__ import annotations

import json
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
)
from xmodal.index import Modality, open_index
from xmodal.readers import read

BATCH = 4096
SHAPES: tuple[tuple[Modality, ...], ...] = (("image", "text"), ("image",), ("text",))


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

    from xmodal.encoder import Encoder
    from xmodal.features import default_cache

    encoder = Encoder.load(
        model, image_backbone=given["image_backbone"], text_backbone=given["text_backbone"]
    )
    target = open_index(uri, bits=encoder.bits, encoder=encoder.fingerprint, create=True)
    with progress_bars() as bars:
        codes = encoder.encode_data(dataset, cache=given["cache"] or default_cache(), progress=bars)
        rows = {side: {id_: row for row, id_ in enumerate(ids)} for side, (ids, _) in codes.items()}
        # Items are stored by the sides they have, so that a batch has one shape.
        for sides in SHAPES:
            items = [i for i in dataset if tuple(s for s in rows if i.id in rows[s]) == sides]
            for start in range(0, len(items), BATCH):
                part = items[start : start + BATCH]
                taken = {s: codes[s][1][[rows[s][item.id] for item in part]] for s in sides}
                target.add(
                    [item.id for item in part],
                    image=taken.get("image"),
                    text=taken.get("text"),
                    fields=[item.document() for item in part],
                )
                bars("indexed", start + len(part), len(items))
    counts = {side: len(ids) for side, (ids, _) in codes.items()}
    target.close()
    tell_problems(dataset.problems)
    if given["as_json"]:
        told: dict[str, Any] = {"index": uri, "documents": len(target)}
        told |= {str(side): count for side, count in counts.items()}
        click.echo(json.dumps(told | {"problems": dataset.problems.counts()}))
    else:
        click.echo(
            f"{uri}: {len(target):,} documents; from {data}: {counts['image']:,} pictures, "
            f"{counts['text']:,} texts"
        )
