"""The command xmodal index."""

from __future__ import annotations

import os
from collections import Counter
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from xmodal.cli.changes import show_changes
from xmodal.cli.data import features_option, read_data
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
from xmodal.cli.sources import LISTED, Data, by_source, data_argument, is_features, paths_of
from xmodal.cli.streams import DataStream
from xmodal.data.problems import Problems
from xmodal.data.progress import Progress
from xmodal.errors import ConfigError, DataError
from xmodal.index.contract import open_index
from xmodal.index.parts.finding import find_parts
from xmodal.modality import MODALITIES
from xmodal.retrieval.indexing import Changes, update_source

if TYPE_CHECKING:
    from xmodal.encoders.encoder import Encoder
    from xmodal.index.filling import Filling


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
@engine_option()
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
    sources = _sources(data, uri, options)
    with lock_local(uri):
        _index(sources, data, model, uri, options)


def _index(
    sources: dict[str, DataStream],
    data: Data,
    model: Path | None,
    uri: str,
    options: dict[str, Any],
) -> None:
    """Update the index, which is locked, from named sources, and print what changed."""
    from xmodal.encoders.index_model import record_model
    from xmodal.index.filling import Filling
    from xmodal.index.parts.ids import is_new_source

    features = bool(options["feature_files"]) or is_features(data)
    fitted = None
    if model is None:
        model, fitted = _find_or_fit(data, features, uri, options)
    elif options["bits"] is not None:
        raise ConfigError("--bits is for an index without --model: the model decides the bits")
    torch_only = features or options["image_backbone"] or options["text_backbone"]
    if options["engine"] == "auto" and not torch_only and not options["no_portable"]:
        complete_portable(model, trust_remote_code=options["trust_remote_code"])
    encoder = load_encoder(model, options, features=features)
    target = open_index(uri, bits=encoder.bits, fingerprint=encoder.fingerprint, create=True)
    print_strategy(uri, target)
    filling = Filling(target, partial(record_model, uri, model, encoder.fingerprint))
    changes = Changes()
    with progress_bars() as bars:
        for name, source in sources.items():
            update = _add if is_new_source(target, name) else _update
            of_source = update(filling, encoder, name, source, bars)
            if options["prune"]:
                of_source.prune(target)
            changes.add(of_source)
    documents = len(target)
    record_model(uri, model, encoder.fingerprint)
    with status(f"saving {uri}"):
        target.close()
    problems = Problems()
    for source in sources.values():
        problems.extend(source.problems)
    print_problems(problems)
    fitted_report = {} if fitted is None else {"fitted": fitted}
    more = fitted_report | {"problems": problems.count_by_kind()}
    show_changes(changes, data, uri, documents, options, more)
    if fitted is not None and not options["as_json"]:
        print_fitted(fitted)


def _sources(data: Data, uri: str, options: dict[str, Any]) -> dict[str, DataStream]:
    """Return the sources of DATA by name; unusable ones among several are problems.

    Missing or empty data removes no document.
    """
    named = [(options["source"], data)] if options["source"] else by_source(data)
    if len(named) > 1 and options["feature_files"]:
        raise ConfigError("--features for several sources needs a name for them: add --source")
    sources: dict[str, DataStream] = {}
    unread = Problems()
    for name, one in named:
        source = DataStream(one, options)
        try:
            source.start()
        except DataError as error:
            reason = str(error)
            if options["prune"]:
                reason += (
                    f"; nothing was removed: xmodal delete {uri} --source {one} removes all "
                    "documents of this source"
                )
            if len(named) == 1 or (name != LISTED and not os.path.exists(name)):
                raise DataError(reason) from None
            unread.add("source that cannot be read", reason)
        else:
            sources[name] = source
    if not sources:
        raise DataError(f"{data}: {'; '.join(unread.summary_lines())}")
    next(iter(sources.values())).problems.extend(unread)
    return sources


def _add(
    filling: Filling, encoder: Encoder, name: str, source: DataStream, progress: Progress
) -> Changes:
    """Add the documents of a source of which the index has none, as they are read."""
    from xmodal.features.cache import default_cache
    from xmodal.index.parts.ids import NewIds

    ids = NewIds(filling.index)
    codes: Counter[str] = Counter()
    number = 0
    documents = source.documents(
        encoder,
        source=name,
        cache=source.options["cache"] or default_cache(),
        vectors=not source.options["no_vectors"],
    )
    for batch in documents:
        filling.add(ids.applied(batch))
        number += len(batch)
        codes.update({modality: int(batch.counts(modality).sum()) for modality in MODALITIES})
        progress("indexed", number, max(number, source.total) if source.total else 0)
    numbers = {"added": number - ids.existing, "replaced": ids.existing}
    return Changes(Counter(numbers), codes, ids.renamed)


def _update(
    filling: Filling, encoder: Encoder, name: str, source: DataStream, progress: Progress
) -> Changes:
    """Make the documents of a source those of the data, whose items are read whole."""
    from xmodal.features.cache import default_cache

    options, given = source.options, source.read()
    return update_source(
        filling,
        given.encoder(encoder),
        given.dataset,
        name,
        problems=source.problems,
        reuse=given.features is None,
        vectors=not options["no_vectors"],
        cache=options["cache"] or default_cache(),
        progress=progress,
    )


def _find_or_fit(
    data: Data, features: bool, uri: str, options: dict[str, Any]
) -> tuple[Path, dict[str, Any] | None]:
    """Return the model that an index records; for a new index, fit one and return its report.

    ``features``: DATA or a part of it is features of a file.
    """
    from xmodal.encoders.index_model import default_model, find_model, local_folder, own_model

    found, folder = find_model(uri), local_folder(uri)
    if found is None and options["bits"] is None and (found := default_model()) is not None:
        info(f"model: {found}")
    if found is not None:
        if options["bits"] is not None:
            raise ConfigError(f"--bits is for a new index: {uri} has the model {found}")
        return found, None
    if features:
        raise ConfigError("--model is missing: features of a file need the encoder of a training")
    assert folder is not None
    model = own_model(folder)
    dataset = read_data(data, options).dataset
    fitted = fit_without_training(dataset, model, options, restart=model.is_dir())
    options |= {"image_backbone": None, "text_backbone": None}
    return model, fitted.report
