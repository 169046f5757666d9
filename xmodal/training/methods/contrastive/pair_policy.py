"""The generator of SCH-GAN as a policy that keeps or leaves out given pairs.

Idea (Zhang, Peng, Yuan, arXiv 1802.02488): the generator selects by a policy, and learns by policy
gradient from a reward of the discriminator. Departures from the paper: it selects among given
pairs, has two actions a pair, and begins as the rule "two-networks". The discriminator is a pair
of towers that were not trained on the pair. The reward of a kept pair is what the contrast of
held-out pairs gains by it, minus what it gains by random pairs, as logarithm of a ratio of
likelihoods: with gains of standard deviation 1, of mean m for right pairs and 0 for wrong ones, it
is m (gain - m / 2). The reward of a pair that is left out is 0. The policy maximises the reward
minus its divergence (KL) from the rule. The held-out pairs are some that the rule keeps: a contrast
of pairs that are often wrong is too large for towers that are certain of the right ones, and would
lose by right pairs. The gradient is REINFORCE with a leave-one-out baseline.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional

from xmodal.encoders.torch_encoder import as_tensor
from xmodal.encoders.towers import Towers
from xmodal.features.rows import Int64
from xmodal.features.units import Bool, Units
from xmodal.features.unpaired import Unpaired
from xmodal.training.methods.contrastive.belief import Float64
from xmodal.training.methods.contrastive.generator import BATCH, EPOCHS, PICKS, RATE, gains
from xmodal.training.methods.contrastive.noise import KEPT_FROM, without_captions
from xmodal.training.methods.contrastive.selection import BLOCK_ROWS, Pool
from xmodal.training.pairs import batches, even_choice
from xmodal.training.policy import Policy, reinforce_objective

CERTAIN = 0.01
"""Probabilities of the rule are at least so far from 0 and 1 where the policy begins."""
HELD_OUT = 1000
"""Held-out units of a reward, at most."""


def policy_belief(
    units: Units,
    belief: Float64,
    half: Int64,
    scouts: Sequence[Towers],
    temperature: float,
    rng: np.random.Generator,
) -> Float64:
    """Return the probabilities with which a policy keeps the pairs of ``units``, (c,).

    ``belief`` (c,): probabilities of the rule, where the policy begins. ``half`` (c,): number of
    the scout that was trained on the pair.
    """
    torch.manual_seed(int(rng.integers(2**31)))
    gain, kept = torch.zeros(len(half)), belief >= KEPT_FROM
    for number in (0, 1):
        found = pair_gains(units, half == number, kept, scouts[1 - number], temperature, rng)
        gain[torch.from_numpy(half == number)] = found
    image, text = units.caption_pairs()
    pairs = Unpaired(units.image[image], units.text[text])
    return learn_pairs(pairs, belief, gain, temperature, rng)


def pair_gains(
    units: Units,
    judged: Bool,
    kept: Bool,
    scout: Towers,
    temperature: float,
    rng: np.random.Generator,
) -> torch.Tensor:
    """Return what held-out pairs gain by each of the captions ``judged`` (c,), (m,).

    Gains are in standard deviations of those by random pairs, whose mean is 0. The held-out pairs
    are the judged ones of other units that the rule keeps, ``kept`` (c,); without any, gains are 0.
    """
    image_of, side_of = units.caption_pairs()[0], np.arange(len(units)) // 2 % 2
    of_caption = side_of[units.unit_of_rows("text")]
    gain = torch.zeros(len(judged))
    for side in (0, 1):
        others = units.take(np.flatnonzero(side_of != side))
        held_out = without_captions(others, ~(judged & kept)[of_caption != side])
        held_out = held_out.take(even_choice(len(held_out), HELD_OUT).numpy())
        text = np.flatnonzero(judged & (of_caption == side))
        if not (len(held_out) and len(text)):
            continue
        candidates = Unpaired(units.image[image_of[text]], units.text[text])
        own, random = torch.arange(len(text)), torch.from_numpy(rng.permutation(len(text)))
        pool = Pool(torch.stack([own, random], dim=1), torch.zeros(len(text), 2))
        found = gains(scout, held_out, candidates, pool, temperature)
        deviation = found[:, 1].std().clamp(min=1e-6)
        gain[torch.from_numpy(text)] = (found[:, 0] - found[:, 1].mean()) / deviation
    return gain[torch.from_numpy(judged)]


def learn_pairs(
    pairs: Unpaired,
    belief: Float64,
    gain: torch.Tensor,
    temperature: float,
    rng: np.random.Generator,
) -> Float64:
    """Train a policy on the gains (c,) of pairs; return the probabilities of keeping them, (c,).

    ``belief`` (c,): probabilities of the rule.
    """
    policy = Policy(pairs.image.shape[1], pairs.text.shape[1])
    optimiser = torch.optim.AdamW(policy.parameters(), lr=RATE)
    prior = torch.logit(torch.from_numpy(belief).float(), CERTAIN)
    reward = torch.stack([_log_ratio(gain, belief), torch.zeros(len(gain))], dim=1)
    # With an entropy of weight 1 these are minus the divergence from the rule.
    reward += functional.logsigmoid(torch.stack([prior, -prior], dim=1))
    for _ in range(EPOCHS):
        for rows in batches(len(gain), BATCH, rng):
            log_p = _log_policy(policy, pairs, prior, rows, temperature)
            noise = torch.from_numpy(rng.gumbel(size=(PICKS, *log_p.shape))).float()
            picks = (log_p.detach() + noise).argmax(2).T
            loss = reinforce_objective(log_p, reward[rows], picks, entropy_weight=1)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    with torch.no_grad():
        parts = [
            _log_policy(policy, pairs, prior, rows, temperature)[:, 0].exp()
            for rows in torch.arange(len(gain)).split(BLOCK_ROWS)
        ]
    return torch.cat(parts).double().numpy()


def _log_ratio(gain: torch.Tensor, belief: Float64) -> torch.Tensor:
    """Return the logarithms of likelihood ratios, right to wrong, (c,); 0 without kept pairs."""
    kept = torch.from_numpy(belief >= KEPT_FROM)
    mean = gain[kept].mean().clamp(min=0) if kept.any() else torch.zeros(())
    return mean * (gain - mean / 2)


def _log_policy(
    policy: Policy, pairs: Unpaired, prior: torch.Tensor, rows: torch.Tensor, temperature: float
) -> torch.Tensor:
    """Return the log-probabilities of keeping and of leaving out some pairs, (b, 2)."""
    places = rows.numpy()
    image = torch.tanh(policy.image(as_tensor(pairs.image[places])))
    text = torch.tanh(policy.text(as_tensor(pairs.text[places])))
    near = (image - text).square().sum(1)
    random = (image - text.roll(1, dims=0)).square().sum(1).mean()
    logit = prior[rows] + (random - near) / (4 * image.shape[1] * temperature)
    return functional.logsigmoid(torch.stack([logit, -logit], dim=1))
