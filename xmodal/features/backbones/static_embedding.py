"""Text backbones of sentence-transformers' StaticEmbedding: a vector for each token (torch)."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from xmodal.config import Precision
from xmodal.device import DTYPES, device, with_precision
from xmodal.errors import ModelError
from xmodal.features.backbones.pooling import pool
from xmodal.features.backbones.sentence_layout import FindFile, SentenceLayout
from xmodal.features.backbones.tensors import load_tensors
from xmodal.features.backbones.tokens import Tokenization, TokenTextBackbone

MAX_TOKENS = 8192
"""Tokens of a text that are averaged; the package has no limit."""
WEIGHTS = ("model.safetensors", "pytorch_model.bin")


def load(
    spec: str, layout: SentenceLayout, find: FindFile, fingerprint: str, precision: Precision
) -> TokenTextBackbone:
    """Load the backbone of a folder. Raises ModelError if it is damaged or a file is missing."""
    prefix = f"{layout.subfolder}/" if layout.subfolder else ""
    paths = {name: find(f"{prefix}{name}") for name in ("tokenizer.json", *WEIGHTS)}
    weights = next((paths[name] for name in WEIGHTS if paths[name] is not None), None)
    tokenizer = paths["tokenizer.json"]
    if tokenizer is None or weights is None:
        raise ModelError(
            f"{spec} is a StaticEmbedding without {prefix}tokenizer.json or {prefix}{WEIGHTS[0]}, "
            "expected both: choose another backbone"
        )
    tokens = Tokenization(
        spec, _tokenizer(spec, tokenizer), MAX_TOKENS, prompt=layout.prompt, special=False
    )
    table = _table(spec, weights).to(DTYPES[precision])
    network = StaticFeatures(table, layout.dense).to(device()).eval()
    inputs = ("input_ids", "attention_mask")
    named = with_precision(f"{fingerprint}-static-{layout.digest}", precision)
    return TokenTextBackbone(spec, named, None, tokens, network, inputs)


class StaticFeatures(nn.Module):
    """Mean of the vectors of tokens, and the layers after it; ``table`` (vocabulary, d)."""

    def __init__(self, table: torch.Tensor, dense: nn.Module) -> None:
        super().__init__()
        self.embedding = nn.Embedding.from_pretrained(table)
        self.dense = dense

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Tokens and their mask, each (b, tokens) -> (b, dim)."""
        vectors: torch.Tensor = self.dense(
            pool(self.embedding(input_ids), attention_mask, ("mean",))
        )
        return vectors


def _tokenizer(spec: str, path: Path) -> object:
    """Return the tokenizer of a file; padding is masked, so that its token does not matter."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    try:
        inner = Tokenizer.from_file(str(path))
    except Exception as error:  # the package raises Exception itself
        reason = " ".join(str(error).split())[:100]
        raise ModelError(f"{path} of {spec} cannot be loaded: {reason}") from None
    inner.no_padding()
    inner.no_truncation()
    padding = inner.id_to_token(0)
    return PreTrainedTokenizerFast(tokenizer_object=inner, pad_token=padding)


def _table(spec: str, path: Path) -> torch.Tensor:
    """Return the vectors of tokens (vocabulary, d), also of folders of the package model2vec."""
    try:
        found = load_tensors(path)
        if "embedding.weight" in found:
            return found["embedding.weight"].float()
        table = found["embeddings"]
        if "mapping" in found:
            table = table[found["mapping"].long()]
        if "weights" in found:
            table = table.float() * found["weights"].float()[:, None]
        return table.float()
    except (OSError, ValueError, KeyError, IndexError) as error:
        reason = " ".join(str(error).split())[:100]
        raise ModelError(f"{path} of {spec} cannot be loaded: {reason}") from None
