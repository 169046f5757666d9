"""Parts: encoding of a shard of DATA into a Parquet file, and loading of parts into an index."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from xmodal.cli.changes import show_changes
from xmodal.cli.encoder import load_encoder
from xmodal.cli.options import columns_of, reading_options
from xmodal.cli.output import (
    info,
    print_json,
    print_line,
    print_problems,
    print_strategy,
    progress_bars,
    status,
)
from xmodal.cli.remote_data import GivenData, local_data
from xmodal.cli.sources import Data, by_source, is_features, paths_of
from xmodal.cli.streams import DataStream
from xmodal.data.problems import Problems
from xmodal.data.remote import address, check_remote_target, is_remote, is_remote_file
from xmodal.data.sharding import Shard, listing_digest
from xmodal.encoders.folder import CONFIG, stored_fingerprint
from xmodal.errors import ConfigError, IndexMismatch
from xmodal.index.contract import open_index
from xmodal.index.documents import DocumentBatch
from xmodal.index.parts.info import PartInfo
from xmodal.index.parts.part import ENDING, Part
from xmodal.index.parts.writing import write_part
from xmodal.retrieval.indexing import Changes
from xmodal.writing import check_target


def part_path(out: Path, shard: Shard) -> Path:
    """Return the file of a shard.

    ``out``: a file; a name with ``*``, which stands for "00003-of-00016"; or a folder, in which
    the name is "part-00003-of-00016.parquet". Raises ConfigError.
    """
    name = f"{shard.number:05}-of-{shard.count:05}"
    if "*" in out.name:
        return out.with_name(out.name.replace("*", name))
    if out.suffix.lower() != ENDING or out.is_dir():
        return out / f"part-{name}{ENDING}"
    return out


def encode_part(
    model: Path, data: Data | None, out: Path, shard: Shard, options: Mapping[str, Any]
) -> None:
    """Encode a shard of DATA into a part, unless that is complete, and print what it holds."""
    path, problems = part_path(out, shard), Problems()
    with ExitStack() as stack:
        given = None
        if data is not None:
            given = stack.enter_context(local_data(data, options, problems))
        header = part_header(model, given, shard, options)
        if is_complete(path, given, header, options):
            return
        features = bool(options["feature_files"]) or is_features(data)
        encoder = load_encoder(model, options, features=features)
        header = replace(header, fingerprint=encoder.fingerprint, bits=encoder.bits)
        stream = DataStream(None, options) if given is None else given.stream(problems)
        bars = stack.enter_context(progress_bars())
        documents = stream.documents(
            encoder,
            source=header.source,
            shard=shard,
            root=Path() if given is None else given.root,
            cache=options["cache"],
            vectors=header.vectors,
        )

        def counted() -> Iterator[DocumentBatch]:
            number = 0
            for batch in documents:
                yield batch
                number += len(batch)
                bars("encoded", number, max(number, stream.total) if stream.total else 0)

        written = write_part(path, header, counted(), stream.problems)
    print_problems(stream.problems)
    print_part(path, written, options, skipped=False)


def part_header(
    model: Path, data: GivenData | None, shard: Shard, options: Mapping[str, Any]
) -> PartInfo:
    """Return what a part has in common with the other shards of DATA, without its bits."""
    files = options["feature_files"]
    read = () if data is None else paths_of(data.local)
    return PartInfo(
        stored_fingerprint(model),
        0,
        listing_digest([*read, *files], reading_options(options) | vars(columns_of(options))),
        options["source"] or _source(files[0] if data is None else data.data),
        shard,
        vectors=not options["no_vectors"],
    )


def is_complete(
    path: Path, data: GivenData | None, header: PartInfo, options: Mapping[str, Any]
) -> bool:
    """Return whether the part exists, and print what it holds; else check that it can be written.

    Raises IndexMismatch for a part of another model, listing or shard, IndexFailure for another
    file, ConfigError for a part in a folder of DATA, OSError, and RemoteFailure.
    """
    if data is not None:
        _check_outside(path, data)
    if not is_remote(path):
        check_target(path)
    exists = is_remote_file(path) if is_remote(path) else path.exists()
    if exists:
        print_part(path, _complete(path, header), options, skipped=True)
    elif is_remote(path):
        check_remote_target(path)
    return exists


def _source(data: Data) -> str:
    """Return the name of the source of DATA. Raises ConfigError for several sources."""
    sources = by_source(data)
    if len(sources) > 1:
        raise ConfigError(
            f"parts have one source, this command has {len(sources):,}: encode each of them into "
            "an --out of its own, or name them together with --source"
        )
    return sources[0][0]


def _check_outside(path: Path, data: GivenData) -> None:
    """Raise ConfigError for a part in a folder of the data, which it would change."""
    target = Path(os.path.realpath(path))
    for source, local in zip(paths_of(data.data), paths_of(data.local), strict=True):
        if local.is_dir() and target.is_relative_to(os.path.realpath(source)):
            raise ConfigError(
                f"--out {address(path)} is inside of {address(source)}, expected another folder"
            )


def _complete(path: Path, header: PartInfo) -> PartInfo:
    """Return what an existing part holds if it is the one to write.

    Raises IndexMismatch for a part of another model, listing or shard, IndexFailure for another
    file.
    """
    found = Part(path).info
    for name, mine, other in (
        ("model", header.fingerprint, found.fingerprint),
        ("shard", header.shard, found.shard),
        ("source", header.source, found.source),
        ("listing of files", header.listing, found.listing),
        ("setting of --no-vectors", not header.vectors, not found.vectors),
    ):
        if mine != other:
            raise IndexMismatch(
                f"{address(path)} is of another {name} ({other}, expected {mine}): remove it, or "
                "name another --out"
            )
    return found


def print_part(path: Path, part: PartInfo, options: Mapping[str, Any], *, skipped: bool) -> None:
    """Print what a part holds; ``skipped``: it was there before."""
    if options["as_json"]:
        numbers = {"documents": part.documents, **part.codes, "problems": part.problems}
        print_json({"part": address(path), "skipped": skipped, **numbers})
        return
    if skipped:
        info(f"{address(path)} is complete, nothing was encoded")
    counts = ", ".join(f"{part.codes[m]:,} {m} codes" for m in part.codes)
    print_line(f"{address(path)}: {part.documents:,} documents, {counts}")


def index_parts(
    parts: Sequence[Part], data: Data, model: Path | None, uri: str, options: Mapping[str, Any]
) -> None:
    """Add the documents of parts to an index, which is locked, and print what changed.

    The model is recorded if it is given, or found by the fingerprint of the parts.
    """
    from xmodal.encoders.index_model import record_model
    from xmodal.index.filling import Filling
    from xmodal.index.parts.ids import resolve_ids

    if options["bits"] is not None or options["feature_files"]:
        raise ConfigError("parts hold codes: leave --bits and --features out")
    first = parts[0].info
    model = _model_of(first, model, uri)
    target = open_index(uri, bits=first.bits, fingerprint=first.fingerprint, create=True)
    print_strategy(uri, target)
    total = sum(map(len, parts))
    saved = partial(record_model, uri, model, first.fingerprint) if model is not None else int
    filling = Filling(target, saved, compare=len(target) > 0)
    with progress_bars() as bars:
        ids = resolve_ids(target, parts)
        for part in parts:
            for batch in part.batches():
                applied = ids.applied(batch)
                filling.add(applied.without_vectors() if options["no_vectors"] else applied)
                bars("indexed", filling.stored, total)
    removed = target.delete(ids.missing) if options["prune"] and ids.missing else 0
    documents = len(target)
    if model is not None:
        record_model(uri, model, first.fingerprint)
    with status(f"saving {uri}"):
        target.close()
    numbers = {
        "added": filling.stored - ids.existing,
        "replaced": ids.existing - filling.unchanged,
        "unchanged": filling.unchanged,
        "removed": removed,
        "missing": len(ids.missing) - removed,
    }
    codes: Counter[str] = Counter()
    problems: Counter[str] = Counter()
    for part in parts:
        codes.update(part.info.codes)
        problems.update(part.info.problems)
    changes = Changes(Counter(numbers), codes, {name: id_ for (_, name), id_ in ids.apart.items()})
    show_changes(changes, data, uri, documents, options, {"problems": problems})
    if model is None:
        info(f"{uri} records no model: give the encoder of the parts to searches with --model")


def _model_of(part: PartInfo, given: Path | None, uri: str) -> Path | None:
    """Return the encoder to record: the given one, or another of the parts' fingerprint if known.

    Raises IndexMismatch if the given one has another fingerprint.
    """
    from xmodal.encoders.index_model import default_model, recorded_model

    if given is not None:
        if stored_fingerprint(given) != part.fingerprint:
            raise IndexMismatch(
                f"{given} is encoder {stored_fingerprint(given)}, the parts are of "
                f"{part.fingerprint}: name their encoder, or leave --model out"
            )
        return given
    known = [one for one in (recorded_model(uri), default_model()) if one is not None]
    usable = (one for one in known if (one / CONFIG).is_file())
    return next((one for one in usable if stored_fingerprint(one) == part.fingerprint), None)
