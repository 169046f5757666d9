"""What a server version has, on the node of ``--server`` with the plugins of its version."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from uuid import uuid4

import numpy as np
import pytest
from support.hamming_server import Model, Refused, Server, bulk, check, create, lines, put

from xmodal.codes import BinaryCodes
from xmodal_opensearch.client.address import parse_address
from xmodal_opensearch.client.server import Server as Client
from xmodal_opensearch.index.capabilities import probe
from xmodal_opensearch.index.store import open_opensearch
from xmodal_opensearch.server_plugin.build import plugin_folder


@pytest.fixture
def uri(plugin_url: str) -> Iterator[str]:
    """Address of a new index without a strategy."""
    name = f"v-{uuid4().hex[:8]}"
    yield f"{plugin_url.replace('http', 'opensearch')}/{name}"
    Server(plugin_url)("DELETE", f"{name}-*")


def test_capabilities_are_those_of_the_version(
    plugin_url: str, server_version: str, node_plugins: tuple[str, ...]
) -> None:
    client = Client(parse_address(plugin_url.replace("http", "opensearch"), index_needed=False))
    can = probe(client)
    assert ".".join(map(str, can.version)) == server_version.rpartition(".")[0]
    assert can.knn is bool(node_plugins) and can.hamming and can.scripts
    assert not can.natives
    client.close()


def test_deprecations_are_logged_and_no_warnings(
    plugin_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A warning would be printed between the results of a command."""
    client = Client(parse_address(plugin_url.replace("http", "opensearch"), index_needed=False))
    with caplog.at_level(logging.INFO, "opensearch.deprecation"):
        client.request("GET", "/_cat/master", doing="reading", format="json")
    client.close()
    (record,) = [r for r in caplog.records if r.name == "opensearch.deprecation"]
    assert "[GET /_cat/master] is deprecated" in record.getMessage()


def test_default_strategy_is_the_best_of_the_version(
    uri: str, node_plugins: tuple[str, ...]
) -> None:
    codes = BinaryCodes.from_hex(["00000000000000ff", "000000000000ffff"])
    with open_opensearch(uri, bits=64, create=True) as index:
        assert index.handle.strategy.name == ("hamming" if node_plugins else "long")
        index.add(["a", "b"], image=codes, fields=[{"size": 1}, {"size": 2}])
        (hits,) = index.search(codes[1:], 2, target="image", where={"size": {"gte": 1}})
        assert [(hit.id, hit.distance) for hit in hits] == [("b", 0), ("a", 8)]
    with open_opensearch(uri, bits=64) as index:
        assert len(index) == 2


def test_the_plugin_finds_the_hits_of_numpy(
    plugin_url: str,
    server_version: str,
    node_plugins: tuple[str, ...],
    request: pytest.FixtureRequest,
) -> None:
    """Random queries, in indexes without graphs and with those of Lucene."""
    request.node.user_properties.append(("feature", "plugin"))
    if not node_plugins:
        pytest.skip("this server version has no k-NN, whose fields the plugin searches")
    assert plugin_folder(server_version).is_dir()
    server, rng = Server(plugin_url), np.random.default_rng(20)
    for storage in ("flat", "lucene"):
        name, model = f"v-{uuid4().hex[:8]}", Model(64)
        create(server, name, model.bits, storage)
        try:
            keys = [str(key) for key in range(60)]
            put(rng, model, keys)
            bulk(server, name, lines(model, keys), refresh=True)
            for _ in range(5):
                check(server, name, model, rng)
        finally:
            server("DELETE", name)


def test_the_plugin_refuses_fields_without_codes(
    plugin_url: str, request: pytest.FixtureRequest
) -> None:
    request.node.user_properties.append(("feature", "plugin"))
    server, name = Server(plugin_url), f"v-{uuid4().hex[:8]}"
    server("PUT", name, {"mappings": {"properties": {"title": {"type": "keyword"}}}})
    try:
        query = {"hamming": {"field": "title", "code": "00ff"}}
        with pytest.raises(Refused, match="knn_vector") as raised:
            server("POST", f"{name}/_search", {"query": query})
        assert raised.value.status == 400
    finally:
        server("DELETE", name)
