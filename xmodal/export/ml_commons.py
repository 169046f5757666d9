"""Text tower of a portable encoder as a model of ml-commons, which runs inside OpenSearch.

ml-commons tokenizes with tokenizer.json and computes the graph with onnxruntime 1.16. It truncates
a text to MAX_TOKENS tokens, and passes ``input_ids``, ``attention_mask``, and ``token_type_ids`` to
models of the type ``bert``. It stores the first output, float32 numbers, of which neural-search
makes signed bytes. See :mod:`xmodal.export.ml_commons_tokens` and
:mod:`xmodal.export.ml_commons_graph`.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import numpy_helper
from tokenizers import Tokenizer

from xmodal.checksums import check_file, file_record
from xmodal.encoders.encoder import Encoder
from xmodal.encoders.engine import require_portable
from xmodal.encoders.folder import (
    FILES_KEY,
    ONNX_ENCODER,
    TOKENIZER,
    damage_as_model_error,
    read_config,
)
from xmodal.encoders.onnx_encoder import TOKEN_TENSORS, ModalityConfig, PortableEncoder
from xmodal.encoders.text_tower import TextTower
from xmodal.errors import ConfigError, ModelError
from xmodal.export.ml_commons_graph import INPUTS, ml_commons_graph
from xmodal.export.ml_commons_tokens import MAX_TOKENS, ml_commons_tokenizer
from xmodal.export.quantization import quantize
from xmodal.writing import atomic_write, check_target, write_text

GRAPH = "text.onnx"
MAX_INT8_DIFFERENCE = 0.4
"""Share of bits of an int8 graph that may differ; of unrelated codes it is 0.5."""
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

    ``model``: folder of a portable encoder, or of a trained one with its portable encoder. A tower
    in int8 (``int8``, or a portable encoder in int8) has a fingerprint of its own, because its
    codes depend on the version of onnxruntime. Raises ConfigError if the tower cannot run in
    ml-commons, and ModelError if the written graph computes other codes than the encoder.
    """
    out = Path(out)
    if out.suffix != ".zip":
        raise ConfigError(f"{out}: expected a file name that ends in .zip")
    folder = require_portable(Path(model))
    encoder = PortableEncoder.load(folder)
    config = encoder.modality_configs["text"]
    check_config(config)
    if (folder / f"{config.graph}.data").exists():
        raise ConfigError(f"{config.graph} has over 2 GB, expected less: use connect --service")
    check_target(out)
    name = str(config.tokenizer)
    with damage_as_model_error(folder, ONNX_ENCODER):
        for file in (config.graph, name):
            check_file(folder / file, read_config(folder, ONNX_ENCODER)[FILES_KEY][file])
    tokens = ml_commons_tokenizer((folder / name).read_text("utf-8"), config)
    is_int8 = int8 or encoder.precision == "int8"
    original = _quantized(folder, config) if int8 and encoder.precision != "int8" else None
    original = original or onnx.load(folder / config.graph)
    fingerprint = _int8_fingerprint(folder, original) if is_int8 else encoder.fingerprint
    graph = ml_commons_graph(original, config, tokens, encoder.bits)
    data = graph.SerializeToString(deterministic=True)
    codes = compute(data, tokens.json, SAMPLES)
    _compare(encoder, codes, is_int8=is_int8)
    _write_zip(out, data, tokens.json.encode())
    record = file_record(out)
    tower = TextTower(
        file=out,
        name=Path(model).resolve().name,
        fingerprint=fingerprint,
        bits=encoder.bits,
        precision="int8" if is_int8 else encoder.precision,
        max_tokens=tokens.max_tokens,
        size=record["bytes"],
        sha256=record["sha256"],
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


def compute(graph: bytes, tokenizer: str, texts: Sequence[str]) -> npt.NDArray[np.int8]:
    """Return the codes of texts as signed bytes (n, bytes), computed as ml-commons does.

    Texts are computed one by one, truncated to MAX_TOKENS tokens.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_inputs()]
    tokens = Tokenizer.from_str(tokenizer)
    tokens.enable_truncation(MAX_TOKENS)
    codes = []
    for text in texts:
        encoding = tokens.encode(text)
        inputs = {
            name: np.array([getattr(encoding, TOKEN_TENSORS[name])], np.int64) for name in names
        }
        codes.append(session.run(None, inputs)[0][0])
    return np.asarray(codes).astype(np.int8)


def check_config(config: ModalityConfig) -> None:
    """Raise ConfigError if ml-commons cannot compute the text tower."""
    if config.input != "tokens":
        raise ConfigError(
            f"the text backbone is {config.input}, which has no tokenizer, expected a transformer "
            "to run in the cluster: train with --text-backbone NAME, or use connect --service"
        )
    if config.max_tokens is None or config.max_tokens > MAX_TOKENS:
        raise ConfigError(
            f"the text backbone reads {config.max_tokens} tokens, expected at most {MAX_TOKENS}, "
            "the limit of ml-commons: use connect --service"
        )
    unknown = sorted(set(config.inputs) - set(INPUTS))
    if unknown:
        raise ConfigError(f"{config.graph} has the input {unknown[0]}: use connect --service")


def _quantized(folder: Path, config: ModalityConfig) -> onnx.ModelProto:
    """Return the graph of the texts in int8; ``folder`` is not changed."""
    with tempfile.TemporaryDirectory() as temporary:
        copy = Path(temporary)
        shutil.copyfile(folder / config.graph, copy / config.graph)
        quantize(config, copy)
        return onnx.load(copy / config.graph)


def _int8_fingerprint(folder: Path, graph: onnx.ModelProto) -> str:
    """Return the fingerprint of codes of an int8 graph inside a cluster.

    It is a hash of the fingerprint of the trained encoder and of the weights.
    """
    config = read_config(folder, ONNX_ENCODER)
    trained = config.get("made of", config["fingerprint"])
    hashed = hashlib.blake2b(f"ml-commons int8 {trained}".encode(), digest_size=8)
    for weight in graph.graph.initializer:
        hashed.update(f"{weight.name}\0".encode() + numpy_helper.to_array(weight).tobytes())
    return hashed.hexdigest()


def _compare(encoder: Encoder, codes: npt.NDArray[np.int8], *, is_int8: bool) -> None:
    """Raise ModelError unless the codes of the samples are those of the encoder.

    ``is_int8``: of the graph. Then some bits differ, from those of an int8 encoder as well.
    """
    expected = np.asarray(encoder.encode_texts(list(SAMPLES)).to_signed())
    bits = np.bitwise_count((expected ^ codes).view(np.uint8)).sum()
    if bits > (MAX_INT8_DIFFERENCE * 8 * codes.size if is_int8 else 0):
        raise ModelError(
            f"the graph for ml-commons computes other codes than the encoder ({bits} of "
            f"{8 * codes.size} bits differ): use connect --service"
        )


def _write_zip(out: Path, graph: bytes, tokenizer: bytes) -> None:
    """Write the archive, uncompressed; equal contents give equal bytes."""
    with atomic_write(out) as file, zipfile.ZipFile(file, "w") as archive:
        parts: list[tuple[str, Any]] = [(GRAPH, graph), (TOKENIZER, tokenizer)]
        for name, data in parts:
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), data)
