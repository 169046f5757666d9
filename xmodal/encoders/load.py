"""Loading of an encoder from its folder."""

from __future__ import annotations

from pathlib import Path

from xmodal.encoders.encoder import Encoder
from xmodal.encoders.folder import ONNX_ENCODER, encoder_format
from xmodal.encoders.onnx_encoder import PortableEncoder
from xmodal.errors import ConfigError, ExtraMissing, missing_extra


def load_encoder(
    folder: str | Path, *, image_backbone: str | None = None, text_backbone: str | None = None
) -> Encoder:
    """Load the encoder in ``folder``, which ``xmodal train`` or ``xmodal export`` wrote.

    ``image_backbone`` and ``text_backbone``: new names or paths of moved backbones; a portable
    encoder has none. Raises ModelError if there is no encoder or its files do not belong together,
    ConfigError if a backbone is named for a portable encoder, and ExtraMissing if torch is needed
    and not installed.
    """
    path = Path(folder)
    if encoder_format(path) is ONNX_ENCODER:
        if image_backbone or text_backbone:
            raise ConfigError(
                f"the encoder in {path} is portable and contains its backbones: leave "
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
