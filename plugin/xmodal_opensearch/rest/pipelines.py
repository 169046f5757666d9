"""What ``connect`` makes in a cluster, so that clients need nothing but REST: bodies, all pure.

    client -> ingest or search pipeline -> model -> connector -> our HTTP service, which encodes

The connector's last step (``assets/connect.answer.painless``) refuses codes of another encoder, and
beside the codes it answers whole queries: a search pipeline puts one in the place of the query that
a client wrote and leaves the rest of the request alone (size, from, post_filter, aggs, ...).

Each thing carries a tag in its description: which connect made it, for which index and encoder.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from xmodal.codes import BinaryCodes
from xmodal.errors import ConfigError
from xmodal.modality import MODALITIES, Modality
from xmodal_opensearch.index import mapping
from xmodal_opensearch.index.mapping import field_of
from xmodal_opensearch.index.ownership import OwnershipTag
from xmodal_opensearch.index.queries import BY_DISTANCE, Query

Body = dict[str, Any]
INGEST, SEARCH = "/_ingest/pipeline", "/_search/pipeline"
INPUTS: Mapping[Modality, str] = {"text": "inputText", "image": "inputImage"}
SEARCHES: tuple[tuple[Modality, Modality], ...] = (
    ("text", "image"),
    ("image", "text"),
    ("text", "text"),
    ("image", "image"),
)
"""What is asked with, and what is found."""

# A bulk request asks for all of its documents at once, as many at a time as there are connections;
# who waits ten seconds for one is refused. The service listens with a backlog of 256.
CLIENT = {
    "max_connection": 200,
    "connection_timeout": 30,
    "read_timeout": 300,
    "max_retry_times": 3,
    "retry_backoff_millis": 200,
    "retry_timeout_seconds": 30,
    "retry_backoff_policy": "exponential_equal_jitter",
}
USABLE = re.compile(r"[a-z0-9][a-z0-9._-]*")
"""Names that every part of a cluster takes."""


def check_name(what: str, name: str) -> str:
    """The name, if pipelines and models can be called so. Raises ConfigError."""
    if not USABLE.fullmatch(name):
        raise ConfigError(
            f"{what} {name!r} cannot name pipelines and models, expected lower-case letters, "
            "digits, . - and _"
        )
    return name


@dataclass(frozen=True)
class Wiring:
    """Everything that decides what is made.

    ``finds`` has for each side the query of all documents in order of distance to a code, with
    "@code@" in the place of the code (see :func:`finding`). ``added``: the documents are somebody's
    own. ``keep``: a document that the service refuses is kept, without codes.
    """

    tag: OwnershipTag
    service: str
    finds: Mapping[Modality, Query]
    with_token: bool = False
    text_field: str = "text"
    image_field: str = "image_base64"
    added: bool = False
    keep: bool = False

    def __post_init__(self) -> None:
        check_name("the name", self.tag.name)
        check_name("the index", self.tag.index)
        if self.text_field == self.image_field:
            raise ConfigError(f"text and picture cannot both be in field {self.text_field!r}")
        for name in (self.text_field, self.image_field):
            if not re.fullmatch(r"[^\s.'\\]+(\.[^\s.'\\]+)*", name) or mapping.is_reserved(name):
                raise ConfigError(f"{name!r} cannot be a field of text or picture: name another")

    @property
    def url(self) -> str:
        """Where the service encodes."""
        return f"{self.service}/v1/embed"

    @property
    def ingest_name(self) -> str:
        """The name of the ingest pipeline."""
        return f"{self.tag.stem}-ingest"

    def search_name(self, asked: Modality, found: Modality) -> str:
        """The name of a search pipeline."""
        return f"{self.tag.stem}-{asked}-to-{found}"

    @property
    def neural_name(self) -> str:
        """The name of the search pipeline for the queries of neural-search."""
        return f"{self.tag.stem}-neural"

    def field(self, side: Modality) -> str:
        """The field of a document that holds the text, or the picture."""
        return self.text_field if side == "text" else self.image_field


def finding(query: Query, code: BinaryCodes) -> Query:
    """A query for ``code``, with "@code@" instead of it; every way writes it as bytes or as hex."""
    written = (code.to_signed()[0], code.to_hex()[0])

    def walk(part: Any) -> Any:
        if part in written:
            return "@code@"
        if isinstance(part, dict):
            return {name: walk(one) for name, one in part.items()}
        return [walk(one) for one in part] if isinstance(part, list) else part

    found: Query = walk(query)
    return found


def connector(wiring: Wiring, token: str | None = None) -> Body:
    """The connector: what is sent to the service, and what becomes of its answer."""
    headers = {"content-type": "application/json"}
    if wiring.with_token:
        headers["authorization"] = "Bearer ${credential.token}"
    asked = {name: f"${{parameters.{name}:-null}}" for name in INPUTS.values()}
    return {
        "name": wiring.tag.stem,
        "description": str(wiring.tag),
        "version": "1",
        "protocol": "http",
        "parameters": {},
        "client_config": dict(CLIENT),
        "credential": {"token": token or "none"},  # ml-commons wants one
        "actions": [
            {
                "action_type": "PREDICT",
                "method": "POST",
                "url": wiring.url,
                "headers": headers,
                "request_body": json.dumps(asked),
                "pre_process_function": "connector.pre_process.bedrock.multimodal_embedding",
                "post_process_function": _answer(wiring),
            }
        ],
    }


def is_as_wanted(found: Any, wanted: Any) -> bool:
    """Whether a server tells all that is wanted; it adds defaults, and keeps credentials back."""
    if isinstance(wanted, Mapping):
        return isinstance(found, Mapping) and all(
            name == "credential" or (name in found and is_as_wanted(found[name], one))
            for name, one in wanted.items()
        )
    if isinstance(wanted, list):
        return (
            isinstance(found, list)
            and len(found) == len(wanted)
            and all(map(is_as_wanted, found, wanted))
        )
    return bool(found == wanted)


def model(wiring: Wiring, connector_id: str) -> Body:
    """The registration of the model that pipelines name."""
    return {
        "name": wiring.tag.stem,
        "description": str(wiring.tag),
        "function_name": "remote",
        "connector_id": connector_id,
    }


def pipelines(wiring: Wiring, model_id: str, *, neural: bool) -> dict[str, Body]:
    """Every pipeline by its path; ``neural``: the server has neural-search, which knows models."""
    out = {f"{INGEST}/{wiring.ingest_name}": ingest(wiring, model_id)}
    for asked, found in SEARCHES:
        path = f"{SEARCH}/{wiring.search_name(asked, found)}"
        out[path] = search(wiring, model_id, asked, found)
    if neural:
        default = {"neural_query_enricher": {"default_model_id": model_id}}
        out[f"{SEARCH}/{wiring.neural_name}"] = {
            "description": str(wiring.tag),
            "request_processors": [default],
        }
    return out


def ingest(wiring: Wiring, model_id: str) -> Body:
    """Text and picture in, codes out, the picture removed: one question a document."""
    fields = [
        {
            "path": wiring.field(side).split("."),
            "input": INPUTS[side],
            "code": field_of(side),
        }
        for side in ("text", "image")
    ]
    known: Body = {
        "fields": fields,
        "self_test": mapping.SELF_TEST_ID,
        "self_test_field": mapping.SELF_TEST_FIELD,
    }
    if wiring.added:
        known["encoder"] = wiring.tag.fingerprint
    ask: Body = {
        "tag": "encode",
        "if": "ctx.xmodal?.asked != null",
        "model_id": model_id,
        "input_map": [{name: f"xmodal.asked.{name}" for name in INPUTS.values()}],
        "output_map": [
            {f"xmodal.asked.{field_of(side)}": field_of(side) for side in MODALITIES},
        ],
    }
    if wiring.keep:
        reason = {"field": "xmodal.problem", "value": "{{{_ingest.on_failure_message}}}"}
        ask = ask | {
            "on_failure": [
                {"set": reason},
                _script("problem"),
                {"ml_inference": ask | {"tag": "encode the text", "ignore_failure": True}},
            ]
        }
    picture = {"fields": fields, "picture": wiring.image_field.split(".")}
    return {
        "description": str(wiring.tag),
        "processors": [_script("before", known), {"ml_inference": ask}, _script("after", picture)],
    }


def search(wiring: Wiring, model_id: str, asked: Modality, found: Modality) -> Body:
    """``{"query": {"match": {FIELD: WORDS or BASE64}}}`` becomes the exact search by their code.

    Order by distance, then id, and hits without codes, are what a request gets that says nothing of
    ``sort`` and ``_source``.
    """
    ask = {
        "model_id": model_id,
        "input_map": [{INPUTS[asked]: f"$.query.match['{wiring.field(asked)}'].query"}],
        "output_map": [
            {
                "query": f"{asked}_to_{found}",
                "$[?(!@.sort)].sort": "order",
                "$[?(!@._source)]._source": "fields",
            }
        ],
    }
    return {"description": str(wiring.tag), "request_processors": [{"ml_inference": ask}]}


def problem_field() -> Body:
    """The mapping of the field that says why a kept document has no code."""
    problem = {"type": "keyword", "ignore_above": 8191}
    return {"properties": {"xmodal": {"properties": {"problem": problem}}}}


def _answer(wiring: Wiring) -> str:
    """The connector's script, filled in."""
    known: dict[str, str] = {
        "encoder": wiring.tag.fingerprint,
        "index": wiring.tag.index,
        "order": json.dumps(BY_DISTANCE),
        "fields": json.dumps({"excludes": list(mapping.RESERVED_FIELDS)}),
    }
    known |= {side: json.dumps(query) for side, query in wiring.finds.items()}
    script = _asset("answer")
    for name, text in known.items():
        quoted = text.replace("\\", "\\\\").replace("'", "\\'")
        script = script.replace(f"@{name}@", quoted)
    return script


def _script(name: str, params: Body | None = None) -> Body:
    told = {"params": params} if params else {}
    return {"script": {"lang": "painless", "source": _asset(name), **told}}


def _asset(name: str) -> str:
    return (files("xmodal_opensearch") / "assets" / f"connect.{name}.painless").read_text("utf-8")
