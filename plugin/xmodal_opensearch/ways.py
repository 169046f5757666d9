"""The ways to search, what each needs of a server, and which is taken.

    way            exact   field                    on the server
    script         yes     Faiss, never built       script_score knn_score: any filter, radius, k
    knn            yes     the same                 knn query, threshold -1: fastest, k below 10,000
    long           yes     64-bit words             script_score in Painless: servers without k-NN
    lucene-hnsw    yes     Lucene graph             exact by script; search_approximate by the graph
    faiss-hnsw     yes     Faiss graph (natives!)   the same

``search`` is exact whatever the way; a graph is asked by ``search_approximate`` alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from xmodal.codes import BinaryCodes
from xmodal.errors import ConfigError
from xmodal_opensearch import queries
from xmodal_opensearch.capabilities import Capabilities
from xmodal_opensearch.mapping import LAYOUTS, Layout

Build = Callable[[str, BinaryCodes, Layout, Sequence[queries.Query]], queries.Query]


@dataclass(frozen=True)
class Way:
    """One way: the layout that it makes, those it can search, and what it sends."""

    name: str
    title: str
    makes: Layout
    searches: tuple[str, ...]
    build: Build | None = None  # None: a knn query, which returns the k nearest and no more
    has_graph: bool = False

    @property
    def needs_scripts(self) -> bool:
        """Whether search.allow_expensive_queries has to be true."""
        return self.build is not None


VECTORS = ("faiss", "faiss-hnsw", "lucene-hnsw", "flat")
WAYS = {
    way.name: way
    for way in (
        Way("script", "exact, by script", LAYOUTS["faiss"], VECTORS, queries.by_script),
        Way("knn", "exact, by knn query", LAYOUTS["faiss"], ("faiss",)),
        Way("long", "exact, by Painless", LAYOUTS["long"], ("long",), queries.by_painless),
        Way(
            "lucene-hnsw",
            "exact, by script, beside a Lucene graph",
            LAYOUTS["lucene-hnsw"],
            ("lucene-hnsw",),
            queries.by_script,
            has_graph=True,
        ),
        Way(
            "faiss-hnsw",
            "exact, by script, beside a Faiss graph",
            LAYOUTS["faiss-hnsw"],
            ("faiss-hnsw",),
            queries.by_script,
            has_graph=True,
        ),
    )
}  # fmt: skip


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
            and not _lack(can, needs_scripts=way.needs_scripts, needs_knn=way.makes.is_vector)
            and (layout is not None or not way.has_graph)
        ]
        graphs = [way for way in fitting if way.has_graph]
        if not fitting:
            raise ConfigError(
                f"this server cannot search {layout.name if layout else 'codes'}: "
                + _lack(can, needs_scripts=True, needs_knn=layout is None or layout.is_vector)
            )
        return (graphs or fitting)[0]
    way = WAYS[forced]
    if layout is not None and layout.name not in way.searches:
        raise ConfigError(
            f"way={forced} searches fields of layout {' or '.join(way.searches)}, this index has "
            f"{layout.name}: leave the way out, or load a new index with it"
        )
    lack = _lack(can, needs_scripts=way.needs_scripts, needs_knn=way.makes.is_vector)
    if lack:
        raise ConfigError(f"way={forced} cannot work on this server: {lack}")
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


def _lack(can: Capabilities, *, needs_scripts: bool, needs_knn: bool) -> str:
    """What the server lacks, and what to do; empty if nothing."""
    if needs_knn and not can.knn:
        return "it has no k-NN plugin on every node; way=long works without"
    if needs_knn and can.version < (2, 19):
        return (
            f"version {can.version[0]}.{can.version[1]} is too old for it, expected 2.19 or later"
        )
    if needs_scripts and not can.scripts:
        return "search.allow_expensive_queries is false, which refuses scripts; way=knn works"
    return ""
