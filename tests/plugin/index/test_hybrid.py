"""Fusion by the server's own hybrid query gives what the client's fusion gives."""

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
    """A node that has neural-search as well."""
    plugins = ("opensearch-knn", "neural-search")
    with Node.start(tmp_path_factory.mktemp("hybrid") / "node", plugins=plugins) as started:
        yield started


@pytest.mark.parametrize("way", ["script", "knn", "long"])
def test_the_server_fuses_as_the_client_does(hybrid_node: Node, way: str) -> None:
    uri = f"opensearch://127.0.0.1:{hybrid_node.port}/hybrid-{way}?strategy={way}"
    rng = np.random.default_rng(0)
    codes = BinaryCodes(rng.integers(0, 256, (300, 8), dtype=np.uint8), 64)
    texts = [f"{'red' if n % 7 == 0 else 'blue'} shoe {n}" for n in range(300)]
    with open_opensearch(uri, bits=64, create=True) as index:
        ids = [f"d{n:03d}" for n in range(300)]
        index.add(ids, image=codes, fields=[{"text": t, "n": n} for n, t in enumerate(texts)])
        words, where = ["red 7", "blue 9"], {"n": {"lt": 200}}
        asked = {"target": "image", "where": where, "depth": 100}
        here = index.search_fused(codes[3:5], words, 5, **asked)
        there = index.search_fused(codes[3:5], words, 5, on_server=True, **asked)
        for client, server in zip(here, there, strict=True):
            assert [one.id for one in server] == [one.id for one in client]
            assert [one.distance for one in server] == [one.distance for one in client]
            assert [one.score for one in server] == pytest.approx([one.score for one in client])
            assert {one.ranks for one in server} == {None}
            assert all(one.fields["n"] < 200 for one in server)


def test_a_server_without_neural_search_is_told_in_one_line(node_url: str) -> None:
    address = node_url.replace("http://", "opensearch://") + "/no-hybrid"
    with open_opensearch(address, bits=8, create=True) as index:
        index.add(["a"], image=BinaryCodes.from_hex(["00"]), fields=[{"text": "red"}])
        with pytest.raises(ConfigError, match="has no neural-search plugin"):
            index.search_fused(
                BinaryCodes.from_hex(["00"]), ["red"], 1, target="image", on_server=True
            )
