"""xmodal-opensearch connect, disconnect"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from xmodal.cli.options import json_option
from xmodal.cli.output import info, print_json, print_line
from xmodal.errors import ConfigError, IndexMissing
from xmodal.index.validation import check_identity
from xmodal.modality import MODALITIES
from xmodal_opensearch.client.address import parse_address
from xmodal_opensearch.client.server import Server
from xmodal_opensearch.index import mapping
from xmodal_opensearch.index.exact_search import exact_query
from xmodal_opensearch.index.ownership import OwnershipTag
from xmodal_opensearch.index.store import OpenSearchIndex
from xmodal_opensearch.rest import cluster_settings, connector, remote_model, service_probe
from xmodal_opensearch.rest.curl import Curl, examples
from xmodal_opensearch.rest.pipelines import (
    Wiring,
    check_name,
    finding,
    problem_field,
)
from xmodal_opensearch.rest.remote_model import NotAllowed, Step
from xmodal_opensearch.rest.service_probe import Answer

name_option = click.option(
    "--name", default="xmodal", show_default=True, help="What names in the cluster begin with."
)


@click.command()
@click.argument("uri", metavar="INDEX")
@click.option(
    "--service",
    required=True,
    metavar="URL",
    help="The running xmodal serve, as the cluster reaches it.",
)
@click.option("--from-here", metavar="URL", help="The same service, if this machine has another.")
@click.option(
    "--token-file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="File with the service's token.",
)
@name_option
@click.option("--text-field", default="text", show_default=True, help="Field with a text.")
@click.option(
    "--image-field",
    default="image_base64",
    show_default=True,
    help="Field with a picture in base64, which is not stored.",
)
@click.option(
    "--on-failure",
    type=click.Choice(["refuse", "keep"]),
    default="refuse",
    show_default=True,
    help="What becomes of a document that the service cannot encode.",
)
@click.option("--make-default", is_flag=True, help="Documents go through it without being asked.")
@click.option("--allow", is_flag=True, help="Change the cluster settings that are in the way.")
@json_option
def connect(uri: str, as_json: bool, **given: Any) -> None:
    """Let the cluster encode by our service, so that clients need nothing but REST.

    Makes an ml-commons connector and model, an ingest pipeline (text and base64 picture in, codes
    out) and search pipelines, and prints the curl lines to try. Run again it changes what differs
    and nothing else. Cluster settings that are in the way are explained, and changed only by
    --allow. With --on-failure keep, a refused document is stored without codes (with that of its
    text, if the picture is to blame) and says why in xmodal.problem.

    \b
    Example:
      xmodal serve --model my.model --index opensearch://localhost:9200/photos --port 8000 &
      xmodal-opensearch connect opensearch://localhost:9200/photos --service http://127.0.0.1:8000
    """
    address = parse_address(uri)
    check_name("the index", address.index)
    check_name("the name", given["name"])
    service = service_probe.check_url(given["service"])
    here = service_probe.check_url(given["from_here"] or service)
    token = _token(given["token_file"])
    server = Server(address)
    try:
        index = OpenSearchIndex(server, address, bits=None, fingerprint=None)
    except IndexMissing as error:
        raise IndexMissing(
            f"{error}: make one first, xmodal index DATA --model M --index {uri}, or an empty one, "
            f"xmodal-opensearch create {uri} --model M"
        ) from None
    if not index.handle.layout.is_vector:
        raise ConfigError(
            f"{uri} keeps its codes as 64-bit words, which ml-commons cannot write: load it with "
            "another way"
        )
    remote_model.check_plugins(index.handle.capabilities, address.server)
    answer = service_probe.ask(here, token)
    index = _of_service(server, index, answer)
    wiring = _wiring(index, service, token, given)
    default_of = index.handle.name if given["make_default"] else None
    neural = index.handle.capabilities.hybrid and index.handle.capabilities.version >= (3, 0)
    curl = Curl(address, os.environ)

    private = service_probe.is_private(service)
    lacks = remote_model.lacking(server, wiring.url, private=private)
    if lacks and given["allow"]:
        remote_model.allow(server, lacks)
        info("changed cluster settings: " + ", ".join(one.setting for one in lacks))
    elif lacks:
        raise _not_allowed("", lacks, wiring, curl)
    try:
        steps = connector.connect(
            server, wiring, answer.text_code, token=token, neural=neural, default_of=default_of
        )
    except NotAllowed as error:
        raise _not_allowed(f"{error}\n", error.lacks, wiring, curl) from None
    if wiring.keep:
        server.request(
            "PUT", f"/{index.handle.name}/_mapping", problem_field(), doing="mapping xmodal.problem"
        )
    index.handle.store_fingerprint()
    lines = examples(curl, wiring, neural=neural, is_default=default_of is not None)
    if as_json:
        told: dict[str, Any] = {"index": uri, "service": service, "encoder": answer.encoder}
        told["steps"] = [one._asdict() for one in steps]
        told["try"] = [{"what": what, "curl": line} for what, line in lines]
        print_json(told)
        return
    _tell(steps)
    for what, line in lines:
        print_line(f"\n# {what}\n{line}")


@click.command()
@click.argument("uri", metavar="INDEX")
@name_option
@json_option
def disconnect(uri: str, name: str, as_json: bool) -> None:
    """Remove what connect made for INDEX; documents, codes and cluster settings stay.

    \b
    Example:
      xmodal-opensearch disconnect opensearch://localhost:9200/photos
    """
    address = parse_address(uri)
    steps = connector.disconnect(Server(address), name, address.index)
    if as_json:
        print_json({"index": uri, "steps": [one._asdict() for one in steps]})
        return
    _tell(steps)
    if not steps:
        print_line(f"{uri}: nothing of connect --name {name} is there")


def _token(file: Path | None) -> str | None:
    if file is None:
        return None
    try:
        token = file.read_text(encoding="utf-8").strip()
    except UnicodeDecodeError:
        token = ""
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigError(f"--token-file {file} holds no token, expected one line of ASCII")
    return token


def _of_service(server: Server, index: OpenSearchIndex, answer: Answer) -> OpenSearchIndex:
    """The same index, opened for the codes of the service. Raises IndexMismatch."""
    check_identity(
        str(index.handle.address),
        bits=index.bits,
        fingerprint=index.fingerprint,
        expected_bits=answer.bits,
        expected_fingerprint=answer.encoder,
    )
    return OpenSearchIndex(
        server, index.handle.address, bits=answer.bits, fingerprint=answer.encoder
    )


def _wiring(
    index: OpenSearchIndex, service: str, token: str | None, given: dict[str, Any]
) -> Wiring:
    """What is to be made; searches ask exactly what ours ask."""
    code = mapping.self_test_code(index.bits)
    filters = index.handle.filters(None)
    return Wiring(
        OwnershipTag(given["name"], index.handle.address.index, str(index.fingerprint)),
        service,
        {
            side: finding(exact_query(index.handle, code, side, filters), code)
            for side in MODALITIES
        },
        with_token=token is not None,
        text_field=given["text_field"],
        image_field=given["image_field"],
        added=index.handle.enriched,
        keep=given["on_failure"] == "keep",
    )


def _not_allowed(
    before: str, lacks: list[cluster_settings.Lack], wiring: Wiring, curl: Curl
) -> ConfigError:
    line = curl.line("PUT", "/_cluster/settings", cluster_settings.change(lacks))
    return ConfigError(before + cluster_settings.explained(lacks, wiring.url, line))


def _tell(steps: Sequence[Step]) -> None:
    """One line a step, the names under each other."""
    wide = max((len(one.what) for one in steps), default=0)
    for one in steps:
        id_ = f"  (id {one.id})" if one.id else ""
        print_line(f"{one.done:<9}  {one.what:<{wide}}  {one.name}{id_}")
