"""Networks divided in front of their last blocks; backbones with changed weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torchvision import models

from tests.support.tiny_models import TEXTS, save_bert, save_clip
from xmodal.data.items import Item
from xmodal.data.problems import Problems
from xmodal.errors import ModelError
from xmodal.features.backbones import load_image_backbone, load_text_backbone
from xmodal.features.backbones.changed import with_changed
from xmodal.features.extract import image_features, text_features
from xmodal.features.states import (
    StateSource,
    TrainedImages,
    TrainedTexts,
    current_features,
)

CAPTIONS = [*TEXTS, "a much longer caption about two dogs and a red circle on the left"]


def save_torchvision(arch: str, folder: Path) -> str:
    """A network with random weights and statistics, of pictures of 64 x 64 pixels."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = models.get_model(arch, weights=None)
        for name, buffer in network.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_(std=0.1)
    file = folder / f"{arch}.safetensors"
    save_file(network.state_dict(), file)
    return f"{file}?size=64&normalize=imagenet"


IMAGE: dict[str, tuple[Callable[[Path], Any], int]] = {
    "clip": (save_clip, 1),
    "clip, all blocks": (save_clip, 2),
    "mobilenet": (lambda folder: save_torchvision("mobilenet_v2", folder), 1),
    "resnet": (lambda folder: save_torchvision("resnet18", folder), 1),
}
TEXT: dict[str, tuple[Callable[[Path], Any], int]] = {
    "clip": (save_clip, 1),
    "bert, all blocks": (save_bert, 1),
}


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for path in paths:
        Image.fromarray(rng.integers(256, size=(70, 90, 3), dtype=np.uint8)).save(path)
    return paths


def side_of(modality: str, backbone: Any, count: int) -> TrainedImages | TrainedTexts:
    return (TrainedImages if modality == "image" else TrainedTexts)(backbone, count)


@pytest.mark.parametrize(
    ("modality", "kind"), [*(("image", one) for one in IMAGE), *(("text", one) for one in TEXT)]
)
def test_blocks_give_the_features_of_the_backbone_before_and_after_a_change(
    modality: str, kind: str, pictures: list[Path], tmp_path: Path
) -> None:
    save, count = (IMAGE if modality == "image" else TEXT)[kind]
    spec = (
        str(save(tmp_path / "saved")) if "clip" in kind or "bert" in kind else str(save(tmp_path))
    )
    load = load_image_backbone if modality == "image" else load_text_backbone
    features: Any = image_features if modality == "image" else text_features
    sources: list[Any] = pictures if modality == "image" else CAPTIONS
    backbone: Any = load(spec)
    before, _ = features(backbone, sources)
    side = side_of(modality, backbone, count)
    usable = side.compute(sources, tmp_path / "cache", Problems(), None)
    rows = np.arange(len(sources))
    assert usable.all()
    assert np.abs(current_features(side, rows).astype(float) - before).max() < 2e-3
    with torch.no_grad():
        for parameter in side.blocks.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    changed = with_changed(backbone, side.tensors())
    after, _ = features(changed, sources)
    assert np.abs(current_features(side, rows).astype(float) - after).max() < 2e-3
    assert np.abs(after.astype(float) - before).max() > 1e-2
    assert changed.fingerprint.startswith(f"{backbone.fingerprint}-changed-")
    assert np.array_equal(features(backbone, sources)[0], before)


def test_gradients_reach_the_blocks_alone(tmp_path: Path) -> None:
    backbone = load_text_backbone(str(save_clip(tmp_path)))
    side = TrainedTexts(backbone, 1)
    side.compute(CAPTIONS, None, Problems(), None)
    side.blocks.train()
    features = side.features(np.array([3, 0, 2]))
    features.sum().backward(inputs=list(side.blocks.parameters()))
    assert all(parameter.grad is not None for parameter in side.blocks.parameters())
    assert not any(part.training for part in side.blocks.modules())
    assert [name.rpartition(".")[2] for name in side.blocks.names] == ["1"]


def test_states_are_read_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec, cache = str(save_clip(tmp_path / "clip")), tmp_path / "cache"
    backbone = load_text_backbone(spec)
    items = [Item(id=str(row), captions=(text,)) for row, text in enumerate(CAPTIONS)]

    def source() -> StateSource:
        sides: Any = {"text": TrainedTexts(backbone, 1)}
        return StateSource(load_image_backbone("small-cnn"), backbone, cache, sides=sides)

    first, usable = source().features("text", items, Problems())
    assert usable.all() and first.dtype == np.float16
    second = source()
    calls: list[int] = []
    monkeypatch.setattr(
        "xmodal.features.states.States.rows", lambda self, batch: calls.append(len(batch))
    )
    assert np.array_equal(second.features("text", items, Problems())[0], first) and not calls


@pytest.mark.parametrize(
    ("modality", "spec", "count", "message"),
    [
        ("image", "small-cnn", 1, "'small-cnn' has no weights that can be trained"),
        ("text", "words", 1, "'words' has no weights that can be trained"),
        ("text", "clip", 3, "has 2 blocks, found 3 in --fine-tune: name at most 2"),
    ],
)
def test_backbones_without_such_blocks_are_refused(
    modality: str, spec: str, count: int, message: str, tmp_path: Path
) -> None:
    name = str(save_clip(tmp_path)) if spec == "clip" else spec
    load = load_image_backbone if modality == "image" else load_text_backbone
    with pytest.raises(ModelError, match=message):
        side_of(modality, load(name), count)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    backbone = load_text_backbone(str(save_clip(tmp_path)))
    (name, tensor), *_ = TrainedTexts(backbone, 1).tensors().items()
    for tensors in ({f"x{name}": tensor}, {name: torch.zeros(2, 3, 4)}):
        with pytest.raises(ModelError, match="the changed weights have"):
            with_changed(backbone, tensors)
