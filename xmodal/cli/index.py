"""The command xmodal index."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import click

from xmodal.cli.options import (
    backbone_options,
    cache_option,
    column_options,
    data_argument,
    json_option,
    model_option,
    read_data,
)
from xmodal.cli.output import print_json, print_line, print_problems, print_strategy, progress_bars
from xmodal.index.contract import open_index
from xmodal.modality import MODALITIES


@click.command()
@data_argument
@model_option
@click.option(
    "--index", "uri", required=True, help="Folder of a local index, or address of an index."
)
@backbone_options(None)
@column_options
@cache_option
@json_option
def index(data: Path, model: Path, uri: str, **options: Any) -> None:
    """Add the pictures and texts of DATA to an index; documents of equal ids are replaced.

    \b
    Example:
      xmodal index photos/ --model my.model --index my.index
    """
    dataset = read_data(data, options)

    from xmodal.encoders.load import load_encoder
    from xmodal.features.cache import default_cache

    encoder = load_encoder(
        model, image_backbone=options["image_backbone"], text_backbone=options["text_backbone"]
    )
    target = open_index(uri, bits=encoder.bits, fingerprint=encoder.fingerprint, create=True)
    print_strategy(uri, target)
    counts: Counter[str] = Counter()
    with progress_bars() as bars:
        cache = options["cache"] or default_cache()
        for batch in encoder.batches(dataset, cache=cache, progress=bars):
            target.add(batch)
            counts["documents"] += len(batch)
            for modality in MODALITIES:
                counts[modality] += int(batch.counts(modality).sum())
            bars("indexed", counts["documents"], len(dataset))
    documents = len(target)
    target.close()
    print_problems(dataset.problems)
    if options["as_json"]:
        result: dict[str, Any] = {"index": uri, "documents": documents}
        result |= {modality: counts[modality] for modality in MODALITIES}
        print_json(result | {"problems": dataset.problems.count_by_kind()})
    else:
        print_line(
            f"{uri}: {documents:,} documents; from {data}: {counts['image']:,} pictures, "
            f"{counts['text']:,} texts"
        )
