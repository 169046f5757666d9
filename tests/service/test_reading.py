"""Request bodies: rejecting one has a bounded cost and does not delay other requests."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from support.service_process import running

from xmodal.encoders.encoder import Encoder
from xmodal.service import bodies, reading
from xmodal.service.errors import RequestError

MODELS: dict[str, Any] = {"Encode": bodies.Encode, "Search": bodies.Search}
TOO_MANY = 2 * reading.MAX_VALUES

BODIES: dict[str, tuple[str, Any, str]] = {
    "many JSON values in texts": ("Encode", {"texts": [1] * TOO_MANY}, "20,000"),
    "many objects": ("Encode", {"images": [{}] * TOO_MANY}, "20,000"),
    "many filters": ("Search", {"where": {f"f{n}": 1 for n in range(TOO_MANY)}}, "20,000"),
    "long list of texts": ("Encode", {"texts": ["a"] * 1000}, "body['texts']: the length is 1,000"),
    "long filter": ("Search", {"text": "a", "where": {"f": [None] * 1000}}, "the length is 1,000"),
    "long text": ("Search", {"text": "a" * 10_001}, "body['text']: the length is 10,001"),
}


@pytest.mark.parametrize("kind", BODIES)
def test_parse_and_validate_rejects_long_values_by_their_length(kind: str) -> None:
    name, content, detail = BODIES[kind]
    with pytest.raises(RequestError) as error:
        reading.parse_and_validate(MODELS[name], json.dumps(content).encode())
    assert error.value.status == 422 and detail in str(error.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("Encode", {"texts": [7] * 10_000}),
        ("Search", {"text": "a", "where": {f"f{n}": None for n in range(10_000)}}),
        ("Search", {"text": "a", "where": {"f": [None] * 10_000}}),
    ],
)
def test_elements_of_a_too_long_list_are_not_validated(name: str, content: Any) -> None:
    with pytest.raises(ValidationError) as error:
        MODELS[name].model_validate(content)
    assert [one["type"] for one in error.value.errors()] == ["too_long"]


@pytest.mark.parametrize("text", ["a, [b], {c}", '"quoted", ', "\\, \\\\, ", '[, \\"'], ids=repr)
def test_commas_and_brackets_inside_strings_are_not_counted(text: str) -> None:
    texts = [(text * 10_000)[:9000] for _ in range(100)]
    body = json.dumps({"texts": texts}).encode()
    assert body.count(b",") > reading.MAX_VALUES
    assert reading.parse_and_validate(bodies.Encode, body).texts == texts


def test_largest_filters_are_accepted() -> None:
    where = {f"field {n}": list(range(256)) for n in range(32)}
    assert reading.parse_and_validate(
        bodies.Search, json.dumps({"text": "a", "where": where}).encode()
    )


@pytest.mark.parametrize(
    ("condition", "valid"),
    [
        ({"prefix": "dark"}, True),
        ({"not": ["red", 3]}, True),
        ({"not": {"any_case": {"prefix": "dark"}}}, True),
        ({"gte": 3, "lt": "2024-05", "exists": True}, True),
        ({"all": ["new", {"not": "sale"}]}, True),
        ({"not": {"not": "red"}}, False),
        ({"all": [{"all": ["new"]}]}, False),
        ({"prefix": 3}, False),
        ({}, False),
    ],
)
def test_conditions_of_filters(condition: Any, valid: bool) -> None:
    body = json.dumps({"text": "a", "where": {"f": condition}}).encode()
    if valid:
        assert reading.parse_and_validate(bodies.Search, body)
    else:
        with pytest.raises(RequestError):
            reading.parse_and_validate(bodies.Search, body)


def test_whole_floats_are_returned_as_int() -> None:
    body = reading.parse_and_validate(
        bodies.Search, b'{"text": "a", "k": 20.0, "radius": 0.0, "min_confidence": 1.0}'
    )
    assert [type(getattr(body, name)) for name in ("k", "radius", "min_confidence")] == [
        int,
        int,
        float,
    ]


def test_requests_are_answered_while_a_large_body_is_parsed(
    encoder: Encoder, index_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, leave = threading.Event(), threading.Event()
    parse_and_validate: Callable[..., Any] = reading.parse_and_validate

    def slow(model: Any, data: bytes) -> Any:
        entered.set()
        leave.wait(20)
        return parse_and_validate(model, data)

    body = {"text": "a" * (reading.DIRECT_BYTES + 1)}
    monkeypatch.setattr(reading, "parse_and_validate", slow)
    with running(encoder, index_path) as service:
        client = threading.Thread(target=service.post, args=("/v1/search", body))
        client.start()
        try:
            assert entered.wait(20)
            started = time.monotonic()
            assert service.client.get("/health/live", timeout=10).status_code == 200
            assert time.monotonic() - started < 10 and not leave.is_set()
        finally:
            leave.set()
            client.join(20)
