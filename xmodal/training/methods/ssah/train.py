"""SSAH, self-paced: Jin et al., "SSAH: Semi-supervised adversarial deep hashing with self-paced
hard sample generation", AAAI 2020, arXiv 1911.08688 (not the cross-modal SSAH of CVPR 2018).

Idea: A-Net makes hard samples of real items: it hides blocks of several sizes and rotates the rest.
Its adversary is H-Net, the hash network, which is trained on similar and dissimilar pairs of
natural and hard items. The target difficulty of A-Net grows during training. An item and its hard
sample should have the same code, which also trains on items without labels.

Departures from the paper, of which only the abstract was available:

- A-Net minimises |L_H(hard) - (1 + rho) L_H(natural)|, means over the batch, and rho grows with the
  epoch: an adversary that maximises the loss erases the object. (With this loss per item most hard
  samples are easy.) The number of hidden cells and the set of angles are fixed for each batch, so
  ``adversary="random"`` hides and rotates exactly as much. A-Net's scores are bounded.
- Blocks: Gumbel noise on A-Net's scores, the best place of each block in turn, straight-through.
  Angles: assigned in the order of A-Net's scores, straight-through.
- Of feature vectors principal components are hidden, because single features are redundant. The
  rotation of image features is around their mean, in random fixed planes of two components, by one
  angle for each group of planes. Text features are not rotated.
- Two modalities: L_H has pairs across and within them. The logit is a share of the bits with a
  middle, similar and dissimilar pairs have the same weight, and unlabelled pairs are weighted by
  their match probability (``pseudo_labels``). H-Net also has the shared objective (``objective``):
  contrastive pairs, neighbours of uncertain pairs, regularised bits.
- The target of a hard sample's code is the natural code of a moving average of H-Net. Only a part
  of each batch has hard samples, for speed.
"""

from __future__ import annotations

import math
from collections import defaultdict

import torch

from xmodal.device import device
from xmodal.encoders.towers import Towers
from xmodal.modality import MODALITIES, Modality
from xmodal.training import objective
from xmodal.training.checkpoint import Stateful
from xmodal.training.critics import CodeCritic
from xmodal.training.methods.ssah.config import Config
from xmodal.training.methods.ssah.losses import hash_loss, target_hardness
from xmodal.training.methods.ssah.networks import PIXELS, ANets, HNet
from xmodal.training.objective import ForwardPass, Terms
from xmodal.training.pairs import Pairs, TrainingPairs, even_choice
from xmodal.training.pseudo_labels import PseudoLabels, label_pairs
from xmodal.training.run import Run, TrainingData

SHEET_PICTURES, SHEETS = 10, 5
"""Pictures on a sheet of hard samples, and sheets of a run."""
ByModality = dict[Modality, torch.Tensor]
"""A tensor of each modality."""


def _adversary_step(
    a: ANets,
    towers: Towers,
    optimiser: torch.optim.Optimizer,
    part: Pairs,
    labels: PseudoLabels,
    config: Config,
    rho: float,
) -> tuple[ByModality, dict[str, float]]:
    """Make hard samples; one step of A-Net towards L_H(hard) = (1 + rho) L_H(natural).

    Random hard samples have no step, but the same figures.
    """
    towers.eval()
    learned, match = config.adversary == "learned", labels.match_probability
    with torch.no_grad():
        natural: ByModality = {"image": towers.image(part.image), "text": towers.text(part.text)}
    hard: ByModality = {}
    error, figures = torch.zeros((), device=match.device), defaultdict[str, float](float)
    with torch.set_grad_enabled(learned):
        for modality, other in (MODALITIES, MODALITIES[::-1]):
            net, inputs = a.net(modality), part.image if modality == "image" else part.text
            hard[modality], hidden, angles = net(inputs, learned)
            others = natural[other], natural[modality], match, config
            natural_loss = hash_loss(natural[modality], *others)
            hard_loss = hash_loss(towers.tower(modality)(hard[modality]), *others)
            error = error + (hard_loss.mean() - (1 + rho) * natural_loss.mean()).abs() / 2
            figures["natural"] += float(natural_loss.mean())
            figures["hard"] += float(hard_loss.detach().mean())
            figures["area"] += float(hidden.detach().mean()) / 2
            if net.rotations:
                figures["angle"] = math.degrees(float(angles.detach().abs().mean()))
    if error.requires_grad:
        optimiser.zero_grad()
        error.backward(inputs=list(a.parameters()))
        optimiser.step()
    hardness = figures.pop("hard") / max(figures.pop("natural"), 1e-9)
    figures |= {"hardness": hardness, "target": 1 + rho, "hardness error": float(error.detach())}
    return {modality: made.detach() for modality, made in hard.items()}, dict(figures)


def _hash_step(
    h: HNet,
    critic: CodeCritic | None,
    optimiser: torch.optim.Optimizer,
    part: Pairs,
    labels: PseudoLabels,
    hard: ByModality | None,
    config: Config,
) -> dict[str, float]:
    """One step of H-Net on natural pairs and on the hard samples of the first of them, if any."""
    h.towers.train()
    n, match = len(part), labels.match_probability
    images, texts = part.image, part.text
    if hard is not None:  # one batch, so that batch normalisation is the same for both
        images, texts = torch.cat([images.float(), hard["image"]]), torch.cat([texts, hard["text"]])
    u, v = ForwardPass.of(h.towers, images, texts).codes
    (u, hard_u), (v, hard_v) = (u[:n], u[n:]), (v[:n], v[n:])
    terms: Terms = {}
    if config.likelihood:
        both = hash_loss(u, v, u, match, config) + hash_loss(v, u, v, match, config)
        terms["likelihood"] = config.likelihood * both.mean() / 2
    if hard is not None and config.hard:
        fixed = u.detach(), v.detach()
        first = match[: len(hard_u)]
        both = hash_loss(hard_u, fixed[1], fixed[0], first, config)
        both = both + hash_loss(hard_v, *fixed, first, config)
        terms["hard"] = config.hard * both.mean() / 2
    if hard is not None and config.consistency:
        with torch.no_grad():
            m = len(hard_u)
            targets = h.average.image(part.image[:m]), h.average.text(part.text[:m])
        error = (hard_u - targets[0]).square().mean() + (hard_v - targets[1]).square().mean()
        terms["consistency"] = config.consistency * error / 2
    terms |= objective.alignment_losses((u, v), labels, config)
    terms["bits"] = objective.bit_regulariser((u, v), config)
    figures: dict[str, float] = {}
    if critic is not None:
        codes = torch.cat([u, v])
        figures["code distance"] = critic.update_on(codes)
        terms["code critic"] = config.code_critic * critic.generator_loss(codes)
    return figures | objective.update(h.towers, optimiser, terms)


def train(data: TrainingData, config: Config, run: Run) -> Towers:
    """Train towers, A-Net and H-Net in turn; return those of the best epoch."""
    with torch.random.fork_rng():
        run.rng(0)
        pairs = data.train.to(device())
        labels = label_pairs(objective.fit_pseudo_labeller(data, config), pairs)
        h = HNet(data.towers(config.hidden, config.feature_dropout)).to(device())
        a = ANets(data, config).to(device())
        h_optimiser = objective.hash_optimiser(h.towers, config)
        a_optimiser = torch.optim.AdamW(a.parameters(), lr=config.adversary_rate)
        state: dict[str, Stateful] = {"h": h, "a": a}
        state |= {"h_optimiser": h_optimiser, "a_optimiser": a_optimiser}
        critic = CodeCritic(data.bits).to(device()) if config.code_critic else None
        if critic is not None:
            state |= critic.state("critic")
        for epoch in run.epochs(config.epochs, state):
            rng = run.rng(epoch)
            warm = epoch > config.warmup
            objective.set_learning_rate(h_optimiser, config, epoch)
            for rows in objective.batches(len(pairs), config, rng):
                part, part_labels = pairs.take(rows), labels.take(rows)
                hard = None
                if warm and config.adversary != "none":
                    some = rows[: math.ceil(config.share * len(rows))]
                    first, rho = (
                        (pairs.take(some), labels.take(some)),
                        target_hardness(epoch, config),
                    )
                    hard, figures = _adversary_step(a, h.towers, a_optimiser, *first, config, rho)
                    run.log(figures)
                run.log(_hash_step(h, critic, h_optimiser, part, part_labels, hard, config))
                h.update_average(config.ema_decay if warm else 0.0)
            run.end_of_epoch(epoch, h.towers)
            if data.raw_images and warm and config.adversary != "none":
                _sheet(a, pairs, config, run, epoch)
        return run.finish(h.towers)


@torch.no_grad()
def _sheet(a: ANets, pairs: TrainingPairs, config: Config, run: Run, epoch: int) -> None:
    """Save some pictures and their hard samples, every few epochs and in the last one."""
    if epoch % max(1, config.epochs // SHEETS) and epoch != config.epochs:
        return
    flat = pairs.image[even_choice(len(pairs), SHEET_PICTURES)]
    made, _, _ = a.image(flat, config.adversary == "learned")
    rows = [
        one.reshape(-1, PIXELS, PIXELS, 3).clamp(0, 255).byte().cpu().numpy()
        for one in (flat, made)
    ]
    run.sheet("hard", epoch, rows)
