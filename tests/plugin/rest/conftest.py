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
def folder(
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
def encoder(folder: Path) -> PortableEncoder:
    """The encoder in ``folder``."""
    return PortableEncoder.load(folder / "x.onnx")


@pytest.fixture(scope="session")
def tower(folder: Path) -> Path:
    """The archive of the text tower of ``encoder``."""
    return write_text_tower(folder / "x.onnx", folder / "text.zip").file
