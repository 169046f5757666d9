"""The encoder that a folder holds, whichever kind it is."""

from __future__ import annotations

from pathlib import Path

from xmodal.encoder import Encoder, read_config
from xmodal.errors import ExtraMissing, missing_extra


def load_encoder(
    folder: str | Path, *, image_backbone: str | None = None, text_backbone: str | None = None
) -> Encoder:
    """The encoder in ``folder``, as ``xmodal train`` made it.

    A backbone that moved can be named anew. Raises ModelError if there is no encoder, or if its
    files do not belong together, and ExtraMissing if torch is not installed.
    """
    path = Path(folder)
    read_config(path)  # where there is nothing, nothing needs torch
    try:
        from xmodal.trained import TrainedEncoder
    except ModuleNotFoundError as error:
        if missing_extra(error) is None:
            raise
        raise ExtraMissing(f"the encoder in {path}", "torch") from None
    return TrainedEncoder.load(path, image_backbone=image_backbone, text_backbone=text_backbone)
