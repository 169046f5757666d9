"""The command xmodal index."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from xmodal.cli.changes import Changes
from xmodal.cli.data import CommandData, features_option, read_data
from xmodal.cli.encoder import complete_portable, engine_option, load_encoder, no_portable_option
from xmodal.cli.no_train import fit_without_training, print_fitted
from xmodal.cli.options import (
    backbone_options,
    cache_option,
    column_options,
    index_option,
    json_option,
    model_of_index_option,
    no_vectors_option,
    source_option,
)
from xmodal.cli.output import info, print_problems, print_strategy, progress_bars, status
from xmodal.cli.parts import index_parts
from xmodal.cli.sources import LISTED, Data, Sources, by_source, data_argument, paths_of
from xmodal.data.dataset import Problems
from xmodal.errors import ConfigError, DataError
from xmodal.index.contract import Index, open_index
from xmodal.index.parts.finding import find_parts
from xmodal.modality import MODALITIES

if TYPE_CHECKING:
    from xmodal.encoders.encoder import Encoder


@click.command()
@data_argument()
@model_of_index_option
@index_option
@click.option("--bits", type=int, help="Without a model: bits of a code [default: 256].")
@click.option(
    "--prune",
    is_flag=True,
    help="Remove documents of DATA whose picture or row is no longer there.",
)
@source_option
@no_vectors_option
@backbone_options(None)
@features_option
@column_options
@cache_option
@engine_option
@no_portable_option
@json_option
def index(data: Data, model: Path | None, uri: str, **options: Any) -> None:
    """Add the pictures and texts of DATA to an index, or update them there.

    Documents that DATA had before are replaced; those that did not change are not encoded again.
    A picture that was renamed moves. Documents of other sources stay, also under equal ids.
    DATA is a folder, a table or a picture; several of them are several sources. "-" reads their
    paths from standard input, one a line. Parts that xmodal encode wrote, or their folder, are
    added without encoding and without the model.

    A new index has the model in .xmodal/model, where xmodal train writes it. Without one, an
    encoder is fitted to DATA without training, from an aligned pair of backbones such as
    openai/clip-vit-base-patch32 (the default), and stored in the index.

    \b
    Example:
      xmodal index photos/
      xmodal index photos/ --model my.model --index my.index
      xmodal index photos/ --index my.index --prune
      xmodal index a/ b.csv "shards/{000..010}.tar"
      find photos -name "*.jpg" | xmodal index -
      xmodal index parts/ --index my.index
    """
    from xmodal.encoders.index_model import lock_local

    if encoded := find_parts(paths_of(data)):
        with lock_local(uri):
            index_parts(encoded, data, model, uri, options)
        return
    parts = _read(data, uri, options)
    with lock_local(uri):
        _index(parts, data, model, uri, options)


def _index(
    parts: list[tuple[str, CommandData]],
    data: Data,
    model: Path | None,
    uri: str,
    options: dict[str, Any],
) -> None:
    """Update the index, which is locked, from named sources, and print what changed."""
    from xmodal.encoders.index_model import record_model

    given = parts[0][1]
    fitted = None
    if model is None:
        model, fitted = _find_or_fit(data, given, uri, options)
    elif options["bits"] is not None:
        raise ConfigError("--bits is for an index without --model: the model decides the bits")
    features = given.features is not None
    torch_only = features or options["image_backbone"] or options["text_backbone"]
    if options["engine"] == "auto" and not torch_only and not options["no_portable"]:
        complete_portable(model, trust_remote_code=options["trust_remote_code"])
    encoder = given.encoder(load_encoder(model, options, features=features))
    target = open_index(uri, bits=encoder.bits, fingerprint=encoder.fingerprint, create=True)
    print_strategy(uri, target)
    changes = Changes()
    for source, part in parts:
        changes.add(_update(target, encoder, part, source, options))
    documents = len(target)
    record_model(uri, model, encoder.fingerprint)
    with status(f"saving {uri}"):
        target.close()
    problems = Problems()
    for _, part in parts:
        problems.extend(part.dataset.problems)
    print_problems(problems)
    fitted_report = {} if fitted is None else {"fitted": fitted}
    changes.show(
        data, uri, documents, options, fitted_report | {"problems": problems.count_by_kind()}
    )
    if fitted is not None and not options["as_json"]:
        print_fitted(fitted)


def _read(data: Data, uri: str, options: dict[str, Any]) -> list[tuple[str, CommandData]]:
    """Read the sources of DATA, each with its name; unusable ones among several are problems.

    Missing or empty data removes no document.
    """
    sources = [(options["source"], data)] if options["source"] else by_source(data)
    if len(sources) > 1 and options["feature_files"]:
        raise ConfigError("--features for several sources needs a name for them: add --source")
    parts: list[tuple[str, CommandData]] = []
    unread = Problems()
    for name, one in sources:
        try:
            parts.append((name, read_data(one, options)))
        except DataError as error:
            reason = str(error)
            if options["prune"]:
                reason += (
                    f"; nothing was removed: xmodal delete {uri} --source {one} removes all "
                    "documents of this source"
                )
            if len(sources) == 1 or (name != LISTED and not os.path.exists(name)):
                raise DataError(reason) from None
            unread.add("source that cannot be read", reason)
    if not parts:
        raise DataError(f"{data}: {'; '.join(unread.summary_lines())}")
    parts[0][1].dataset.problems.extend(unread)
    return parts


def _update(
    target: Index, encoder: Encoder, given: CommandData, source: str, options: dict[str, Any]
) -> Changes:
    """Make the documents of a source those of the data."""
    from xmodal.features.cache import default_cache
    from xmodal.index.update import plan_update

    with progress_bars() as bars:
        dataset = given.dataset
        update = plan_update(target, dataset, source, reuse=given.features is None, progress=bars)
        codes, stored, existing = Counter(update.counts), 0, 0
        for batch in update.rewritten:
            target.add(batch)
            stored, existing = stored + len(batch), existing + update.number_existing(batch)
        encoded = encoder.batches(
            update.encode,
            cache=options["cache"] or default_cache(),
            progress=bars,
            vectors=not options["no_vectors"],
        )
        for batch in encoded:
            target.add(update.with_origins(batch))
            stored, existing = stored + len(batch), existing + update.number_existing(batch)
            codes.update({modality: int(batch.counts(modality).sum()) for modality in MODALITIES})
            bars("indexed", stored + update.unchanged, len(dataset))
    removed = update.gone if options["prune"] else []
    if update.moved or removed:
        target.delete([*update.moved, *removed])
    numbers = {
        "added": stored - existing - min(len(update.moved), stored - existing),
        "replaced": existing,
        "unchanged": update.unchanged,
        "moved": len(update.moved),
        "removed": len(removed),
        "missing": len(update.gone) - len(removed),
    }
    return Changes(Counter(numbers), codes, dict(update.apart))


def _find_or_fit(
    data: Data, given: CommandData, uri: str, options: dict[str, Any]
) -> tuple[Path, dict[str, Any] | None]:
    """Return the model that an index records; for a new index, fit one and return its report.

    ``given``: what was read of DATA, or of the first one of several sources.
    """
    from xmodal.encoders.index_model import default_model, find_model, local_folder, own_model

    found, folder = find_model(uri), local_folder(uri)
    if found is None and options["bits"] is None and (found := default_model()) is not None:
        info(f"model: {found}")
    if found is not None:
        if options["bits"] is not None:
            raise ConfigError(f"--bits is for a new index: {uri} has the model {found}")
        return found, None
    if given.features is not None:
        raise ConfigError("--model is missing: features of a file need the encoder of a training")
    assert folder is not None
    model = own_model(folder)
    dataset = read_data(data, options).dataset if isinstance(data, Sources) else given.dataset
    fitted = fit_without_training(dataset, model, options, restart=model.is_dir())
    options |= {"image_backbone": None, "text_backbone": None}
    return model, fitted.report
