"""The REST path: curl commands, pictures in base64, hits as tuples, connected indexes."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from support.endpoint import Reply, Request, forward_to
from support.hamming_server import Refused, Server

from xmodal.data.items import Item
from xmodal.index.contract import Hit
from xmodal_opensearch.cli.commands import commands
from xmodal_opensearch.client.address import parse_address
from xmodal_opensearch.client.server import Server as Client
from xmodal_opensearch.index.store import OpenSearchIndex, open_opensearch

Run = Callable[..., Any]
HitTuple = tuple[str, int, dict[str, Any]]


def alias(uri: str) -> str:
    """Return the index name of an address."""
    return parse_address(uri).index


def allow(server: Run) -> None:
    """Set the cluster settings that ``connect`` requires for a service on this machine."""
    settings = {
        "plugins.ml_commons.remote_inference.enabled": True,
        "plugins.ml_commons.connector.private_ip_enabled": True,
        "plugins.ml_commons.trusted_connector_endpoints_regex": ["^http://127\\.0\\.0\\.1:.*$"],
    }
    server("PUT", "_cluster/settings", {"persistent": settings})


def picture(item: Item) -> str:
    """Return the picture of an item in base64."""
    assert item.images
    return base64.b64encode(Path(item.images[0]).read_bytes()).decode()


def answer_hits(answer: Mapping[str, Any]) -> list[HitTuple]:
    """Return ids, distances and fields of the hits in a search response."""
    return [
        (hit["_id"], round(1 / hit["_score"] - 1), hit.get("_source", {}))
        for hit in answer["hits"]["hits"]
    ]


def client_hits(hits: list[Hit]) -> list[HitTuple]:
    """Return ids, distances and fields of hits of the Python client."""
    return [(hit.id, hit.distance, dict(hit.fields)) for hit in hits]


def curl(command: str, folder: Path, item: Item | None = None) -> Any:
    """Run a curl command in ``folder`` and decode its output; skip the test without curl.

    The picture of ``item`` is copied to ``picture.jpg``.
    """
    if shutil.which("curl") is None:
        pytest.skip("runs the printed commands, which need curl: apt-get install curl")
    if item is not None:
        shutil.copyfile(str(item.images[0]), folder / "picture.jpg")
    done = subprocess.run(["bash", "-c", command], cwd=folder, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, ""), done
    return json.loads(done.stdout)


def connect(run: Run, uri: str, service: str, *more: object) -> dict[str, Any]:
    """Run ``connect --json`` and return its output."""
    result = run("connect", uri, "--service", service, "--json", *more)
    assert result.status == 0, result.err
    report: dict[str, Any] = json.loads(result.out)
    return report


def changes(report: Mapping[str, Any]) -> set[str]:
    """Return the kinds of changes in the output of ``connect`` or ``disconnect``."""
    return {step["done"] for step in report["steps"]}


def pipeline_name(report: Mapping[str, Any], suffix: str) -> str:
    """Return the name of a pipeline in the output of ``connect``."""
    (name,) = [
        step["name"]
        for step in report["steps"]
        if step["name"].endswith(f"-{suffix}") and step["what"].endswith("pipeline")
    ]
    return str(name)


def proxy(
    url: str, change: Callable[[Request, Reply], Reply] = lambda request, reply: reply
) -> Callable[[Request], Reply]:
    """Return a reply function that forwards requests to ``url``; ``change`` edits the replies."""
    forward = forward_to(url)
    return lambda request: change(request, forward(request))


def cluster_state(ml: Run) -> dict[str, Any]:
    """Return all pipelines, connectors, models, model groups and default pipelines."""
    state: dict[str, Any] = {}
    for kind in ("ingest", "search"):
        try:
            state[kind] = ml("GET", f"_{kind}/pipeline")
        except Refused:  # no pipeline exists
            state[kind] = {}
    for kind in ("connectors", "models", "model_groups"):
        answer = ml("POST", f"_plugins/_ml/{kind}/_search", {"size": 100})
        state[kind] = {hit["_id"]: hit["_source"] for hit in answer["hits"]["hits"]}
    defaults = ml("GET", "_all/_settings/index.default_pipeline,index.search.default_pipeline")
    state["defaults"] = {name: one["settings"] for name, one in defaults.items() if one["settings"]}
    return state


@dataclass(frozen=True)
class ConnectedIndex:
    """A connected index, and the output of ``connect --json``."""

    uri: str
    report: dict[str, Any]
    index: OpenSearchIndex

    @property
    def name(self) -> str:
        """The index name in a path."""
        return alias(self.uri)

    def put(self, ml: Server, id_: str, document: Any) -> Any:
        """Store a document through the ingest pipeline and return the stored document."""
        query = f"pipeline={pipeline_name(self.report, 'ingest')}&refresh=true"
        ml("PUT", f"{self.name}/_doc/{id_}?{query}", document)
        return ml("GET", f"{self.name}/_doc/{id_}")["_source"]

    def bulk(self, ml: Server, lines: list[dict[str, Any]]) -> Any:
        """Send lines of a bulk request through the ingest pipeline."""
        body = "".join(json.dumps(line) + "\n" for line in lines)
        path = f"{self.name}/_bulk?pipeline={pipeline_name(self.report, 'ingest')}&refresh=true"
        return ml("POST", path, body)

    def search(self, ml: Server, suffix: str, body: dict[str, Any]) -> Any:
        """Search through the search pipeline with this suffix."""
        name = pipeline_name(self.report, suffix)
        return ml("POST", f"{self.name}/_search?search_pipeline={name}", body)


def run(*arguments: object) -> str:
    """Run a command that must succeed, and return its standard output."""
    done = CliRunner().invoke(commands, list(map(str, arguments)), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return str(done.stdout)


def create_connected(uri: str, service: str, model: Path, *more: object) -> ConnectedIndex:
    """Create an index and connect it."""
    run("create", uri, "--model", model)
    report = json.loads(run("connect", uri, "--service", service, "--json", *more))
    return ConnectedIndex(uri, report, open_opensearch(uri))


class Killed(BaseException):
    """Raised in place of a kill; no ``except Exception`` handles it."""


def kill_after_each_change(patch: pytest.MonkeyPatch) -> None:
    """Raise Killed as soon as the server has executed a request that changes something."""
    request = Client.request

    def request_and_die(self: Client, method: str, path: str, *arguments: Any, **more: Any) -> Any:
        answer = request(self, method, path, *arguments, **more)
        if method != "GET" and not path.endswith(("_search", "_count", "_predict", "_refresh")):
            raise Killed(f"{method} {path}")
        return answer

    patch.setattr(Client, "request", request_and_die)
