"""Request bodies of the resources that ``connect`` creates. Pure functions.

    client -> ingest or search pipeline -> model -> connector -> HTTP service, which encodes

The post-processing script of the connector (``assets/connect.answer.painless``) rejects codes of
another encoder. Besides the codes it returns complete queries: a search pipeline replaces the query
of the request by one of them and keeps the other parameters (size, from, post_filter, aggs, ...).

The description of each resource is an ownership tag with name, index and encoder fingerprint.
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
from xmodal_opensearch.index.mapping import field_of, nested_path
from xmodal_opensearch.index.ownership import OwnershipTag
from xmodal_opensearch.index.queries import BY_SCORE, Query

Body = dict[str, Any]
INGEST, SEARCH = "/_ingest/pipeline", "/_search/pipeline"
INPUTS: Mapping[Modality, str] = {"text": "inputText", "image": "inputImage"}
LITERAL = "\u2060"
"""Character that the service removes from the start of a text, and then after each $.

ml-commons does not quote texts that are JSON objects or arrays, so that the request is invalid, and
replaces ${parameters.inputImage} by another input. The ingest pipeline adds this character.
"""
SEARCHES: tuple[tuple[Modality, Modality], ...] = (
    ("text", "image"),
    ("image", "text"),
    ("text", "text"),
    ("image", "image"),
)
"""Modality of the query and of the hits, for each search pipeline."""

# A bulk request sends all of its documents concurrently, at most max_connection at a time, and
# ml-commons rejects one that waits 10 seconds for a connection. The service's backlog is 256.
CLIENT_CONFIG = {
    "max_connection": 200,
    "connection_timeout": 30,
    "read_timeout": 300,
    "max_retry_times": 3,
    "retry_backoff_millis": 200,
    "retry_timeout_seconds": 30,
    "retry_backoff_policy": "exponential_equal_jitter",
}
VALID_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
"""Names that are valid for pipelines, connectors and models alike."""


def check_name(what: str, name: str) -> str:
    """Return ``name`` if pipelines and models can have it. Raises ConfigError otherwise."""
    if not VALID_NAME.fullmatch(name):
        raise ConfigError(
            f"{what} {name!r} is not valid for pipelines and models, expected lower-case letters, "
            "digits, . - and _"
        )
    return name


def check_fields(*names: str) -> None:
    """Raise ConfigError unless pipelines can read these fields of documents."""
    for name in names:
        if not re.fullmatch(r"[^\s.'\\]+(\.[^\s.'\\]+)*", name) or mapping.is_reserved(name):
            raise ConfigError(f"field {name!r} cannot hold a text or a picture: use another")


@dataclass(frozen=True)
class ConnectorConfig:
    """Parameters of the connector, the model and the pipelines of one index.

    ``service``: address of the HTTP service, as the cluster reaches it. ``queries``: for each
    target modality, the exact search with "@code@" as placeholder of the code (see
    :func:`query_template`). ``enriched``: the index holds documents of the user's own, so the
    ingest pipeline stores the fingerprint in each. ``keep_failed``: documents that the service
    rejects are stored without codes. Raises ConfigError for names and fields that are not valid.
    """

    tag: OwnershipTag
    service: str
    queries: Mapping[Modality, Query]
    with_token: bool = False
    text_field: str = "text"
    image_field: str = "image_base64"
    enriched: bool = False
    keep_failed: bool = False

    def __post_init__(self) -> None:
        check_name("--name", self.tag.name)
        check_name("index name", self.tag.index)
        if self.text_field == self.image_field:
            raise ConfigError(f"--text-field and --image-field are both {self.text_field!r}")
        check_fields(self.text_field, self.image_field)

    @property
    def url(self) -> str:
        """The address to which the connector sends its requests."""
        return f"{self.service}/v1/embed"

    @property
    def ingest_name(self) -> str:
        """The name of the ingest pipeline."""
        return f"{self.tag.stem}-ingest"

    def search_name(self, query: Modality, target: Modality) -> str:
        """Return the name of the search pipeline for these modalities of query and hits."""
        return f"{self.tag.stem}-{query}-to-{target}"

    @property
    def neural_name(self) -> str:
        """The name of the search pipeline for ``neural`` queries."""
        return f"{self.tag.stem}-neural"

    def field(self, modality: Modality) -> str:
        """Return the field of a document that holds the text, or the picture in base64."""
        return self.text_field if modality == "text" else self.image_field


def query_template(query: Query, code: BinaryCodes) -> Query:
    """Replace ``code`` (one code) in ``query`` by "@code@", in signed bytes or hexadecimal."""
    spellings = (code.to_signed()[0], code.to_hex()[0])

    def replace(part: Any) -> Any:
        if part in spellings:
            return "@code@"
        if isinstance(part, dict):
            return {name: replace(value) for name, value in part.items()}
        return [replace(value) for value in part] if isinstance(part, list) else part

    template: Query = replace(query)
    return template


def connector_body(config: ConnectorConfig, token: str | None = None) -> Body:
    """Return the body that creates the connector. ``token`` is stored encrypted by ml-commons."""
    headers = {"content-type": "application/json"}
    if config.with_token:
        headers["authorization"] = "Bearer ${credential.token}"
    inputs = {name: f"${{parameters.{name}:-null}}" for name in INPUTS.values()}
    return {
        "name": config.tag.stem,
        "description": str(config.tag),
        "version": "1",
        "protocol": "http",
        "parameters": {},
        "client_config": dict(CLIENT_CONFIG),
        "credential": {"token": token or "none"},  # ml-commons requires a credential
        "actions": [
            {
                "action_type": "PREDICT",
                "method": "POST",
                "url": config.url,
                "headers": headers,
                "request_body": json.dumps(inputs),
                "pre_process_function": "connector.pre_process.bedrock.multimodal_embedding",
                "post_process_function": _post_process_script(config),
            }
        ],
    }


def is_up_to_date(found: Any, expected: Any) -> bool:
    """Whether ``found`` contains all of ``expected``, except credentials.

    ``found`` is a resource as the server returns it: with defaults added, without credentials.
    """
    if isinstance(expected, Mapping):
        return isinstance(found, Mapping) and all(
            name == "credential" or (name in found and is_up_to_date(found[name], value))
            for name, value in expected.items()
        )
    if isinstance(expected, list):
        return (
            isinstance(found, list)
            and len(found) == len(expected)
            and all(map(is_up_to_date, found, expected))
        )
    return bool(found == expected)


def model_body(config: ConnectorConfig, connector_id: str) -> Body:
    """Return the body that registers the model of a connector."""
    return {
        "name": config.tag.stem,
        "description": str(config.tag),
        "function_name": "remote",
        "connector_id": connector_id,
    }


def pipeline_bodies(config: ConnectorConfig, model_id: str, *, neural: bool) -> dict[str, Body]:
    """Return the body of every pipeline by its path.

    ``neural``: include the pipeline for ``neural`` queries, which requires neural-search 3.0.
    """
    bodies = {f"{INGEST}/{config.ingest_name}": ingest_pipeline(config, model_id)}
    for query, target in SEARCHES:
        path = f"{SEARCH}/{config.search_name(query, target)}"
        bodies[path] = search_pipeline(config, model_id, query, target)
    if neural:
        default = {"neural_query_enricher": {"default_model_id": model_id}}
        bodies[f"{SEARCH}/{config.neural_name}"] = {
            "description": str(config.tag),
            "request_processors": [default],
        }
    return bodies


def ingest_pipeline(config: ConnectorConfig, model_id: str) -> Body:
    """Return the ingest pipeline: one request a document; codes are added, the picture removed."""
    fields = [
        {
            "path": config.field(modality).split("."),
            "input": INPUTS[modality],
            "code": field_of(modality),
            "codes": nested_path(modality),
        }
        for modality in ("text", "image")
    ]
    before: Body = {
        "fields": fields,
        "literal": LITERAL,
        "self_test": mapping.SELF_TEST_ID,
        "self_test_field": mapping.SELF_TEST_FIELD,
    }
    if config.enriched:
        before["encoder"] = config.tag.fingerprint
    after = {"fields": fields, "picture": config.image_field.split(".")}
    return {
        "description": str(config.tag),
        "processors": [
            _script("before", before),
            {"ml_inference": _encode_processor(config, model_id)},
            _script("after", after),
        ],
    }


def search_pipeline(
    config: ConnectorConfig, model_id: str, query: Modality, target: Modality
) -> Body:
    """Return the pipeline that replaces a ``match`` query by the exact search by its code.

    The ``match`` query has the words in the text field, or base64 in the picture's field. The
    pipeline adds ``sort`` (distance, then id) and ``_source`` (all but codes) to requests without.
    """
    processor = {
        "model_id": model_id,
        "input_map": [{INPUTS[query]: f"$.query.match['{config.field(query)}'].query"}],
        "output_map": [
            {
                "query": f"{query}_to_{target}",
                "$[?(!@.sort)].sort": "order",
                "$[?(!@._source)]._source": "fields",
            }
        ],
    }
    return {"description": str(config.tag), "request_processors": [{"ml_inference": processor}]}


def problem_mapping() -> Body:
    """Return the mapping of ``xmodal.problem``: why a document was stored without codes."""
    problem = {"type": "keyword", "ignore_above": 8191}
    return {"properties": {"xmodal": {"properties": {"problem": problem}}}}


def _encode_processor(config: ConnectorConfig, model_id: str) -> Body:
    """The ml_inference processor; with ``keep_failed`` it retries a document without its picture.

    Its inputs and outputs are below ``xmodal.asked``, which the last script removes.
    """
    processor: Body = {
        "tag": "encode",
        "if": "ctx.xmodal?.asked != null",
        "model_id": model_id,
        "input_map": [{name: f"xmodal.asked.{name}" for name in INPUTS.values()}],
        "output_map": [{f"xmodal.asked.{field_of(one)}": field_of(one) for one in MODALITIES}],
    }
    if not config.keep_failed:
        return processor
    reason = {"field": "xmodal.problem", "value": "{{{_ingest.on_failure_message}}}"}
    retry = processor | {"tag": "encode the text", "ignore_failure": True}
    return processor | {
        "on_failure": [{"set": reason}, _script("problem"), {"ml_inference": retry}]
    }


def _post_process_script(config: ConnectorConfig) -> str:
    """The connector's script with its placeholders replaced."""
    values: dict[str, str] = {
        "encoder": config.tag.fingerprint,
        "index": config.tag.index,
        "order": json.dumps(BY_SCORE),
        "fields": json.dumps({"excludes": list(mapping.RESERVED_FIELDS)}),
    }
    values |= {modality: json.dumps(query) for modality, query in config.queries.items()}
    script = _read_asset("answer")
    for name, text in values.items():
        quoted = text.replace("\\", "\\\\").replace("'", "\\'")
        script = script.replace(f"@{name}@", quoted)
    return script


def _script(name: str, params: Body | None = None) -> Body:
    optional = {"params": params} if params else {}
    return {"script": {"lang": "painless", "source": _read_asset(name), **optional}}


def _read_asset(name: str) -> str:
    return (files("xmodal_opensearch") / "assets" / f"connect.{name}.painless").read_text("utf-8")
