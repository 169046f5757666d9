"""gzip of requests and responses."""

from __future__ import annotations

import gzip
import json

import pytest
from support.service_process import Running

WORDS = "a red circle on the left"
JSON = {"Content-Type": "application/json"}


def test_compressed_request_equals_the_plain_one(service: Running) -> None:
    body = {"texts": [f"{WORDS} {number}" for number in range(200)]}
    content = gzip.compress(json.dumps(body).encode())
    headers = JSON | {"Content-Encoding": "gzip"}
    answer = service.client.post("/v1/encode", content=content, headers=headers)
    assert answer.json() == service.post("/v1/encode", body).json()


@pytest.mark.parametrize(
    ("accepted", "compressed"),
    [
        ("gzip", True),
        ("br;q=1.0, gzip;q=0.8, *;q=0.1", True),
        ("*", True),
        ("GZIP", True),
        ("identity", False),
        ("gzip;q=0", False),
        ("gzip; q=0.000, br", False),
        ("", False),
    ],
)
@pytest.mark.parametrize("k", [20, 150])  # compressed at once, and in a thread
def test_responses_are_compressed_for_clients_that_accept_gzip(
    service: Running, accepted: str, compressed: bool, k: int
) -> None:
    headers = {"Accept-Encoding": accepted}
    answer = service.client.post("/v1/search", json={"text": WORDS, "k": k}, headers=headers)
    assert (answer.headers.get("content-encoding") == "gzip") == compressed
    plain = service.client.post(
        "/v1/search", json={"text": WORDS, "k": k}, headers={"Accept-Encoding": "identity"}
    )
    assert answer.json()["hits"] == plain.json()["hits"]
    if compressed:
        length = int(answer.headers["content-length"])
        assert 0 < length < int(plain.headers["content-length"]) / 2
        assert "accept-encoding" in answer.headers["vary"].lower()


def test_small_responses_and_pictures_are_not_compressed(service: Running) -> None:
    hit = service.post("/v1/search", {"text": WORDS, "k": 1}).json()["hits"][0]
    for path in ("/health/live", hit["picture"]):
        assert "content-encoding" not in service.client.get(path).headers
    page = service.client.get("/page/page.js")
    assert page.headers["content-encoding"] == "gzip" and "import" in page.text
    headers = {"If-None-Match": page.headers["etag"]}
    assert service.client.get("/page/page.js", headers=headers).status_code == 304
