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


@pytest.fixture(params=["local", *STRATEGIES])
def backend(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    node_plugins: tuple[str, ...],
    caplog: pytest.LogCaptureFixture,
) -> Iterator[Backend]:
    """Every backend: the local index, and every strategy of a real OpenSearch node.

    Without k-NN a server has the strategy ``long`` only. No request may be one that the server
    deprecates.
    """
    request.node.user_properties.append(("feature", request.param))
    if request.param not in ("local", "long") and not node_plugins:
        pytest.skip("this server version has no k-NN")
    numbers = count()
    if request.param == "local":
        backend = Backend(lambda: str(tmp_path / f"index-{next(numbers)}"))
    else:
        fixture = "plugin_url" if request.param == "hamming" else "node_url"
        url = request.getfixturevalue(fixture).removeprefix("http://")
        name = f"c-{uuid4().hex[:8]}"

        def drop(address: str) -> None:
            index = urlsplit(address).path
            urlopen(Request(f"http://{url}{index}-000001", method="DELETE")).close()

        backend = Backend(
            lambda: f"opensearch://{url}/{name}-{next(numbers)}?strategy={request.param}",
            drop,
            examples=6,  # each creates an index on a server
            weighs_all=request.param in ("hamming", "long"),
        )
    with caplog.at_level(logging.INFO, "opensearch.deprecation"):
        yield backend
        backend.close_all()
    assert [r for r in caplog.records if r.name == "opensearch.deprecation"] == []
