"""Fusion on the server returns the same hits and scores as fusion in the client."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from xmodal.codes import BinaryCodes
from xmodal.errors import ConfigError
from xmodal_opensearch.index.store import open_opensearch
from xmodal_opensearch.node.process import Node


@pytest.fixture(scope="module")
def hybrid_node(node_parts: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node with the plugins k-NN and neural-search."""
    plugins = ("opensearch-knn", "neural-search")
    with Node.start(tmp_path_factory.mktemp("hybrid") / "node", plugins=plugins) as started:
        yield started


@pytest.mark.parametrize("strategy", ["script", "knn", "long"])
def test_server_fusion_equals_client_fusion(hybrid_node: Node, strategy: str) -> None:
    uri = f"opensearch://127.0.0.1:{hybrid_node.port}/hybrid-{strategy}?strategy={strategy}"
    rng = np.random.default_rng(0)
    codes = BinaryCodes(rng.integers(0, 256, (300, 8), dtype=np.uint8), 64)
    texts = [f"{'red' if n % 7 == 0 else 'blue'} shoe {n}" for n in range(300)]
    with open_opensearch(uri, bits=64, create=True) as index:
        ids = [f"d{n:03d}" for n in range(300)]
        index.add(ids, image=codes, fields=[{"text": t, "n": n} for n, t in enumerate(texts)])
        words, where = ["red 7", "blue 9"], {"n": {"lt": 200}}
        options = {"target": "image", "where": where, "depth": 100}
        by_client = index.search_fused(codes[3:5], words, 5, **options)
        by_server = index.search_fused(codes[3:5], words, 5, on_server=True, **options)
        for client, server in zip(by_client, by_server, strict=True):
            assert [hit.id for hit in server] == [hit.id for hit in client]
            assert [hit.distance for hit in server] == [hit.distance for hit in client]
            assert [hit.score for hit in server] == pytest.approx([hit.score for hit in client])
            assert {hit.ranks for hit in server} == {None}
            assert all(hit.fields["n"] < 200 for hit in server)


def test_server_without_neural_search_raises(node_url: str) -> None:
    address = node_url.replace("http://", "opensearch://") + "/no-hybrid"
    with open_opensearch(address, bits=8, create=True) as index:
        index.add(["a"], image=BinaryCodes.from_hex(["00"]), fields=[{"text": "red"}])
        with pytest.raises(ConfigError, match="has no neural-search plugin"):
            index.search_fused(
                BinaryCodes.from_hex(["00"]), ["red"], 1, target="image", on_server=True
            )
