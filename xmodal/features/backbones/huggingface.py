"""Backbones from Hugging Face transformers (torch): CLIP-like, vision and text models."""

from __future__ import annotations

import hashlib
import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from xmodal.config import Precision
from xmodal.data.images import Pixels
from xmodal.device import DTYPES, batch_size, device, with_precision
from xmodal.errors import ModelError
from xmodal.features.backbones import OWN_CODE, static_embedding
from xmodal.features.backbones.connectivity import check_reachable
from xmodal.features.backbones.image_processors import (
    earlier_preprocessing,
    transformers_preprocessing,
)
from xmodal.features.backbones.model_classes import PROJECTED, model_class, with_features
from xmodal.features.backbones.modules import PixelNetwork, run, with_preprocessing
from xmodal.features.backbones.pooling import pool
from xmodal.features.backbones.sentence_layout import SentenceLayout, read_layout
from xmodal.features.backbones.tokens import Tokenization, TokenTextBackbone

MAX_TOKENS = 512
POOLED_TEXTS = (
    "clip_text_model",
    "siglip_text_model",
    "siglip2_text_model",
    "metaclip_2_text_model",
)
"""Text models whose pooled output is the vector that they were trained for."""
WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
"""Names of weights, in the order in which they are looked for."""


@dataclass(frozen=True)
class Source:
    """Where a model is: its name or path, and whether its own code may run."""

    spec: str
    trust_remote_code: bool = False

    @property
    def folder(self) -> Path | None:
        """The folder of a local model, None for one of the hub."""
        local = Path(self.spec).expanduser()
        return local if local.exists() else None

    def arguments(self, subfolder: str = "") -> dict[str, Any]:
        """Return arguments for from_pretrained; local and downloaded models need no network."""
        # Without a value, transformers asks at the terminal whether the code may run.
        trust = {"trust_remote_code": self.trust_remote_code}
        if self.folder is not None:
            path = str(self.folder / subfolder)
            return {"pretrained_model_name_or_path": path, "local_files_only": True, **trust}
        return {
            "pretrained_model_name_or_path": self.spec,
            "subfolder": subfolder,
            "local_files_only": _is_downloaded(self.spec),
            **trust,
        }

    def find(self, name: str) -> Path | None:
        """Return the local path of a file of the model, None if the model lacks it."""
        if self.folder is not None:
            path = self.folder / name
            return path if path.is_file() else None
        from transformers.utils.hub import cached_file

        found = cached_file(
            self.spec,
            name,
            local_files_only=_is_downloaded(self.spec),
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
        return None if found is None else Path(found)

    def load(self, load: Callable[[], Any]) -> Any:
        """Call ``load``; raise ModelError in one line for the errors of transformers."""
        try:
            return load()
        except MemoryError:
            raise
        except Exception as error:  # damaged files and code of the model raise any type
            raise self._error(error) from None

    def _error(self, error: Exception) -> ModelError:
        reason = " ".join(str(error).split())
        if "trust_remote_code" in reason and not self.trust_remote_code:
            return ModelError(
                f"backbone {self.spec!r} has code of its own (auto_map in config.json), which is "
                "not run: add --trust-remote-code if you trust it, or choose another backbone"
            )
        return ModelError(f"backbone {self.spec!r} cannot be loaded: {reason[:160]}")


def load_image(
    spec: str,
    precision: Precision = "float32",
    *,
    trust_remote_code: bool = False,
    recorded: str | None = None,
) -> HuggingFaceImageBackbone:
    """Load the image backbone of a model. Raises ModelError if it has none.

    ``recorded``: fingerprint that an encoder recorded; with that of an earlier version, pictures
    are prepared as in that version.
    """
    model = _load(Source(spec, trust_remote_code), precision)
    if isinstance(model, TokenTextBackbone) or not model.has_images:
        raise ModelError(f"{spec} is {_described(model)}, expected one for images")
    return HuggingFaceImageBackbone(model, recorded)


def load_text(
    spec: str, precision: Precision = "float32", *, trust_remote_code: bool = False
) -> TokenTextBackbone:
    """Load the text backbone of a model. Raises ModelError if it has none."""
    model = _load(Source(spec, trust_remote_code), precision)
    if isinstance(model, TokenTextBackbone):
        return model
    if not model.has_texts:
        raise ModelError(f"{spec} is {_described(model)}, expected one for texts")
    return _text_backbone(model)


def _described(model: HuggingFaceModel | TokenTextBackbone) -> str:
    """Return what kind of model it is, for a message."""
    if isinstance(model, TokenTextBackbone):
        return "a text model (StaticEmbedding)"
    if model.has_images or model.has_texts:
        return f"a {'vision' if model.has_images else 'text'} model ({model.kind})"
    return f"a model for neither pictures nor texts ({model.kind})"


class HuggingFaceModel:
    """A loaded model: its type, its modalities, and a fingerprint of its files and precision.

    ``has_pooler``: the weights contain the pooler, so that its pooled output can be used.
    ``is_multimodal``: the model projects pictures and texts into a common space. ``layout``: its
    pooling and dense layers, if it is of sentence-transformers.
    """

    def __init__(
        self,
        source: Source,
        config: Any,
        network: Any,
        fingerprint: str,
        layout: SentenceLayout,
        *,
        has_pooler: bool,
    ) -> None:
        self.source, self.spec, self.layout = source, source.spec, layout
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
        if self.is_multimodal and layout.has_dense:
            self.space = f"{fingerprint}-{layout.digest}"


class HuggingFaceImageBackbone:
    """Projected image features of a CLIP-like model, else the pooled output of a vision model.

    A folder of sentence-transformers declares a pooling of the states, and dense layers.

    ``network`` maps pixels (b, size, size, 3) uint8 to features (b, dim).
    """

    raw = False

    def __init__(self, model: HuggingFaceModel, recorded: str | None = None) -> None:
        from transformers import AutoImageProcessor

        self.spec, self.space = model.spec, model.space
        self.batch = batch_size()
        source = model.source
        arguments = source.arguments(model.layout.subfolder)
        processor = source.load(lambda: AutoImageProcessor.from_pretrained(**arguments))
        features = _ImageFeatures(model)
        earlier = earlier_preprocessing(processor)
        fingerprint = model.fingerprint + features.suffix
        if earlier is not None and recorded == fingerprint:
            self.preprocessing, self.fingerprint = earlier, fingerprint
        else:
            self.preprocessing = transformers_preprocessing(self.spec, processor)
            self.fingerprint = with_preprocessing(fingerprint, self.preprocessing, earlier)
        network = PixelNetwork(features, self.preprocessing)
        self.network = network.to(device(), model.network.dtype)
        size = self.preprocessing.size
        self.dim = self.forward(np.zeros((1, size, size, 3), np.uint8)).shape[1]

    def forward(self, pixels: Pixels) -> npt.NDArray[np.float32]:
        """(b, size, size, 3) uint8 -> (b, dim)."""
        return run(self.network, torch.from_numpy(pixels))


def _text_backbone(model: HuggingFaceModel) -> TokenTextBackbone:
    """Return projected text features of a CLIP-like model, the end-of-text vector of its text
    model, or the mean over the tokens of another text model.

    A folder of sentence-transformers declares another pooling, dense layers and a limit of tokens.
    """
    from transformers import AutoTokenizer

    layout, source = model.layout, model.source
    arguments = source.arguments(layout.subfolder) | layout.tokenizer
    tokenizer = source.load(lambda: AutoTokenizer.from_pretrained(**arguments))
    text = getattr(model.config, "text_config", model.config)
    max_positions = getattr(text, "max_position_embeddings", MAX_TOKENS)
    longest = min(max_positions, tokenizer.model_max_length, MAX_TOKENS)
    max_tokens = min(longest, layout.max_tokens or longest)
    tokens = Tokenization(
        model.spec,
        tokenizer,
        max_tokens,
        # SigLIP was trained on texts padded to full length, without a mask.
        padding="max_length" if model.kind.startswith("siglip") else "longest",
        prompt=layout.prompt,
        lower=layout.lower,
    )
    network = _TextFeatures(model, tuple(tokens.tensors(["a"])), tokens)
    fingerprint = _text_fingerprint(model, shortened=max_tokens < longest)
    return TokenTextBackbone(model.spec, fingerprint, model.space, tokens, network, network.inputs)


class _ImageFeatures(nn.Module):
    """Scaled pixels -> features. ``suffix``: of the fingerprint, if earlier versions had others."""

    def __init__(self, model: HuggingFaceModel) -> None:
        super().__init__()
        self.model = model.network
        self.is_multimodal, self.has_pooler = model.is_multimodal, model.has_pooler
        self.pooling, self.dense = model.layout.pooling, model.layout.dense.to(device())
        self.pools = bool(model.layout.input) and not model.is_multimodal
        self.suffix = ""
        if self.pools or model.layout.has_dense:
            self.suffix = f"-{model.layout.digest}"
        elif type(model.network).__name__ in PROJECTED:
            self.suffix = "-projected"

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Shape (b, 3, size, size) -> (b, dim)."""
        encode = self.model.get_image_features if self.is_multimodal else self.model
        out = encode(pixel_values=pixel_values)
        if self.pools:
            states = out.last_hidden_state
            states = states.flatten(2).transpose(1, 2) if states.ndim == 4 else states
            mask = torch.ones(states.shape[:2], device=states.device)
            vectors = pool(states, mask, self.pooling)
        else:
            vectors = _pooled(out, self.has_pooler)
        if isinstance(self.dense, nn.Identity):
            return vectors
        projected: torch.Tensor = self.dense(vectors.flatten(1).float())
        return projected


class _TextFeatures(nn.Module):
    """Tokens -> features; ``inputs``: names of the input tensors of the model."""

    def __init__(self, model: HuggingFaceModel, names: tuple[str, ...], tokens: Tokenization):
        super().__init__()
        self.model = model.network
        self.is_multimodal, self.has_pooler = model.is_multimodal, model.has_pooler
        self.is_pooled = model.kind in POOLED_TEXTS and not model.layout.input
        self.pooling, self.dense = model.layout.pooling, model.layout.dense.to(device())
        self.prompt_tokens = 0 if model.layout.pools_prompt else tokens.prompt_tokens
        encode = self.model.get_text_features if self.is_multimodal else self.model.forward
        accepted = inspect.signature(encode).parameters
        self.inputs = tuple(name for name in names if name in accepted)
        if not (self.is_multimodal or self.is_pooled) and "attention_mask" not in self.inputs:
            raise ModelError(
                f"{model.spec} ({model.kind}) has no mask of the padding, expected attention_mask "
                "of its tokenizer: choose another backbone"
            )

    def forward(self, *tokens: torch.Tensor) -> torch.Tensor:
        """Tensors of shape (b, tokens), in the order of ``inputs`` -> (b, dim)."""
        named = dict(zip(self.inputs, tokens, strict=True))
        if self.is_multimodal:
            vectors = _pooled(self.model.get_text_features(**named), self.has_pooler)
            return vectors if isinstance(self.dense, nn.Identity) else self._dense(vectors)
        out = self.model(**named)
        if self.is_pooled:
            projects = hasattr(out, "text_embeds")
            pooled: torch.Tensor = out.text_embeds if projects else out.pooler_output
            return pooled
        mask = named["attention_mask"]
        return self._dense(pool(out.last_hidden_state, mask, self.pooling, self.prompt_tokens))

    def _dense(self, vectors: torch.Tensor) -> torch.Tensor:
        projected: torch.Tensor = self.dense(vectors.float())
        return projected


def _text_fingerprint(model: HuggingFaceModel, *, shortened: bool) -> str:
    """Return the fingerprint of text features; earlier versions took the mean of all tokens."""
    fingerprint, layout = model.fingerprint, model.layout
    if model.is_multimodal:
        changed = layout.has_dense or bool(layout.prompt)
        return f"{fingerprint}-{layout.digest}" if changed else fingerprint
    if model.kind in POOLED_TEXTS and not layout.input:
        return f"{fingerprint}-pooled"
    if not layout.is_plain:
        fingerprint += f"-{layout.digest}"
    return f"{fingerprint}-{layout.max_tokens}" if shortened else fingerprint


@lru_cache(maxsize=4)
def _load(source: Source, precision: Precision) -> HuggingFaceModel | TokenTextBackbone:
    """Load a local folder or a model of the hub; download it if needed and reachable."""
    import transformers
    from transformers import AutoConfig

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    spec, local = source.spec, Path(source.spec).expanduser()
    if local.exists() or spec.startswith((".", "~")) or local.is_absolute():
        named = ("config.json", "modules.json")
        if not any((local / name).is_file() for name in named):
            raise ModelError(
                f"{spec} is not a model that transformers can load, expected a folder with "
                "config.json, as save_pretrained writes it"
            )
    elif not _is_downloaded(spec):
        from huggingface_hub import constants

        check_reachable(constants.ENDPOINT, spec)
    layout = read_layout(spec, source.find)
    if layout.input == "StaticEmbedding":
        fingerprint = _fingerprint(source, layout, None)
        return static_embedding.load(spec, layout, source.find, fingerprint, precision)
    arguments = source.arguments(layout.subfolder)
    config = source.load(lambda: AutoConfig.from_pretrained(**arguments))
    loaded = model_class(spec, config)
    network, info = source.load(
        lambda: loaded.from_pretrained(
            **arguments, dtype=DTYPES[precision], output_loading_info=True
        )
    )
    # transformers initialises missing tensors at random. A missing pooler is common and not used.
    missing = sorted(info["missing_keys"])
    required = [name for name in missing if "pooler" not in name]
    if required:
        raise ModelError(
            f"the weights of {spec} lack {len(required)} tensors of its model (first "
            f"{required[0]}): expected a complete model, as save_pretrained writes it"
        )
    model = HuggingFaceModel(
        source,
        config,
        with_features(network.to(device()).eval()),
        with_precision(_fingerprint(source, layout, config), precision),
        layout,
        has_pooler=not missing,
    )
    if layout.input == "Transformer" and not layout.pooling and not model.is_multimodal:
        raise ModelError(
            f"{spec} has no step Pooling in modules.json, expected one after the Transformer: "
            "choose another backbone"
        )
    return model


def _fingerprint(source: Source, layout: SentenceLayout, config: Any) -> str:
    """Return the fingerprint of the files of a model, or its commit on the hub.

    It names whether code of the model runs: transformers may have another of the same name.
    """
    has_code = source.trust_remote_code and hasattr(config, "auto_map")
    code = OWN_CODE if has_code else ""
    if source.folder is not None:
        return f"files-{_digest(source.folder / layout.subfolder, has_code=has_code)}{code}"
    commit = getattr(config, "_commit_hash", None)
    if commit is None:
        found = source.find("modules.json") or source.find("config.json")
        commit = "" if found is None else found.parent.name
    return f"hub-{commit}{code}"


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
    return any(any(folder.rglob(name)) for folder in snapshots for name in WEIGHTS)


def _pooled(out: Any, has_pooler: bool) -> torch.Tensor:
    """Return the vector of an output: the tensor, the pooled output, or the mean over tokens."""
    if isinstance(out, torch.Tensor):
        return out
    if hasattr(out, "image_embeds"):
        projected: torch.Tensor = out.image_embeds
        return projected
    pooled: torch.Tensor | None = getattr(out, "pooler_output", None) if has_pooler else None
    return pooled if pooled is not None else out.last_hidden_state.mean(1)


def _digest(folder: Path, *, has_code: bool = False) -> str:
    """Return a hash of the files that decide the features of a model.

    Pickled weights are hashed if there are no others, and code if it runs.
    """
    hashed = hashlib.blake2b(digest_size=8)
    suffixes = [".safetensors", ".json", ".txt", ".model"]
    if not any(folder.glob(WEIGHTS[0])):
        suffixes.append(".bin")
    if has_code:
        suffixes.append(".py")
    for path in sorted(p for p in folder.iterdir() if p.suffix in suffixes):
        hashed.update(f"{path.name}\0{os.path.getsize(path)}\0".encode())
        with open(path, "rb") as file:
            while block := file.read(1 << 22):
                hashed.update(block)
    return hashed.hexdigest()
