"""Requests that ``connect`` sends, and the permission of the security plugin for each.

A request for an index alone is not listed: tests run it on a node with the security plugin.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from xmodal_opensearch.client.roles import find_operation
from xmodal_opensearch.client.server import Server

ML = "cluster:admin/opensearch/ml/"
"""Start of the permissions of ml-commons, which has no release for that of the security plugin."""
INGEST, SEARCH, SCRIPT = (f"cluster:admin/{name}" for name in ("ingest", "search", "script"))
PERMISSIONS = (
    ("GET", r"/_cluster/(settings|state/.*)", "cluster:monitor/state"),
    ("PUT", r"/_cluster/settings", "cluster:admin/settings/update"),
    ("PUT", r"/[^_/][^/]*/_settings", "indices:admin/settings/update"),
    ("GET", r"/_ingest/pipeline.*", f"{INGEST}/pipeline/get"),
    ("PUT", r"/_ingest/pipeline/.*", f"{INGEST}/pipeline/put"),
    ("DELETE", r"/_ingest/pipeline/.*", f"{INGEST}/pipeline/delete"),
    ("GET", r"/_search/pipeline.*", f"{SEARCH}/pipeline/get"),
    ("PUT", r"/_search/pipeline/.*", f"{SEARCH}/pipeline/put"),
    ("DELETE", r"/_search/pipeline/.*", f"{SEARCH}/pipeline/delete"),
    ("GET", r"/_scripts/.*", f"{SCRIPT}/get"),
    ("PUT", r"/_scripts/.*", f"{SCRIPT}/put"),
    ("DELETE", r"/_scripts/.*", f"{SCRIPT}/delete"),
    ("POST", r"/_plugins/_ml/(models|model_groups|connectors)/_search", ML + r"\1/search"),
    ("POST", r"/_plugins/_ml/model_groups/_register", f"{ML}register_model_group"),
    ("DELETE", r"/_plugins/_ml/(models|model_groups|connectors)/[^/]+", ML + r"\1/delete"),
    ("POST", r"/_plugins/_ml/models/_register", f"{ML}register_model"),
    ("POST", r"/_plugins/_ml/models/_register_meta", f"{ML}register_model_meta"),
    ("POST", r"/_plugins/_ml/models/[^/]+/upload_chunk/\d+", f"{ML}upload_model_chunk"),
    ("POST", r"/_plugins/_ml/models/[^/]+/_deploy", f"{ML}deploy_model"),
    ("POST", r"/_plugins/_ml/models/[^/]+/_undeploy", f"{ML}undeploy_models"),
    ("POST", r"/_plugins/_ml/models/[^/]+/_predict", f"{ML}predict"),
    ("GET", r"/_plugins/_ml/models/[^/]+", f"{ML}models/get"),
    ("PUT", r"/_plugins/_ml/models/[^/]+", f"{ML}models/update"),
    ("GET", r"/_plugins/_ml/tasks/[^/]+", f"{ML}tasks/get"),
    ("POST", r"/_plugins/_ml/connectors/_create", f"{ML}create_connector"),
    ("PUT", r"/_plugins/_ml/connectors/[^/]+", f"{ML}connectors/update"),
)
"""Method, pattern of the path, permission."""


def permission(method: str, path: str) -> str | None:
    """Return the permission that a request needs, None if it is not listed."""
    for its_method, pattern, found in PERMISSIONS:
        match = re.fullmatch(pattern, path)
        if method == its_method and match:
            return match.expand(found)
    return None


def granted(operation: str) -> set[str]:
    """Return the permissions of the role of an operation."""
    found = find_operation(operation)
    return {*found.cluster, *found.index, *found.optional}


@contextmanager
def recorded_permissions() -> Iterator[set[str]]:
    """Yield the set of the listed permissions that the requests of clients need meanwhile."""
    found: set[str] = set()
    send = Server.request

    def request(self: Server, method: str, path: str, *args: Any, **kwargs: Any) -> Any:
        needed = permission(method, path)
        assert needed or not path.startswith("/_plugins"), (method, path)
        found.update([needed] if needed else [])
        return send(self, method, path, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Server, "request", request)
        yield found
