"""The REST path as a client takes it: curl lines, pictures in base64, hits as ids and distances."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from click.testing import CliRunner
from support.endpoint import Reply, Request, forward_to
from support.hamming_server import Refused, Server

from xmodal.data.dataset import Item
from xmodal.index.contract import Hit
from xmodal_opensearch.cli.commands import commands
from xmodal_opensearch.client.address import parse_address
from xmodal_opensearch.index.store import OpenSearchIndex, open_opensearch

Run = Callable[..., Any]


def alias(uri: str) -> str:
    """The name of an index."""
    return parse_address(uri).index


def allow(server: Run) -> None:
    """What an operator of a cluster would allow, for this machine."""
    settings = {
        "plugins.ml_commons.remote_inference.enabled": True,
        "plugins.ml_commons.connector.private_ip_enabled": True,
        "plugins.ml_commons.trusted_connector_endpoints_regex": ["^http://127\\.0\\.0\\.1:.*$"],
    }
    server("PUT", "_cluster/settings", {"persistent": settings})


def picture(item: Item) -> str:
    """A picture as a document carries it."""
    assert item.image is not None
    return base64.b64encode(Path(item.image).read_bytes()).decode()


def found(answer: Mapping[str, Any]) -> list[tuple[str, int, dict[str, Any]]]:
    """Ids, distances and fields of a search's answer."""
    return [
        (hit["_id"], round(1 / hit["_score"] - 1), hit.get("_source", {}))
        for hit in answer["hits"]["hits"]
    ]


def plain(hits: list[Hit]) -> list[tuple[str, int, dict[str, Any]]]:
    """The same of the Python path."""
    return [(hit.id, hit.distance, dict(hit.fields)) for hit in hits]


def curl(line: str, folder: Path, item: Item | None = None) -> Any:
    """What a line for the shell prints, where ``picture.jpg`` is the picture of ``item``.

    Without curl the test is skipped.
    """
    if shutil.which("curl") is None:
        pytest.skip("runs the printed lines, which need curl: apt-get install curl")
    if item is not None:
        shutil.copyfile(str(item.image), folder / "picture.jpg")
    done = subprocess.run(["bash", "-c", line], cwd=folder, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, ""), done
    return json.loads(done.stdout)


def connected(run: Run, uri: str, service: str, *more: object) -> dict[str, Any]:
    """What ``connect --json`` tells."""
    told = run("connect", uri, "--service", service, "--json", *more)
    assert told.status == 0, told.err
    answer: dict[str, Any] = json.loads(told.out)
    return answer


def done(told: Mapping[str, Any]) -> set[str]:
    """What became of the things that a connect or disconnect told of."""
    return {step["done"] for step in told["steps"]}


def pipeline(told: Mapping[str, Any], end: str) -> str:
    """The name of a pipeline that connect told of."""
    (name,) = [
        step["name"]
        for step in told["steps"]
        if step["name"].endswith(f"-{end}") and step["what"].endswith("pipeline")
    ]
    return str(name)


def service_behind(
    url: str, change: Callable[[Request, Reply], Reply] = lambda request, reply: reply
) -> Callable[[Request], Reply]:
    """The service's own answers, passed on by an Endpoint, which may change them."""
    forward = forward_to(url)
    return lambda request: change(request, forward(request))


def everything(ml: Run) -> dict[str, Any]:
    """All pipelines, connectors, models and groups of a cluster, and default pipelines."""
    out: dict[str, Any] = {}
    for kind in ("ingest", "search"):
        try:
            out[kind] = ml("GET", f"_{kind}/pipeline")
        except Refused:  # there is none
            out[kind] = {}
    for kind in ("connectors", "models", "model_groups"):
        answer = ml("POST", f"_plugins/_ml/{kind}/_search", {"size": 100})
        out[kind] = {hit["_id"]: hit["_source"] for hit in answer["hits"]["hits"]}
    defaults = ml("GET", "_all/_settings/index.default_pipeline,index.search.default_pipeline")
    out["defaults"] = {name: one["settings"] for name, one in defaults.items() if one["settings"]}
    return out


class Photos(NamedTuple):
    """A connected index, and what connect told."""

    uri: str
    told: dict[str, Any]
    index: OpenSearchIndex

    @property
    def name(self) -> str:
        """Its name in a path."""
        return alias(self.uri)

    def put(self, ml: Server, id_: str, document: Any, *, update: bool = False) -> Any:
        """Store a document through the pipeline; what is stored then."""
        through = f"pipeline={pipeline(self.told, 'ingest')}&refresh=true"
        ml("PUT", f"{self.name}/_doc/{id_}?{through}", document)
        return ml("GET", f"{self.name}/_doc/{id_}")["_source"]

    def bulk(self, ml: Server, lines: list[dict[str, Any]]) -> Any:
        """Several lines through the pipeline."""
        body = "".join(json.dumps(line) + "\n" for line in lines)
        path = f"{self.name}/_bulk?pipeline={pipeline(self.told, 'ingest')}&refresh=true"
        return ml("POST", path, body)

    def search(self, ml: Server, end: str, body: dict[str, Any]) -> Any:
        """A search through a pipeline."""
        return ml("POST", f"{self.name}/_search?search_pipeline={pipeline(self.told, end)}", body)


def run(*arguments: object) -> str:
    """What a command prints, which has to work."""
    done = CliRunner().invoke(commands, list(map(str, arguments)), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return str(done.stdout)


def laid(uri: str, service: str, model: Path, *more: object) -> Photos:
    """A new connected index."""
    run("create", uri, "--model", model)
    told = json.loads(run("connect", uri, "--service", service, "--json", *more))
    return Photos(uri, told, open_opensearch(uri))
