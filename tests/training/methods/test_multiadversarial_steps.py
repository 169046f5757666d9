"""Multi-adversarial hashing, single steps against gradients derived by hand."""

from __future__ import annotations

from dataclasses import replace
from math import erf, exp, pi, sqrt
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from support.clusters import clusters
from support.critic_by_hand import Array, numbers, slopes
from torch import nn

from xmodal.modality import MODALITIES, Modality
from xmodal.training.methods.multiadversarial import train as multiadversarial
from xmodal.training.methods.multiadversarial.config import Config
from xmodal.training.methods.multiadversarial.losses import l2_share
from xmodal.training.methods.multiadversarial.networks import (
    AutoEncoder,
    Critics,
    Reconstructions,
    ReconstructionTargets,
)
from xmodal.training.objective import ForwardPass, bit_regulariser, class_prototypes
from xmodal.training.pseudo_labels import fit

N, BITS, WIDTH = 24, 16, 5
QUICK = Config(epochs=3, batch=40, hidden=12, warmup=0, components=WIDTH, critic_steps=2)
ALONE = replace(QUICK, pairs=0.0, classes=0.0, neighbours=0.0, codes="penalty", balance=0.0)
ALONE = replace(ALONE, quantise=0.0, decorrelate=0.0)
"""Reconstruction loss alone."""


class Outputs(NamedTuple):
    """Forward pass of a batch and what is decoded from its codes."""

    batch: ForwardPass
    made: Reconstructions

    @property
    def image(self) -> torch.Tensor:
        return self.batch.codes[0]

    @property
    def text(self) -> torch.Tensor:
        return self.batch.codes[1]


class Networks:
    """All networks with one batch; without dropout, so that gradients can be derived by hand."""

    def __init__(self, config: Config = QUICK) -> None:
        self.config = config
        data = clusters(N, labelled=0.5, bits=BITS)
        self.part = data.train
        self.labels = fit(data.train, directions=8)(data.train)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.targets: dict[Modality, ReconstructionTargets] = {
                "image": ReconstructionTargets(self.part.image, WIDTH),
                "text": ReconstructionTargets(self.part.text, WIDTH),
            }
            towers, widths = data.towers(config.hidden), dict.fromkeys(MODALITIES, WIDTH)
            prototypes = class_prototypes(data, config)
            self.auto = AutoEncoder(towers, prototypes, widths, config)
            self.critics = Critics.create(BITS, widths, config)
        for one in self.auto.modules():
            if isinstance(one, nn.Dropout):
                one.p = 0.0
        self.steps = torch.optim.AdamW(self.auto.parameters(), lr=1e-3)

    def outputs(self) -> Outputs:
        targets = self.targets if self.config.decodes else {}
        batch = self.auto.train()(self.part.image, self.part.text)
        return Outputs(batch, Reconstructions.of(self.auto, targets, self.part, batch))

    def encode(self, outputs: Outputs, epoch: int = 1) -> dict[str, float]:
        """A step of the autoencoder."""
        return multiadversarial._autoencoder_step(
            self.auto, self.critics, self.steps, *outputs, self.labels, self.config, epoch
        )

    def update_critics(self, outputs: Outputs) -> dict[str, float]:
        """A step of the critics with a fixed seed."""
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return multiadversarial._critics_step(self.critics, *outputs, self.config)

    def all_critics(self) -> list[nn.Module]:
        code_critic = [self.critics.codes] if self.critics.codes is not None else []
        return [*self.critics.inputs.values(), *code_critic]


def weights(*networks: nn.Module) -> list[torch.Tensor]:
    return [one.detach().clone() for player in networks for one in player.parameters()]


def same(before: list[torch.Tensor], after: list[torch.Tensor]) -> list[bool]:
    return [torch.equal(one, other) for one, other in zip(before, after, strict=True)]


def grad(parameter: torch.Tensor) -> Array:
    assert parameter.grad is not None
    return numbers(parameter.grad)


def tower_bias(networks: Networks, modality: Modality) -> torch.Tensor:
    """The last bias before tanh."""
    last = networks.auto.towers.tower(modality).head[-1]
    assert isinstance(last, nn.Linear)
    return last.bias


def signs(codes: torch.Tensor) -> Array:
    return np.where(numbers(codes) > 0, 1.0, -1.0)


# ---- changed weights -----------------------------------------------------------------------------


def test_autoencoder_step_changes_only_its_own_weights() -> None:
    networks = Networks()
    auto, critics = weights(networks.auto), weights(*networks.all_critics())
    assert len(networks.all_critics()) == 3
    networks.encode(networks.outputs())
    assert not any(same(auto, weights(networks.auto)))  # every one of them
    assert all(same(critics, weights(*networks.all_critics())))


def test_critics_step_changes_only_their_own_weights() -> None:
    networks = Networks()
    auto, critics = weights(networks.auto), weights(*networks.all_critics())
    figures = networks.update_critics(networks.outputs())
    assert set(figures) == {"image distance", "text distance", "code distance"}
    assert all(same(auto, weights(networks.auto)))
    assert all(one.grad is None for one in networks.auto.parameters())
    stayed = same(critics, weights(*networks.all_critics()))
    offsets = range(5, len(stayed), 6)  # last biases cancel in score differences: no gradient
    assert not any(one for place, one in enumerate(stayed) if place not in offsets)


def test_critics_steps_increase_the_distances() -> None:
    networks = Networks()
    outputs = networks.outputs()
    found = [networks.update_critics(outputs) for _ in range(20)]
    for name in found[0]:
        assert found[-1][name] > found[0][name] + 0.05


def test_critic_steps_3_equals_three_updates() -> None:
    several, single = Networks(replace(QUICK, critic_steps=3)), Networks()
    outputs = several.outputs()
    several.critics.inputs.pop("text")
    several.update_critics(outputs)
    one = single.critics.inputs["image"]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        real, fake = outputs.made.critic_inputs("image")
        for _ in range(3):
            one.update(real, fake.detach())
    assert all(same(weights(one), weights(several.critics.inputs["image"])))


@pytest.mark.parametrize("what", ["critic", "l2"])
def test_autoencoder_steps_lower_its_loss(what: Any) -> None:
    networks = Networks(replace(QUICK, reconstruction=what))
    for _ in range(5):
        networks.update_critics(networks.outputs())
    totals = []
    for _ in range(6):
        terms = networks.encode(networks.outputs())
        terms.pop("decoding error")
        totals.append(sum(terms.values()))
    assert totals[-1] < totals[0] - 0.02


# ---- gradients by hand ---------------------------------------------------------------------------


def test_l2_error_has_the_gradient_by_hand() -> None:
    networks = Networks(replace(ALONE, reconstruction="l2", reconstruction_weight=0.7))
    outputs = networks.outputs()
    error = networks.encode(outputs)
    for (
        modality
    ) in MODALITIES:  # mean over 2N rows, WIDTH columns and both modalities of (x' - x)^2
        off = numbers(outputs.made.decoded[modality]) - numbers(outputs.made.target[modality])
        last = networks.auto.decoders[modality].get_submodule("2").get_parameter("bias")
        np.testing.assert_allclose(grad(last), 0.7 * off.mean(0) / WIDTH, atol=1e-6)
    both = [
        (
            (numbers(outputs.made.decoded[modality]) - numbers(outputs.made.target[modality])) ** 2
        ).mean()
        for modality in MODALITIES
    ]
    assert error["decoding error"] == pytest.approx(np.mean(both), rel=1e-5)
    assert error["l2"] == pytest.approx(0.7 * np.mean(both), rel=1e-5)


def test_input_critic_term_has_the_gradient_by_hand() -> None:
    """From D_x through decoder and sign into both towers.

    x' = B l(A b + a) + c with l = GELU, l'(z) = P(z) + z p(z). The loss is minus the mean score
    over 2N rows and both sides; db = A' (l' o B' dx'); the sign passes db on, so that the gradient
    of a tower's last bias is the sum over its rows of db (1 - u^2).
    """
    networks = Networks(replace(ALONE, reconstruction_weight=0.7))
    networks.update_critics(networks.outputs())
    outputs = networks.outputs()
    codes = torch.cat([outputs.image, outputs.text])
    to_codes = np.zeros((2 * N, BITS))
    expected = {}
    for modality in MODALITIES:
        x, again = numbers(outputs.made.target[modality]), numbers(outputs.made.decoded[modality])
        slope = slopes(networks.critics.inputs[modality], np.concatenate([x, again - x], axis=1))
        back = -0.7 * slope[:, WIDTH:] / sqrt(2 * WIDTH) / (2 * N) / 2
        expected[modality] = back.sum(0)
        first, _, last = networks.auto.decoders[modality].children()
        z = signs(codes) @ numbers(first.weight).T + numbers(first.bias)  # type: ignore[arg-type]
        phi = np.vectorize(
            lambda v: (1 + erf(v / sqrt(2))) / 2 + v * exp(-v * v / 2) / sqrt(2 * pi)
        )
        inner = (back @ numbers(last.weight)) * phi(z)  # type: ignore[arg-type]
        to_codes += inner @ numbers(first.weight)  # type: ignore[arg-type]
    to_codes *= 1 - numbers(codes) ** 2
    networks.encode(outputs)
    for modality in MODALITIES:
        last = networks.auto.decoders[modality].get_submodule("2").get_parameter("bias")
        np.testing.assert_allclose(grad(last), expected[modality], atol=1e-6)
    for modality, rows in zip(MODALITIES, (slice(N), slice(N, None)), strict=True):
        found = grad(tower_bias(networks, modality))
        np.testing.assert_allclose(found, to_codes[rows].sum(0), atol=1e-6)
        assert np.abs(found).max() > 1e-4


def test_code_critic_term_has_the_gradient_by_hand() -> None:
    config = replace(ALONE, reconstruction="none", codes="critic", code_critic=0.7)
    networks = Networks(config)
    networks.update_critics(networks.outputs())
    outputs = networks.outputs()
    code_critic = networks.critics.codes
    assert code_critic is not None
    codes = torch.cat([outputs.image, outputs.text])
    slope = slopes(code_critic, signs(codes)) / sqrt(BITS)
    expected = -0.7 * slope / (2 * N) * (1 - numbers(codes) ** 2)
    networks.encode(outputs)
    for modality, rows in zip(MODALITIES, (slice(N), slice(N, None)), strict=True):
        np.testing.assert_allclose(
            grad(tower_bias(networks, modality)), expected[rows].sum(0), atol=1e-6
        )


def test_bit_regulariser_equals_the_weighted_sum() -> None:
    config = replace(QUICK, codes="penalty", quantise=2.0, balance=3.0, decorrelate=5.0)
    outputs = Networks(config).outputs()
    total = 0.0
    for codes in (numbers(outputs.image), numbers(outputs.text)):
        total += 2 * ((np.abs(codes) - 1) ** 2).mean() + 3 * (codes.mean(0) ** 2).mean()
        off = (codes.T @ codes / N)[~np.eye(BITS, dtype=bool)]
        total += 5 * (off**2).mean()
    assert float(bit_regulariser(outputs.batch.codes, config).detach()) == pytest.approx(
        total, rel=1e-5
    )


# ---- reconstruction ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("judge", "warmup", "shares"),
    [
        ("critic", 4, [1, 0.75, 0.5, 0.25, 0, 0]),
        ("critic", 1, [1, 0, 0, 0, 0, 0]),
        ("critic", 0, [0] * 6),
        ("l2", 4, [1] * 6),
    ],
)
def test_l2_share_is_annealed_during_warmup(judge: Any, warmup: int, shares: list[float]) -> None:
    config = replace(QUICK, reconstruction=judge, warmup=warmup)
    assert [l2_share(epoch, config) for epoch in range(1, 7)] == shares


def test_reconstruction_terms_are_weighted_by_l2_share() -> None:
    networks = Networks(replace(ALONE, warmup=4, reconstruction_weight=0.7))
    outputs = networks.outputs()
    both = networks.critics.inputs.items()
    score = np.mean(
        [numbers(one(outputs.made.critic_inputs(modality)[1])).mean() for modality, one in both]
    )
    score /= sqrt(2 * WIDTH)
    terms = networks.encode(outputs, epoch=2)
    assert terms["l2"] == pytest.approx(0.7 * 0.75 * terms["decoding error"])
    assert terms["input critic"] == pytest.approx(-0.7 * 0.25 * score, abs=1e-6)
    assert set(networks.encode(networks.outputs(), epoch=1)) == {"l2", "decoding error"}
    assert set(networks.encode(networks.outputs(), epoch=5)) == {"input critic", "decoding error"}


def test_reconstruction_targets_have_mean_square_1_and_keep_distances() -> None:
    features = clusters(60).train.text * 37 + 5  # 14 columns
    targets = ReconstructionTargets(features, 20)
    z = targets(features)
    assert (targets.width, z.shape) == (14, (60, 14))
    assert float(z.square().mean()) == pytest.approx(1, rel=1e-4)
    centred = features - features.mean(0)
    ratio = torch.cdist(z, z) / torch.cdist(centred, centred).clamp(min=1e-9)
    off = ratio[~torch.eye(60, dtype=torch.bool)]
    assert float(off.std() / off.mean()) < 1e-3


def test_reconstruction_targets_of_pixels_are_thumbnails() -> None:
    squares = torch.randint(0, 256, (30, 64 * 64 * 3), dtype=torch.uint8)
    targets = ReconstructionTargets(squares, 40, raw=True)
    assert targets.width == 30  # the number of pictures: no loss
    shown = targets.pictures(targets(squares))
    small = squares.view(30, 16, 4, 16, 4, 3).float().mean((2, 4)).numpy()
    assert shown.shape == (30, 16, 16, 3)
    assert np.abs(shown - small).max() <= 2


def test_reconstructions_decode_both_codes_to_both_modalities() -> None:
    networks = Networks()
    outputs = networks.outputs()
    for modality in MODALITIES:
        real, fake = outputs.made.critic_inputs(modality)
        x = networks.targets[modality](getattr(networks.part, modality))
        assert torch.equal(real, torch.cat([x, 0 * x], 1).repeat(2, 1))
        assert torch.equal(fake[:, :WIDTH], real[:, :WIDTH])
        alone = networks.auto.decoders[modality](torch.from_numpy(signs(outputs.text)).float())
        torch.testing.assert_close(fake[N:, WIDTH:], alone - x)
