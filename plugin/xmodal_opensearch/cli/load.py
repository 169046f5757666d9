"""xmodal-opensearch load"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from xmodal.cli.options import (
    backbone_options,
    cache_option,
    column_options,
    columns_of,
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
from xmodal.data.dataset import Problems
from xmodal.data.readers.tables import read
from xmodal.errors import ConfigError, IndexMismatch
from xmodal.index.documents import DocumentBatch
from xmodal.index.local import FILE, HammingIndex
from xmodal_opensearch.client.address import Address, parse_address
from xmodal_opensearch.client.bulk import Report
from xmodal_opensearch.client.server import Server
from xmodal_opensearch.index.store import OpenSearchIndex, open_opensearch
from xmodal_opensearch.loading.load import check_count
from xmodal_opensearch.loading.load import load as load_into
from xmodal_opensearch.loading.new_version import open_next_version, publish
from xmodal_opensearch.rest.connector import hand_over


@click.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--index", "uri", required=True, help="opensearch://host:9200/name")
@click.option("--model", type=click.Path(path_type=Path), help="Encoder; not for a local index.")
@click.option("--new-version", is_flag=True, help="Fill a version unseen, then swap it in at once.")
@click.option("--delete-old", is_flag=True, help="With --new-version: remove the one before.")
@click.option("--workers", default=2, show_default=True, help="Requests at the same time.")
@click.option(
    "--without-copies",
    is_flag=True,
    help="No replicas meanwhile: faster, but a node lost meanwhile loses documents.",
)
@backbone_options(None)
@column_options
@cache_option
@json_option
def load(source: Path, uri: str, model: Path | None, **given: Any) -> None:
    """Fill an index from a local index, or from a folder or table through an encoder.

    It can be killed at any moment and run again: it goes on where it was, and documents are
    replaced, never doubled. For a new model use --new-version: people search the old version until
    the new one is complete.

    \b
    Example:
      xmodal-opensearch load my.index --index opensearch://localhost:9200/photos
      xmodal-opensearch load photos/ --model new.model --new-version
          --index opensearch://localhost:9200/photos
    """
    if given["workers"] < 1:
        raise ConfigError(f"--workers is {given['workers']}, expected at least 1")
    if given["delete_old"] and not given["new_version"]:
        raise ConfigError("--delete-old goes with --new-version")
    address = parse_address(uri)
    with progress_bars() as bars:
        additions, total, bits, encoder, problems = _source(source, model, given, bars)
        index = _target(address, bits, encoder, source if given["new_version"] else None)
        print_strategy(uri, index)
        report = load_into(
            index,
            additions,
            checkpoints=_notes(given["cache"]),
            total=total,
            workers=given["workers"],
            no_replicas=given["without_copies"],
            progress=bars,
        )
    _tell(report, problems)
    check_count(index, total - len(report.failed), exactly=given["new_version"])
    old: list[str] = []
    if given["new_version"]:
        _hand_over(index, address.index)
        old = publish(index, address.index, delete_old=given["delete_old"])
    count = len(index)
    if given["as_json"]:
        told = {"index": uri, "version": index.handle.name, "documents": count, "replaced": old}
        told |= {"refused": report.failed, "problems": problems.counts()}
        print_json(told)
    else:
        kept = "" if given["delete_old"] else " (kept: xmodal-opensearch delete --old-versions)"
        swapped = (
            f"; it stands for {index.handle.name} now, before for {old[0]}{kept}" if old else ""
        )
        print_line(f"{uri}: {count:,} documents{swapped}")
    index.close()


def _source(
    source: Path, model: Path | None, given: dict[str, Any], bars: Any
) -> tuple[Iterable[DocumentBatch], int, int, str | None, Problems]:
    """What to store, how many documents, and whose codes they are."""
    if (source / FILE).is_file():
        if model is not None:
            raise ConfigError(f"{source} is a local index, whose codes are made: leave --model out")
        local = HammingIndex.load(source, bits=None, fingerprint=None)
        return local.batches(), len(local), local.bits, local.fingerprint, Problems()
    if model is None:
        raise ConfigError(f"{source} is no local index: to encode pictures and texts give --model")
    dataset = read(source, columns_of(given))

    from xmodal.encoders.load import load_encoder
    from xmodal.features.cache import default_cache

    encoder = load_encoder(
        model, image_backbone=given["image_backbone"], text_backbone=given["text_backbone"]
    )
    cache = given["cache"] or default_cache()
    batches = list(encoder.batches(dataset, cache=cache, progress=bars))
    total = sum(map(len, batches))
    return batches, total, encoder.bits, encoder.fingerprint, dataset.problems


def _target(
    address: Address, bits: int, fingerprint: str | None, new_from: Path | None
) -> OpenSearchIndex:
    """What is filled; ``new_from`` is the source of a new version."""
    if new_from is not None:
        source = str(new_from.resolve())
        return open_next_version(Server(address), address, bits, fingerprint, source)
    try:
        return open_opensearch(str(address), bits=bits, fingerprint=fingerprint, create=True)
    except IndexMismatch as error:
        raise IndexMismatch(
            f"{error}; or fill a new version while people search this one: --new-version"
        ) from None


def _hand_over(index: OpenSearchIndex, alias: str) -> None:
    """Take pipelines of connect along, and say which cannot come."""
    gone = hand_over(index.handle.server, alias, index.handle.name, index.fingerprint)
    names = [one.name for one in gone if one.what.endswith("pipeline")]
    if names:
        info(
            f"  removed {', '.join(names)}, which encode by another model: serve this one, and run "
            "xmodal-opensearch connect again"
        )


def _notes(cache: Path | None) -> Path:
    from xmodal_opensearch.node.artifacts import cache_folder

    return (cache or cache_folder()) / "loads"


def _tell(report: Report, problems: Problems) -> None:
    for id_, reason in report.failed.items():
        problems.add(f"document refused ({reason.partition(';')[0][:100]})", id_)
    print_problems(problems)
    results = ", ".join(f"{count:,} {name}" for name, count in sorted(report.results.items()))
    info(f"  {results or 'nothing to send: all of it was stored before'}")
