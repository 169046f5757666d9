"""SiGAH: Liu, "Sparse-inductive generative adversarial hashing for nearest neighbor search", arXiv
2306.06928, 2023. Only the abstract of the paper was available; this is a method of the same idea.

Idea: real-valued features are compressed to bits without labels. The objective is not the
quantisation error but the distribution of the features: the generator makes a code of an item and
synthetic features of the code; compressed sensing keeps these near the item's features. The
discriminator is an autoencoder with a large reconstruction error for features unlike the data.

    b = 1[Wx + c > 0]                                the code, as -1 and +1
    s = ReLU(U b + e),  x' = V s + f                 sparse code and synthetic features
    L_cs = |Phi x' - Phi x|^2 + mu |s|_1             Phi: fixed, random, Gaussian, d / 4 rows
    l(v) = |v - AE(v)|^2                             reconstruction error of the autoencoder
    L_D = l(x) - k l(x'),  L_G = l(x') + alpha L_cs
    k <- k + lambda_k (gamma l(x) - l(x'))           in [0, 1] (BEGAN: Berthelot et al., 2017)

Departures from the paper:

- All sizes and architectures. W is initialised with principal components rotated by iterative
  quantisation; bits have a straight-through gradient; s is a layer of ReLU units between the code
  and the features, and the columns of V have a fixed norm, so that |s| has a scale. |.|^2 are means
  over the dimensions of features that were centred and scaled together to variance 1.
- Neighbours. Matching distributions does not preserve neighbours by itself, and a decoder can
  reconstruct an item from a code far from the codes of its neighbours. So the distribution of
  neighbours is matched, too: p(j|i), uniform over the nearest by cosine, with the softmax of
  Hamming distances. Neighbours are added to each step, because a random batch has few of them.
- Bits are regularised: balanced and uncorrelated. The input of W for pixels is a 16 x 16 thumbnail.
- Two modalities. Natural pairs are contrasted, and the code of each modality is decoded to both,
  with a discriminator and a balance for each. Neighbours are those in the space that both
  modalities share (canonical correlation), which also initialises W.

Labels are used only to select the best epoch, as in every run.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import numpy as np
import torch
from torch import nn

from xmodal import linear_models
from xmodal.device import device
from xmodal.encoders.towers import Tower, Towers
from xmodal.modality import MODALITIES, Modality
from xmodal.training import losses, pseudo_labels
from xmodal.training.checkpoint import Stateful
from xmodal.training.critics import CodeCritic
from xmodal.training.methods.sigah.config import Config
from xmodal.training.methods.sigah.networks import AutoencoderDiscriminator, Features, Generator
from xmodal.training.objective import MIN_STEPS_PER_EPOCH, values
from xmodal.training.pairs import Pairs, add_neighbours, batches, even_choice, neighbour_matrix
from xmodal.training.run import Run, TrainingData

MAX_PAIRS = 200_000
"""Pairs, evenly chosen, that the linear maps are trained on."""
MAX_NEIGHBOUR_CANDIDATES = 20_000
"""Items among which neighbours are searched."""


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
    """One step of W, c and the decoders; ``near`` (n, n) bool: neighbours among the rows.

    The first ``decoded`` rows of ``part`` are decoded and scored by ``d``. Returns the loss terms,
    and the real and the synthetic features of each modality.
    """
    d.requires_grad_(False)
    codes = g.codes(part, config.feature_dropout)
    real = {modality: g.standardiser(modality)(rows[:decoded]) for modality, rows in part.items()}
    fake: Features = {}
    parts: dict[str, list[torch.Tensor]] = defaultdict(list)
    for modality, x in real.items():
        made = [g.decoders[modality](b[:decoded]) for b in codes.values()]  # from both modalities
        fake[modality] = torch.cat([features for features, _ in made])
        sensing = g.standardiser(modality).sensing_loss
        parts["sensing"] += [config.alpha * sensing(features, x) for features, _ in made]
        parts["sparsity"] += [config.alpha * config.sparsity * s.mean() for _, s in made]
        if config.adversary:
            parts["discriminator"].append(d[modality](fake[modality]))
    for u in codes.values():
        embedding = losses.neighbour_embedding(u, near, g.sharpness.exp())
        parts["neighbours"].append(config.neighbours * embedding)
        bits = config.balance * losses.balance(u) + config.decorrelate * losses.decorrelation(u)
        parts["bits"].append(bits)
    if len(codes) == 2:
        targets = _contrastive_targets(near, config)
        loss = losses.contrastive_loss(
            codes["image"], codes["text"], (targets, targets), config.temperature
        )
        parts["pairs"].append(config.pairs * loss)
    if critic is not None:
        both = torch.cat(list(codes.values()))
        critic.update_on(both)
        parts["critic"].append(config.code_critic * critic.generator_loss(both))
    terms = {name: torch.stack(several).mean() for name, several in parts.items()}
    steps.zero_grad()
    torch.stack(list(terms.values())).sum().backward()
    steps.step()
    return values(terms), real, {modality: rows.detach() for modality, rows in fake.items()}


def _discriminator_step(
    d: nn.ModuleDict,
    steps: torch.optim.Optimizer,
    real: Features,
    fake: Features,
    config: Config,
) -> dict[str, float]:
    """One step of the autoencoders and of their balance."""
    d.requires_grad_(True)
    steps.zero_grad()
    figures: dict[str, list[float]] = defaultdict(list)
    for modality, x in real.items():
        discriminator = cast(AutoencoderDiscriminator, d[modality])
        real_loss, fake_loss = discriminator(x), discriminator(fake[modality])
        (real_loss - discriminator.k * fake_loss).backward()
        on_real, on_fake = float(real_loss.detach()), float(fake_loss.detach())
        discriminator.update_balance(on_real, on_fake, config.gamma, config.balance_rate)
        figures["real error"].append(on_real)
        figures["k"].append(float(discriminator.k))
        figures["convergence"].append(on_real + abs(config.gamma * on_real - on_fake))
    steps.step()
    return {name: float(np.mean(several)) for name, several in figures.items()}


def train(data: TrainingData, config: Config, run: Run) -> Towers:
    """Train linear towers of both modalities on natural pairs; return those of the best epoch."""
    return _train(data, config, run, MODALITIES)


def train_unimodal(data: TrainingData, config: Config, run: Run) -> Towers:
    """Train on pairs of each row with itself; both towers that are returned are the same module."""
    return _train(data, config, run, ("image",))


def _train(data: TrainingData, config: Config, run: Run, modalities: Sequence[Modality]) -> Towers:
    with torch.random.fork_rng():
        run.rng(0)
        towers = data.towers(1, kind="linear")
        if len(modalities) == 1:
            towers.text = towers.image
        train = data.train.take(even_choice(len(data.train), MAX_PAIRS))
        cpu: Features = {
            modality: _inputs(towers.tower(modality), train, modality) for modality in modalities
        }
        pairs = replace(train, **cpu)
        embedding = _initialise(towers, pairs, cpu, config, np.random.default_rng(run.seed))
        nearest = _nearest(embedding, config.nearest)
        g = Generator(towers, cpu, config).to(device())
        d = nn.ModuleDict()
        if config.adversary:
            for modality, rows in cpu.items():
                d[modality] = AutoencoderDiscriminator(rows.shape[1], config.discriminator_units)
            d.to(device())
        critic = CodeCritic(data.bits).to(device()) if config.code_critic else None
        rates = _learning_rates(g, config)
        g_optimiser = torch.optim.Adam([{"params": p, "lr": rate} for p, rate in rates])
        state: dict[str, Stateful] = {"g": g, "g_optimiser": g_optimiser}
        if config.adversary:
            d_optimiser = torch.optim.Adam(d.parameters(), lr=config.network_rate)
            state |= {"d": d, "d_optimiser": d_optimiser}
        if critic is not None:
            state |= critic.state("critic")
        features = {modality: rows.to(device()) for modality, rows in cpu.items()}
        n = len(embedding)
        batch = max(2, min(config.batch, n // MIN_STEPS_PER_EPOCH))
        for epoch in run.epochs(config.epochs, state):
            rng = run.rng(epoch)
            for group, (_, rate) in zip(g_optimiser.param_groups, rates, strict=True):
                group["lr"] = rate * _learning_rate_factor(epoch, config)
            for items in batches(n, batch, rng):
                rows = add_neighbours(items, nearest, config.neighbours_per_item, rng)
                near = neighbour_matrix(nearest, rows).to(device())
                part = {modality: one[rows] for modality, one in features.items()}
                terms, real, fake = _generator_step(
                    g, d, critic, g_optimiser, part, near, len(items), config
                )
                if config.adversary:
                    run.log(_discriminator_step(d, d_optimiser, real, fake, config))
                run.log(terms)
            run.end_of_epoch(epoch, towers)
        return run.finish(towers)


def _inputs(tower: Tower, pairs: Pairs, modality: Modality) -> torch.Tensor:
    """Inputs of W, (n, width): features, for pixels thumbnails."""
    rows: torch.Tensor = getattr(pairs, modality)
    return torch.cat([tower.vectors(some) for some in rows.split(1024)])


def _initialise(
    towers: Towers, pairs: Pairs, features: Features, config: Config, rng: np.random.Generator
) -> torch.Tensor:
    """Set W and c to those of ITQ; return the embedding (n, r) whose neighbours are preserved."""
    x = {modality: rows.numpy() for modality, rows in features.items()}
    fit = even_choice(len(pairs), pseudo_labels.MAX_FIT_ROWS).numpy()
    image = x["image"]
    if "text" in x:
        text = x["text"]
        projections = linear_models.cca(image[fit], text[fit], towers.bits)
        labeller = pseudo_labels.fit(pairs, directions=config.directions, label_unlabelled=False)
        embedding = labeller(pairs).embedding
    else:
        text = image[:0]  # the rotation is fitted to one modality
        project = linear_models.pca(image[fit], towers.bits)
        projections = linear_models.Projections(project, project)
        embedding = features["image"]
    rotated = linear_models.itq(image[fit], text[fit] if len(text) else text, projections, rng=rng)
    for modality in features:
        project = rotated.image if modality == "image" else rotated.text
        weight, offset = linear_models.affine(project, x[modality].shape[1])
        deviation = max(float(np.std(project(x[modality][fit]))), 1e-12)  # inputs of tanh
        layer = cast(nn.Linear, towers.tower(modality).head[0])
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(weight.T / deviation))
            layer.bias.copy_(torch.from_numpy(offset / deviation))
    return embedding


def _nearest(embedding: torch.Tensor, k: int) -> torch.Tensor:
    """Rows of the ``k`` nearest other items of each of n items by cosine, (n, <= k)."""
    candidates = even_choice(len(embedding), MAX_NEIGHBOUR_CANDIDATES)
    own = torch.full((len(embedding),), -1)
    own[candidates] = torch.arange(len(candidates))
    x = embedding.cpu().numpy()
    found = linear_models.nearest(x, x[candidates.numpy()], k, own=own.numpy())
    return candidates[torch.from_numpy(found)]


def _contrastive_targets(near: torch.Tensor, config: Config) -> torch.Tensor:
    """Contrastive targets (n, n): the natural pair, and the neighbours with equal shares."""
    alone = torch.diag(~near.any(1))
    return losses.contrastive_targets((near | alone).float(), config.match_share)


def _learning_rates(g: Generator, config: Config) -> list[tuple[Sequence[nn.Parameter], float]]:
    """Parameters and their learning rates; the rate of W is relative to its root mean square."""
    towers = list(g.towers.parameters())
    ids = {id(one) for one in towers}
    others = [one for one in g.parameters() if id(one) not in ids and one is not g.sharpness]
    rates: list[tuple[Sequence[nn.Parameter], float]] = []
    for one in towers:  # W and c; c is added to inputs of tanh with deviation 1
        size = max(float(one.detach().square().mean().sqrt()), 1e-3) if one.ndim > 1 else 1.0
        rates.append(([one], config.learning_rate * size))
    return [*rates, ([g.sharpness], config.learning_rate), (others, config.network_rate)]


def _learning_rate_factor(epoch: int, config: Config) -> float:
    """Factor of the learning rates: a cosine from 1 to 0.05."""
    part = (epoch - 1) / max(1, config.epochs - 1)
    return float(0.05 + 0.475 * (1 + np.cos(np.pi * part)))
