"""Features of sentence-transformers' folders equal those of the package, which writes them here."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.model_families import (
    SIZES,
    TEXTS,
    bert_tokenizer,
    end_tokenizer,
    pictures,
    save,
    save_pair,
    smallest_cosine,
)
from support.squares import clear_backbones

from xmodal.errors import ModelError
from xmodal.features.backbones import load_image_backbone, load_text_backbone

sentence_transformers = pytest.importorskip("sentence_transformers")

EQUAL = 0.9999
MODES = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")


@pytest.fixture(autouse=True)
def fresh_backbones() -> Iterator[None]:
    """Clear the cache of loaded backbones before and after each test."""
    clear_backbones()
    yield
    clear_backbones()


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text model that pads on the right."""
    from transformers import BertConfig, BertModel

    tokens = bert_tokenizer(32)
    torch.manual_seed(0)
    config = BertConfig(**SIZES, vocab_size=len(tokens), max_position_embeddings=32)
    return save(tmp_path_factory.mktemp("bert") / "model", BertModel(config).eval(), tokens)


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A causal text model that pads on the left."""
    from transformers import Qwen3Config, Qwen3Model

    tokens = end_tokenizer(32, padding_side="left")
    torch.manual_seed(0)
    heads = {"num_key_value_heads": 2, "head_dim": 8}
    config = Qwen3Config(**SIZES, **heads, vocab_size=len(tokens), max_position_embeddings=64)
    return save(tmp_path_factory.mktemp("qwen") / "model", Qwen3Model(config).eval(), tokens)


def saved(folder: Path, steps: Sequence[Any], **options: Any) -> Any:
    """Save a model of these steps with the package, and return it."""
    model = sentence_transformers.SentenceTransformer(modules=steps, device="cpu", **options)
    model.save(str(folder), create_model_card=False)
    return model.eval()


def steps_of(model: Path, *others: Any, pooling: Any = "mean", **options: Any) -> list[Any]:
    """Transformer, pooling, and other steps."""
    from sentence_transformers.sentence_transformer import modules as models

    first = models.Transformer(str(model), **options)
    return [first, models.Pooling(16, pooling_mode=pooling), *others]


def assert_equal(folder: Path, own: Any) -> Any:
    """Assert that the texts have the vectors of the package; return the backbone."""
    backbone = load_text_backbone(str(folder))
    expected = own.encode(list(TEXTS), convert_to_numpy=True)
    assert smallest_cosine(backbone.forward(TEXTS), expected) > EQUAL
    return backbone


@pytest.mark.parametrize("side", ["bert", "qwen"])
@pytest.mark.parametrize("mode", [*MODES, ("cls", "mean"), ("lasttoken", "max", "weightedmean")])
def test_pooling(side: str, mode: Any, tmp_path: Path, bert: Path, qwen: Path) -> None:
    model = bert if side == "bert" else qwen
    backbone = assert_equal(tmp_path, saved(tmp_path, steps_of(model, pooling=mode)))
    assert backbone.dim == 16 * (1 if isinstance(mode, str) else len(mode))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("side", ["bert", "qwen"])
def test_pooling_without_the_tokens_of_the_prompt(
    side: str, mode: str, tmp_path: Path, bert: Path, qwen: Path
) -> None:
    steps = steps_of(bert if side == "bert" else qwen, pooling=mode)
    steps[1].include_prompt = False
    prompts = {"prompts": {"q": "two dogs: ", "p": "left "}, "default_prompt_name": "q"}
    assert_equal(tmp_path, saved(tmp_path, steps, **prompts))


def test_prompt_of_captions_and_queries_is_the_default_one(tmp_path: Path, bert: Path) -> None:
    prompts = {"query": "red dogs: ", "document": "left: "}
    own = saved(tmp_path, steps_of(bert), prompts=prompts)
    without = assert_equal(tmp_path, own).fingerprint
    config = tmp_path / "config_sentence_transformers.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"default_prompt_name": "query"}))
    clear_backbones()
    own = sentence_transformers.SentenceTransformer(str(tmp_path), device="cpu")
    backbone = assert_equal(tmp_path, own)
    assert backbone.fingerprint != without
    # A prompt is not part of the text.
    assert not backbone.has_known_token("?!") and backbone.has_known_token("circle")


def test_dense_layers_in_their_order(tmp_path: Path, bert: Path) -> None:
    from sentence_transformers.sentence_transformer import modules as models

    torch.manual_seed(0)
    steps = steps_of(
        bert,
        models.Dense(32, 12, bias=False, activation_function=torch.nn.Identity()),
        models.Normalize(),
        models.LayerNorm(12),
        models.Dense(12, 12, activation_function=torch.nn.GELU(), use_residual=True),
        models.Dropout(0.5),
        models.Dense(12, 10),
        models.Normalize(),
        pooling=("mean", "max"),
    )
    assert assert_equal(tmp_path, saved(tmp_path, steps)).dim == 10


def test_limit_and_lower_case(tmp_path: Path, bert: Path) -> None:
    steps = steps_of(bert, max_seq_length=6, do_lower_case=True)
    backbone = assert_equal(tmp_path, saved(tmp_path, steps))
    lower = backbone.forward([text.lower() for text in TEXTS])
    np.testing.assert_allclose(backbone.forward(TEXTS), lower, rtol=1e-4, atol=1e-6)
    exported = json.loads(backbone.tokenizer_json())
    assert exported["truncation"]["max_length"] == 6
    assert "Lowercase" in json.dumps(exported["normalizer"])


def test_static_embedding(tmp_path: Path) -> None:
    from sentence_transformers.sentence_transformer import modules as models
    from support.tiny_models import tokenizer

    torch.manual_seed(0)
    static = models.StaticEmbedding(tokenizer(special=["<unk>"]), embedding_dim=20)
    steps = [static, models.Dense(20, 8)]
    backbone = assert_equal(tmp_path, saved(tmp_path, steps))
    assert (backbone.dim, backbone.space) == (8, None)
    with pytest.raises(ModelError, match="StaticEmbedding"):
        load_image_backbone(str(tmp_path))


def test_static_embedding_without_tokens_has_zero_features(tmp_path: Path) -> None:
    from sentence_transformers.sentence_transformer import modules as models
    from support.tiny_models import tokenizer

    static = models.StaticEmbedding(tokenizer(special=["<unk>"]), embedding_dim=20)
    saved(tmp_path, [static])
    backbone = load_text_backbone(str(tmp_path))
    assert not backbone.forward(["", " "]).any()
    mixed = backbone.forward(["", "two dogs"])
    assert not mixed[0].any() and mixed[1].any()


def test_multimodal_transformer(tmp_path: Path) -> None:
    from sentence_transformers.sentence_transformer import modules as models
    from transformers import CLIPProcessor

    _, processor, tokens = save_pair("clip", tmp_path / "clip")
    CLIPProcessor(processor, tokens).save_pretrained(tmp_path / "clip")
    torch.manual_seed(0)
    steps = [models.Transformer(str(tmp_path / "clip")), models.Dense(12, 10)]
    folder = tmp_path / "st"
    own = saved(folder, steps)
    backbone = assert_equal(folder, own)
    images = load_image_backbone(str(folder))
    found = images.forward(np.stack([images.preprocessing.pixels(one) for one in pictures()]))
    assert smallest_cosine(found, own.encode(pictures(), convert_to_numpy=True)) > EQUAL
    assert images.space == backbone.space is not None


# ---- what is refused ----------------------------------------------------------------------------


def modules_json(folder: Path, *types: str) -> None:
    """Write modules.json; the first step is in the folder itself."""
    steps = [
        {"idx": i, "name": str(i), "path": f"{i}_step" if i else "", "type": type_}
        for i, type_ in enumerate(types)
    ]
    (folder / "modules.json").write_text(json.dumps(steps))


OF_PACKAGE = "sentence_transformers.models"


@pytest.mark.parametrize(
    "types",
    [
        ("Router",),
        ("Asym",),
        ("WordEmbeddings", "Pooling"),
        ("BoW",),
        ("Transformer", "WeightedLayerPooling", "Pooling"),
        ("Transformer", "Pooling", "CNN"),
        ("Transformer", "Dense", "Pooling"),
        (),
    ],
)
def test_steps_that_are_refused(types: tuple[str, ...], tmp_path: Path) -> None:
    for number in range(1, len(types)):
        (tmp_path / f"{number}_step").mkdir()
    modules_json(tmp_path, *(f"{OF_PACKAGE}.{type_}" for type_ in types))
    with pytest.raises(ModelError, match=r"modules\.json") as caught:
        load_text_backbone(str(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("type_", ["custom_st.Transformer", "own.module.Pooling"])
def test_steps_with_code_of_the_folder_are_refused(type_: str, tmp_path: Path) -> None:
    modules_json(tmp_path, type_)
    with pytest.raises(ModelError, match="of its own"):
        load_text_backbone(str(tmp_path), trust_remote_code=True)


@pytest.mark.parametrize(
    "text", ["", "{", "[1]", '{"a": 1}', '[{"type": "sentence_transformers.models.Transformer"}]']
)
def test_damaged_modules_json_is_one_line(text: str, tmp_path: Path) -> None:
    (tmp_path / "modules.json").write_text(text)
    with pytest.raises(ModelError, match=r"modules\.json") as caught:
        load_text_backbone(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_steps_outside_of_the_folder_are_refused(tmp_path: Path) -> None:
    step = {"idx": 0, "name": "0", "path": "../elsewhere", "type": f"{OF_PACKAGE}.Transformer"}
    (tmp_path / "modules.json").write_text(json.dumps([step]))
    with pytest.raises(ModelError, match="elsewhere"):
        load_text_backbone(str(tmp_path))


@pytest.mark.parametrize(
    "changed",
    [
        {"activation_function": "own.Activation"},
        {"activation_function": "torch.nn.modules.linear.Linear"},
        {"module_input_name": "token_embeddings"},
    ],
)
def test_dense_layers_that_are_refused(changed: dict[str, str], tmp_path: Path, bert: Path) -> None:
    from sentence_transformers.sentence_transformer import modules as models

    saved(tmp_path, steps_of(bert, models.Dense(16, 8)))
    file = tmp_path / "2_Dense" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changed))
    with pytest.raises(ModelError, match=next(iter(changed.values()))):
        load_text_backbone(str(tmp_path))
