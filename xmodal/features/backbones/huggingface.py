"""Backbones from transformers (torch): CLIP-like models, vision models and text models."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from functools import lru_cache
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
from xmodal.features.backbones.modules import FromPixels, run

MAX_TOKENS = 512


def load_image(spec: str, precision: Precision = "float32") -> HubImageBackbone:
    """The image side of a model. Raises ModelError."""
    model = _load(spec, precision)
    if not model.has_images:
        raise ModelError(f"{spec} is a text model ({model.kind}), it has no image side")
    return HubImageBackbone(spec, model)


def load_text(spec: str, precision: Precision = "float32") -> HubTextBackbone:
    """The text side of a model. Raises ModelError."""
    model = _load(spec, precision)
    if not model.has_texts:
        raise ModelError(f"{spec} is a vision model ({model.kind}), it has no text side")
    return HubTextBackbone(spec, model)


class HubModel:
    """A loaded model: its type, its sides, and a fingerprint of its files and precision.

    ``pools``: its pooled output can be used.
    """

    def __init__(
        self, spec: str, config: Any, network: Any, fingerprint: str, *, pools: bool
    ) -> None:
        self.spec = spec
        self.kind: str = config.model_type
        self.config = config
        self.network = network
        self.fingerprint = fingerprint
        self.pools = pools
        self.both = hasattr(network, "get_image_features") and hasattr(network, "get_text_features")
        self.has_images = self.both or network.main_input_name == "pixel_values"
        self.has_texts = self.both or network.main_input_name == "input_ids"
        self.space = fingerprint if self.both else None


class HubImageBackbone:
    """Projected image features of a CLIP-like model, else the pooled output of a vision model.

    ``network`` makes features (b, dim) of pixels (b, size, size, 3) uint8.
    """

    raw = False

    def __init__(self, spec: str, model: HubModel) -> None:
        from transformers import AutoImageProcessor

        self.spec = spec
        self.fingerprint = model.fingerprint
        self.space = model.space
        self.batch = batch_size()
        processor = _quietly(spec, lambda: AutoImageProcessor.from_pretrained(**_source(spec)))
        self.preprocessing = _preprocessing(processor)
        network = FromPixels(_ImageSide(model), self.preprocessing)
        self.network = network.to(device(), model.network.dtype)
        size = self.preprocessing.size
        self.dim = self.forward(np.zeros((1, size, size, 3), np.uint8)).shape[1]

    def forward(self, pixels: Pixels) -> npt.NDArray[np.float32]:
        """(b, size, size, 3) uint8 -> (b, dim)."""
        return run(self.network, torch.from_numpy(pixels))


class HubTextBackbone:
    """Projected text features of a CLIP-like model, else the mean over a text model's tokens.

    ``network`` makes features (b, dim) of the tensors that ``inputs`` names, each (b, tokens).
    """

    def __init__(self, spec: str, model: HubModel) -> None:
        from transformers import AutoTokenizer

        self.spec = spec
        self.fingerprint = model.fingerprint
        self.space = model.space
        self.batch = 2 * batch_size()
        self._tokenizer = _quietly(spec, lambda: AutoTokenizer.from_pretrained(**_source(spec)))
        text = getattr(model.config, "text_config", model.config)
        longest = getattr(text, "max_position_embeddings", MAX_TOKENS)
        self.max_tokens = min(longest, self._tokenizer.model_max_length, MAX_TOKENS)
        # SigLIP was trained on texts padded to full length, without a mask.
        self.padding = "max_length" if model.kind.startswith("siglip") else "longest"
        self.inputs = tuple(self._tokens_of(["a"]))
        self.network = _TextSide(model, self.inputs)
        self.dim = self.forward(["a"]).shape[1]

    def forward(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """``b`` texts -> (b, dim)."""
        tokens = self._tokens_of(texts)
        return run(self.network, *(tokens[name] for name in self.inputs))

    def _tokens_of(self, texts: Sequence[str]) -> dict[str, torch.Tensor]:
        """Token ids and what belongs to them, each (b, tokens)."""
        return dict(
            self._tokenizer(
                list(texts),
                padding=self.padding,
                truncation=True,
                max_length=self.max_tokens,
                return_tensors="pt",
            )
        )

    def tokenizer(self) -> str:
        """The tokenizer as the package tokenizers reads it, with how texts are cut and padded.

        Raises ModelError for one that is written in Python.
        """
        ours = self._tokenizer
        if not hasattr(ours, "backend_tokenizer"):
            raise ModelError(
                f"the tokenizer of {self.spec} ({type(ours).__name__}) runs in Python only, a "
                "portable model needs one of the package tokenizers: choose another text backbone"
            )
        from tokenizers import Tokenizer

        alone = Tokenizer.from_str(ours.backend_tokenizer.to_str())
        alone.enable_truncation(self.max_tokens, direction=ours.truncation_side)
        alone.enable_padding(
            direction=ours.padding_side,
            pad_id=ours.pad_token_id,
            pad_type_id=ours.pad_token_type_id,
            pad_token=ours.pad_token,
            length=self.max_tokens if self.padding == "max_length" else None,
        )
        return str(alone.to_str())


class _ImageSide(nn.Module):
    """Scaled pixels -> features."""

    def __init__(self, model: HubModel) -> None:
        super().__init__()
        self.model, self.both, self.pools = model.network, model.both, model.pools

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Shape (b, 3, size, size) -> (b, dim)."""
        look = self.model.get_image_features if self.both else self.model
        return _pooled(look(pixel_values=pixel_values), self.pools)


class _TextSide(nn.Module):
    """Tokens -> features; ``inputs`` names the tensors that the model is given."""

    def __init__(self, model: HubModel, inputs: tuple[str, ...]) -> None:
        super().__init__()
        self.model, self.both, self.pools = model.network, model.both, model.pools
        self.inputs = inputs

    def forward(self, *tokens: torch.Tensor) -> torch.Tensor:
        """Tensors of shape (b, tokens), in the order of ``inputs`` -> (b, dim)."""
        named = dict(zip(self.inputs, tokens, strict=True))
        if self.both:
            return _pooled(self.model.get_text_features(**named), self.pools)
        states = self.model(**named).last_hidden_state.float()
        mask = named["attention_mask"].unsqueeze(-1).float()
        mean: torch.Tensor = (states * mask).sum(1) / mask.sum(1).clamp(min=1)
        return mean


@lru_cache(maxsize=4)
def _load(spec: str, precision: Precision) -> HubModel:
    import transformers
    from transformers import AutoConfig, AutoModel

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    local = Path(spec).expanduser()
    if local.exists() or spec.startswith((".", "/", "~")):
        if not (local / "config.json").is_file():
            raise ModelError(
                f"{spec} is not a model that transformers can load, expected a folder with "
                "config.json, as save_pretrained writes it"
            )
    elif not _was_downloaded(spec):
        from huggingface_hub import constants

        check_reachable(constants.ENDPOINT, spec)
    config = _quietly(spec, lambda: AutoConfig.from_pretrained(**_source(spec)))
    network, info = _quietly(
        spec,
        lambda: AutoModel.from_pretrained(
            **_source(spec), dtype=DTYPES[precision], use_safetensors=True, output_loading_info=True
        ),
    )
    # What the file lacks was filled at random; a pooler is often lacking, and can be done without.
    lacking = sorted(info["missing_keys"])
    needed = [name for name in lacking if "pooler" not in name]
    if needed:
        raise ModelError(
            f"the weights of {spec} lack {len(needed)} tensors of its model (first {needed[0]}): "
            "expected a complete model, as save_pretrained writes it"
        )
    commit = getattr(config, "_commit_hash", None)
    weights = f"hub-{commit}" if commit and not local.exists() else f"files-{_digest(local)}"
    fingerprint = with_precision(weights, precision)
    return HubModel(spec, config, network.to(device()).eval(), fingerprint, pools=not lacking)


def _source(spec: str) -> dict[str, Any]:
    """Arguments for from_pretrained: what is on this machine is not asked for on the network."""
    local = Path(spec).expanduser()
    if local.exists():
        return {"pretrained_model_name_or_path": str(local), "local_files_only": True}
    return {"pretrained_model_name_or_path": spec, "local_files_only": _was_downloaded(spec)}


def _was_downloaded(spec: str) -> bool:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        config = try_to_load_from_cache(spec, "config.json")
    except HFValidationError:
        raise ModelError(
            f"backbone {spec!r} is unknown: expected words, small-cnn, a torchvision model, a "
            "local path, or a name on the model hub such as openai/clip-vit-base-patch32"
        ) from None
    if not isinstance(config, str):
        return False
    snapshot = Path(config).parent
    return any(snapshot.glob("*.safetensors"))


def _quietly(spec: str, load: Callable[[], Any]) -> Any:
    """Load, and turn whatever transformers raises into one line."""
    try:
        return load()
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:160]
        raise ModelError(f"backbone {spec!r} cannot be loaded: {reason}") from None


def _preprocessing(processor: Any) -> Preprocessing:
    """Our description of what an image processor of transformers does."""

    def side(size: Any) -> int:
        values = dict(size) if not isinstance(size, int) else {"height": size}
        return int(next(v for k in ("shortest_edge", "height") if (v := values.get(k))))

    resized = side(processor.size)
    crops = bool(getattr(processor, "do_center_crop", False)) and processor.crop_size is not None
    size = side(processor.crop_size) if crops else resized
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


def _pooled(out: Any, pools: bool) -> torch.Tensor:
    """The vector of an output: a tensor itself, its pooled output, or the mean over its tokens."""
    if isinstance(out, torch.Tensor):
        return out
    pooled: torch.Tensor | None = getattr(out, "pooler_output", None) if pools else None
    return pooled if pooled is not None else out.last_hidden_state.mean(1)


def _digest(folder: Path) -> str:
    """A hash of the files that decide what a model computes."""
    hashed = hashlib.blake2b(digest_size=8)
    endings = (".safetensors", ".json", ".txt", ".model")
    for path in sorted(p for p in folder.iterdir() if p.suffix in endings):
        hashed.update(f"{path.name}\0{os.path.getsize(path)}\0".encode())
        with open(path, "rb") as file:
            while block := file.read(1 << 22):
                hashed.update(block)
    return hashed.hexdigest()
