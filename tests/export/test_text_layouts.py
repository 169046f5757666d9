"""Export of text backbones with a pooling, a prompt and layers of sentence-transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.exported import equal_bits, exported, untrained
from support.model_families import SIZES, TEXTS, bert_tokenizer, end_tokenizer, save
from support.tiny_models import tokenizer

modules = pytest.importorskip("sentence_transformers.sentence_transformer.modules")


def pooled(folder: Path, *, left: bool) -> list[Any]:
    """A text model with three poolings, without the tokens of its prompt, and a dense layer."""
    from transformers import BertConfig, BertModel, Qwen3Config, Qwen3Model

    if left:
        tokens = end_tokenizer(32, padding_side="left")
        sizes = SIZES | {"num_key_value_heads": 2, "head_dim": 8, "vocab_size": len(tokens)}
        model: Any = Qwen3Model(Qwen3Config(**sizes, max_position_embeddings=32))
    else:
        tokens = bert_tokenizer(32)
        config = BertConfig(**SIZES, vocab_size=len(tokens), max_position_embeddings=32)
        model = BertModel(config)
    save(folder, model.eval(), tokens)
    modes = ("cls", "weightedmean", "lasttoken")
    return [
        modules.Transformer(str(folder), do_lower_case=True),
        modules.Pooling(16, pooling_mode=modes, include_prompt=False),
        modules.Dense(48, 12),
    ]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["right", "left", "static"])
def test_exported_text_backbone_gives_the_same_codes(kind: str, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    torch.manual_seed(0)
    steps = (
        [modules.StaticEmbedding(tokenizer(special=["<unk>"]), embedding_dim=20)]
        if kind == "static"
        else pooled(tmp_path / "inner", left=kind == "left")
    )
    prompt = {"prompts": {"q": "two DOGS: "}, "default_prompt_name": "q"}
    model = SentenceTransformer(modules=steps, device="cpu", **prompt)
    model.save(str(tmp_path / "st"), create_model_card=False)
    encoder = untrained("small-cnn", str(tmp_path / "st"))
    portable = exported(encoder, tmp_path)
    assert equal_bits(encoder, portable, "text", TEXTS) >= 0.99
    found = portable.encode("text", TEXTS).features.astype(np.float32)
    own = model.encode(list(TEXTS), normalize_embeddings=True)
    np.testing.assert_allclose(found, own, atol=2e-3)
    config = json.loads((tmp_path / "x.onnx" / "config.json").read_text())
    assert config["sides"]["text"]["prompt"] == "two DOGS: "
