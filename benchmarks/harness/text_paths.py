"""A model with MiniLM, and OpenSearch indexes that encode texts: in the cluster, by the service."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.commands import run, serving
from harness.tasks import minilm
from xmodal.config import Options
from xmodal.data.readers.read import read
from xmodal.data.synthetic import write_synthetic_data
from xmodal.errors import ConfigError
from xmodal.export import Check, write_portable
from xmodal.training.train import train
from xmodal_opensearch.node.process import Node
from xmodal_opensearch.rest.pipelines import LITERAL

PLUGINS = ("opensearch-knn", "opensearch-ml", "neural-search")
IMAGES = 200
SETTINGS: Mapping[str, Any] = {"epochs": 4, "batch": 32, "hidden": 128}
PATHS = ("cluster", "service")


def train_model(folder: Path, bits: int) -> Path:
    """Train on rendered pictures: a small CNN, and MiniLM for texts; return the model's folder.

    The subfolder ``portable`` has its export.
    """
    data = read(write_synthetic_data(folder / "pictures", IMAGES), label_column="labels")
    options = Options(bits=bits, image_backbone="small-cnn", text_backbone=minilm())
    train(data, folder / "model", options, dict(SETTINGS), cache=folder / "cache")
    write_portable(folder / "model", check=Check(items=20))
    return folder / "model"


@dataclass(frozen=True)
class Connected:
    """An index whose texts are encoded on one of ``PATHS``, and the output of ``connect``."""

    node: Node
    uri: str
    report: Mapping[str, Any]
    service: str | None = None

    @property
    def index(self) -> str:
        """Name of the index."""
        return self.uri.rpartition("/")[2]

    @property
    def model_id(self) -> str:
        """Id of the model in ml-commons."""
        return next(one["id"] for one in self.report["steps"] if one["what"] == "model")

    def pipeline(self, suffix: str) -> str:
        """Name of the pipeline with this suffix."""
        names = (one["name"] for one in self.report["steps"] if "pipeline" in one["what"])
        return next(name for name in names if name.endswith(f"-{suffix}"))

    def search(self, text: str, id_: str) -> tuple[str, Any]:
        """Path and body of a search for ``text`` in the document ``id_``, and its code alone."""
        name, own = self.pipeline("text-to-text"), {"ids": {"values": [id_]}}
        path = f"/{self.index}/_search{{}}?search_pipeline={name}&_source=false"
        if self.service is None:
            params = {"text": text, "size": 1, "filter": own}
            return path.format("/template"), {"id": name, "params": params}
        if "${" in text or text.lstrip()[:1] in ("{", "["):  # see docs/opensearch.md
            text = LITERAL + text.replace("$", f"${LITERAL}")
        query = {"match": {"text": text}}
        return path.format(""), {"query": query, "size": 1, "post_filter": own}


@contextmanager
def connected_indexes(
    node: Node, portable: Path, archive: Path, name: str
) -> Iterator[dict[str, Connected]]:
    """Create and connect an index for each of ``PATHS``; a service runs meanwhile.

    ``portable``: folder of the encoder. ``archive``: its text encoder for ml-commons.
    """
    uris = {path: f"opensearch://127.0.0.1:{node.port}/{name}-{path}" for path in PATHS}
    run("xmodal_opensearch", "create", uris["service"], "--model", portable)
    with ExitStack() as stack:
        service = stack.enter_context(serving(portable, uris["service"]))
        sources = {"cluster": ("--in-cluster", archive), "service": ("--service", service)}
        found = {}
        for path, uri in uris.items():
            arguments = ("connect", uri, *sources[path], "--allow", "--json")
            report = json.loads(run("xmodal_opensearch", *arguments))
            found[path] = Connected(node, uri, report, service if path == "service" else None)
        yield found


class Client:
    """A connection to one server, for one thread."""

    def __init__(self, url: str) -> None:
        self._connection = http.client.HTTPConnection(url.partition("//")[2], timeout=300)

    def post(self, path: str, body: Any, kind: str = "application/json") -> Any:
        """Return the decoded answer. Raises ConfigError for another status than 200."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self._connection.request("POST", path, data, {"content-type": kind})
        response = self._connection.getresponse()
        content = response.read()
        if response.status != 200:
            raise ConfigError(f"{path} returned status {response.status}: {content[:300]!r}")
        return json.loads(content)


def bulk(client: Client, place: Connected, documents: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Store texts by id through the ingest pipeline; return reasons of refusals by id."""
    lines = (
        f"{json.dumps({'index': {'_id': id_}})}\n{json.dumps({'text': text})}\n"
        for id_, text in documents
    )
    path = f"/{place.index}/_bulk?pipeline={place.pipeline('ingest')}"
    answer = client.post(path, "".join(lines).encode(), "application/x-ndjson")
    items = [one["index"] for one in answer["items"]]
    return {one["_id"]: str(one["error"].get("reason")) for one in items if "error" in one}
