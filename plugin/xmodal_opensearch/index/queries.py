"""Request bodies: exact search by codes and by vectors, knn queries.

All functions are pure and return plain dictionaries.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from typing import Any

import numpy as np

from xmodal.codes import BinaryCodes
from xmodal.index.query_codes import QueryCodes
from xmodal.modality import Modality
from xmodal.vectors import Int8, UInt8
from xmodal_opensearch.index import codec, mapping
from xmodal_opensearch.index.mapping import ID, Layout, field_of, nested_path, vector_field

Query = dict[str, Any]
Build = Callable[[str, QueryCodes, Layout, Sequence[Query], int | None], Query]
"""(field, one query, layout, filters, radius or None) -> query of all matching documents.

The score of a document is 1 / (1 + key); the key is the Hamming distance, or for a query with
weights :func:`xmodal.vectors.rank_keys` of both distances.
"""
BuildVector = Callable[[str, Int8], Query]
"""(field, one vector) -> query of all documents with this field, whose score rises with cosine."""

MAX_HITS = 10_000
"""Largest number of hits of one request, and largest k of a knn query."""

BY_SCORE = [{"_score": "desc"}, {ID: {"order": "asc", "unmapped_type": "keyword"}}]
"""Tie rule: equal scores are sorted by id (UTF-8 sorts like code points)."""

MIN_SCORE = 1e-9
"""Below every score of a distance; excludes documents with score 0, beyond the radius."""


def by_script(
    field: str,
    query: QueryCodes,
    layout: Layout,
    filters: Sequence[Query],
    radius: int | None = None,
) -> Query:
    """Return the exact query by the script of k-NN; documents without the field are excluded.

    It ignores weights and ``radius``; see :func:`search_body`.
    """
    value = query.codes.to_signed()[0]
    params = {"field": field, "query_value": value, "space_type": "hamming"}
    script = {"lang": "knn", "source": "knn_score", "params": params}
    return _scored(script, [layout.present(field), *filters])


def by_painless(
    field: str,
    query: QueryCodes,
    layout: Layout,
    filters: Sequence[Query],
    radius: int | None = None,
) -> Query:
    """Return the exact query over 64-bit words in Painless, for servers without k-NN."""
    words = codec.to_words(query.codes)[0]
    params = {
        "words": words,
        "fields": [f"{field}.w{n}" for n in range(len(words))],
        "planes": [] if query.weights is None else _planes(query.weights[0]),
        "bits": query.bits,
        "radius": query.bits if radius is None else radius,
    }
    script = {"lang": "painless", "source": HAMMING_SCRIPT, "params": params}
    return _scored(script, [layout.present(field), *filters], None if radius is None else MIN_SCORE)


def by_hamming(
    field: str,
    query: QueryCodes,
    layout: Layout,
    filters: Sequence[Query],
    radius: int | None = None,
) -> Query:
    """Return the exact query of the hamming plugin, which excludes documents without a code."""
    body: dict[str, Any] = {"field": field, "code": query.codes.to_hex()[0]}
    if query.weights is not None:
        body["weights"] = "".join(f"{weight:x}" for weight in query.weights[0].tolist())
    if filters:
        body["filter"] = {"bool": {"filter": list(filters)}}
    if radius is not None:
        body["max_distance"] = radius
    return {"hamming": body}


def by_vector_cosine(field: str, vector: Int8) -> Query:
    """Return the query of the hamming plugin that scores vectors by (1 + cosine) / 2."""
    value = b64encode(vector.tobytes()).decode()
    return {"vector_cosine": {"field": field, "vector": value}}


def by_vector_script(field: str, vector: Int8) -> Query:
    """Return the query in Painless with k-NN that scores vectors by 1 + cosine, in float32."""
    present: Query = {"exists": {"field": field}}
    if not vector.any():  # all cosines are 0; the script refuses this vector
        return {"constant_score": {"filter": present}}
    params = {"field": field, "vector": vector.tolist()}
    script = {"lang": "painless", "source": COSINE_SCRIPT, "params": params}
    return _scored(script, [present])


def by_knn(field: str, code: BinaryCodes, filters: Sequence[Query], k: int) -> Query:
    """Return the query of the k nearest: exact with layout faiss, else by a graph.

    The query always has a filter: without one, k-NN 3.6 counts deleted documents among the k and
    removes them afterwards, so that too few documents remain.
    """
    conditions = list(filters) or [{"match_all": {}}]
    body = {"vector": code.to_signed()[0], "k": k, "filter": {"bool": {"filter": conditions}}}
    return {"knn": {field: body}}


def by_all(
    build: Build,
    target: Modality,
    query: QueryCodes,
    layout: Layout,
    filters: Sequence[Query],
    radius: int | None = None,
) -> Query:
    """Return the exact query of all documents with codes of ``target``, by the nearest of them.

    A document has one code in the flat field or several in nested objects, never both. Therefore it
    matches one of two clauses, and the sum of their scores is the score of its nearest code.
    """
    flat = build(field_of(target), query, layout, filters, radius)
    return {"bool": {"should": [flat, by_several(build, target, query, layout, filters, radius)]}}


def by_several(
    build: Build,
    target: Modality,
    query: QueryCodes,
    layout: Layout,
    filters: Sequence[Query],
    radius: int | None = None,
) -> Query:
    """Return the exact query of the documents with several codes of ``target``."""
    path = nested_path(target)
    nested = _nested(path, build(layout.nested_field(path), query, layout, [], radius))
    if filters:  # on fields of the document, which its nested objects do not have
        nested = {"bool": {"must": [nested], "filter": list(filters)}}
    return nested


def by_all_vectors(build: BuildVector, target: Modality, vector: Int8) -> Query:
    """Return the query of all documents with vectors of ``target``, by the largest cosine."""
    path = nested_path(target)
    nested = _nested(path, build(f"{path}.vector", vector))
    return {"bool": {"should": [build(vector_field(target), vector), nested]}}


def among(query: Query, hits: Sequence[Mapping[str, Any]]) -> Query:
    """Return the query of these documents, which all match, with the scores of ``query``.

    Hits of a search of several indexes name their index.
    """
    by_index: dict[str | None, list[str]] = {}
    for hit in hits:
        by_index.setdefault(hit.get("_index"), []).append(hit_id(hit))
    parts: list[Query] = []
    for index, ids in by_index.items():
        with_ids: Query = {"ids": {"values": ids}}
        there = [{"term": {"_index": index}}]
        parts.append(with_ids if index is None else {"bool": {"filter": [with_ids, *there]}})
    return {"bool": {"should": [query], "filter": [any_of(parts) if parts else {"match_none": {}}]}}


def two_stage(first: Query, second: Query, window: int) -> Query:
    """Return the query of the hamming plugin of the best documents of ``first``, by ``second``.

    These are in each shard the best ``window`` documents and all that tie with the last of them.
    """
    return {"two_stage": {"first": first, "second": second, "window": window}}


def by_knn_all(
    target: Modality,
    code: BinaryCodes,
    layout: Layout,
    filters: Sequence[Query],
    k: int,
    *,
    nested: bool = True,
    filters_nested: bool = True,
) -> Query:
    """Return the query of the ``k`` nearest documents of each kind: one code, several codes.

    k-NN applies the filters to the documents of nested codes, and counts these documents. Without
    ``nested`` the query is of documents with one code only. Without ``filters_nested``, as before
    OpenSearch 3.5, k-NN leaves out documents that pass the filters; then all documents with several
    codes are compared by script.
    """
    flat = by_knn(field_of(target), code, filters, k)
    if not nested:
        return flat
    path = nested_path(target)
    if filters and not filters_nested:
        several = by_several(by_script, target, QueryCodes(code), layout, filters)
        return {"bool": {"should": [flat, several]}}
    several = _nested(path, by_knn(layout.nested_field(path), code, filters, k))
    return {"bool": {"should": [flat, several]}}


def present(target: Modality, layout: Layout, *, nested: bool = True) -> Query:
    """Return the query of the documents that have one or several codes of ``target``.

    Without ``nested`` the query is of documents with one code only.
    """
    flat = layout.present(field_of(target))
    if not nested:
        return flat
    path = nested_path(target)
    several = _nested(path, layout.present(layout.nested_field(path)))
    return {"bool": {"should": [flat, several]}}


def search_body(
    query: Query,
    size: int,
    source: Any = False,
    *,
    radius: int | None = None,
    scale: float = codec.SCALE,
) -> dict[str, Any]:
    """Return the body of a search sorted by score, then id. ``source``: the fields to return.

    Scores have the boost ``scale``. Without fields the ids are read from doc values, which is
    faster than from stored documents. ``radius``: of hits, for a query without one of its own.
    """
    ids = {"stored_fields": "_none_", "docvalue_fields": [ID]}
    return {
        "size": size,
        "query": _boosted(query, scale),
        "sort": BY_SCORE,
        **(ids if source is False else {"_source": source}),
        **_limit(radius, scale),
        "track_total_hits": False,
    }


def count_body(query: Query, radius: int) -> dict[str, Any]:
    """Return the body of a search that counts the documents within a radius."""
    limit = _limit(radius, codec.SCALE)
    return {"size": 0, "query": _boosted(query, codec.SCALE), **limit, "track_total_hits": True}


def user_source(kept: Sequence[str] = (), left_out: Sequence[str] = ()) -> dict[str, Any]:
    """Return ``_source`` with the user's fields and ``kept``, without paths ``left_out``."""
    names = [name for name in mapping.RESERVED_FIELDS if name not in kept]
    return {"excludes": [*names, *left_out]}


def hit_id(hit: Mapping[str, Any]) -> str:
    """Return the id of a hit, also of one without ``_id`` (see :func:`search_body`)."""
    return str(hit["_id"] if "_id" in hit else hit["fields"][ID][0])


def _boosted(query: Query, scale: float) -> Query:
    """Return a query whose scores have a boost."""
    clauses = query["bool"] if query.keys() == {"bool"} else {"must": [query]}
    return {"bool": {**clauses, "boost": scale}}


def _limit(radius: int | None, scale: float) -> dict[str, float]:
    """Return the smallest score of hits within a radius, as an entry of a search.

    In a script_score query the server compares it with or without the boost, by the request.
    """
    return {} if radius is None else {"min_score": scale * codec.least_score(radius)}


def _nested(path: str, query: Query) -> Query:
    """Return the query of documents with nested objects, scored by the best of these."""
    options = {"path": path, "score_mode": "max", "ignore_unmapped": True}
    return {"nested": {**options, "query": query}}


def _scored(script: Query, filters: Sequence[Query], min_score: float | None = None) -> Query:
    """Return the script query of the documents that pass the filters."""
    limit = {} if min_score is None else {"min_score": min_score}
    query = {"bool": {"filter": list(filters)}}
    return {"script_score": {"query": query, "script": script, **limit}}


def _planes(weights: UInt8) -> list[list[int]]:
    """Return the bit planes of weights, lowest first, as words like those of codes."""
    count = int(weights.max(initial=0)).bit_length()
    planes = weights >> np.arange(count, dtype=np.uint8)[:, None] & 1
    return codec.to_words(BinaryCodes.from_relaxed(planes))


def any_of(queries: Sequence[Query]) -> Query:
    """Return the query of documents that match one of several."""
    return queries[0] if len(queries) == 1 else {"bool": {"should": list(queries)}}


def _script(name: str) -> str:
    return files("xmodal_opensearch").joinpath(f"assets/{name}.painless").read_text("utf-8")


HAMMING_SCRIPT, COSINE_SCRIPT = _script("hamming"), _script("cosine")
