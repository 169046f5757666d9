"""The service over a real node: the same answers, and BM25 beside the codes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.service_process import Running, running

from xmodal.encoders.encoder import Encoder
from xmodal.index.contract import open_index
from xmodal.index.local import HammingIndex

if TYPE_CHECKING:
    from xmodal_opensearch.node.process import Node

WORDS = "a red circle on the left"


@pytest.fixture(scope="module")
def index(node: Node, encoder: Encoder, index_path: Path) -> Iterator[Any]:
    """The small world on the node."""
    address = f"opensearch://127.0.0.1:{node.port}/service"
    made = open_index(address, bits=encoder.bits, fingerprint=encoder.fingerprint, create=True)
    for batch in HammingIndex.load(index_path, bits=None, fingerprint=None).batches():
        made.add(batch)
    made.close()
    opened = open_index(address, fingerprint=encoder.fingerprint)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def remote(encoder: Encoder, index: Any, world: Path) -> Iterator[Running]:
    """A service over it."""
    with running(encoder, str(index.handle.address), pictures=world) as one:
        yield one


def test_answers_are_those_of_the_local_index(remote: Running, service: Running) -> None:
    ranked = service.post("/v1/search", {"text": WORDS, "k": 30}).json()["hits"]
    asked: list[dict[str, Any]] = [
        {"text": WORDS, "k": 30},
        {"text": WORDS, "target": "text", "where": {"colour": ["red", "blue"]}},
        {"text": WORDS, "k": 30, "radius": ranked[9]["distance"]},
        {"like": "00003.png", "k": 7},
    ]
    for body in asked:
        one, two = (which.post("/v1/search", body).json()["hits"] for which in (remote, service))
        assert one == two and one, body
    assert remote.get("/v1/filters").json() == service.get("/v1/filters").json()
    documents = [which.get("/v1/documents", id="00003.png").json() for which in (remote, service)]
    assert documents[0] == documents[1]
    assert remote.get("/v1/picture", id="00003.png").status_code == 200


def test_words_are_ranked_beside_codes(remote: Running, encoder: Encoder, index: Any) -> None:
    assert remote.get("/v1/about").json()["ranks_words"] is True
    body = {"text": WORDS, "words": "blue star", "k": 12}
    told = remote.post("/v1/search", body).json()["hits"]
    codes = encoder.encode_texts([WORDS])
    wanted = index.search_fused(codes, ["blue star"], 12, target="image")[0]
    assert [(hit["id"], hit["distance"]) for hit in told] == [(h.id, h.distance) for h in wanted]
    assert any("blue star" in hit["fields"]["text"] for hit in told)
    alone = remote.post("/v1/search", {"text": WORDS, "k": 12}).json()["hits"]
    assert [hit["id"] for hit in alone] != [hit["id"] for hit in told]


def test_what_cannot_be_ranked_is_told(remote: Running) -> None:
    for more, reason in (
        ({"radius": 5}, "words go without radius"),
        ({"field": "nothing"}, "field 'nothing' is no text that BM25 can search"),
    ):
        told = remote.post("/v1/search", {"text": WORDS, "words": "red", **more})
        assert told.status_code == 422 and reason in told.json()["detail"]
