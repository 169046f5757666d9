"""Tiny models of transformers with random weights, written by save_pretrained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

TEXTS = ["a red circle on the left", "two dogs", "Schwarze Schuhe"]
SMALL = {"hidden_size": 16, "intermediate_size": 24}


def tokenizer(*, special: list[str], texts: Sequence[str] = TEXTS) -> Any:
    """Train a small BPE tokenizer on ``texts``."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    out = Tokenizer(models.BPE(unk_token=special[-1]))
    out.pre_tokenizer = pre_tokenizers.Whitespace()
    out.train_from_iterator(
        [text.lower() for text in texts] * 3,
        trainers.BpeTrainer(vocab_size=120, special_tokens=special, show_progress=False),
    )
    return out


def save_clip(folder: Path, texts: Sequence[str] = TEXTS) -> Path:
    """Save a CLIP: pictures of 32 x 32, texts of at most 16 tokens, features of 12 numbers.

    Its tokenizer is trained on ``texts``.
    """
    from tokenizers.processors import TemplateProcessing
    from transformers import (
        CLIPConfig,
        CLIPImageProcessor,
        CLIPModel,
        CLIPProcessor,
        PreTrainedTokenizerFast,
    )

    inner = tokenizer(special=["<start>", "<end>", "<pad>", "<unk>"], texts=texts)
    inner.post_processor = TemplateProcessing(
        single="<start> $A <end>", special_tokens=[("<start>", 0), ("<end>", 1)]
    )
    outer = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        bos_token="<start>",
        eos_token="<end>",
        pad_token="<pad>",
        unk_token="<unk>",
        model_max_length=16,
    )
    small = SMALL | {"num_hidden_layers": 2, "num_attention_heads": 2}
    config = CLIPConfig(
        text_config=small
        | {
            "vocab_size": len(outer),
            "max_position_embeddings": 16,
            "bos_token_id": 0,
            "eos_token_id": 1,
            "pad_token_id": 2,
        },
        vision_config=small | {"image_size": 32, "patch_size": 8},
        projection_dim=12,
    )
    torch.manual_seed(0)
    processor = CLIPProcessor(
        CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
        outer,
    )
    CLIPModel(config).eval().save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def save_vit(folder: Path) -> Path:
    """Save a vision model: pictures of 32 x 32, features of 16 numbers."""
    from transformers import ViTConfig, ViTImageProcessor, ViTModel

    torch.manual_seed(0)
    small = SMALL | {"num_hidden_layers": 1, "num_attention_heads": 2}
    config = ViTConfig(**small, image_size=32, patch_size=8)
    ViTModel(config).eval().save_pretrained(folder)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def save_bert(folder: Path) -> Path:
    """Save a text model: texts of at most 24 tokens, features of 16 numbers."""
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    outer = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer(special=["<pad>", "<unk>"]),
        pad_token="<pad>",
        unk_token="<unk>",
        model_max_length=24,
    )
    torch.manual_seed(0)
    small = SMALL | {"num_hidden_layers": 1, "num_attention_heads": 2}
    config = BertConfig(**small, vocab_size=len(outer), max_position_embeddings=24)
    BertModel(config).eval().save_pretrained(folder)
    outer.save_pretrained(folder)
    return folder
