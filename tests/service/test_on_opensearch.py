"""The service with an index in OpenSearch: results of the local index, and fusion with BM25."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.ranked_documents import ranked_documents
from support.service_process import Running, running

from xmodal.encoders.encoder import Encoder
from xmodal.index.contract import open_index
from xmodal.index.local import HammingIndex
from xmodal.index.words import tokens
from xmodal.retrieval.retriever import Retriever

if TYPE_CHECKING:
    from xmodal_opensearch.node.process import Node

TEXT = "a red circle on the left"


@pytest.fixture(scope="module")
def index(node: Node, encoder: Encoder, index_path: Path) -> Iterator[Any]:
    """The rendered pictures in an index on the node."""
    address = f"opensearch://127.0.0.1:{node.port}/service"
    created = open_index(address, bits=encoder.bits, fingerprint=encoder.fingerprint, create=True)
    for batch in HammingIndex.load(index_path, bits=None, fingerprint=None).batches():
        created.add(batch)
    created.close()
    opened = open_index(address, fingerprint=encoder.fingerprint)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def remote(encoder: Encoder, index: Any, photos_folder: Path) -> Iterator[Running]:
    """A service with the index in OpenSearch."""
    with running(encoder, str(index.handle.address), pictures=photos_folder) as process:
        yield process


def test_results_equal_those_of_the_local_index(remote: Running, service: Running) -> None:
    ranked = service.post("/v1/search", {"text": TEXT, "k": 30}).json()["hits"]
    bodies: list[dict[str, Any]] = [
        {"text": TEXT, "k": 30},
        {"text": TEXT, "target": "text", "where": {"colour": ["red", "blue"]}},
        {"text": TEXT, "k": 30, "radius": ranked[9]["distance"]},
        {"like": "00003.png", "k": 7},
    ]
    for body in bodies:
        found, expected = (
            process.post("/v1/search", body).json()["hits"] for process in (remote, service)
        )
        assert found == expected and found, body
    assert remote.get("/v1/filters").json() == service.get("/v1/filters").json()
    documents = [
        process.get("/v1/documents", id="00003.png").json() for process in (remote, service)
    ]
    assert documents[0] == documents[1]
    assert remote.get("/v1/picture", id="00003.png").status_code == 200


def test_words_are_fused_with_codes(remote: Running, encoder: Encoder, index: Any) -> None:
    assert remote.get("/v1/about").json()["ranks_words"] is True
    fused = remote.post("/v1/search", {"text": TEXT, "k": 12}).json()["hits"]
    expected = Retriever(encoder, index).search(text=TEXT, k=12)
    assert [(hit["id"], hit["distance"]) for hit in fused] == [(h.id, h.distance) for h in expected]
    by_words = remote.post("/v1/search", {"text": TEXT, "k": 12, "by": "words"}).json()["hits"]
    words = set(tokens(TEXT))
    assert all(words & set(tokens(str(hit["fields"]["text"]))) for hit in by_words)
    by_codes = remote.post("/v1/search", {"text": TEXT, "k": 12, "by": "codes"}).json()["hits"]
    assert [hit["id"] for hit in by_codes] != [hit["id"] for hit in fused]


def test_deep_pages_are_parts_of_one_ranking(node: Node, encoder: Encoder) -> None:
    address = f"opensearch://127.0.0.1:{node.port}/pages"
    index = open_index(address, bits=encoder.bits, fingerprint=encoder.fingerprint, create=True)
    try:
        index.add(ranked_documents(encoder.bits))
        for options, count in (({}, 600), ({"by": "codes"}, 600), ({"not_text": ["star"]}, 300)):
            query: dict[str, Any] = {"text": "a red star", "target": "image", **options}
            every = [hit.id for hit in Retriever(encoder, index).search(**query, k=1000)]
            assert len(set(every)) == len(every) == count
            for offset in (60, 250, 430, 590):
                page = Retriever(encoder, index).search(**query, k=70, offset=offset)
                assert [hit.id for hit in page] == every[offset : offset + 70]
    finally:
        index.close()


@pytest.mark.parametrize("where", [{"host": "no address"}, {"coordinates": "here"}])
def test_values_that_the_server_refuses_are_the_clients_mistake(
    remote: Running, index: Any, where: dict[str, str]
) -> None:
    mapped = {"host": {"type": "ip"}, "coordinates": {"type": "geo_point"}}
    path = f"/{index.handle.name}/_mapping"
    index.handle.server.request("PUT", path, {"properties": mapped}, doing="mapping")
    answer = remote.post("/v1/search", {"text": TEXT, "where": where})
    assert answer.status_code == 422 and "retry-after" not in answer.headers
    assert next(iter(where)) in answer.json()["detail"] or where["host"] in answer.json()["detail"]
