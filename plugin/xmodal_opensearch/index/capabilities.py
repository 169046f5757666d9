"""Capabilities of a server, read without writing to it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from xmodal.errors import IndexMissing, ServerFailure
from xmodal_opensearch.client.server import Server
from xmodal_opensearch.index.ownership import read_tag

HAMMING = "opensearch-hamming"
"""Name of the server plugin that ``xmodal-opensearch plugin build`` compiles."""

RANKING_VERSION = (0, 2)
"""First version of that plugin with weights, vector_cosine and two_stage."""

NESTED_FILTERS_VERSION = (3, 5)
"""First version whose ``knn`` query applies every filter to the documents of nested codes."""

HIDDEN_STATUSES = (400, 401, 403, 404, 405)
"""HTTP statuses of a request that the user may not send or that the server does not offer."""


@dataclass(frozen=True)
class Capabilities:
    """Version, plugins installed on every node, and whether scripts are allowed.

    ``plugins`` is None if the user may not list them. ``hamming_version`` is the lowest version of
    the hamming plugin on a node, None without.
    """

    version: tuple[int, int]
    plugins: frozenset[str] | None
    scripts: bool
    hamming_version: tuple[int, int] | None = None

    @classmethod
    def read(
        cls, info: Mapping[str, Any], plugins: Mapping[str, Any] | None, settings: Mapping[str, Any]
    ) -> Capabilities:
        """Return the capabilities from the answers of the addresses that ``probe`` requests."""
        major, minor = (int(part) for part in info["version"]["number"].split(".")[:2])
        names, hamming = None, None
        if plugins is not None:
            by_node = [
                {plugin["name"]: plugin.get("version", "") for plugin in node.get("plugins", [])}
                for node in plugins.get("nodes", {}).values()
            ]
            names = frozenset(set.intersection(*map(set, by_node))) if by_node else frozenset()
            if HAMMING in names:
                hamming = min(_major_minor(versions[HAMMING]) for versions in by_node)
        levels = [
            settings.get(level, {}).get("search.allow_expensive_queries")
            for level in ("transient", "persistent", "defaults")
        ]
        allowed = next((str(value) for value in levels if value is not None), "true")
        return cls((major, minor), names, allowed != "false", hamming)

    @property
    def knn(self) -> bool:
        """Whether bit vectors can be stored; assumed if plugins may not be listed."""
        return self.plugins is None or "opensearch-knn" in self.plugins

    @property
    def filters_nested(self) -> bool:
        """Whether a filter of a ``knn`` query on nested codes is applied to their documents.

        Before, all documents with several codes were left out by most filters (k-NN issue 2222).
        """
        return self.version >= NESTED_FILTERS_VERSION

    @property
    def hamming(self) -> bool:
        """Whether the hamming plugin is on every node."""
        return self.plugins is not None and HAMMING in self.plugins

    @property
    def weights(self) -> bool:
        """Whether the hamming query has weights on every node."""
        return self.hamming_version is not None and self.hamming_version >= RANKING_VERSION

    @property
    def two_stage(self) -> bool:
        """Whether the queries two_stage and vector_cosine are on every node."""
        return self.weights

    @property
    def secured(self) -> bool:
        """Whether the security plugin may be on a node; assumed if plugins may not be listed."""
        return self.plugins is None or "opensearch-security" in self.plugins

    @property
    def hybrid(self) -> bool:
        """Whether the plugin neural-search is on every node."""
        return self.plugins is not None and "opensearch-neural-search" in self.plugins

    @property
    def natives(self) -> bool:
        """Whether the native Faiss library is probably installed.

        The full distribution contains both this library and the security plugin. A test is not
        possible: a node without the library hangs or ends when a document is written.
        """
        return self.plugins is not None and "opensearch-security" in self.plugins


def probe(server: Server) -> Capabilities:
    """Return the capabilities of a server; unknown where the user lacks permissions."""

    def get(path: str, **params: Any) -> Any:
        try:
            return server.request("GET", path, doing="reading capabilities", **params)
        except ServerFailure as error:
            if error.status in HIDDEN_STATUSES:
                return None
            raise

    shown = "nodes.*.plugins.name,nodes.*.plugins.version,nodes.*.modules.name"
    plugins = get("/_nodes/plugins", filter_path=shown)
    settings = get(
        "/_cluster/settings",
        include_defaults="true",
        flat_settings="true",
        filter_path=r"*.search\.allow_expensive_queries",  # one flat name, not a path
    )
    return Capabilities.read(server.info, plugins, settings or {})


def _major_minor(version: str) -> tuple[int, int]:
    """Return the first two numbers of a version; (0, 0) if it has none."""
    match = re.match(r"(\d+)\.(\d+)", version)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def encodes_documents(server: Server, pipeline: str) -> bool:
    """Return whether a pipeline was made by ``xmodal-opensearch connect``; False if not visible."""
    try:
        found = server.request(
            "GET", f"/_ingest/pipeline/{pipeline}", doing="reading an ingest pipeline"
        )
    except IndexMissing:
        return False
    except ServerFailure as error:
        if error.status in HIDDEN_STATUSES:
            return False
        raise
    return read_tag(found.get(pipeline, {}).get("description")) is not None
