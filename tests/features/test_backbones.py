"""Backbones: hashed words, raw pixels, torchvision weights, unknown names."""

from __future__ import annotations

import time
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from support.squares import clear_backbones, cosine, pixels

from xmodal import device
from xmodal.errors import ConfigError, ModelError
from xmodal.features.backbones import load_image_backbone, load_text_backbone, recorded_spec
from xmodal.features.backbones.words import grams_1, grams_2

ROOT = Path(__file__).parents[2]
MOBILENET = ROOT.parent / "shared/data/encoders/mobilenet_v2_imagenet_fp16.safetensors"


@pytest.fixture(autouse=True)
def fresh_backbones() -> Iterator[None]:
    """Clear the cache of loaded backbones before and after each test."""
    clear_backbones()
    yield
    clear_backbones()


# ---- words -----------------------------------------------------------------------------------


def test_words_do_not_depend_on_the_batch() -> None:
    words = load_text_backbone("words")
    first, second = words.forward(["a red circle"]), words.forward(["two dogs", "a red circle"])
    assert first.shape == (1, words.dim)
    assert np.array_equal(first[0], second[1])


def test_words_fold_case_and_unicode_forms() -> None:
    words = load_text_backbone("words")
    plain, upper, strasse, ligature = words.forward(["office", "OFFICE", "STRASSE", "o\ufb03ce"])
    assert np.array_equal(plain, upper)
    assert np.array_equal(plain, ligature)
    assert np.array_equal(strasse, words.forward(["straße"])[0])


@pytest.mark.parametrize("text", ["!!!", "", "  \n", "…—"])
def test_text_without_letters_is_a_zero_vector(text: str) -> None:
    assert not load_text_backbone("words").forward([text]).any()


@pytest.mark.parametrize(
    ("word", "sentence", "other"),
    [
        ("猫", "窓の上で猫が眠っている", "青い車が走る"),
        ("自行车", "一个男人在街上骑自行车", "桌子上有一杯水"),
        ("ピザ", "テーブルの上のピザ", "青い車が走る"),
        ("สุนัข", "เด็กผู้ชายวิ่งเล่นกับสุนัขในสวน", "รถสีแดง"),
        ("ໝາ", "ເດັກນ້ອຍຫຼິ້ນກັບໝາຢູ່ສວນ", "ລົດສີແດງ"),
        ("ឆ្កែ", "ក្មេងប្រុសរត់ជាមួយឆ្កែ", "រថយន្ត"),
        ("ခွေး", "ကောင်လေးသည်ခွေးနှင့်ကစားသည်", "ကား"),
        ("물", "나는 물을 마신다", "빨간 자동차"),
        ("고양이", "창가에서 고양이가 잔다", "빨간 자동차"),
        ("iphone", "赤いiPhoneのケース", "青い車が走る"),
        ("🍕", "lunch: 🍕🍟!", "a red car 🚗"),
        ("👩‍🚀", "the 👩🚀 waves", "a red car 🚗"),
        ("हिन्दी", "यह हिन्दी भाषा है", "लाल गाड़ी"),
        ("বাংলা", "আমি বাংলা বলি", "লাল গাড়ি"),
        ("தமிழ்", "நான் தமிழ் பேசுகிறேன்", "சிவப்பு கார்"),
    ],
)
def test_words_are_found_in_sentences_of_any_script(word: str, sentence: str, other: str) -> None:
    rows = load_text_backbone("words").forward([word, sentence, other])
    a, b, c = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    assert a @ b > 0.1 and a @ b > a @ c + 0.08


@pytest.mark.parametrize(
    "word",
    ["हिन्दी", "বাংলা", "தமிழ்", "తెలుగు", "ಕನ್ನಡ", "മലയാളം", "ગુજરાતી", "සිංහල", "ਪੰਜਾਬੀ", "كِتَاب", "שָׁלוֹם"],
)
def test_vowel_signs_and_points_belong_to_their_word(word: str) -> None:
    normal = unicodedata.normalize("NFKC", word)
    assert [gram for gram, weight in grams_2(word) if weight == 1] == [normal]


def test_joiners_and_variations_do_not_change_words() -> None:
    plain, joined = load_text_backbone("words").forward(
        ["می خواهم ☀", "می\u200e خواهم\u200c ☀\ufe0f"]
    )
    assert np.array_equal(plain, joined)


def test_words_1_keeps_the_features_of_earlier_versions() -> None:
    old, new = load_text_backbone("words-1"), load_text_backbone("words")
    assert (old.fingerprint, new.fingerprint) == ("words-1", "words-2") and old.spec == "words"
    plain = ["a red circle", "café au lait 42", "snake_case"]
    assert np.array_equal(old.forward(plain), new.forward(plain))
    assert [gram for gram, weight in grams_1("हिन्दी") if weight == 1] == ["ह", "न", "द"]
    assert recorded_spec("words", "words-1") == "words-1"
    assert recorded_spec("words", "words-2") == "words"


def test_words_of_similar_texts_are_nearer() -> None:
    a, plural, other = load_text_backbone("words").forward(
        ["black running shoe", "black running shoes for men", "silver wrist watch"]
    )
    assert cosine(a, plural) > 0.5
    assert abs(cosine(a, other)) < 0.1


def test_words_depend_slightly_on_word_order() -> None:
    a, b = load_text_backbone("words").forward(["man bites dog", "dog bites man"])
    assert 0.5 < cosine(a, b) < 0.999


def test_words_equal_values_computed_by_hand() -> None:
    [v] = load_text_backbone("words").forward(["ab ab"])
    # The word "ab", twice, weighs 1 + log 2; the n-grams <ab, ab>, <ab> of "<ab>" weigh
    # a quarter of that; the pair "ab ab" weighs 0.5. They have different buckets.
    twice = 1 + float(np.log(2))
    expected = sorted([twice, 0.25 * twice, 0.25 * twice, 0.25 * twice, 0.5])
    assert sorted(np.abs(v[v != 0]).tolist()) == pytest.approx(expected)
    # crc32("ab") is 0x9E83486D: the last bit is the sign, the next twelve the bucket.
    assert float(v[0x9E83486D >> 1 & 4095]) == pytest.approx(twice)


def test_raw_pixels_are_unchanged() -> None:
    backbone = load_image_backbone("small-cnn")
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    square = backbone.preprocessing.pixels(Image.fromarray(picture))
    out = backbone.forward(square[None])
    assert (out.dtype, out.shape) == (np.uint8, (1, backbone.dim))
    assert np.array_equal(out.reshape(64, 64, 3), picture)
    assert backbone.raw


# ---- names -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "load", "message"),
    [
        ("words", load_image_backbone, "words .* expected one for images"),
        ("small-cnn", load_text_backbone, "small-cnn .* expected one for texts"),
        ("resnet18", load_text_backbone, "resnet18 .* expected one for texts"),
        ("x.safetensors", load_text_backbone, "x.safetensors .* expected one for texts"),
        (" ", load_image_backbone, "image backbone is empty"),
    ],
)
def test_backbone_of_the_other_modality_raises(spec: str, load: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(spec)


@pytest.mark.parametrize(
    "spec",
    ["no-such-user/no-such-model", "no-such-model", "resnet18", "ResNet50_Weights.IMAGENET1K_V2"],
)
def test_unknown_name_offline_raises_one_line_at_once(
    spec: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from transformers import AutoConfig, AutoModel  # noqa: F401  (imports are not measured)

    from xmodal.features.backbones import torchvision_models

    assert not torchvision_models.is_known("no-such-user")

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))  # an empty download cache
    started = time.perf_counter()
    with pytest.raises(ModelError) as caught:
        load_image_backbone(spec)
    assert time.perf_counter() - started < 2
    message = str(caught.value)
    assert "\n" not in message
    assert spec in message
    assert "HF_HUB_OFFLINE is set" in message


def test_unreachable_hub_raises_one_line_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.delenv("HF_HUB_OFFLINE")
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    started = time.perf_counter()
    with pytest.raises(ModelError) as caught:
        load_text_backbone("no-such-user/no-such-model")
    assert time.perf_counter() - started < 6
    message = str(caught.value)
    assert "\n" not in message
    assert "127.0.0.1:9" in message


def test_invalid_hub_name_raises() -> None:
    with pytest.raises(ModelError, match="'a b/c!' is unknown"):
        load_text_backbone("a b/c!")


def test_folder_without_a_model_raises(tmp_path: Path) -> None:
    for spec in (str(tmp_path), str(tmp_path / "missing"), "./missing"):
        with pytest.raises(ModelError, match=r"config\.json"):
            load_text_backbone(spec)


def test_folder_with_an_invalid_config_raises_one_line(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="cannot be loaded") as caught:
        load_text_backbone(str(tmp_path))
    assert "\n" not in str(caught.value)


# ---- torchvision -----------------------------------------------------------------------------


def random_network(arch: str, seed: int = 0) -> torch.nn.Module:
    """A torchvision model with random weights and batch statistics, in evaluation mode."""
    from torchvision import models

    torch.manual_seed(seed)
    network = models.get_model(arch, weights=None)
    for part in network.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.running_mean.normal_(0, 0.1)  # type: ignore[union-attr, operator]
            part.running_var.uniform_(0.5, 2)  # type: ignore[union-attr, operator]
    return network.eval()


def save_weights(network: torch.nn.Module, path: Path, **metadata: str) -> Path:
    from safetensors.torch import save_file

    save_file(network.state_dict(), path, metadata or None)
    return path


def plain_features(
    network: Any, last: str, squares: npt.NDArray[np.uint8], mean: Any = 0.0, std: Any = 1.0
) -> npt.NDArray[np.float32]:
    """Return the features of the network without its layer ``last``, computed without fusion."""
    setattr(network, last, torch.nn.Identity())
    scaled = (torch.from_numpy(squares).float() / 255 - torch.tensor(mean)) / torch.tensor(std)
    with torch.no_grad():
        return np.asarray(network(scaled.permute(0, 3, 1, 2)).flatten(1).numpy())


def test_weights_file_name_selects_the_architecture(tmp_path: Path) -> None:
    network = random_network("mobilenet_v2")
    backbone = load_image_backbone(
        str(save_weights(network, tmp_path / "mobilenet_v2_x.safetensors"))
    )
    squares = pixels(2, 224)
    assert (backbone.dim, backbone.raw, backbone.space) == (1280, False, None)
    # The backbone fuses batch normalisation into the convolutions.
    expected = plain_features(network, "classifier", squares)
    np.testing.assert_allclose(backbone.forward(squares), expected, rtol=1e-3, atol=1e-4)


def test_weights_file_options_set_arch_normalize_and_size(tmp_path: Path) -> None:
    network = random_network("resnet18")
    file = save_weights(network, tmp_path / "weights.safetensors")
    backbone = load_image_backbone(f"{file}?arch=resnet18&normalize=imagenet&size=64")
    squares = pixels(2, 64)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    expected = plain_features(network, "fc", squares, mean, std)
    assert (backbone.dim, backbone.preprocessing.size) == (512, 64)
    np.testing.assert_allclose(backbone.forward(squares), expected, rtol=1e-3, atol=1e-4)


def test_weights_file_metadata_are_default_options(tmp_path: Path) -> None:
    file = save_weights(
        random_network("resnet18"), tmp_path / "w.safetensors", arch="resnet18", size="64"
    )
    backbone = load_image_backbone(str(file))
    assert (backbone.dim, backbone.preprocessing.size) == (512, 64)


def test_fingerprint_depends_on_weights_and_options(tmp_path: Path) -> None:
    file = save_weights(random_network("resnet18"), tmp_path / "resnet18.safetensors")
    same = tmp_path / "resnet18_copy.safetensors"
    same.write_bytes(file.read_bytes())
    other = save_weights(random_network("resnet18", seed=1), tmp_path / "resnet18_b.safetensors")
    specs = [f"{file}?size=64", f"{file}?size=64&normalize=imagenet", f"{file}?size=32"]
    prints = [load_image_backbone(spec).fingerprint for spec in [*specs, f"{other}?size=64"]]
    assert len(set(prints)) == 4
    assert load_image_backbone(f"{same}?size=64").fingerprint == prints[0]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("weights.safetensors", "", "torchvision model ''"),
        ("weights.safetensors", "?arch=no_such", "torchvision model 'no_such'"),
        ("resnet18.safetensors", "?normalise=imagenet", "unknown option 'normalise'"),
        ("resnet18.safetensors", "?normalize=vgg", "normalize is 'vgg'"),
        ("resnet18.safetensors", "?arch=resnet50", "lacks|has shape"),
        ("resnet18.safetensors", "?arch=squeezenet1_1", "no linear layer|lacks"),
        ("resnet18.safetensors", "?size=big", "size is 'big'"),
        ("resnet18.safetensors", "?size=0", "size is '0'"),
        ("missing.safetensors", "", "there is no weights file"),
        ("junk.safetensors", "", "not a readable safetensors file"),
    ],
)
def test_invalid_weights_raise_one_line(
    name: str, options: str, message: str, small_weights: Path
) -> None:
    (small_weights / "junk.safetensors").write_bytes(b"junk")
    with pytest.raises(ModelError, match=message) as caught:
        load_image_backbone(f"{small_weights / name}{options}")
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def small_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the same weights of a resnet18 under two names."""
    folder = tmp_path_factory.mktemp("weights")
    network = random_network("resnet18")
    for name in ("weights", "resnet18"):
        save_weights(network, folder / f"{name}.safetensors")
    return folder


@pytest.mark.skipif(not MOBILENET.exists(), reason=f"needs {MOBILENET}, from the shared data")
def test_features_of_real_weights_separate_pictures() -> None:
    backbone = load_image_backbone(str(MOBILENET))
    black, grey = np.zeros((224, 224, 3)), np.full((224, 224, 3), 128)
    stripes = np.zeros((224, 224, 3))
    stripes[:, ::16] = stripes[:, 1::16] = 255
    shifted = np.roll(stripes, 4, axis=1)
    squares = np.stack([black, grey, stripes, shifted]).astype(np.uint8)
    out = backbone.forward(squares)
    assert out.shape == (4, 1280)
    assert np.isfinite(out).all()
    assert cosine(out[2], out[3]) > 0.9 > cosine(out[2], out[1])


def test_environment_selects_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XMODAL_DEVICE", "meta")
    device.device.cache_clear()
    try:
        assert device.device() == torch.device("meta")
    finally:
        device.device.cache_clear()


@pytest.mark.parametrize(
    "weights",
    [
        *("ResNet50_Weights.IMAGENET1K_V2", "MobileNet_V2_Weights.IMAGENET1K_V1"),
        *("EfficientNet_B3_Weights.IMAGENET1K_V1", "Swin_T_Weights.IMAGENET1K_V1"),
    ],
)
def test_pictures_are_prepared_as_by_the_transforms_of_torchvision(weights: str) -> None:
    from torchvision import models

    from xmodal.data.preprocessing import Preprocessing
    from xmodal.features.backbones.torchvision_models import _verified

    preset = models.get_weight(weights).transforms()
    earlier = Preprocessing(
        preset.crop_size[0],
        resample=preset.interpolation.value,
        mean=tuple(preset.mean),
        std=tuple(preset.std),
    )
    prepared = _verified(weights, preset, earlier, preset.resize_size[0])
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (301, 475, 3), dtype=np.uint8))
    own = preset(picture).numpy().transpose(1, 2, 0)
    found = (prepared.pixels(picture) / 255 - np.array(preset.mean)) / np.array(preset.std)
    assert float(cosine(found.ravel(), own.ravel())) > 0.9999
