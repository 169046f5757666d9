"""Addresses of new indexes on the session's node, and the node spoken to without the plugin."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode
from urllib.request import Request, urlopen
from uuid import uuid4

import pytest
from hamming_server import Refused, Server

if TYPE_CHECKING:
    from xmodal.data import Dataset

Rest = Callable[..., Any]


@pytest.fixture(scope="session")
def rest(node_url: str) -> Rest:
    """``rest("PUT", "/name", {...})`` -> the decoded answer."""

    def ask(method: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {"content-type": "application/json"}
        with urlopen(Request(node_url + path, data, headers, method=method)) as answer:
            return json.load(answer)

    return ask


@contextmanager
def addresses(node_url: str, rest: Rest) -> Iterator[Callable[..., str]]:
    """A maker of addresses of indexes that nobody has; what is made there is deleted at the end."""
    prefix, numbers = f"t-{uuid4().hex[:8]}", count()

    def new(**options: str) -> str:
        url = node_url.replace("http", "opensearch")
        return f"{url}/{prefix}-{next(numbers)}" + ("?" + urlencode(options) if options else "")

    yield new
    rest("DELETE", f"/{prefix}-*")


@pytest.fixture
def address(node_url: str, rest: Rest) -> Iterator[Callable[..., str]]:
    """``address(way="knn")`` -> the address of a new index of one test."""
    with addresses(node_url, rest) as new:
        yield new


@pytest.fixture(scope="module")
def lasting_address(node_url: str, rest: Rest) -> Iterator[Callable[..., str]]:
    """The same, of an index that the tests of a module share."""
    with addresses(node_url, rest) as new:
        yield new


@pytest.fixture(scope="session")
def other_model(dataset: Dataset, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder of the same width as ``model``, with other weights."""
    from xmodal.training import Options, train

    options = Options(bits=32, image_backbone="small-cnn", text_backbone="words", seed=5)
    folder = tmp_path_factory.mktemp("models") / "other.model"
    train(dataset, folder, options, {"epochs": 1, "batch": 32, "hidden": 32}, cache=cache)
    return folder


@pytest.fixture
def server(plugin_url: str) -> Server:
    """The node with the hamming query, spoken to without any client of ours."""
    return Server(plugin_url)


@pytest.fixture
def name(server: Server) -> Iterator[str]:
    """The name of a new index there, deleted at the end."""
    index = f"hamming-{uuid4().hex[:8]}"
    yield index
    with suppress(Refused):
        server("DELETE", index)
