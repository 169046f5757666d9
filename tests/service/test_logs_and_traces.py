"""Logs of requests and OpenTelemetry spans: what they have, and that no query is in them."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from support.endpoint import Endpoint, Reply
from support.service_process import Running, running

from xmodal.encoders.encoder import Encoder
from xmodal.errors import ConfigError
from xmodal.service import tracing
from xmodal.service.request_log import request_log
from xmodal.service.tokens import Token

WORDS, ID, SECRET = "a red circle on the left", "00007.png", "secret-0123456789"


def send_requests(service: Running) -> None:
    headers = {"Authorization": f"Bearer {SECRET}", "X-Request-Id": "trace-7"}
    answer = service.client.post("/v1/search", json={"text": WORDS, "like": ID}, headers=headers)
    assert answer.headers["x-request-id"] == "trace-7"
    headers["X-Request-Id"] = "not one\tword"
    answer = service.client.get("/v1/documents", params={"id": ID}, headers=headers)
    assert len(answer.headers["x-request-id"]) == 32
    assert service.client.get(f"/{WORDS}").status_code == 401
    service.client.post("/v1/encode", json={"texts": [WORDS]}, headers=headers).raise_for_status()


@pytest.mark.parametrize("format", ["json", "text"])
def test_one_line_for_each_request_without_its_content(
    encoder: Encoder,
    index_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    format: str,
) -> None:
    tokens = (Token("shop", SECRET),)
    package = logging.getLogger("xmodal")  # xmodal.cli writes its warnings as they are
    monkeypatch.setattr(package, "handlers", [logging.StreamHandler(sys.stderr)])
    with request_log(format), running(encoder, index_path, tokens=tokens) as service:  # type: ignore[arg-type]
        send_requests(service)
        logging.getLogger("xmodal.service.other").warning("a warning\nof two lines")
    err = capsys.readouterr().err
    for private in (WORDS, WORDS.replace(" ", "%20"), "red", ID, SECRET):
        assert private not in err
    if format == "text":
        assert "id=trace-7 client=shop method=POST route=/v1/search status=200 ms=" in err
        return
    lines = [json.loads(line) for line in err.splitlines()]
    requests = [line for line in lines if "route" in line]
    assert [(line["route"], line["status"], line["client"]) for line in requests] == [
        ("/v1/search", 200, "shop"),
        ("/v1/documents", 200, "shop"),
        ("other", 401, "127.0.0.1"),
        ("/v1/encode", 200, "shop"),
    ]
    assert requests[0]["received"] > 0 and requests[0]["sent"] > 100 and requests[0]["ms"] > 0
    (warning,) = [line for line in lines if line.get("level") == "warning"]
    assert warning["message"] == "a warning\nof two lines"


def test_spans_are_sent_to_a_collector(
    encoder: Encoder, index_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Endpoint(lambda request: Reply(body=b"")) as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{collector.port}")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
        monkeypatch.setenv("OTEL_SERVICE_NAME", "search-of-shop")
        disable = tracing.enable()
        try:
            tokens = (Token("shop", SECRET),)
            with running(encoder, index_path, tokens=tokens) as service:
                send_requests(service)
        finally:
            disable()
    received = [one.body for one in collector.requests if one.path == "/v1/traces"]
    spans, resources = [], []
    for body in received:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            resources.append(str(resource.resource))
            spans += [span for scope in resource.scope_spans for span in scope.spans]
    by_id = {span.span_id: span.name for span in spans}
    names = {(span.name, by_id.get(span.parent_span_id)) for span in spans}
    assert names >= {
        ("POST /v1/search", None),
        ("search", "POST /v1/search"),
        ("encode", "search"),
        ("encode texts", "POST /v1/encode"),
        ("GET other", None),
    }
    assert all("search-of-shop" in text for text in resources)
    everything = b"".join(received)
    for private in (WORDS, ID, SECRET):
        assert private.encode() not in everything


def test_unknown_exporter_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "carrier-pigeon")
    with pytest.raises(ConfigError, match="carrier-pigeon"):
        tracing.enable()
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "smoke")
    with pytest.raises(ConfigError, match="smoke"):
        tracing.enable()
