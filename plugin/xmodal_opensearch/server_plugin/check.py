"""Check of the server plugin: installed on every node, with the same distances as numpy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple
from uuid import uuid4

import numpy as np
import numpy.typing as npt

from xmodal.codes import BinaryCodes
from xmodal.errors import IndexFailure, IndexMissing
from xmodal.index.documents import DocumentBatch
from xmodal.index.query_codes import QueryCodes
from xmodal.modality import Modality
from xmodal_opensearch.client.errors import describe_missing, reason_of
from xmodal_opensearch.client.server import Server
from xmodal_opensearch.index import codec
from xmodal_opensearch.index import queries as build
from xmodal_opensearch.index.bulk_lines import index_lines
from xmodal_opensearch.index.capabilities import HAMMING
from xmodal_opensearch.index.mapping import LAYOUTS, nested_properties, new_index

CHECKED_BITS = (64, 72, 256)
DOCUMENTS, QUERIES, K = 300, 5, 20


class NodePlugin(NamedTuple):
    """Name and version of a node; versions of the plugin on it (None: not installed)."""

    node: str
    server: str
    plugin: str | None
    built_for: str | None


def installed_plugins(server: Server) -> list[NodePlugin]:
    """Return every node of the cluster with its plugin."""
    answer = server.request("GET", "/_nodes/plugins", doing="reading the installed plugins")
    return [_node_plugin(node) for node in answer["nodes"].values()]


def check(server: Server) -> list[str]:
    """Check the plugin on all nodes; return a line of text for each node and each code length.

    The check creates and deletes scratch indexes. Raises IndexMissing if a node lacks the plugin,
    IndexFailure if a distance is wrong.
    """
    nodes = installed_plugins(server)
    missing = [node.node for node in nodes if node.plugin is None]
    if missing:
        version = nodes[0].server
        raise IndexMissing(
            f"{HAMMING} is not installed on {', '.join(missing)}: build it with xmodal-opensearch "
            f"plugin build --server {version} --out hamming-{version}.zip, on every node run "
            f"bin/opensearch-plugin install file:///path/hamming-{version}.zip, and restart"
        )
    lines = [
        f"{node.node}: {HAMMING} {node.plugin} for OpenSearch {node.built_for}" for node in nodes
    ]
    for bits in CHECKED_BITS:
        compared = _compare(server, bits)
        lines.append(f"{bits} bits: {compared} distances equal to numpy")
    return lines


def _node_plugin(node: Mapping[str, Any]) -> NodePlugin:
    plugins: list[dict[str, Any]] = node.get("plugins", [])
    plugin = next((entry for entry in plugins if entry["name"] == HAMMING), {})
    return NodePlugin(
        node["name"], node["version"], plugin.get("version"), plugin.get("opensearch_version")
    )


def _compare(server: Server, bits: int) -> int:
    """Compare searches in a scratch index of random codes with numpy; return the number of hits.

    A document has one image code, and two text codes: this one and that of the next document.
    """
    rng = np.random.default_rng(bits)
    codes = BinaryCodes(rng.integers(0, 256, (DOCUMENTS, bits // 8), dtype=np.uint8), bits)
    layout = LAYOUTS["faiss"]
    name = f"xmodal-check-{uuid4().hex[:12]}"
    body = new_index(bits, None, layout)
    body["mappings"]["properties"] |= nested_properties(bits, layout, ["text"])
    server.request("PUT", f"/{name}", body, doing="creating a scratch index")
    try:
        ids = [f"{number:04d}" for number in range(len(codes))]
        pairs = [codes[[row, (row + 1) % DOCUMENTS]] for row in range(DOCUMENTS)]
        lines = index_lines(DocumentBatch.of(ids, image=codes, text=pairs), layout)
        answer = server.bulk(name, b"".join(line.body for line in lines))
        if answer["errors"]:
            results = [result for item in answer["items"] for result in item.values()]
            reason = next(reason_of(result) for result in results if "error" in result)
            raise IndexFailure(
                f"{server.address.server} refused codes of {bits} bits: {describe_missing(reason)}"
            )
        server.request("POST", f"/{name}/_refresh", doing="refreshing")
        for row in range(QUERIES):
            distances = codes[row : row + 1].distances(codes)[0]
            _compare_search(server, name, codes[row : row + 1], "image", distances)
            nearest = np.minimum(distances, np.roll(distances, -1))
            _compare_search(server, name, codes[row : row + 1], "text", nearest)
    finally:
        server.request("DELETE", f"/{name}", doing="deleting the scratch index")
    return 2 * QUERIES * K


def _compare_search(
    server: Server,
    index: str,
    code: BinaryCodes,
    target: Modality,
    distances: npt.NDArray[np.uint16],
) -> None:
    """Raise IndexFailure if the hits of a code differ from these distances of all documents."""
    query = build.by_all(build.by_hamming, target, QueryCodes(code), LAYOUTS["faiss"], [])
    answer = server.search(f"/{index}/_search", build.search_body(query, K), doing="searching")
    hits = answer["hits"]["hits"]
    found = [(codec.to_key(hit["_score"]), int(build.hit_id(hit))) for hit in hits]
    ranked = sorted((distance, number) for number, distance in enumerate(distances.tolist()))
    if found != ranked[:K]:
        raise IndexFailure(
            f"{server.address.server}: the hamming query of {code.bits} bits returned "
            f"{found[:3]}, expected {ranked[:3]} (distance, id): please report this"
        )
