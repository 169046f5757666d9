"""Search strategies: what each needs of a server, and which one an index uses.

    strategy       exact   field                    on the server
    hamming        yes     any bit vector           plugin opensearch-hamming: memory speed
    script         yes     Faiss, never built       script_score knn_score: any filter, radius, k
    knn            yes     the same                 knn query, no script, k below 10,000
    long           yes     64-bit words             script_score in Painless: servers without k-NN
    lucene-hnsw    yes     Lucene graph             exact by script; search_approximate by the graph
    faiss-hnsw     yes     Faiss graph (natives!)   the same

``search`` is exact with every strategy; only ``search_approximate`` uses a graph. The default is
``hamming`` where that plugin is installed, else ``script``.
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
class Strategy:
    """One strategy: the layout that it makes, those it can search, and what it sends."""

    name: str
    title: str
    makes: Layout
    searches: tuple[str, ...]
    build: Build | None = None  # None: a knn query, which returns the k nearest and no more
    needs_scripts: bool = False  # search.allow_expensive_queries has to be true
    needs_hamming: bool = False  # our plugin has to be on every node
    has_graph: bool = False


VECTORS = ("faiss", "faiss-hnsw", "lucene-hnsw", "flat")
STRATEGIES = {
    strategy.name: strategy
    for strategy in (
        Strategy(
            "hamming",
            "exact, by the hamming plugin",
            LAYOUTS["faiss"],
            VECTORS,
            queries.by_hamming,
            needs_hamming=True,
        ),
        Strategy(
            "script",
            "exact, by script",
            LAYOUTS["faiss"],
            VECTORS,
            queries.by_script,
            needs_scripts=True,
        ),
        Strategy("knn", "exact, by knn query", LAYOUTS["faiss"], ("faiss",)),
        Strategy(
            "long",
            "exact, by Painless",
            LAYOUTS["long"],
            ("long",),
            queries.by_painless,
            needs_scripts=True,
        ),
        Strategy(
            "lucene-hnsw",
            "exact, by script, beside a Lucene graph",
            LAYOUTS["lucene-hnsw"],
            ("lucene-hnsw",),
            queries.by_script,
            needs_scripts=True,
            has_graph=True,
        ),
        Strategy(
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


def choose_strategy(
    forced: str | None, can: Capabilities, layout: Layout | None, natives: bool = False
) -> Strategy:
    """Return the strategy for an index with ``layout``, or None for a new index.

    Raises ConfigError if the server lacks what the strategy needs.
    """
    if forced is not None and forced not in STRATEGIES:
        raise ConfigError(f"strategy is {forced!r}, expected one of {', '.join(STRATEGIES)}")
    if forced is None:
        fitting = [
            strategy
            for strategy in STRATEGIES.values()
            if (layout is None or layout.name in strategy.searches)
            and not missing_requirement(strategy, can)
            and (layout is not None or not strategy.has_graph)
        ]
        if not fitting:
            wanted = STRATEGIES["long" if layout is not None and not layout.is_vector else "script"]
            raise ConfigError(
                f"this server cannot search {layout.name if layout else 'codes'}: "
                + missing_requirement(wanted, can)
            )
        return max(fitting, key=lambda strategy: (strategy.needs_hamming, strategy.has_graph))
    strategy = STRATEGIES[forced]
    if layout is not None and layout.name not in strategy.searches:
        raise ConfigError(
            f"strategy={forced} searches fields of layout {' or '.join(strategy.searches)}, "
            f"this index has {layout.name}: leave the strategy out, or load a new index with it"
        )
    lacking = missing_requirement(strategy, can)
    if lacking:
        raise ConfigError(f"strategy={forced} cannot work on this server: {lacking}")
    if layout is None:
        check_writable(strategy.makes, can, natives)
    return strategy


def check_writable(layout: Layout, can: Capabilities, natives: bool) -> None:
    """Raises ConfigError where a document that is written could end the node."""
    if layout.name == "faiss-hnsw" and not (natives or can.natives):
        raise ConfigError(
            "a Faiss graph (faiss-hnsw) needs Faiss' native library on every node, and a node "
            "without it ends when a document is written; the full distribution has it, then add "
            "natives=yes to the address"
        )


def missing_requirement(strategy: Strategy, can: Capabilities) -> str:
    """What the server lacks for a strategy, and what to do; empty if nothing."""
    if strategy.makes.is_vector and not can.knn:
        return "it has no k-NN plugin on every node; strategy=long works without"
    if strategy.makes.is_vector and can.version < (2, 19):
        return (
            f"version {can.version[0]}.{can.version[1]} is too old for it, expected 2.19 or later"
        )
    if strategy.needs_hamming and not can.hamming:
        return (
            "our plugin is not on every node: build it with xmodal-opensearch plugin build, or "
            "leave the strategy out"
        )
    if strategy.needs_scripts and not can.scripts:
        return "search.allow_expensive_queries is false, which refuses scripts; strategy=knn works"
    return ""
