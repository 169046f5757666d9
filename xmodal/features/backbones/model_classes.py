"""Which class of transformers makes the features of a model, from its configuration (torch)."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from xmodal.errors import ModelError

PROJECTED = ("CLIPTextModelWithProjection", "CLIPVisionModelWithProjection")
"""Architectures whose projection AutoModel drops."""
ENCODERS = {
    "t5": "T5EncoderModel",
    "mt5": "MT5EncoderModel",
    "umt5": "UMT5EncoderModel",
    "longt5": "LongT5EncoderModel",
    "switch_transformers": "SwitchTransformersEncoderModel",
}
"""Types of models with a decoder, and the classes of their encoders."""
REFUSED = {
    "blip-2": "compares a text with several vectors of a picture",
    "blip_2_qformer": "compares a text with several vectors of a picture",
    "clap": "is a model of sounds",
    "clvp": "is a model of sounds",
    "colpali": "makes several vectors of a text and of a picture",
    "colqwen2": "makes several vectors of a text and of a picture",
    "flava": "makes a vector of each part of a text and of a picture",
    "siglip2": "reads pictures as patches of any aspect ratio (NaFlex)",
    "siglip2_vision_model": "reads pictures as patches of any aspect ratio (NaFlex)",
}
"""Types of models that have no features of the usual kind, and why."""


def model_class(spec: str, config: Any) -> Any:
    """Return the class whose ``from_pretrained`` loads the model that makes the features.

    Raises ModelError for a type of models without one vector of a picture or text.
    """
    import transformers

    kind, architectures = config.model_type, config.architectures or ()
    if kind in REFUSED:
        raise ModelError(
            f"{spec} {REFUSED[kind]} ({kind}), expected one vector of each picture or text: choose "
            "another backbone"
        )
    for name in (*PROJECTED, "BlipForImageTextRetrieval"):
        if name in architectures:
            return getattr(transformers, name)
    return getattr(transformers, ENCODERS.get(kind, "AutoModel"))


def with_features(network: Any) -> Any:
    """Return the network itself, or one with the methods get_image_features and get_text_features
    around a network that has its two encoders and projections alone.
    """
    if type(network).__name__ == "BlipForImageTextRetrieval":
        return BlipRetrieval(network)
    return network


class BlipRetrieval(nn.Module):
    """The projections of BLIP for retrieval, which compares them by their cosine."""

    main_input_name = "pixel_values"

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.model = network
        self.dtype = network.dtype

    def get_image_features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Scaled pixels (b, 3, size, size) -> (b, dim)."""
        states = self.model.vision_model(pixel_values=pixel_values).last_hidden_state
        out: torch.Tensor = self.model.vision_proj(states[:, 0])
        return out

    def get_text_features(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Tokens and their mask, each (b, tokens) -> (b, dim)."""
        states = self.model.text_encoder(input_ids=input_ids, attention_mask=attention_mask)
        out: torch.Tensor = self.model.text_proj(states.last_hidden_state[:, 0])
        return out
