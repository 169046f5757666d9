"""xmodal-opensearch enrich"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from xmodal.cli.options import ModelFolder, backbone_options, cache_option, json_option
from xmodal.cli.output import (
    info,
    print_json,
    print_line,
    print_problems,
    print_strategy,
    status,
)
from xmodal.data.dataset import Dataset
from xmodal.data.problems import Problems
from xmodal.encoders.encoder import EncodedSources, Encoder
from xmodal.errors import ConfigError
from xmodal.modality import Modality
from xmodal.web.allowed_hosts import AllowedHosts
from xmodal_opensearch.client.address import Address, parse_address
from xmodal_opensearch.client.server import Server
from xmodal_opensearch.loading.document_sources import Source
from xmodal_opensearch.loading.download import Download
from xmodal_opensearch.loading.enrich import enrich as enrich_index
from xmodal_opensearch.loading.preparation import prepare
from xmodal_opensearch.loading.preview import Preview, preview
from xmodal_opensearch.loading.selection import Selection
from xmodal_opensearch.loading.shard_reader import Share
from xmodal_opensearch.loading.undo import undo

RETRY_TIMEOUT = 600.0
"""Seconds for which requests are repeated, for example while a node restarts."""
LINE_INTERVAL = 10.0
"""Seconds between two lines of progress."""


@click.command()
@click.option("--index", "uri", required=True, help="Address of an existing index.")
@click.option("--model", type=ModelFolder(), metavar="FOLDER|hf://NAME", help="Encoder.")
@click.option("--image-field", help="Field with the path or address of a picture.")
@click.option("--text-field", help="Field with a text.")
@click.option(
    "--images-from",
    default=".",
    show_default=True,
    type=click.Path(path_type=Path),
    help="Folder of the pictures.",
)
@click.option(
    "--download", is_flag=True, help="Download pictures with an http(s) address of public hosts."
)
@click.option(
    "--allow-host",
    "allowed_hosts",
    multiple=True,
    metavar="HOST",
    help="Also download from this name, *.NAME, IP address or network such as 10.1.0.0/16.",
)
@click.option("--again", is_flag=True, help="Also encode documents that have codes.")
@click.option(
    "--incomplete",
    is_flag=True,
    help="Also encode documents of which a picture was not available before.",
)
@click.option("--replace", is_flag=True, help="Replace the codes of another encoder.")
@click.option(
    "--slice",
    "part",
    metavar="N/M",
    default="1/1",
    help="Encode part N of M, for several processes: 1/4, 2/4, ...",
)
@click.option(
    "--docs-per-second", type=click.FloatRange(min=0, min_open=True), help="Limit of the speed."
)
@click.option(
    "--workers",
    type=click.IntRange(1, 64),
    default=2,
    show_default=True,
    help="Concurrent requests that write.",
)
@click.option("--dry-run", is_flag=True, help="Count documents and values, and change nothing.")
@click.option("--undo", "undone", is_flag=True, help="Remove everything that enrich added.")
@click.option("--yes", is_flag=True, help="With --undo: do not ask.")
@backbone_options(None)
@cache_option
@click.option("--no-cache", is_flag=True, help="Do not store features in the cache.")
@json_option
def enrich(uri: str, **given: Any) -> None:
    """Add codes to the documents of an existing index. The same command continues a stopped run.

    \b
    Example:
      xmodal-opensearch enrich --index opensearch://localhost:9200/products --model my.model
          --image-field photo --text-field title --images-from photos/
    """
    address = parse_address(uri)
    if given["undone"]:
        _undo(address, given)
        return
    if given["model"] is None:
        raise ConfigError("give --model, the encoder of the codes")
    source = Source(
        given["image_field"],
        given["text_field"],
        given["images_from"],
        _download(given["download"], given["allowed_hosts"]),
    )
    selection = Selection(given["again"], given["incomplete"], Share.parse(given["part"]))
    with status("loading models"):
        encoder = _load(given)
    server = Server(address, retry_timeout=RETRY_TIMEOUT, workers=given["workers"] + 2)
    if given["dry_run"]:
        _preview(server, address, encoder, source, selection, given["as_json"])
        return
    problems = Problems()
    index = prepare(
        server, address, encoder.bits, encoder.fingerprint, source, replace=given["replace"]
    )
    print_strategy(uri, index)
    with index:
        result = enrich_index(
            index,
            source,
            _encode(encoder, given),
            selection=selection,
            problems=problems,
            workers=given["workers"],
            docs_per_second=given["docs_per_second"],
            progress=ProgressLines(),
        )
        print_problems(problems)
        if result.changed:
            info(f"  {result.changed:,} documents changed while they were encoded")
        if given["as_json"]:
            answer = {"index": uri, "updated": result.updated, "with_codes": len(index)}
            answer |= {"read": result.read, "changed": result.changed, "refused": result.refused}
            print_json(answer | {"problems": problems.count_by_kind()})
        else:
            print_line(f"{uri}: {result.updated:,} documents updated, {len(index):,} have codes")


class ProgressLines:
    """Prints a line every ten seconds: documents, share, documents per second, time left."""

    def __init__(self) -> None:
        self._start = self._last = time.monotonic()

    def __call__(self, job: str, done: int, total: int) -> None:
        """Print a line, unless the last one is too recent."""
        now = time.monotonic()
        if now - self._last < LINE_INTERVAL:
            return
        self._last = now
        rate = done / (now - self._start)
        minutes, seconds = divmod(round((total - done) / rate), 60)
        left = f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"
        info(
            f"  {job} {done:,} of {total:,} documents ({done / max(total, 1):.0%}), "
            f"{rate:,.0f} a second, {left} left"
        )


def _load(given: Mapping[str, Any]) -> Encoder:
    from xmodal.encoders.load import load_encoder

    return load_encoder(
        given["model"],
        image_backbone=given["image_backbone"],
        text_backbone=given["text_backbone"],
        trust_remote_code=given["trust_remote_code"],
    )


def _encode(encoder: Encoder, given: Mapping[str, Any]) -> Any:
    from xmodal.features.cache import default_cache

    cache = None if given["no_cache"] else given["cache"] or default_cache()

    def encode(data: Dataset) -> Mapping[Modality, EncodedSources]:
        return encoder.encode_data(data, cache=cache)

    return encode


def _download(enabled: bool, allowed_hosts: Sequence[str]) -> Download | None:
    if allowed_hosts and not enabled:
        raise ConfigError("--allow-host requires --download")
    return Download(AllowedHosts.parse(allowed_hosts)) if enabled else None


def _preview(
    server: Server,
    address: Address,
    encoder: Encoder,
    source: Source,
    selection: Selection,
    as_json: bool,
) -> None:
    problems = Problems()
    found = preview(
        server,
        address,
        encoder.bits,
        encoder.fingerprint,
        source,
        selection=selection,
        problems=problems,
        progress=ProgressLines(),
    )
    print_problems(problems)
    if as_json:
        print_json(_as_json(found) | {"problems": problems.count_by_kind()})
        return
    print_line(
        f"{address}: {found.documents:,} documents, {found.encoded:,} with codes of this encoder, "
        f"{found.other:,} of another"
    )
    print_line(
        f"a run reads {found.to_encode:,} documents with {found.texts:,} texts, {found.files:,} "
        f"picture files and {found.addresses:,} addresses of pictures; {found.without:,} have none"
    )
    for host, count in found.hosts.most_common(10):
        print_line(f"  {count:,} x {host}")


def _as_json(found: Preview) -> dict[str, Any]:
    return vars(found) | {"hosts": dict(found.hosts.most_common(100))}


def _undo(address: Address, given: Mapping[str, Any]) -> None:
    if not given["yes"]:
        click.confirm(f"remove all codes from the documents of {address}?", abort=True, err=True)
    problems = Problems()
    count = undo(
        Server(address, retry_timeout=RETRY_TIMEOUT, workers=given["workers"] + 2),
        address,
        problems=problems,
        workers=given["workers"],
        docs_per_second=given["docs_per_second"],
        progress=ProgressLines(),
    )
    print_problems(problems)
    if given["as_json"]:
        print_json({"index": str(address), "removed": count})
    else:
        print_line(f"{address}: codes of {count:,} documents removed")
