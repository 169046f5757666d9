"""xmodal-opensearch enrich"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from xmodal.cli.options import backbone_options, cache_option, json_option, model_option
from xmodal.cli.output import print_json, print_line, print_problems, print_strategy, progress_bars
from xmodal.data.dataset import Dataset, Problems
from xmodal.encoders.encoder import EncodedSources
from xmodal.errors import ConfigError
from xmodal.modality import Modality
from xmodal_opensearch.client.address import parse_address
from xmodal_opensearch.client.server import Server
from xmodal_opensearch.loading.allowed_hosts import AllowedHosts
from xmodal_opensearch.loading.download import Download
from xmodal_opensearch.loading.enrich import Source, prepare
from xmodal_opensearch.loading.enrich import enrich as enrich_index


@click.command()
@model_option
@click.option("--index", "uri", required=True, help="Address of an existing index.")
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
@backbone_options(None)
@cache_option
@json_option
def enrich(model: Path, uri: str, **given: Any) -> None:
    """Add codes to the documents of an existing index.

    \b
    Example:
      xmodal-opensearch enrich --index opensearch://localhost:9200/products --model my.model
          --image-field photo --text-field title --images-from photos/
    """
    address = parse_address(uri)
    source = Source(
        given["image_field"],
        given["text_field"],
        given["images_from"],
        _download(given["download"], given["allowed_hosts"]),
    )

    from xmodal.encoders.load import load_encoder
    from xmodal.features.cache import default_cache

    encoder = load_encoder(
        model,
        image_backbone=given["image_backbone"],
        text_backbone=given["text_backbone"],
        trust_remote_code=given["trust_remote_code"],
    )
    cache = given["cache"] or default_cache()
    problems = Problems()

    def encode(data: Dataset) -> Mapping[Modality, EncodedSources]:
        return encoder.encode_data(data, cache=cache, problems=problems)

    index = prepare(Server(address), address, encoder.bits, encoder.fingerprint, source)
    print_strategy(uri, index)
    with index, progress_bars() as bars:
        report = enrich_index(
            index, source, encode, reencode=given["again"], problems=problems, progress=bars
        )
        for id_, reason in report.failed.items():
            problems.add(f"update refused ({reason[:100]})", id_)
        print_problems(problems)
        if given["as_json"]:
            result = {"index": uri, "updated": report.stored, "with_codes": len(index)}
            print_json(result | {"problems": problems.count_by_kind()})
        else:
            print_line(f"{uri}: {report.stored:,} documents updated, {len(index):,} have codes")


def _download(enabled: bool, allowed_hosts: Sequence[str]) -> Download | None:
    if allowed_hosts and not enabled:
        raise ConfigError("--allow-host requires --download")
    return Download(AllowedHosts.parse(allowed_hosts)) if enabled else None
