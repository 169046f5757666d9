"""Backbones from Hugging Face transformers (torch): CLIP-like, vision and text models."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from torch import nn

from xmodal.config import Precision
from xmodal.data.images import Pixels, Preprocessing
from xmodal.device import DTYPES, batch_size, device, with_precision
from xmodal.errors import ModelError
from xmodal.features.backbones.connectivity import check_reachable
from xmodal.features.backbones.modules import PixelNetwork, run
from xmodal.features.backbones.sentence_layout import SentenceLayout, pool, read_layout
from xmodal.features.known_tokens import KnownTokens

MAX_TOKENS = 512
POOLED_TEXTS = ("clip_text_model", "siglip_text_model")
"""Text models whose pooled output is the vector that they were trained for."""


def load_image(spec: str, precision: Precision = "float32") -> HuggingFaceImageBackbone:
    """Load the image backbone of a model. Raises ModelError if it has none."""
    model = _load(spec, precision)
    if not model.has_images:
        raise ModelError(f"{spec} is a text model ({model.kind}), expected one for images")
    return HuggingFaceImageBackbone(spec, model)


def load_text(spec: str, precision: Precision = "float32") -> HuggingFaceTextBackbone:
    """Load the text backbone of a model. Raises ModelError if it has none."""
    model = _load(spec, precision)
    if not model.has_texts:
        raise ModelError(f"{spec} is a vision model ({model.kind}), expected one for texts")
    return HuggingFaceTextBackbone(spec, model)


class HuggingFaceModel:
    """A loaded model: its type, its modalities, and a fingerprint of its files and precision.

    ``has_pooler``: the weights contain the pooler, so that its pooled output can be used.
    ``is_multimodal``: the model projects pictures and texts into a common space. ``layout``: its
    pooling and dense layers, if it is of sentence-transformers.
    """

    def __init__(
        self,
        spec: str,
        config: Any,
        network: Any,
        fingerprint: str,
        layout: SentenceLayout,
        *,
        has_pooler: bool,
    ) -> None:
        self.spec, self.layout = spec, layout
        self.kind: str = config.model_type
        self.config = config
        self.network = network
        self.fingerprint = fingerprint
        self.has_pooler = has_pooler
        self.is_multimodal = hasattr(network, "get_image_features") and hasattr(
            network, "get_text_features"
        )
        self.has_images = self.is_multimodal or network.main_input_name == "pixel_values"
        self.has_texts = self.is_multimodal or network.main_input_name == "input_ids"
        self.space = fingerprint if self.is_multimodal else None


class HuggingFaceImageBackbone:
    """Projected image features of a CLIP-like model, else the pooled output of a vision model.

    ``network`` maps pixels (b, size, size, 3) uint8 to features (b, dim).
    """

    raw = False

    def __init__(self, spec: str, model: HuggingFaceModel) -> None:
        from transformers import AutoImageProcessor

        self.spec = spec
        self.fingerprint = model.fingerprint
        self.space = model.space
        self.batch = batch_size()
        source = _source(spec, model.layout.subfolder)
        processor = _load_or_raise(spec, lambda: AutoImageProcessor.from_pretrained(**source))
        self.preprocessing = _preprocessing(processor)
        network = PixelNetwork(_ImageFeatures(model), self.preprocessing)
        self.network = network.to(device(), model.network.dtype)
        size = self.preprocessing.size
        self.dim = self.forward(np.zeros((1, size, size, 3), np.uint8)).shape[1]

    def forward(self, pixels: Pixels) -> npt.NDArray[np.float32]:
        """(b, size, size, 3) uint8 -> (b, dim)."""
        return run(self.network, torch.from_numpy(pixels))


class HuggingFaceTextBackbone:
    """Projected text features of a CLIP-like model, the end-of-text vector of its text model, or
    the mean over the tokens of another text model.

    A folder of sentence-transformers declares another pooling, dense layers and a limit of tokens.

    ``network`` maps the tensors named in ``inputs``, each (b, tokens), to features (b, dim).
    """

    def __init__(self, spec: str, model: HuggingFaceModel) -> None:
        from transformers import AutoTokenizer

        self.spec = spec
        self.space = model.space
        self.batch = 2 * batch_size()
        source = _source(spec, model.layout.subfolder)
        self._tokenizer = _load_or_raise(spec, lambda: AutoTokenizer.from_pretrained(**source))
        self._lower = model.layout.lower
        text = getattr(model.config, "text_config", model.config)
        max_positions = getattr(text, "max_position_embeddings", MAX_TOKENS)
        longest = min(max_positions, self._tokenizer.model_max_length, MAX_TOKENS)
        self.max_tokens = min(longest, model.layout.max_tokens or longest)
        self.fingerprint = _text_fingerprint(model, shortened=self.max_tokens < longest)
        # SigLIP was trained on texts padded to full length, without a mask.
        self.padding = "max_length" if model.kind.startswith("siglip") else "longest"
        self.inputs = tuple(self._tokenize(["a"]))
        self.network = _TextFeatures(model, self.inputs)
        self.dim = self.forward(["a"]).shape[1]

    def forward(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """``b`` texts -> (b, dim)."""
        tokens = self._tokenize(texts)
        return run(self.network, *(tokens[name] for name in self.inputs))

    def _tokenize(self, texts: Sequence[str]) -> dict[str, torch.Tensor]:
        """Return token ids, mask and other inputs of the model, each (b, tokens)."""
        return dict(
            self._tokenizer(
                [text.lower() for text in texts] if self._lower else list(texts),
                padding=self.padding,
                truncation=True,
                max_length=self.max_tokens,
                return_tensors="pt",
            )
        )

    def has_known_token(self, text: str) -> bool:
        """Return whether the tokenizer has a token of the text, longer than one letter."""
        (ids,) = self._tokenize([text])["input_ids"].tolist()
        return self._known_tokens.any_of(ids)

    @cached_property
    def _known_tokens(self) -> KnownTokens:
        return KnownTokens(
            lambda ids: str(self._tokenizer.decode(ids, skip_special_tokens=True)),
            self._tokenizer.get_vocab(),
        )

    def tokenizer_json(self) -> str:
        """Return the tokenizer as JSON of the package tokenizers, with truncation and padding.

        Raises ModelError for a tokenizer that is written in Python.
        """
        tokenizer = self._tokenizer
        if not hasattr(tokenizer, "backend_tokenizer"):
            raise ModelError(
                f"the tokenizer of {self.spec} ({type(tokenizer).__name__}) is written in Python, "
                "expected one of the package tokenizers: choose another text backbone"
            )
        from tokenizers import Tokenizer

        out = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        out.enable_truncation(self.max_tokens, direction=tokenizer.truncation_side)
        out.enable_padding(
            direction=tokenizer.padding_side,
            pad_id=tokenizer.pad_token_id,
            pad_type_id=tokenizer.pad_token_type_id,
            pad_token=tokenizer.pad_token,
            length=self.max_tokens if self.padding == "max_length" else None,
        )
        return str(out.to_str())


class _ImageFeatures(nn.Module):
    """Scaled pixels -> features."""

    def __init__(self, model: HuggingFaceModel) -> None:
        super().__init__()
        self.model = model.network
        self.is_multimodal, self.has_pooler = model.is_multimodal, model.has_pooler

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Shape (b, 3, size, size) -> (b, dim)."""
        encode = self.model.get_image_features if self.is_multimodal else self.model
        return _pooled(encode(pixel_values=pixel_values), self.has_pooler)


class _TextFeatures(nn.Module):
    """Tokens -> features; ``inputs``: names of the input tensors of the model."""

    def __init__(self, model: HuggingFaceModel, inputs: tuple[str, ...]) -> None:
        super().__init__()
        self.model = model.network
        self.is_multimodal, self.has_pooler = model.is_multimodal, model.has_pooler
        self.is_pooled = model.kind in POOLED_TEXTS
        self.pooling, self.dense = model.layout.pooling, model.layout.dense.to(device())
        self.inputs = inputs

    def forward(self, *tokens: torch.Tensor) -> torch.Tensor:
        """Tensors of shape (b, tokens), in the order of ``inputs`` -> (b, dim)."""
        named = dict(zip(self.inputs, tokens, strict=True))
        if self.is_multimodal:
            return _pooled(self.model.get_text_features(**named), self.has_pooler)
        out = self.model(**named)
        if self.is_pooled:
            projects = hasattr(out, "text_embeds")
            vectors: torch.Tensor = out.text_embeds if projects else out.pooler_output
            return vectors
        pooled = pool(out.last_hidden_state, named["attention_mask"], self.pooling)
        projected: torch.Tensor = self.dense(pooled)
        return projected


def _text_fingerprint(model: HuggingFaceModel, *, shortened: bool) -> str:
    """Return the fingerprint of text features; earlier versions took the mean of all tokens."""
    fingerprint = model.fingerprint
    if model.is_multimodal:
        return fingerprint
    if model.kind in POOLED_TEXTS:
        return f"{fingerprint}-pooled"
    if not model.layout.is_plain:
        fingerprint += f"-{model.layout.digest}"
    return f"{fingerprint}-{model.layout.max_tokens}" if shortened else fingerprint


@lru_cache(maxsize=4)
def _load(spec: str, precision: Precision) -> HuggingFaceModel:
    """Load a local folder or a model of the hub; download it if needed and reachable."""
    import transformers
    from transformers import AutoConfig, AutoModel

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    local = Path(spec).expanduser()
    if local.exists() or spec.startswith((".", "/", "~")):
        named = ("config.json", "modules.json")
        if not any((local / name).is_file() for name in named):
            raise ModelError(
                f"{spec} is not a model that transformers can load, expected a folder with "
                "config.json, as save_pretrained writes it"
            )
    elif not _is_downloaded(spec):
        from huggingface_hub import constants

        check_reachable(constants.ENDPOINT, spec)
    layout = read_layout(spec, lambda name: _find(spec, name))
    source = _source(spec, layout.subfolder)
    config = _load_or_raise(spec, lambda: AutoConfig.from_pretrained(**source))
    model_class: Any = AutoModel
    if "CLIPTextModelWithProjection" in (config.architectures or ()):
        model_class = transformers.CLIPTextModelWithProjection  # AutoModel drops the projection
    network, info = _load_or_raise(
        spec,
        lambda: model_class.from_pretrained(
            **source, dtype=DTYPES[precision], use_safetensors=True, output_loading_info=True
        ),
    )
    # transformers initialises missing tensors at random. A missing pooler is common and not used.
    missing = sorted(info["missing_keys"])
    required = [name for name in missing if "pooler" not in name]
    if required:
        raise ModelError(
            f"the weights of {spec} lack {len(required)} tensors of its model (first "
            f"{required[0]}): expected a complete model, as save_pretrained writes it"
        )
    commit = getattr(config, "_commit_hash", None)
    weights = (
        f"hub-{commit}"
        if commit and not local.exists()
        else f"files-{_digest(local / layout.subfolder)}"
    )
    fingerprint = with_precision(weights, precision)
    return HuggingFaceModel(
        spec, config, network.to(device()).eval(), fingerprint, layout, has_pooler=not missing
    )


def _source(spec: str, subfolder: str = "") -> dict[str, Any]:
    """Return arguments for from_pretrained; local and downloaded models need no network."""
    local = Path(spec).expanduser()
    if local.exists():
        path = str(local / subfolder)
        return {"pretrained_model_name_or_path": path, "local_files_only": True}
    return {
        "pretrained_model_name_or_path": spec,
        "subfolder": subfolder,
        "local_files_only": _is_downloaded(spec),
    }


def _find(spec: str, name: str) -> Path | None:
    """Return the local path of a file of a model, None if the model lacks it."""
    local = Path(spec).expanduser()
    if local.exists():
        path = local / name
        return path if path.is_file() else None
    from transformers.utils.hub import cached_file

    found = cached_file(
        spec,
        name,
        local_files_only=_is_downloaded(spec),
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    return None if found is None else Path(found)


def _is_downloaded(spec: str) -> bool:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = [try_to_load_from_cache(spec, name) for name in ("config.json", "modules.json")]
    except HFValidationError:
        raise ModelError(
            f"backbone {spec!r} is unknown: expected words, small-cnn, a torchvision model, a "
            "local path, or a name on the model hub such as openai/clip-vit-base-patch32"
        ) from None
    snapshots = [Path(path).parent for path in found if isinstance(path, str)]
    return any(any(folder.rglob("*.safetensors")) for folder in snapshots)


def _load_or_raise(spec: str, load: Callable[[], Any]) -> Any:
    """Call ``load``; raise ModelError in one line for the errors of transformers."""
    try:
        return load()
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:160]
        raise ModelError(f"backbone {spec!r} cannot be loaded: {reason}") from None


def _preprocessing(processor: Any) -> Preprocessing:
    """Return the preprocessing of an image processor of transformers."""

    def pixels(size: Any) -> int:
        values = dict(size) if not isinstance(size, int) else {"height": size}
        return int(next(v for k in ("shortest_edge", "height") if (v := values.get(k))))

    resized = pixels(processor.size)
    crops = bool(getattr(processor, "do_center_crop", False)) and processor.crop_size is not None
    size = pixels(processor.crop_size) if crops else resized
    keeps_shape = "shortest_edge" in dict(processor.size) if crops else False
    names = {0: "lanczos", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
    normalises = bool(getattr(processor, "do_normalize", True)) and processor.image_mean
    scale: dict[str, Any] = (
        {"mean": tuple(processor.image_mean), "std": tuple(processor.image_std)}
        if normalises
        else {}
    )
    return Preprocessing(
        size=size,
        fit="crop" if keeps_shape else "squash",
        share=size / resized if keeps_shape else 1.0,
        resample=names.get(int(getattr(processor, "resample", 3) or 3), "bicubic"),  # type: ignore[arg-type]
        **scale,
    )


def _pooled(out: Any, has_pooler: bool) -> torch.Tensor:
    """Return the vector of an output: the tensor, the pooled output, or the mean over tokens."""
    if isinstance(out, torch.Tensor):
        return out
    pooled: torch.Tensor | None = getattr(out, "pooler_output", None) if has_pooler else None
    return pooled if pooled is not None else out.last_hidden_state.mean(1)


def _digest(folder: Path) -> str:
    """Return a hash of the files that decide the features of a model."""
    hashed = hashlib.blake2b(digest_size=8)
    suffixes = (".safetensors", ".json", ".txt", ".model")
    for path in sorted(p for p in folder.iterdir() if p.suffix in suffixes):
        hashed.update(f"{path.name}\0{os.path.getsize(path)}\0".encode())
        with open(path, "rb") as file:
            while block := file.read(1 << 22):
                hashed.update(block)
    return hashed.hexdigest()
