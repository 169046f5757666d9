"""SSAH, self-paced: Jin et al., "SSAH: Semi-supervised adversarial deep hashing with self-paced
hard sample generation", AAAI 2020, arXiv 1911.08688 (not the cross-modal SSAH of CVPR 2018).

The idea. A-Net makes hard samples of real ones: it hides blocks of several sizes and turns what is
left, and is in competition with H-Net, the hash network, which learns from pairs of items that are
similar or not, natural and hard ones. The difficulty that A-Net aims at is raised gradually. A
sample and its hard version should get the same code, which teaches from items without labels too.

Departures from the paper, of which only the abstract is public, all of them ours:

- A-Net minimises |L_H(hard) - (1 + rho) L_H(natural)|, means over the batch, and rho grows with
  the epoch: an adversary that only wants to be hard erases the object. (Item by item it would make
  most of them easy, to be sure that few are too hard.) How much it hides and how far it turns is
  not its choice: every item loses the same number of cells, and every batch shares out the same
  angles. So ``adversary="random"`` hides and turns exactly as much, only elsewhere. Its scores are
  bounded, so that it goes on trying.
- Which blocks: Gumbel noise on A-Net's scores, the best place of each block in turn, straight
  through. Which angle: the batch's angles, dealt in the order of A-Net's scores, straight through.
- Of feature vectors, of images or of texts, principal components are hidden; single features say
  too much of each other to make anything hard. For turning stands a rotation of image features
  around their mean, in random planes of two components that are drawn once, by an angle for each
  group of planes. Texts are not turned.
- Two modalities: L_H counts pairs across and within them. The logit is a share of the bits with a
  middle, similar and dissimilar pairs weigh the same, and unlabelled pairs count by what both of
  their sides suggest (``beliefs``). H-Net also contrasts natural pairs, keeps neighbours of pairs
  whose class is in doubt, and keeps bits binary, balanced and decorrelated.
- The code of a hard sample follows that of the natural one by a moving average of H-Net. A part
  of each batch, another one every time, gets hard samples: with all of it, time goes there.
"""

from __future__ import annotations

import copy
import math
from collections import defaultdict
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from xmodal.config import check_at_least, check_at_most
from xmodal.device import device
from xmodal.index import MODALITIES, Modality
from xmodal.towers import Towers
from xmodal.training import losses
from xmodal.training import objective as groundwork
from xmodal.training import pairs as sampling
from xmodal.training.critics import CodeCritic
from xmodal.training.methods.ssah.networks import PIXELS, ANet, FeatureANet, PixelANet
from xmodal.training.objective import Groundwork, Terms
from xmodal.training.pairs import Pairs
from xmodal.training.pseudo_labels import Beliefs
from xmodal.training.run import Run, Stateful, TrainingData

SHOWN, SHEETS = 10, 5
"""Pictures on a sheet of hard samples, and how many sheets a run leaves."""


Sides = dict[Modality, torch.Tensor]
"""Something of each modality."""


@dataclass(frozen=True, kw_only=True)
class Config(Groundwork):
    """Settings."""

    epochs: int = 16

    adversary: Literal["learned", "random", "none"] = "learned"
    """Who says where to hide and how to turn: A-Net, chance (as much of both), or nobody."""
    area: float = 1 / 3
    """Share of the cells that are hidden, at most 1/3."""
    angle: float = 30.0
    """The largest angle in degrees, at most 30; those of a batch are spread evenly below it."""
    hardness: float = 0.3
    """rho at the end of training: how much harder a hard sample should be than the natural one."""
    pace: float = 0.8
    """Part of the training in which rho grows to that; 0: it is there at once."""
    adversary_rate: float = 1e-2
    warmup: int = 2
    """Epochs before there are hard samples."""
    share: float = 0.4
    """Part of each batch of which hard samples are made; batches are drawn anew every epoch."""
    hard: float = 1.5
    """Weight of L_H of hard samples."""
    consistency: float = 1.0
    """Weight of |u(hard) - u'(natural)|^2 / K, u' by the moving average."""
    average: float = 0.95
    """How much of the moving average a step keeps."""

    likelihood: float = 3.0
    """Weight of L_H, the likelihood of who is similar to whom."""
    slope: float = 10.0
    """Of the logit slope * (similarity - middle); similarities lie in [-1, 1]."""
    middle: float = 0.5
    """The similarity of codes at which two items are as likely similar as not."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 0, "hardness", "warmup", "hard", "consistency", "likelihood")
        check_at_least(self, 0, "area", "angle", "average", "pace")
        check_at_least(self, 1e-9, "adversary_rate", "slope")
        check_at_least(self, 0.01, "share")
        check_at_most(self, 1, "average", "pace", "share", "middle")
        check_at_least(self, -1, "middle")
        check_at_most(self, 1 / 3, "area")
        check_at_most(self, 30, "angle")


# ---- losses ----------------------------------------------------------------------------------


def hash_loss(
    asking: torch.Tensor,
    across: torch.Tensor,
    within: torch.Tensor,
    agreement: torch.Tensor,
    config: Config,
) -> torch.Tensor:
    """L_H of each item, (m,): mean of the pairwise loss across and within modalities.

    ``asking`` (m, K): codes of the first m items, (m, n) ``agreement`` with all; ``across`` and
    ``within`` (n, K): the natural codes of the other modality and its own, where nobody is paired
    with itself.
    """
    own = torch.eye(*agreement.shape, device=agreement.device)
    both = [
        losses.pair_likelihood(
            config.slope * (asking @ codes.T / codes.shape[1] - config.middle),
            similar,
            1 - agreement,
        )
        for codes, similar in ((across, agreement), (within, agreement - own))
    ]
    return torch.stack(both).mean(0)


def rho(epoch: int, config: Config) -> float:
    """How much harder hard samples should be in an epoch: growing evenly, then constant."""
    grown = min(1.0, epoch / max(1.0, config.pace * config.epochs))
    return config.hardness * grown


# ---- the two players -------------------------------------------------------------------------


class Adversary(nn.Module):
    """A-Net of each modality."""

    def __init__(self, data: TrainingData, config: Config) -> None:
        super().__init__()
        most, train = math.radians(config.angle), data.train
        self.image: ANet
        if data.raw_images:
            self.image = PixelANet(config.area, most)
        else:
            self.image = FeatureANet(train.image, config.area, most, turns=True)
        self.text: ANet = FeatureANet(train.text, config.area, most, turns=False)

    def net(self, side: Modality) -> ANet:
        """A-Net of one modality."""
        return self.image if side == "image" else self.text


class HNet(nn.Module):
    """The towers, and their moving average, which no gradient reaches."""

    def __init__(self, towers: Towers) -> None:
        super().__init__()
        self.towers = towers
        self.average = copy.deepcopy(towers).requires_grad_(False).eval()

    @torch.no_grad()
    def follow(self, kept: float) -> None:
        """Move the average towards the towers; ``kept``: how much of it stays."""
        now = self.towers.state_dict()
        for name, value in self.average.state_dict().items():
            if value.is_floating_point():
                value.lerp_(now[name], 1 - kept)
            else:  # how many batches a layer has seen
                value.copy_(now[name])


def _adversary_step(
    a: Adversary,
    towers: Towers,
    steps: torch.optim.Optimizer,
    part: Pairs,
    belief: Beliefs,
    config: Config,
    aim: float,
) -> tuple[Sides, dict[str, float]]:
    """Make hard samples; one step of A-Net towards L_H(hard) = (1 + aim) L_H(natural).

    Chance takes no step, but its samples are measured in the same way.
    """
    towers.eval()
    learned, agreement = config.adversary == "learned", belief.agreement
    with torch.no_grad():
        natural: Sides = {"image": towers.image(part.image), "text": towers.text(part.text)}
    hard: Sides = {}
    missed, figures = torch.zeros((), device=agreement.device), defaultdict[str, float](float)
    with torch.set_grad_enabled(learned):
        for side, other in (MODALITIES, MODALITIES[::-1]):
            net, inputs = a.net(side), part.image if side == "image" else part.text
            hard[side], hidden, angles = net(inputs, learned)
            others = natural[other], natural[side], agreement, config
            easy = hash_loss(natural[side], *others)
            reached = hash_loss(towers.tower(side)(hard[side]), *others)
            missed = missed + (reached.mean() - (1 + aim) * easy.mean()).abs() / 2
            figures["easy"] += float(easy.mean())
            figures["reached"] += float(reached.detach().mean())
            figures["area"] += float(hidden.detach().mean()) / 2
            if net.turns:
                figures["angle"] = math.degrees(float(angles.detach().abs().mean()))
    if missed.requires_grad:
        steps.zero_grad()
        missed.backward(inputs=list(a.parameters()))
        steps.step()
    hardness = figures.pop("reached") / max(figures.pop("easy"), 1e-9)
    figures |= {"hardness": hardness, "target": 1 + aim, "missed": float(missed.detach())}
    return {side: made.detach() for side, made in hard.items()}, dict(figures)


def _hash_step(
    h: HNet,
    critic: CodeCritic | None,
    steps: torch.optim.Optimizer,
    part: Pairs,
    belief: Beliefs,
    hard: Sides | None,
    config: Config,
) -> dict[str, float]:
    """One step of H-Net on natural pairs and, where there are any, hard samples of the first."""
    h.towers.train()
    n, agreement = len(part), belief.agreement
    images, texts = part.image, part.text
    if hard is not None:  # in one batch, so that both are normalised alike
        images, texts = torch.cat([images.float(), hard["image"]]), torch.cat([texts, hard["text"]])
    u, v = h.towers.image(images), h.towers.text(texts)
    (u, hard_u), (v, hard_v) = (u[:n], u[n:]), (v[:n], v[n:])
    terms: Terms = {}
    if config.likelihood:
        both = hash_loss(u, v, u, agreement, config) + hash_loss(v, u, v, agreement, config)
        terms["likelihood"] = config.likelihood * both.mean() / 2
    if hard is not None and config.hard:
        fixed = u.detach(), v.detach()
        asked = agreement[: len(hard_u)]
        both = hash_loss(hard_u, fixed[1], fixed[0], asked, config)
        both = both + hash_loss(hard_v, *fixed, asked, config)
        terms["hard"] = config.hard * both.mean() / 2
    if hard is not None and config.consistency:
        with torch.no_grad():
            m = len(hard_u)
            wanted = h.average.image(part.image[:m]), h.average.text(part.text[:m])
        apart = (hard_u - wanted[0]).square().mean() + (hard_v - wanted[1]).square().mean()
        terms["consistency"] = config.consistency * apart / 2
    terms |= groundwork.meaning(u, v, belief, config)
    terms["bits"] = groundwork.bit_term(u, v, config)
    figures: dict[str, float] = {}
    if critic is not None:
        codes = torch.cat([u, v])
        figures["apart from coin flips"] = critic.learn(codes)
        terms["code critic"] = config.code_critic * critic.term(codes)
    return figures | groundwork.update(h.towers, steps, terms)


def train(data: TrainingData, config: Config, run: Run) -> Towers:
    """Train towers; the alternation of both players is this page."""
    with torch.random.fork_rng():
        run.rng(0)
        pairs = data.train.to(device())
        beliefs = groundwork.believer(data, config)(pairs)
        h = HNet(data.towers(config.hidden, config.feature_dropout)).to(device())
        a = Adversary(data, config).to(device())
        h_steps = groundwork.optimiser(h.towers, config)
        a_steps = torch.optim.AdamW(a.parameters(), lr=config.adversary_rate)
        state: dict[str, Stateful] = {"h": h, "a": a, "h_steps": h_steps, "a_steps": a_steps}
        critic = CodeCritic(data.bits).to(device()) if config.code_critic else None
        if critic is not None:
            state |= critic.state("critic")
        for epoch in run.epochs(config.epochs, state):
            rng = run.rng(epoch)
            begun = epoch > config.warmup
            groundwork.set_rate(h_steps, config, epoch)
            for rows in groundwork.batches(len(pairs), config, rng):
                part, belief = pairs.take(rows), beliefs.take(rows)
                hard = None
                if begun and config.adversary != "none":
                    some, aim = rows[: math.ceil(config.share * len(rows))], rho(epoch, config)
                    first = pairs.take(some), beliefs.take(some)
                    hard, figures = _adversary_step(a, h.towers, a_steps, *first, config, aim)
                    run.note(figures)
                run.note(_hash_step(h, critic, h_steps, part, belief, hard, config))
                h.follow(config.average if begun else 0.0)
            run.end_of_epoch(epoch, h.towers)
            if data.raw_images and begun and config.adversary != "none":
                _sheet(a, pairs, config, run, epoch)
        return run.finish(h.towers)


@torch.no_grad()
def _sheet(a: Adversary, pairs: Pairs, config: Config, run: Run, epoch: int) -> None:
    """Every few epochs and in the last: some pictures, and hard samples of them below."""
    if epoch % max(1, config.epochs // SHEETS) and epoch != config.epochs:
        return
    flat = pairs.image[sampling.even_choice(len(pairs), SHOWN)]
    made, _, _ = a.image(flat, config.adversary == "learned")
    rows = [
        one.reshape(-1, PIXELS, PIXELS, 3).clamp(0, 255).byte().cpu().numpy()
        for one in (flat, made)
    ]
    run.sheet("hard", epoch, rows)
