"""Checks of answers with status 200: whole, and of the kind that was requested."""

from __future__ import annotations

from typing import Any

import pytest

from xmodal_opensearch.client.answers import (
    IncompleteAnswer,
    SearchEndedEarly,
    UnusableAnswer,
    check_answer,
    check_searches,
)

SHARDS = {"total": 2, "successful": 2, "failed": 0}
HIT = {"_index": "i", "_id": "a", "_score": 1.0}
FOUND: dict[str, Any] = {
    "timed_out": False,
    "_shards": SHARDS,
    "hits": {"total": {"value": 1, "relation": "eq"}, "hits": [HIT]},
}


def hits(*given: Any, **total: Any) -> dict[str, Any]:
    """A search answer with these hits."""
    return FOUND | {"hits": {"total": {"value": 1, "relation": "eq"} | total, "hits": [*given]}}


@pytest.mark.parametrize("answer", [None, "", "ok", [], {}, {"status": "ok"}, {"took": 1}])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/i/_search"),
        ("POST", "/_search"),
        ("POST", "/i/_mget"),
        ("POST", "/i/_search/point_in_time"),
        ("POST", "/i/_refresh"),
        ("PUT", "/i"),
        ("DELETE", "/i"),
        ("PUT", "/i/_mapping"),
        ("PUT", "/i/_settings"),
        ("POST", "/_aliases"),
        ("GET", "/_nodes/plugins"),
        ("GET", "/i/_stats/store"),
        ("GET", "/i/_field_caps"),
        ("GET", "/_ingest/pipeline/p"),
    ],
)
def test_answer_of_another_kind_is_unusable(method: str, path: str, answer: Any) -> None:
    with pytest.raises(UnusableAnswer):
        check_answer(method, path, {"ids": ["a"]}, answer)


@pytest.mark.parametrize("answer", ["ok", [], {"status": "ok"}, {"i": {}}, {"i": None}])
@pytest.mark.parametrize("path", ["/i", "/i/_mapping", "/i/_settings", "/i-*/_alias"])
def test_description_of_no_index_is_unusable(path: str, answer: Any) -> None:
    with pytest.raises(UnusableAnswer):
        check_answer("GET", path, None, answer)


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        ({}, FOUND | {"timed_out": None}),
        ({}, FOUND | {"_shards": {"failed": 0}}),
        ({}, FOUND | {"hits": []}),
        ({}, hits("a")),
        ({}, hits({"_score": 1.0})),
        ({}, hits(HIT | {"_score": "1"})),
        ({"size": 1}, hits(HIT, HIT)),
        ({"size": 0}, FOUND),
        ({}, hits(*[HIT] * 11)),
        ({"pit": {"id": "p"}}, FOUND),
        ({"track_total_hits": True}, hits(HIT, relation="gte")),
        ({"track_total_hits": True}, hits(HIT, value=None)),
        ({"aggs": {"a": {}}}, FOUND),
        ({"aggs": {"a": {}, "b": {}}}, FOUND | {"aggregations": {"a": {}}}),
    ],
)
def test_unusable_search_answer(body: dict[str, Any], answer: Any) -> None:
    with pytest.raises(UnusableAnswer):
        check_answer("POST", "/i/_search", body, answer)
    check_answer("POST", "/i/_search", {}, FOUND)


@pytest.mark.parametrize("body", [{"size": 1}, {"size": 0, "track_total_hits": True}])
def test_search_that_ended_early_is_incomplete(body: dict[str, Any]) -> None:
    answer = hits(*[HIT] * body["size"]) | {"terminated_early": True}
    with pytest.raises(SearchEndedEarly):
        check_answer("POST", "/i/_search", body, answer)


@pytest.mark.parametrize(
    "documents",
    [
        [{"_id": "a", "found": False}],
        [{"_id": "b", "found": False}, {"_id": "a", "found": False}],
        [{"_id": "a", "found": False}, {"_id": "b"}],
        [{"_id": "a", "found": False}, {"_id": "b", "found": "yes"}],
        [{"_id": "a", "found": False}, None],
    ],
)
def test_documents_of_other_ids_are_unusable(documents: Any) -> None:
    with pytest.raises(UnusableAnswer):
        check_answer("POST", "/i/_mget", {"ids": ["a", "b"]}, {"docs": documents})


def test_change_that_was_not_acknowledged_is_incomplete() -> None:
    check_answer("PUT", "/i", {}, {"acknowledged": True, "shards_acknowledged": False})
    with pytest.raises(IncompleteAnswer):
        check_answer("PUT", "/i", {}, {"acknowledged": False})


@pytest.mark.parametrize("answer", [{}, {"responses": [FOUND]}, {"responses": [FOUND, 1]}, []])
def test_other_number_of_answers_is_unusable(answer: Any) -> None:
    with pytest.raises(UnusableAnswer):
        check_searches([{}, {}], answer)
    assert check_searches([{}], {"responses": [FOUND]}) == [FOUND]
