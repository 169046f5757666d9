"""Quantization of the weights of a graph to int8, a quarter of the size.

Matrix products of transformers are quantized dynamically by onnxruntime: weights by channel,
activations at run time. Convolutions and towers store weights in int8 and compute in float32: with
dynamically quantized activations, the codes of MobileNetV2 agreed with those of float32 hardly more
than random codes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from xmodal.encoders.onnx_encoder import ModalityConfig
from xmodal.errors import ConfigError
from xmodal.export.onnx_graph import errors_only, write_metadata

MIN_VALUES = 1024
"""Number of values below which weights stay in float32."""


def quantize(config: ModalityConfig, folder: Path) -> ModalityConfig:
    """Replace a graph by one in int8; return its declaration.

    Dynamic activations are scaled by the maximum of a batch, so a code would depend on the other
    items: such a graph gets batches of one item. Raises ConfigError for a graph over 2 GB.
    """
    path = folder / config.graph
    if config.tower is not None:
        (folder / config.tower).unlink(missing_ok=True)
    config = replace(config, tower=None, cache=None)  # features change with the weights
    if (folder / f"{config.graph}.data").exists():
        raise ConfigError(f"{config.graph} has over 2 GB: --int8 needs a smaller backbone")
    model = onnx.load(path)
    _quantize_weights(model, ("Conv", "Gemm"))
    del model.graph.value_info[:]  # the quantizer fails on shapes of the old graph
    weights = {one.name for one in model.graph.initializer}
    products = [node for node in model.graph.node if node.op_type == "MatMul"]
    onnx.save(model, path)
    if not any(node.input[1] in weights for node in products):
        return config
    _quantize_products(path)
    return replace(config, batch=1)


def write_fingerprint(configs: Sequence[ModalityConfig], folder: Path, fingerprint: str) -> str:
    """Write a new fingerprint into the graphs and return it.

    It is a hash of ``fingerprint``, that of the trained encoder, and of the int8 weights.
    """
    hashed = hashlib.blake2b(f"int8 {fingerprint}".encode(), digest_size=8)
    models = [onnx.load(folder / config.graph) for config in configs]
    for model in models:
        for weight in model.graph.initializer:
            hashed.update(f"{weight.name}\0".encode() + numpy_helper.to_array(weight).tobytes())
    for config, model in zip(configs, models, strict=True):
        write_metadata(model, hashed.hexdigest(), config)
        onnx.save(model, folder / config.graph)
    return hashed.hexdigest()


def _quantize_products(path: Path) -> None:
    """Quantize the matrix products of the graph at ``path`` dynamically."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    original = path.with_suffix(".float.onnx")
    path.rename(original)
    with errors_only(""):  # hides advice about an optional step
        quantize_dynamic(
            original,
            path,
            op_types_to_quantize=["MatMul", "Gather"],
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=True,  # 7 bits: on processors without VNNI sums of 8-bit products overflow
            extra_options={"MatMulConstBOnly": True},
        )
    original.unlink()


def _quantize_weights(model: onnx.ModelProto, op_types: tuple[str, ...]) -> None:
    """Store the weights of nodes of these types in int8, with a scale for each output channel."""
    graph = model.graph
    weights = {one.name: one for one in graph.initializer}
    renamed: dict[str, str] = {}
    dequantize = []
    for node in graph.node:
        name = node.input[1] if node.op_type in op_types else ""
        if name in weights and name not in renamed:
            values = numpy_helper.to_array(weights[name])
            if values.size < MIN_VALUES or values.dtype != np.float32:
                continue
            axis = 0 if node.op_type == "Conv" or _transposed(node) else 1
            other_axes = tuple(number for number in range(values.ndim) if number != axis)
            maximum = np.abs(values).max(axis=other_axes, keepdims=True)
            scale = np.maximum(maximum, np.finfo(np.float32).tiny) / 127
            quantized = np.clip(np.round(values / scale), -127, 127).astype(np.int8)
            renamed[name] = f"{name}.float"
            graph.initializer.remove(weights[name])
            graph.initializer.append(numpy_helper.from_array(quantized, f"{name}.int8"))
            graph.initializer.append(numpy_helper.from_array(scale.ravel(), f"{name}.scale"))
            inputs = [f"{name}.int8", f"{name}.scale"]
            dequantize.append(
                helper.make_node("DequantizeLinear", inputs, [renamed[name]], axis=axis)
            )
    for node in graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = renamed.get(name, name)
    nodes = [*dequantize, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


def _transposed(node: onnx.NodeProto) -> bool:
    return any(one.name == "transB" and one.i == 1 for one in node.attribute)
