"""SCH-GAN as its authors released it, for comparison; each fault of the release is a setting.

Zhang, Peng, Yuan, "SCH-GAN: Semi-supervised cross-modal hashing by generative adversarial network",
arXiv 1802.02488.

Idea: see ``schgan``. Architecture, losses and schedule are those of the released program. Its
faults are corrected by default; ``Config.as_released`` and ``Config.with_faults`` reproduce them.

Departures from the release:

- A step has many queries that share a pool (``queries_per_step``); while one network is trained,
  the codes of the other are computed once for all items.
- Queries are the labelled pairs; if none is labelled, all pairs, with the natural pair as x+.
- The discriminator has one x+ a query, not one for each negative.
- Pretraining epochs are epochs of the run: they are validated, and one may be the best.

The cost of each fault is in benchmarks/results/schgan-faithful.md (Wikipedia, official protocol,
SIFT and LDA, 32 bits, mAP, mean of both directions). Two have a cost: no regularisation of bits
.060, pair labels of zero .016. The release's margin of 5 is better than the scaled one, by .015. No
fault of the generator costs more than .003.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import torch

from xmodal.device import device
from xmodal.encoders.towers import Towers
from xmodal.errors import ConfigError
from xmodal.modality import MODALITIES, Modality
from xmodal.training import policy
from xmodal.training.checkpoint import Stateful
from xmodal.training.methods.schgan_paper import losses as terms
from xmodal.training.methods.schgan_paper.config import Config
from xmodal.training.methods.schgan_paper.networks import (
    OTHER,
    Networks,
    all_codes,
    build_networks,
    class_shares_of_training,
    negative_weights,
    predict_class_shares,
    query_and_item_codes,
    query_batches,
    sample_positives,
    used_batches,
)
from xmodal.training.pairs import Pairs, TrainingPairs, batches, even_choice, sample_match
from xmodal.training.run import Run, TrainingData

Sums = dict[str, list[float]]
"""Figures of the steps of an epoch, by name."""


class SelectionQueries(TrainingData):
    """Training data whose validation pairs are the test queries: fault 5 of the release."""


def with_selection_queries(data: TrainingData, queries: Pairs, config: Config) -> TrainingData:
    """Return ``data``, with the test queries as validation pairs for ``best_epoch="queries"``."""
    if config.best_epoch == "validation":
        return data
    return SelectionQueries(data.train, queries, data.bits, data.raw_images)


def train(data: TrainingData, config: Config, run: Run) -> Towers:
    """Train towers: pretraining on labelled triplets, then both networks in turn."""
    if config.best_epoch == "queries" and not isinstance(run.data, SelectionQueries):
        raise ConfigError(
            "best_epoch is 'queries', which are not in the training data: only a benchmark can add "
            "them (with_selection_queries)"
        )
    with torch.random.fork_rng():
        run.rng(0)
        networks = build_networks(data, config)
        state: dict[str, Stateful] = {
            "d": networks.d,
            "g": networks.g,
            "d_steps": networks.d_optimiser,  # the names in checkpoints of earlier versions
            "g_steps": networks.g_optimiser,
        }
        count = config.pretraining + config.epochs
        for epoch in run.epochs(count, state, patience_from=config.pretraining):
            sums: Sums = defaultdict(list)
            outer = epoch - config.pretraining
            if outer < 1:
                drawn = 1 + (epoch - 1) // config.redraw * config.redraw
                triplets = draw_triplets(networks, run.rng(drawn))
                _pretrain(networks, triplets, sums, run.rng(epoch))
            else:
                rng, codes = run.rng(epoch), all_codes(networks, networks.d)
                for _ in range(config.generator_passes):
                    _generator_pass(networks, codes, outer, sums, rng)
                _discriminator_pass(networks, outer, sums, rng)
                sums |= _false_negatives(networks, data.validation.to(device()))
            run.log({name: float(np.mean(values)) for name, values in sums.items()})
            run.end_of_epoch(epoch, networks.d)
        return run.finish(networks.d)


# ---- pretraining -----------------------------------------------------------------------------


def draw_triplets(networks: Networks, rng: np.random.Generator) -> torch.Tensor:
    """Sample rows (query, x+, x-) of labelled pairs, (t, 3): ``config.triplets`` of each query.

    Queries without a labelled negative are left out.
    """
    known, drawn = networks.known, [torch.empty(0, 3, dtype=torch.long)]
    for rows in known.split(1024):
        match = networks.matches(rows, known)
        some = ~match.all(1)
        for _ in range(networks.config.triplets if bool(some.any()) else 0):
            positive = known[sample_match(match[some], rng)]
            negative = known[sample_match(~match[some], rng)]
            drawn.append(torch.stack([rows[some], positive, negative], dim=1).cpu())
    return torch.cat(drawn).to(known.device)


def _pretrain(
    networks: Networks, triplets: torch.Tensor, sums: Sums, rng: np.random.Generator
) -> None:
    """One epoch on triplets, both directions; the generator also has the class loss."""
    config, pairs = networks.config, networks.pairs
    _set_rate(networks.d_optimiser, config.pretraining_rate)
    _set_rate(networks.g_optimiser, config.pretraining_rate)
    if not len(triplets):
        return
    for part in used_batches(batches(len(triplets), config.pretraining_batch, rng), config):
        rows, positive, negative = triplets[part].T
        weight = torch.ones(len(rows), 1, device=rows.device)
        for modality in MODALITIES:
            items = torch.cat([positive, negative])
            u, v, _ = query_and_item_codes(networks.d, modality, networks, rows, items)
            near, far = v.split(len(rows))
            minus = terms.own_distances(u, far)[:, None]
            loss = _discriminator_loss(u, near, minus, weight, rows == positive, v, config)
            _step(networks.d_optimiser, loss, sums, "triplet")
            if not config.generator_pretraining:
                continue
            u, v, units = query_and_item_codes(networks.g.towers, modality, networks, rows, items)
            near, far = v.split(len(rows))
            plus, minus = terms.own_distances(u, near), terms.own_distances(u, far)[:, None]
            loss = terms.hinge(plus, minus, weight, config.beta(u.shape[1]))
            logits = networks.g.class_logits(OTHER[modality], units)
            loss = loss + terms.class_loss(
                logits, pairs.labels[items], pairs.labelled[items], config
            )
            _step(networks.g_optimiser, loss, sums, "policy triplet")


# ---- the generator ---------------------------------------------------------------------------


def _generator_pass(
    networks: Networks,
    codes: dict[Modality, torch.Tensor],
    outer: int,
    sums: Sums,
    rng: np.random.Generator,
) -> None:
    """The generator selects items for each query; its reward is from the discriminator's codes.

    ``codes``: the discriminator's codes of all training pairs, (n, K) of each modality.
    """
    config, pairs, g = networks.config, networks.pairs, networks.g
    _set_rate(networks.g_optimiser, config.generator_rate * config.decayed(outer))
    shares = class_shares_of_training(networks)
    for modality, rows, pool in query_batches(networks, rng):
        positive = sample_positives(networks, rows, rng)
        plus = terms.own_distances(codes[modality][rows], codes[OTHER[modality]][positive])
        minus = terms.distances(codes[modality][rows], codes[OTHER[modality]][pool])
        gap = config.beta(networks.d.bits) + plus[:, None] - minus
        weight = negative_weights(networks, rows, pool, shares)
        if config.false_negatives == "ignored":
            weight = torch.ones_like(weight)  # known matches are rejected later, not here
        reward = terms.rewards(gap, config.reward, terms.reward_width(gap, config)) * weight
        some = (weight > 0).any(1)
        if not bool(some.any()):
            continue
        u, v, units = query_and_item_codes(g.towers, modality, networks, rows, pool)
        log_p = policy.log_policy(terms.distances(u, v), weight > 0, 1.0)[some]
        picks = _picks(log_p, config.picks)
        loss = terms.selection_loss(log_p, reward[some], picks, config)
        taken = picks.flatten()
        logits = g.class_logits(OTHER[modality], units[taken])
        labels, known = pairs.labels[pool][taken], pairs.labelled[pool][taken]
        _step(
            networks.g_optimiser,
            loss + terms.class_loss(logits, labels, known, config),
            sums,
            "policy",
        )
        sums["reward"].append(float((log_p.detach().exp() * reward[some]).sum(1).mean()))
        sums["policy share"].append(float(policy.effective_share(log_p.detach())))


def _picks(log_p: torch.Tensor, count: int) -> torch.Tensor:
    """Sample candidates from the policy, (n, count), with replacement."""
    return torch.multinomial(log_p.detach().exp(), count, replacement=True)


# ---- the discriminator -----------------------------------------------------------------------


def _discriminator_pass(
    networks: Networks, outer: int, sums: Sums, rng: np.random.Generator
) -> None:
    """The hash network ranks x+ of each query above the generator's picks and random items."""
    config = networks.config
    rate = config.learning_rate * config.decayed(outer)
    codes, shares = all_codes(networks, networks.g.towers), class_shares_of_training(networks)
    for modality, rows, pool in query_batches(networks, rng):
        weight = negative_weights(networks, rows, pool, shares)
        rows, weight = rows[(weight > 0).any(1)], weight[(weight > 0).any(1)]
        if not len(rows):
            continue
        _set_rate(networks.d_optimiser, rate * len(rows))
        sums["learning rate"].append(rate * len(rows))
        between = terms.distances(codes[modality][rows], codes[OTHER[modality]][pool])
        picks = _picks(policy.log_policy(between, weight > 0, 1.0), config.picks)
        if config.random_negatives:
            evenly = torch.multinomial((weight > 0).float(), config.random_negatives, True)
            picks = torch.cat([picks, evenly], dim=1)
        positive = sample_positives(networks, rows, rng)
        items, places = torch.cat([positive, pool[picks].flatten()]).unique(return_inverse=True)
        u, v, _ = query_and_item_codes(networks.d, modality, networks, rows, items)
        near, far = places[: len(rows)], places[len(rows) :].view(picks.shape)
        minus = terms.distances(u, v).gather(1, far)
        loss = _discriminator_loss(
            u, v[near], minus, weight.gather(1, picks), rows == positive, v, config
        )
        _step(networks.d_optimiser, loss, sums, "triplet")


def _discriminator_loss(
    u: torch.Tensor,
    near: torch.Tensor,
    minus: torch.Tensor,
    weight: torch.Tensor,
    natural: torch.Tensor,
    v: torch.Tensor,
    config: Config,
) -> torch.Tensor:
    """Hinge, cross-entropy of pairs, and bit regulariser.

    Codes ``u`` of queries and ``near`` of their x+ (n, K); ``minus``, ``weight``: d- and weights
    (n, s); ``v`` (m, K): codes of all items of the other modality. lambda |w|^2 / 2 is the
    optimiser's weight decay.
    """
    plus = terms.own_distances(u, near)
    target = {
        "match": torch.ones_like(plus),
        "natural": natural.float(),
        "zero": torch.zeros_like(plus),
    }[config.pair_target]
    loss = terms.hinge(plus, minus, weight, config.beta(u.shape[1]))
    loss = loss + config.pair_weight * terms.pair_loss(plus, minus, weight, target)
    return loss + terms.bit_regulariser(u, config) + terms.bit_regulariser(v, config)


@torch.no_grad()
def _false_negatives(networks: Networks, validation: TrainingPairs) -> Sums:
    """Share of true matches among the negatives that the policy selects from validation pairs.

    The labels are hidden from the policy.
    """
    known = validation.labelled.nonzero().flatten()
    pairs = validation.take(known[even_choice(len(known), 1000).to(known.device)])
    if len(pairs) < 2 or not pairs.labels.shape[1]:
        return {}
    others = ~torch.eye(len(pairs), dtype=torch.bool, device=pairs.labels.device)
    same, weight = pairs.labels @ pairs.labels.T > 0, others.float()
    if networks.config.false_negatives == "estimated":
        known_shares = predict_class_shares(networks.g, pairs)
        predicted = predict_class_shares(networks.g, pairs, hidden=True)
        weight = weight * (1 - known_shares @ predicted.T).clamp(0, 1)
    u, v = networks.g.towers.image(pairs.image), networks.g.towers.text(pairs.text)
    false = []
    for between in (terms.distances(u, v), terms.distances(v, u)):
        taken = policy.log_policy(between, others, 1.0).exp() * weight
        false.append(float((taken * same).sum() / taken.sum().clamp(min=1e-9)))
    return {"false negatives": false}


def _set_rate(steps: torch.optim.Optimizer, rate: float) -> None:
    for group in steps.param_groups:
        group["lr"] = rate


def _step(steps: torch.optim.Optimizer, loss: torch.Tensor, sums: Sums, name: str) -> None:
    steps.zero_grad()
    loss.backward()
    steps.step()
    sums[name].append(float(loss.detach()))
