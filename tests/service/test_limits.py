"""Who may ask a service, under which name, how much at once; and how it fails."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import pytest
from service_process import Running, running

from xmodal.encoder import Encoder
from xmodal.errors import ServerFailure
from xmodal.index import open_index

WORDS = "a red circle on the left"


def test_a_token_is_asked_for_where_something_is_told(encoder: Encoder, index_path: Path) -> None:
    with running(encoder, index_path, token="correct horse battery") as service:
        right = {"Authorization": "Bearer correct horse battery"}
        for path in (
            "/v1/about",
            "/v1/filters",
            "/v1/picture?id=a",
            "/metrics",
            "/page",
            "/healthy",
        ):
            refused = service.client.get(path)
            assert refused.status_code == 401, path
            assert refused.headers["www-authenticate"] == "Bearer"
            assert "battery" not in refused.text
            assert service.client.get(path, headers=right).status_code in (200, 404)
        for wrong in (
            "Bearer correct horse",
            "Basic correct horse battery",
            "Bearer",
            "",
            "Bearer ü",
        ):
            headers = {"Authorization": wrong.encode()}
            assert service.client.get("/v1/about", headers=headers).status_code == 401
        for path in ("/", "/page/page.js", "/health/live", "/health/ready", "/openapi.json"):
            assert service.client.get(path).status_code == 200
        assert service.client.get("/health/ready").json() == {"status": "ready"}


def test_a_name_of_somebody_elses_is_not_answered(encoder: Encoder, index_path: Path) -> None:
    with running(encoder, index_path, hosts=("127.0.0.1", "LOCALHOST")) as service:
        for host, status in {
            "127.0.0.1:8080": 200,
            "localhost": 200,
            "LocalHost:80": 200,
            "evil.example": 421,
            "evil.example:80": 421,
            "127.0.0.1.evil.example": 421,
        }.items():
            told = service.client.get("/v1/about", headers={"Host": host})
            assert told.status_code == status, host


def test_headers_allow_no_strangers(service: Running) -> None:
    for path in ("/", "/v1/about", "/nothing"):
        headers = service.client.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert "server" not in headers and "access-control-allow-origin" not in headers


def gated(path: Path) -> tuple[threading.Event, Any]:
    """An index whose searches wait while a gate is closed, and the gate, open."""
    gate, held = threading.Event(), open_index(path)
    searched = held.search

    def slowly(*given: Any, **named: Any) -> Any:
        gate.wait(20)
        return searched(*given, **named)

    gate.set()
    held.search = slowly  # type: ignore[method-assign]
    return gate, held


def test_more_than_may_wait_are_told_to_come_again(encoder: Encoder, index_path: Path) -> None:
    gate, held = gated(index_path)
    with running(encoder, held, waiting=3) as service, ThreadPoolExecutor(8) as pool:
        gate.clear()
        told = [pool.submit(service.post, "/v1/search", {"text": WORDS}) for _ in range(8)]
        refused = [one.result() for one in _first(told, 5)]
        assert {one.status_code for one in refused} == {503}
        assert refused[0].headers["retry-after"] == "1" and "waiting" in refused[0].text
        assert service.client.get("/health/live").status_code == 200
        gate.set()
        assert sorted(one.result().status_code for one in told) == [200] * 3 + [503] * 5


def _first(futures: list[Any], count: int) -> list[Any]:
    """The first ``count`` to end."""
    return [one for _, one in zip(range(count), as_completed(futures, timeout=20), strict=False)]


def test_what_takes_too_long_is_given_up(encoder: Encoder, index_path: Path) -> None:
    gate, held = gated(index_path)
    with running(encoder, held, seconds=0.3) as service:
        gate.clear()
        told = service.post("/v1/search", {"text": WORDS})
        gate.set()
        assert told.status_code == 503 and "too long" in told.json()["detail"]
        assert service.post("/v1/search", {"text": WORDS}).status_code == 200


def test_an_index_that_fails_is_a_problem_without_a_trace(
    encoder: Encoder, index_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    held = open_index(index_path)
    errors: list[Exception] = []
    searched = held.search

    def failing(*given: Any, **named: Any) -> Any:
        if errors:
            raise errors[0]
        return searched(*given, **named)

    held.search = failing  # type: ignore[method-assign]
    with running(encoder, held) as service:
        errors.append(ServerFailure("no node answers at x", 503, "down"))
        told = service.post("/v1/search", {"text": WORDS})
        assert told.status_code == 503 and "no node answers at x" in told.json()["detail"]
        errors[0] = RuntimeError("secret of the inside")
        told = service.post("/v1/search", {"text": WORDS})
        assert told.status_code == 500 and "secret" not in told.text
        assert told.headers["content-type"] == "application/problem+json"
        errors.clear()
        assert service.post("/v1/search", {"text": WORDS}).status_code == 200
    assert "secret of the inside" in capfd.readouterr().err  # the log does say it
