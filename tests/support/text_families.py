"""Tiny text models with random weights, one of each family that ml-commons can run."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import torch
from support.model_families import SIZES, bert_tokenizer, end_tokenizer, save

PIECES = (
    *("red", "Circle", "on the left", "über", "кот", "狗", "犬が走る", "كلب", "כלב", "हाथी", "개"),
    *(
        "🦊",
        "👨‍👩‍👧",
        "é",
        "e\u0301",
        "\u200b",
        "\t",
        "\n",
        "  ",
        "{'a': [1]}",
        '{"b": null}',
        "${x}",
    ),
    *(
        "<b>",
        "</s>",
        "<s>",
        "[SEP]",
        "[CLS]",
        "<pad>",
        "<unk>",
        "&amp;",
        "\\",
        "#",
        "'",
        "\x00",
        "x" * 40,
    ),
)


def texts() -> list[str]:
    """Texts of many scripts and lengths, empty ones, and JSON."""
    drawn = random.Random(3)
    made = [
        drawn.choice(("", " ")).join(drawn.choices(PIECES, k=count))
        for count in [*range(1, 31), 100, 240, 700]
    ]
    fixed = ["", " ", "a", "x" * 10_000, "a dog " * 1700, json.dumps({"a": ["b", {}]}), "\n"]
    return [*fixed, *made]


def text_model(name: str, folder: Path) -> Path:
    """Save a tiny text model of a family."""
    import transformers as T

    torch.manual_seed(0)
    positions = {"max_position_embeddings": 40}
    names = {"model_input_names": ["input_ids", "token_type_ids", "attention_mask"]}
    tokens: Any = bert_tokenizer(24, **(names if name == "bert" else {}))
    sizes = SIZES | {"vocab_size": len(tokens)}
    if name == "bert":
        model: Any = T.BertModel(T.BertConfig(**sizes, **positions))
    elif name == "roberta":
        tokens = byte_level_tokenizer(512)
        sizes |= {"vocab_size": len(tokens), "pad_token_id": 1}
        positions = {"max_position_embeddings": 514}
        model = T.RobertaModel(T.RobertaConfig(**sizes, **positions))
    elif name == "xlm-roberta":
        tokens = unigram_tokenizer(24)
        sizes |= {"vocab_size": len(tokens), "pad_token_id": 1}
        model = T.XLMRobertaModel(T.XLMRobertaConfig(**sizes, **positions))
    elif name == "t5":
        tokens = unigram_tokenizer(24)
        small = {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2}
        model = T.T5EncoderModel(T.T5Config(vocab_size=len(tokens), **small))
    elif name == "distilbert":
        small = {"dim": 16, "hidden_dim": 24, "n_layers": 2, "n_heads": 2}
        model = T.DistilBertModel(T.DistilBertConfig(vocab_size=len(tokens), **small, **positions))
    elif name == "mpnet":
        model = T.MPNetModel(T.MPNetConfig(**sizes, **positions))
    elif name == "albert":
        tokens = unigram_tokenizer(24)
        sizes |= {"vocab_size": len(tokens), "embedding_size": 8}
        model = T.AlbertModel(T.AlbertConfig(**sizes, **positions))
    elif name == "qwen3":
        tokens = end_tokenizer(24, padding_side="left")
        sizes |= {"vocab_size": len(tokens), "num_key_value_heads": 2, "head_dim": 8}
        model = T.Qwen3Model(T.Qwen3Config(**sizes, max_position_embeddings=64))
    else:
        raise KeyError(name)
    return save(folder, model.eval(), tokens)


def byte_level_tokenizer(limit: int) -> Any:
    """A byte-level BPE, as that of RoBERTa, whose padding has the id 1."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    inner.train_from_iterator(
        PIECES,
        trainers.BpeTrainer(
            vocab_size=300,
            special_tokens=special,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    inner.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        model_max_length=limit,
        **{"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"},
        **{"cls_token": "<s>", "sep_token": "</s>", "mask_token": "<mask>"},
    )


def unigram_tokenizer(limit: int) -> Any:
    """A Unigram tokenizer, as those of SentencePiece, whose padding has the id 1."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.Unigram())
    inner.normalizer = normalizers.Sequence(
        [normalizers.Nmt(), normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")]
    )
    inner.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    inner.train_from_iterator(
        PIECES,
        trainers.UnigramTrainer(
            vocab_size=120, special_tokens=special, unk_token="<unk>", show_progress=False
        ),
    )
    inner.post_processor = TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        model_max_length=limit,
        **{"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"},
        **{"cls_token": "<s>", "sep_token": "</s>", "bos_token": "<s>"},
    )
