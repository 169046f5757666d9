"""Request bodies: the cost of refusing one is bounded, and does not delay other requests."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from service_process import running

from xmodal.encoder import Encoder
from xmodal.service import schema as schemas
from xmodal.service.errors import Refusal

TOO_MANY = 2 * schemas.MAX_VALUES

BODIES: dict[str, tuple[str, Any, str]] = {
    "many JSON values in texts": ("Encode", {"texts": [1] * TOO_MANY}, "20,000"),
    "many objects": ("Encode", {"images": [{}] * TOO_MANY}, "20,000"),
    "many filters": ("Search", {"where": {f"f{n}": 1 for n in range(TOO_MANY)}}, "20,000"),
    "long list of texts": ("Encode", {"texts": ["a"] * 1000}, "body['texts']: the length is 1,000"),
    "long filter": ("Search", {"text": "a", "where": {"f": [None] * 1000}}, "the length is 1,000"),
    "long text": ("Search", {"text": "a" * 10_001}, "body['text']: the length is 10,001"),
}


@pytest.mark.parametrize("kind", BODIES)
def test_read_refuses_long_values_by_their_length(kind: str) -> None:
    schema, content, detail = BODIES[kind]
    with pytest.raises(Refusal) as refusal:
        schemas.read(schema, json.dumps(content).encode())
    assert refusal.value.status == 422 and detail in str(refusal.value)


def test_read_validates_no_element_of_a_list_that_is_too_long() -> None:
    long = schemas._validator("Encode").iter_errors({"texts": [7] * 1000})
    assert [error.validator for error in long] == ["maxItems"]
    where = {f"f{n}": None for n in range(100)}
    (error,) = schemas._validator("Search").iter_errors({"text": "a", "where": where})
    assert error.validator == "maxProperties"


@pytest.mark.parametrize("text", ["a, [b], {c}", '"quoted", ', "\\, \\\\, ", '[, \\"'], ids=repr)
def test_read_counts_no_marks_inside_strings(text: str) -> None:
    texts = [(text * 10_000)[:9000] for _ in range(100)]
    body = json.dumps({"texts": texts}).encode()
    assert body.count(b",") > schemas.MAX_VALUES
    assert schemas.read("Encode", body) == {"texts": texts}


def test_read_accepts_the_largest_filters() -> None:
    where = {f"field {n}": list(range(256)) for n in range(32)}
    assert schemas.read("Search", json.dumps({"text": "a", "where": where}).encode())


def test_read_returns_whole_floats_as_int() -> None:
    told = schemas.read("Search", b'{"text": "a", "k": 20.0, "radius": 0.0, "min_confidence": 1.0}')
    assert [type(told[name]) for name in ("k", "radius", "min_confidence")] == [int, int, float]


def test_event_loop_answers_while_a_body_is_parsed(
    encoder: Encoder, index_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, leave = threading.Event(), threading.Event()
    read: Callable[[str, bytes], Any] = schemas.read

    def slow(schema: str, data: bytes) -> Any:
        entered.set()
        leave.wait(20)
        return read(schema, data)

    monkeypatch.setattr(schemas, "read", slow)
    with running(encoder, index_path) as service:
        asking = threading.Thread(target=service.post, args=("/v1/search", {"text": "a"}))
        asking.start()
        try:
            assert entered.wait(20)
            started = time.monotonic()
            assert service.client.get("/health/live", timeout=10).status_code == 200
            assert time.monotonic() - started < 10 and not leave.is_set()
        finally:
            leave.set()
            asking.join(20)
