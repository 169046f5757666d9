"""Search strategies: their requirements, and the choice of one for an index.

    strategy       exact   field                    on the server
    hamming        yes     any bit vector           plugin opensearch-hamming: memory speed
    script         yes     Faiss, never built       script_score knn_score: any filter, radius, k
    knn            yes     the same                 knn query, no script, k below 10,000
    long           yes     64-bit words             script_score in Painless: servers without k-NN
    lucene-hnsw    yes     Lucene graph             exact by script; search_approximate by the graph
    faiss-hnsw     yes     Faiss graph              the same; needs the native Faiss library

``search`` is exact with every strategy; only ``search_approximate`` uses a graph. The default is
``hamming`` if that plugin is installed, else ``script``.
"""

from __future__ import annotations

from dataclasses import dataclass

from xmodal.errors import ConfigError
from xmodal_opensearch.index import queries
from xmodal_opensearch.index.capabilities import Capabilities
from xmodal_opensearch.index.mapping import LAYOUTS, Layout


@dataclass(frozen=True)
class Strategy:
    """One strategy.

    ``makes``: layout of a new index. ``searches``: names of the layouts that it can search.
    ``build``: builds the query, or None for a knn query, which returns the k nearest only.
    ``needs_scripts``: the server must allow expensive queries. ``needs_hamming``: the hamming
    plugin must be on every node. ``weighs``: the query has weights on every server; of the hamming
    plugin, version 0.2 has them. ``limits``: the query has a radius; others need ``min_score``.
    """

    name: str
    title: str
    makes: Layout
    searches: tuple[str, ...]
    build: queries.Build | None = None
    needs_scripts: bool = False
    needs_hamming: bool = False
    has_graph: bool = False
    weighs: bool = False
    limits: bool = False


VECTORS = ("faiss", "faiss-hnsw", "lucene-hnsw", "flat")
STRATEGIES = {
    strategy.name: strategy
    for strategy in (
        Strategy(
            "hamming",
            "exact search (hamming plugin)",
            LAYOUTS["faiss"],
            VECTORS,
            queries.by_hamming,
            needs_hamming=True,
            limits=True,
        ),
        Strategy(
            "script",
            "exact search (script)",
            LAYOUTS["faiss"],
            VECTORS,
            queries.by_script,
            needs_scripts=True,
        ),
        Strategy("knn", "exact search (knn query)", LAYOUTS["faiss"], ("faiss",)),
        Strategy(
            "long",
            "exact search (Painless)",
            LAYOUTS["long"],
            ("long",),
            queries.by_painless,
            needs_scripts=True,
            weighs=True,
            limits=True,
        ),
        Strategy(
            "lucene-hnsw",
            "exact search (script), Lucene graph",
            LAYOUTS["lucene-hnsw"],
            ("lucene-hnsw",),
            queries.by_script,
            needs_scripts=True,
            has_graph=True,
        ),
        Strategy(
            "faiss-hnsw",
            "exact search (script), Faiss graph",
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
    """Return the strategy for an index with ``layout``; None means a new index.

    ``forced``: strategy named by the user. ``natives``: the user states that the native Faiss
    library is installed. Raises ConfigError if the server does not meet the requirements.
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
            usual = STRATEGIES["long" if layout is not None and not layout.is_vector else "script"]
            raise ConfigError(
                f"this server cannot search {layout.name if layout else 'codes'}: "
                + missing_requirement(usual, can)
            )
        return max(fitting, key=lambda strategy: (strategy.needs_hamming, strategy.has_graph))
    strategy = STRATEGIES[forced]
    if layout is not None and layout.name not in strategy.searches:
        raise ConfigError(
            f"strategy={forced} searches fields of layout {' or '.join(strategy.searches)}, "
            f"this index has {layout.name}: leave the strategy out, or load a new index with it"
        )
    missing = missing_requirement(strategy, can)
    if missing:
        raise ConfigError(f"strategy={forced} cannot be used on this server: {missing}")
    if layout is None:
        check_writable(strategy.makes, can, natives)
    return strategy


def check_writable(layout: Layout, can: Capabilities, natives: bool) -> None:
    """Raise ConfigError if writing a document could end the process of a node."""
    if layout.name == "faiss-hnsw" and not (natives or can.natives):
        raise ConfigError(
            "a Faiss graph (faiss-hnsw) needs the native library of Faiss on every node, and a "
            "node without it ends when a document is written: if it is installed, as in the full "
            "distribution, add natives=yes to the address"
        )


def missing_requirement(strategy: Strategy, can: Capabilities) -> str:
    """Return the requirement that a server lacks and what to do, or "" if it lacks none."""
    if strategy.makes.is_vector and not can.knn:
        return "it has no k-NN plugin on every node; use strategy=long, which does not need it"
    if strategy.makes.is_vector and can.version < (2, 19):
        return f"its version {can.version[0]}.{can.version[1]} is too old, expected 2.19 or later"
    if strategy.needs_hamming and not can.hamming:
        return (
            "the hamming plugin is not on every node: build it with xmodal-opensearch plugin "
            "build, or leave the strategy out"
        )
    if strategy.needs_scripts and not can.scripts:
        return "search.allow_expensive_queries is false, which refuses scripts; use strategy=knn"
    return ""
