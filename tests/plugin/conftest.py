"""Fixtures of the plugin: addresses of new indexes, plain HTTP clients, nodes and a service."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode
from urllib.request import Request, urlopen
from uuid import uuid4

import pytest
from support.hamming_server import Refused, Server
from support.picture_host import picture_host
from support.rest_path import allow
from support.secured_node import SecuredNode

if TYPE_CHECKING:
    from xmodal.data.dataset import Dataset

Rest = Callable[..., Any]


@pytest.fixture(scope="session")
def rest(node_url: str) -> Rest:
    """``rest("PUT", "/name", {...})`` -> the decoded answer."""

    def send(method: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {"content-type": "application/json"}
        with urlopen(Request(node_url + path, data, headers, method=method)) as answer:
            return json.load(answer)

    return send


@contextmanager
def addresses(node_url: str, rest: Rest) -> Iterator[Callable[..., str]]:
    """Yield a function that returns addresses of new indexes; they are deleted at the end."""
    prefix, numbers = f"t-{uuid4().hex[:8]}", count()

    def new(**options: str) -> str:
        url = node_url.replace("http", "opensearch")
        return f"{url}/{prefix}-{next(numbers)}" + ("?" + urlencode(options) if options else "")

    yield new
    rest("DELETE", f"/{prefix}-*")


@pytest.fixture
def address(node_url: str, rest: Rest) -> Iterator[Callable[..., str]]:
    """``address(strategy="knn")`` -> the address of a new index of one test."""
    with addresses(node_url, rest) as new:
        yield new


@pytest.fixture(scope="module")
def module_address(node_url: str, rest: Rest) -> Iterator[Callable[..., str]]:
    """``module_address()`` -> the address of a new index that the tests of a module share."""
    with addresses(node_url, rest) as new:
        yield new


@pytest.fixture(scope="session")
def other_model(dataset: Dataset, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder of the same width as ``model``, with other weights."""
    from xmodal.config import Options
    from xmodal.training.train import train

    options = Options(bits=32, image_backbone="small-cnn", text_backbone="words", seed=5)
    folder = tmp_path_factory.mktemp("models") / "other.model"
    train(dataset, folder, options, {"epochs": 1, "batch": 32, "hidden": 32}, cache=cache)
    return folder


@pytest.fixture
def server(plugin_url: str) -> Server:
    """Plain HTTP client of the node with the hamming plugin."""
    return Server(plugin_url)


@pytest.fixture
def name(server: Server) -> Iterator[str]:
    """The name of a new index on ``server``, deleted at the end."""
    index = f"hamming-{uuid4().hex[:8]}"
    yield index
    with suppress(Refused):
        server("DELETE", index)


@pytest.fixture(scope="session")
def secured(node_parts: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredNode]:
    """A node with the security plugin and the hamming plugin."""
    from xmodal_opensearch.node import security
    from xmodal_opensearch.node.artifacts import KNN, newest_version
    from xmodal_opensearch.node.process import Node
    from xmodal_opensearch.server_plugin.build import plugin_folder

    version = newest_version([security.PLUGIN])
    with Node.start(
        tmp_path_factory.mktemp("opensearch") / "secured",
        plugins=[KNN, security.PLUGIN],
        extra_plugins=[plugin_folder(version)],
        version=version,
        # A new role or user makes the node check the passwords of all users again.
        settings={"plugins.security.password.hashing.bcrypt.rounds": "4"},
    ) as node:
        files = node.folder / security.FOLDER
        yield SecuredNode(
            node.url, files / security.CERTIFICATE, (files / security.PASSWORD).read_text()
        )


@contextmanager
def running(package: str, *arguments: object, ready: str) -> Iterator[str]:
    """Run a command in a process and stop it by SIGTERM.

    Yields the rest of the line of standard error that contains ``ready``.
    """
    program = f"from {package}.cli import main; main()"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        assert process.stderr is not None
        try:
            lines = []
            for line in process.stderr:
                lines.append(line)
                if ready in line:
                    yield line.partition(ready)[2].strip()
                    break
            else:
                pytest.fail(f"{package} {arguments[0]} ended: {''.join(lines)}")
            process.terminate()
            process.communicate(timeout=60)
        finally:
            process.kill()


@pytest.fixture(scope="session")
def ml_url(
    node_parts: None, server_version: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """URL of a node with ml-commons, neural-search and the hamming plugin.

    It runs local models in versions and on platforms with their libraries.
    """
    from xmodal.errors import ConfigError
    from xmodal_opensearch.node import local_models
    from xmodal_opensearch.node.process import free_ports

    folder, (port,) = tmp_path_factory.mktemp("ml") / "node", free_ports(1)
    options = (
        *("--with-ml", "--with-plugin", "--fast-start", "--folder", folder, "--port", port),
        *("--server", server_version),
    )
    with suppress(ConfigError):
        local_models.check(server_version, [local_models.ML])
        options += ("--local-models",)
    with running("xmodal_opensearch", "node", *options, ready="ready; data in"):
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="session")
def ml(ml_url: str) -> Server:
    """Plain HTTP client of ``ml_url``, a node that may call every service on this machine."""
    server = Server(ml_url)
    allow(server)
    return server


@pytest.fixture(scope="module")
def ml_address(ml: Server) -> Iterator[Callable[..., str]]:
    """``ml_address(strategy="knn")`` -> the address of a new index on ``ml``."""
    with addresses(ml.url, lambda method, path: ml(method, path.lstrip("/"))) as new:
        yield new


@pytest.fixture(scope="session")
def pictures_url(photos_folder: Path) -> Iterator[str]:
    """URL of a server of the files in ``photos_folder``."""
    with picture_host(photos_folder) as host:
        yield f"http://127.0.0.1:{host.port}"


@pytest.fixture(scope="session")
def service_url(model: Path, index_path: Path, pictures_url: str) -> Iterator[str]:
    """URL of ``xmodal serve`` with ``model``, which may download from ``pictures_url``.

    With $XMODAL_SERVICE_URL that service instead.
    """
    if url := os.environ.get("XMODAL_SERVICE_URL"):
        yield url
        return
    for package in ("fastapi", "uvicorn"):
        pytest.importorskip(package, reason="pip install -e '.[service]'")
    command = ("serve", "--model", model, "--index", index_path, "--port", 0)
    allowed = ("--allow-pictures-from", pictures_url.partition("//")[2])
    with running("xmodal", *command, *allowed, ready="listening on ") as url:
        yield url
