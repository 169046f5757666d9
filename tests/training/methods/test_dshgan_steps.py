"""DSH-GANs, single steps: losses against loops, steps against gradients by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from support.clusters import CLASSES, clusters
from torch import nn

from xmodal.encoders.towers import Towers
from xmodal.training.methods.dshgan import train as dshgan
from xmodal.training.methods.dshgan.config import Config
from xmodal.training.methods.dshgan.losses import adversarial_hinge, scale_to, triplet_loss
from xmodal.training.methods.dshgan.networks import LabelSampler, make_conditions
from xmodal.training.objective import ForwardPass, HashNetwork, ImageText
from xmodal.training.prototypes import ClassPrototypes, class_temperature
from xmodal.training.pseudo_labels import fit

N, K, IMAGE, TEXT = 12, 16, 20, 14
ALONE = Config(
    pairs=0.0, neighbours=0.0, quantise=0.0, balance=0.0, decorrelate=0.0, reconstruction_weight=0.0
)
"""The terms of the paper alone."""
WITHIN = replace(ALONE, synthetic_share=1.0, warmup=0, triplet=2.0, classes=1.5, margin=0.4)


class Networks:
    """All networks with one batch, simple enough to derive every gradient by hand.

    Towers are linear -> tanh, the adversary is w . x + b + x . Vc, and every optimiser takes one
    step of length 1, so what has changed is the gradient.
    """

    def __init__(self, config: Config = WITHIN) -> None:
        self.config = config
        data = clusters(N, labelled=0.75)
        self.part = data.train
        self.labels = fit(data.train, directions=4)(data.train)
        self.sampler = LabelSampler(data.train)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            prototypes = ClassPrototypes(CLASSES, K, class_temperature(CLASSES, 0.85))
            self.d = HashNetwork(Towers(IMAGE, TEXT, K, kind="linear"), prototypes)
            self.gan = dshgan.Gan(data, IMAGE, config)
            plain = self.gan.adversary
            plain.layers, plain.last = nn.Sequential(), nn.Linear(plain.width, 1)
            plain.condition = nn.Linear(CLASSES, plain.width)
            with torch.no_grad():
                for tower in (self.d.towers.image, self.d.towers.text):
                    tower.head[0].weight.mul_(8)  # codes that differ
        self.d_optimiser = torch.optim.SGD(self.d.parameters(), lr=1)
        self.gan.g_optimiser = torch.optim.SGD(self.gan.g.parameters(), lr=1)
        self.gan.a_optimiser = torch.optim.SGD(plain.parameters(), lr=1)
        self.conditions = make_conditions(
            self.part, self.labels, self.sampler, config, np.random.default_rng(0)
        )

    def discriminate(self, epoch: int = 1) -> tuple[dict[str, float], ForwardPass]:
        with torch.random.fork_rng():
            torch.manual_seed(1)
            return dshgan._discriminator_step(
                self.d,
                self.gan,
                None,
                self.d_optimiser,
                self.part,
                self.labels,
                self.conditions,
                self.config,
                epoch,
                np.random.default_rng(0),
            )

    def generate(self) -> dict[str, float]:
        real = self.part.image, self.part.text
        seen = self.d(*real).detached(N)
        with torch.random.fork_rng():
            torch.manual_seed(1)
            return dshgan._generator_step(
                self.d, self.gan, self.conditions, real, seen, self.config
            )

    @torch.no_grad()
    def made(self) -> ImageText:
        """The synthetic pairs of the next step."""
        with torch.random.fork_rng():
            torch.manual_seed(1)
            return self.gan.g.sample(self.conditions.values)

    @torch.no_grad()
    def codes(self, pairs: ImageText) -> ImageText:
        return self.d(*pairs).codes

    @torch.no_grad()
    def seen(self, pairs: ImageText) -> torch.Tensor:
        """Inputs of the adversary, (n, width)."""
        return self.gan.adversary.inputs(pairs)

    @torch.no_grad()
    def slopes(self) -> torch.Tensor:
        """w + Vc of each condition: the adversary's gradient, (n, width)."""
        plain = self.gan.adversary
        return plain.last.weight + plain.condition(self.conditions.values)


def moved(before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    """The gradient of a step with learning rate 1."""
    return before - after.detach()


# ---- losses against loops ------------------------------------------------------------------------


def random_codes(n: int, seed: int) -> torch.Tensor:
    return torch.tanh(torch.randn(n, K, generator=torch.Generator().manual_seed(seed)))


def by_hand(
    queries: ImageText, items: ImageText, match: torch.Tensor, positive: list[int], margin: float
) -> tuple[float, list[torch.Tensor], list[torch.Tensor]]:
    """The triplet loss in loops, and its gradients at the codes of queries and items.

    d(u, v) = |u - v|^2 / 4K, so where a triplet is not satisfied the gradient of the hinge is
    (x- - x+) / 2K to the query, (x+ - q) / 2K to x+ and (q - x-) / 2K to x-.
    """
    total = 0.0
    to_queries = [torch.zeros_like(one) for one in queries]
    to_items = [torch.zeros_like(one) for one in items]
    n = len(queries[0])
    for direction, q in enumerate(queries):
        for modality, x in enumerate(items):
            for i in range(n):
                p = positive[i]
                others = [j for j in range(len(x)) if match[i, j] <= 0.5]
                spread = sum(1 - float(match[i, j]) for j in others)
                for j in others:
                    weight = float(match[i, p]) * (1 - float(match[i, j])) / spread / n / 4
                    near = float((q[i] - x[p]).square().sum()) / (4 * K)
                    far = float((q[i] - x[j]).square().sum()) / (4 * K)
                    if margin + near - far <= 0:
                        continue
                    total += weight * (margin + near - far)
                    to_queries[direction][i] += weight * (x[j] - x[p]) / (2 * K)
                    to_items[modality][p] += weight * (x[p] - q[i]) / (2 * K)
                    to_items[modality][j] += weight * (q[i] - x[j]) / (2 * K)
    return total, to_queries, to_items


@pytest.mark.parametrize("margin", [0.05, 0.4])
def test_triplet_loss_and_gradients_equal_a_loop(margin: float) -> None:
    queries = random_codes(5, 0), random_codes(5, 1)
    items = random_codes(7, 2), random_codes(7, 3)
    match = torch.rand(5, 7, generator=torch.Generator().manual_seed(4))
    positive = match.argmax(1)
    leaves = [one.clone().requires_grad_() for one in (*queries, *items)]
    u, v, x, y = leaves
    found = triplet_loss((u, v), (x, y), match, positive, margin)
    found.backward()
    total, to_queries, to_items = by_hand(queries, items, match, positive.tolist(), margin)
    assert float(found.detach()) == pytest.approx(total, rel=1e-4)
    for leaf, gradient in zip(leaves, [*to_queries, *to_items], strict=True):
        torch.testing.assert_close(leaf.grad, gradient, rtol=1e-4, atol=1e-7)


def test_triplet_loss_ignores_items_with_partly_shared_labels() -> None:
    q, x = torch.ones(1, K), torch.stack([torch.ones(K), -torch.ones(K), torch.ones(K)])
    match = torch.tensor([[1.0, 1.0, 0.0]])  # x+, one that shares a label, one that shares none
    own = torch.tensor([0])
    found = triplet_loss((q, q), (x, x), match, own, 0.2)
    assert float(found) == pytest.approx(0.2)  # 0.2 + 0 - 0 of the third alone
    none = triplet_loss((q, q), (x, x), torch.ones(1, 3), own, 0.2)
    assert float(none) == 0


def test_triplet_loss_of_a_query_without_class_is_zero() -> None:
    q, x = torch.ones(1, K), -torch.ones(2, K)
    found = triplet_loss((q, q), (x, x), torch.zeros(1, 2), torch.tensor([0]), 0.2)
    assert float(found) == 0


def test_adversarial_hinge_equals_values_by_hand() -> None:
    real, synthetic = torch.tensor([2.0, 0.5]), torch.tensor([-3.0, 0.0, 1.0])
    # real: (0 + .5) / 2; synthetic: (0 + 1 + 2) / 3
    assert float(adversarial_hinge(real, synthetic)) == pytest.approx(0.25 + 1)


# ---- one step of each network, by hand -----------------------------------------------------------


def class_gradient(networks: Networks, codes: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """Gradient at codes u (n, K) of one modality: (softmax(u W / KT) - target) W / KT / 2n."""
    prototypes = torch.tanh(networks.d.prototypes.weight.detach())
    scale = K * networks.d.prototypes.temperature
    weight = classes.sum(1, keepdim=True)
    posterior = torch.softmax(codes @ prototypes.T / scale, dim=1)
    return weight * (posterior - classes) @ prototypes / scale / float(weight.sum()) / 2


def test_discriminator_step_of_towers_equals_gradient_by_hand() -> None:
    networks, config = Networks(), WITHIN
    made, real = networks.made(), (networks.part.image, networks.part.text)
    u, v = networks.codes(real)
    x, y = networks.codes(made)
    match, own = networks.conditions.match_probability, list(range(N))
    _, to_queries, to_items = by_hand((u, v), (x, y), match, own, config.margin)
    towers, belief = (networks.d.towers.image, networks.d.towers.text), networks.labels.classes
    expected = []
    for modality, (codes, synthetic) in enumerate(((u, x), (v, y))):
        to_real = config.classes * class_gradient(networks, codes, belief)
        to_real += config.triplet * to_queries[modality]
        through = to_real * (1 - codes**2)  # tanh' = 1 - tanh^2
        through_synthetic = config.triplet * to_items[modality] * (1 - synthetic**2)
        bias = through.sum(0) + through_synthetic.sum(0)
        weight = through.T @ real[modality] + through_synthetic.T @ made[modality]
        expected.append((bias, weight))
    before = [(t.head[0].bias.clone().detach(), t.head[0].weight.clone().detach()) for t in towers]
    networks.discriminate()
    assert float(expected[1][0].abs().max()) > 1e-3
    for tower, was, (bias, weight) in zip(towers, before, expected, strict=True):
        torch.testing.assert_close(moved(was[0], tower.head[0].bias), bias, rtol=1e-3, atol=1e-5)
        found = moved(was[1], tower.head[0].weight)
        torch.testing.assert_close(found, weight, rtol=1e-3, atol=1e-5)


def test_discriminator_step_of_adversary_equals_gradient_by_hand() -> None:
    networks = Networks()
    real = networks.seen((networks.part.image, networks.part.text))
    synthetic, slopes = networks.seen(networks.made()), networks.slopes()
    plain, conditions = networks.gan.adversary, networks.conditions.values
    bias = float(plain.last.bias.detach())
    on_real = (real * slopes).sum(1) + bias
    on_synthetic = (synthetic * slopes).sum(1) + bias
    to_real, to_synthetic = -(on_real < 1).float() / N, (on_synthetic > -1).float() / N
    at_input = to_real[:, None] * real + to_synthetic[:, None] * synthetic
    at_input += WITHIN.penalty * slopes / N  # of penalty / 2 |w + Vc|^2
    before = [one.detach().clone() for one in (plain.last.weight, plain.condition.weight)]
    figures, _ = networks.discriminate()
    found = moved(before[0], plain.last.weight)
    torch.testing.assert_close(found, at_input.sum(0, keepdim=True), rtol=1e-3, atol=1e-5)
    found = moved(before[1], plain.condition.weight)
    torch.testing.assert_close(found, at_input.T @ conditions, rtol=1e-3, atol=1e-5)
    moved_bias = bias - float(plain.last.bias.detach())
    assert moved_bias == pytest.approx(float(to_real.sum() + to_synthetic.sum()), abs=1e-5)
    right = float(((on_real > 0).float().mean() + (on_synthetic <= 0).float().mean()) / 2)
    assert figures["adversary accuracy"] == pytest.approx(right)


def test_generator_step_equals_gradient_by_hand() -> None:
    networks, config = Networks(), WITHIN
    made = networks.made()
    queries = networks.codes((networks.part.image, networks.part.text))
    items = networks.codes(made)
    conditions, own = networks.conditions, list(range(N))
    hinge, _, to_items = by_hand(queries, items, conditions.match_probability, own, config.margin)
    expected = []
    slopes = -networks.slopes() / N  # of -mean s
    plain, towers = networks.gan.adversary, networks.d.towers
    halves = slopes.split([N, slopes.shape[1] - N], dim=1)  # N items have N components
    axes, heads = (plain.image, plain.text), (networks.gan.g.image, networks.gan.g.text)
    for modality, tower in enumerate((towers.image, towers.text)):
        to_codes = to_items[modality] + class_gradient(
            networks, items[modality], conditions.classes
        )
        through = to_codes * (1 - items[modality] ** 2)
        to_features = halves[modality] @ axes[modality].get_buffer("axes").T
        to_features = to_features + through @ tower.head[0].weight.detach()
        free = made[modality] > heads[modality].get_buffer("minimum")
        expected.append((to_features * free * heads[modality].get_buffer("deviation")).sum(0))
    before = [head.linear.bias.detach().clone() for head in heads]
    kept = [one.clone() for one in networks.d.state_dict().values()]
    adversary = [one.clone() for one in plain.state_dict().values()]
    terms = networks.generate()
    assert terms["generator triplets"] == pytest.approx(hinge, rel=1e-3)
    for head, was, bias in zip(heads, before, expected, strict=True):
        torch.testing.assert_close(moved(was, head.linear.bias), bias, rtol=1e-3, atol=1e-5)
    assert all(map(torch.equal, kept, networks.d.state_dict().values()))
    assert all(map(torch.equal, adversary, plain.state_dict().values()))
    assert all(p.requires_grad for p in [*networks.d.parameters(), *plain.parameters()])


def test_reconstruction_loss_and_gradients_equal_a_loop() -> None:
    networks = Networks()
    gan, conditions = networks.gan, networks.conditions.values
    real = networks.part.image, networks.part.text
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(2)
        found, gradients = gan.reconstruction_loss(real, conditions)
        torch.manual_seed(2)
        noise = torch.randn(N, gan.g.noise)
        mean, log_variance = gan.inference(real, conditions)
        made = gan.g(conditions, mean + noise * torch.exp(log_variance / 2))
    expected = 0.0
    for modality in range(2):
        off = sum(float((made[modality][i] - real[modality][i]).square().sum()) for i in range(N))
        centre = real[modality].mean(0)
        whole = sum(float((row - centre).square().sum()) for row in real[modality])
        expected += off / whole
        torch.testing.assert_close(
            gradients[modality], 2 * (made[modality] - real[modality]) / whole
        )
    for mu, log in zip(mean.flatten().tolist(), log_variance.flatten().tolist(), strict=True):
        expected += 0.003 * (mu**2 + np.exp(log) - 1 - log) / 2 / N
    assert float(found) == pytest.approx(expected, rel=1e-4)


def test_reconstruction_is_a_weighted_generator_term() -> None:
    networks = Networks(replace(WITHIN, reconstruction_weight=2.0))
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(1)
        networks.gan.g.sample(networks.conditions.values)
        real = networks.part.image, networks.part.text
        expected = 2 * float(networks.gan.reconstruction_loss(real, networks.conditions.values)[0])
    assert networks.generate()["reconstruction"] == pytest.approx(expected, rel=1e-4)
    assert "reconstruction" not in Networks().generate()


def test_generator_gradient_is_scaled_to_the_reconstruction_gradient() -> None:
    alone, both = Networks(WITHIN), Networks(replace(WITHIN, reconstruction_weight=1.0))
    real = both.part.image, both.part.text
    biases = [head.linear.bias for head in (both.gan.g.image, both.gan.g.text)]
    with torch.random.fork_rng():
        torch.manual_seed(1)
        both.gan.g.sample(both.conditions.values)
        loss, there = both.gan.reconstruction_loss(real, both.conditions.values)
    again = torch.autograd.grad(loss, biases)
    before = [one.detach().clone() for one in biases]  # the same for both
    alone.generate()
    both.generate()
    for modality, name in enumerate(("image", "text")):
        scaled, all_of_it = (
            moved(before[modality], getattr(networks.gan.g, name).linear.bias)
            for networks in (alone, both)
        )
        cosine = torch.nn.functional.cosine_similarity(all_of_it - again[modality], scaled, dim=0)
        assert float(cosine) == pytest.approx(1, abs=1e-3)
    one, other = torch.randn(3, 4), torch.randn(3, 4)
    pull = scale_to(one, other)
    assert float(pull.norm()) == pytest.approx(float(one.norm()), rel=1e-5)
    assert there[0].shape == real[0].shape


def test_discriminator_step_does_not_change_the_generator() -> None:
    networks = Networks()
    before = [one.clone() for one in networks.gan.g.state_dict().values()]
    networks.discriminate()
    assert all(map(torch.equal, before, networks.gan.g.state_dict().values()))
    assert all(p.grad is None for p in networks.gan.g.parameters())


def test_synthetic_share_divides_the_triplet_weight() -> None:
    networks = Networks(replace(WITHIN, synthetic_share=0.25, warmup=1))
    real = (networks.part.image, networks.part.text)
    u, v = networks.codes(real)
    whole, _, _ = by_hand(
        (u, v),
        networks.codes(networks.made()),
        networks.conditions.match_probability,
        list(range(N)),
        0.4,
    )
    terms, _ = Networks(networks.config).discriminate(epoch=1)
    assert "synthetic triplets" not in terms
    alone = terms["real triplets"]
    terms, _ = networks.discriminate(epoch=2)
    assert terms["real triplets"] == pytest.approx(0.75 * alone)
    assert terms["synthetic triplets"] == pytest.approx(0.25 * 2.0 * whole, rel=1e-3)


def test_synthetic_classes_term_equals_a_loop() -> None:
    networks = Networks(replace(WITHIN, synthetic_classes=2.0))
    expected, scale = 0.0, K * networks.d.prototypes.temperature
    prototypes = torch.tanh(networks.d.prototypes.weight.detach())
    for codes in networks.codes(networks.made()):
        for code, classes in zip(codes, networks.conditions.classes, strict=True):
            log_p = torch.log_softmax(prototypes @ code / scale, dim=0)
            expected -= float((classes * log_p).sum())
    total = float(networks.conditions.classes.sum())
    terms, _ = networks.discriminate()
    assert terms["synthetic classes"] == pytest.approx(2.0 * expected / total / 2, rel=1e-4)
    assert "synthetic classes" not in Networks().discriminate()[0]


def test_scale_gradient_scales_gradients_only() -> None:
    one = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    for weight in (0.0, 0.25, 1.0):
        one.grad = None
        image, text = dshgan._scale_gradient((one, one), weight)
        assert torch.equal(image, one) and torch.equal(text, one)
        image.sum().backward()
        assert one.grad is not None
        assert one.grad.unique().tolist() == [weight]
