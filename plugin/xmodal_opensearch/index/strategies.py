"""The ways to search, what each needs of a server, and which is taken.

    way            exact   field                    on the server
    hamming        yes     any bit vector           our own plugin: exact at memory speed
    script         yes     Faiss, never built       script_score knn_score: any filter, radius, k
    knn            yes     the same                 knn query, no script, k below 10,000
    long           yes     64-bit words             script_score in Painless: servers without k-NN
    lucene-hnsw    yes     Lucene graph             exact by script; search_approximate by the graph
    faiss-hnsw     yes     Faiss graph (natives!)   the same

``search`` is exact whatever the way; a graph is asked by ``search_approximate`` alone. Left to
itself an index takes ``hamming`` where that plugin is installed, else ``script``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from xmodal.codes import BinaryCodes
from xmodal.errors import ConfigError
from xmodal_opensearch.index import queries
from xmodal_opensearch.index.capabilities import Capabilities
from xmodal_opensearch.index.mapping import LAYOUTS, Layout

Build = Callable[[str, BinaryCodes, Layout, Sequence[queries.Query], int | None], queries.Query]
"""Field, one code, layout, filters, radius (None: no limit) -> the query of all that match."""


@dataclass(frozen=True)
class Way:
    """One way: the layout that it makes, those it can search, and what it sends."""

    name: str
    title: str
    makes: Layout
    searches: tuple[str, ...]
    build: Build | None = None  # None: a knn query, which returns the k nearest and no more
    needs_scripts: bool = False  # search.allow_expensive_queries has to be true
    needs_hamming: bool = False  # our plugin has to be on every node
    has_graph: bool = False


VECTORS = ("faiss", "faiss-hnsw", "lucene-hnsw", "flat")
WAYS = {
    way.name: way
    for way in (
        Way(
            "hamming",
            "exact, by the hamming plugin",
            LAYOUTS["faiss"],
            VECTORS,
            queries.by_hamming,
            needs_hamming=True,
        ),
        Way(
            "script",
            "exact, by script",
            LAYOUTS["faiss"],
            VECTORS,
            queries.by_script,
            needs_scripts=True,
        ),
        Way("knn", "exact, by knn query", LAYOUTS["faiss"], ("faiss",)),
        Way(
            "long",
            "exact, by Painless",
            LAYOUTS["long"],
            ("long",),
            queries.by_painless,
            needs_scripts=True,
        ),
        Way(
            "lucene-hnsw",
            "exact, by script, beside a Lucene graph",
            LAYOUTS["lucene-hnsw"],
            ("lucene-hnsw",),
            queries.by_script,
            needs_scripts=True,
            has_graph=True,
        ),
        Way(
            "faiss-hnsw",
            "exact, by script, beside a Faiss graph",
            LAYOUTS["faiss-hnsw"],
            ("faiss-hnsw",),
            queries.by_script,
            needs_scripts=True,
            has_graph=True,
        ),
    )
}


def choose_way(
    forced: str | None, can: Capabilities, layout: Layout | None, natives: bool = False
) -> Way:
    """The way of an index with ``layout`` (None: one that is to be made). Raises ConfigError."""
    if forced is not None and forced not in WAYS:
        raise ConfigError(f"way is {forced!r}, expected one of {', '.join(WAYS)}")
    if forced is None:
        fitting = [
            way
            for way in WAYS.values()
            if (layout is None or layout.name in way.searches)
            and not lack(way, can)
            and (layout is not None or not way.has_graph)
        ]
        if not fitting:
            wanted = WAYS["long" if layout is not None and not layout.is_vector else "script"]
            raise ConfigError(
                f"this server cannot search {layout.name if layout else 'codes'}: "
                + lack(wanted, can)
            )
        return max(fitting, key=lambda way: (way.needs_hamming, way.has_graph))
    way = WAYS[forced]
    if layout is not None and layout.name not in way.searches:
        raise ConfigError(
            f"way={forced} searches fields of layout {' or '.join(way.searches)}, this index has "
            f"{layout.name}: leave the way out, or load a new index with it"
        )
    lacking = lack(way, can)
    if lacking:
        raise ConfigError(f"way={forced} cannot work on this server: {lacking}")
    if layout is None:
        check_writable(way.makes, can, natives)
    return way


def check_writable(layout: Layout, can: Capabilities, natives: bool) -> None:
    """Raises ConfigError where a document that is written could end the node."""
    if layout.name == "faiss-hnsw" and not (natives or can.natives):
        raise ConfigError(
            "a Faiss graph (faiss-hnsw) needs Faiss' native library on every node, and a node "
            "without it ends when a document is written; the full distribution has it, then add "
            "natives=yes to the address"
        )


def lack(way: Way, can: Capabilities) -> str:
    """What the server lacks for a way, and what to do; empty if nothing."""
    if way.makes.is_vector and not can.knn:
        return "it has no k-NN plugin on every node; way=long works without"
    if way.makes.is_vector and can.version < (2, 19):
        return (
            f"version {can.version[0]}.{can.version[1]} is too old for it, expected 2.19 or later"
        )
    if way.needs_hamming and not can.hamming:
        return (
            "our plugin is not on every node: build it with xmodal-opensearch plugin build, or "
            "leave the way out"
        )
    if way.needs_scripts and not can.scripts:
        return "search.allow_expensive_queries is false, which refuses scripts; way=knn works"
    return ""
