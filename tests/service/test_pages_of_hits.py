"""Pages of hits, several searches in one request, and searches by the address alone."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.service_process import Running

from xmodal.service.bodies import MAX_SEARCHES

WORDS = "a red circle on the left"


@pytest.mark.parametrize(
    "query",
    [
        {"text": WORDS},
        {"text": WORDS, "by": "codes", "where": {"colour": "red"}},
        {"typed": "a circle -blue"},
        {"like": "00003.png", "target": "text"},
        {"text": WORDS, "radius": "median"},
    ],
    ids=repr,
)
def test_next_leads_through_all_hits(service: Running, query: dict[str, Any]) -> None:
    if "radius" in query:  # half of the documents are within the limit
        near = service.post("/v1/search", {"text": WORDS, "by": "codes", "k": 1000}).json()["hits"]
        query = query | {"radius": sorted(hit["distance"] for hit in near)[len(near) // 2]}
    whole = service.post("/v1/search", {**query, "k": 1000}).json()
    assert whole["next"] is None
    ids, offset = [], 0
    while offset is not None:
        page = service.post("/v1/search", {**query, "k": 7, "offset": offset}).json()
        assert 0 < len(page["hits"]) <= 7
        ids += [hit["id"] for hit in page["hits"]]
        offset = page["next"]
    assert ids == [hit["id"] for hit in whole["hits"]]


def test_a_page_that_ends_with_the_last_hit_has_no_next(service: Running) -> None:
    query = {"text": WORDS, "by": "codes", "k": 75}
    pages = [service.post("/v1/search", {**query, "offset": at}).json() for at in (0, 75, 150)]
    assert [page["next"] for page in pages] == [75, None, None]
    assert [len(page["hits"]) for page in pages] == [75, 75, 0]


def test_batch_returns_hits_and_problems_in_place(service: Running) -> None:
    searches = [
        {"text": WORDS, "k": 3},
        {"like": "unknown"},
        {"typed": "a blue star", "target": "text", "k": 2.0},
        {"text": "!!!"},
        {"image": "bm90IGFuIGltYWdl"},
    ]
    results = service.post("/v1/search/batch", {"searches": searches}).json()["results"]
    for position in (0, 2):
        alone = service.post("/v1/search", searches[position]).json()
        del alone["took_ms"]
        assert results[position] == alone
    assert [results[position]["status"] for position in (1, 3, 4)] == [404, 422, 422]


@pytest.mark.parametrize(
    ("searches", "detail"),
    [
        ([], "body['searches']"),
        ([{"text": "a"}, {"k": 3}], "body['searches'][1] has k"),
        ([{"text": "a"}, {"text": "b", "size": 1}], "body['searches'][1] has unknown"),
        ([{"text": "a"}] * (MAX_SEARCHES + 1), f"expected at most {MAX_SEARCHES}"),
        ([{"text": "a", "k": 1000}] * 11, "11000 hits"),
    ],
)
def test_invalid_batch_is_refused_as_a_whole(
    service: Running, searches: list[Any], detail: str
) -> None:
    answer = service.post("/v1/search/batch", {"searches": searches})
    assert answer.status_code == 422 and detail in answer.json()["detail"]


def test_search_by_address_equals_search_by_body(service: Running) -> None:
    where = {"colour": ["red", "blue"]}
    body = {"typed": "a circle -star", "k": 4, "offset": 2, "where": where, "radius": 20}
    expected = service.post("/v1/search", body).json()
    answer = service.get(
        "/v1/search", q="a circle -star", k=4, offset=2, where=json.dumps(where), radius=20
    )
    assert answer.json()["hits"] == expected["hits"] and answer.json()["next"] == 6
    assert answer.headers["cache-control"].startswith("private")
    following = service.client.get(answer.links["next"]["url"]).json()
    expected = service.post("/v1/search", {**body, "offset": 6}).json()
    assert following["hits"] == expected["hits"]
    last = service.get("/v1/search", q=WORDS, k=1000)
    assert "link" not in last.headers and len(last.json()["hits"]) == 150


def test_search_by_address_has_an_etag_of_its_hits(service: Running) -> None:
    first = service.get("/v1/search", q=WORDS, k=3)
    headers = {"If-None-Match": first.headers["etag"]}
    again = service.client.get("/v1/search", params={"q": WORDS, "k": 3}, headers=headers)
    assert again.status_code == 304 and again.content == b""
    other = service.client.get("/v1/search", params={"q": WORDS, "k": 4}, headers=headers)
    assert other.status_code == 200 and other.headers["etag"] != first.headers["etag"]


@pytest.mark.parametrize(
    ("parameters", "status"),
    [
        ({}, 422),
        ({"k": "5"}, 422),
        ({"q": ""}, 422),
        ({"q": "a", "k": "5.0"}, 422),
        ({"q": "a", "k": "0"}, 422),
        ({"q": "a", "k": "1_0"}, 422),
        ({"q": "a", "k": "9" * 5000}, 422),
        ({"q": "a", "offset": "-1"}, 422),
        ({"q": "a", "text": "b"}, 422),
        ({"q": "a", "where": "colour"}, 400),
        ({"q": "a", "where": "[1]"}, 422),
        ({"q": "a", "where": '{"colour": null}'}, 422),
        ({"q": "a", "where": "[" * 5000}, 400),
        ({"q": "a", "min_confidence": "nan"}, 422),
        ({"q": "a", "min_confidence": "inf"}, 422),
        ({"q": "a", "target": "sound"}, 422),
        ({f"q{number}": "a" for number in range(500)}, 422),
        ({"like": "unknown"}, 404),
    ],
    ids=repr,
)
def test_invalid_addresses_are_refused(
    service: Running, parameters: dict[str, str], status: int
) -> None:
    answer = service.client.get("/v1/search", params=parameters)
    assert answer.status_code == status and "\n" not in answer.json()["detail"]


def test_head_is_answered_without_a_body(service: Running) -> None:
    for path in ("/v1/about", "/v1/search?q=a+star", "/", "/openapi.json", "/health/ready"):
        answer = service.client.head(path)
        assert answer.status_code == 200 and answer.content == b""
    assert service.client.put("/v1/search").headers["allow"] == "GET, HEAD, POST"
