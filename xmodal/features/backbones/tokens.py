"""Text backbones whose network reads the tokens of a tokenizer (torch)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from xmodal.device import batch_size
from xmodal.errors import ModelError
from xmodal.features.backbones.modules import run
from xmodal.features.known_tokens import KnownTokens


class Tokenization:
    """From texts to token tensors, by a tokenizer of transformers.

    ``max_tokens``: limit, special tokens included. ``padding``: "longest" text of a batch, or
    "max_length". ``prompt``: text in front of every text. ``lower``: texts are lower case.
    ``special``: special tokens are added.
    """

    def __init__(
        self,
        spec: str,
        tokenizer: Any,
        max_tokens: int,
        *,
        padding: str = "longest",
        prompt: str = "",
        lower: bool = False,
        special: bool = True,
    ) -> None:
        self.spec, self.tokenizer, self.max_tokens = spec, tokenizer, max_tokens
        self.padding, self.prompt, self.special = padding, prompt, special
        if tokenizer.pad_token_id is None:
            raise ModelError(
                f"the tokenizer of {spec} has no padding token, expected one: set pad_token in its "
                "tokenizer_config.json, or choose another backbone"
            )
        self._lowers = lower and not self._lower_first()

    def tensors(self, texts: Sequence[str], length: int | None = None) -> dict[str, torch.Tensor]:
        """Return token ids, mask and other inputs of the model, each (b, tokens).

        ``length``: number of tokens, of which longer texts keep the first; None for ``padding``.
        """
        texts = [text.lower() for text in texts] if self._lowers else list(texts)
        return dict(
            self.tokenizer(
                texts,
                padding=self.padding if length is None else "max_length",
                truncation=True,
                max_length=self.max_tokens if length is None else length,
                add_special_tokens=self.special,
                return_tensors="pt",
            )
        )

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each text, at most ``max_tokens``."""
        texts = [text.lower() for text in texts] if self._lowers else list(texts)
        found = self.tokenizer(
            texts,
            truncation=True,
            max_length=self.max_tokens,
            add_special_tokens=self.special,
            return_attention_mask=False,
        )
        return [len(ids) for ids in found["input_ids"]]

    @cached_property
    def prompt_tokens(self) -> int:
        """Number of tokens of the prompt, without the special token at the end."""
        if not self.prompt:
            return 0
        ids = self.tokenizer([self.prompt], add_special_tokens=self.special)["input_ids"][0]
        return len(ids) - int(bool(ids) and ids[-1] in self.tokenizer.all_special_ids)

    def tokenizer_json(self) -> str:
        """Return the tokenizer as JSON of the package tokenizers, with truncation and padding.

        Raises ModelError for a tokenizer that is written in Python.
        """
        tokenizer = self.tokenizer
        if not hasattr(tokenizer, "backend_tokenizer"):
            raise ModelError(
                f"the tokenizer of {self.spec} ({type(tokenizer).__name__}) is written in Python, "
                "expected one of the package tokenizers: choose another text backbone"
            )
        from tokenizers import Tokenizer
        from tokenizers.processors import TemplateProcessing

        out = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        if not self.special:
            out.post_processor = TemplateProcessing(single="$A", special_tokens=[])
        out.enable_truncation(self.max_tokens, direction=tokenizer.truncation_side)
        out.enable_padding(
            direction=tokenizer.padding_side,
            pad_id=tokenizer.pad_token_id,
            pad_type_id=tokenizer.pad_token_type_id,
            pad_token=tokenizer.pad_token,
            length=self.max_tokens if self.padding == "max_length" else None,
        )
        return str(out.to_str())

    def _lower_first(self) -> bool:
        """Let the tokenizer itself make texts lower case first; return whether it can."""
        if not hasattr(self.tokenizer, "backend_tokenizer"):
            return False
        from tokenizers import normalizers

        inner = self.tokenizer.backend_tokenizer
        first = normalizers.Lowercase()
        inner.normalizer = (
            first if inner.normalizer is None else normalizers.Sequence([first, inner.normalizer])
        )
        return True


class TokenTextBackbone:
    """Text backbone: tokens, and a network on them.

    ``network`` maps the tensors named in ``inputs``, each (b, tokens), to features (b, dim).
    """

    def __init__(
        self,
        spec: str,
        fingerprint: str,
        space: str | None,
        tokens: Tokenization,
        network: nn.Module,
        inputs: tuple[str, ...],
    ) -> None:
        self.spec, self.fingerprint, self.space = spec, fingerprint, space
        self.batch = 2 * batch_size()
        self._tokens, self.network, self.inputs = tokens, network, inputs
        self.max_tokens, self.padding, self.prompt = (
            tokens.max_tokens,
            tokens.padding,
            tokens.prompt,
        )
        self.dim = self._run(["a"]).shape[1]

    def forward(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """``b`` texts -> (b, dim). The features of a text without a token are zero."""
        tokens = self._tokens.tensors([self.prompt + text for text in texts])
        if not tokens["input_ids"].shape[1]:
            return np.zeros((len(texts), self.dim), np.float32)
        return run(self.network, *(tokens[name] for name in self.inputs))

    def inputs_of(self, texts: Sequence[str], length: int) -> tuple[torch.Tensor, ...]:
        """Return the inputs of the network, each (b, length); see :meth:`Tokenization.tensors`."""
        tokens = self._tokens.tensors([self.prompt + text for text in texts], length)
        return tuple(tokens[name] for name in self.inputs)

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each text, or that of all texts if all are padded."""
        if self.padding == "max_length":
            return [self.max_tokens] * len(texts)
        return self._tokens.lengths([self.prompt + text for text in texts])

    def _run(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        tokens = self._tokens.tensors([self.prompt + text for text in texts])
        return run(self.network, *(tokens[name] for name in self.inputs))

    def has_known_token(self, text: str) -> bool:
        """Return whether the tokenizer has a token of the text, longer than one letter."""
        (ids,) = self._tokens.tensors([text])["input_ids"].tolist()
        return self._known_tokens.any_of(ids)

    @cached_property
    def _known_tokens(self) -> KnownTokens:
        tokenizer = self._tokens.tokenizer
        return KnownTokens(
            lambda ids: str(tokenizer.decode(ids, skip_special_tokens=True)), tokenizer.get_vocab()
        )

    def tokenizer_json(self) -> str:
        """Return the tokenizer as JSON; see :meth:`Tokenization.tokenizer_json`."""
        return self._tokens.tokenizer_json()
