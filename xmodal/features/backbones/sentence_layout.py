"""Folders of sentence-transformers: pooling, layers after it, prompt and limit of tokens (torch).

``modules.json`` lists the steps from a text to its vector: Transformer, Pooling, and then Dense,
LayerNorm, Normalize or Dropout. The only step in front of them may be CLIPModel, a CLIP in a folder
of its own, or StaticEmbedding, a vector for each token.

A folder may declare prompts, texts that are put in front of a text. Captions and queries get the
same one, because towers are trained on captions alone: the prompt ``default_prompt_name``, which
``SentenceTransformer.encode`` uses as well, or none.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import nn

from xmodal.errors import ModelError
from xmodal.features.backbones.tensors import load_tensors

FindFile = Callable[[str], Path | None]
"""Returns the local path of a file of a model by its relative name, or None if there is none."""
POOLINGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
"""Keys of a pooling's ``config.json``, and the same modes in its newer key ``pooling_mode``; the
vectors of several modes are concatenated in this order."""
INPUTS = ("Transformer", "CLIPModel", "StaticEmbedding")
"""First steps that are supported."""
LIMITS = tuple(
    f"sentence_{name}_config.json"
    for name in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
"""Names of the file with the limit of tokens, in the order in which the package looks for it."""
METHODS = {
    ("forward", "last_hidden_state"),
    *(
        (method, output)
        for method in ("get_text_features", "get_image_features")
        for output in ("pooler_output", None)
    ),
}
"""Methods of a model and their outputs that a step Transformer may declare."""
TOKENIZER_OPTIONS = ("model_max_length", "padding_side", "truncation_side")
"""Options of the tokenizer that a step Transformer may declare."""
MODEL_OPTIONS = ("dtype", "torch_dtype", "attn_implementation", "use_safetensors", "device_map")
"""Options of the model that a step Transformer may declare; they do not change features."""


@dataclass
class SentenceLayout:
    """What ``modules.json`` declares; the defaults are those of a folder without it.

    ``input``: first step, "" without ``modules.json``. ``subfolder``: its folder. ``pooling``:
    values of ``POOLINGS``, () without a step for it. ``dense``: layers after the pooling.
    ``max_tokens``: None for the limit of the tokenizer. ``prompt``: text in front of every text;
    its tokens are pooled too if ``pools_prompt``. ``tokenizer``: options of the tokenizer.
    ``digest``: hash of the files that were read.
    """

    input: str = ""
    subfolder: str = ""
    pooling: tuple[str, ...] = ("mean",)
    dense: nn.Module = field(default_factory=nn.Identity)
    max_tokens: int | None = None
    lower: bool = False
    prompt: str = ""
    pools_prompt: bool = True
    tokenizer: dict[str, Any] = field(default_factory=dict)
    digest: str = ""

    @property
    def is_plain(self) -> bool:
        """Whether vectors are plain means over the tokens, as without ``modules.json``."""
        pools = self.pooling in (("mean",), ())
        return pools and not self.has_dense and not self.lower and not self.prompt

    @property
    def has_dense(self) -> bool:
        """Whether there are layers after the pooling that change the direction of a vector."""
        return not isinstance(self.dense, nn.Identity)


def read_layout(spec: str, find: FindFile) -> SentenceLayout:
    """Read the layout of a model; raise ModelError for a step that is not supported."""
    modules = find("modules.json")
    if modules is None:
        return SentenceLayout()
    reader = _Reader(spec, find)
    try:
        for module in json.loads(modules.read_text(encoding="utf-8")):
            reader.add(str(module["type"]), str(module["path"]))
        return reader.layout()
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:160]
        raise ModelError(f"modules.json of {spec} cannot be used: {reason}") from None


class _Reader:
    """Reads the steps of ``modules.json`` in their order."""

    def __init__(self, spec: str, find: FindFile) -> None:
        self.spec, self._find = spec, find
        self._layout = SentenceLayout(pooling=())
        self._layers: list[nn.Module] = []
        self._hashed = hashlib.blake2b(digest_size=4)

    def add(self, type_: str, path: str) -> None:
        """Read one step: its class, and its folder."""
        kind = type_.rpartition(".")[2]
        if not type_.startswith("sentence_transformers."):
            raise self._unsupported(f"the step {type_} of its own")
        if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
            raise self._unsupported(f"the folder {path!r} of a step")
        prefix = f"{path}/" if path else ""
        if not self._layout.input:
            if kind not in INPUTS:
                raise self._unsupported(f"the step {kind}")
            self._layout.input, self._layout.subfolder = kind, path
            if kind != "StaticEmbedding":
                self._read_transformer(prefix)
        elif kind == "Pooling" and not self._layout.pooling and not self._layers:
            self._read_pooling(self._json(f"{prefix}config.json", hashed=True))
        elif kind == "Dense":
            self._layers.append(self._dense(prefix))
        elif kind == "LayerNorm":
            self._layers.append(self._layer_norm(prefix))
        elif kind == "Normalize":
            self._check_input(self._json(f"{prefix}config.json"), kind)
            self._layers += [_Normalize()] if self._layers else []
        elif kind != "Dropout":
            raise self._unsupported(f"the step {kind}")

    def layout(self) -> SentenceLayout:
        """Return the layout after the last step."""
        layout = self._layout
        if not layout.input:
            raise self._unsupported("no step")
        config = self._json("config_sentence_transformers.json")
        name, prompts = config.get("default_prompt_name"), config.get("prompts") or {}
        layout.prompt = str(prompts.get(name) or "") if name is not None else ""
        if not all(isinstance(one, _Normalize) for one in self._layers):
            layout.dense = nn.Sequential(*self._layers)
        self._hashed.update(f"{'+'.join(layout.pooling or ('mean',))} {layout.lower}".encode())
        if layout.prompt:
            self._hashed.update(f" {layout.prompt!r} {layout.pools_prompt}".encode())
        layout.digest = self._hashed.hexdigest()
        return layout

    def _unsupported(self, found: str) -> ModelError:
        return ModelError(
            f"{self.spec} has {found} in modules.json, expected {', '.join(INPUTS)}, then Pooling, "
            "Dense, LayerNorm and Normalize of sentence-transformers: choose another backbone"
        )

    def _json(self, name: str, *, hashed: bool = False) -> dict[str, Any]:
        """Read a JSON object; an empty one if the file is missing."""
        path = self._find(name)
        if path is None:
            return {}
        content = path.read_bytes()
        if hashed:
            self._hashed.update(content)
        return dict(json.loads(content))

    def _read_transformer(self, prefix: str) -> None:
        """Read the limits, the tokenizer's options and the declared methods of the first step."""
        config = next((found for name in LIMITS if (found := self._json(f"{prefix}{name}"))), {})
        limit = config.get("max_seq_length")
        self._layout.max_tokens = int(limit) if limit else None
        self._layout.lower = bool(config.get("do_lower_case", False))
        task = config.get("transformer_task", "feature-extraction")
        methods = dict(config.get("modality_config") or {})
        methods.pop("message", None)  # conversations; texts are not passed as one
        declared = {(one["method"], _output(one)) for one in methods.values()}
        if task != "feature-extraction" or not declared <= METHODS:
            names = ", ".join(sorted(str(method) for method, _ in declared - METHODS))
            raise self._unsupported(f"a Transformer for {names or task}")
        options = config.get("processor_kwargs") or config.get("tokenizer_args") or {}
        model_options = config.get("model_kwargs") or config.get("model_args") or {}
        unknown = sorted(set(options) - {*TOKENIZER_OPTIONS, "trust_remote_code"})
        unknown += sorted(set(model_options) - {*MODEL_OPTIONS, "trust_remote_code"})
        if unknown or config.get("config_kwargs") or config.get("processing_kwargs"):
            raise self._unsupported(f"a Transformer with the option {(unknown or ['config'])[0]}")
        self._layout.tokenizer = {k: v for k, v in options.items() if k in TOKENIZER_OPTIONS}

    def _read_pooling(self, config: dict[str, Any]) -> None:
        """Read the modes that a pooling declares."""
        if "pooling_mode" in config:
            modes = config["pooling_mode"]
            chosen = [modes] if isinstance(modes, str) else list(modes)
        else:
            declared = [k for k, v in config.items() if k.startswith("pooling_mode_") and v is True]
            chosen = [mode for key, mode in POOLINGS.items() if key in declared]
            chosen += sorted(set(declared) - set(POOLINGS))
        if set(chosen) - set(POOLINGS.values()):
            raise ModelError(
                f"{self.spec} pools tokens by {', '.join(chosen)}, expected "
                f"{', '.join(POOLINGS.values())}: choose another backbone"
            )
        self._layout.pooling = tuple(chosen) or ("mean",)  # the package's default
        self._layout.pools_prompt = bool(config.get("include_prompt", True))

    def _check_input(self, config: dict[str, Any], kind: str) -> None:
        """Raise ModelError if a step works on something else than the vector of a text."""
        for name in ("module_input_name", "module_output_name"):
            if config.get(name) not in (None, "sentence_embedding"):
                raise self._unsupported(f"a {kind} of {config[name]}")

    def _dense(self, prefix: str) -> nn.Module:
        config = self._json(f"{prefix}config.json", hashed=True)
        self._check_input(config, "Dense")
        name = str(config.get("activation_function", "torch.nn.modules.activation.Tanh"))
        activation: Any = getattr(nn, name.rpartition(".")[2], None)
        if not name.startswith("torch.nn.") or not _is_activation(activation):
            raise self._unsupported(f"a dense layer with {name}")
        layer = _Dense(
            int(config["in_features"]),
            int(config["out_features"]),
            bias=bool(config.get("bias", True)),
            activation=activation(),
            residual=bool(config.get("use_residual", False)),
        )
        return self._filled(layer, prefix)

    def _layer_norm(self, prefix: str) -> nn.Module:
        config = self._json(f"{prefix}config.json", hashed=True)
        return self._filled(_LayerNorm(int(config["dimension"])), prefix)

    def _filled(self, layer: nn.Module, prefix: str) -> nn.Module:
        """Load the weights of a layer from its folder."""
        names = (f"{prefix}model.safetensors", f"{prefix}pytorch_model.bin")
        path = next((found for name in names if (found := self._find(name))), None)
        if path is None:
            raise ModelError(f"{self.spec} has no {names[0]}, expected the weights of the layer")
        self._hashed.update(path.read_bytes())
        layer.load_state_dict(load_tensors(path))
        return layer


def _output(method: dict[str, Any]) -> str | None:
    """Return the name of the output that a modality declares, which may be a list of one."""
    name = method["method_output_name"]
    if isinstance(name, list):
        return ".".join(map(str, name))
    return None if name is None else str(name)


def _is_activation(kind: Any) -> bool:
    """Whether a class is a layer without parameters that needs no arguments."""
    if not isinstance(kind, type) or not issubclass(kind, nn.Module):
        return False
    return kind.__module__ == "torch.nn.modules.activation" or kind is nn.Identity


class _Dense(nn.Module):
    """Linear layer and activation, perhaps added to its input."""

    def __init__(
        self, before: int, after: int, *, bias: bool, activation: nn.Module, residual: bool
    ) -> None:
        super().__init__()
        self.linear, self.activation = nn.Linear(before, after, bias=bias), activation
        self.adds = residual
        if residual and before != after:
            self.residual = nn.Linear(before, after, bias=False)

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """(b, before) -> (b, after)."""
        out: torch.Tensor = self.activation(self.linear(vectors))
        if self.adds:
            out = out + (self.residual(vectors) if hasattr(self, "residual") else vectors)
        return out


class _LayerNorm(nn.Module):
    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dimension)

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """(b, d) -> (b, d)."""
        out: torch.Tensor = self.norm(vectors)
        return out


class _Normalize(nn.Module):
    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """(b, d) -> rows of length 1."""
        return nn.functional.normalize(vectors, dim=1)
