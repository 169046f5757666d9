"""Requests as curl commands for a shell, without secrets. Pure functions."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

from xmodal_opensearch.client.address import Address
from xmodal_opensearch.rest.pipelines import ConnectorConfig
from xmodal_opensearch.rest.tower_pipelines import TowerConfig

PICTURE = "picture.jpg"
"""The file that the examples send."""


def examples(
    curl: Curl, config: ConnectorConfig, *, neural: bool, is_default: bool
) -> list[tuple[str, str]]:
    """Return pairs of a description and a curl command that uses what ``connect`` created.

    The commands send the file ``picture.jpg`` of the current folder, and store one document.
    ``is_default``: the ingest pipeline is the default pipeline of the index.
    """
    text, image, index = config.text_field, config.image_field, config.tag.index
    placeholder = "base64 of the picture"
    pipeline = "" if is_default else f"pipeline={config.ingest_name}&"
    words = {"query": {"match": {text: "a red circle"}}, "size": 5}
    document = _document({text: "a red circle", image: placeholder})
    picture = {"query": {"match": {image: placeholder}}, "size": 5}

    def search(name: str) -> str:
        return f"/{index}/_search?search_pipeline={name}"

    commands = [
        (
            f"store a document with a text and {PICTURE}: both are encoded, the picture is removed",
            curl.picture_command(
                "PUT", f"/{index}/_doc/my-first?{pipeline}refresh=true", document, placeholder
            ),
        ),
        (
            "find pictures by words",
            curl.command("POST", search(config.search_name("text", "image")), words),
        ),
        (
            "find texts by a picture",
            curl.picture_command(
                "POST", search(config.search_name("image", "text")), picture, placeholder
            ),
        ),
    ]
    if neural:
        query = {"query_text": "a red circle", "k": 5, "filter": {"exists": {"field": text}}}
        body = {"query": {"neural": {"image_code": query}}, "size": 5}
        body["_source"] = {"excludes": ["xmodal", "*_code"]}
        commands.append(
            (
                "find pictures by words and a filter, by neural-search (order of ties undefined)",
                curl.command("POST", search(config.neural_name), body),
            )
        )
    return commands


def tower_examples(curl: Curl, config: TowerConfig, *, is_default: bool) -> list[tuple[str, str]]:
    """Return pairs of a description and a curl command, for what ``connect --in-cluster`` created.

    ``is_default``: the ingest pipeline is the default pipeline of the index.
    """
    index, field = config.tag.index, config.text_field
    pipeline = "" if is_default else f"pipeline={config.name('ingest')}&"

    def search(name: str, **params: Any) -> str:
        path = f"/{index}/_search/template?search_pipeline={config.name(name)}"
        return curl.command("POST", path, {"id": config.name(name), "params": params})

    def store(id_: str, value: Any) -> str:
        path = f"/{index}/_doc/{id_}?{pipeline}refresh=true"
        return curl.command("PUT", path, _document({field: value}))

    return [
        ("store a caption", store("first", "a red circle on the left")),
        ("store a document with several captions", store("second", ["a dog", "a dog runs"])),
        ("find captions by words, nearest code first", search("text-to-text", text="a circle")),
        (
            "the same with a filter, the first 5",
            search("text-to-text", text="a circle", size=5, filter={"ids": {"values": ["first"]}}),
        ),
        ("fuse codes and BM25", search("fused", text="a circle")),
    ]


class Curl:
    """Formats curl commands for the first host of an address.

    User and password appear as environment variables, which the shell replaces.
    """

    def __init__(self, address: Address, environment: Mapping[str, str]) -> None:
        host, port = address.hosts[0]
        self.url = f"{'https' if address.tls else 'http'}://{host}:{port}{address.prefix}"
        self._options = "".join(f" {option}" for option in _options(address, environment))

    def command(self, method: str, path: str, body: Any = None) -> str:
        """Return the command of one request. ``body`` is sent as JSON, None as no body."""
        if body is None:
            return self._curl("" if method == "GET" else f" -X {method}", path)
        return f"{self._curl(_method_option(method), path)}{_JSON} -d {shlex.quote(_dump(body))}"

    def picture_command(self, method: str, path: str, body: Any, placeholder: str) -> str:
        """Return the command of a request with ``placeholder`` replaced by ``picture.jpg``.

        ``body`` contains the string ``placeholder`` once. The picture is piped in base64, because
        the length of an argument is limited.
        """
        before, after = (shlex.quote(part) for part in _dump(body).split(placeholder))
        read = f"{{ printf %s {before}; base64 < {PICTURE} | tr -d '\\n'; printf %s {after}; }}"
        return f"{read} | {self._curl(_method_option(method), path)}{_JSON} --data-binary @-"

    def _curl(self, method_option: str, path: str) -> str:
        return f"curl -sS{method_option}{self._options} {shlex.quote(self.url + path)}"


_JSON = " -H 'content-type: application/json'"


def _document(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Build a document from field values; a dotted name becomes nested objects."""
    document: dict[str, Any] = {}
    for path, value in fields.items():
        *parents, name = path.split(".")
        target = document
        for parent in parents:
            target = target.setdefault(parent, {})
        target[name] = value
    return document


def _method_option(method: str) -> str:
    """The method option of a request with a body, for which curl uses POST by default."""
    return "" if method == "POST" else f" -X {method}"


def _dump(body: Any) -> str:
    return json.dumps(body, ensure_ascii=False)


def _options(address: Address, environment: Mapping[str, str]) -> list[str]:
    """TLS and authentication options; secrets are named by their environment variables."""
    options = []
    for option, file in (("cacert", address.ca), ("cert", address.cert), ("key", address.key)):
        if file:
            options.append(f"--{option} {shlex.quote(file)}")
    if address.proxy not in (None, "env"):  # curl itself uses that of the environment
        options.append(f"--proxy {shlex.quote(str(address.proxy))}")
    if address.aws:
        options.append(f"--aws-sigv4 aws:amz:{address.aws}:es")
        options.append('-u "$AWS_ACCESS_KEY_ID:$AWS_SECRET_ACCESS_KEY"')
        if environment.get("AWS_SESSION_TOKEN"):
            options.append('-H "x-amz-security-token: $AWS_SESSION_TOKEN"')
    elif "XMODAL_OPENSEARCH_USER" in environment:
        password = "$XMODAL_OPENSEARCH_PASSWORD"
        if "XMODAL_OPENSEARCH_PASSWORD" not in environment:
            password = '$(cat "$XMODAL_OPENSEARCH_PASSWORD_FILE")'
        options.append(f'-u "$XMODAL_OPENSEARCH_USER:{password}"')
    return options
