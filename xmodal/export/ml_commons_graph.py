"""Graph of a text tower for ml-commons: tokens -> signed bytes, for onnxruntime 1.16."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from xmodal.encoders.onnx_encoder import ModalityConfig
from xmodal.errors import ModelError
from xmodal.export.ml_commons_tokens import Tokens

OPSET, IR_VERSION = 19, 9
"""Newest versions that onnxruntime 1.16 reads."""
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
"""Inputs that ml-commons can pass, in its order."""
OUTPUT = "sentence_embedding"


def ml_commons_graph(
    model: onnx.ModelProto, config: ModalityConfig, tokens: Tokens, bits: int
) -> onnx.ModelProto:
    """Return the graph of the texts as ml-commons computes it; ``model`` is changed.

    Its inputs are ``input_ids``, ``attention_mask`` and perhaps ``token_type_ids``, each (b,
    tokens) int64. Its output, OUTPUT, has the bytes of codes, -128 to 127, (b, bits / 8) float32.
    Raises ModelError for an operator that onnxruntime 1.16 lacks.
    """
    graph = model.graph
    names = [one.name for one in graph.input]
    prepared = {name: f"{name}.prepared" for name in names}
    nodes = [spelled for node in graph.node for spelled in _spelled(node, config.graph)]
    for node in nodes:
        for place, name in enumerate(node.input):
            node.input[place] = prepared.get(name, name)
    nodes = _needed([*_prepare(prepared, tokens), *nodes, *_signed_bytes()])
    del graph.value_info[:], graph.output[:], graph.input[:], graph.node[:]
    graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    weights = [one for one in graph.initializer if one.name in used]
    del graph.initializer[:]
    graph.initializer.extend(weights)
    for name in INPUTS:
        if name in (*names, "attention_mask"):
            shape = ["batch", "tokens"]
            graph.input.append(helper.make_tensor_value_info(name, TensorProto.INT64, shape))
    output = helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", bits // 8])
    graph.output.append(output)
    for part in (*graph.node, *graph.initializer):
        del part.metadata_props[:]
    del model.opset_import[:], model.metadata_props[:], graph.metadata_props[:]
    model.opset_import.append(helper.make_opsetid("", OPSET))
    model.ir_version = IR_VERSION
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        reason = " ".join(str(error).split())[:160]
        raise ModelError(
            f"{config.graph} cannot be written for onnxruntime 1.16 of ml-commons ({reason}): use "
            "connect --service"
        ) from None
    return model


def _prepare(prepared: dict[str, str], tokens: Tokens) -> list[onnx.NodeProto]:
    """Return nodes from the inputs to those of the encoder.

    They truncate to ``max_tokens``, where a text keeps its special tokens at the end, as in the
    package tokenizers; pad to ``max_tokens`` if the graph has a fixed number of tokens; and write
    the padding of the encoder over that of ml-commons.
    """
    limit = tokens.max_tokens
    nodes = [
        _constant("limit", [limit]),
        _constant("zero", [0]),
        _constant("one", [1]),
        _node("ReduceSum", ["attention_mask", "one"], "lengths", keepdims=1),
        _node("Greater", ["lengths", "limit"], "is_truncated"),
        *_fitted("attention_mask", "mask", tokens),
        _node("Equal", ["mask", "zero"], "is_padding"),
    ]
    for name, output in prepared.items():
        if name == "attention_mask":
            nodes.append(_node("Identity", ["mask"], output))
            continue
        nodes += [
            *_fitted(name, f"{name}.fitted", tokens),
            _constant(f"{name}.pad", [tokens.padding[name]]),
            _node("Where", ["is_padding", f"{name}.pad", f"{name}.fitted"], output),
        ]
    return nodes


def _fitted(name: str, output: str, tokens: Tokens) -> list[onnx.NodeProto]:
    """Return nodes that truncate an input to the number of tokens, and pad it if it is fixed."""
    limit, ending = tokens.max_tokens, tokens.ending.get(name, [])
    cut = f"{name}.cut"
    nodes, last = [_node("Slice", [name, "zero", "limit", "one"], cut)], cut
    if ending:
        start = limit - len(ending)
        nodes += [
            _constant(f"{name}.ending", [[0] * start + ending]),
            _constant(f"{name}.is_ending", [[False] * start + [True] * len(ending)]),
            _node("Shape", [cut], f"{name}.width", start=1, end=2),
            _node("Slice", [f"{name}.ending", "zero", f"{name}.width", "one"], f"{name}.e"),
            _node("Slice", [f"{name}.is_ending", "zero", f"{name}.width", "one"], f"{name}.is_e"),
            _node("And", ["is_truncated", f"{name}.is_e"], f"{name}.is_replaced"),
            _node("Where", [f"{name}.is_replaced", f"{name}.e", cut], f"{name}.ended"),
        ]
        last = f"{name}.ended"
    if not tokens.is_fixed:
        return [*nodes, _node("Identity", [last], output)]
    return [
        *nodes,
        _constant(f"{name}.row", [[tokens.padding[name]] * limit]),
        _node("Shape", [last], f"{name}.batch", start=0, end=1),
        _node("Concat", [f"{name}.batch", "limit"], f"{name}.size", axis=0),
        _node("Expand", [f"{name}.row", f"{name}.size"], f"{name}.padding"),
        _node("Concat", [last, f"{name}.padding"], f"{name}.long", axis=1),
        _node("Slice", [f"{name}.long", "zero", "limit", "one"], output),
    ]


def _signed_bytes() -> list[onnx.NodeProto]:
    """Return nodes from ``codes`` (b, bits / 8) uint8 to the same bytes signed, as float32."""
    return [
        _node("Cast", ["codes"], "codes.float", to=TensorProto.FLOAT),
        _constant("largest", [127.0]),
        _constant("range", [256.0]),
        _node("Greater", ["codes.float", "largest"], "is_negative"),
        _node("Sub", ["codes.float", "range"], "codes.negative"),
        _node("Where", ["is_negative", "codes.negative", "codes.float"], OUTPUT),
    ]


def _spelled(node: onnx.NodeProto, name: str) -> list[onnx.NodeProto]:
    """Return ``node``, or the nodes of opset 19 that compute the same in onnxruntime 1.16.

    Only Gelu is younger than opset 19. onnxruntime 1.16 removes a Cast to float16 and the Cast of
    its result to float32, also without optimizations, so that features would not be rounded: nodes
    that change nothing are put between them.
    """
    if any(part.HasField("g") or part.graphs for part in node.attribute):
        raise ModelError(
            f"{name} has the operator {node.op_type} with a graph inside, which cannot be written "
            "for ml-commons: use connect --service"
        )
    if node.op_type not in ("Cast", "Gelu"):
        return [node]
    (x,), (out,) = node.input, node.output
    if node.op_type == "Cast":
        if all(one.i != TensorProto.FLOAT16 for one in node.attribute if one.name == "to"):
            return [node]
        return [
            _node("Cast", [x], f"{out}.rounded", to=TensorProto.FLOAT16),
            _constant(f"{out}.axis", [0]),
            _node("Unsqueeze", [f"{out}.rounded", f"{out}.axis"], f"{out}.wide"),
            _node("Squeeze", [f"{out}.wide", f"{out}.axis"], out),
        ]
    half = [_constant(f"{out}.half", [0.5]), _constant(f"{out}.unit", [1.0])]
    if any(one.name == "approximate" and one.s == b"tanh" for one in node.attribute):
        gate, inner = f"{out}.tanh", _tanh_gate(x, out)
    else:
        gate = f"{out}.erf"
        inner = [
            _constant(f"{out}.root", [float(np.sqrt(2))]),
            _node("Div", [x, f"{out}.root"], f"{out}.scaled"),
            _node("Erf", [f"{out}.scaled"], gate),
        ]
    return [
        *half,
        *inner,
        _node("Add", [gate, f"{out}.unit"], f"{out}.shifted"),
        _node("Mul", [x, f"{out}.shifted"], f"{out}.product"),
        _node("Mul", [f"{out}.product", f"{out}.half"], out),
    ]


def _tanh_gate(x: str, out: str) -> list[onnx.NodeProto]:
    """Return nodes of tanh(sqrt(2 / pi) (x + 0.044715 x^3))."""
    return [
        _constant(f"{out}.cubic", [0.044715]),
        _constant(f"{out}.root", [float(np.sqrt(2 / np.pi))]),
        _node("Mul", [x, x], f"{out}.square"),
        _node("Mul", [f"{out}.square", x], f"{out}.cube"),
        _node("Mul", [f"{out}.cube", f"{out}.cubic"], f"{out}.small"),
        _node("Add", [x, f"{out}.small"], f"{out}.sum"),
        _node("Mul", [f"{out}.sum", f"{out}.root"], f"{out}.scaled"),
        _node("Tanh", [f"{out}.scaled"], f"{out}.tanh"),
    ]


def _needed(nodes: Sequence[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """Return the nodes of which OUTPUT is computed, in order."""
    names, kept = {OUTPUT}, []
    for node in reversed(nodes):
        if names.intersection(node.output):
            kept.append(node)
            names.update(node.input)
    return kept[::-1]


def _constant(name: str, values: list[Any]) -> onnx.NodeProto:
    """Return a node of a constant; numbers are int64 or float32."""
    array = np.array(values)
    array = array.astype(np.float32) if array.dtype == np.float64 else array
    value = numpy_helper.from_array(array, name)
    return helper.make_node("Constant", [], [name], value=value)


def _node(op: str, inputs: list[str], output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, inputs, [output], **attributes)
