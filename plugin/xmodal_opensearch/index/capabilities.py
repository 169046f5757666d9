"""What a server can do, asked without trying anything on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from xmodal.errors import IndexMissing, ServerFailure
from xmodal_opensearch.client.server import Server
from xmodal_opensearch.index.ownership import read_tag

HAMMING = "opensearch-hamming"
"""The plugin of ours, compiled for a server by ``xmodal-opensearch plugin build``."""

HIDDEN_STATUSES = (400, 401, 403, 404, 405)
"""Answers of a server on which this user may not see something, or that does not have it."""


@dataclass(frozen=True)
class Capabilities:
    """What a server can do, as far as it says; ``plugins`` is None where it may not be asked."""

    version: tuple[int, int]
    plugins: frozenset[str] | None
    scripts: bool

    @classmethod
    def read(
        cls, info: Mapping[str, Any], plugins: Mapping[str, Any] | None, settings: Mapping[str, Any]
    ) -> Capabilities:
        """From the answers of ``/``, ``/_nodes/plugins`` and ``/_cluster/settings`` (flat)."""
        major, minor = (int(part) for part in info["version"]["number"].split(".")[:2])
        names = None
        if plugins is not None:
            every = [
                {one["name"] for one in node.get("plugins", [])}
                for node in plugins.get("nodes", {}).values()
            ]
            names = frozenset(set.intersection(*every)) if every else frozenset()
        expensive = [
            settings.get(level, {}).get("search.allow_expensive_queries")
            for level in ("transient", "persistent", "defaults")
        ]
        said = next((str(one) for one in expensive if one is not None), "true")
        return cls((major, minor), names, said != "false")

    @property
    def knn(self) -> bool:
        """Whether bit vectors can be stored; believed where plugins may not be listed."""
        return self.plugins is None or "opensearch-knn" in self.plugins

    @property
    def hamming(self) -> bool:
        """Whether our plugin is on every node."""
        return self.plugins is not None and HAMMING in self.plugins

    @property
    def hybrid(self) -> bool:
        """Whether neural-search is there."""
        return self.plugins is not None and "opensearch-neural-search" in self.plugins

    @property
    def natives(self) -> bool:
        """Whether Faiss' library is likely there: the full distribution brings it and security.

        It cannot be tried: a node without it hangs or ends when a document is written.
        """
        return self.plugins is not None and "opensearch-security" in self.plugins


def probe(server: Server) -> Capabilities:
    """What the server can do; what may not be asked counts as unknown."""

    def ask(path: str, **params: Any) -> Any:
        try:
            return server.request("GET", path, doing="asking for capabilities", **params)
        except ServerFailure as error:
            if error.status in HIDDEN_STATUSES:
                return None
            raise

    plugins = ask("/_nodes/plugins", filter_path="nodes.*.plugins.name,nodes.*.modules.name")
    settings = ask(
        "/_cluster/settings",
        include_defaults="true",
        flat_settings="true",
        filter_path=r"*.search\.allow_expensive_queries",  # one flat name, not a path
    )
    return Capabilities.read(server.info, plugins, settings or {})


def encodes_documents(server: Server, pipeline: str) -> bool:
    """Whether an ingest pipeline was made by ``xmodal-opensearch connect``, as far as visible."""
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
