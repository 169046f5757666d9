"""SSAH, single steps: losses against loops, steps against gradients by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.clusters import clusters

from xmodal.encoders.towers import Towers
from xmodal.training.methods.ssah import train as ssah
from xmodal.training.methods.ssah.config import Config
from xmodal.training.methods.ssah.losses import hash_loss, target_hardness
from xmodal.training.methods.ssah.networks import ANets, HNet
from xmodal.training.pseudo_labels import PseudoLabels, fit

K = 8


@pytest.fixture(autouse=True)
def _repeatable() -> None:
    torch.manual_seed(0)


# ---- losses --------------------------------------------------------------------------------------


def loop_hash_loss(
    asking: np.ndarray, across: np.ndarray, within: np.ndarray, match: np.ndarray, c: Config
) -> list[float]:
    def near(logit: float) -> float:
        return math.log1p(math.exp(-logit))

    values = []
    for i, code in enumerate(asking):
        total = 0.0
        for codes, itself in ((across, True), (within, False)):
            similar = dissimilar = likely = unlikely = 0.0
            for j, other in enumerate(codes):
                logit = c.slope * (float(code @ other) / len(code) - c.middle)
                s = match[i, j] if itself or i != j else 0.0
                similar, likely = similar + s, likely + s * near(logit)
                s = 1 - match[i, j]
                dissimilar, unlikely = dissimilar + s, unlikely + s * near(-logit)
            total += (likely / max(similar, 1e-6) + unlikely / max(dissimilar, 1e-6)) / 2
        values.append(total / 2)
    return values


@pytest.mark.parametrize("labelled", [True, False])
def test_hash_loss_equals_a_loop(labelled: bool) -> None:
    u, v, w = (torch.tanh(torch.randn(5, K)) for _ in range(3))
    match = torch.eye(5)
    if labelled:
        match[0, 1] = match[1, 0] = 1.0
        match[2, 3] = match[3, 2] = 0.4
    config = Config(slope=6.0, middle=0.2)
    found = hash_loss(u, v, w, match, config)
    arrays = (one.double().numpy() for one in (u, v, w, match))
    assert found.tolist() == pytest.approx(loop_hash_loss(*arrays, config), rel=1e-4)
    first = hash_loss(u[:2], v, w, match[:2], config)  # queries: the first two
    torch.testing.assert_close(first, found[:2])


def test_target_hardness_grows_linearly_then_is_constant() -> None:
    config = Config(epochs=10, hardness=0.8, pace=0.5)
    assert [round(target_hardness(epoch, config), 2) for epoch in (1, 3, 5, 8)] == [
        0.16,
        0.48,
        0.8,
        0.8,
    ]
    assert target_hardness(1, replace(config, pace=0.0)) == 0.8


# ---- one step of each network --------------------------------------------------------------------

PLAIN = Config(
    likelihood=1.0, hard=0.0, consistency=0.0, pairs=0.0, neighbours=0.0, quantise=0.0,
    balance=0.0, decorrelate=0.0, hidden=8, slope=4.0, middle=0.3,
)  # fmt: skip


class Networks:
    """Both networks with one small batch and linear towers: u = tanh(Wx + c)."""

    def __init__(self, config: Config, n: int = 8) -> None:
        self.config = config
        data = clusters(n, labelled=0.5, bits=K)
        self.part, self.data = data.train, data
        self.labels: PseudoLabels = fit(data.train, directions=4)(data.train)
        self.h = HNet(Towers(20, 14, K, kind="linear"))
        self.a = ANets(data, config)
        self.h_optimiser = torch.optim.SGD(self.h.towers.parameters(), lr=1.0)
        self.a_optimiser = torch.optim.SGD(self.a.parameters(), lr=1.0)

    def hash(self, hard: ssah.ByModality | None) -> dict[str, float]:
        return ssah._hash_step(
            self.h, None, self.h_optimiser, self.part, self.labels, hard, self.config
        )

    def attack(self, rho: float) -> tuple[ssah.ByModality, dict[str, float]]:
        return ssah._adversary_step(
            self.a, self.h.towers, self.a_optimiser, self.part, self.labels, self.config, rho
        )


Codes = tuple[np.ndarray, np.ndarray]
EVERY = {
    "likelihood": replace(PLAIN),
    "hard": replace(PLAIN, likelihood=0.0, hard=1.0),
    "consistency": replace(PLAIN, likelihood=0.0, consistency=1.0),
}


@pytest.mark.parametrize("term", EVERY)
def test_hash_step_equals_numerical_gradient(term: str) -> None:
    """Numerical gradient of a loss in loops, in float64."""
    networks = Networks(EVERY[term])
    towers, config = networks.h.towers, networks.config
    hard: ssah.ByModality = {"image": torch.randn(8, 20), "text": torch.randn(8, 14)}
    match = networks.labels.match_probability.double().numpy()
    modalities = ("image", "text")
    given = [getattr(networks.part, modality).double().numpy() for modality in modalities]
    made = [hard["image"].double().numpy(), hard["text"].double().numpy()]
    weights = [
        getattr(towers, modality).head[0].weight.detach().double().numpy()
        for modality in modalities
    ]
    shifts = [
        getattr(towers, modality).head[0].bias.detach().double().numpy() for modality in modalities
    ]

    def codes(inputs: list[np.ndarray], of: list[np.ndarray]) -> Codes:
        one, other = (np.tanh(x @ w.T + c) for x, w, c in zip(inputs, of, shifts, strict=True))
        return one, other

    before = codes(given, weights)

    def loss(of: list[np.ndarray]) -> float:
        (u, v), (hard_u, hard_v) = codes(given, of), codes(made, of)
        if term == "consistency":
            apart = ((hard_u - before[0]) ** 2).mean() + ((hard_v - before[1]) ** 2).mean()
            return float(apart) / 2
        if term == "hard":  # the natural codes are held fixed
            (fixed_u, fixed_v), queries = before, (hard_u, hard_v)
        else:
            (fixed_u, fixed_v), queries = (u, v), (u, v)
        there = loop_hash_loss(queries[0], fixed_v, fixed_u, match, config)
        back = loop_hash_loss(queries[1], fixed_u, fixed_v, match, config)
        return float(np.mean(there) + np.mean(back)) / 2

    terms = networks.hash(hard)
    assert terms[term] == pytest.approx(loss(weights), rel=1e-4)
    for place, modality in enumerate(modalities):
        moved = getattr(towers, modality).head[0].weight.detach().double().numpy() - weights[place]
        for entry in ((0, 0), (3, 5), (7, 13)):
            ends = []
            for by in (1e-5, -1e-5):
                shifted = [weight.copy() for weight in weights]
                shifted[place][entry] += by
                ends.append(loss(shifted))
            assert moved[entry] == pytest.approx(-(ends[0] - ends[1]) / 2e-5, rel=2e-3, abs=1e-5)


@pytest.mark.parametrize("rho", [0.0, 5.0])
def test_adversary_step_equals_gradient_by_hand(rho: float) -> None:
    """One of eight components is hidden, no rotation; only the last bias has a gradient."""
    networks = Networks(replace(PLAIN, area=1 / 8, angle=0.0))
    a, towers, config = networks.a, networks.h.towers, networks.config
    assert a.image.counts == a.text.counts == [0, 0, 1]
    match = networks.labels.match_probability
    natural = {"image": towers.image(networks.part.image), "text": towers.text(networks.part.text)}
    natural = {modality: codes.detach() for modality, codes in natural.items()}
    torch.manual_seed(3)
    expected = {}
    for modality, other in (("image", "text"), ("text", "image")):
        net, x = a.net(modality), getattr(networks.part, modality)  # type: ignore[arg-type]
        noise = -torch.empty(8, 8).exponential_().log()
        torch.randn(8, net.rotations)
        soft = torch.softmax(noise, dim=1)
        hidden = torch.nn.functional.one_hot(noise.argmax(1), 8).float()
        directions, mean = net.get_buffer("directions"), net.get_buffer("mean")
        parts = (x - mean) @ directions
        weight = towers.tower(modality).head[0].weight.detach()  # type: ignore[arg-type]
        shift = towers.tower(modality).head[0].bias.detach()  # type: ignore[arg-type]
        u = torch.tanh((x - (hidden * parts) @ directions.T) @ weight.T + shift)
        others = natural[other], natural[modality], match, config
        hard_loss = hash_loss(u, *others)
        natural_loss = hash_loss(natural[modality], *others)
        slope = torch.zeros_like(u)  # dL_i / du_i
        own = torch.eye(8)
        for codes, similar in ((natural[other], match), (natural[modality], match - own)):
            logits = config.slope * (u @ codes.T / K - config.middle)
            of_similar = similar / similar.sum(1, keepdim=True).clamp(min=1e-6)
            of_others = (1 - match) / (1 - match).sum(1, keepdim=True).clamp(min=1e-6)
            by_logit = of_others * torch.sigmoid(logits) - of_similar * torch.sigmoid(-logits)
            slope += by_logit / 2 / 2 @ codes * config.slope / K
        slope *= torch.sign(hard_loss.mean() - (1 + rho) * natural_loss.mean()) / 8 / 2
        by_input = (slope * (1 - u.square())) @ weight
        by_mask = -parts * (by_input @ directions)
        by_score = soft * (by_mask - (soft * by_mask).sum(1, keepdim=True))
        expected[modality] = by_score.sum(0)
    before = [weight.detach().clone() for weight in a.parameters()]
    torch.manual_seed(3)
    _, figures = networks.attack(rho)
    assert figures["target"] == 1 + rho
    for modality, gradient in expected.items():
        last = a.net(modality).last  # type: ignore[arg-type]
        assert isinstance(last, torch.nn.Linear)
        places = last.bias[-8 - a.net(modality).rotations :][:8]  # type: ignore[arg-type]
        torch.testing.assert_close(places.detach(), -gradient, rtol=1e-3, atol=1e-6)
    changed = [
        not torch.equal(one, other) for one, other in zip(before, a.parameters(), strict=True)
    ]
    assert any(changed)


def unchanged(networks: Networks, act: Callable[[], object], *, a: bool, h: bool) -> None:
    """Assert which of A-Net and H-Net ``act`` does not change."""
    kept = [[weight.detach().clone() for weight in one.parameters()] for one in both(networks)]
    act()
    same = [
        all(map(torch.equal, before, one.parameters()))
        for before, one in zip(kept, both(networks), strict=True)
    ]
    assert same == [a, h]


def both(networks: Networks) -> tuple[torch.nn.Module, torch.nn.Module]:
    return networks.a, networks.h


def test_each_step_changes_only_its_own_weights() -> None:
    networks = Networks(replace(PLAIN, hard=1.0))
    hard, _ = networks.attack(0.5)
    assert not any(made.requires_grad for made in hard.values())
    unchanged(networks, lambda: networks.attack(0.5), a=False, h=True)
    unchanged(networks, lambda: networks.hash(hard), a=True, h=False)
    assert all(weight.grad is None for weight in networks.h.average.parameters())


def test_random_adversary_changes_no_weights_and_is_logged() -> None:
    networks = Networks(replace(PLAIN, adversary="random"))
    unchanged(networks, lambda: networks.attack(0.5), a=True, h=True)
    _, figures = networks.attack(0.5)
    assert set(figures) == {"hardness", "target", "hardness error", "area", "angle"}
    assert figures["area"] == pytest.approx(2 / 8)  # of eight components
    assert figures["angle"] == pytest.approx(15)


@pytest.mark.parametrize("rho", [-0.5, 9.0])
def test_adversary_steps_move_hardness_towards_the_target(rho: float) -> None:
    networks = Networks(PLAIN, n=60)
    for _ in range(10):
        networks.hash(None)
    networks.a_optimiser = torch.optim.SGD(networks.a.parameters(), lr=0.0)
    start = np.mean([networks.attack(rho)[1]["hardness"] for _ in range(10)])
    networks.a_optimiser = torch.optim.AdamW(networks.a.parameters(), lr=5e-2)
    found = [networks.attack(rho)[1]["hardness"] for _ in range(30)]
    away = float(np.mean(found[-10:]) - start)
    assert abs(away) > 0.005
    assert (away > 0) == (rho > 0)


def test_update_average_is_an_exponential_moving_average() -> None:
    h = HNet(Towers(3, 3, K, kind="linear"))
    old = h.average.image.head[0].weight.clone()
    with torch.no_grad():
        h.towers.image.head[0].weight.add_(1.0)
    h.update_average(0.75)
    torch.testing.assert_close(h.average.image.head[0].weight, old + 0.25)
    h.update_average(0.0)
    torch.testing.assert_close(h.average.image.head[0].weight, old + 1.0)
    pixels = HNet(Towers(64 * 64 * 3, 3, K, hidden=4, raw_images=True))
    pixels.towers.image(torch.randint(0, 256, (4, 64 * 64 * 3), dtype=torch.uint8))
    pixels.update_average(0.5)  # batch counters are integers
    now, average = pixels.towers.state_dict(), pixels.average.state_dict()
    name = "image.stem.layers.1.num_batches_tracked"
    assert now[name] == average[name] == 1
