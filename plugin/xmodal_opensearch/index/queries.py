"""Request bodies: exact search by codes and by vectors, knn queries, filters, BM25.

All functions are pure and return plain dictionaries.
"""

from __future__ import annotations

import re
import sys
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from typing import Any

import numpy as np

from xmodal.codes import BinaryCodes
from xmodal.errors import ConfigError
from xmodal.index.filters import (
    AFTER,
    DATE,
    All,
    Condition,
    Exists,
    Not,
    Prefix,
    Range,
    Scalar,
    Term,
    canonical,
    is_period,
    read_number,
    unknown_field,
)
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

_INT, _LONG, _MAX_DOUBLE = 2**31, 2**63, sys.float_info.max
NUMBERS = {
    **dict.fromkeys(("byte", "short", "integer"), (-_INT, _INT - 1)),
    "long": (-_LONG, _LONG - 1),
    "unsigned_long": (0, 2 * _LONG - 1),
    "half_float": (-65504.0, 65504.0),
    "float": (-3.4028234e38, 3.4028234e38),
    **dict.fromkeys(("double", "scaled_float"), (-_MAX_DOUBLE, _MAX_DOUBLE)),
}
"""Smallest and largest value that the server accepts in a query, by numeric type."""


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


def words_query(
    fields: Sequence[str], words: Sequence[str], excluded: Sequence[str], filters: Sequence[Query]
) -> Query:
    """Return the BM25 query of documents with one of the words, without the excluded ones.

    The clause of each word is named by its place in ``words``, for ``matched_queries``.
    """
    options = {"minimum_should_match": 1, "filter": list(filters)}
    return {
        "bool": {
            "should": [_word(fields, word, _name=str(n)) for n, word in enumerate(words)],
            "must_not": [_word(fields, word) for word in excluded],
            **options,
        }
    }


def user_source(kept: Sequence[str] = (), left_out: Sequence[str] = ()) -> dict[str, Any]:
    """Return ``_source`` with the user's fields and ``kept``, without paths ``left_out``."""
    names = [name for name in mapping.RESERVED_FIELDS if name not in kept]
    return {"excludes": [*names, *left_out]}


def hit_id(hit: Mapping[str, Any]) -> str:
    """Return the id of a hit, also of one without ``_id`` (see :func:`search_body`)."""
    return str(hit["_id"] if "_id" in hit else hit["fields"][ID][0])


def filters(
    conditions: Sequence[Condition], types: Mapping[str, str], *, expensive: bool = True
) -> list[Query]:
    """Return one query per condition, by the type of its field.

    ``expensive``: whether the server allows queries by patterns; without them a year is compared
    with numbers only, not with dates. Raises ConfigError for a field that the mapping lacks, unless
    it has no field of the user, and for a condition that the field's type cannot answer.
    """
    return [_filter(condition, types, expensive) for condition in conditions]


def text_field(name: str, types: Mapping[str, str]) -> str:
    """Return the path of the analysed text of a field; raise ConfigError if it has none."""
    for path in (name, f"{name}.words"):
        if types.get(path) in ("text", "match_only_text"):
            return path
    known = sorted(path.removesuffix(".words") for path, kind in types.items() if kind == "text")
    raise ConfigError(
        f"field {name!r} is no text that BM25 can search, "
        + (f"expected one of {', '.join(known)}" if known else "and this index has no such field")
    )


def text_fields(types: Mapping[str, str]) -> list[str]:
    """Return the paths of the analysed text of all fields of the user."""
    return [
        path
        for path, kind in sorted(types.items())
        if kind in ("text", "match_only_text")
        and not mapping.is_reserved(path)
        and not is_nested(path, types)
    ]


def is_nested(field: str, types: Mapping[str, str]) -> bool:
    """Return whether a field is, or is inside, a nested field."""
    parents = [field[:position] for position, char in enumerate(field) if char == "."]
    return any(types.get(path) == "nested" for path in [field, *parents])


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


def _word(fields: Sequence[str], word: str, **options: str) -> Query:
    """Return the query of one word, in ``xmodal.words`` or in fields that the server analyses."""
    if list(fields) == [mapping.WORDS]:
        return {"term": {mapping.WORDS: {"value": word, **options}}}
    return {"multi_match": {"query": word, "fields": list(fields), **options}}


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


def _filter(condition: Condition, types: Mapping[str, str], expensive: bool) -> Query:
    """Return the query of the documents that fulfil one condition."""
    if isinstance(condition, Not):
        return {"bool": {"must_not": [_filter(condition.condition, types, expensive)]}}
    if isinstance(condition, All):
        parts = [_filter(one, types, expensive) for one in condition.conditions]
        return {"bool": {"filter": parts}}
    field = condition.field
    if is_nested(field, types):
        raise ConfigError(f"field {field!r} is in nested documents, which filters do not support")
    paths = [path for path in (field, f"{field}.words") if path in types]
    if not paths:
        if known := user_fields(types):
            raise unknown_field(field, known)
        return {"match_none": {}}
    if isinstance(condition, Exists):
        return any_of([{"exists": {"field": path}} for path in paths])
    kind = types.get(field)
    if kind in NUMBERS:
        return _numeric(condition, *NUMBERS[kind])
    if kind == "boolean":
        values = [value for value in ("false", "true") if condition.accepts(value)]
        return {"terms": {field: values}}
    if kind in ("date", "date_nanos"):
        return _date(condition)
    if kind == "text":
        field, kind = f"{field}.keyword", types.get(f"{field}.keyword")
        if kind is None:
            raise ConfigError(
                f"field {condition.field!r} is analysed text without a keyword sub-field: filter "
                "by another field, or search its words by BM25"
            )
    number = f"{field}.number" if f"{field}.number" in types else None
    return _keyword(condition, field, number, dates=expensive and kind in ("keyword", "wildcard"))


def _keyword(
    condition: Term | Prefix | Range, field: str, number: str | None, *, dates: bool
) -> Query:
    """Return the query on a keyword field; ``number``: its numeric sub-field.

    ``dates``: also compare with dates, by a query on the pattern of dates.
    """
    if isinstance(condition, Prefix):
        text = {"value": condition.text, **_case(condition.any_case)}
        return {"prefix": {field: text}}
    if isinstance(condition, Term):
        queries: list[Query] = []
        if not condition.any_case:
            queries.append({"terms": {field: sorted(condition.texts)}})
        folded = condition.texts if condition.any_case else condition.booleans
        queries += [{"term": {field: {"value": text, **_case(True)}}} for text in sorted(folded)]
        if number and condition.numbers:
            queries.append({"terms": {number: sorted(condition.numbers)}})
        if dates:
            queries += [_dates(field, beginning=text) for text in condition.dates]
        return any_of(queries)
    if "text" in condition.kinds:
        return {"range": {field: _tightest(condition.texts)}}
    queries = []
    if number and "number" in condition.kinds:
        queries.append({"range": {number: _tightest(condition.numbers)}})
    if "date" in condition.kinds and (dates or not queries):
        within = {"range": {field: condition.dates}}
        queries.append({"bool": {"filter": [within, _dates(field)]}})
    if not queries:
        raise ConfigError(
            f"field {condition.field!r} is mapped as keyword, which has no ranges of numbers: "
            "compare with text, or map it as a number"
        )
    return any_of(queries)


def _case(any_case: bool) -> dict[str, bool]:
    """Return the option of a query that compares A to Z like a to z."""
    return {"case_insensitive": True} if any_case else {}


def _dates(field: str, beginning: str = "") -> Query:
    """Return the query of values that are dates as text and have this beginning."""
    if not beginning:
        return {"regexp": {field: {"value": DATE, "flags": "NONE"}}}
    pattern = f"({DATE})&({re.escape(beginning)}.*)"
    return {"regexp": {field: {"value": pattern, "flags": "INTERSECTION"}}}


def any_of(queries: Sequence[Query]) -> Query:
    """Return the query of documents that match one of several."""
    return queries[0] if len(queries) == 1 else {"bool": {"should": list(queries)}}


def user_fields(types: Mapping[str, str]) -> list[str]:
    """Return the user's fields of a mapping, without their sub-fields."""
    return [
        path
        for path in types
        if not mapping.is_reserved(path)
        and not any(path[:at] in types for at, char in enumerate(path) if char == ".")
    ]


def _date(condition: Term | Prefix | Range) -> Query:
    """Return the query on a field that is mapped as a date."""
    if isinstance(condition, Range):
        ranges: list[dict[str, Any]] = []
        for name, bound in _tightest_dates(condition):
            new = _date_bound(condition.field, name, bound)
            for old in ranges:  # one value of a document must be within all bounds
                if old["format"] == new["format"] and set(old) & set(new) == {"format"}:
                    old |= new
                    break
            else:
                ranges.append(new)
        parts: list[Query] = [{"range": {condition.field: one}} for one in ranges]
        return parts[0] if len(parts) == 1 else {"bool": {"filter": parts}}
    values = condition.values if isinstance(condition, Term) else (condition.text,)
    return any_of(
        [
            {
                "range": {
                    condition.field: _date_bound(condition.field, "gte", value)
                    | _date_bound(condition.field, "lte", value)
                }
            }
            for value in values
        ]
    )


def _tightest_dates(condition: Range) -> list[tuple[str, Scalar]]:
    """Return the tightest lower and the tightest upper bound: the server takes one of each."""

    def position(name: str, bound: Scalar) -> str:
        return canonical(bound) + (AFTER if name in ("gt", "lte") else "")

    lower = [one for one in condition.bounds if one[0] in ("gt", "gte")]
    upper = [one for one in condition.bounds if one[0] in ("lt", "lte")]
    chosen = [max(lower, key=lambda one: position(*one))] if lower else []
    return chosen + ([min(upper, key=lambda one: position(*one))] if upper else [])


def _date_bound(field: str, name: str, bound: Scalar) -> dict[str, Any]:
    """Return a bound of a date field: "gt" and "lte" refer to the end of a period."""
    text = canonical(bound)
    if is_period(text):
        end = _to_end(text) if name in ("gt", "lte") else ""
        name = {"gt": "gte", "lte": "lt"}.get(name, name)
        return {name: text.replace(" ", "T") + end, "format": "strict_date_optional_time"}
    if (number := _to_number(bound)) is not None:
        return {name: number, "format": "epoch_millis"}
    raise ConfigError(
        f"field {field!r} holds dates and is compared with {text!r}, expected a date such as "
        "2024-05-01"
    )


def _to_end(period: str) -> str:
    """Return the date math from the start of a period to its end."""
    time = re.sub("(Z|[+-][0-9]{2}:?[0-9]{2})$", "", period[11:])
    if not time:
        return {4: "||+1y", 7: "||+1M"}.get(len(period), "||+1d")
    return {2: "||+1h", 5: "||+1m", 8: "||+1s"}.get(len(time), "||+1ms")


def _numeric(condition: Term | Prefix | Range, smallest: float, largest: float) -> Query:
    """Return the query on a numeric field whose type has values from smallest to largest."""
    field = condition.field
    if isinstance(condition, Prefix):
        raise ConfigError(f"field {field!r} holds numbers, which have no prefix: use >= and <")
    if isinstance(condition, Term):
        numbers = [_to_number(value) for value in condition.values]
        in_range = [n for n in numbers if n is not None and smallest <= n <= largest]
        return {"terms": {field: in_range}}
    bounds: dict[str, int | float] = {}
    for name, bound in condition.bounds:
        number = _to_number(bound)
        if number is None:
            raise ConfigError(
                f"field {field!r} holds numbers and is compared with {dict(condition.bounds)}, "
                "expected numbers"
            )
        if (number > largest) if name in ("gt", "gte") else (number < smallest):
            return {"match_none": {}}
        if smallest <= number <= largest:
            bounds[name] = number
    if not bounds:  # all values of the type are within the bounds
        return {"exists": {"field": field}}
    return {"range": {field: _tightest(bounds)}}


def _to_number(value: Any) -> int | float | None:
    """Return a value as a number, integers exactly, or None if it is none."""
    text = canonical(value)
    return int(text) if re.fullmatch(r"[+-]?[0-9]{1,20}", text) else read_number(value)


def _tightest(bounds: Mapping[str, Any]) -> dict[str, Any]:
    """Return the range with one lower and one upper bound: the server refuses gt with gte."""
    tightest = dict(bounds)
    for strict, inclusive, tighter in (("gt", "gte", max), ("lt", "lte", min)):
        if strict in bounds and inclusive in bounds:
            strict_wins = tighter(bounds[strict], bounds[inclusive]) == bounds[strict]
            del tightest[inclusive if strict_wins else strict]
    return tightest


def _script(name: str) -> str:
    return files("xmodal_opensearch").joinpath(f"assets/{name}.painless").read_text("utf-8")


HAMMING_SCRIPT, COSINE_SCRIPT = _script("hamming"), _script("cosine")
