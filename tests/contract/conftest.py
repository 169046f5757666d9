"""The backends of the contract suite: to add one, add its name and how it names an address."""

from __future__ import annotations

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
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    """One backend after the other: the local index, and every way of a real OpenSearch node."""
    numbers = count()
    if request.param == "local":
        made = Backend(lambda: str(tmp_path / f"index-{next(numbers)}"))
    else:
        there = "plugin_url" if request.param == "hamming" else "node_url"
        url = request.getfixturevalue(there).removeprefix("http://")
        name = f"c-{uuid4().hex[:8]}"

        def drop(address: str) -> None:
            index = urlsplit(address).path
            urlopen(Request(f"http://{url}{index}-000001", method="DELETE")).close()

        made = Backend(
            lambda: f"opensearch://{url}/{name}-{next(numbers)}?strategy={request.param}",
            drop,
            examples=6,  # each costs an index on a server
        )
    yield made
    made.close_all()
