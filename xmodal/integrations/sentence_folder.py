"""Folder of a portable encoder that ``SentenceTransformer`` loads as well.

It has two files beside those of :mod:`xmodal.encoders.onnx_encoder`: ``modules.json`` names the
class that computes, ``config_sentence_transformers.json`` the similarity. This module needs no
package of the extra.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Literal

from xmodal.encoders.engine import require_portable
from xmodal.encoders.folder import (
    CONFIG,
    FILES_KEY,
    MODEL_CARD,
    ONNX_ENCODER,
    SENTENCE_CONFIG,
    SENTENCE_MODULES,
    check_recorded,
    damage_as_model_error,
    read_config,
    replaced_folder,
)
from xmodal.encoders.onnx_encoder import PortableEncoder
from xmodal.errors import ConfigError
from xmodal.writing import write_json

SIMILARITY: Literal["dot"] = "dot"
"""Similarity of codes of -1 and +1: bits minus twice the Hamming distance, exact in float32."""
MODULES = [
    {
        "idx": 0,
        "name": "0",
        "path": "",
        "type": "xmodal.integrations.sentence_transformers.CodeModule",
    }
]
SETTINGS = {
    "model_type": "SentenceTransformer",
    "similarity_fn_name": SIMILARITY,
    "prompts": {"query": "", "document": ""},
    "default_prompt_name": None,
    "requirements": {"sentence-transformers": ">=6"},
}


def write_sentence_folder(
    model: str | Path, out: str | Path, *, restart: bool = False
) -> PortableEncoder:
    """Copy the portable encoder of ``model`` to the folder ``out``, for ``SentenceTransformer``.

    ``model``: folder of a portable encoder, or of a trained one with its portable encoder.
    Returns the encoder of ``out``, which has the codes and the fingerprint of ``model``. Raises
    ConfigError if ``model`` has no portable encoder, and if ``out`` exists without ``restart``;
    ModelError if a file of ``model`` is damaged.
    """
    folder, source = Path(out), require_portable(Path(model))
    if not restart and (folder.is_file() or (folder.is_dir() and any(folder.iterdir()))):
        raise ConfigError(
            f"{folder} exists already: name a new folder, or replace it with --restart"
        )
    with replaced_folder(folder, ONNX_ENCODER) as new:
        write_json(new / SENTENCE_MODULES, MODULES)
        write_json(new / SENTENCE_CONFIG, SETTINGS)
        copy_encoder(source, new)
    return PortableEncoder.load(folder)


def copy_encoder(source: Path, target: Path) -> None:
    """Copy a portable encoder and its model card to a folder that exists.

    ``config.json`` is copied last. Raises ModelError if a file is missing or damaged.
    """
    if os.path.samefile(source, target):
        return
    config = read_config(source, ONNX_ENCODER)
    with damage_as_model_error(source, ONNX_ENCODER):
        names = [name for name in config[FILES_KEY] if name in ONNX_ENCODER.files]
        check_recorded(source, config, *names)
    cards = [MODEL_CARD] if (source / MODEL_CARD).is_file() else []
    for name in (*names, *cards, CONFIG):
        shutil.copyfile(source / name, target / name)
