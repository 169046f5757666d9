"""Which indexes can be given codes, and where a field's value stands in a document."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from xmodal.encoders.encoder import Encoder
from xmodal.errors import IndexMismatch
from xmodal_opensearch.client.address import parse_address
from xmodal_opensearch.client.server import Server
from xmodal_opensearch.index.store import open_opensearch
from xmodal_opensearch.loading.enrich import prepare, value_at

Rest = Callable[..., Any]


@pytest.mark.parametrize(
    ("mappings", "words"),
    [
        ({"_source": {"enabled": False}}, r"does not keep its documents whole \(_source is"),
        ({"_source": {"excludes": ["photo"]}}, "does not keep its documents whole"),
        ({"properties": {"xmodal": {"type": "keyword"}}}, "has fields called xmodal of its own"),
    ],
)
def test_indexes_that_cannot_be_enriched(
    address: Callable[..., str], rest: Rest, encoder: Encoder, mappings: Any, words: str
) -> None:
    uri = address()
    rest("PUT", f"/{parse_address(uri).index}", {"mappings": mappings})
    with pytest.raises(IndexMismatch, match=words):
        prepare(Server(parse_address(uri)), parse_address(uri), 32, encoder.fingerprint)
    made = address()
    open_opensearch(made, bits=32, create=True).close()
    with pytest.raises(IndexMismatch, match="was made by xmodal with the codes of its documents"):
        prepare(Server(parse_address(made)), parse_address(made), 32, encoder.fingerprint)


@pytest.mark.parametrize(
    ("document", "path", "value"),
    [
        ({"a": {"b": {"c": 1}}}, "a.b.c", 1),
        ({"a.b": {"c": 1}}, "a.b.c", 1),
        ({"a": {"b.c": 1}}, "a.b.c", 1),
        ({"a.b.c": 1, "a": {"b": {"c": 2}}}, "a.b.c", 1),
        ({"a": [{"b": None}, {"b": 2}]}, "a.b", 2),
        ({"a": [None, "x", "y"]}, "a", "x"),
        ({"a": []}, "a", None),
        ({"a": "x"}, "a.b", None),
        ({}, "a.b", None),
    ],
)
def test_values_by_their_dotted_names(document: Any, path: str, value: Any) -> None:
    assert value_at(document, path) == value
