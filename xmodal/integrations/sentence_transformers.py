"""Encoder as a model of sentence-transformers, which computes on tensors of torch.

The embedding of an input is its code as ``bits`` numbers -1 and +1. ``precision="ubinary"`` of
``SentenceTransformer.encode`` packs them to the bytes of :class:`~xmodal.codes.BinaryCodes`, and
the similarity "dot" is ``bits`` minus twice the Hamming distance.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modality import infer_batch_modality
from sentence_transformers.base.modality_types import Modality as Kind
from sentence_transformers.base.modules import InputModule

from xmodal.encoders.encoder import Encoder
from xmodal.encoders.hub import HubName, download
from xmodal.encoders.load import load_encoder
from xmodal.encoders.onnx_encoder import PortableEncoder
from xmodal.errors import ConfigError, DataError
from xmodal.integrations.sentence_folder import SIMILARITY, copy_encoder
from xmodal.modality import MODALITIES, Modality

CHANNELS = (1, 3, 4)
"""Numbers of channels of a picture that is given as an array."""


def load(folder: str | Path, **options: Any) -> SentenceTransformer:
    """Return the encoder in ``folder`` as a SentenceTransformer.

    ``folder``: one of ``xmodal train`` or ``xmodal export``. ``options``: those of
    :func:`xmodal.load_encoder`, whose errors are raised. No code of the folder runs, so that
    ``trust_remote_code`` is not needed as in ``SentenceTransformer(folder)``.
    """
    return of_encoder(load_encoder(folder, **options))


def of_encoder(encoder: Encoder) -> SentenceTransformer:
    """Return a loaded encoder as a SentenceTransformer."""
    module = CodeModule(encoder)
    return SentenceTransformer(modules=[module], device="cpu", similarity_fn_name=SIMILARITY)


class CodeModule(InputModule):
    """Module that encodes texts and pictures; it has no parameters and is not trained.

    ``encoder`` decides runtime and device.
    """

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.encoder = encoder

    @property
    def modalities(self) -> list[Kind]:
        """The kinds of inputs; those of one call are of one kind."""
        return ["text", "image"]

    def preprocess(
        self, inputs: Sequence[Any], prompt: str | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """Return the sources of a batch and their modality.

        ``inputs``: texts; or pictures as path, bytes, PIL image, or array of uint8 (height, width,
        channels) or (channels, height, width). ``prompt``: put in front of each text. Raises
        DataError for other inputs.
        """
        modality, sources = _sources(inputs)
        if modality == "text" and prompt:
            sources = [prompt + text for text in sources]
        return {"modality": modality, "sources": sources}

    def forward(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Encode a batch of :meth:`preprocess`.

        Returns ``sentence_embedding`` (b, bits) float32, values -1 and +1, and, of encoders that
        compute them, ``outputs`` (b, bits) float32 before tanh. Raises DataError for an unusable
        source.
        """
        encoded = self.encoder.encode(features["modality"], features["sources"])
        embeddings = {"sentence_embedding": torch.from_numpy(encoded.codes.to_signs())}
        if encoded.outputs is not None:
            embeddings["outputs"] = torch.from_numpy(encoded.outputs)
        return embeddings

    def get_embedding_dimension(self) -> int:
        """Return the bits of a code."""
        return self.encoder.bits

    def get_config_dict(self) -> dict[str, Any]:
        """Return what ``repr`` shows."""
        return {"bits": self.encoder.bits, "fingerprint": self.encoder.fingerprint}

    def save(self, output_path: str, *args: Any, **kwargs: Any) -> None:
        """Write the files of a portable encoder. Raises ConfigError for another encoder."""
        if not isinstance(self.encoder, PortableEncoder):
            raise ConfigError("only a portable encoder can be saved: run xmodal export first")
        copy_encoder(self.encoder.folder, Path(output_path))

    @classmethod
    def load(
        cls,
        model_name_or_path: str,
        subfolder: str = "",
        token: bool | str | None = None,
        cache_folder: str | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        init_defaults: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> CodeModule:
        """Load a portable encoder from a local folder or the hub; its cache is the default one.

        Raises the errors of :meth:`xmodal.Encoder.from_pretrained`.
        """
        if not Path(model_name_or_path).is_dir():
            name = HubName.parse(model_name_or_path, revision)
            return cls(PortableEncoder.load(download(name, token=token)))
        return cls(PortableEncoder.load(Path(model_name_or_path, subfolder)))


def _sources(inputs: Sequence[Any]) -> tuple[Modality, list[Any]]:
    """Return the modality of a batch, and its texts or pictures."""
    if all(isinstance(one, Path | bytes) for one in inputs):
        return "image", list(inputs)
    try:
        modality = infer_batch_modality(inputs, supported_modalities=list(MODALITIES))
    except ValueError as error:
        raise DataError(str(error)) from None
    if modality not in MODALITIES:
        raise DataError(f"the inputs are {modality}, expected texts alone or pictures alone")
    plain = [one[modality] if isinstance(one, dict) else one for one in inputs]
    check = _text if modality == "text" else _picture
    return modality, [check(one) for one in plain]


def _text(text: object) -> str:
    if not isinstance(text, str):
        raise DataError(f"an input is {type(text).__name__}, expected a text or a picture")
    return text


def _picture(picture: Any) -> Any:
    """Return a picture as the encoder reads it. Raises DataError for one that is not local."""
    if isinstance(picture, str) and picture.startswith(("data:", "http://", "https://")):
        raise DataError(f"{picture[:80]}: expected a local file, or the picture itself")
    if isinstance(picture, np.ndarray | torch.Tensor):
        array = np.asarray(picture)
        if array.dtype != np.uint8 or array.ndim != 3:
            raise DataError(f"a picture is {array.dtype} {array.shape}, expected uint8 (h, w, 3)")
        if array.shape[2] not in CHANNELS:
            array = array.transpose(1, 2, 0)
        if array.shape[2] not in CHANNELS:
            raise DataError(f"a picture has shape {array.shape}, expected (h, w, 3)")
        return Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)
    return picture
