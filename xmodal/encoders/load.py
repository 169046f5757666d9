"""The encoder that a folder holds, whichever kind it is."""

from __future__ import annotations

from pathlib import Path

from xmodal.encoders.encoder import Encoder
from xmodal.encoders.folder import read_config
from xmodal.encoders.onnx_encoder import KIND, PortableEncoder
from xmodal.errors import ConfigError, ExtraMissing, missing_extra


def load_encoder(
    folder: str | Path, *, image_backbone: str | None = None, text_backbone: str | None = None
) -> Encoder:
    """The encoder in ``folder``, as ``xmodal train`` or ``xmodal export`` made it.

    A backbone of a trained one that moved can be named anew. Raises ModelError if there is no
    encoder, or if its files do not belong together, ConfigError for a backbone that is named for a
    portable one, and ExtraMissing if what computes it is not installed.
    """
    path = Path(folder)
    if read_config(path).get("kind") == KIND:
        if image_backbone or text_backbone:
            raise ConfigError(
                f"the encoder in {path} is portable and has its backbones inside: leave "
                "--image-backbone and --text-backbone out"
            )
        return PortableEncoder.load(path)
    try:
        from xmodal.encoders.torch_encoder import TrainedEncoder
    except ModuleNotFoundError as error:
        if missing_extra(error) is None:
            raise
        raise ExtraMissing(
            f"the encoder in {path} (xmodal export makes a portable one of it)", "torch"
        ) from None
    return TrainedEncoder.load(path, image_backbone=image_backbone, text_backbone=text_backbone)
