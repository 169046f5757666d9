"""Fixtures of text towers: a small text model with random weights, and its archive."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.exported import exported, untrained
from support.text_families import text_model

from xmodal.encoders.onnx_encoder import PortableEncoder
from xmodal.errors import ConfigError
from xmodal.export.ml_commons import write_text_tower
from xmodal_opensearch.node import local_models


@pytest.fixture(scope="session")
def bert_folder(
    export_extra: None, ml_url: str, server_version: str, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A folder with x.onnx, a portable encoder with random weights and a small BERT for texts."""
    try:
        local_models.check(server_version, [local_models.ML])
    except ConfigError as error:
        pytest.skip(str(error))
    new = tmp_path_factory.mktemp("bert")
    exported(untrained("small-cnn", str(text_model("bert", new / "bert"))), new)
    return new


@pytest.fixture(scope="session")
def bert_encoder(bert_folder: Path) -> PortableEncoder:
    """The encoder in ``bert_folder``."""
    return PortableEncoder.load(bert_folder / "x.onnx")


@pytest.fixture(scope="session")
def tower(bert_folder: Path) -> Path:
    """The archive of the text tower of ``bert_encoder``."""
    return write_text_tower(bert_folder / "x.onnx", bert_folder / "text.zip").file
