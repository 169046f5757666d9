"""The command xmodal index."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import click

from xmodal.cli.data import CommandData, features_option, read_data
from xmodal.cli.encoder import complete_portable, engine_option, load_encoder, no_portable_option
from xmodal.cli.no_train import fit_without_training, print_fitted
from xmodal.cli.options import (
    backbone_options,
    cache_option,
    column_options,
    data_argument,
    json_option,
    model_of_index_option,
)
from xmodal.cli.output import print_json, print_line, print_problems, print_strategy, progress_bars
from xmodal.errors import ConfigError
from xmodal.index.contract import open_index
from xmodal.modality import MODALITIES


@click.command()
@data_argument
@model_of_index_option
@click.option(
    "--index", "uri", required=True, help="Folder of a local index, or address of an index."
)
@click.option("--bits", type=int, help="Without a model: bits of a code [default: 256].")
@backbone_options(None)
@features_option
@column_options
@cache_option
@engine_option
@no_portable_option
@json_option
def index(data: Path, model: Path | None, uri: str, **options: Any) -> None:
    """Add the pictures and texts of DATA to an index; documents of equal ids are replaced.

    A new local index needs no model: an encoder is fitted to DATA without training, from an aligned
    pair of backbones such as openai/clip-vit-base-patch32 (the default), and stored in the index.

    \b
    Example:
      xmodal index photos/ --model my.model --index my.index
      xmodal index photos/ --index my.index
    """
    given = read_data(data, options)
    dataset = given.dataset

    from xmodal.encoders.index_model import record_model
    from xmodal.features.cache import default_cache

    fitted = None
    if model is None:
        model, fitted = _find_or_fit(given, uri, options)
    elif options["bits"] is not None:
        raise ConfigError("--bits is for an index without --model: the model decides the bits")
    features = given.features is not None
    torch_only = features or options["image_backbone"] or options["text_backbone"]
    if options["engine"] == "auto" and not torch_only and not options["no_portable"]:
        complete_portable(model)
    encoder = given.encoder(load_encoder(model, options, features=features))
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
    record_model(uri, model, encoder.fingerprint)
    print_problems(dataset.problems)
    if options["as_json"]:
        result: dict[str, Any] = {"index": uri, "documents": documents}
        result |= {modality: counts[modality] for modality in MODALITIES}
        if fitted is not None:
            result["fitted"] = fitted
        print_json(result | {"problems": dataset.problems.count_by_kind()})
    else:
        print_line(
            f"{uri}: {documents:,} documents; from {data}: {counts['image']:,} pictures, "
            f"{counts['text']:,} texts"
        )
        if fitted is not None:
            print_fitted(fitted)


def _find_or_fit(
    given: CommandData, uri: str, options: dict[str, Any]
) -> tuple[Path, dict[str, Any] | None]:
    """Return the model that an index records; for a new index, fit one and return its report."""
    from xmodal.encoders.index_model import find_model, local_folder, own_model

    found, folder = find_model(uri), local_folder(uri)
    if found is not None:
        if options["bits"] is not None:
            raise ConfigError(f"--bits is for a new index: {uri} has the model {found}")
        return found, None
    if given.features is not None:
        raise ConfigError("--model is missing: features of a file need the encoder of a training")
    assert folder is not None
    model = own_model(folder)
    fitted = fit_without_training(given.dataset, model, options, restart=model.is_dir())
    options |= {"image_backbone": None, "text_backbone": None}
    return model, fitted.report
