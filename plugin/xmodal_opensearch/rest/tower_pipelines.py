"""Request bodies of the pipelines and search templates of ``connect --in-cluster``.

    client -> ingest pipeline -> text_embedding -> local model, which computes codes
    client -> search template -> search pipeline -> ml_inference -> the same model

A search template has the query of the index's strategy with a placeholder for the code, so that a
request has parameters only: ``text``, ``size``, ``from`` and ``filter``. Pure functions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files

from xmodal.encoders.text_tower import Samples
from xmodal.modality import MODALITIES, Modality
from xmodal_opensearch.index import mapping
from xmodal_opensearch.index.mapping import field_of, nested_path
from xmodal_opensearch.index.ownership import OwnershipTag, tagged_source
from xmodal_opensearch.index.queries import BY_SCORE, Query
from xmodal_opensearch.rest.pipelines import INGEST, SEARCH, Body, check_fields, check_name

TEMPLATES = "/_scripts"
BATCH = 50
"""Texts that neural-search sends to a model at once."""
FUSED_HITS = 100
"""Hits of each ranking that are fused."""
TEMPLATE_NAMES = ("text-to-image", "text-to-text", "fused")
REPLACED = "${ml_inference."
"""Start of names that ml_inference replaces in a query's text, which therefore is refused."""
_TEXT = "@.ext.ml_inference.text"
_QUERY_TEXT = f"$[?({_TEXT} contains '' && !({_TEXT} contains '{REPLACED}'))].{_TEXT[2:]}"
"""JSON path of the text in a request: a list of one string, empty for others."""


@dataclass(frozen=True)
class TowerConfig:
    """Parameters of the pipelines of one index.

    ``queries``: for each target modality, the exact search with "@code@" as placeholder of the
    code. ``text_field``: field of the documents' texts; ``words_field``: where BM25 finds its
    words. ``enriched``: as in :class:`~xmodal_opensearch.rest.pipelines.ConnectorConfig`.
    ``samples``: texts and their codes, stored in the ingest pipeline for ``doctor``. Raises
    ConfigError for names and fields that are not valid.
    """

    tag: OwnershipTag
    queries: Mapping[Modality, Query]
    text_field: str = "text"
    words_field: str = "text.words"
    enriched: bool = False
    samples: Samples = ()

    def __post_init__(self) -> None:
        check_name("--name", self.tag.name)
        check_name("index name", self.tag.index)
        check_fields(self.text_field)

    def name(self, purpose: str) -> str:
        """Return the name of a pipeline or template, such as "ingest" or "fused"."""
        return f"{self.tag.stem}-{purpose}"


def bodies(config: TowerConfig, model_id: str) -> dict[str, Body]:
    """Return the body of every pipeline and search template by its path."""
    found = {f"{INGEST}/{config.name('ingest')}": ingest_pipeline(config, model_id)}
    for target in MODALITIES:
        name = config.name(f"text-to-{target}")
        found[f"{SEARCH}/{name}"] = search_pipeline(config, model_id)
        found[f"{TEMPLATES}/{name}"] = code_template(config, target)
    name = config.name("fused")
    found[f"{SEARCH}/{name}"] = search_pipeline(config, model_id) | {
        "phase_results_processors": [
            {"score-ranker-processor": {"combination": {"technique": "rrf"}}}
        ]
    }
    found[f"{TEMPLATES}/{name}"] = fused_template(config)
    found[f"{SEARCH}/{config.name('neural')}"] = {
        "description": str(config.tag),
        "request_processors": [{"neural_query_enricher": {"default_model_id": model_id}}],
    }
    return found


def ingest_pipeline(config: TowerConfig, model_id: str) -> Body:
    """Return the ingest pipeline: a code of one text, nested codes of a list of texts."""
    before: Body = {
        "text": config.text_field.split("."),
        "code": field_of("text"),
        "codes": nested_path("text"),
        "self_test": mapping.SELF_TEST_ID,
        "self_test_field": mapping.SELF_TEST_FIELD,
        "samples": [[text, list(code)] for text, code in config.samples],
    }
    if config.enriched:
        before["encoder"] = config.tag.fingerprint
    after = {"code": field_of("text"), "codes": nested_path("text")}
    fields = {"xmodal": {"asked": {"one": "code", "many": "codes"}}}
    encode = {"model_id": model_id, "field_map": fields, "batch_size": BATCH}
    return {
        "description": str(config.tag),
        "processors": [
            _script("before", before),
            {"text_embedding": encode},
            _script("after", after),
        ],
    }


def read_samples(pipeline: Body) -> Samples | None:
    """Return the samples in an ingest pipeline, or None for pipelines of a service."""
    for processor in pipeline.get("processors", ()):
        found = processor.get("script", {}).get("params", {}).get("samples")
        if found is not None:
            return tuple((str(text), tuple(map(int, code))) for text, code in found)
    return None


def search_pipeline(config: TowerConfig, model_id: str) -> Body:
    """Return the search pipeline: encodes ``ext.ml_inference.text`` for the template query.

    The input of the model is a list, which ml_inference writes as JSON; it would write a single
    string without escaping. The list is empty, which the model refuses with status 400, without a
    text and for a text with :data:`REPLACED`.
    """
    texts = '{"text_docs": ${ml_inference.docs}, "return_number": true, '
    processor = {
        "model_id": model_id,
        "function_name": "TEXT_EMBEDDING",
        "full_response_path": True,
        "model_input": texts + '"target_response": ["sentence_embedding"]}',
        "input_map": [{"docs": _QUERY_TEXT}],
        "output_map": [{"code": "$.inference_results[0].output[0].data"}],
    }
    return {"description": str(config.tag), "request_processors": [{"ml_inference": processor}]}


def code_template(config: TowerConfig, target: Modality) -> Body:
    """Return the search template of the exact search by codes, in the order of the contract."""
    query = _filtered(_by_code(config.queries[target]))
    return _template(config, {"sort": BY_SCORE, "query": query})


def fused_template(config: TowerConfig) -> Body:
    """Return the search template that fuses BM25 and codes by reciprocal ranks, in OpenSearch."""
    words = {"match": {config.words_field: "@text@"}}
    rankings = [words, *(_by_code(config.queries[target]) for target in MODALITIES)]
    query = {"queries": list(map(_filtered, rankings)), "pagination_depth": FUSED_HITS}
    return _template(config, {"query": {"hybrid": query}})


def _filtered(query: Query) -> Query:
    return {"bool": {"must": [query], "filter": ["@filter@"]}}


def _template(config: TowerConfig, search: Body) -> Body:
    """A stored search template: the body of a search, with parameters in Mustache."""
    body = {
        "size": "@size@",
        "from": "@from@",
        "_source": {"excludes": list(mapping.RESERVED_FIELDS)},
        **search,
        "ext": {"ml_inference": {"text": "@text@"}},
    }
    source = json.dumps(body, ensure_ascii=False)
    for placeholder, mustache in (
        ('"@size@"', "{{size}}{{^size}}10{{/size}}"),
        ('"@from@"', "{{from}}{{^from}}0{{/from}}"),
        ('"@filter@"', '{"match_all": {}}{{#filter}},{{#toJson}}.{{/toJson}}{{/filter}}'),
        ("@text@", "{{text}}"),
    ):
        source = source.replace(placeholder, mustache)
    return {"script": {"lang": "mustache", "source": tagged_source(config.tag, source)}}


def _by_code(query: Query) -> Query:
    """A template query, in which OpenSearch replaces "${code}" by the code of the query.

    It replaces names in every string of the template query, so that texts and filters of a request
    are outside of it.
    """
    return {"template": json.loads(json.dumps(query).replace("@code@", "${code}"))}


def _script(name: str, params: Body) -> Body:
    asset = files("xmodal_opensearch") / "assets" / f"tower.{name}.painless"
    return {"script": {"lang": "painless", "source": asset.read_text("utf-8"), "params": params}}
