"""xmodal-opensearch connect, disconnect"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from xmodal.cli.option_sources import alternatives
from xmodal.cli.options import json_option
from xmodal.cli.output import print_json, print_line
from xmodal.errors import ConfigError
from xmodal.index.query_codes import QueryCodes
from xmodal.modality import MODALITIES
from xmodal_opensearch.cli.connect_steps import (
    allow_settings,
    not_allowed,
    open_index,
    print_changes,
    reopen,
    show,
    to_json,
)
from xmodal_opensearch.cli.connect_tower import connect_tower
from xmodal_opensearch.client.address import parse_address
from xmodal_opensearch.client.server import Server
from xmodal_opensearch.index import mapping
from xmodal_opensearch.index.exact_search import exact_query
from xmodal_opensearch.index.ownership import OwnershipTag
from xmodal_opensearch.index.store import OpenSearchIndex
from xmodal_opensearch.rest import connector, models, remote_model, service_probe
from xmodal_opensearch.rest.curl import Curl, examples
from xmodal_opensearch.rest.pipelines import (
    ConnectorConfig,
    check_name,
    problem_mapping,
    query_template,
)
from xmodal_opensearch.rest.remote_model import NotAllowed

name_option = click.option(
    "--name", default="xmodal", show_default=True, help="Prefix of the names of all resources."
)


@click.command()
@click.argument("uri", metavar="INDEX")
@click.option(
    "--service", metavar="URL", help="Address of xmodal serve, as the cluster reaches it."
)
@click.option(
    "--in-cluster",
    "tower",
    type=click.Path(path_type=Path),
    metavar="TOWER",
    help="Text tower that the cluster computes itself, without a service: a model, or the .zip of "
    "xmodal export --ml-commons.",
)
@click.option(
    "--from-here",
    metavar="URL",
    help="Address of the same service for this machine [default: --service].",
)
@click.option(
    "--token-file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="File with the token of the service.",
)
@name_option
@click.option("--text-field", default="text", show_default=True, help="Field with a text.")
@click.option(
    "--image-field",
    default="image_base64",
    show_default=True,
    help="Field with a picture in base64, which is removed before storing, or its address.",
)
@click.option(
    "--on-failure",
    type=click.Choice(["refuse", "keep"]),
    default="refuse",
    show_default=True,
    help="Refuse documents that cannot be encoded, or store them without codes.",
)
@click.option("--make-default", is_flag=True, help="Make it the default pipeline of the index.")
@click.option("--allow", is_flag=True, help="Change the cluster settings that are required.")
@json_option
def connect(uri: str, as_json: bool, **given: Any) -> None:
    """Create pipelines that encode documents and queries, so that curl stores and finds texts.

    With --service, xmodal serve encodes texts and pictures. With --in-cluster, the nodes of the
    cluster encode texts themselves; an index that does not exist is created.

    \b
    Example:
      xmodal-opensearch connect opensearch://localhost:9200/photos --in-cluster my.model --allow
      xmodal serve --model my.model --index opensearch://localhost:9200/photos --port 8000 &
      xmodal-opensearch connect opensearch://localhost:9200/photos --service http://127.0.0.1:8000
    """
    given |= alternatives(service=given["service"], tower=given["tower"])
    if (given["service"] is None) == (given["tower"] is None):
        raise ConfigError("give one of --service URL and --in-cluster TOWER")
    address = parse_address(uri)
    check_name("index name", address.index)
    check_name("--name", given["name"])
    if given["tower"] is not None:
        connect_tower(address, given, as_json=as_json)
        return
    service = service_probe.check_url(given["service"])
    service_from_here = service_probe.check_url(given["from_here"] or service)
    token = _read_token(given["token_file"])
    server = Server(address)
    index = open_index(server, address)
    index.handle.check_writable()
    models.check_plugins(index.handle.capabilities, address.server)
    answer = service_probe.probe_service(service_from_here, token)
    index = reopen(server, index, answer)
    config = _config(index, service, token, given)
    curl = Curl(address, os.environ)
    private_ip = service_probe.is_private(config.service)
    missing = remote_model.read_missing_settings(server, config.url, private_ip=private_ip)
    allow_settings(server, missing, f"call {config.url}", curl, allow=given["allow"])
    default_of = index.handle.name if given["make_default"] else None
    neural = index.handle.capabilities.hybrid and index.handle.capabilities.version >= (3, 0)
    try:
        changes = connector.connect(
            server, config, answer.text_code, token=token, neural=neural, default_of=default_of
        )
    except NotAllowed as error:
        raise not_allowed(f"{error}\n", error.missing, f"call {config.url}", curl) from None
    if config.keep_failed:
        path, doing = f"/{index.handle.name}/_mapping", "mapping xmodal.problem"
        server.request("PUT", path, problem_mapping(), doing=doing)
    index.handle.store_fingerprint()
    commands = examples(curl, config, neural=neural, is_default=default_of is not None)
    result: dict[str, Any] = {"index": uri, "service": service, "encoder": answer.fingerprint}
    show(result, changes, commands, as_json=as_json)


@click.command()
@click.argument("uri", metavar="INDEX")
@name_option
@json_option
def disconnect(uri: str, name: str, as_json: bool) -> None:
    """Remove the pipelines, connector and model that connect created.

    \b
    Example:
      xmodal-opensearch disconnect opensearch://localhost:9200/photos
    """
    address = parse_address(uri)
    changes = connector.disconnect(Server(address), name, address.index)
    if as_json:
        print_json({"index": uri, "steps": to_json(changes)})
        return
    print_changes(changes)
    if not changes:
        print_line(f"{uri}: found nothing of connect --name {name}")


def _read_token(file: Path | None) -> str | None:
    if file is None:
        return None
    try:
        token = file.read_text(encoding="utf-8").strip()
    except UnicodeDecodeError:
        token = ""
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigError(f"--token-file {file} holds no token, expected one line of ASCII")
    return token


def _config(
    index: OpenSearchIndex, service: str, token: str | None, given: dict[str, Any]
) -> ConnectorConfig:
    """Connector parameters; its queries are those of the Python client with the same strategy."""
    code = mapping.self_test_code(index.bits)
    filters = index.handle.filters(None)
    return ConnectorConfig(
        OwnershipTag(given["name"], index.handle.address.index, str(index.fingerprint)),
        service,
        {
            modality: query_template(
                exact_query(index.handle, QueryCodes(code), modality, filters), code
            )
            for modality in MODALITIES
        },
        with_token=token is not None,
        text_field=given["text_field"],
        image_field=given["image_field"],
        enriched=index.handle.enriched,
        keep_failed=given["on_failure"] == "keep",
    )
