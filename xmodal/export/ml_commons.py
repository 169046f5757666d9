"""Text tower of a portable encoder as a model of ml-commons, which runs inside OpenSearch.

ml-commons tokenizes with tokenizer.json and computes the graph with onnxruntime 1.16. It pads the
texts of a request to the longest one, truncates them to MAX_TOKENS tokens, passes ``input_ids``
and ``attention_mask``, and ``token_type_ids`` to models of the type ``bert``. It stores the first
output, float32 numbers, of which neural-search makes signed bytes.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer

from xmodal.encoders.engine import portable_folder
from xmodal.encoders.folder import CONFIG, ONNX_ENCODER, TOKENIZER, encoder_format
from xmodal.encoders.onnx_encoder import ModalityConfig, PortableEncoder
from xmodal.encoders.text_tower import TextTower
from xmodal.errors import ConfigError, ModelError
from xmodal.writing import atomic_write, write_text

MAX_TOKENS = 512
"""Tokens to which ml-commons truncates, whatever the tokenizer declares."""
OPSET, IR_VERSION = 19, 9
"""Newest versions that onnxruntime 1.16 reads."""
OUTPUT = "sentence_embedding"
SAMPLES = (
    "a red circle on the left",
    "Ein grüner Kreis, «rechts»",
    "一只黑色的狗在草地上跑",
    "собака бежит по траве",
    "🦊 <b>\"quoted\"</b> {'a': [1, 2]}\n\t\\",
    " ".join(["a long text of many words"] * 150),
)


def write_text_tower(model: str | Path, out: str | Path, *, int8: bool = False) -> TextTower:
    """Write the text tower of a model as ``out`` (.zip), and its description beside it (.json).

    ``model``: folder of a portable encoder, or of a trained one with its portable encoder.
    Raises ConfigError if the tower cannot run in ml-commons, and ModelError if the written graph
    computes other codes than the encoder.
    """
    out = Path(out)
    if out.suffix != ".zip":
        raise ConfigError(f"{out}: expected a file name that ends in .zip")
    folder = _portable(Path(model))
    encoder = PortableEncoder.load(folder)
    config = encoder.modality_configs["text"]
    _check(encoder, config)
    graph = _ml_commons_graph(folder, config).SerializeToString(deterministic=True)
    _write_zip(out, graph, _tokenizer(folder, config))
    data = out.read_bytes()
    codes = encoder.encode_texts(list(SAMPLES)).to_signed()
    tower = TextTower(
        file=out,
        name=Path(model).resolve().name,
        fingerprint=encoder.fingerprint,
        bits=encoder.bits,
        precision=encoder.precision,
        max_tokens=int(config.max_tokens or MAX_TOKENS),
        size=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        model_config={
            "model_type": "bert" if "token_type_ids" in config.inputs else "distilbert",
            "embedding_dimension": encoder.bits,
            "framework_type": "sentence_transformers",
            "pooling_mode": "cls",
        },
        samples=tuple(zip(SAMPLES, (tuple(map(int, code)) for code in codes), strict=True)),
    )
    write_text(out.with_suffix(".json"), tower.to_json())
    return tower


def _portable(model: Path) -> Path:
    """The portable encoder in ``model``. Raises ConfigError if there is none."""
    if encoder_format(model) is ONNX_ENCODER:
        return model
    folder = portable_folder(model)
    if folder is None:
        raise ConfigError(f"{model} has no portable encoder: run xmodal export --model {model}")
    return folder


def _check(encoder: PortableEncoder, config: ModalityConfig) -> None:
    """Raise ConfigError if ml-commons cannot compute the text tower."""
    if config.input != "tokens":
        raise ConfigError(
            "the text backbone is words, which has no tokenizer, expected a transformer to run in "
            "the cluster: train with --text-backbone NAME, or use connect --service"
        )
    if config.max_tokens is None or config.max_tokens > MAX_TOKENS:
        raise ConfigError(
            f"the text backbone reads {config.max_tokens} tokens, expected at most {MAX_TOKENS}, "
            "the limit of ml-commons: use connect --service"
        )
    if (encoder.folder / f"{config.graph}.data").exists():
        raise ConfigError(f"{config.graph} has over 2 GB, expected less: use connect --service")


def _tokenizer(folder: Path, config: ModalityConfig) -> bytes:
    """Return tokenizer.json without truncation and padding, which ml-commons sets itself."""
    content = json.loads((folder / str(config.tokenizer)).read_text("utf-8"))
    content["truncation"] = content["padding"] = None
    return json.dumps(content, ensure_ascii=False).encode()


def _write_zip(out: Path, graph: bytes, tokenizer: bytes) -> None:
    """Write the archive; equal contents give equal bytes."""
    with atomic_write(out) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in (("text.onnx", graph), (TOKENIZER, tokenizer)):
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), data)


def _ml_commons_graph(folder: Path, config: ModalityConfig) -> onnx.ModelProto:
    """Return the graph of the texts as ml-commons computes it: token tensors -> signed bytes."""
    model = onnx.load(folder / config.graph)
    graph = model.graph
    ending, padding = _special_tokens(folder, config)
    names = [one.name for one in graph.input]
    prepared = {name: f"{name}.prepared" for name in names}
    nodes = [spelled for node in graph.node for spelled in _spelled(node, config.graph)]
    for node in nodes:
        for place, name in enumerate(node.input):
            node.input[place] = prepared.get(name, name)
    limit = int(config.max_tokens or MAX_TOKENS)
    length = limit if config.padding == "max_length" else None
    nodes = [*_prepare(prepared, limit, length, ending, padding), *nodes, *_signed_bytes()]
    del graph.value_info[:], graph.output[:], graph.input[:], graph.node[:]
    nodes = _needed(nodes, OUTPUT)
    graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    weights = [one for one in graph.initializer if one.name in used]
    del graph.initializer[:]
    graph.initializer.extend(weights)
    for name in dict.fromkeys([*names, "attention_mask"]):
        shape = ["batch", "tokens"]
        graph.input.append(helper.make_tensor_value_info(name, TensorProto.INT64, shape))
    bits = int(json.loads((folder / CONFIG).read_text("utf-8"))["bits"])
    output = helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", bits // 8])
    graph.output.append(output)
    for part in (*graph.node, *graph.initializer):
        del part.metadata_props[:]
    del model.opset_import[:], model.metadata_props[:], graph.metadata_props[:]
    model.opset_import.append(helper.make_opsetid("", OPSET))
    model.ir_version = IR_VERSION
    onnx.checker.check_model(model)
    return model


def _special_tokens(folder: Path, config: ModalityConfig) -> tuple[list[int], dict[str, int]]:
    """Return the ids that end every text, and the padding of ids and of token types."""
    tokenizer = Tokenizer.from_file(str(folder / str(config.tokenizer)))
    padding = tokenizer.padding or {}
    tokenizer.no_padding()
    tokenizer.no_truncation()
    empty, ids = tokenizer.encode(""), tokenizer.encode("a b").ids
    ending = 0
    while ending < len(empty.ids) and empty.ids[-1 - ending] == ids[-1 - ending]:
        ending += 1
    return empty.ids[len(empty.ids) - ending :], {
        "input_ids": int(padding.get("pad_id", 0)),
        "token_type_ids": int(padding.get("pad_type_id", 0)),
    }


def _prepare(
    prepared: dict[str, str],
    limit: int,
    length: int | None,
    ending: list[int],
    padding: dict[str, int],
) -> list[onnx.NodeProto]:
    """Nodes that truncate the inputs to ``limit`` tokens, and pad them to ``length`` tokens.

    A text that is truncated keeps the ids ``ending`` at its end, as in the package tokenizers.
    """
    nodes = [
        _constant("limit", [limit]),
        _constant("zero", [0]),
        _constant("one", [1]),
        _node("ReduceSum", ["attention_mask", "one"], "lengths", keepdims=1),
        _node("Greater", ["lengths", "limit"], "is_truncated"),
    ]
    for name, output in prepared.items():
        nodes.append(_node("Slice", [name, "zero", "limit", "one"], f"{name}.cut"))
        last = f"{name}.cut"
        if name == "input_ids" and ending:
            row = [0] * (limit - len(ending)) + ending
            is_end = [False] * (limit - len(ending)) + [True] * len(ending)
            nodes += [
                _constant("ending", [row]),
                _constant("is_ending", [is_end]),
                _node("Shape", [last], "width", start=1, end=2),
                _node("Slice", ["ending", "zero", "width", "one"], "ending.cut"),
                _node("Slice", ["is_ending", "zero", "width", "one"], "is_ending.cut"),
                _node("And", ["is_truncated", "is_ending.cut"], "is_replaced"),
                _node("Where", ["is_replaced", "ending.cut", last], f"{name}.ended"),
            ]
            last = f"{name}.ended"
        if length is not None:
            nodes += [
                _constant(f"{name}.row", [[padding.get(name, 0)] * length]),
                _node("Shape", [last], f"{name}.batch", start=0, end=1),
                _node("Concat", [f"{name}.batch", "limit"], f"{name}.size", axis=0),
                _node("Expand", [f"{name}.row", f"{name}.size"], f"{name}.padding"),
                _node("Concat", [last, f"{name}.padding"], f"{name}.long", axis=1),
                _node("Slice", [f"{name}.long", "zero", "limit", "one"], f"{name}.full"),
            ]
            last = f"{name}.full"
        nodes.append(_node("Identity", [last], output))
    return nodes


def _signed_bytes() -> list[onnx.NodeProto]:
    """Nodes from ``codes`` (b, bits / 8) uint8 to the same bytes signed, as float32."""
    return [
        _node("Cast", ["codes"], "codes.float", to=TensorProto.FLOAT),
        _constant("largest", [127.0]),
        _constant("range", [256.0]),
        _node("Greater", ["codes.float", "largest"], "is_negative"),
        _node("Sub", ["codes.float", "range"], "codes.negative"),
        _node("Where", ["is_negative", "codes.negative", "codes.float"], OUTPUT),
    ]


def _spelled(node: onnx.NodeProto, name: str) -> list[onnx.NodeProto]:
    """``node``, or the nodes of opset 19 that compute the same."""
    if any(part.HasField("g") or part.graphs for part in node.attribute):
        raise ModelError(
            f"{name} has the operator {node.op_type} with a graph inside: not supported"
        )
    if node.op_type != "Gelu":
        return [node]
    if any(one.name == "approximate" and one.s == b"tanh" for one in node.attribute):
        raise ModelError(f"{name} has the operator Gelu with tanh, which ml-commons cannot compute")
    (x,), (out,) = node.input, node.output
    return [
        _constant(f"{out}.root", [float(np.sqrt(2))]),
        _constant(f"{out}.half", [0.5]),
        _constant(f"{out}.unit", [1.0]),
        _node("Div", [x, f"{out}.root"], f"{out}.scaled"),
        _node("Erf", [f"{out}.scaled"], f"{out}.erf"),
        _node("Add", [f"{out}.erf", f"{out}.unit"], f"{out}.shifted"),
        _node("Mul", [x, f"{out}.shifted"], f"{out}.product"),
        _node("Mul", [f"{out}.product", f"{out}.half"], out),
    ]


def _needed(nodes: Sequence[onnx.NodeProto], output: str) -> list[onnx.NodeProto]:
    """The nodes of which ``output`` is computed, in order."""
    names, kept = {output}, []
    for node in reversed(nodes):
        if names.intersection(node.output):
            kept.append(node)
            names.update(node.input)
    return kept[::-1]


def _constant(name: str, values: list[Any]) -> onnx.NodeProto:
    array = np.array(values)
    array = array.astype(np.float32) if array.dtype == np.float64 else array
    value = numpy_helper.from_array(array, name)
    return helper.make_node("Constant", [], [name], value=value)


def _node(op: str, inputs: list[str], output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, inputs, [output], **attributes)
