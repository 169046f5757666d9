"""SiGAH: Liu, "Sparse-inductive generative adversarial hashing for nearest neighbor search", arXiv
2306.06928, 2023. Of the paper only the abstract was at hand, so this is *a* method of its idea.

The idea. Given real-valued features are compressed to bits, without any label. Not the error of
quantisation is made small; what can be seen from Hamming space shall be distributed as the features
are. The generator makes a code of an item and synthetic features of the code; compressed sensing
ties these to the item's own. The discriminator is an auto-encoder: what it rebuilds badly is not
like the data.

    b = 1[Wx + c > 0]                                the code, as -1 and +1
    s = ReLU(U b + e),  x' = V s + f                 sparse code and synthetic features
    L_cs = |Phi x' - Phi x|^2 + mu |s|_1             Phi: fixed, random, Gaussian, d / 4 rows
    l(v) = |v - AE(v)|^2                             the judge's error
    L_D = l(x) - k l(x'),  L_G = l(x') + alpha L_cs
    k <- k + lambda_k (gamma l(x) - l(x'))           in [0, 1] (BEGAN: Berthelot et al., 2017)

Departures from the paper:
- All sizes, and the shape of what the abstract names: W starts as principal components turned by
  iterative quantisation; bits are passed straight through; s is the layer of ReLU units between the
  code and the features, and the columns of V are atoms of one length, or |s| could shrink for
  nothing. |.|^2 are means over the dimensions of features that were centred and scaled together to
  variance 1.
- Neighbours. Equal distributions alone keep no neighbours, and a decoder may rebuild an item from
  a code that is far from its neighbours' codes. So the distribution that is matched is also that of
  each item's neighbours: p(j|i), even over the nearest by cosine, against the softmax of Hamming
  distances. Neighbours come along in each step, or a random batch would hold hardly any.
- Bits shall be on half of the time and not repeat each other. Of pixels W sees 16 x 16 thumbnails.
- Two modalities. Natural pairs are contrasted and each side's code is decoded to both sides, whose
  auto-encoders judge apart, with a balance of their own. Neighbours are those in the space that
  both sides share (canonical correlation), where W starts, too.

Labels are not looked at, but for the choice of the epoch that every run makes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from xmodal import linear_models
from xmodal.config import check_at_least, check_at_most
from xmodal.device import device
from xmodal.index import MODALITIES, Modality
from xmodal.towers import Tower, Towers
from xmodal.training import losses
from xmodal.training import pairs as sampling
from xmodal.training import pseudo_labels as beliefs
from xmodal.training.critics import CodeCritic
from xmodal.training.methods.sigah.networks import Decoder, Judge, Scale
from xmodal.training.pairs import Pairs
from xmodal.training.run import Run, Stateful, TrainingData

STEPS = 8  # an epoch has as many, where items suffice
LANDMARKS = 20_000  # items that neighbours are looked for among
Features = dict[Modality, torch.Tensor]
"""Of each modality, (n, dim)."""


@dataclass(frozen=True)
class Config:
    """Settings; the defaults stand here and nowhere else."""

    epochs: int = 30
    batch: int = 256
    """Items a step that are decoded and judged; fewer where an epoch would have under 8 steps."""
    learning_rate: float = 1e-2
    """Of W and c, relative to their size at the start."""
    feature_dropout: float = 0.0
    """Share of the features that a training step hides from W."""

    adversary: bool = True
    """Whether the auto-encoder judges; without it L_G is alpha L_cs and the terms below."""
    alpha: float = 1.0
    """Weight of L_cs."""
    sparsity: float = 0.01
    """mu: weight of the mean of |s| inside L_cs."""
    units: int = 512
    """Of s."""
    judge_units: int = 128
    """The narrowest layer of the auto-encoder."""
    gamma: float = 0.5
    """The l(x') / l(x) that the balance aims at."""
    balance_rate: float = 1e-3
    """lambda_k."""
    player_rate: float = 1e-3
    """Learning rate of decoders and auto-encoders."""

    neighbours: float = 1.0
    """Weight of the distribution of neighbours."""
    nearest: int = 10
    """How many an item has."""
    company: int = 3
    """How many of them come along with each item of a step."""
    balance: float = 0.1
    decorrelate: float = 0.1

    pairs: float = 1.0
    """Weight of the contrast of natural pairs, where there are two modalities."""
    match_share: float = 0.3
    """How much of that contrast goes to neighbours, the rest to the natural pair."""
    temperature: float = 0.1
    """Of that contrast's softmax over code similarities, which lie in [-1, 1]."""
    directions: int = 64
    """Canonical directions of the space in which pairs are neighbours."""
    code_critic: float = 0.0
    """Weight of a critic that pushes codes towards fair coin flips."""

    def __post_init__(self) -> None:
        check_at_least(self, 1, "epochs", "units", "judge_units", "nearest", "company")
        check_at_least(self, 1, "directions")
        check_at_least(self, 2, "batch")
        weights = ("alpha", "sparsity", "neighbours", "balance", "decorrelate", "pairs")
        shares = ("feature_dropout", "match_share", "gamma", "balance_rate")
        check_at_least(self, 0, *weights, *shares, "code_critic")
        check_at_least(self, 1e-9, "learning_rate", "player_rate", "temperature")
        check_at_most(self, 1, *shares)


class Generator(nn.Module):
    """W and c of each modality (the towers), and what makes features of codes."""

    def __init__(self, towers: Towers, features: Features, config: Config) -> None:
        super().__init__()
        dims = {side: rows.shape[1] for side, rows in features.items()}
        self.towers = towers
        self.scales = nn.ModuleDict({side: Scale(rows) for side, rows in features.items()})
        self.decoders = nn.ModuleDict(
            {side: Decoder(towers.bits, dim, config.units) for side, dim in dims.items()}
        )
        self.sharpness = nn.Parameter(torch.tensor(10.0).log())

    def scale(self, side: Modality) -> Scale:
        """Of one modality."""
        return cast(Scale, self.scales[side])

    def codes(self, part: Features, dropout: float) -> Features:
        """Codes of -1 and +1 that pass gradients straight through, (n, bits) of each modality."""
        hidden = {side: functional.dropout(rows, dropout) for side, rows in part.items()}
        return {
            side: losses.sign_through(torch.tanh(self.towers.tower(side).head(rows)))
            for side, rows in hidden.items()
        }


def _generator_step(
    g: Generator,
    d: nn.ModuleDict,
    critic: CodeCritic | None,
    steps: torch.optim.Optimizer,
    part: Features,
    near: torch.Tensor,
    decoded: int,
    config: Config,
) -> tuple[dict[str, float], Features, Features]:
    """One step of W, c and the decoders; ``near`` (n, n) bool: who is whose neighbour.

    The first ``decoded`` rows of ``part`` are decoded and judged. Returns losses, and the real and
    the synthetic features of each modality.
    """
    d.requires_grad_(False)
    codes = g.codes(part, config.feature_dropout)
    real = {side: g.scale(side)(rows[:decoded]) for side, rows in part.items()}
    fake: Features = {}
    parts: dict[str, list[torch.Tensor]] = defaultdict(list)
    for side, x in real.items():
        made = [g.decoders[side](b[:decoded]) for b in codes.values()]  # each code makes both sides
        fake[side] = torch.cat([features for features, _ in made])
        sensing = g.scale(side).sensing
        parts["sensing"] += [config.alpha * sensing(features, x) for features, _ in made]
        parts["sparsity"] += [config.alpha * config.sparsity * s.mean() for _, s in made]
        if config.adversary:
            parts["judged"].append(d[side](fake[side]))
    for u in codes.values():
        kept = losses.neighbours(u, near, g.sharpness.exp())
        parts["neighbours"].append(config.neighbours * kept)
        bits = config.balance * losses.balance(u) + config.decorrelate * losses.decorrelation(u)
        parts["bits"].append(bits)
    if len(codes) == 2:
        targets = _targets(near, config)
        contrast = losses.contrast(
            codes["image"], codes["text"], (targets, targets), config.temperature
        )
        parts["pairs"].append(config.pairs * contrast)
    if critic is not None:
        every = torch.cat(list(codes.values()))
        critic.learn(every)
        parts["critic"].append(config.code_critic * critic.term(every))
    terms = {name: torch.stack(values).mean() for name, values in parts.items()}
    steps.zero_grad()
    torch.stack(list(terms.values())).sum().backward()
    steps.step()
    figures = {name: float(value.detach()) for name, value in terms.items()}
    return figures, real, {side: rows.detach() for side, rows in fake.items()}


def _discriminator_step(
    d: nn.ModuleDict,
    steps: torch.optim.Optimizer,
    real: Features,
    fake: Features,
    config: Config,
) -> dict[str, float]:
    """One step of the auto-encoders, and of their balance."""
    d.requires_grad_(True)
    steps.zero_grad()
    figures: dict[str, list[float]] = defaultdict(list)
    for side, x in real.items():
        judge = cast(Judge, d[side])
        on_real, on_fake = judge(x), judge(fake[side])
        (on_real - judge.k * on_fake).backward()
        told, made = float(on_real.detach()), float(on_fake.detach())
        judge.follow(told, made, config.gamma, config.balance_rate)
        figures["real error"].append(told)
        figures["k"].append(float(judge.k))
        figures["convergence"].append(told + abs(config.gamma * told - made))
    steps.step()
    return {name: float(np.mean(values)) for name, values in figures.items()}


def train(data: TrainingData, config: Config, run: Run) -> Towers:
    """Train linear towers of both modalities on natural pairs."""
    return _train(data, config, run, MODALITIES)


def train_one(data: TrainingData, config: Config, run: Run) -> Towers:
    """Train on one modality, which both sides of ``data`` hold; both towers returned are one."""
    return _train(data, config, run, ("image",))


def _train(data: TrainingData, config: Config, run: Run, sides: Sequence[Modality]) -> Towers:
    with torch.random.fork_rng():
        run.rng(0)
        towers = data.towers(1, kind="linear")
        if len(sides) == 1:
            towers.text = towers.image
        cpu: Features = {side: _seen(towers.tower(side), data.train, side) for side in sides}
        pairs = replace(data.train, **cpu)
        place = _start(towers, pairs, cpu, config, np.random.default_rng(run.seed))
        nearest = _nearest(place, config.nearest)
        g = Generator(towers, cpu, config).to(device())
        d = nn.ModuleDict()
        if config.adversary:
            for side, rows in cpu.items():
                d[side] = Judge(rows.shape[1], config.judge_units)
            d.to(device())
        critic = CodeCritic(data.bits).to(device()) if config.code_critic else None
        rates = _rates(g, config)
        g_steps = torch.optim.Adam([{"params": p, "lr": rate} for p, rate in rates])
        state: dict[str, Stateful] = {"g": g, "g_steps": g_steps}
        if config.adversary:
            d_steps = torch.optim.Adam(d.parameters(), lr=config.player_rate)
            state |= {"d": d, "d_steps": d_steps}
        if critic is not None:
            state |= critic.state("critic")
        features = {side: rows.to(device()) for side, rows in cpu.items()}
        n = len(place)
        batch = max(2, min(config.batch, n // STEPS))
        for epoch in run.epochs(config.epochs, state):
            rng = run.rng(epoch)
            for group, (_, rate) in zip(g_steps.param_groups, rates, strict=True):
                group["lr"] = rate * _schedule(epoch, config)
            for items in sampling.batches(n, batch, rng):
                rows = sampling.with_company(items, nearest, config.company, rng)
                near = sampling.neighbours_among(nearest, rows).to(device())
                part = {side: one[rows] for side, one in features.items()}
                terms, real, fake = _generator_step(
                    g, d, critic, g_steps, part, near, len(items), config
                )
                if config.adversary:
                    run.note(_discriminator_step(d, d_steps, real, fake, config))
                run.note(terms)
            run.end_of_epoch(epoch, towers)
        return run.finish(towers)


def _seen(tower: Tower, pairs: Pairs, side: Modality) -> torch.Tensor:
    """What W is applied to: features, and of pixels thumbnails."""
    rows: torch.Tensor = getattr(pairs, side)
    return torch.cat([tower.vectors(some) for some in rows.split(1024)])


def _start(
    towers: Towers, pairs: Pairs, features: Features, config: Config, rng: np.random.Generator
) -> torch.Tensor:
    """Set W and c to ITQ's; returns where each item lies, (n, r), by which it has neighbours."""
    x = {side: rows.numpy() for side, rows in features.items()}
    fit = sampling.even_choice(len(pairs), beliefs.ENOUGH).numpy()
    image = x["image"]
    if "text" in x:
        text = x["text"]
        projections = linear_models.cca(image[fit], text[fit], towers.bits)
        believe = beliefs.learn(pairs, directions=config.directions, tell_unlabelled=False)
        place = believe(pairs).place
    else:
        text = image[:0]  # nothing beside the images to fit the rotation on
        project = linear_models.pca(image[fit], towers.bits)
        projections = linear_models.Projections(project, project)
        place = features["image"]
    turned = linear_models.itq(image[fit], text[fit] if len(text) else text, projections, rng=rng)
    for side in features:
        project = turned.image if side == "image" else turned.text
        weight, offset = linear_models.affine(project, x[side].shape[1])
        spread = max(float(np.std(project(x[side][fit]))), 1e-12)  # tanh bends at 1
        layer = cast(nn.Linear, towers.tower(side).head[0])
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(weight.T / spread))
            layer.bias.copy_(torch.from_numpy(offset / spread))
    return place


def _nearest(place: torch.Tensor, k: int) -> torch.Tensor:
    """The rows of the ``k`` nearest of each of n items by cosine, itself left out: (n, <= k)."""
    among = sampling.even_choice(len(place), LANDMARKS)
    own = torch.full((len(place),), -1)
    own[among] = torch.arange(len(among))
    x = place.cpu().numpy()
    return among[torch.from_numpy(linear_models.nearest(x, x[among.numpy()], k, own=own.numpy()))]


def _targets(near: torch.Tensor, config: Config) -> torch.Tensor:
    """What a row of the contrast of pairs should be: its own pair, and its neighbours evenly."""
    alone = torch.diag(~near.any(1))
    return losses.match_targets((near | alone).float(), config.match_share)


def _rates(g: Generator, config: Config) -> list[tuple[Sequence[nn.Parameter], float]]:
    """Parameters and their learning rates: W's follows the scale of the features it is for."""
    towers = list(g.towers.parameters())
    ids = {id(one) for one in towers}
    others = [one for one in g.parameters() if id(one) not in ids and one is not g.sharpness]
    rates: list[tuple[Sequence[nn.Parameter], float]] = []
    for one in towers:  # W and c; c moves a relaxed code of spread 1 as it is
        size = max(float(one.detach().square().mean().sqrt()), 1e-3) if one.ndim > 1 else 1.0
        rates.append(([one], config.learning_rate * size))
    return [*rates, ([g.sharpness], config.learning_rate), (others, config.player_rate)]


def _schedule(epoch: int, config: Config) -> float:
    """Learning rate over the epochs: a cosine from 1 to a twentieth."""
    part = (epoch - 1) / max(1, config.epochs - 1)
    return float(0.05 + 0.475 * (1 + np.cos(np.pi * part)))
