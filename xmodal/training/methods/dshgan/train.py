"""DSH-GANs: Qiu, Pan, Yao, Mei, "Deep semantic hashing with generative adversarial networks",
SIGIR 2017, arXiv 1804.08275.

Idea: labels are few, so a conditional generator makes more labelled items. In a real-synthetic
triplet the query is real, x+ is made from the query's labels and x- from other labels. One network
is shared by three streams: hash codes, classification, and an adversary that separates real from
synthetic items. The generator is trained on the adversary's score, on classification and on the
triplets.

Departures from the paper:

- Two modalities: an image and a text are made from one latent of labels (or a text) and noise.
  Triplets are within and across modalities, and the adversary scores image and text together.
- With pixels the generator makes 64 x 64 pictures, and the network of the image tower, which is
  trained, is shared by all streams. With features it makes feature vectors, and the shared network
  is the frozen backbone, so the adversary has no effect on the towers.
- The condition of an unlabelled pair is the labels of a labelled pair, sampled by its pseudo-labels
  (``pseudo_labels``); its triplets are weighted by the match probability. Without pseudo-labels the
  condition is "no class", and the pair has no synthetic triplets.
- Each synthetic item is x- of all queries that share none of its labels: n items give n x+ and up
  to n (n - 1) triplets. An item that shares some labels is neither x+ nor x-. Distances are shares
  of the bits: a margin of 1 bit has no effect on long codes.
- Real-real triplets are mixed in. Classification is trained on real items only, unless
  ``synthetic_classes`` is set: otherwise generator and classifier agree on an artefact per class.
- The adversary is conditional (projection: Miyato, Koyama, ICLR 2018) and has a hinge loss with an
  R1 penalty (Mescheder et al., ICML 2018). The paper's -l_a saturates, and without both the
  generator makes one item per class. The adversary's inputs are principal components of features.
- The generator also reconstructs real pairs from inferred noise, as a conditional VAE does (Bao et
  al., "CVAE-GAN", ICCV 2017), because an adversary alone needs more steps. With pixels it is
  pretrained on reconstruction alone. The gradient of adversary, triplets and classes is scaled to
  the norm of the reconstruction gradient: otherwise each class has one grey picture.
- The classification stream has the codes as input: one prototype per class for both modalities.
- The shared objective (``objective``): contrastive pairs, pseudo-labels and regularised bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from xmodal.device import device
from xmodal.encoders.towers import Towers
from xmodal.errors import ConfigError
from xmodal.training import losses, objective
from xmodal.training.checkpoint import Stateful
from xmodal.training.critics import CodeCritic
from xmodal.training.methods.dshgan.config import Config
from xmodal.training.methods.dshgan.losses import adversarial_hinge, scale_to, triplet_loss
from xmodal.training.methods.dshgan.networks import (
    Adversary,
    Conditions,
    Generator,
    Inference,
    LabelSampler,
    make_conditions,
)
from xmodal.training.objective import ForwardPass, HashNetwork, ImageText, Terms
from xmodal.training.pairs import Pairs, TrainingPairs, even_choice, sample_match
from xmodal.training.pseudo_labels import LabelledLater, PseudoLabels, label_pairs
from xmodal.training.run import Run, TrainingData

SHEET_EVERY = 5
"""Epochs between two sheets of synthetic pictures."""
MAX_SHEET_PAIRS = 10_000
"""Pairs, evenly chosen, whose conditions are on a sheet."""
SHEET_ROWS, SHEET_COLUMNS = 10, 8
"""Classes on a sheet, and pictures of each."""
PIXEL_BATCH = 64
"""Pictures of a pretraining step."""
BETAS = (0.5, 0.9)
"""Betas of Adam for generator and adversary."""
KL_WEIGHT = 0.003
"""Weight of the KL divergence, relative to the unexplained share of the variance of a modality."""

# ---- steps -----------------------------------------------------------------------------------


class Gan(nn.Module):
    """Generator, inference and adversary with their optimisers."""

    def __init__(self, data: TrainingData, width: int, config: Config) -> None:
        super().__init__()
        self.config = config
        self.g = Generator(data, config)
        self.adversary = Adversary(data, width, config)
        self.inference = Inference(data, config)
        generating = [*self.g.parameters(), *self.inference.parameters()]
        self.g_optimiser = torch.optim.Adam(generating, lr=config.generator_rate, betas=BETAS)
        scoring = self.adversary.parameters()
        self.a_optimiser = torch.optim.Adam(scoring, lr=config.adversary_rate, betas=BETAS)

    def adversary_loss(
        self, real: ImageText, synthetic: ImageText, conditions: torch.Tensor
    ) -> tuple[torch.Tensor, float]:
        """l_a + penalty / 2 times R1, and the adversary's accuracy; all inputs (n, ...)."""
        inputs = self.adversary.inputs(real)
        on_real = self.adversary(inputs, conditions)
        on_synthetic = self.adversary(self.adversary.inputs(synthetic), conditions)
        r1 = losses.r1_penalty(lambda x: self.adversary(x, conditions), inputs)
        accuracy = ((on_real > 0).float().mean() + (on_synthetic <= 0).float().mean()) / 2
        loss = adversarial_hinge(on_real, on_synthetic) + self.config.penalty / 2 * r1
        return loss, float(accuracy)

    def reconstruction_loss(
        self, real: ImageText, conditions: torch.Tensor
    ) -> tuple[torch.Tensor, ImageText]:
        """Unexplained share of the variance of image and text, + .003 KL(q(z | real) | normal).

        The bound of a conditional VAE (Kingma, Welling, ICLR 2014; with an adversary: Bao et al.,
        ICCV 2017) for real pairs. Also returns its gradients at the reconstructed image and text.
        """
        mean, log_variance = self.inference(real, conditions)
        z = mean + torch.randn_like(mean) * (log_variance / 2).exp()
        unexplained, gradients = torch.zeros((), device=z.device), list[torch.Tensor]()
        heads = (self.g.image, self.g.text)
        for head, made, target in zip(heads, self.g(conditions, z), real, strict=True):
            error, variance = made - target, head.get_buffer("variance")
            unexplained = unexplained + error.square().sum(1).mean() / variance
            gradients.append(2 * error.detach() / (variance * len(error)))
        kl = (mean.square() + log_variance.exp() - 1 - log_variance).sum(1).mean() / 2
        return unexplained + KL_WEIGHT * kl, (gradients[0], gradients[1])


def _discriminator_step(
    d: HashNetwork,
    gan: Gan | None,
    critic: CodeCritic | None,
    optimiser: torch.optim.Optimizer,
    part: Pairs,
    labels: PseudoLabels,
    conditions: Conditions | None,
    config: Config,
    epoch: int,
    rng: np.random.Generator,
) -> tuple[dict[str, float], ForwardPass]:
    """One step of hash network and adversary: L_CNN = triplets + adversary + classification.

    The shared objective is added. ``conditions``: those of the first pairs of ``part``, None
    without a generator. Returns the loss terms and the forward pass of ``part`` before the step.
    """
    batch: ForwardPass = d(part.image, part.text)
    codes, (u, v) = batch.codes, batch.codes
    figures: dict[str, float] = {}
    terms = objective.class_loss(d, codes, labels, config)
    terms |= objective.alignment_losses(codes, labels, config)
    warm = epoch > config.warmup
    share = config.synthetic_share if gan is not None and warm else 0.0
    if config.triplet and share < 1:
        match = labels.match_probability
        positive = sample_match(match > 0.5, rng)
        hinge = triplet_loss(codes, codes, match, positive, config.margin)
        terms["real triplets"] = config.triplet * (1 - share) * hinge
    if gan is not None and conditions is not None:
        n = len(conditions.values)
        with torch.no_grad():
            made = gan.g.sample(conditions.values)
        with _frozen_batch_norm(d):
            synthetic: ForwardPass = d(*made)
        vectors = batch.vectors[0][:n], batch.vectors[1][:n]
        terms["adversary"], figures["adversary accuracy"] = gan.adversary_loss(
            _scale_gradient(vectors, config.adversary),
            _scale_gradient(synthetic.vectors, config.adversary),
            conditions.values,
        )
        if config.triplet and share:
            own = torch.arange(n, device=u.device)
            queries, match = (u[:n], v[:n]), conditions.match_probability
            hinge = triplet_loss(queries, synthetic.codes, match, own, config.margin)
            terms["synthetic triplets"] = config.triplet * share * hinge
        if config.synthetic_classes and warm and bool(conditions.classes.any()):
            loss = d.prototypes.loss(synthetic.codes, conditions.classes)
            terms["synthetic classes"] = config.synthetic_classes * loss
        gan.a_optimiser.zero_grad()
    terms["bits"] = objective.bit_regulariser(codes, config)
    if critic is not None:
        critic.update_on(torch.cat(codes))
        terms["code critic"] = config.code_critic * critic.generator_loss(torch.cat(codes))
    adversary = gan.adversary.parameters() if gan is not None else ()
    figures |= objective.update(d, optimiser, terms, also=adversary)
    if gan is not None:
        gan.a_optimiser.step()
    return figures, batch


def _generator_step(
    d: HashNetwork,
    gan: Gan,
    conditions: Conditions,
    real: ImageText,
    batch: ForwardPass,
    config: Config,
) -> dict[str, float]:
    """One step of the generator: L_G = triplets - s(synthetic) + classification, reconstruction.

    ``real``: the queries, ``batch``: their forward pass without gradients. The gradient of L_G at
    the synthetic image and text is scaled to the norm of the reconstruction's gradient there (as in
    Esser et al., "Taming transformers", CVPR 2021).
    """
    d.requires_grad_(False)
    gan.adversary.requires_grad_(False)
    made = gan.g.sample(conditions.values)
    leaves = made[0].detach().requires_grad_(), made[1].detach().requires_grad_()
    with _frozen_batch_norm(d):
        synthetic: ForwardPass = d(*leaves)
    codes, inputs = synthetic.codes, gan.adversary.inputs(synthetic.vectors)
    figures: dict[str, float] = {}
    terms: Terms = {"fooling": -gan.adversary(inputs, conditions.values).mean()}
    if config.triplet:
        own = torch.arange(len(inputs), device=inputs.device)
        match = conditions.match_probability
        hinge = triplet_loss(batch.codes, codes, match, own, config.margin)
        terms["generator triplets"] = hinge
    labelled = conditions.classes.sum(1) > 0
    if bool(labelled.any()):
        terms["generator classes"] = d.prototypes.loss(codes, conditions.classes)
        predicted = (d.prototypes(codes[0]) + d.prototypes(codes[1])).argmax(1, keepdim=True)
        at_predicted = conditions.classes.gather(1, predicted).squeeze(1)
        right = at_predicted >= conditions.classes.amax(1)
        figures["synthetic accuracy"] = float(right[labelled].float().mean())
    gradients = torch.autograd.grad(torch.stack(list(terms.values())).sum(), leaves)
    gan.g_optimiser.zero_grad()
    if config.reconstruction_weight:
        loss, references = gan.reconstruction_loss(real, conditions.values)
        terms["reconstruction"] = config.reconstruction_weight * loss
        terms["reconstruction"].backward()
        image, text = map(scale_to, references, gradients)
        gradients = image, text
    torch.autograd.backward(made, gradients)
    gan.g_optimiser.step()
    d.requires_grad_(True)
    gan.adversary.requires_grad_(True)
    return figures | objective.values(terms)


def _pretrain(
    gan: Gan,
    pairs: TrainingPairs,
    labels: PseudoLabels | LabelledLater,
    sampler: LabelSampler,
    config: Config,
    raw: bool,
    rng: np.random.Generator,
) -> None:
    """Train generator and adversary alone; with pixels (``raw``) on reconstruction alone."""
    batch = min(objective.batch_size(len(pairs), config), PIXEL_BATCH if raw else len(pairs))
    for _ in range(config.pretraining):
        rows = torch.from_numpy(rng.integers(len(pairs), size=batch))
        part = pairs.take(rows)
        conditions = make_conditions(part, labels.take(rows), sampler, config, rng).values
        real = part.image, part.text
        loss = config.reconstruction_weight * gan.reconstruction_loss(real, conditions)[0]
        if not raw:
            with torch.no_grad():
                made = gan.g.sample(conditions)
            adversary_loss, _ = gan.adversary_loss(real, made, conditions)
            gan.a_optimiser.zero_grad()
            adversary_loss.backward()
            gan.a_optimiser.step()
            gan.adversary.requires_grad_(False)
            inputs = gan.adversary.inputs(gan.g.sample(conditions))
            loss = loss - gan.adversary(inputs, conditions).mean()
        gan.g_optimiser.zero_grad()
        loss.backward()
        gan.g_optimiser.step()
        gan.adversary.requires_grad_(True)


def _scale_gradient(vectors: ImageText, weight: float) -> ImageText:
    """Return the same vectors; their gradients are multiplied by ``weight``."""
    image, text = (torch.lerp(one.detach(), one, weight) for one in vectors)
    return image, text


@contextmanager
def _frozen_batch_norm(d: HashNetwork) -> Iterator[None]:
    """Within the context batches do not change the running statistics of batch normalisation.

    Used for synthetic pictures, because the statistics are used to encode real ones.
    """
    norms = [one for one in d.modules() if isinstance(one, nn.BatchNorm2d)]
    before = [one.momentum for one in norms]
    for one in norms:
        one.momentum = 0.0
    yield
    for one, momentum in zip(norms, before, strict=True):
        one.momentum = momentum


# ---- training --------------------------------------------------------------------------------


def train(data: TrainingData, config: Config, run: Run) -> Towers:
    """Train towers, discriminator and generator in turn; return those of the best epoch.

    Raises ConfigError if no pair is labelled and the condition is the label.
    """
    pairs, raw = data.train.to(device()), data.raw_images
    sampler = LabelSampler(pairs)
    if config.synthetic and config.condition == "label" and not len(sampler.rows):
        raise ConfigError(
            "DSH-GANs needs labels and no training pair has any: label some, or make synthetic "
            "pairs from texts (--set condition=text)"
        )
    with torch.random.fork_rng():
        run.rng(0)
        labels = label_pairs(objective.fit_pseudo_labeller(data, config), pairs)
        towers = data.towers(config.hidden, config.feature_dropout)
        d = HashNetwork(towers, objective.class_prototypes(data, config)).to(device())
        d_optimiser = objective.hash_optimiser(d, config)
        state: dict[str, Stateful] = {"d": d, "d_optimiser": d_optimiser}
        gan, critic, sheet_inputs = None, None, list[ImageText]()
        if config.synthetic:
            gan = Gan(data, towers.image.width, config).to(device())
            state |= {"gan": gan, "g_optimiser": gan.g_optimiser, "a_optimiser": gan.a_optimiser}
            sheet_inputs = _sheet_inputs(pairs, config) if raw else []
        if config.code_critic:
            critic = CodeCritic(data.bits).to(device())
            state |= critic.state("critic")
        for epoch in run.epochs(config.epochs, state):
            rng = run.rng(epoch)
            if gan is not None and epoch == 1:
                _pretrain(gan, pairs, labels, sampler, config, raw, rng)
            objective.set_learning_rate(d_optimiser, config, epoch)
            for rows in objective.batches(len(pairs), config, rng):
                part, part_labels = pairs.take(rows), labels.take(rows)
                queries = rows[: max(1, round(config.synthetic_queries * len(rows)))]
                conditions = None
                if gan is not None:
                    conditions = make_conditions(
                        pairs.take(queries), labels.take(queries), sampler, config, rng
                    )
                figures, batch = _discriminator_step(
                    d, gan, critic, d_optimiser, part, part_labels, conditions, config, epoch, rng
                )
                if gan is not None and conditions is not None:
                    real = pairs.image[queries], pairs.text[queries]
                    first = batch.detached(len(queries))
                    figures |= _generator_step(d, gan, conditions, real, first, config)
                run.log(figures)
            if gan is not None and (epoch % SHEET_EVERY == 0 or epoch == config.epochs):
                if sheet_inputs:
                    rows_of_pictures = [_pictures(gan.g, inputs) for inputs in sheet_inputs]
                    run.sheet("synthetic", epoch, rows_of_pictures)
            run.end_of_epoch(epoch, towers)
        return run.finish(towers)


def _sheet_inputs(train: TrainingPairs, config: Config) -> list[ImageText]:
    """Conditions and noise of the rows of a sheet: one row a class, one row without labels."""
    pairs = train.take(even_choice(len(train), MAX_SHEET_PAIRS))
    labels = pairs.labels * pairs.labelled[:, None]
    rows = [column.nonzero().flatten() for column in labels.T if bool((column > 0).any())]
    conditions = pairs.text.float() if config.condition == "text" else labels
    inputs = []
    for row in rows[:SHEET_ROWS] or [torch.arange(len(pairs))]:
        some = conditions[row.repeat(-(-SHEET_COLUMNS // len(row)))[:SHEET_COLUMNS]]
        inputs.append((some, torch.randn(SHEET_COLUMNS, config.noise, device=some.device)))
    return inputs


@torch.no_grad()
def _pictures(g: Generator, inputs: ImageText) -> npt.NDArray[np.uint8]:
    """Synthetic pictures of conditions and noise, (m, 64, 64, 3)."""
    g.eval()
    squares = g(*inputs)[0].view(-1, 64, 64, 3).round().to(torch.uint8)
    g.train()
    return np.asarray(squares.cpu().numpy())
