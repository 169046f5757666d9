"""Whether the hamming query is there, fits its server, and counts bits as numpy does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple
from uuid import uuid4

import numpy as np

from xmodal.codes import BinaryCodes
from xmodal.errors import IndexFailure, IndexMissing
from xmodal.index.documents import DocumentBatch
from xmodal_opensearch.client.server import Server
from xmodal_opensearch.index import codec
from xmodal_opensearch.index import queries as build
from xmodal_opensearch.index.bulk_lines import index_lines
from xmodal_opensearch.index.capabilities import HAMMING
from xmodal_opensearch.index.mapping import LAYOUTS, field_of, new_index

WIDTHS = (64, 72, 256)
DOCUMENTS, QUERIES, K = 300, 5, 20


class Found(NamedTuple):
    """One node, its version, and the plugin on it (None: not installed)."""

    node: str
    server: str
    plugin: str | None
    built_for: str | None


def installed(server: Server) -> list[Found]:
    """Every node of the cluster, and what is on it."""
    answer = server.request("GET", "/_nodes/plugins", doing="looking for the plugin")
    return [_found(node) for node in answer["nodes"].values()]


def check(server: Server) -> list[str]:
    """What was found and tried, a line each.

    Raises IndexMissing if a node lacks the plugin, IndexFailure if it counts wrongly.
    """
    nodes = installed(server)
    without = [one.node for one in nodes if one.plugin is None]
    if without:
        version = nodes[0].server
        raise IndexMissing(
            f"{HAMMING} is not on {', '.join(without)}: build it with xmodal-opensearch plugin "
            f"build --server {version} --out hamming-{version}.zip, install it on every node with "
            f"bin/opensearch-plugin install file:///path/hamming-{version}.zip, and restart"
        )
    lines = [f"{one.node}: {HAMMING} {one.plugin} for OpenSearch {one.built_for}" for one in nodes]
    for bits in WIDTHS:
        compared = _compare(server, bits)
        lines.append(f"{bits} bits: {compared} distances as numpy counts them")
    return lines


def _found(node: Mapping[str, Any]) -> Found:
    plugins: list[dict[str, Any]] = node.get("plugins", [])
    ours = next((one for one in plugins if one["name"] == HAMMING), {})
    return Found(node["name"], node["version"], ours.get("version"), ours.get("opensearch_version"))


def _compare(server: Server, bits: int) -> int:
    """Store codes in a scratch index, ask, and compare; the index is removed again."""
    rng = np.random.default_rng(bits)
    codes = BinaryCodes(rng.integers(0, 256, (DOCUMENTS, bits // 8), dtype=np.uint8), bits)
    layout = LAYOUTS["faiss"]
    name = f"xmodal-check-{uuid4().hex[:12]}"
    field = field_of("image")
    server.request("PUT", f"/{name}", new_index(bits, None, layout), doing="making a scratch index")
    try:
        ids = [f"{number:04d}" for number in range(len(codes))]
        lines = index_lines(DocumentBatch.of(ids, image=codes), layout)
        answer = server.bulk(name, b"".join(line.body for line in lines))
        if answer["errors"]:
            raise IndexFailure(f"{server.address.server} refused codes of {bits} bits")
        server.request("POST", f"/{name}/_refresh", doing="refreshing")
        for row in range(QUERIES):
            asked = codes[row : row + 1]
            query = build.by_hamming(field, asked, layout, [])
            found = server.search(f"/{name}/_search", build.search_body(query, K), doing="asking")
            told = [
                (codec.to_distance(hit["_score"]), int(hit["_id"])) for hit in found["hits"]["hits"]
            ]
            distances = asked.distances(codes)[0].tolist()
            wanted = sorted((distance, number) for number, distance in enumerate(distances))[:K]
            if told != wanted:
                raise IndexFailure(
                    f"{server.address.server}: the hamming query of {bits} bits answers "
                    f"{told[:3]}, numpy counts {wanted[:3]}: please report this"
                )
    finally:
        server.request("DELETE", f"/{name}", doing="removing the scratch index")
    return QUERIES * K
