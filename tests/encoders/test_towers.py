"""Towers: shapes, range of relaxed codes, sign rule, pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from xmodal import device
from xmodal.codes import BinaryCodes
from xmodal.encoders.towers import SmallCNN, Tower, Towers
from xmodal.errors import CodeError, ConfigError
from xmodal.modality import MODALITIES

PIXELS = 64 * 64 * 3


@pytest.fixture
def towers() -> Towers:
    torch.manual_seed(0)
    return Towers(12, 7, 16, hidden=20)


def features(n: int, d: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def pictures(n: int) -> torch.Tensor:
    """Flat random pixels (n, PIXELS) uint8."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, PIXELS), generator=generator, dtype=torch.uint8)


def test_relaxed_codes_have_the_shape_and_the_range(towers: Towers) -> None:
    towers.eval()
    for modality, dim in (("image", 12), ("text", 7)):
        relaxed = towers.tower(modality)(features(5, dim)).detach()  # type: ignore[arg-type]
        assert relaxed.shape == (5, 16)
        assert relaxed.dtype == torch.float32
        assert -1 < float(relaxed.min()) < 0 < float(relaxed.max()) < 1


def test_each_modality_has_its_own_tower(towers: Towers) -> None:
    assert towers.tower("image") is towers.image
    assert towers.tower("text") is towers.text
    shared = {id(p) for p in towers.image.parameters()} & {id(p) for p in towers.text.parameters()}
    assert not shared


def test_codes_are_the_signs_of_relaxed_codes(towers: Towers) -> None:
    inputs = features(9, 7)
    towers.eval()
    relaxed = towers.text(inputs).detach().numpy()
    assert towers.codes("text", inputs) == BinaryCodes.from_relaxed(relaxed)
    assert np.array_equal(towers.codes("text", inputs).to_bits(), relaxed > 0)


@pytest.mark.parametrize("training", [True, False])
def test_codes_ignore_dropout_and_keep_the_mode(towers: Towers, training: bool) -> None:
    inputs = features(40, 12)
    towers.train(training)
    first = towers.codes("image", inputs)
    assert towers.training is training
    assert towers.image.head.training is training
    assert towers.codes("image", inputs) == first
    relaxed = [towers.image(inputs) for _ in range(2)]
    assert torch.equal(*relaxed) is not training  # dropout is active in training


def test_batch_size_does_not_change_codes(towers: Towers) -> None:
    inputs = features(33, 12)
    whole = towers.codes("image", inputs, batch=1000)
    assert len(whole) == 33
    assert all(towers.codes("image", inputs, batch=size) == whole for size in (1, 7, 33))


def test_no_items_give_no_codes(towers: Towers) -> None:
    for modality in MODALITIES:
        codes = towers.codes(modality, features(0, towers.shape[f"{modality}_dim"]))
        assert (len(codes), codes.bits) == (0, 16)


def test_shape_reconstructs_the_towers(towers: Towers) -> None:
    again = Towers(**towers.shape)
    again.load_state_dict(towers.state_dict())
    inputs = features(20, 12)
    assert again.codes("image", inputs) == towers.codes("image", inputs)


def test_linear_tower_is_one_layer() -> None:
    linear = Towers(12, 7, 16, kind="linear")
    inputs = features(9, 12)
    layer = linear.image.head[0]
    expected = inputs @ layer.weight.T + layer.bias > 0
    assert np.array_equal(linear.codes("image", inputs).to_bits(), expected.numpy())
    again = Towers(**linear.shape)
    again.load_state_dict(linear.state_dict())
    assert again.codes("image", inputs) == linear.codes("image", inputs)


def test_released_towers_with_pixels_raise_config_error() -> None:
    with pytest.raises(ConfigError, match="released towers take feature vectors, not pixels"):
        Towers(PIXELS, 7, 16, raw_images=True, kind="released")


def test_linear_towers_use_thumbnails_of_pixels() -> None:
    linear = Towers(PIXELS, 7, 16, raw_images=True, kind="linear")
    pixels = torch.randint(256, (3, 64, 64, 3), dtype=torch.uint8)
    thumbnails = linear.image.vectors(pixels.flatten(1)).view(3, 3, 16, 16)
    means = pixels.float().view(3, 16, 4, 16, 4, 3).mean((2, 4)).permute(0, 3, 1, 2) / 255
    torch.testing.assert_close(thumbnails, means)
    again = Towers(**linear.shape)
    again.load_state_dict(linear.state_dict())
    assert again.codes("image", pixels.flatten(1)) == linear.codes("image", pixels.flatten(1))


def test_bits_that_are_not_a_multiple_of_8_raise_code_error() -> None:
    with pytest.raises(CodeError, match="12"):
        Towers(4, 4, 12)


def test_scale_of_features_hardly_changes_codes(towers: Towers) -> None:
    """LayerNorm: a backbone whose vectors are ten times as long gives the same codes."""
    inputs = features(50, 12)
    one, other = (towers.codes("image", scale * inputs).to_bits() for scale in (1, 10))
    assert (one == other).mean() > 0.99


# ---- raw pixels ----------------------------------------------------------------------------------


def test_small_cnn_maps_bytes_to_float32_vectors() -> None:
    torch.manual_seed(0)
    network = SmallCNN().eval()
    out = network(pictures(3)).detach()
    assert out.shape == (3, SmallCNN.dim)
    assert out.dtype == torch.float32
    assert bool(torch.isfinite(out).all())
    assert float((out[0] - out[1]).abs().max()) > 0


def test_small_cnn_depends_on_coordinates() -> None:
    torch.manual_seed(0)
    network = SmallCNN().eval()
    before = network(pictures(1)).detach()
    network.get_buffer("grid").neg_()  # mirrors the coordinates
    assert float((network(pictures(1)).detach() - before).abs().max()) > 1e-3


def test_raw_towers_have_gradients_in_their_stem() -> None:
    torch.manual_seed(0)
    tower = Tower(PIXELS, 8, hidden=16, raw=True)
    tower(pictures(4)).square().sum().backward()
    first = next(tower.stem.parameters())
    assert first.grad is not None
    assert float(first.grad.abs().max()) > 0
    assert tower.width == SmallCNN.dim
    assert tower.vectors(pictures(2)).shape == (2, SmallCNN.dim)


def test_codes_of_pixels_do_not_depend_on_the_batch_size() -> None:
    torch.manual_seed(0)
    towers = Towers(PIXELS, 5, 8, hidden=16, raw_images=True).train()
    inputs = pictures(6)
    before = {k: v.clone() for k, v in towers.image.stem.state_dict().items()}
    whole = towers.codes("image", inputs)
    assert towers.codes("image", inputs, batch=2) == whole
    assert all(torch.equal(before[k], v) for k, v in towers.image.stem.state_dict().items())
    assert towers.codes("text", features(3, 5)).bits == 8


def test_training_on_pixels_uses_bfloat16_and_encoding_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tower = Towers(PIXELS, 7, 16, hidden=8, raw_images=True).image
    pixels = torch.randint(256, (6, PIXELS), dtype=torch.uint8)

    def vectors(bfloat16: bool) -> torch.Tensor:
        monkeypatch.setattr(device, "has_bfloat16", lambda: bfloat16)
        return tower.vectors(pixels)

    full, half = vectors(False), vectors(True)
    assert full.dtype == half.dtype == torch.float32
    assert 0 < float((full - half).detach().norm() / full.detach().norm()) < 0.05
    half.sum().backward()
    assert all(one.grad is not None for one in tower.stem.parameters())
    tower.eval()
    assert torch.equal(vectors(False), vectors(True))
