"""Targets: folders of encoders and compressors in which one file is changed."""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from fuzz.registry import Choices, folder, target

from xmodal.checksums import file_record
from xmodal.codes import BinaryCodes
from xmodal.data.preprocessing import Preprocessing
from xmodal.encoders.calibration import (
    STAGES,
    Confidence,
    Curve,
    SourceCurves,
    StageCurves,
    Typical,
)
from xmodal.encoders.compressor import Compressor, read_codes
from xmodal.encoders.encoder import Encoder
from xmodal.encoders.folder import (
    CONFIG,
    DIGEST_KEY,
    FILES_KEY,
    ONNX_ENCODER,
    SPLIT,
    TOKENIZER,
    write_config,
    write_split,
)
from xmodal.encoders.load import load_encoder
from xmodal.encoders.onnx_encoder import ModalityConfig

CURVE = Curve(codes=20.0, words=0.5, lead=0.9, score=0.1, documents=-0.1, offset=1.0, largest=50)
TYPICAL = Typical(0.4, 0.01, (-0.4, -0.3, -0.2, -0.1, 0.0))
CONFIDENCE = Confidence(
    {m: SourceCurves({s: StageCurves(CURVE, TYPICAL) for s in STAGES}) for m in ("image", "text")},
    known_words=frozenset({1, 2, 3}),
)
RECORDED, AS_IT_IS, NO_DIGEST = range(3)
"""What happens to ``config.json`` after the change: its digests are computed again, it stays as it
is, or it has no digests, as in folders of earlier versions."""


def use_changed(original: Path, data: bytes, use: Any) -> None:
    """Call ``use`` with a copy of a folder in which one file has other bytes."""
    choices = Choices(data)
    mode, name = choices.number(3), choices.pick(names(original))
    changed = folder() / f"changed-{original.name}"
    shutil.rmtree(changed, ignore_errors=True)
    shutil.copytree(original, changed)
    (changed / name).write_bytes(choices.rest())
    if mode != AS_IT_IS:
        _record(changed, name, mode)
    use(changed)


def _record(changed: Path, name: str, mode: int) -> None:
    """Write ``config.json`` again so that its digests are valid, or are missing."""
    try:
        config = json.loads((changed / CONFIG).read_bytes())
        recorded = config.get(FILES_KEY, {})
        if name in recorded:
            recorded[name] = file_record(changed / name)
        if mode == NO_DIGEST:
            content = {k: v for k, v in config.items() if k != DIGEST_KEY}
            (changed / CONFIG).write_text(json.dumps(content))
        else:
            write_config(changed, config)
    except (ValueError, TypeError, AttributeError, RecursionError):
        return


def names(original: Path) -> list[str]:
    """Return the names of the files of a folder."""
    return sorted(path.name for path in original.iterdir())


def folder_seeds(original: Path) -> list[bytes]:
    """Return the content of each file of a folder, preceded by a mode and its place."""
    return [
        bytes([mode, place]) + (original / name).read_bytes()
        for place, name in enumerate(names(original))
        for mode in range(3)
    ]


def use_encoder(changed: Path) -> None:
    """Load an encoder, and use what search and info use of it without a graph."""
    encoder = load_encoder(changed)
    assert encoder.fingerprint
    json.dumps(encoder.about)
    sum(map(len, encoder.split.values()))
    _use_confidence(encoder)


def _use_confidence(encoder: Encoder) -> None:
    for stage in STAGES:
        for source in ("image", "text"):
            found = encoder.confidence.hits_confidence(
                *(stage, [0.9, None, -0.5], 100),
                word_scores=[3.0, None, 1.0],
                distances=[3, 5, 9],
                source=source,
            )
            assert all(one is None or 0 <= one <= 1 for one in found), found
    encoder.confidence.has_known_word("a red circle")


# ---- portable encoders -----------------------------------------------------------------------


@functools.cache
def portable_folder() -> Path:
    """Return the folder of a portable encoder whose graphs are no graphs."""
    path = folder() / "portable"
    path.mkdir()
    for name in ("image.onnx", "text.onnx"):
        (path / name).write_bytes(name.encode())
    (path / TOKENIZER).write_text(json.dumps(_tokenizer()))
    write_split(path, {"train": ["a", "é"], "query": ["b"]})
    image = ModalityConfig(
        *("image.onnx", "pixels", ("pixels",), 8, False, 4), preprocessing=Preprocessing(16)
    )
    text = ModalityConfig(
        *("text.onnx", "tokens", ("input_ids", "attention_mask"), 8, False, 4),
        **{"tokenizer": TOKENIZER, "max_tokens": 8, "padding": "longest"},
    )
    config = {
        "kind": ONNX_ENCODER.kind,
        "format": ONNX_ENCODER.version,
        "fingerprint": "f",
        "bits": 16,
        "shared_space": True,
        "precision": "float32",
        "confidence": CONFIDENCE.to_config(),
        "sides": {"image": image.to_config(), "text": text.to_config()},
        FILES_KEY: {name: file_record(path / name) for name in names(path) if name != SPLIT},
        "settings": {"bits": 16},
    }
    write_config(path, config)
    return path


def _tokenizer() -> Mapping[str, Any]:
    vocabulary = {word: n for n, word in enumerate(["[UNK]", "[PAD]", "a", "red", "circle"])}
    return {
        "version": "1.0",
        "truncation": {"direction": "Right", "max_length": 8, "strategy": "LongestFirst"}
        | {"stride": 0},
        "padding": {"strategy": "BatchLongest", "direction": "Right", "pad_to_multiple_of": None}
        | {"pad_id": 1, "pad_type_id": 0, "pad_token": "[PAD]"},
        "added_tokens": [],
        "normalizer": {"type": "Lowercase"},
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]"},
    }


@target(lambda: folder_seeds(portable_folder()), "tokenizers")
def portable_model(data: bytes) -> None:
    """A portable encoder in which one file has the bytes."""
    use_changed(portable_folder(), data, use_encoder)


@target(lambda: [json.dumps(_tokenizer()).encode()], "tokenizers", "onnxruntime")
def tokenizer(data: bytes) -> None:
    """A portable encoder with another tokenizer, whose record is valid."""
    place = names(portable_folder()).index(TOKENIZER)
    use_changed(portable_folder(), bytes([RECORDED, place]) + data, _use_tokenizer)


def _use_tokenizer(changed: Path) -> None:
    load_encoder(changed).has_known_token("a red circle, naïve 赤い")


# ---- trained encoders ------------------------------------------------------------------------


@functools.cache
def trained_folder() -> Path:
    """Return the folder of a trained encoder with random towers."""
    import torch

    from xmodal.encoders.torch_encoder import BackboneRef, TrainedEncoder
    from xmodal.encoders.towers import Towers

    path = folder() / "trained"
    torch.manual_seed(0)
    refs = {"image": BackboneRef("features", "i"), "text": BackboneRef("words", "w")}
    towers = Towers(4, 4, 8, hidden=2, kind="linear")
    TrainedEncoder(towers, refs, CONFIDENCE, {"settings": {}}, {"train": ["a"]}).save(path)
    return path


@target(lambda: folder_seeds(trained_folder()), "torch")
def trained_model(data: bytes) -> None:
    """A trained encoder in which one file has the bytes."""
    use_changed(trained_folder(), data, use_encoder)


# ---- compressors -----------------------------------------------------------------------------


@functools.cache
def compressor_folder() -> Path:
    """Return the folder of a compressor."""
    path = folder() / "compressor"
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((8, 4)).astype(np.float32)
    codes = BinaryCodes.from_relaxed(rng.standard_normal((3, 8)))
    Compressor(weight, np.zeros(8, np.float32), {"settings": {}}).save(path, codes)
    return path


@target(lambda: folder_seeds(compressor_folder()))
def compressor(data: bytes) -> None:
    """A compressor in which one file has the bytes."""
    use_changed(compressor_folder(), data, _use_compressor)


def _use_compressor(changed: Path) -> None:
    loaded = Compressor.load(changed)
    loaded.encode(np.ones((2, loaded.dim), np.float32))
    read_codes(changed).to_hex()
