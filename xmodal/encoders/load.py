"""Loading of an encoder from its folder."""

from __future__ import annotations

import logging
import time
from pathlib import Path

from xmodal.encoders.encoder import Encoder
from xmodal.encoders.engine import Engine, portable_folder, use_portable
from xmodal.encoders.folder import ONNX_ENCODER, encoder_format
from xmodal.encoders.onnx_encoder import PortableEncoder
from xmodal.encoders.providers import Provider
from xmodal.errors import ConfigError, ExtraMissing, missing_extra

log = logging.getLogger(__name__)


def load_encoder(
    folder: str | Path,
    *,
    image_backbone: str | None = None,
    text_backbone: str | None = None,
    engine: Engine = "auto",
    for_queries: bool = False,
    trust_remote_code: bool = False,
    provider: Provider = "cpu",
) -> Encoder:
    """Load the encoder in ``folder``, which ``xmodal train`` or ``xmodal export`` wrote.

    ``engine``: "onnx" is the portable encoder, in ``folder`` or in its subfolder ``portable``;
    "torch" the trained one; "auto" the portable one if it exists and the machine has no GPU.
    ``for_queries``: only single queries are encoded, which needs no GPU. ``image_backbone`` and
    ``text_backbone``: new names or paths of moved backbones; a portable encoder has none, so "auto"
    is torch. ``trust_remote_code``: code that belongs to the backbones may run. ``provider``:
    execution provider of onnxruntime, one of :data:`~xmodal.encoders.providers.PROVIDERS`; any
    other than "cpu" implies the engine "onnx", and is refused if its codes differ from the CPU's.

    Raises ModelError if there is no encoder or its files do not belong together, ConfigError if a
    backbone is named for a portable encoder or ``folder`` lacks the encoder of ``engine``, and
    ExtraMissing if packages of the engine are not installed.

    >>> xmodal.load_encoder("my.model").bits
    32
    """
    started, path = time.perf_counter(), Path(folder)
    encoder = _load(
        path, image_backbone, text_backbone, engine, for_queries, trust_remote_code, provider
    )
    seconds = time.perf_counter() - started
    log.debug("encoder %s: %s, %.2f s", path, type(encoder).__name__, seconds)
    return encoder


def _load(
    path: Path,
    image_backbone: str | None,
    text_backbone: str | None,
    engine: Engine,
    for_queries: bool,
    trust_remote_code: bool,
    provider: Provider,
) -> Encoder:
    moved = bool(image_backbone or text_backbone)
    if provider != "cpu":
        if engine == "torch":
            raise ConfigError(
                f"provider {provider} is of onnxruntime: leave --provider out, torch uses the GPU "
                "that it finds"
            )
        engine = "onnx"
    asked = "--engine onnx" if provider == "cpu" else f"--provider {provider}"
    portable = _portable(path, engine, asked, moved=moved, for_queries=for_queries)
    if portable is not None:
        if moved:
            raise ConfigError(
                f"the encoder in {portable} is portable and contains its backbones: leave "
                "--image-backbone and --text-backbone out"
            )
        return PortableEncoder.load(portable, provider)
    try:
        from xmodal.encoders.torch_encoder import TrainedEncoder
    except ModuleNotFoundError as error:
        if missing_extra(error) is None:
            raise
        raise ExtraMissing(
            f"the encoder in {path} (xmodal export makes a portable one of it)", "torch"
        ) from None
    return TrainedEncoder.load(
        path,
        image_backbone=image_backbone,
        text_backbone=text_backbone,
        trust_remote_code=trust_remote_code,
    )


def _portable(
    path: Path, engine: Engine, asked: str, *, moved: bool, for_queries: bool
) -> Path | None:
    """Return the folder of the portable encoder to load, None for the trained one.

    ``asked``: the option that requires the portable one, for an error.
    """
    if encoder_format(path) is ONNX_ENCODER:
        if engine == "torch":
            raise ConfigError(
                f"the encoder in {path} is portable: name the folder of xmodal train for torch, or "
                "leave --engine torch out"
            )
        return path
    if engine == "torch":
        return None
    if engine == "auto" and (moved or not use_portable(for_queries=for_queries)):
        return None
    found = portable_folder(path)
    if found is None and engine == "onnx":
        raise ConfigError(
            f"{path} has no portable encoder: make it with xmodal export --model {path}, or leave "
            f"{asked} out"
        )
    return found
