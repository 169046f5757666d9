"""Backends of the contract suite. A new backend needs a name here and a function of addresses."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import Request, urlopen
from uuid import uuid4

import pytest
from contract.index_backend import Backend

STRATEGIES = ("hamming", "script", "knn", "long", "lucene-hnsw")
BACKENDS = ("local", *STRATEGIES)


@pytest.fixture(autouse=True)
def no_deprecated_request(
    request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> Iterator[None]:
    """Record the backend of a test; no request may be one that the server deprecates."""
    chosen = request.node.callspec.params
    feature = chosen.get("backend", chosen.get("module_backend"))
    request.node.user_properties.append(("feature", feature))
    with caplog.at_level(logging.INFO, "opensearch.deprecation"):
        yield
    assert [r for r in caplog.records if r.name == "opensearch.deprecation"] == []


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    """Every backend: the local index, and every strategy of a real OpenSearch node.

    Without k-NN a server has the strategy ``long`` only.
    """
    backend = make_backend(request, tmp_path)
    yield backend
    backend.close_all()


@pytest.fixture(params=BACKENDS, scope="module")
def module_backend(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Backend]:
    """Every backend, for indexes that all tests of a module share."""
    backend = make_backend(request, tmp_path_factory.mktemp("indexes"))
    yield backend
    backend.close_all()


def make_backend(request: pytest.FixtureRequest, folder: Path) -> Backend:
    """Return the backend of the parameter of a fixture; ``folder``: of local indexes."""
    strategy, numbers = request.param, count()
    if strategy == "local":
        return Backend(lambda: str(folder / f"index-{next(numbers)}"))
    if strategy != "long" and not request.getfixturevalue("node_plugins"):
        pytest.skip("this server version has no k-NN")
    fixture = "plugin_url" if strategy == "hamming" else "node_url"
    url = request.getfixturevalue(fixture).removeprefix("http://")
    name = f"c-{uuid4().hex[:8]}"

    def drop(address: str) -> None:
        index = urlsplit(address).path
        urlopen(Request(f"http://{url}{index}-000001", method="DELETE")).close()

    return Backend(
        lambda: f"opensearch://{url}/{name}-{next(numbers)}?strategy={strategy}",
        drop,
        examples=6,  # each creates an index on a server
        weighs_all=strategy in ("hamming", "long"),
    )
