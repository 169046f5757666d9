"""Features of models of open_clip and timm equal those of the packages, on random weights."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.model_families import TEXTS, pictures, smallest_cosine
from support.squares import clear_backbones

from xmodal.errors import ModelError
from xmodal.features.backbones import load_image_backbone, load_text_backbone, open_clip_models

open_clip = pytest.importorskip("open_clip")
timm = pytest.importorskip("timm")

EQUAL = 0.9999


@pytest.fixture(autouse=True)
def fresh_backbones() -> Iterator[None]:
    """Clear the cache of loaded backbones before and after each test."""
    clear_backbones()
    open_clip_models._load.cache_clear()
    yield
    clear_backbones()
    open_clip_models._load.cache_clear()


def image_vectors(folder: Path) -> Any:
    backbone = load_image_backbone(str(folder))
    return backbone.forward(np.stack([backbone.preprocessing.pixels(one) for one in pictures()]))


# ---- open_clip ----------------------------------------------------------------------------------

VISION = {"image_size": 32, "layers": 2, "width": 16, "patch_size": 8, "head_width": 8}
TEXT = {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2}
MEAN = {"mean": [0.5, 0.4, 0.3], "std": [0.25, 0.25, 0.5]}


def open_clip_config(name: str) -> dict[str, Any]:
    """The model_cfg of a kind of models."""
    config: dict[str, Any] = {"embed_dim": 16, "vision_cfg": VISION, "text_cfg": TEXT}
    if name == "coca":
        config["text_cfg"] = TEXT | {"embed_cls": True, "output_tokens": True}
        config["vision_cfg"] = VISION | {"attentional_pool": True, "output_tokens": True}
        config["multimodal_cfg"] = TEXT | {"dim_head": 8}
        config["custom_text"] = True
    if name == "siglip":
        config["custom_text"], config["init_logit_bias"] = True, -10
        config["text_cfg"] = TEXT | {"no_causal_mask": True, "pool_type": "last"}
        config["text_cfg"] |= {"proj_bias": True, "tokenizer_kwargs": {"clean": "canonicalize"}}
    return config


def save_open_clip(folder: Path, name: str, preprocess: dict[str, Any]) -> Any:
    """Save a model with random weights as open_clip does; return it as open_clip loads it."""
    from safetensors.torch import save_file

    torch.manual_seed(0)
    config = open_clip_config(name)
    kind = {"clip": open_clip.CLIP, "coca": open_clip.CoCa}.get(name, open_clip.CustomTextCLIP)
    arguments = {key: value for key, value in config.items() if key != "custom_text"}
    own = kind(**arguments).eval()
    state = {key: value.clone().contiguous() for key, value in own.state_dict().items()}
    save_file(state, folder / "open_clip_model.safetensors")
    declared = {"model_cfg": config, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(declared))
    logging.disable(logging.WARNING)
    try:
        return open_clip.create_model_from_pretrained(f"local-dir:{folder}")
    finally:
        logging.disable(logging.NOTSET)


@pytest.mark.parametrize(
    ("name", "preprocess"),
    [
        ("clip", {"interpolation": "bicubic", "resize_mode": "shortest"}),
        ("clip", {"interpolation": "bilinear", "resize_mode": "longest", "fill_color": 7}),
        ("coca", {"interpolation": "bicubic", "resize_mode": "squash"}),
        ("siglip", {"interpolation": "bicubic", "resize_mode": "squash"}),
    ],
)
def test_open_clip(name: str, preprocess: dict[str, Any], tmp_path: Path) -> None:
    own, prepare = save_open_clip(tmp_path, name, MEAN | preprocess)
    tokenize = open_clip.get_tokenizer(f"local-dir:{tmp_path}")
    with torch.no_grad():
        vectors = own.eval().encode_image(torch.stack([prepare(one) for one in pictures()]))
        words = own.encode_text(tokenize(list(TEXTS)))
    assert smallest_cosine(image_vectors(tmp_path), vectors.numpy()) > EQUAL
    assert smallest_cosine(load_text_backbone(str(tmp_path)).forward(TEXTS), words.numpy()) > EQUAL


def test_open_clip_folder_with_the_config_of_another_tool(tmp_path: Path) -> None:
    """A ``config.json`` is of transformers if it names the type of its model."""
    save_open_clip(tmp_path, "clip", MEAN)
    (tmp_path / "config.json").write_text('{"architecture": "vit"}')
    assert load_image_backbone(str(tmp_path)).fingerprint.startswith("open-clip-")


def test_pictures_of_earlier_encoders_of_open_clip(tmp_path: Path) -> None:
    save_open_clip(tmp_path, "clip", MEAN)
    now = load_image_backbone(str(tmp_path))
    earlier = load_text_backbone(str(tmp_path)).fingerprint
    before = load_image_backbone(str(tmp_path), recorded=earlier)
    assert (before.fingerprint, before.preprocessing.fit) == (earlier, "crop")
    assert now.fingerprint.startswith(earlier) and now.preprocessing.fit == "shortest"


# ---- timm ---------------------------------------------------------------------------------------


def save_timm(folder: Path, architecture: str, config: dict[str, Any], *, wrapped: bool) -> Any:
    """Save a model with random weights as the hub holds it; return it."""
    from safetensors.torch import save_file

    torch.manual_seed(0)
    own = timm.create_model(architecture, num_classes=0).eval()
    prefix = "timm_model." if wrapped else ""
    state = {f"{prefix}{key}": value.contiguous() for key, value in own.state_dict().items()}
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    written = {
        **{"architecture": architecture, "num_classes": 0, "num_features": own.num_features},
        "pretrained_cfg": config,
    }
    if wrapped:  # as transformers saves it; timm itself writes neither key
        written |= {"architectures": ["TimmWrapperModel"], "model_type": "timm_wrapper"}
    (folder / "config.json").write_text(json.dumps(written))
    return own


@pytest.mark.parametrize("wrapped", [True, False])
@pytest.mark.parametrize(
    ("architecture", "config"),
    [
        ("test_vit", {"crop_pct": 0.95, "interpolation": "bicubic"}),
        ("test_resnet", {"crop_pct": 0.9, "crop_mode": "squash", "interpolation": "bilinear"}),
        ("test_vit", {"crop_pct": 0.9, "crop_mode": "border", "interpolation": "bicubic"}),
    ],
)
def test_timm(architecture: str, config: dict[str, Any], wrapped: bool, tmp_path: Path) -> None:
    config = {"input_size": [3, 160, 160], **MEAN, **config}
    own = save_timm(tmp_path, architecture, config, wrapped=wrapped)
    data = timm.data.resolve_data_config(config, model=None)
    prepare = timm.data.create_transform(**data, is_training=False)
    with torch.no_grad():
        vectors = own(torch.stack([prepare(one) for one in pictures()]))
    assert smallest_cosine(image_vectors(tmp_path), vectors.numpy()) > EQUAL


def test_timm_model_that_reads_patches_is_refused(tmp_path: Path) -> None:
    config = {"input_size": [3, 160, 120], **MEAN, "interpolation": "bicubic"}
    save_timm(tmp_path, "test_vit", config, wrapped=True)
    with pytest.raises(ModelError, match="expected squares"):
        load_image_backbone(str(tmp_path))
