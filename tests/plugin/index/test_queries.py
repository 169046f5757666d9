"""Request bodies, compared as a whole."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from xmodal.codes import BinaryCodes
from xmodal.errors import ConfigError
from xmodal.index.filters import DATE, parse
from xmodal.index.query_codes import QueryCodes
from xmodal_opensearch.index import filter_queries, word_queries
from xmodal_opensearch.index import queries as build
from xmodal_opensearch.index.mapping import LAYOUTS

CODE = QueryCodes(BinaryCodes.from_hex(["80ff"]))
WEIGHTED = QueryCodes(CODE.codes, np.array([[1, 2, 15, *[0] * 13]], np.uint8))
VECTOR = np.array([1, -128, 127], np.int8)
RED = {"terms": {"colour": ["red"]}}
CODES = ["xmodal", "image_code", "text_code"]
VECTORS = ["image_vector", "text_vector"]


def test_by_script_body() -> None:
    assert build.by_script("image_code", CODE, LAYOUTS["faiss"], [RED]) == {
        "script_score": {
            "query": {"bool": {"filter": [{"exists": {"field": "image_code"}}, RED]}},
            "script": {
                "lang": "knn",
                "source": "knn_score",
                "params": {
                    "field": "image_code",
                    "query_value": [-128, -1],
                    "space_type": "hamming",
                },
            },
        }
    }


def test_by_painless_body() -> None:
    code = QueryCodes(BinaryCodes.from_hex(["8000000000000001" + "ff"]))
    assert build.by_painless("text_code", code, LAYOUTS["long"], []) == {
        "script_score": {
            "query": {"bool": {"filter": [{"exists": {"field": "text_code.w0"}}]}},
            "script": {
                "lang": "painless",
                "source": build.HAMMING_SCRIPT,
                "params": {
                    "words": [-(2**63) + 1, -(1 << 56)],
                    "fields": ["text_code.w0", "text_code.w1"],
                    "planes": [],
                    "bits": 72,
                    "radius": 72,
                },
            },
        }
    }
    assert "Long.bitCount" in build.HAMMING_SCRIPT


def test_weights_are_digits_for_the_plugin_and_bit_planes_for_painless() -> None:
    body = build.by_hamming("f", WEIGHTED, LAYOUTS["faiss"], [])
    assert body["hamming"]["weights"] == "12f0000000000000"
    script = build.by_painless("f", WEIGHTED, LAYOUTS["long"], [])["script_score"]["script"]
    # Weights 1, 2, 15 of the first three bits: the planes of 1, 2, 4 and 8.
    planes = [0b101, 0b011, 0b001, 0b001]
    assert [row for (row,) in script["params"]["planes"]] == [
        int(f"{plane:03b}{0:061b}", 2) - (1 << 64 if plane & 4 else 0) for plane in planes
    ]


def test_queries_by_vectors() -> None:
    assert build.by_vector_cosine("image_vector", VECTOR) == {
        "vector_cosine": {"field": "image_vector", "vector": "AYB/"}
    }
    script = build.by_vector_script("image_vector", VECTOR)["script_score"]
    assert script["query"] == {"bool": {"filter": [{"exists": {"field": "image_vector"}}]}}
    assert script["script"]["params"] == {"field": "image_vector", "vector": [1, -128, 127]}
    # A zero vector, which k-NN refuses, has the cosine 0 with all vectors.
    zeros = build.by_vector_script("image_vector", np.zeros(3, np.int8))
    assert zeros == {"constant_score": {"filter": {"exists": {"field": "image_vector"}}}}
    both = build.by_all_vectors(build.by_vector_cosine, "image", VECTOR)["bool"]["should"]
    assert both[0] == build.by_vector_cosine("image_vector", VECTOR)
    assert both[1]["nested"]["query"] == build.by_vector_cosine("image_codes.vector", VECTOR)
    assert build.among({"a": 1}, [{"_id": "x"}, {"_id": "y"}]) == {
        "bool": {"should": [{"a": 1}], "filter": [{"ids": {"values": ["x", "y"]}}]}
    }
    of_two = build.among({"a": 1}, [{"_id": "x", "_index": name} for name in ("i", "j")])
    assert of_two["bool"]["filter"][0]["bool"]["should"] == [
        {"bool": {"filter": [{"ids": {"values": ["x"]}}, {"term": {"_index": name}}]}}
        for name in ("i", "j")
    ]
    assert build.two_stage({"a": 1}, {"b": 2}, 300) == {
        "two_stage": {"first": {"a": 1}, "second": {"b": 2}, "window": 300}
    }


def test_by_knn_always_has_a_filter() -> None:
    nearest = {"vector": [-128, -1], "k": 7}
    match_all = {"bool": {"filter": [{"match_all": {}}]}}
    assert build.by_knn("f", CODE.codes, [], 7) == {"knn": {"f": nearest | {"filter": match_all}}}
    red = {"bool": {"filter": [RED]}}
    assert build.by_knn("f", CODE.codes, [RED], 7) == {"knn": {"f": nearest | {"filter": red}}}


def test_all_documents_have_a_flat_code_or_nested_codes() -> None:
    options = {"path": "text_codes", "score_mode": "max", "ignore_unmapped": True}
    words, vectors = LAYOUTS["long"], LAYOUTS["faiss"]
    for by, layout, field in (
        (build.by_hamming, vectors, "text_codes.code"),
        (build.by_painless, words, "text_codes"),
    ):
        inner = by(field, CODE, layout, [], 3)
        flat, nested = by("text_code", CODE, layout, [], 3), {"nested": options | {"query": inner}}
        query = build.by_all(by, "text", CODE, layout, [], 3)
        assert query == {"bool": {"should": [flat, nested]}}
        # A filter is on the document, not on the nested objects.
        nested = {"bool": {"must": [nested], "filter": [RED]}}
        flat = by("text_code", CODE, layout, [RED], 3)
        query = build.by_all(by, "text", CODE, layout, [RED], 3)
        assert query == {"bool": {"should": [flat, nested]}}
    # k-NN applies a filter inside the nested query to the documents.
    query = {"nested": options | {"query": build.by_knn("text_codes.code", CODE.codes, [RED], 7)}}
    flat = build.by_knn("text_code", CODE.codes, [RED], 7)
    assert build.by_knn_all("text", CODE.codes, vectors, [RED], 7) == {
        "bool": {"should": [flat, query]}
    }
    # Before OpenSearch 3.5 it does so for some filters only.
    script = build.by_several(build.by_script, "text", CODE, vectors, [RED])
    query = build.by_knn_all("text", CODE.codes, vectors, [RED], 7, filters_nested=False)
    assert query == {"bool": {"should": [flat, script]}}
    assert build.by_knn_all("text", CODE.codes, vectors, [], 7, filters_nested=False) == (
        build.by_knn_all("text", CODE.codes, vectors, [], 7)
    )


def test_radius_is_a_minimum_score_or_a_maximum_distance() -> None:
    vectors, words = LAYOUTS["faiss"], LAYOUTS["long"]
    for radius in (0, 3):
        within = build.by_painless("f", CODE, words, [RED], radius)["script_score"]
        # The script gives documents beyond the radius the score 0.
        assert within["script"]["params"]["radius"] == radius
        assert 0 < within["min_score"] < 1e-8
        for scale in (1.0, 2.0**60):
            body = build.search_body(RED, 5, radius=radius, scale=scale)
            assert scale / (2 + radius) < body["min_score"] < scale / (1 + radius)
        assert build.count_body(RED, radius)["min_score"] == body["min_score"]
        near = build.by_hamming("f", CODE, vectors, [], radius)
        assert near == {"hamming": {"field": "f", "code": "80ff", "max_distance": radius}}


def test_by_hamming_contains_the_filter() -> None:
    assert build.by_hamming("f", CODE, LAYOUTS["faiss"], [RED]) == {
        "hamming": {"field": "f", "code": "80ff", "filter": {"bool": {"filter": [RED]}}}
    }


def test_search_body_sorts_by_score_and_id() -> None:
    body = {
        "size": 5,
        "query": {"bool": {"must": [RED], "boost": 2.0**60}},
        "sort": [
            {"_score": "desc"},
            {"xmodal.id": {"order": "asc", "unmapped_type": "keyword"}},
        ],
        "track_total_hits": False,
    }
    ids = {"stored_fields": "_none_", "docvalue_fields": ["xmodal.id"]}
    assert build.search_body(RED, 5) == body | ids
    source = {
        "excludes": [*CODES, "image_codes", "text_codes", *VECTORS, "self_test_code"],
    }
    assert build.search_body(RED, 5, build.user_source()) == body | {"_source": source}
    source["excludes"].remove("text_codes")
    assert build.user_source(["text_codes"], ["text_codes.vector"]) == {
        "excludes": [*source["excludes"], "text_codes.vector"]
    }
    assert [build.hit_id({"_id": "a"}), build.hit_id({"fields": {"xmodal.id": ["b"]}})] == [
        "a",
        "b",
    ]


def test_words_query_names_words_and_excludes_others() -> None:
    def term(word: str, **options: str) -> dict[str, Any]:
        return {"term": {"xmodal.words": {"value": word, **options}}}

    assert word_queries.words_query(["xmodal.words"], ["red", "boat"], ["dog"], [RED]) == {
        "bool": {
            "should": [term("red", _name="0"), term("boat", _name="1")],
            "must_not": [term("dog")],
            "minimum_should_match": 1,
            "filter": [RED],
        }
    }
    query = word_queries.words_query(["caption", "title.words"], ["red"], [], [])
    fields = {"query": "red", "fields": ["caption", "title.words"], "_name": "0"}
    assert query["bool"]["should"] == [{"multi_match": fields}]


# ---- filters ---------------------------------------------------------------------------------

TYPES = {
    "word": "keyword",
    "word.number": "double",
    "word.words": "text",
    "name": "keyword",
    "caption": "text",
    "caption.keyword": "keyword",
    "story": "text",
    "size": "integer",
    "count": "long",
    "price": "double",
    "weight": "half_float",
    "huge": "unsigned_long",
    "sale": "boolean",
    "day": "date",
    "parts": "nested",
    "parts.size": "long",
}
NONE = {"match_none": {}}
ISO = {"format": "strict_date_optional_time"}


def any_of(*queries: dict[str, Any]) -> dict[str, Any]:
    return {"bool": {"should": list(queries)}}


def any_case(text: str) -> dict[str, Any]:
    return {"value": text, "case_insensitive": True}


def dates(pattern: str, flags: str = "INTERSECTION") -> dict[str, Any]:
    return {"regexp": {"word" if flags == "NONE" else "name": {"value": pattern, "flags": flags}}}


MAX_INT = 2**31 - 1


@pytest.mark.parametrize(
    ("where", "query"),
    [
        ({"word": ["red", "a", "red"]}, {"terms": {"word": ["a", "red"]}}),
        (
            {"word": "1.50"},
            any_of({"terms": {"word": ["1.50"]}}, {"terms": {"word.number": [1.5]}}),
        ),
        ({"name": "1.50"}, {"terms": {"name": ["1.50"]}}),
        (
            {"word": True},
            any_of({"terms": {"word": ["true"]}}, {"term": {"word": any_case("true")}}),
        ),
        ({"word": {"any_case": "Red"}}, {"term": {"word": any_case("red")}}),
        ({"word": {"prefix": "re"}}, {"prefix": {"word": {"value": "re"}}}),
        ({"word": {"any_case": {"prefix": "Re"}}}, {"prefix": {"word": any_case("Re")}}),
        ({"word": {"not": "red"}}, {"bool": {"must_not": [{"terms": {"word": ["red"]}}]}}),
        (
            {"word": {"all": ["a", {"prefix": "b"}]}},
            {
                "bool": {
                    "filter": [
                        {"terms": {"word": ["a"]}},
                        {"prefix": {"word": {"value": "b"}}},
                    ]
                }
            },
        ),
        ({"word": {"gte": 10}}, {"range": {"word.number": {"gte": 10}}}),
        ({"word": {"gte": "10"}}, {"range": {"word.number": {"gte": 10}}}),
        (
            {"name": "2024-05"},
            any_of({"terms": {"name": ["2024-05"]}}, dates(rf"({DATE})&(2024\-05.*)")),
        ),
        (
            {"word": {"gt": "2023", "lte": 2024}},
            any_of(
                {"range": {"word.number": {"gt": 2023, "lte": 2024}}},
                {
                    "bool": {
                        "filter": [
                            {"range": {"word": {"gte": "2023~", "lt": "2024~"}}},
                            dates(DATE, "NONE"),
                        ]
                    }
                },
            ),
        ),
        ({"caption": "a boat"}, {"terms": {"caption.keyword": ["a boat"]}}),
        ({"caption": {"lt": "b"}}, {"range": {"caption.keyword": {"lt": "b"}}}),
        ({"price": ["10", 9.5, "many"]}, {"terms": {"price": [10, 9.5]}}),
        ({"price": {"gt": "9.5"}}, {"range": {"price": {"gt": 9.5}}}),
        ({"price": True}, {"terms": {"price": []}}),
        ({"count": 2**53 + 1}, {"terms": {"count": [2**53 + 1]}}),  # not representable as a double
        ({"count": str(2**63)}, {"terms": {"count": []}}),
        ({"huge": [-1, 2**63]}, {"terms": {"huge": [2**63]}}),
        ({"size": [2**31, 5, -1e300]}, {"terms": {"size": [5]}}),
        ({"size": {"gt": MAX_INT + 1}}, NONE),
        ({"size": {"lt": -1e300}}, NONE),
        ({"size": {"gte": MAX_INT}}, {"range": {"size": {"gte": MAX_INT}}}),
        ({"size": {"lte": 1e300}}, {"exists": {"field": "size"}}),
        ({"size": {"gte": 3, "lt": 1e10}}, {"range": {"size": {"gte": 3}}}),
        ({"weight": {"lt": 65505}}, {"exists": {"field": "weight"}}),
        ({"sale": True}, {"terms": {"sale": ["true"]}}),
        ({"sale": ["false", "true", "no"]}, {"terms": {"sale": ["false", "true"]}}),
        ({"sale": {"gte": 0}}, {"terms": {"sale": []}}),  # booleans are no numbers
        ({"sale": {"gt": "no"}}, {"terms": {"sale": ["true"]}}),  # false < no < true
        ({"day": {"gte": "2011-02"}}, {"range": {"day": {"gte": "2011-02"} | ISO}}),
        ({"day": {"gt": "2011"}}, {"range": {"day": {"gte": "2011||+1y"} | ISO}}),
        (
            {"day": ["2011-02", "2011-02-03 10:30"]},
            any_of(
                {"range": {"day": {"gte": "2011-02", "lt": "2011-02||+1M"} | ISO}},
                {
                    "range": {
                        "day": {"gte": "2011-02-03T10:30", "lt": "2011-02-03T10:30||+1m"} | ISO
                    }
                },
            ),
        ),
        (
            {"day": {"lt": 1700000000000}},
            {"range": {"day": {"lt": 1700000000000, "format": "epoch_millis"}}},
        ),
        ({"word": {"gt": 3, "gte": 3}}, {"range": {"word.number": {"gt": 3}}}),
        ({"word": {"gt": 3, "gte": 4}}, {"range": {"word.number": {"gte": 4}}}),
        ({"word": {"lt": "c", "lte": "b"}}, {"range": {"word": {"lte": "b"}}}),
        ({"price": {"lt": 2, "lte": 2, "gt": 1}}, {"range": {"price": {"lt": 2, "gt": 1}}}),
    ],
)
def test_filter_depends_on_the_type_of_the_field(
    where: dict[str, Any], query: dict[str, Any]
) -> None:
    assert filter_queries.filters(parse(where), TYPES) == [query]


def test_exists_covers_the_sub_field_words() -> None:
    paths = [{"exists": {"field": "word"}}, {"exists": {"field": "word.words"}}]
    some = {"bool": {"should": paths}}
    one = {"exists": {"field": "name"}}
    for where, query in (
        ({"word": {"exists": True}}, some),
        ({"word": {"exists": False}}, {"bool": {"must_not": [some]}}),
        ({"name": {"exists": True}}, one),
    ):
        assert filter_queries.filters(parse(where), TYPES) == [query]


def test_filters_returns_one_query_per_condition() -> None:
    where = {"name": "a", "price": 1}
    expected = [{"terms": {"name": ["a"]}}, {"terms": {"price": [1]}}]
    assert filter_queries.filters(parse(where), TYPES) == expected
    assert filter_queries.filters(parse(None), TYPES) == []


def test_filters_without_expensive_queries_have_no_patterns() -> None:
    expected = any_of({"terms": {"word": ["2024"]}}, {"terms": {"word.number": [2024]}})
    assert filter_queries.filters(parse({"word": 2024}), TYPES, expensive=False) == [expected]


def test_unknown_fields_are_refused_with_the_fields_of_the_user() -> None:
    types = {"image_code": "knn_vector", "xmodal.id": "keyword", "tag.name": "keyword"} | TYPES
    with pytest.raises(ConfigError, match=r"'new', expected one of caption, count, .* tag.name, "):
        filter_queries.filters(parse({"new": {"exists": False}}), types)
    with pytest.raises(ConfigError) as raised:
        filter_queries.filters(parse({"new": 3}), types)
    assert "image_code" not in str(raised.value)
    assert "word.number" not in str(raised.value)
    assert filter_queries.filters(parse({"new": 3}), {"image_code": "knn_vector"}) == [NONE]


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ({"story": "a boat"}, "'story' is analysed text without a keyword"),
        ({"story": {"gt": "a"}}, "'story' is analysed text without a keyword"),
        ({"name": {"gt": 3}}, "'name' is mapped as keyword"),
        ({"caption": {"gt": 3}}, "'caption' is mapped as keyword"),
        ({"price": {"gt": "many"}}, "'price' holds numbers .* many"),
        ({"price": {"prefix": "1"}}, "'price' holds numbers"),
        ({"day": "soon"}, "'day' holds dates .* 'soon'"),
        ({"parts.size": 3}, "'parts.size' is in nested documents"),
        ({"parts": {"exists": True}}, "'parts' is in nested documents"),
    ],
)
def test_filters_reject_unsupported_conditions(where: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("many", "'many'")) as raised:
        filter_queries.filters(parse(where), TYPES)
    assert "\n" not in str(raised.value)


def test_text_field_returns_analysed_text() -> None:
    assert word_queries.text_field("caption", TYPES) == "caption"
    assert word_queries.text_field("word", TYPES) == "word.words"
    for name in ("name", "price", "new", "caption.keyword"):
        with pytest.raises(ConfigError, match=r"is no text .* caption, story, word"):
            word_queries.text_field(name, TYPES)
    with pytest.raises(ConfigError, match="no such field"):
        word_queries.text_field("caption", {"caption": "keyword"})
