"""DSH-GANs: Qiu, Pan, Yao, Mei, "Deep semantic hashing with generative adversarial networks",
SIGIR 2017, arXiv 1804.08275.

The idea. Labels are few, so a conditional generator makes more items that have some. A query is
real; its x+ is synthetic and made from the query's own labels, its x- is made from other labels:
*real-synthetic triplets*. One network feeds three streams: the hash stream, the classification
stream, and an adversary that tells real from synthetic. The generator wants its items to be taken
for real, to be of their class, and to lie where the triplets want them.

Departures from the paper, all of them ours:

- Two modalities. Labels (or the embedding of a text) and noise become one latent, of which an image
  and a text are made: a synthetic pair has one meaning. Triplets go within and across modalities,
  and the adversary judges both halves together.
- Pixel mode: the generator makes 64 x 64 pictures, and the small network of the image tower, which
  is trained with it, feeds all streams. Feature mode: it makes feature vectors; what feeds all
  streams is the frozen backbone, so the adversary does not touch the towers.
- An unlabelled pair asks with the labels of a labelled one, drawn by its believed classes
  (``beliefs``), so every synthetic item has labels for sure; its triplets count by how surely the
  query shares them. Without belief it asks with "no class", and teaches only what is real.
- Each synthetic item is x- of all queries that share none of its labels: n items make n x+ and up
  to n (n - 1) triplets. One that shares some of them is neither x+ nor x-. Distances are shares of
  the bits, since a margin of 1 is met at once by long codes.
- Real-real triplets stay mixed in, and classes are taught by real items alone unless
  ``synthetic_classes`` says otherwise: else the streams and the generator can agree on an artefact
  for each class.
- The adversary is told the condition (projection: Miyato, Koyama, ICLR 2018) and has a hinge loss
  with a penalty on its slope at real items (R1: Mescheder et al., ICML 2018). -l_a saturates, and
  without these two the generator makes one item a class. Of features it sees the principal
  components, since nobody can make the rest.
- The generator also makes real pairs again, from noise inferred from them, like a conditional VAE
  (Bao et al., "CVAE-GAN", ICCV 2017): a few hundred steps are too few for an adversary alone. Of
  pixels it learns only that before the first epoch. What adversary, triplets and classes want of
  each half pulls as strongly as that does: else their gradients at pixels drown it, and each class
  has one grey picture.
- The classification stream reads the codes: one codeword a class, for both modalities.
- As in our other methods natural pairs are contrasted, what both sides of a pair suggest together
  teaches the unlabelled, and bits are pushed to be binary, balanced and uncorrelated.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from xmodal.device import device
from xmodal.errors import ConfigError
from xmodal.towers import Towers
from xmodal.training import losses
from xmodal.training import objective as groundwork
from xmodal.training import pairs as sampling
from xmodal.training.critics import CodeCritic
from xmodal.training.methods.dshgan.conditions import Asked, Lender, ask
from xmodal.training.methods.dshgan.config import Config
from xmodal.training.methods.dshgan.networks import (
    Adversary,
    Generator,
    Inference,
    Seen,
    Streams,
    Two,
)
from xmodal.training.objective import Terms
from xmodal.training.pairs import Pairs
from xmodal.training.pseudo_labels import Beliefs
from xmodal.training.run import Run, Stateful, TrainingData

SHEET_EVERY = 5
"""Epochs from one sheet of synthetic pictures to the next."""
ROWS, COLUMNS = 10, 8
"""Of a sheet: classes, and pictures of each."""
PIXEL_BATCH = 64
"""Pictures of a step of pretraining."""
BETAS = (0.5, 0.9)
"""Adam's, of generator and adversary."""
KL = 0.003
"""Weight of the KL divergence, where the whole variance of a half weighs 1."""

# ---- losses ----------------------------------------------------------------------------------


def triplets(
    queries: Two, items: Two, agreement: torch.Tensor, positive: torch.Tensor, margin: float
) -> torch.Tensor:
    """Mean over i and over four ways of a_ip sum_j w_ij max(0, m - d(q_i, x_j) + d(q_i, x_p)).

    Ways: each modality asks each. ``agreement`` a (n, m); ``positive`` p (n,) is x+ of each query;
    w is spread over the x-, those that agree by less than half, by how surely they do not.
    """
    apart = (1 - agreement) * (agreement <= 0.5)
    sure = agreement.gather(1, positive[:, None])
    weights = sure * apart / apart.sum(1, keepdim=True).clamp(min=1e-6)
    hinges = []
    for query in queries:
        for item in items:
            d = losses.distance(query, item)
            near = d.gather(1, positive[:, None]).squeeze(1)
            hinges.append(losses.expected_hinge(near, d, weights, margin))
    return torch.stack(hinges).mean()


def judgement(real: torch.Tensor, synthetic: torch.Tensor) -> torch.Tensor:
    """l_a = mean max(0, 1 - s(real)) + mean max(0, 1 + s(synthetic)); scores (n,), (m,)."""
    return (1 - real).clamp(min=0).mean() + (1 + synthetic).clamp(min=0).mean()


# ---- the players -----------------------------------------------------------------------------


class Gan(nn.Module):
    """Generator and adversary, each with its optimiser, to be saved with them."""

    def __init__(self, data: TrainingData, width: int, config: Config) -> None:
        super().__init__()
        self.config = config
        self.g = Generator(data, config)
        self.adversary = Adversary(data, width, config)
        self.inference = Inference(data, config)
        made_by = [*self.g.parameters(), *self.inference.parameters()]
        self.g_steps = torch.optim.Adam(made_by, lr=config.generator_rate, betas=BETAS)
        judged_by = self.adversary.parameters()
        self.a_steps = torch.optim.Adam(judged_by, lr=config.adversary_rate, betas=BETAS)

    def adversarial(
        self, real: Two, synthetic: Two, conditions: torch.Tensor
    ) -> tuple[torch.Tensor, float]:
        """l_a + penalty / 2 of the slope at real pairs, all (n, ...); how many it tells right."""
        both = self.adversary.both(real)
        told = self.adversary(both, conditions)
        doubted = self.adversary(self.adversary.both(synthetic), conditions)
        slope = losses.real_penalty(lambda x: self.adversary(x, conditions), both)
        right = ((told > 0).float().mean() + (doubted <= 0).float().mean()) / 2
        return judgement(told, doubted) + self.config.penalty / 2 * slope, float(right)

    def remade(self, real: Two, conditions: torch.Tensor) -> tuple[torch.Tensor, Two]:
        """Share of the variance of both halves that is missed, + .003 KL(q(z | real) | normal).

        Of real pairs made again from the noise that they suggest: the bound of a conditional VAE
        (Kingma, Welling, ICLR 2014; with an adversary: Bao et al., ICCV 2017). And its gradients
        at what is made, of each half.
        """
        mean, log_variance = self.inference(real, conditions)
        z = mean + torch.randn_like(mean) * (log_variance / 2).exp()
        missed, gradients = torch.zeros((), device=z.device), list[torch.Tensor]()
        heads = (self.g.image, self.g.text)
        for head, made, wanted in zip(heads, self.g(conditions, z), real, strict=True):
            apart, variance = made - wanted, head.get_buffer("variance")
            missed = missed + apart.square().sum(1).mean() / variance
            gradients.append(2 * apart.detach() / (variance * len(apart)))
        spread = (mean.square() + log_variance.exp() - 1 - log_variance).sum(1).mean() / 2
        return missed + KL * spread, (gradients[0], gradients[1])


def _discriminator_step(
    d: Streams,
    gan: Gan | None,
    critic: CodeCritic | None,
    steps: torch.optim.Optimizer,
    part: Pairs,
    belief: Beliefs,
    asked: Asked | None,
    config: Config,
    epoch: int,
    rng: np.random.Generator,
) -> tuple[dict[str, float], Seen]:
    """L_CNN = triplets + adversarial + classification, and what is ours; what was seen.

    ``asked``: what the first of ``part`` ask for, None without a generator.
    """
    seen = d.see(part.image, part.text)
    u, v = codes = seen.codes
    agreement, figures = belief.agreement, dict[str, float]()
    terms: Terms = {}
    if config.classes and bool((belief.classes > 0).any()):
        terms["classes"] = config.classes * d.codewords.loss(codes, belief.classes)
    terms |= groundwork.meaning(u, v, belief, config)
    share = config.synthetic_share if gan is not None and epoch > config.warmup else 0.0
    if config.triplet and share < 1:
        positive = sampling.one_match(agreement > 0.5, rng)
        hinge = triplets(codes, codes, agreement, positive, config.margin)
        terms["real triplets"] = config.triplet * (1 - share) * hinge
    if gan is not None and asked is not None:
        n = len(asked.conditions)
        with torch.no_grad():
            made = gan.g.draw(asked.conditions)
        with _real_statistics(d):
            synthetic = d.see(*made)
        vectors = seen.vectors[0][:n], seen.vectors[1][:n]
        terms["adversary"], figures["adversary right"] = gan.adversarial(
            _felt(vectors, config.adversary),
            _felt(synthetic.vectors, config.adversary),
            asked.conditions,
        )
        if config.triplet and share:
            own = torch.arange(n, device=u.device)
            queries, items = (u[:n], v[:n]), synthetic.codes
            hinge = triplets(queries, items, asked.agreement, own, config.margin)
            terms["synthetic triplets"] = config.triplet * share * hinge
        if config.synthetic_classes and epoch > config.warmup and bool(asked.classes.any()):
            named = d.codewords.loss(synthetic.codes, asked.classes)
            terms["synthetic classes"] = config.synthetic_classes * named
        gan.a_steps.zero_grad()
    terms["bits"] = groundwork.bit_term(u, v, config)
    if critic is not None:
        critic.learn(torch.cat(codes))
        terms["code critic"] = config.code_critic * critic.term(torch.cat(codes))
    judge = gan.adversary.parameters() if gan is not None else ()
    figures |= groundwork.update(d, steps, terms, also=judge)
    if gan is not None:
        gan.a_steps.step()
    return figures, seen


def _generator_step(
    d: Streams, gan: Gan, asked: Asked, real: Two, seen: Seen, config: Config
) -> dict[str, float]:
    """L_G = triplets - s(synthetic) + classification, of fresh synthetic pairs, and what is ours.

    ``real`` asked, and was ``seen`` by the hash network before its step. What L_G wants of each
    half is made as strong as what making real pairs again wants there, or of pixels it would drown
    that (as Esser et al., "Taming transformers", CVPR 2021).
    """
    d.requires_grad_(False)
    gan.adversary.requires_grad_(False)
    made = gan.g.draw(asked.conditions)
    shown = made[0].detach().requires_grad_(), made[1].detach().requires_grad_()
    with _real_statistics(d):
        synthetic = d.see(*shown)
    codes, both = synthetic.codes, gan.adversary.both(synthetic.vectors)
    figures: dict[str, float] = {}
    terms: Terms = {"fooling": -gan.adversary(both, asked.conditions).mean()}
    if config.triplet:
        own = torch.arange(len(both), device=both.device)
        hinge = triplets(seen.codes, codes, asked.agreement, own, config.margin)
        terms["generator triplets"] = hinge
    told = asked.classes.sum(1) > 0
    if bool(told.any()):
        terms["generator classes"] = d.codewords.loss(codes, asked.classes)
        guess = (d.codewords(codes[0]) + d.codewords(codes[1])).argmax(1, keepdim=True)
        named = asked.classes.gather(1, guess).squeeze(1) >= asked.classes.amax(1)
        figures["synthetic of class"] = float(named[told].float().mean())
    wanted = torch.autograd.grad(torch.stack(list(terms.values())).sum(), shown)
    gan.g_steps.zero_grad()
    if config.remake:
        again, there = gan.remade(real, asked.conditions)
        terms["remaking"] = config.remake * again
        terms["remaking"].backward()
        wanted = _as_long_as(there[0], wanted[0]), _as_long_as(there[1], wanted[1])
    torch.autograd.backward(made, wanted)
    gan.g_steps.step()
    d.requires_grad_(True)
    gan.adversary.requires_grad_(True)
    return figures | {name: float(value.detach()) for name, value in terms.items()}


def _pretrain(
    gan: Gan,
    pairs: Pairs,
    beliefs: Beliefs,
    lender: Lender,
    config: Config,
    raw: bool,
    rng: np.random.Generator,
) -> None:
    """The conditional GAN alone, on pairs with labels and without; of pixels it only remakes."""
    batch = min(groundwork.batch_size(len(pairs), config), PIXEL_BATCH if raw else len(pairs))
    for _ in range(config.pretraining):
        rows = torch.from_numpy(rng.integers(len(pairs), size=batch))
        part = pairs.take(rows)
        conditions = ask(part, beliefs.take(rows), lender, config, rng).conditions
        real = part.image, part.text
        loss = config.remake * gan.remade(real, conditions)[0]
        if not raw:
            with torch.no_grad():
                made = gan.g.draw(conditions)
            judged, _ = gan.adversarial(real, made, conditions)
            gan.a_steps.zero_grad()
            judged.backward()
            gan.a_steps.step()
            gan.adversary.requires_grad_(False)
            both = gan.adversary.both(gan.g.draw(conditions))
            loss = loss - gan.adversary(both, conditions).mean()
        gan.g_steps.zero_grad()
        loss.backward()
        gan.g_steps.step()
        gan.adversary.requires_grad_(True)


def _as_long_as(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """The other gradient (n, d), as long as the first."""
    length: torch.Tensor = one.norm() / other.norm().clamp(min=1e-12)
    return other * length


def _felt(vectors: Two, weight: float) -> Two:
    """The same vectors; what made them gets gradients times ``weight``."""
    image, text = (torch.lerp(one.detach(), one, weight) for one in vectors)
    return image, text


@contextmanager
def _real_statistics(d: Streams) -> Iterator[None]:
    """Synthetic pictures inside do not move the averages by which new pictures are encoded."""
    norms = [one for one in d.modules() if isinstance(one, nn.BatchNorm2d)]
    before = [one.momentum for one in norms]
    for one in norms:
        one.momentum = 0.0
    yield
    for one, momentum in zip(norms, before, strict=True):
        one.momentum = momentum


# ---- training --------------------------------------------------------------------------------


def train(data: TrainingData, config: Config, run: Run) -> Towers:
    """Train towers; the alternation of both players is this page."""
    pairs, raw = data.train.to(device()), data.raw_images
    lender = Lender(pairs)
    if config.synthetic and config.condition == "label" and not len(lender.rows):
        raise ConfigError(
            "DSH-GANs needs labels and no training pair has any: label some, or make synthetic "
            "pairs from texts (--set condition=text)"
        )
    with torch.random.fork_rng():
        run.rng(0)
        beliefs = groundwork.believer(data, config)(pairs)
        towers = data.towers(config.hidden, config.feature_dropout)
        d = Streams(towers, groundwork.codewords(data, config)).to(device())
        d_steps = groundwork.optimiser(d, config)
        state: dict[str, Stateful] = {"d": d, "d_steps": d_steps}
        gan, critic, shown = None, None, list[Two]()
        if config.synthetic:
            gan = Gan(data, towers.image.width, config).to(device())
            state |= {"gan": gan, "g_steps": gan.g_steps, "a_steps": gan.a_steps}
            shown = _shown(pairs, config) if raw else []
        if config.code_critic:
            critic = CodeCritic(data.bits).to(device())
            state |= critic.state("critic")
        for epoch in run.epochs(config.epochs, state):
            rng = run.rng(epoch)
            if gan is not None and epoch == 1:
                _pretrain(gan, pairs, beliefs, lender, config, raw, rng)
            groundwork.set_rate(d_steps, config, epoch)
            for rows in groundwork.batches(len(pairs), config, rng):
                part, belief = pairs.take(rows), beliefs.take(rows)
                asked, few = None, rows[: max(1, round(config.asking * len(rows)))]
                if gan is not None:
                    asked = ask(pairs.take(few), beliefs.take(few), lender, config, rng)
                figures, seen = _discriminator_step(
                    d, gan, critic, d_steps, part, belief, asked, config, epoch, rng
                )
                if gan is not None and asked is not None:
                    real, seen = (pairs.image[few], pairs.text[few]), seen.first(len(few))
                    figures |= _generator_step(d, gan, asked, real, seen, config)
                run.note(figures)
            if gan is not None and (epoch % SHEET_EVERY == 0 or epoch == config.epochs) and shown:
                run.sheet("synthetic", epoch, [_pictures(gan.g, row) for row in shown])
            run.end_of_epoch(epoch, towers)
        return run.finish(towers)


def _shown(pairs: Pairs, config: Config) -> list[Two]:
    """Conditions and noise of the rows of a sheet: one row a class; one row where none is known."""
    known = pairs.labels * pairs.labelled[:, None]
    rows = [column.nonzero().flatten() for column in known.T if bool((column > 0).any())]
    conditions = pairs.text.float() if config.condition == "text" else known
    shown = []
    for row in rows[:ROWS] or [torch.arange(len(pairs))]:
        some = conditions[row.repeat(-(-COLUMNS // len(row)))[:COLUMNS]]
        shown.append((some, torch.randn(COLUMNS, config.noise, device=some.device)))
    return shown


@torch.no_grad()
def _pictures(g: Generator, row: Two) -> npt.NDArray[np.uint8]:
    """Synthetic pictures of some conditions and noise, (m, 64, 64, 3)."""
    g.eval()
    squares = g(*row)[0].view(-1, 64, 64, 3).round().to(torch.uint8)
    g.train()
    return np.asarray(squares.cpu().numpy())
