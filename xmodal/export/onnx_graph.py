"""ONNX graphs of a trained encoder, two per modality.

One graph has backbone, scaling, rounding, tower and bits, the other the tower alone.
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import nn
from torch.nn import functional

from xmodal.encoders.folder import GRAPHS, TOKENIZER, TOWER_GRAPHS
from xmodal.encoders.onnx_encoder import (
    FINGERPRINT_METADATA,
    MODALITY_METADATA,
    OUTPUTS,
    TOKEN_TENSORS,
    ModalityConfig,
)
from xmodal.encoders.torch_encoder import TrainedEncoder
from xmodal.encoders.towers import Tower
from xmodal.errors import ModelError
from xmodal.features.backbones import builtin
from xmodal.features.backbones.tokens import TokenTextBackbone
from xmodal.features.extract import cache_fingerprint
from xmodal.modality import Modality
from xmodal.writing import write_text

OPSET = 20
MAX_FILE_BYTES = 1_900_000_000
"""Size above which weights are stored in a second file, because protobuf is limited to 2 GB."""
BIT_VALUES = (128, 64, 32, 16, 8, 4, 2, 1)  # most significant bit first, as everywhere in xmodal


class EncoderModule(nn.Module):
    """Backbone, scaling, rounding and tower of one modality.

    ``network`` maps inputs to features; None if the inputs are the features. ``raw``: the inputs
    of the tower are pixels.
    """

    def __init__(self, network: nn.Module | None, tower: Tower, *, raw: bool) -> None:
        super().__init__()
        self.network, self.tower, self.raw = network, tower, raw
        self.register_buffer("bit_values", torch.tensor(BIT_VALUES))

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Inputs -> codes (b, bits / 8) uint8, outputs (b, bits), features (b, dim) float16.

        Features are scaled to length 1 and rounded to float16, as in
        :mod:`xmodal.features.extract`. There is no output for features if ``raw``.
        """
        if self.raw:
            outputs = self.tower.outputs(inputs[0].flatten(1))
            return self._packed(outputs), outputs
        features = inputs[0] if self.network is None else self.network(*inputs)
        rounded = functional.normalize(features.float(), dim=1).half()
        outputs = self.tower.outputs(rounded.float())
        return self._packed(outputs), outputs, rounded

    def _packed(self, outputs: torch.Tensor) -> torch.Tensor:
        bits = (outputs > 0).to(torch.int64).unflatten(1, (-1, 8))
        packed: torch.Tensor = (bits * self.get_buffer("bit_values")).sum(2).to(torch.uint8)
        return packed


class TowerModule(nn.Module):
    """The tower of one modality: features (b, dim) float16 -> outputs (b, bits)."""

    def __init__(self, tower: Tower) -> None:
        super().__init__()
        self.tower = tower

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Features (b, dim) float16 -> outputs (b, bits) float32."""
        return self.tower.outputs(features.float())


def write_graph(encoder: TrainedEncoder, modality: Modality, folder: Path) -> ModalityConfig:
    """Write the graphs of a modality, and its tokenizer if it has one; return its declaration.

    ``encoder`` computes in float32. Raises ModelError if the backbone cannot be exported.
    """
    config, network, inputs = _image(encoder) if modality == "image" else _text(encoder, folder)
    backbone = encoder.image_backbone if modality == "image" else encoder.text_backbone
    tower = encoder.towers.tower(modality)
    config = replace(config, cache=cache_fingerprint(backbone))
    if not config.raw:
        config = replace(config, tower=TOWER_GRAPHS[modality])
        features = torch.zeros(2, config.dim, dtype=torch.float16)
        path = folder / TOWER_GRAPHS[modality]
        _write(TowerModule(tower), {"features": features}, (OUTPUTS,), path)
        _finish(path, encoder, config)
    module = EncoderModule(network, tower, raw=config.raw)
    outputs = ("codes", OUTPUTS) if config.raw else ("codes", OUTPUTS, "features")
    path = folder / config.graph
    _write(module, inputs, outputs, path, dynamic_length=config.padding == "longest")
    _finish(path, encoder, config)
    return config


def _finish(path: Path, encoder: TrainedEncoder, config: ModalityConfig) -> None:
    """Remove local paths from a graph, and write its metadata."""
    model = onnx.load(path, load_external_data=False)
    _remove_source_lines(model)
    write_metadata(model, encoder.fingerprint, config)
    onnx.save(model, path)


def write_metadata(model: onnx.ModelProto, fingerprint: str, config: ModalityConfig) -> None:
    """Write the encoder's fingerprint and the declaration of the inputs into a graph's metadata."""
    metadata = {FINGERPRINT_METADATA: fingerprint, MODALITY_METADATA: config.to_metadata()}
    onnx.helper.set_model_props(model, metadata)


Prepared = tuple[ModalityConfig, nn.Module | None, dict[str, torch.Tensor]]
"""Declaration of a modality, the network in front of its tower, and inputs for tracing."""


def _image(encoder: TrainedEncoder) -> Prepared:
    backbone = encoder.image_backbone
    size = backbone.preprocessing.size
    config = ModalityConfig(
        graph=GRAPHS["image"],
        input="pixels",
        inputs=("pixels",),
        dim=backbone.dim,
        raw=backbone.raw,
        batch=32,
        preprocessing=backbone.preprocessing,
    )
    pixels = torch.zeros(2, size, size, 3, dtype=torch.uint8)
    return config, None if backbone.raw else _network(backbone), {"pixels": pixels}


def _text(encoder: TrainedEncoder, folder: Path) -> Prepared:
    backbone = encoder.text_backbone
    if isinstance(backbone, builtin.Words):
        words = None if backbone.fingerprint == "words-1" else backbone.fingerprint
        config = ModalityConfig(
            GRAPHS["text"], "words", ("vectors",), backbone.dim, False, 64, words=words
        )
        return config, None, {"vectors": torch.ones(2, backbone.dim)}
    network = _network(backbone)
    assert isinstance(backbone, TokenTextBackbone)  # the only text backbones with a network
    unknown = sorted(set(backbone.inputs) - set(TOKEN_TENSORS))
    if unknown:
        raise ModelError(
            f"{backbone.spec!r} has the input {unknown[0]}, which cannot be exported: expected "
            f"{', '.join(TOKEN_TENSORS)}; choose another text backbone"
        )
    config = ModalityConfig(
        graph=GRAPHS["text"],
        input="tokens",
        inputs=backbone.inputs,
        dim=backbone.dim,
        raw=False,
        batch=64,
        tokenizer=TOKENIZER,
        max_tokens=backbone.max_tokens,
        padding=backbone.padding,
        prompt=backbone.prompt or None,
    )
    write_text(folder / TOKENIZER, backbone.tokenizer_json())
    length = 4 if backbone.padding == "longest" else backbone.max_tokens
    tokens = torch.ones(2, length, dtype=torch.int64)
    return config, network, {name: tokens.clone() for name in backbone.inputs}


def _network(backbone: Any) -> nn.Module:
    network = getattr(backbone, "network", None)
    if not isinstance(network, nn.Module):
        raise ModelError(f"backbone {backbone.spec!r} has no network that can be exported")
    return network


def _write(
    module: nn.Module,
    inputs: Mapping[str, torch.Tensor],
    outputs: Sequence[str],
    path: Path,
    *,
    dynamic_length: bool = False,
) -> None:
    """Trace ``module`` on ``inputs`` with a dynamic batch size, and a dynamic number of tokens if
    ``dynamic_length``; ``outputs``: their names.
    """
    traced = copy.deepcopy(module).cpu().float().eval()
    # Names, because with a torch.export.Dim the exporter silently falls back to fixed sizes.
    dynamic = {0: "batch", 1: "tokens"} if dynamic_length else {0: "batch"}
    shapes = tuple(dynamic for _ in inputs)
    dynamic_shapes = {"inputs": shapes} if isinstance(module, EncoderModule) else shapes

    def trace() -> Any:
        return torch.onnx.export(
            traced,
            tuple(inputs.values()),
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_shapes=dynamic_shapes,
        )

    # Warnings of the exporter are hidden: the result is compared with torch afterwards.
    with warnings.catch_warnings(), errors_only("onnxscript"):
        warnings.simplefilter("ignore")
        try:
            try:
                program = trace()
            except Exception:  # the fused attention of T5 cannot be traced
                if not _use_eager_attention(traced):
                    raise
                program = trace()
        except Exception as error:  # tracing runs code of the model, which can raise any type
            reason = " ".join(str(error).split())[:300]
            raise ModelError(f"{path.name} cannot be exported: {reason}") from None
    assert program is not None
    for one in program.model.graph.inputs:
        if one.shape is None or any(isinstance(one.shape[axis], int) for axis in dynamic):
            raise ModelError(f"{path.name} cannot be exported: {one.name} has a fixed size")
    weights = sum(one.numel() * one.element_size() for one in traced.state_dict().values())
    program.save(path, external_data=weights > MAX_FILE_BYTES)


def _use_eager_attention(module: nn.Module) -> bool:
    """Replace fused attention in models of transformers by single operations; return whether any
    has it.
    """
    changed = False
    for part in module.modules():
        config = getattr(part, "config", None)
        if getattr(config, "_attn_implementation", "eager") != "eager":
            part.set_attn_implementation("eager")  # type: ignore[operator]
            changed = True
    return changed


@contextmanager
def errors_only(name: str) -> Iterator[None]:
    """Context in which the logger ``name`` ("" is the root) logs only errors."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _remove_source_lines(model: onnx.ModelProto) -> None:
    """Remove the source lines, with local paths, that the exporter writes into every node."""
    graph = model.graph
    del graph.metadata_props[:]
    for part in (*graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""
