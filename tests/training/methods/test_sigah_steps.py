"""SiGAH, single steps against gradients derived by hand in numpy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from support.clusters import clusters
from torch import nn

from xmodal import linear_models
from xmodal.training.methods.sigah import train as sigah
from xmodal.training.methods.sigah.config import Config
from xmodal.training.methods.sigah.networks import (
    AutoencoderDiscriminator,
    Features,
    Generator,
    Standardiser,
)
from xmodal.training.run import Run

N, DECODED = 12, 8
# The generator's terms in the paper; the other losses have their own tests.
PAPER = Config(
    units=6,
    discriminator_units=3,
    alpha=0.7,
    sparsity=0.3,
    neighbours=0.0,
    balance=0.0,
    decorrelate=0.0,
)


class Networks:
    """Both networks with one batch of one modality."""

    def __init__(self, config: Config = PAPER) -> None:
        self.config = config
        data = clusters(N, 0, bits=8)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            towers = data.towers(1, kind="linear")
            towers.text = towers.image
            self.part: Features = {"image": data.train.image}
            self.g = Generator(towers, {"image": data.train.image}, config)
            self.d = nn.ModuleDict(
                {"image": AutoencoderDiscriminator(20, config.discriminator_units)}
            )
        self.discriminator.k.fill_(0.25)
        self.near = torch.eye(N).bool().roll(1, 0)
        # One step of SGD with rate 1: a parameter changes by its gradient.
        self.g_optimiser = torch.optim.SGD(self.g.parameters(), lr=1.0)
        self.d_optimiser = torch.optim.SGD(self.d.parameters(), lr=1.0)

    @property
    def discriminator(self) -> AutoencoderDiscriminator:
        discriminator = self.d["image"]
        assert isinstance(discriminator, AutoencoderDiscriminator)
        return discriminator

    def generate(self) -> tuple[dict[str, float], Features, Features]:
        return sigah._generator_step(
            self.g, self.d, None, self.g_optimiser, self.part, self.near, DECODED, self.config
        )


def arrays(module: nn.Module) -> dict[str, np.ndarray]:
    return {name: tensor.detach().double().numpy() for name, tensor in module.state_dict().items()}


def reconstruction_error(
    d: dict[str, np.ndarray], v: np.ndarray
) -> tuple[float, np.ndarray, np.ndarray]:
    """l(v) of the autoencoder, its gradient at v (n, d), and the output of the ReLU."""
    into, out = d["image.layers.0.weight"], d["image.layers.2.weight"]
    inner = np.maximum(v @ into.T + d["image.layers.0.bias"], 0)
    left = v - (inner @ out.T + d["image.layers.2.bias"])
    # d left / d v = I - out diag(inner > 0) into
    slope = 2 * (left - ((left @ out) * (inner > 0)) @ into) / left.size
    return float((left**2).mean()), slope, inner


@pytest.mark.parametrize("adversary", [True, False])
def test_generator_step_equals_gradient_by_hand(adversary: bool) -> None:
    networks = Networks(replace(PAPER, adversary=adversary))
    g, d = arrays(networks.g), arrays(networks.d)
    x = networks.part["image"].double().numpy()[:DECODED]
    weight = g["towers.image.head.0.weight"]
    relaxed = np.tanh(x @ weight.T + g["towers.image.head.0.bias"])
    b = np.where(relaxed > 0, 1.0, -1.0)
    into = b @ g["decoders.image.sparse.weight"].T + g["decoders.image.sparse.bias"]
    s = np.maximum(into, 0)
    length = np.linalg.norm(g["decoders.image.atoms"], axis=1, keepdims=True)
    atoms = g["decoders.image.atoms"] / length * np.sqrt(20 / 6)
    made = s @ atoms + g["decoders.image.offset"]
    real = (x - g["standardisers.image.mean"]) * g["standardisers.image.scale"]
    phi = g["standardisers.image.phi"]
    sensed = (made - real) @ phi
    judged, slope, _ = reconstruction_error(d, made)
    expected = {
        "sensing": 0.7 * (sensed**2).sum() / (DECODED * 20),
        "sparsity": 0.7 * 0.3 * s.mean(),
        "neighbours": 0.0,
        "bits": 0.0,
    } | ({"discriminator": judged} if adversary else {})
    # L_G = l(x') + alpha (|Phi (x' - x)|^2 / n d + mu mean s), backwards from x' to W
    by_made = 0.7 * 2 * sensed @ phi.T / (DECODED * 20) + (slope if adversary else 0)
    by_s = by_made @ atoms.T + 0.7 * 0.3 / s.size
    by_into = by_s * (into > 0)
    by_relaxed = by_into @ g["decoders.image.sparse.weight"]  # straight-through sign
    by_sum = by_relaxed * (1 - relaxed**2)
    by_atoms = s.T @ by_made
    along = (by_atoms * atoms).sum(1, keepdims=True) * atoms / (20 / 6)  # atoms have a fixed norm
    gradients = {
        "decoders.image.offset": by_made.sum(0),
        "decoders.image.sparse.weight": by_into.T @ b,
        "decoders.image.sparse.bias": by_into.sum(0),
        "decoders.image.atoms": (by_atoms - along) / length * np.sqrt(20 / 6),
        "towers.image.head.0.weight": by_sum.T @ x,
        "towers.image.head.0.bias": by_sum.sum(0),
    }

    losses, given, fake = networks.generate()

    assert losses == pytest.approx(expected, rel=1e-5)
    assert given["image"].numpy() == pytest.approx(real, abs=1e-5)
    assert fake["image"].numpy() == pytest.approx(made, abs=1e-5)
    after = arrays(networks.g)
    for name, gradient in gradients.items():
        assert np.abs(gradient).max() > 1e-4, name
        assert g[name] - after[name] == pytest.approx(gradient, abs=1e-6), name
    for name in ("mean", "scale", "phi"):  # fixed
        assert np.array_equal(
            g[f"standardisers.image.{name}"], after[f"standardisers.image.{name}"]
        )


def test_discriminator_step_equals_gradient_by_hand() -> None:
    networks = Networks()
    _, real, fake = networks.generate()
    g, d = arrays(networks.g), arrays(networks.d)
    x, made = real["image"].double().numpy(), fake["image"].double().numpy()

    figures = sigah._discriminator_step(networks.d, networks.d_optimiser, real, fake, PAPER)

    # L_D = l(x) - k l(x') with k = 1/4
    gradients: dict[str, np.ndarray] = {name: np.zeros(()) for name in d}
    for v, sign in ((x, 1.0), (made, -0.25)):
        _, _, inner = reconstruction_error(d, v)
        out = d["image.layers.2.weight"]
        left = v - (inner @ out.T + d["image.layers.2.bias"])
        back = sign * -2 * left / left.size
        by_inner = (back @ out) * (inner > 0)
        gradients["image.layers.2.weight"] = gradients["image.layers.2.weight"] + back.T @ inner
        gradients["image.layers.2.bias"] = gradients["image.layers.2.bias"] + back.sum(0)
        gradients["image.layers.0.weight"] = gradients["image.layers.0.weight"] + by_inner.T @ v
        gradients["image.layers.0.bias"] = gradients["image.layers.0.bias"] + by_inner.sum(0)
    after = arrays(networks.d)
    on_real, on_fake = reconstruction_error(d, x)[0], reconstruction_error(d, made)[0]
    for name in sorted(set(gradients) - {"image.k"}):
        assert np.abs(gradients[name]).max() > 1e-4, name
        assert d[name] - after[name] == pytest.approx(gradients[name], abs=1e-6), name
    k = 0.25 + 0.001 * (0.5 * on_real - on_fake)
    assert figures == pytest.approx(
        {
            "real error": on_real,
            "k": k,
            "convergence": on_real + abs(0.5 * on_real - on_fake),
        }
    )
    assert float(networks.discriminator.k) == pytest.approx(k)
    now = arrays(networks.g)
    assert all(np.array_equal(g[name], now[name]) for name in g)


def test_generator_step_changes_only_its_own_weights() -> None:
    networks = Networks()
    before = arrays(networks.d)
    networks.generate()
    after = arrays(networks.d)
    assert all(np.array_equal(before[name], after[name]) for name in before)
    assert all(parameter.grad is None for parameter in networks.d.parameters())


def test_update_balance_is_clamped_to_0_and_1() -> None:
    discriminator, fast = AutoencoderDiscriminator(4, 2), replace(PAPER, balance_rate=0.4)
    found = []
    for real, fake in ((1.0, 0.0), (4.0, 0.5), (9.0, 0.0), (0.0, 0.5), (0.0, 9.0)):
        discriminator.update_balance(real, fake, fast.gamma, fast.balance_rate)
        found.append(float(discriminator.k))
    # + .4 (.5 - 0), + .4 (2 - .5), + .4 * 4.5 is clamped at 1, - .4 * .5, - .4 * 9 is clamped at 0
    assert found == pytest.approx([0.2, 0.8, 1.0, 0.8, 0.0])
    assert "k" in discriminator.state_dict()


def test_added_neighbours_are_in_the_neighbour_loss_but_not_decoded() -> None:
    networks = Networks(replace(PAPER, neighbours=1.0))
    losses, real, fake = networks.generate()
    assert len(real["image"]) == len(fake["image"]) == DECODED
    other = Networks(replace(PAPER, neighbours=1.0))
    other.part["image"][DECODED:] *= -1
    others, _, _ = other.generate()
    assert others["neighbours"] != losses["neighbours"]
    assert others["sensing"] == losses["sensing"]


def test_each_code_is_decoded_to_both_modalities() -> None:
    data = clusters(N, 0, bits=8)
    features: Features = {"image": data.train.image, "text": data.train.text}
    torch.manual_seed(0)
    g = Generator(data.towers(1, kind="linear"), features, PAPER)
    d = nn.ModuleDict(
        {"image": AutoencoderDiscriminator(20, 3), "text": AutoencoderDiscriminator(14, 3)}
    )
    steps = torch.optim.SGD(g.parameters(), lr=0.1)
    near = torch.eye(N).bool().roll(1, 0)
    _, real, fake = sigah._generator_step(g, d, None, steps, features, near, N, PAPER)
    assert {side: tuple(rows.shape) for side, rows in real.items()} == {
        "image": (N, 20),
        "text": (N, 14),
    }
    assert fake["image"].shape == (2 * N, 20) and fake["text"].shape == (2 * N, 14)
    assert all(one.grad is not None for name, one in g.named_parameters() if name != "sharpness")
    figures = sigah._discriminator_step(d, torch.optim.SGD(d.parameters()), real, fake, PAPER)
    ks = [float(cast_k) for cast_k in (d["image"].k, d["text"].k)]
    assert ks[0] != ks[1]  # one balance for each modality
    assert figures["k"] == pytest.approx(sum(ks) / 2)


def test_initialise_gives_the_codes_of_itq() -> None:
    data = clusters(80, 20)
    towers = data.towers(1, kind="linear")
    features: Features = {"image": data.train.image}
    sigah._initialise(towers, data.train, features, Config(), np.random.default_rng(3))
    x = data.train.image.numpy()
    project = linear_models.pca(x, 16)
    rotated = linear_models.itq(
        x, x[:0], linear_models.Projections(project, project), rng=np.random.default_rng(3)
    ).image(x)
    codes = towers.codes("image", data.train.image).to_bits()
    assert (codes == (rotated > 0)).mean() > 0.999
    relaxed = data.train.image @ towers.image.head[0].weight.T + towers.image.head[0].bias
    assert float(relaxed.detach().std()) == pytest.approx(1, rel=0.01)


def test_sensing_loss_equals_the_mean_squared_error_in_expectation() -> None:
    torch.manual_seed(0)
    scale = Standardiser(torch.randn(50, 400))
    rows = torch.randn(200, 400)
    assert scale.phi.shape == (400, 100)
    assert float(scale.sensing_loss(2 * rows, rows)) == pytest.approx(
        float(rows.square().mean()), rel=0.05
    )
    assert float(scale(torch.randn(1, 400) * 0 + scale.mean).abs().max()) == 0


def test_scale_of_features_does_not_change_codes() -> None:
    """The learning rate of W is relative to its size."""
    data, config = clusters(60, 0), Config(epochs=2, units=16, discriminator_units=4)
    ten = replace(data, train=replace(data.train, image=10 * data.train.image))
    towers = [sigah.train(one, config, Run(one)) for one in (data, ten)]
    bits = [
        tower.codes("image", one.train.image).to_bits()
        for tower, one in zip(towers, (data, ten), strict=True)
    ]
    assert (bits[0] == bits[1]).mean() > 0.99
