"""Requests in another form for server versions with a defect."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.endpoint import Endpoint, Reply, Request

from xmodal_opensearch.client.address import parse_address
from xmodal_opensearch.client.compatibility import replace_script_score
from xmodal_opensearch.client.server import Server

SCRIPT = {"lang": "painless", "source": "1", "params": {"fields": ["script_score"]}}
EXISTS = {"exists": {"field": "a"}}
SCORED = {"script_score": {"query": EXISTS, "script": SCRIPT, "min_score": 0.5}}
FUNCTION = {
    "function_score": {
        "query": {"constant_score": {"filter": EXISTS}},
        "script_score": {"script": SCRIPT},
        "boost_mode": "multiply",
        "min_score": 0.5,
    }
}


def test_script_score_becomes_a_function_score_anywhere_in_a_request() -> None:
    def body(query: Any) -> dict[str, Any]:
        nested = {"nested": {"path": "a", "query": query}}
        return {"size": 3, "query": {"bool": {"should": [query, nested], "boost": 2.0}}}

    assert replace_script_score(body(SCORED)) == body(FUNCTION)
    assert replace_script_score(body(EXISTS)) == body(EXISTS)
    # A function_score has a part of the same name.
    assert replace_script_score(body(FUNCTION)) == body(FUNCTION)


@pytest.mark.parametrize(
    ("version", "query"),
    [("2.19.6", SCORED), ("3.1.0", FUNCTION), ("3.3.2", FUNCTION), ("3.4.0", SCORED)],
)
def test_searches_are_changed_for_versions_with_the_defect(version: str, query: Any) -> None:
    hits = {"hits": [], "total": {"value": 0, "relation": "eq"}}
    answer = {
        "hits": hits,
        "timed_out": False,
        "_shards": {"total": 1, "successful": 1, "failed": 0},
    }

    def reply(request: Request) -> Reply:
        if request.path == "/":
            return Reply(200, {"version": {"number": version, "distribution": "opensearch"}})
        many = {"responses": [answer, answer], "took": 1}
        return Reply(200, many if "msearch" in request.path else answer)

    with Endpoint(reply) as endpoint:
        address = f"opensearch://127.0.0.1:{endpoint.port}"
        server = Server(parse_address(address, index_needed=False))
        server.search("/a/_search", {"query": SCORED}, doing="searching")
        server.search_many("a", [{"query": SCORED}] * 2, doing="searching")
        server.close()
    _, one, many = (request.body for request in endpoint.requests)
    lines = [json.loads(line) for line in many.decode().splitlines()]
    assert [json.loads(one)["query"], lines[1]["query"], lines[3]["query"]] == [query] * 3
