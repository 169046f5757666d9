"""The generator of SCH-GAN as a policy over candidate captions of pictures without captions.

Idea (Zhang, Peng, Yuan, arXiv 1802.02488): the generator selects items of the other modality by a
softmax policy, and learns by policy gradient from a reward of the discriminator. Departures from
the paper: it selects positives, not negatives, among the nearest captions, and begins as the rule
"soft". The discriminator is a pair of towers that were trained on a part of the pairs. The reward
of a chosen pair is what the contrast of the other pairs gains, to first order, when the codes of
the pair attract each other and move those of similar held-out items. The gradient is REINFORCE with
a leave-one-out baseline.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional

from xmodal.encoders.torch_encoder import as_tensor
from xmodal.encoders.towers import Towers
from xmodal.features.rows import Array
from xmodal.features.units import Units
from xmodal.features.unpaired import Unpaired
from xmodal.training.methods.contrastive.selection import BLOCK_ROWS, Embedded, Pool
from xmodal.training.methods.contrastive.unpaired import Choice, UnpairedConfig
from xmodal.training.pairs import batches
from xmodal.training.policy import Policy, reinforce_objective

EPOCHS, BATCH, RATE, PICKS, ENTROPY = 20, 256, 1e-3, 8, 0.01
"""Training of the policy: passes over the pictures, pictures a step, learning rate, samples a
picture, and weight of the entropy."""
SHARPNESS = 20.0
"""Sharpness of the kernel of frozen features between unpaired and held-out items."""


def policy_choice(
    teachers: Sequence[Towers],
    scout: Towers,
    held_out: Units,
    unpaired: Unpaired,
    config: UnpairedConfig,
    rng: np.random.Generator,
) -> Choice:
    """Train the policy and draw captions by it.

    ``teachers`` give the candidates; ``scout``: towers that ``held_out`` was not trained on.
    """
    pool = Pool.of(Embedded.of(teachers, unpaired))
    reward = by_picture(gains(scout, held_out, unpaired, pool, config.unpaired_temperature))
    probability = learn(unpaired, pool, reward, config.unpaired_temperature, rng)
    return pool.draw(probability, rng)


def gains(
    scout: Towers, held_out: Units, unpaired: Unpaired, pool: Pool, temperature: float
) -> torch.Tensor:
    """Return what the contrast of held-out pairs gains by each candidate, (p, k)."""
    image_row, text_row = held_out.caption_pairs()
    unit = torch.from_numpy(held_out.unit_of_rows("text"))
    image, text = held_out.image[image_row], held_out.text[text_row]
    own = Embedded.of([scout], Unpaired(image, text))
    logits = own.image @ own.text.T / temperature
    other = (unit[:, None] == unit) & ~torch.eye(len(unit), dtype=torch.bool)
    logits = logits.masked_fill(other, -torch.inf)
    # Minus the gradients of the contrast by the codes of the held-out pictures and captions.
    to_text = own.text - torch.softmax(logits, dim=1) @ own.text
    to_image = own.image - torch.softmax(logits.T, dim=1) @ own.image
    moved_text = _smooth(unpaired.image, image, to_text)
    moved_image = _smooth(unpaired.text, text, to_image)
    codes = Embedded.of([scout], unpaired)
    parts = []
    for rows in torch.arange(len(pool.rows)).split(BLOCK_ROWS):
        near = pool.rows[rows]
        gain = torch.einsum("bk,bnk->bn", moved_text[rows], codes.text[near])
        parts.append(gain + torch.einsum("bk,bnk->bn", codes.image[rows], moved_image[near]))
    return torch.cat(parts)


def by_picture(gain: torch.Tensor) -> torch.Tensor:
    """Return gains (p, k) as rewards with mean 0 and deviation 1 for each picture."""
    centred = gain - gain.mean(1, keepdim=True)
    return centred / centred.std(1, keepdim=True).clamp(min=1e-6)


def learn(
    unpaired: Unpaired,
    pool: Pool,
    reward: torch.Tensor,
    temperature: float,
    rng: np.random.Generator,
) -> torch.Tensor:
    """Train a policy on rewards (p, k); return its probabilities of the candidates, (p, k)."""
    policy = Policy(unpaired.image.shape[1], unpaired.text.shape[1])
    optimiser = torch.optim.AdamW(policy.parameters(), lr=RATE)
    prior = torch.log_softmax(pool.similarity / temperature, dim=1)
    pictures = len(pool.rows)
    for _ in range(EPOCHS):
        for rows in batches(pictures, BATCH, rng):
            log_p = _log_policy(policy, unpaired, pool, prior, rows, temperature)
            noise = torch.from_numpy(rng.gumbel(size=(PICKS, *log_p.shape))).float()
            picks = (log_p.detach() + noise).argmax(2).T
            loss = reinforce_objective(log_p, reward[rows], picks, ENTROPY)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    with torch.no_grad():
        parts = [
            _log_policy(policy, unpaired, pool, prior, rows, temperature).exp()
            for rows in torch.arange(pictures).split(BLOCK_ROWS)
        ]
    return torch.cat(parts)


def _log_policy(
    policy: Policy,
    unpaired: Unpaired,
    pool: Pool,
    prior: torch.Tensor,
    rows: torch.Tensor,
    temperature: float,
) -> torch.Tensor:
    """Return the log-probabilities of the candidates of some pictures, (b, k)."""
    near = pool.rows[rows].numpy()
    image = torch.tanh(policy.image(as_tensor(unpaired.image[rows.numpy()])))
    text = torch.tanh(policy.text(as_tensor(unpaired.text[near.ravel()])))
    text = text.view(*near.shape, -1)
    distances = (image[:, None] - text).square().sum(2) / (4 * image.shape[1])
    return torch.log_softmax(prior[rows] - distances / temperature, dim=1)


def _smooth(queries: Array, items: Array, values: torch.Tensor) -> torch.Tensor:
    """Return means of values (h, K) by the similarity of features, (n, d) and (h, d) -> (n, K)."""
    searched = functional.normalize(as_tensor(items).float(), dim=1)
    parts = []
    for start in range(0, len(queries), BLOCK_ROWS):
        block = as_tensor(queries[start : start + BLOCK_ROWS]).float()
        similarity = functional.normalize(block, dim=1) @ searched.T
        parts.append(torch.softmax(SHARPNESS * similarity, dim=1) @ values)
    return torch.cat(parts)
