"""Tokenizer of a text tower for ml-commons.

ml-commons adds special tokens, truncates a text at its end to MAX_TOKENS tokens, whatever
tokenizer.json declares, and pads the texts of a batch to the longest one with the id 0. Anything
else that an encoder does to texts is moved into tokenizer.json or, by
:mod:`xmodal.export.ml_commons_graph`, into the graph; what cannot be moved raises ConfigError.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from tokenizers import Encoding, Tokenizer

from xmodal.encoders.onnx_encoder import ModalityConfig
from xmodal.errors import ConfigError

MAX_TOKENS = 512
"""Tokens to which ml-commons truncates, whatever the tokenizer declares."""
TEXTS = ("a", "1", "the", "的", "и", "?")
"""Texts of which at least one has a token in each tokenizer."""
SPLITS_AT_SPACES = ("BertPreTokenizer", "Whitespace", "WhitespaceSplit")
"""Pre-tokenizers for which the tokens before a space do not depend on the text after it."""
KEEPS_SPACES = ("BertNormalizer", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "StripAccents")
"""Normalizers after which a space is still between the same words."""


@dataclass(frozen=True)
class Tokens:
    """Tokenizer as JSON, and what the graph does to its tokens.

    Texts are truncated to ``max_tokens`` tokens, and padded to them if ``is_fixed``. ``ending``:
    for each input, the values of the special tokens at the end of a text. ``padding``: for each
    input, the value of a padding token.
    """

    json: str
    max_tokens: int
    is_fixed: bool
    ending: dict[str, list[int]]
    padding: dict[str, int]


def ml_commons_tokenizer(text: str, config: ModalityConfig) -> Tokens:
    """Return the tokenizer for ml-commons; ``text``: tokenizer.json of the encoder.

    Raises ConfigError if ml-commons would pass other tokens to the graph than the encoder.
    """
    content = json.loads(text)
    truncation, padding = content["truncation"] or {}, content["padding"] or {}
    if truncation.get("direction", "Right") != "Right":
        raise ConfigError(
            "the tokenizer truncates texts at their start, expected at their end, as ml-commons "
            "does: use connect --service"
        )
    is_fixed = config.padding == "max_length"
    if is_fixed and padding.get("direction", "Right") != "Right":
        raise ConfigError(
            "the tokenizer pads texts to a fixed length at their start, expected at their end: "
            "use connect --service"
        )
    content["truncation"] = content["padding"] = None
    if config.prompt:
        _add_prompt(content, config.prompt)
    compact = json.dumps(content, ensure_ascii=False)
    tokenizer = Tokenizer.from_str(compact)
    if not tokenizer.encode("").ids:
        raise ConfigError(
            "the tokenizer adds no special token, so that a text can have no token, which "
            "ml-commons cannot encode: use connect --service"
        )
    _, after = _special(tokenizer)
    return Tokens(
        json=compact,
        max_tokens=int(config.max_tokens or MAX_TOKENS),
        is_fixed=is_fixed,
        ending={
            "input_ids": [id_ for id_, _ in after],
            "token_type_ids": [type_ for _, type_ in after],
        },
        padding={
            "input_ids": int(padding.get("pad_id", 0)),
            "attention_mask": 0,
            "token_type_ids": int(padding.get("pad_type_id", 0)),
        },
    )


Special = list[tuple[int, int]]
"""Ids and token types of special tokens."""


def _special(tokenizer: Tokenizer) -> tuple[Special, Special]:
    """Return the special tokens at the start and at the end of every text."""
    encoding = _with_tokens(tokenizer)
    mask = encoding.special_tokens_mask
    tokens = list(zip(encoding.ids, encoding.type_ids, strict=True))
    before, after = mask.index(0), mask[::-1].index(0)
    return tokens[:before], tokens[len(tokens) - after :]


def _with_tokens(tokenizer: Tokenizer) -> Encoding:
    """Return the encoding of a text that has a token beside the special ones."""
    for text in TEXTS:
        encoding = tokenizer.encode(text)
        if 0 in encoding.special_tokens_mask:
            return encoding
    raise ConfigError(
        f"the tokenizer has no token for any of {', '.join(TEXTS)}: use connect --service"
    )


def _add_prompt(content: dict[str, Any], prompt: str) -> None:
    """Let the post-processor of a tokenizer put the tokens of ``prompt`` in front of every text.

    Raises ConfigError if the tokens of the prompt depend on the text behind it.
    """
    types = _types(content["normalizer"])
    splits = (content["pre_tokenizer"] or {}).get("type") in SPLITS_AT_SPACES
    if not (splits and set(types) <= set(KEEPS_SPACES) and prompt[-1].isspace()):
        raise ConfigError(
            f"the model puts the prompt {prompt[:30]!r} in front of texts, and its tokenizer may "
            "join both: expected a tokenizer as that of BERT and a prompt that ends with a space; "
            "use connect --service"
        )
    tokenizer = Tokenizer.from_str(json.dumps(content))
    before, after = _special(tokenizer)
    text = _with_tokens(tokenizer)
    type_ = text.type_ids[text.special_tokens_mask.index(0)]
    ids = tokenizer.encode(prompt, add_special_tokens=False).ids
    parts = [*before, *((id_, type_) for id_ in ids)]
    special = {
        str(id_): {"id": str(id_), "ids": [id_], "tokens": [tokenizer.id_to_token(id_)]}
        for id_ in dict.fromkeys(id_ for id_, _ in (*parts, *after))
    }
    single = [
        *_template(parts),
        {"Sequence": {"id": "A", "type_id": type_}},
        *_template(after),
    ]
    content["post_processor"] = {
        "type": "TemplateProcessing",
        "single": single,
        "pair": [*single, {"Sequence": {"id": "B", "type_id": type_}}],
        "special_tokens": special,
    }


def _template(tokens: Special) -> list[dict[str, Any]]:
    return [{"SpecialToken": {"id": str(id_), "type_id": type_}} for id_, type_ in tokens]


def _types(normalizer: dict[str, Any] | None) -> list[str]:
    """Return the types of the normalizers in a normalizer."""
    if normalizer is None:
        return []
    if normalizer["type"] == "Sequence":
        return [name for one in normalizer["normalizers"] for name in _types(one)]
    return [str(normalizer["type"])]
