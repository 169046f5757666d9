"""Choice of a strategy from capabilities, layout and address, and reading of capabilities."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xmodal.codes import BinaryCodes
from xmodal.errors import ConfigError
from xmodal.index.contract import open_index
from xmodal_opensearch.client.address import parse_address
from xmodal_opensearch.client.server import Server
from xmodal_opensearch.index.capabilities import Capabilities, probe
from xmodal_opensearch.index.mapping import LAYOUTS
from xmodal_opensearch.index.store import OpenSearchIndex, open_opensearch
from xmodal_opensearch.index.strategies import STRATEGIES, check_writable, choose_strategy

PLUGINS = frozenset({"opensearch-knn"})
ALL = Capabilities((3, 6), PLUGINS, True)
BARE = Capabilities((3, 6), frozenset(), True)
NO_SCRIPTS = Capabilities((3, 6), PLUGINS, False)
OLD = Capabilities((2, 11), PLUGINS, True)
FULL = Capabilities((3, 6), PLUGINS | {"opensearch-security"}, True)
UNKNOWN = Capabilities((3, 6), None, True)


@pytest.mark.parametrize(
    ("can", "layout", "strategy"),
    [
        (ALL, None, "script"),
        (FULL, None, "script"),
        (UNKNOWN, None, "script"),  # plugins may not be listed
        (NO_SCRIPTS, None, "knn"),
        (BARE, None, "long"),
        (OLD, None, "long"),
        (ALL, "faiss", "script"),
        (NO_SCRIPTS, "faiss", "knn"),
        (ALL, "flat", "script"),
        (ALL, "long", "long"),
        (BARE, "long", "long"),
        (ALL, "lucene-hnsw", "lucene-hnsw"),
        (ALL, "faiss-hnsw", "faiss-hnsw"),
    ],
)
def test_default_strategy(can: Capabilities, layout: str | None, strategy: str) -> None:
    found = choose_strategy(None, can, LAYOUTS[layout] if layout else None)
    assert found is STRATEGIES[strategy]


@pytest.mark.parametrize("can", [ALL, FULL, UNKNOWN])
@pytest.mark.parametrize("strategy", ["script", "knn", "long", "lucene-hnsw"])
def test_strategy_can_be_forced(can: Capabilities, strategy: str) -> None:
    assert choose_strategy(strategy, can, None) is STRATEGIES[strategy]


@pytest.mark.parametrize(
    ("strategy", "layouts"),
    [
        ("script", {"faiss", "faiss-hnsw", "lucene-hnsw", "flat"}),
        ("knn", {"faiss"}),
        ("long", {"long"}),
        ("lucene-hnsw", {"lucene-hnsw"}),
        ("faiss-hnsw", {"faiss-hnsw"}),
    ],
)
def test_forced_strategy_needs_a_layout_that_it_can_search(
    strategy: str, layouts: set[str]
) -> None:
    for layout in LAYOUTS.values():
        if layout.name in layouts:
            assert choose_strategy(strategy, FULL, layout) is STRATEGIES[strategy]
        else:
            with pytest.raises(ConfigError, match=f"strategy={strategy} .* {layout.name}"):
                choose_strategy(strategy, FULL, layout)


@pytest.mark.parametrize(
    ("strategy", "can", "layout", "message"),
    [
        ("fast", ALL, None, "strategy is 'fast', expected one of hamming, script, knn, long"),
        ("", ALL, None, "strategy is '', expected one of"),
        ("script", BARE, None, "no k-NN plugin .* strategy=long"),
        ("knn", BARE, None, "no k-NN plugin"),
        ("script", OLD, None, "version 2.11 is too old"),
        ("script", NO_SCRIPTS, None, "allow_expensive_queries is false.* strategy=knn"),
        ("long", NO_SCRIPTS, None, "allow_expensive_queries is false"),
        (None, NO_SCRIPTS, "long", "cannot search long: search.allow_expensive_queries is false"),
        (None, NO_SCRIPTS, "flat", "cannot search flat: search.allow_expensive_queries is false"),
        (None, BARE, "faiss", "cannot search faiss: it has no k-NN plugin"),
        (None, Capabilities((3, 6), frozenset(), False), None, "cannot search codes: it has no"),
    ],
)
def test_unsupported_strategy_raises(
    strategy: str | None, can: Capabilities, layout: str | None, message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        choose_strategy(strategy, can, LAYOUTS[layout] if layout else None)
    assert "\n" not in str(raised.value)


def test_faiss_graph_needs_the_native_library() -> None:
    graph = LAYOUTS["faiss-hnsw"]
    for can in (ALL, UNKNOWN):
        with pytest.raises(ConfigError, match=r"native library .* natives=yes"):
            choose_strategy("faiss-hnsw", can, None)
        with pytest.raises(ConfigError, match=r"native library .* natives=yes"):
            check_writable(graph, can, natives=False)
        check_writable(graph, can, natives=True)
        check_writable(LAYOUTS["faiss"], can, natives=False)
        assert choose_strategy("faiss-hnsw", can, None, natives=True).has_graph
    check_writable(graph, FULL, natives=False)
    assert choose_strategy("faiss-hnsw", FULL, None).has_graph


# ---- capabilities --------------------------------------------------------------------------


def read(number: str = "3.6.0", plugins: Any = None, **settings: Any) -> Capabilities:
    return Capabilities.read({"version": {"number": number}}, plugins, settings)


@pytest.mark.parametrize(
    ("number", "version"), [("2.19.1", (2, 19)), ("3.6.0", (3, 6)), ("3.0.0-beta1", (3, 0))]
)
def test_version_is_two_numbers(number: str, version: tuple[int, int]) -> None:
    assert read(number).version == version


def test_plugins_are_those_on_every_node() -> None:
    knn, neural = {"name": "opensearch-knn"}, {"name": "opensearch-neural-search"}
    first = read(plugins={"nodes": {"a": {"plugins": [knn, neural]}, "b": {"plugins": [knn]}}})
    assert (first.knn, first.hybrid, first.natives) == (True, False, False)
    second = read(plugins={"nodes": {"a": {"plugins": [knn]}, "b": {"modules": [{"name": "x"}]}}})
    assert (second.knn, second.plugins) == (False, frozenset())
    assert read(plugins={}).knn is False
    assert (read(plugins=None).knn, read(plugins=None).natives) == (True, False)


@pytest.mark.parametrize(
    ("versions", "weights"),
    [
        (["0.2.0", "0.2.1"], True),
        (["1.0.0"], True),
        (["0.10.0"], True),
        (["0.2.0", "0.1.0"], False),
        ([None, "0.2.0"], False),
        ([""], False),
        ([], False),
    ],
)
def test_weights_and_second_stage_need_a_new_plugin_on_every_node(
    versions: list[str | None], weights: bool
) -> None:
    nodes = {
        f"node {number}": {
            "plugins": [{"name": "opensearch-hamming", "version": version}]
            if version is not None
            else []
        }
        for number, version in enumerate(versions)
    }
    can = read(plugins={"nodes": nodes})
    assert (can.weights, can.two_stage) == (weights, weights)
    assert not read(plugins=None).weights


@pytest.mark.parametrize(
    ("settings", "scripts"),
    [
        ({}, True),
        ({"defaults": "true"}, True),
        ({"defaults": "true", "persistent": "false"}, False),
        ({"persistent": "false", "transient": "true"}, True),
        ({"transient": "false"}, False),
    ],
)
def test_transient_and_persistent_settings_override_defaults(
    settings: dict[str, Any], scripts: bool
) -> None:
    flat = {level: {"search.allow_expensive_queries": value} for level, value in settings.items()}
    assert read(**flat).scripts is scripts


def test_probe_of_a_real_node(node_url: str) -> None:
    server = Server(parse_address(node_url.replace("http", "opensearch"), index_needed=False))
    can = probe(server)
    server.close()
    assert can.version >= (2, 19)
    assert (can.knn, can.hybrid, can.natives, can.scripts) == (True, False, False, True)


# ---- changed settings ------------------------------------------------------------------------


def random_codes(count: int, bits: int = 64) -> BinaryCodes:
    random = np.random.default_rng(count).integers(256, size=(count, bits // 8), dtype=np.uint8)
    return BinaryCodes(random, bits)


def test_changed_threshold_makes_an_index_read_only(
    address: Callable[..., str], rest: Callable[..., Any]
) -> None:
    where = address()
    with open_opensearch(where, bits=64, create=True) as index:
        index.add(["a"], image=random_codes(1))
        name = index.handle.name
    rest("PUT", f"/{name}/_settings", {"index.knn.advanced.approximate_threshold": 5})
    with open_opensearch(where) as index:
        assert (index.handle.layout.name, index.handle.strategy.name) == (
            "faiss-hnsw",
            "faiss-hnsw",
        )
        assert [hit.id for hit in index.search(random_codes(1), 9, target="image")[0]] == ["a"]
        for change in (
            lambda: index.add(["b"], image=random_codes(1)),
            lambda: index.delete(["a"]),
        ):
            with pytest.raises(ConfigError, match="native library"):
                change()
    with pytest.raises(
        ConfigError, match=r"strategy=knn searches fields of layout faiss, .* faiss-hnsw"
    ):
        open_index(where + "?strategy=knn")
    rest("PUT", f"/{name}/_settings", {"index.knn.advanced.approximate_threshold": -1})
    with open_opensearch(where + "?strategy=knn") as index:
        assert index.add(["b"], image=random_codes(1)) == 1


@pytest.mark.slow
def test_server_without_scripts_is_searched_by_knn(node_parts: None, tmp_path: Path) -> None:
    from xmodal_opensearch.node.process import Node

    settings = {"search.allow_expensive_queries": "false"}
    with Node.start(tmp_path / "node", heap="512m", settings=settings) as node:
        where = f"opensearch://127.0.0.1:{node.port}/photos"
        with open_opensearch(where, bits=64, create=True) as index:
            assert (index.handle.capabilities.scripts, index.handle.strategy.name) == (False, "knn")
            codes = random_codes(300)
            ids = [f"{number:03d}" for number in range(300)]
            index.add(ids, image=codes, fields=[{"n": n} for n in range(300)])
            check_nearest(index, codes, ids)
        for strategy in ("script", "lucene-hnsw", "long"):
            with pytest.raises(ConfigError, match="allow_expensive_queries is false"):
                open_opensearch(f"{where}-{strategy}?strategy={strategy}", bits=64, create=True)
        with pytest.raises(ConfigError, match="allow_expensive_queries is false"):
            open_opensearch(f"{where}?strategy=script")


def check_nearest(index: OpenSearchIndex, codes: BinaryCodes, ids: list[str]) -> None:
    """Assert that searches with a filter and a radius equal numpy."""
    distances = codes[:1].distances(codes)[0]
    expected = sorted((int(d), id_) for d, id_ in zip(distances[100:], ids[100:], strict=True))
    [hits] = index.search(codes[:1], 50, target="image", where={"n": {"gte": 100}})
    assert [(hit.distance, hit.id) for hit in hits] == expected[:50]
    radius = expected[20][0]
    [hits] = index.search(codes[:1], 300, target="image", where={"n": {"gte": 100}}, radius=radius)
    assert [(hit.distance, hit.id) for hit in hits] == [one for one in expected if one[0] <= radius]
