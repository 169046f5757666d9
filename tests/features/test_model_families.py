"""Features of pretrained models equal those of the models' own libraries, on random weights."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.model_families import (
    PAIRS,
    SIZES,
    SQUARE,
    TEXTS,
    VISION,
    VISION_FAMILIES,
    Array,
    bert_tokenizer,
    end_tokenizer,
    own_image_vectors,
    own_text_vectors,
    pictures,
    save,
    save_pair,
    save_vision,
    smallest_cosine,
)
from support.squares import clear_backbones

from xmodal.encoders.calibration import Confidence
from xmodal.encoders.load import load_encoder
from xmodal.encoders.torch_encoder import BackboneRef, TrainedEncoder
from xmodal.encoders.towers import Towers
from xmodal.errors import ModelError
from xmodal.features.backbones import load_image_backbone, load_text_backbone

EQUAL = 0.9999


@pytest.fixture(autouse=True)
def fresh_backbones() -> Iterator[None]:
    """Clear the cache of loaded backbones before and after each test."""
    clear_backbones()
    yield
    clear_backbones()


def image_vectors(folder: Path) -> Array:
    """Features of the pictures by xmodal."""
    backbone = load_image_backbone(str(folder))
    return backbone.forward(np.stack([backbone.preprocessing.pixels(one) for one in pictures()]))


@pytest.mark.parametrize("name", VISION_FAMILIES)
def test_pictures_of_vision_models(name: str, tmp_path: Path) -> None:
    model, processor = save_vision(name, tmp_path)
    own = own_image_vectors(model, processor, pictures())
    assert smallest_cosine(image_vectors(tmp_path), own) > EQUAL


@pytest.mark.parametrize("name", PAIRS)
def test_models_of_pictures_and_texts(name: str, tmp_path: Path) -> None:
    model, processor, tokens = save_pair(name, tmp_path)
    found = image_vectors(tmp_path)
    text = load_text_backbone(str(tmp_path))
    texts = text.forward(TEXTS)
    assert load_image_backbone(str(tmp_path)).space == text.space is not None
    if name == "blip":  # its own library gives the cosines alone
        inputs = tokens(list(TEXTS), truncation=True, padding=True, return_tensors="pt")
        inputs.pop("token_type_ids", None)
        pixels = processor(images=pictures(), return_tensors="pt")["pixel_values"]
        with torch.no_grad():
            own = model(**inputs, pixel_values=pixels, use_itm_head=False)
        units = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (found, texts)]
        np.testing.assert_allclose(units[0] @ units[1].T, own.itm_score, atol=1e-4)
        return
    assert smallest_cosine(found, own_image_vectors(model, processor, pictures())) > EQUAL
    padding = {"padding": "max_length"} if name == "siglip" else {}
    assert smallest_cosine(texts, own_text_vectors(model, tokens, TEXTS, **padding)) > EQUAL


# ---- refused, or of earlier versions ------------------------------------------------------------


@pytest.mark.parametrize(
    ("processor", "message"),
    [
        ({"size": {"longest_edge": 32}, "do_center_crop": False}, "fails: Size"),
        ({"size": {"shortest_edge": 32}, "do_center_crop": False}, "sizes .*, expected squares"),
        ({"size": {"shortest_edge": 32}, "do_resize": False}, None),
        (SQUARE | {"do_pad": True, "pad_size": {"height": 40, "width": 40}}, None),
    ],
)
def test_image_processor_that_is_not_supported(
    processor: dict[str, Any], message: str | None, tmp_path: Path
) -> None:
    from transformers import CLIPImageProcessor, ViTConfig, ViTModel

    save(tmp_path, ViTModel(ViTConfig(**VISION)), CLIPImageProcessor(**processor))
    with pytest.raises(ModelError, match=message) as caught:
        load_image_backbone(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_naflex_model_is_refused(tmp_path: Path) -> None:
    from transformers import Siglip2Config

    Siglip2Config(text_config=SIZES, vision_config=SIZES).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="NaFlex"):
        load_image_backbone(str(tmp_path))


def test_model_of_sounds_is_refused(tmp_path: Path) -> None:
    from transformers import ClapConfig

    ClapConfig().save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="sounds"):
        load_text_backbone(str(tmp_path))


def test_pictures_of_earlier_encoders_are_prepared_as_before(tmp_path: Path) -> None:
    """Their fingerprint has no hash of the preprocessing."""
    save_pair("clip", tmp_path)
    now = load_image_backbone(str(tmp_path))
    earlier = load_text_backbone(str(tmp_path)).fingerprint
    assert now.fingerprint != earlier and now.fingerprint.startswith(earlier)
    before = load_image_backbone(str(tmp_path), recorded=earlier)
    assert before.fingerprint == earlier
    assert (before.preprocessing.fit, before.preprocessing.share) == ("crop", 32 / 37)
    assert before.space == now.space
    again = load_image_backbone(str(tmp_path), recorded=now.fingerprint)
    assert again.fingerprint == now.fingerprint


# ---- texts -------------------------------------------------------------------------------------


def text_model(name: str) -> tuple[Any, Any]:
    """A text model and its tokenizer."""
    import transformers as T

    ends = end_tokenizer(32)
    t5 = {"d_model": 16, "d_ff": 24, "d_kv": 8, "num_layers": 2, "num_heads": 2}
    if name == "bert":
        tokens = bert_tokenizer(32)
        config = T.BertConfig(**SIZES, vocab_size=len(tokens), max_position_embeddings=32)
        return T.BertModel(config), tokens
    if name == "distilbert":  # its tokenizer makes token types, which the model lacks
        tokens = bert_tokenizer(32)
        sizes = {"dim": 16, "hidden_dim": 24, "n_layers": 2, "n_heads": 2}
        return T.DistilBertModel(T.DistilBertConfig(**sizes, vocab_size=len(tokens))), tokens
    if name == "qwen3":
        heads = {"num_key_value_heads": 2, "head_dim": 8}
        config = T.Qwen3Config(**SIZES, **heads, vocab_size=len(ends), max_position_embeddings=64)
        return T.Qwen3Model(config), end_tokenizer(32, padding_side="left")
    if name == "t5":
        return T.T5EncoderModel(T.T5Config(**t5, vocab_size=len(ends))), ends
    if name == "t5 with decoder":
        return T.T5Model(T.T5Config(**t5, vocab_size=len(ends))), ends
    return T.MT5EncoderModel(T.MT5Config(**t5, vocab_size=len(ends))), ends


@pytest.mark.parametrize("name", ["bert", "distilbert", "qwen3", "t5", "t5 with decoder", "mt5"])
def test_texts_are_means_over_tokens(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, tokens = text_model(name)
    save(tmp_path, model.eval(), tokens)
    backbone = load_text_backbone(str(tmp_path))
    encoder = model.get_encoder() if name == "t5 with decoder" else model
    own = []
    for text in TEXTS:
        given = tokens([text], truncation=True, return_tensors="pt")
        given.pop("token_type_ids", None)
        with torch.no_grad():
            own.append(encoder(**given).last_hidden_state.mean(1))
    assert smallest_cosine(backbone.forward(TEXTS), torch.cat(own).numpy()) > EQUAL


def test_pickled_weights_are_loaded_without_running_code(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    model, tokens = text_model("bert")
    save(tmp_path, model, tokens)
    before = load_text_backbone(str(tmp_path)).forward(TEXTS)
    clear_backbones()
    file = tmp_path / "model.safetensors"
    torch.save(load_file(file), tmp_path / "pytorch_model.bin")
    file.unlink()
    backbone = load_text_backbone(str(tmp_path))
    np.testing.assert_array_equal(backbone.forward(TEXTS), before)
    clear_backbones()
    pickled = torch.load(tmp_path / "pytorch_model.bin", weights_only=True)
    changed = {name: value + 1 for name, value in pickled.items()}
    torch.save(changed, tmp_path / "pytorch_model.bin")
    assert load_text_backbone(str(tmp_path)).fingerprint != backbone.fingerprint
    clear_backbones()
    torch.save({"weights": Path("/")}, tmp_path / "pytorch_model.bin")  # an object, not a tensor
    with pytest.raises(ModelError, match="cannot be loaded") as caught:
        load_text_backbone(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_tokenizer_without_padding_is_refused(tmp_path: Path) -> None:
    model, _ = text_model("bert")
    tokens = end_tokenizer(32)
    tokens.pad_token = None
    save(tmp_path, model, tokens)
    with pytest.raises(ModelError, match="no padding token"):
        load_text_backbone(str(tmp_path))


# ---- code of a model ---------------------------------------------------------------------------


def test_code_of_a_model_runs_only_if_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import dynamic_module_utils

    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "cache"))
    folder, ran = tmp_path / "model", tmp_path / "ran"
    model, tokens = text_model("bert")
    save(folder, model, tokens)
    (folder / "own.py").write_text(
        f"open({str(ran)!r}, 'w').close()\n"
        "from transformers import BertConfig, BertModel\n"
        "class Config(BertConfig):\n    model_type = 'own'\n"
        "class Model(BertModel):\n    config_class = Config\n"
    )
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Config"}}
    config["auto_map"]["AutoModel"] = "own.Model"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="--trust-remote-code") as caught:
        load_text_backbone(str(folder))
    assert "\n" not in str(caught.value) and not ran.exists()
    backbone = load_text_backbone(str(folder), trust_remote_code=True)
    assert ran.exists() and backbone.dim == 16
    assert "-code" in backbone.fingerprint

    # An encoder is loaded with the option that it was trained with.
    refs = {
        "image": BackboneRef("small-cnn", load_image_backbone("small-cnn").fingerprint),
        "text": BackboneRef(str(folder), backbone.fingerprint),
    }
    towers = Towers(8, backbone.dim, 32, hidden=8, raw_images=True)
    TrainedEncoder(towers, refs, Confidence()).save(tmp_path / "encoder")
    clear_backbones()
    encoder = load_encoder(tmp_path / "encoder", trust_remote_code=True)
    assert len(encoder.encode("text", ["two dogs"]).codes) == 1
    with pytest.raises(ModelError, match="--trust-remote-code"):
        load_encoder(tmp_path / "encoder").encode("text", ["two dogs"])
    # The same type in transformers itself has other features.
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "bert"}))
    with pytest.raises(ModelError, match="--trust-remote-code"):
        load_encoder(tmp_path / "encoder").encode("text", ["two dogs"])
