"""Addresses of new indexes on the session's node, and the node spoken to without the plugin."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any
from urllib.parse import urlencode
from urllib.request import Request, urlopen
from uuid import uuid4

import pytest

Rest = Callable[..., Any]


@pytest.fixture
def rest(node_url: str) -> Rest:
    """``rest("PUT", "/name", {...})`` -> the decoded answer."""

    def ask(method: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {"content-type": "application/json"}
        with urlopen(Request(node_url + path, data, headers, method=method)) as answer:
            return json.load(answer)

    return ask


@pytest.fixture
def address(node_url: str, rest: Rest) -> Iterator[Callable[..., str]]:
    """``address(way="knn")`` -> the address of an index that nobody has; deleted afterwards."""
    prefix, numbers = f"t-{uuid4().hex[:8]}", count()

    def new(**options: str) -> str:
        url = node_url.replace("http", "opensearch")
        return f"{url}/{prefix}-{next(numbers)}" + ("?" + urlencode(options) if options else "")

    yield new
    rest("DELETE", f"/{prefix}-*")
