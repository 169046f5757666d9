"""Token, host and load checks, timeouts, and failures of the index."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor, as_completed
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from support.service_process import Running, running

from xmodal.encoders.encoder import Encoder
from xmodal.errors import ServerFailure
from xmodal.index.contract import open_index
from xmodal.service.tokens import Token

WORDS = "a red circle on the left"


def test_token_is_required_by_paths_that_return_data(encoder: Encoder, index_path: Path) -> None:
    with running(encoder, index_path, tokens=(Token("all", "correct horse battery"),)) as service:
        authorized = {"Authorization": "Bearer correct horse battery"}
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
            assert service.client.get(path, headers=authorized).status_code in (200, 404)
        for value in (
            "Bearer correct horse",
            "Basic correct horse battery",
            "Bearer",
            "",
            "Bearer ü",
        ):
            headers = {"Authorization": value.encode()}
            assert service.client.get("/v1/about", headers=headers).status_code == 401
        for path in ("/", "/page/page.js", "/health/live", "/health/ready", "/openapi.json"):
            assert service.client.get(path).status_code == 200
        assert service.client.get("/health/ready").json() == {"status": "ready"}


def test_host_header_must_be_an_allowed_host(encoder: Encoder, index_path: Path) -> None:
    with running(encoder, index_path, hosts=("127.0.0.1", "LOCALHOST")) as service:
        for host, status in {
            "127.0.0.1:8080": 200,
            "localhost": 200,
            "LocalHost:80": 200,
            "evil.example": 421,
            "evil.example:80": 421,
            "127.0.0.1.evil.example": 421,
        }.items():
            answer = service.client.get("/v1/about", headers={"Host": host})
            assert answer.status_code == status, host


def test_response_headers_deny_other_origins(service: Running) -> None:
    for path in ("/", "/v1/about", "/nothing"):
        headers = service.client.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert "server" not in headers and "access-control-allow-origin" not in headers


def gated(path: Path) -> tuple[threading.Event, Any]:
    """An open gate, and an index whose searches block while the gate is cleared."""
    gate, index = threading.Event(), open_index(path)
    search = index.search

    def gated_search(*args: Any, **kwargs: Any) -> Any:
        gate.wait(20)
        return search(*args, **kwargs)

    gate.set()
    index.search = gated_search  # type: ignore[method-assign]
    return gate, index


def test_requests_above_the_limit_get_503_with_retry_after(
    encoder: Encoder, index_path: Path
) -> None:
    gate, index = gated(index_path)
    settings = {"max_concurrent_requests": 3}
    with running(encoder, index, **settings) as service, ThreadPoolExecutor(8) as pool:
        gate.clear()
        answers = [pool.submit(service.post, "/v1/search", {"text": WORDS}) for _ in range(8)]
        refused = [answer.result() for answer in _first(answers, 5)]
        assert {answer.status_code for answer in refused} == {503}
        assert refused[0].headers["retry-after"] == "1"
        assert service.client.get("/health/live").status_code == 200
        gate.set()
        assert sorted(answer.result().status_code for answer in answers) == [200] * 3 + [503] * 5


def _first(futures: list[Any], count: int) -> list[Any]:
    """The first ``count`` futures to end."""
    return list(islice(as_completed(futures, timeout=20), count))


def test_slow_search_gets_503(encoder: Encoder, index_path: Path) -> None:
    gate, index = gated(index_path)
    with running(encoder, index, request_timeout=0.3) as service:
        gate.clear()
        answer = service.post("/v1/search", {"text": WORDS})
        gate.set()
        assert answer.status_code == 503 and answer.headers["retry-after"] == "5"
        assert service.post("/v1/search", {"text": WORDS}).status_code == 200


def test_index_failure_is_a_problem_response_without_a_trace(
    encoder: Encoder, index_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    index = open_index(index_path)
    errors: list[Exception] = []
    search = index.search

    def failing_search(*args: Any, **kwargs: Any) -> Any:
        if errors:
            raise errors[0]
        return search(*args, **kwargs)

    index.search = failing_search  # type: ignore[method-assign]
    with running(encoder, index) as service:
        errors.append(ServerFailure("no node answers at x", 503, "down"))
        answer = service.post("/v1/search", {"text": WORDS})
        assert answer.status_code == 503 and "no node answers at x" in answer.json()["detail"]
        errors[0] = RuntimeError("internal secret")
        answer = service.post("/v1/search", {"text": WORDS})
        assert answer.status_code == 500 and "secret" not in answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        errors.clear()
        assert service.post("/v1/search", {"text": WORDS}).status_code == 200
    assert "internal secret" in caplog.text  # the log has the trace
