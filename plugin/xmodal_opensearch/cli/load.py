"""xmodal-opensearch load"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import click

from xmodal.cli.option_sources import on_command_line
from xmodal.cli.options import (
    ModelFolder,
    backbone_options,
    cache_option,
    column_options,
    json_option,
)
from xmodal.cli.output import (
    info,
    print_json,
    print_line,
    print_problems,
    print_strategy,
    progress_bars,
)
from xmodal.cli.sources import Data, data_argument, paths_of
from xmodal.cli.streams import DataStream
from xmodal.data.problems import Problems
from xmodal.errors import ConfigError, IndexMismatch
from xmodal.index.documents import DocumentBatch
from xmodal.index.folder import is_index
from xmodal.index.local import HammingIndex
from xmodal.index.parts.finding import find_parts
from xmodal.index.parts.part import Part
from xmodal_opensearch.client.address import Address, parse_address
from xmodal_opensearch.client.bulk import Report
from xmodal_opensearch.client.server import Server
from xmodal_opensearch.index.store import OpenSearchIndex, open_opensearch
from xmodal_opensearch.loading.load import check_count
from xmodal_opensearch.loading.load import load as load_into
from xmodal_opensearch.loading.new_version import open_next_version, publish
from xmodal_opensearch.loading.settling import settle
from xmodal_opensearch.rest.connector import transfer_pipelines


@click.command()
@data_argument("source")
@click.option("--index", "uri", required=True, help="Address, opensearch://host:9200/name.")
@click.option(
    "--model",
    type=ModelFolder(),
    metavar="FOLDER|hf://NAME",
    help="Encoder; required unless SOURCE is a local index or parts.",
)
@click.option(
    "--new-version", is_flag=True, help="Fill a new version, then switch the alias to it."
)
@click.option("--delete-old", is_flag=True, help="With --new-version: delete the old version.")
@click.option("--workers", default=2, show_default=True, help="Concurrent requests.")
@click.option(
    "--processes", default=1, show_default=True, help="Processes that build the requests."
)
@click.option(
    "--no-replicas",
    is_flag=True,
    help="No replicas during the load: faster, but losing a node loses documents.",
)
@click.option(
    "--merge",
    is_flag=True,
    help="After the load, merge each shard to one segment, and load the codes into memory.",
)
@click.option("--without-copies", is_flag=True, hidden=True, help="Former name of --no-replicas.")
@backbone_options(None)
@column_options
@cache_option
@json_option
def load(source: Data, uri: str, model: Path | None, **given: Any) -> None:
    """Load a local index or parts, or encode a folder or table; a second run resumes.

    Parts are the files of xmodal encode --shard, or their folder: all shards of one data set.

    \b
    Example:
      xmodal-opensearch load my.index --index opensearch://localhost:9200/photos
      xmodal-opensearch load parts/ --index opensearch://localhost:9200/photos
      xmodal-opensearch load photos/ --model new.model --new-version
          --index opensearch://localhost:9200/photos
    """
    for name in ("workers", "processes"):
        if given[name] < 1:
            raise ConfigError(f"--{name} is {given[name]}, expected at least 1")
    if on_command_line("delete_old") and not given["new_version"]:
        raise ConfigError("--delete-old requires --new-version")
    address = parse_address(uri)
    with progress_bars() as bars:
        documents = _read_source(source, model, given)
        new_from = source if given["new_version"] else None
        index = _open_target(address, documents.bits, documents.fingerprint, new_from)
        print_strategy(uri, index)
        report = load_into(
            index,
            documents,
            checkpoints=_notes(given["cache"]),
            total=documents.total,
            workers=given["workers"],
            processes=given["processes"],
            no_replicas=given["no_replicas"] or given["without_copies"],
            progress=bars,
        )
    _print_report(report, documents.problems)
    check_count(index, documents.number - len(report.failed), exactly=given["new_version"])
    if given["merge"] and settle(index):
        info("  the codes do not fit into memory: raise hamming.breaker.limit or add nodes")
    old: list[str] = []
    if given["new_version"]:
        _transfer_pipelines(index, address.index)
        old = publish(index, address.index, delete_old=given["delete_old"])
    count = len(index)
    if given["as_json"]:
        result = {"index": uri, "version": index.handle.name, "documents": count, "replaced": old}
        result |= {"refused": report.failed, "problems": documents.problems.count_by_kind()}
        print_json(result)
    else:
        kept = "" if given["delete_old"] else " (kept: xmodal-opensearch delete --old-versions)"
        switched = f"; alias of {index.handle.name}, before of {old[0]}{kept}" if old else ""
        print_line(f"{uri}: {count:,} documents{switched}")
    index.close()


@dataclass
class _Documents:
    """Batches to load, which are iterated once: ``number`` counts their documents.

    ``total``: returns their number before, about; 0 if it is unknown.
    """

    batches: Iterable[DocumentBatch]
    total: Callable[[], int]
    bits: int
    fingerprint: str | None
    problems: Problems = field(default_factory=Problems)
    number: int = 0

    def __iter__(self) -> Iterator[DocumentBatch]:
        for batch in self.batches:
            self.number += len(batch)
            yield batch


def _read_source(source: Data, model: Path | None, given: dict[str, Any]) -> _Documents:
    """Return the documents of a local index, of parts, or of data, which is encoded meanwhile."""
    if isinstance(source, Path) and is_index(source):
        if on_command_line("model"):
            raise ConfigError(f"{source} is a local index, which holds codes: omit --model")
        local = HammingIndex.load(source, bits=None, fingerprint=None)
        return _Documents(local.batches(), local.__len__, local.bits, local.fingerprint)
    if parts := find_parts(paths_of(source)):
        return _read_parts(parts)
    if model is None:
        raise ConfigError(
            f"{source} is not a local index and has no parts of xmodal encode: give --model to "
            "encode its items"
        )
    stream = DataStream(source, given)
    stream.start()

    from xmodal.encoders.load import load_encoder
    from xmodal.features.cache import default_cache

    encoder = load_encoder(
        model,
        image_backbone=given["image_backbone"],
        text_backbone=given["text_backbone"],
        trust_remote_code=given["trust_remote_code"],
    )
    cache = given["cache"] or default_cache()
    encoded = stream.documents(encoder, source="", cache=cache)
    batches = (replace(batch, origins=[]) for batch in encoded)
    return _Documents(
        batches, lambda: stream.total, encoder.bits, encoder.fingerprint, stream.problems
    )


def _read_parts(parts: Sequence[Part]) -> _Documents:
    """Return the documents of parts, which are read one batch at a time."""
    if on_command_line("model"):
        raise ConfigError("parts of xmodal encode hold codes: omit --model")
    sources = dict.fromkeys(part.info.source for part in parts)
    if len({part.info.listing for part in parts}) > 1:
        raise IndexMismatch(
            f"the parts are of several listings of files ({', '.join(sources)}), which may have "
            "equal ids: load the parts of one listing at a time"
        )
    first, total = parts[0].info, sum(map(len, parts))
    batches = (batch for part in parts for batch in part.batches())
    return _Documents(batches, lambda: total, first.bits, first.fingerprint)


def _open_target(
    address: Address, bits: int, fingerprint: str | None, new_from: Data | None
) -> OpenSearchIndex:
    """Open or create the index to fill; ``new_from`` is the source of a new version, or None."""
    if new_from is not None:
        source = ", ".join(str(path.resolve()) for path in paths_of(new_from))
        return open_next_version(Server(address), address, bits, fingerprint, source)
    try:
        return open_opensearch(str(address), bits=bits, fingerprint=fingerprint, create=True)
    except IndexMismatch as error:
        raise IndexMismatch(f"{error}; or load into a new version with --new-version") from None


def _transfer_pipelines(index: OpenSearchIndex, alias: str) -> None:
    """Keep pipelines of the same encoder, remove those of others, and print the removed ones."""
    handle = index.handle
    removed = transfer_pipelines(handle.server, alias, handle.name, index.fingerprint)
    names = [change.name for change in removed if change.kind.endswith("pipeline")]
    if names:
        info(
            f"  removed {', '.join(names)}, because they encode with another model: serve the new "
            "model, and run xmodal-opensearch connect again"
        )


def _notes(cache: Path | None) -> Path:
    """The folder of the checkpoints of loads."""
    from xmodal_opensearch.node.artifacts import cache_folder

    return (cache or cache_folder()) / "loads"


def _print_report(report: Report, problems: Problems) -> None:
    for id_, reason in report.failed.items():
        problems.add(f"document refused ({reason.partition(';')[0][:100]})", id_)
    print_problems(problems)
    results = ", ".join(f"{count:,} {name}" for name, count in sorted(report.results.items()))
    info(f"  {results or 'nothing to send: all documents were stored before'}")
