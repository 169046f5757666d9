"""Indexes that cannot be enriched, and values of dotted fields of a document."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from xmodal.encoders.encoder import Encoder
from xmodal.errors import IndexMismatch
from xmodal_opensearch.client.address import parse_address
from xmodal_opensearch.client.server import Server
from xmodal_opensearch.index.store import open_opensearch
from xmodal_opensearch.loading.document_sources import values_at
from xmodal_opensearch.loading.preparation import prepare

Rest = Callable[..., Any]


@pytest.mark.parametrize(
    ("mappings", "message"),
    [
        ({"_source": {"enabled": False}}, "complete documents"),
        ({"_source": {"excludes": ["photo"]}}, "complete documents"),
        ({"properties": {"xmodal": {"type": "keyword"}}}, "reserved names xmodal"),
    ],
)
def test_prepare_rejects_indexes(
    address: Callable[..., str], rest: Rest, encoder: Encoder, mappings: Any, message: str
) -> None:
    uri = address()
    rest("PUT", f"/{parse_address(uri).index}", {"mappings": mappings})
    with pytest.raises(IndexMismatch, match=message):
        prepare(Server(parse_address(uri)), parse_address(uri), 32, encoder.fingerprint)
    made = address()
    open_opensearch(made, bits=32, create=True).close()
    with pytest.raises(IndexMismatch, match="was created by xmodal"):
        prepare(Server(parse_address(made)), parse_address(made), 32, encoder.fingerprint)


@pytest.mark.parametrize(
    ("document", "path", "values"),
    [
        ({"a": {"b": {"c": 1}}}, "a.b.c", [1]),
        ({"a.b": {"c": 1}}, "a.b.c", [1]),
        ({"a": {"b.c": 1}}, "a.b.c", [1]),
        ({"a.b.c": 1, "a": {"b": {"c": 2}}}, "a.b.c", [1, 2]),
        ({"a": [{"b": None}, {"b": 2}]}, "a.b", [2]),
        ({"a": [None, "x", "y"]}, "a", ["x", "y"]),
        ({"a": []}, "a", []),
        ({"a": "x"}, "a.b", []),
        ({}, "a.b", []),
    ],
)
def test_values_at_yields_all_values_of_a_path(document: Any, path: str, values: list[Any]) -> None:
    assert list(values_at(document, path)) == values
