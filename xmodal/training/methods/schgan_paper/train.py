"""The faithful mode of SCH-GAN: the released program, with each of its faults as a switch.

Its purpose is comparison. Architecture, losses and schedule are the release's; what was wrong in it
is corrected unless ``Config.as_released`` or ``Config.with_faults`` says otherwise.

Departures, all of them ours:

- Steps of many queries that share a pool (``queries_per_step``); while one player learns, the codes
  of the other are computed once for all items.
- Queries are the labelled pairs; where none is labelled, all, with their own other half as x+.
- The discriminator gets one x+ a query, not one for each negative.
- Pretraining epochs count as epochs of the run: they are validated, and one may be the best.

What each fault costs stands in benchmarks/results/schgan-faithful.md (Wikipedia, official protocol,
SIFT and LDA, 32 bits, mAP, mean of both directions). Two cost something: bits that are left alone
.060, pair labels of zero .016. The release's margin of 5 is better than the scaled one, by .015. No
fault of the generator costs more than .003: whatever it picks, the codes hardly change.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import torch

from xmodal.device import device
from xmodal.errors import ConfigError
from xmodal.index import MODALITIES, Modality
from xmodal.towers import Towers
from xmodal.training import pairs as sampling
from xmodal.training import policy as reinforce
from xmodal.training.methods.schgan_paper import losses as terms
from xmodal.training.methods.schgan_paper.config import FAULTS, Config
from xmodal.training.methods.schgan_paper.networks import (
    OTHER,
    Players,
    all_beliefs,
    all_codes,
    asked,
    class_beliefs,
    codes_of,
    face_to_face,
    positives,
    used,
    weights,
)
from xmodal.training.pairs import Pairs
from xmodal.training.run import Run, Stateful, TrainingData

__all__ = ["FAULTS", "ChosenByQueries", "Config", "selected_by", "train"]

Sums = dict[str, list[float]]


class ChosenByQueries(TrainingData):
    """Training data whose validation pairs are the test queries: fault 5 of the release."""


def selected_by(data: TrainingData, queries: Pairs, config: Config) -> TrainingData:
    """What the run shall choose its epoch by: ``data``'s validation, or, as released, queries."""
    if config.best_epoch == "validation":
        return data
    return ChosenByQueries(data.train, queries, data.bits, data.raw_images)


def train(data: TrainingData, config: Config, run: Run) -> Towers:
    """Train towers: pretraining on labelled triplets, then both players in turn."""
    if config.best_epoch == "queries" and not isinstance(run.data, ChosenByQueries):
        raise ConfigError(
            "best_epoch is 'queries', which training does not see: only a benchmark can hand them "
            "in (selected_by)"
        )
    with torch.random.fork_rng():
        run.rng(0)
        players = face_to_face(data, config)
        state: dict[str, Stateful] = {
            "d": players.d,
            "g": players.g,
            "d_steps": players.d_steps,
            "g_steps": players.g_steps,
        }
        count = config.pretraining + config.epochs
        for epoch in run.epochs(count, state, sure=config.pretraining):
            sums: Sums = defaultdict(list)
            outer = epoch - config.pretraining
            if outer < 1:
                drawn = 1 + (epoch - 1) // config.redraw * config.redraw
                triplets = draw_triplets(players, run.rng(drawn))
                _pretrain(players, triplets, sums, run.rng(epoch))
            else:
                rng, codes = run.rng(epoch), all_codes(players, players.d)
                for _ in range(config.generator_passes):
                    _generator_pass(players, codes, outer, sums, rng)
                _discriminator_pass(players, outer, sums, rng)
                sums |= _false_negatives(players, data.validation.to(device()))
            run.note({name: float(np.mean(values)) for name, values in sums.items()})
            run.end_of_epoch(epoch, players.d)
        return run.finish(players.d)


# ---- pretraining -----------------------------------------------------------------------------


def draw_triplets(players: Players, rng: np.random.Generator) -> torch.Tensor:
    """Rows (query, x+, x-) of labelled pairs, (t, 3): ``config.triplets`` of each query.

    Queries to which nothing labelled is a negative are left out.
    """
    known, drawn = players.known, [torch.empty(0, 3, dtype=torch.long)]
    for rows in known.split(1024):
        match = players.matches(rows, known)
        some = ~match.all(1)
        for _ in range(players.config.triplets if bool(some.any()) else 0):
            positive = known[sampling.one_match(match[some], rng)]
            negative = known[sampling.one_match(~match[some], rng)]
            drawn.append(torch.stack([rows[some], positive, negative], dim=1).cpu())
    return torch.cat(drawn).to(known.device)


def _pretrain(
    players: Players, triplets: torch.Tensor, sums: Sums, rng: np.random.Generator
) -> None:
    """One epoch on triplets, both directions; the generator learns from them too, and classes."""
    config, pairs = players.config, players.pairs
    _set_rate(players.d_steps, config.pretraining_rate)
    _set_rate(players.g_steps, config.pretraining_rate)
    if not len(triplets):
        return
    for part in used(sampling.batches(len(triplets), config.pretraining_batch, rng), config):
        rows, positive, negative = triplets[part].T
        sure = torch.ones(len(rows), 1, device=rows.device)
        for way in MODALITIES:
            items = torch.cat([positive, negative])
            u, v, _ = codes_of(players.d, way, players, rows, items)
            near, far = v.split(len(rows))
            minus = terms.own_distances(u, far)[:, None]
            loss = _discriminator_loss(u, near, minus, sure, rows == positive, v, config)
            _step(players.d_steps, loss, sums, "triplet")
            if not config.generator_pretraining:
                continue
            u, v, units = codes_of(players.g.towers, way, players, rows, items)
            near, far = v.split(len(rows))
            plus, minus = terms.own_distances(u, near), terms.own_distances(u, far)[:, None]
            loss = terms.hinge(plus, minus, sure, config.beta(u.shape[1]))
            logits = players.g.class_logits(OTHER[way], units)
            loss = loss + terms.class_loss(
                logits, pairs.labels[items], pairs.labelled[items], config
            )
            _step(players.g_steps, loss, sums, "policy triplet")


# ---- the generator ---------------------------------------------------------------------------


def _generator_pass(
    players: Players,
    codes: dict[Modality, torch.Tensor],
    outer: int,
    sums: Sums,
    rng: np.random.Generator,
) -> None:
    """The generator picks for every query and learns from what the discriminator says of it.

    ``codes``: the discriminator's, of all training pairs.
    """
    config, pairs, g = players.config, players.pairs, players.g
    _set_rate(players.g_steps, config.generator_rate * config.decayed(outer))
    belief = all_beliefs(players)
    for way, rows, pool in asked(players, rng):
        positive = positives(players, rows, rng)
        plus = terms.own_distances(codes[way][rows], codes[OTHER[way]][positive])
        minus = terms.distances(codes[way][rows], codes[OTHER[way]][pool])
        gap = config.beta(players.d.bits) + plus[:, None] - minus
        weight = weights(players, rows, pool, belief)
        if config.false_negatives == "ignored":
            weight = torch.ones_like(weight)  # known matches are rejected later, not here
        reward = terms.rewards(gap, config.reward, terms.reward_width(gap, config)) * weight
        some = (weight > 0).any(1)
        if not bool(some.any()):
            continue
        u, v, units = codes_of(g.towers, way, players, rows, pool)
        log_p = reinforce.log_policy(terms.distances(u, v), weight > 0, 1.0)[some]
        picks = _picks(log_p, config.picks)
        loss = terms.selection_loss(log_p, reward[some], picks, config)
        taken = picks.flatten()
        logits = g.class_logits(OTHER[way], units[taken])
        labels, known = pairs.labels[pool][taken], pairs.labelled[pool][taken]
        _step(
            players.g_steps, loss + terms.class_loss(logits, labels, known, config), sums, "policy"
        )
        sums["reward"].append(float((log_p.detach().exp() * reward[some]).sum(1).mean()))
        sums["policy uses"].append(float(reinforce.effective_share(log_p.detach())))


def _picks(log_p: torch.Tensor, count: int) -> torch.Tensor:
    """Candidates drawn from the policy, (n, count), with replacement."""
    return torch.multinomial(log_p.detach().exp(), count, replacement=True)


# ---- the discriminator -----------------------------------------------------------------------


def _discriminator_pass(players: Players, outer: int, sums: Sums, rng: np.random.Generator) -> None:
    """The hash network ranks x+ of every query above the generator's picks and random items."""
    config = players.config
    rate = config.learning_rate * config.decayed(outer)
    codes, belief = all_codes(players, players.g.towers), all_beliefs(players)
    for way, rows, pool in asked(players, rng):
        weight = weights(players, rows, pool, belief)
        rows, weight = rows[(weight > 0).any(1)], weight[(weight > 0).any(1)]
        if not len(rows):
            continue
        _set_rate(players.d_steps, rate * len(rows))
        sums["learning rate"].append(rate * len(rows))
        between = terms.distances(codes[way][rows], codes[OTHER[way]][pool])
        picks = _picks(reinforce.log_policy(between, weight > 0, 1.0), config.picks)
        if config.random_negatives:
            evenly = torch.multinomial((weight > 0).float(), config.random_negatives, True)
            picks = torch.cat([picks, evenly], dim=1)
        positive = positives(players, rows, rng)
        items, places = torch.cat([positive, pool[picks].flatten()]).unique(return_inverse=True)
        u, v, _ = codes_of(players.d, way, players, rows, items)
        near, far = places[: len(rows)], places[len(rows) :].view(picks.shape)
        minus = terms.distances(u, v).gather(1, far)
        loss = _discriminator_loss(
            u, v[near], minus, weight.gather(1, picks), rows == positive, v, config
        )
        _step(players.d_steps, loss, sums, "triplet")


def _discriminator_loss(
    u: torch.Tensor,
    near: torch.Tensor,
    minus: torch.Tensor,
    weight: torch.Tensor,
    natural: torch.Tensor,
    v: torch.Tensor,
    config: Config,
) -> torch.Tensor:
    """Hinge, pairs and bits: codes of queries u and of their x+, ``near`` (n, K); d- (n, s).

    ``v`` (m, K): codes of all items of the other side. lambda |w|^2 / 2 is the optimiser's.
    """
    plus = terms.own_distances(u, near)
    target = {
        "match": torch.ones_like(plus),
        "natural": natural.float(),
        "zero": torch.zeros_like(plus),
    }[config.pair_target]
    loss = terms.hinge(plus, minus, weight, config.beta(u.shape[1]))
    loss = loss + config.pair_weight * terms.pair_loss(plus, minus, weight, target)
    return loss + terms.bit_terms(u, config) + terms.bit_terms(v, config)


@torch.no_grad()
def _false_negatives(players: Players, pairs: Pairs) -> Sums:
    """Share of matches among the negatives that the policy would take from validation pairs.

    They are searched as if nobody had labelled them, then the labels tell.
    """
    known = pairs.labelled.nonzero().flatten()
    pairs = pairs.take(known[sampling.even_choice(len(known), 1000).to(known.device)])
    if len(pairs) < 2 or not pairs.labels.shape[1]:
        return {}
    others = ~torch.eye(len(pairs), dtype=torch.bool, device=pairs.labels.device)
    same, weight = pairs.labels @ pairs.labels.T > 0, others.float()
    if players.config.false_negatives == "estimated":
        sure, guess = class_beliefs(players.g, pairs), class_beliefs(players.g, pairs, hidden=True)
        weight = weight * (1 - sure @ guess.T).clamp(0, 1)
    u, v = players.g.towers.image(pairs.image), players.g.towers.text(pairs.text)
    shares = []
    for between in (terms.distances(u, v), terms.distances(v, u)):
        taken = reinforce.log_policy(between, others, 1.0).exp() * weight
        shares.append(float((taken * same).sum() / taken.sum().clamp(min=1e-9)))
    return {"false negatives": shares}


def _set_rate(steps: torch.optim.Optimizer, rate: float) -> None:
    for group in steps.param_groups:
        group["lr"] = rate


def _step(steps: torch.optim.Optimizer, loss: torch.Tensor, sums: Sums, name: str) -> None:
    steps.zero_grad()
    loss.backward()
    steps.step()
    sums[name].append(float(loss.detach()))
