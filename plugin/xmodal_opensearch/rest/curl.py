"""Requests as lines for a shell, as this address is reached; no secret stands in them. Pure."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

from xmodal_opensearch.client.address import Address
from xmodal_opensearch.rest.pipelines import Wiring

PICTURE = "picture.jpg"
"""The file that the examples send."""


def examples(
    curl: Curl, wiring: Wiring, *, neural: bool, is_default: bool
) -> list[tuple[str, str]]:
    """Lines to try what connect made: what each does, and the line.

    They send the file ``picture.jpg`` of the folder they run in, and store one document.
    """
    text, image, index = wiring.text_field, wiring.image_field, wiring.tag.index
    place = "base64 of the picture"
    through = "" if is_default else f"pipeline={wiring.ingest_name}&"
    words = {"query": {"match": {text: "a red circle"}}, "size": 5}
    document = _document({text: "a red circle", image: place})
    picture = {"query": {"match": {image: place}}, "size": 5}

    def search(name: str) -> str:
        return f"/{index}/_search?search_pipeline={name}"

    out = [
        (
            f"store a document with a text and {PICTURE}; both get codes, the picture is not kept",
            curl.with_picture(
                "PUT", f"/{index}/_doc/my-first?{through}refresh=true", document, place
            ),
        ),
        (
            "pictures for words",
            curl.line("POST", search(wiring.search_name("text", "image")), words),
        ),
        (
            "texts for a picture",
            curl.with_picture("POST", search(wiring.search_name("image", "text")), picture, place),
        ),
    ]
    if neural:
        asked = {"query_text": "a red circle", "k": 5, "filter": {"exists": {"field": text}}}
        body = {"query": {"neural": {"image_code": asked}}, "size": 5}
        body["_source"] = {"excludes": ["xmodal", "*_code"]}
        out.append(
            (
                "pictures for words with a filter, by neural-search (ties as the server likes)",
                curl.line("POST", search(wiring.neural_name), body),
            )
        )
    return out


class Curl:
    """Writes curl lines for the first host of an address.

    Users and passwords are named by the variables that hold them, which the shell fills in.
    """

    def __init__(self, address: Address, environment: Mapping[str, str]) -> None:
        host, port = address.hosts[0]
        self.url = f"{'https' if address.tls else 'http'}://{host}:{port}"
        self._options = "".join(f" {one}" for one in _options(address, environment))

    def line(self, method: str, path: str, body: Any = None) -> str:
        """One request; without a body nothing is sent."""
        if body is None:
            return self._begin("" if method == "GET" else f" -X {method}", path)
        return f"{self._begin(_verb(method), path)}{_JSON} -d {shlex.quote(_text(body))}"

    def with_picture(self, method: str, path: str, body: Any, place: str) -> str:
        """One request whose body has the base64 of ``picture.jpg`` where it says ``place``.

        It goes through a pipe: a command's arguments are too short for a picture.
        """
        before, after = (shlex.quote(part) for part in _text(body).split(place))
        read = f"{{ printf %s {before}; base64 < {PICTURE} | tr -d '\\n'; printf %s {after}; }}"
        return f"{read} | {self._begin(_verb(method), path)}{_JSON} --data-binary @-"

    def _begin(self, verb: str, path: str) -> str:
        return f"curl -sS{verb}{self._options} {shlex.quote(self.url + path)}"


_JSON = " -H 'content-type: application/json'"


def _document(fields: Mapping[str, str]) -> dict[str, Any]:
    """A document with these fields; a dot in a name stands for an object."""
    out: dict[str, Any] = {}
    for path, value in fields.items():
        *parents, name = path.split(".")
        at = out
        for one in parents:
            at = at.setdefault(one, {})
        at[name] = value
    return out


def _verb(method: str) -> str:
    """The option for a request with a body, which is a POST unless said otherwise."""
    return "" if method == "POST" else f" -X {method}"


def _text(body: Any) -> str:
    return json.dumps(body, ensure_ascii=False)


def _options(address: Address, environment: Mapping[str, str]) -> list[str]:
    out = []
    for option, file in (("cacert", address.ca), ("cert", address.cert), ("key", address.key)):
        if file:
            out.append(f"--{option} {shlex.quote(file)}")
    if address.aws:
        out.append(f"--aws-sigv4 aws:amz:{address.aws}:{address.service}")
        out.append('-u "$AWS_ACCESS_KEY_ID:$AWS_SECRET_ACCESS_KEY"')
        if environment.get("AWS_SESSION_TOKEN"):
            out.append('-H "x-amz-security-token: $AWS_SESSION_TOKEN"')
    elif "XMODAL_OPENSEARCH_USER" in environment:
        password = "$XMODAL_OPENSEARCH_PASSWORD"
        if "XMODAL_OPENSEARCH_PASSWORD" not in environment:
            password = '$(cat "$XMODAL_OPENSEARCH_PASSWORD_FILE")'
        out.append(f'-u "$XMODAL_OPENSEARCH_USER:{password}"')
    return out
