"""What is asked: exact Hamming search in three ways, graphs, filters, BM25, fusion. Pure.

Every builder returns plain dictionaries; the store alone sends them.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from xmodal.codes import BinaryCodes
from xmodal.errors import ConfigError
from xmodal.index.filters import Condition, Exists, Range, Term, canonical, read_number
from xmodal_opensearch.index import codec, mapping
from xmodal_opensearch.index.mapping import ID, Layout

Query = dict[str, Any]
MAX_HITS = 10_000
"""What one request returns at most, and the largest k of a knn query."""

BY_DISTANCE = [{"_score": "desc"}, {ID: {"order": "asc", "unmapped_type": "keyword"}}]
"""The tie rule: equal distances in order of id (UTF-8 sorts like code points)."""

_INT, _LONG, _BIGGEST = 2**31, 2**63, sys.float_info.max
NUMBERS = {
    **dict.fromkeys(("byte", "short", "integer"), (-_INT, _INT - 1)),
    "long": (-_LONG, _LONG - 1),
    "unsigned_long": (0, 2 * _LONG - 1),
    "half_float": (-65504.0, 65504.0),
    "float": (-3.4028234e38, 3.4028234e38),
    **dict.fromkeys(("double", "scaled_float"), (-_BIGGEST, _BIGGEST)),
}
"""Types of numbers, and what the server lets a query compare them with; it refuses the rest."""


def by_script(
    field: str,
    code: BinaryCodes,
    layout: Layout,
    filters: Sequence[Query],
    radius: int | None = None,
) -> Query:
    """Exact by k-NN's own script, documents without the field left out (they would score 0)."""
    params = {"field": field, "query_value": code.to_signed()[0], "space_type": "hamming"}
    script = {"lang": "knn", "source": "knn_score", "params": params}
    return _scored(script, field, layout, filters, radius)


def by_painless(
    field: str,
    code: BinaryCodes,
    layout: Layout,
    filters: Sequence[Query],
    radius: int | None = None,
) -> Query:
    """Exact over 64-bit words, for servers without k-NN."""
    words = codec.to_words(code)[0]
    params = {"words": words, "fields": [f"{field}.w{n}" for n in range(len(words))]}
    script = {"lang": "painless", "source": PAINLESS, "params": params}
    return _scored(script, field, layout, filters, radius)


def by_hamming(
    field: str,
    code: BinaryCodes,
    layout: Layout,
    filters: Sequence[Query],
    radius: int | None = None,
) -> Query:
    """Exact by our plugin's query, which knows no document without a code; filters go inside."""
    asked: dict[str, Any] = {"field": field, "code": code.to_hex()[0]}
    if filters:
        asked["filter"] = {"bool": {"filter": list(filters)}}
    if radius is not None:
        asked["max_distance"] = radius
    return {"hamming": asked}


def by_knn(field: str, code: BinaryCodes, filters: Sequence[Query], k: int) -> Query:
    """The k nearest: exact on a Faiss field whose threshold is -1, by a graph elsewhere.

    There is always a filter: without one, k-NN 3.6 counts deleted documents among the k and drops
    them afterwards, so that living ones are missing.
    """
    kept = list(filters) or [{"match_all": {}}]
    asked = {"vector": code.to_signed()[0], "k": k, "filter": {"bool": {"filter": kept}}}
    return {"knn": {field: asked}}


def search_body(query: Query, size: int) -> dict[str, Any]:
    """A search in order of distance, then id; the codes themselves are not sent back."""
    return {
        "size": size,
        "query": query,
        "sort": BY_DISTANCE,
        "_source": {"excludes": list(mapping.RESERVED_FIELDS)},
        "track_total_hits": False,
    }


def words_query(field: str, words: str, filters: Sequence[Query]) -> Query:
    """BM25 over a text field, among documents that the filters leave."""
    match: Query = {"match": {field: {"query": words}}}
    return {"bool": {"must": [match], "filter": list(filters)}}


def hybrid_body(
    code_query: Query, text_query: Query, size: int, *, constant: int, depth: int
) -> dict[str, Any]:
    """Reciprocal rank fusion on the server (neural-search): 1 / (constant + rank), summed."""
    ranker = {"combination": {"technique": "rrf", "rank_constant": constant}}
    return {
        "size": size,
        "query": {"hybrid": {"queries": [code_query, text_query], "pagination_depth": depth}},
        "_source": {"excludes": list(mapping.RESERVED_FIELDS)},
        "search_pipeline": {"phase_results_processors": [{"score-ranker-processor": ranker}]},
    }


def filters(conditions: Sequence[Condition], types: Mapping[str, str]) -> list[Query]:
    """One query a condition, fitted to how the field is mapped. Raises ConfigError."""
    return [_filter(one, types) for one in conditions]


def text_field(name: str, types: Mapping[str, str]) -> str:
    """The analysed field that BM25 looks at for a field's name. Raises ConfigError."""
    for path in (name, f"{name}.words"):
        if types.get(path) in ("text", "match_only_text"):
            return path
    known = sorted(path.removesuffix(".words") for path, kind in types.items() if kind == "text")
    raise ConfigError(
        f"field {name!r} is no text that BM25 could search; "
        + (f"this index has {', '.join(known)}" if known else "this index has none")
    )


def _scored(
    script: Query, field: str, layout: Layout, filters: Sequence[Query], radius: int | None
) -> Query:
    """Documents that have the field and pass the filters, scored; the radius as a least score."""
    there = {"bool": {"filter": [layout.present(field), *filters]}}
    least = {} if radius is None else {"min_score": codec.to_score(radius)}
    return {"script_score": {"query": there, "script": script, **least}}


def _filter(condition: Condition, types: Mapping[str, str]) -> Query:
    field = condition.field
    parents = [field[:at] for at, sign in enumerate(field) if sign == "."]
    if any(types.get(one) == "nested" for one in [field, *parents]):
        raise ConfigError(f"field {field!r} lies in nested documents, where filters do not reach")
    if isinstance(condition, Exists):
        there = [{"exists": {"field": path}} for path in (field, f"{field}.words") if path in types]
        found: Query = {"bool": {"should": there or [{"exists": {"field": field}}]}}
        return found if condition.present else {"bool": {"must_not": [found]}}
    kind = types.get(field)
    if kind in NUMBERS:
        return _numeric(field, condition, *NUMBERS[kind])
    if kind == "boolean":
        return {"terms": {field: [one for one in ("false", "true") if condition.accepts(one)]}}
    if kind == "text":
        field, kind = f"{field}.keyword", types.get(f"{field}.keyword")
        if kind is None:
            raise ConfigError(
                f"field {condition.field!r} is analysed text without a keyword beside it: filter "
                "on another field, or search its words by BM25"
            )
    if isinstance(condition, Term):
        return {"terms": {field: sorted(set(map(canonical, condition.values)))}}
    bounds = dict(condition.bounds)
    if kind in ("keyword", "wildcard") and not isinstance(next(iter(bounds.values())), str):
        if f"{field}.number" not in types:
            raise ConfigError(
                f"field {condition.field!r} is mapped as {kind}, which has no ranges of numbers: "
                "compare with text, or map it as a number"
            )
        field = f"{field}.number"
    return {"range": {field: _tightest(bounds)}}


def _numeric(field: str, condition: Term | Range, least: float, most: float) -> Query:
    """On a field of numbers from ``least`` to ``most``: what is no such number fits no document."""
    if isinstance(condition, Term):
        numbers = [_exactly(value) for value in condition.values]
        return {"terms": {field: [n for n in numbers if n is not None and least <= n <= most]}}
    bounds: dict[str, int | float] = {}
    for name, bound in condition.bounds:
        number = _exactly(bound)
        if number is None:
            raise ConfigError(
                f"field {field!r} holds numbers and is compared with {dict(condition.bounds)}, "
                "expected numbers"
            )
        if (number > most) if name in ("gt", "gte") else (number < least):
            return {"match_none": {}}
        if least <= number <= most:
            bounds[name] = number
    if not bounds:  # every number lies within them
        return {"exists": {"field": field}}
    return {"range": {field: _tightest(bounds)}}


def _exactly(value: Any) -> int | float | None:
    """The number that a value says; a whole one to its last digit, which a double may lack."""
    text = canonical(value)
    return int(text) if re.fullmatch(r"[+-]?[0-9]{1,20}", text) else read_number(value)


def _tightest(bounds: Mapping[str, Any]) -> dict[str, Any]:
    """The same range with one bound a side: the server refuses gt beside gte."""
    out = dict(bounds)
    for strict, loose, wins in (("gt", "gte", max), ("lt", "lte", min)):
        if strict in out and loose in out:
            keep = strict if wins(out[strict], out[loose]) == out[strict] else loose
            del out[loose if keep == strict else strict]
    return out


PAINLESS = files("xmodal_opensearch").joinpath("assets/hamming.painless").read_text("utf-8")
