"""Indexes that the oldest server version made, opened by a newer one with the same data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xmodal.codes import BinaryCodes
from xmodal.errors import ConfigError
from xmodal_opensearch.index.store import OpenSearchIndex, open_opensearch
from xmodal_opensearch.node.artifacts import KNN, known_versions, read_parts
from xmodal_opensearch.node.process import Node
from xmodal_opensearch.server_plugin.build import plugin_folder

STRATEGIES = ("hamming", "script", "knn", "long", "lucene-hnsw")
OLDEST = known_versions()[0]
NEWEST = [version for version in known_versions() if KNN in read_parts(version)][-1]
CODES = BinaryCodes(np.random.default_rng(3).integers(0, 4, (40, 8), dtype=np.uint8), 64)
IDS = [f"d{row:02}" for row in range(len(CODES))]


def start(folder: Path, version: str) -> Node:
    return Node.start(
        folder, version=version, extra_plugins=[plugin_folder(version)], upgrade=True, timeout=300
    )


def open_with(node: Node, strategy: str, **options: Any) -> OpenSearchIndex:
    uri = f"opensearch://127.0.0.1:{node.port}/old-{strategy}?strategy={strategy}"
    return open_opensearch(uri, bits=64, **options)


def found(index: OpenSearchIndex) -> list[list[tuple[str, int]]]:
    """Return the hits of three searches: plain, with a filter and with a radius."""
    queries = CODES[:2]
    searches = [
        index.search(queries, 30, target="image"),
        index.search(queries, 10, target="image", where={"size": {"lt": 20}}),
        index.search(queries, 100, target="image", radius=8),
    ]
    return [[(hit.id, hit.distance) for hit in hits] for one in searches for hits in one]


@pytest.mark.slow
def test_indexes_of_the_oldest_version_are_searched_and_written_by_the_newest(
    tmp_path: Path, cache: Path
) -> None:
    folder, before = tmp_path / "node", {}
    with start(folder, OLDEST) as node:
        for strategy in STRATEGIES:
            with open_with(node, strategy, create=True) as index:
                fields = [{"size": row} for row in range(len(IDS))]
                index.add(IDS, image=CODES, fields=fields)
                before[strategy] = found(index)
    assert before["long"][0][0] == ("d00", 0)
    assert all(hits == before["long"] for hits in before.values())
    with start(folder, NEWEST) as node:
        for strategy in STRATEGIES:
            with open_with(node, strategy) as index:
                assert len(index) == len(IDS)
                assert found(index) == before[strategy]
                index.add(["a"], image=CODES[:1])
                assert index.delete(["d00"]) == 1
                (hits,) = index.search(CODES[:1], 1, target="image")
                assert [(hit.id, hit.distance) for hit in hits] == [("a", 0)]
    with pytest.raises(ConfigError, match=f"has data of OpenSearch {NEWEST}"):
        start(folder, OLDEST)
