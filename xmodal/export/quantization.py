"""Quantization of a graph to int8 weights: a quarter of the size.

Matrix products of transformers are quantized dynamically by onnxruntime: weights by channel,
activations at run time. Convolutions and towers store weights in int8 and compute in float32: with
dynamic activations, codes of MobileNetV2 shared hardly more bits with float32 than random codes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from xmodal.encoders.onnx_encoder import SideConfig
from xmodal.errors import ConfigError
from xmodal.export.onnx_graph import errors_only, stamp

MIN_VALUES = 1024
"""Smaller weights stay in float32."""


def quantize(side: SideConfig, folder: Path) -> SideConfig:
    """Replace the graph of a side by one in int8; return its declaration.

    Dynamic activations are scaled by the maximum of a batch, so a code would depend on the other
    items: such a side gets batches of one item. Raises ConfigError for a graph over 2 GB.
    """
    path = folder / side.graph
    if (folder / f"{side.graph}.data").exists():
        raise ConfigError(f"{side.graph} has over 2 GB: --int8 needs a smaller backbone")
    model = onnx.load(path)
    _shrink(model, ("Conv", "Gemm"))
    del model.graph.value_info[:]  # the quantizer fails on shapes of the old graph
    weights = {one.name for one in model.graph.initializer}
    products = [node for node in model.graph.node if node.op_type == "MatMul"]
    onnx.save(model, path)
    if not any(node.input[1] in weights for node in products):
        return side
    _quantize_products(path)
    return replace(side, batch=1)


def stamp_fingerprint(sides: Sequence[SideConfig], folder: Path, fingerprint: str) -> str:
    """Write a new fingerprint, a hash of the encoder's and the int8 weights, into the graphs."""
    hashed = hashlib.blake2b(f"int8 {fingerprint}".encode(), digest_size=8)
    models = [onnx.load(folder / side.graph) for side in sides]
    for model in models:
        for weight in model.graph.initializer:
            hashed.update(f"{weight.name}\0".encode() + numpy_helper.to_array(weight).tobytes())
    for side, model in zip(sides, models, strict=True):
        stamp(model, hashed.hexdigest(), side)
        onnx.save(model, folder / side.graph)
    return hashed.hexdigest()


def _quantize_products(path: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    whole = path.with_suffix(".float.onnx")
    path.rename(whole)
    with errors_only(""):  # hides advice about an optional step
        quantize_dynamic(
            whole,
            path,
            op_types_to_quantize=["MatMul", "Gather"],
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=True,  # 7 bits: on processors without VNNI sums of 8-bit products overflow
            extra_options={"MatMulConstBOnly": True},
        )
    whole.unlink()


def _shrink(model: onnx.ModelProto, kinds: tuple[str, ...]) -> None:
    """Store the weights of nodes of these types in int8, with a scale for each output channel."""
    graph = model.graph
    weights = {one.name: one for one in graph.initializer}
    done: dict[str, str] = {}
    expand = []
    for node in graph.node:
        name = node.input[1] if node.op_type in kinds else ""
        if name in weights and name not in done:
            values = numpy_helper.to_array(weights[name])
            if values.size < MIN_VALUES or values.dtype != np.float32:
                continue
            axis = 0 if node.op_type == "Conv" or _transposed(node) else 1
            others = tuple(number for number in range(values.ndim) if number != axis)
            largest = np.abs(values).max(axis=others, keepdims=True)
            scale = np.maximum(largest, np.finfo(np.float32).tiny) / 127
            small = np.clip(np.round(values / scale), -127, 127).astype(np.int8)
            done[name] = f"{name}.float"
            graph.initializer.remove(weights[name])
            graph.initializer.append(numpy_helper.from_array(small, f"{name}.int8"))
            graph.initializer.append(numpy_helper.from_array(scale.ravel(), f"{name}.scale"))
            inputs = [f"{name}.int8", f"{name}.scale"]
            expand.append(helper.make_node("DequantizeLinear", inputs, [done[name]], axis=axis))
    for node in graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = done.get(name, name)
    nodes = [*expand, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


def _transposed(node: onnx.NodeProto) -> bool:
    return any(one.name == "transB" and one.i == 1 for one in node.attribute)
