"""Multi-adversarial semantic hashing: Wang, Liu, Zhao, "Deep semantic hashing with
multi-adversarial training", CIKM 2018.

Idea: codes are the hidden layer of an autoencoder. Two critics replace two losses. D_x replaces the
L2 error, which blurs: it compares inputs with inputs decoded from their codes. D_h replaces a norm
penalty, which is too strict: it compares codes with uniform random bits, so bits become balanced
and independent. With labels the codes are also trained on classes.

Departures from the paper, of which only the abstract was available:

- Two modalities, a tower each. The code of each modality is decoded to both modalities, so the code
  of a picture also has information about its text.
- D_x scores pairs, (x, x) against (x, x'): without x it cannot detect a code that does not depend
  on the input. Its input is x' - x instead of x', which has the same information and is easier to
  learn. Both critics are Wasserstein critics with gradient penalty and five updates a step. The L2
  error pretrains the decoders and is annealed to 0.
- The input of D_h is the sign of the codes, with a straight-through gradient. One D_h scores the
  codes of both modalities.
- The decoded inputs are principal components of the features, with pixels (``raw_images``) of the
  picture at 16 x 16, because the tower's own vectors could become trivial to decode.
- The shared objective (``objective``): contrastive pairs, class prototypes, pseudo-labels, and
  neighbours of uncertain pairs. Without labels the other terms and both critics remain.
- ``reconstruction="l2", codes="penalty"`` trains the same towers without critics.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch

from xmodal.device import device
from xmodal.encoders.towers import Towers
from xmodal.modality import Modality
from xmodal.training import objective
from xmodal.training.checkpoint import Stateful
from xmodal.training.losses import straight_through_sign
from xmodal.training.methods.multiadversarial.config import Config
from xmodal.training.methods.multiadversarial.losses import l2_error, reconstruction_losses
from xmodal.training.methods.multiadversarial.networks import (
    AutoEncoder,
    Critics,
    Reconstructions,
    ReconstructionTargets,
)
from xmodal.training.objective import ForwardPass
from xmodal.training.pairs import TrainingPairs, even_choice
from xmodal.training.pseudo_labels import PseudoLabels, label_pairs
from xmodal.training.run import Run, TrainingData

SHEET_PICTURES = 10
"""Pictures on a sheet, and epochs between two sheets."""


def _critics_step(
    critics: Critics, batch: ForwardPass, made: Reconstructions, config: Config
) -> dict[str, float]:
    """The critics' updates on a batch; returns their distances between real and fake rows."""
    figures: dict[str, float] = {}
    for modality, critic in critics.inputs.items():
        real, fake = made.critic_inputs(modality)
        for _ in range(config.critic_steps):
            figures[f"{modality} distance"] = critic.update(real, fake.detach())
    if critics.codes is not None:
        figures["code distance"] = critics.codes.update_on(torch.cat(batch.codes))
    return figures


def _autoencoder_step(
    auto: AutoEncoder,
    critics: Critics,
    optimiser: torch.optim.Optimizer,
    batch: ForwardPass,
    made: Reconstructions,
    labels: PseudoLabels,
    config: Config,
    epoch: int,
) -> dict[str, float]:
    """One step of towers, decoders and prototypes; the critics are fixed."""
    codes = batch.codes
    terms = objective.class_loss(auto, codes, labels, config)
    terms |= objective.alignment_losses(codes, labels, config)
    error = l2_error(made, codes[0].device)
    terms |= reconstruction_losses(made, error, critics.inputs, config, epoch)
    if critics.codes is not None:
        loss = critics.codes.generator_loss(torch.cat(codes))
        terms["code critic"] = config.code_critic * loss
    if config.codes == "penalty" and config.regularises_codes:
        terms["bits"] = objective.bit_regulariser(codes, config)
    figures = objective.update(auto, optimiser, terms)
    return figures | ({"decoding error": float(error.detach())} if made.decoded else {})


def train(data: TrainingData, config: Config, run: Run) -> Towers:
    """Train towers, critics and autoencoder in turn; return those of the best epoch."""
    with torch.random.fork_rng():
        run.rng(0)
        pairs, raw = data.train.to(device()), data.raw_images
        labels = label_pairs(objective.fit_pseudo_labeller(data, config), pairs)
        targets: dict[Modality, ReconstructionTargets] = {
            "image": ReconstructionTargets(data.train.image, config.components, raw=raw),
            "text": ReconstructionTargets(data.train.text, config.components),
        }
        targets = {modality: one.to(device()) for modality, one in targets.items()}
        widths = {modality: one.width for modality, one in targets.items()}
        towers = data.towers(config.hidden, config.feature_dropout)
        prototypes = objective.class_prototypes(data, config)
        auto = AutoEncoder(towers, prototypes, widths, config).to(device())
        critics = Critics.create(data.bits, widths, config)
        optimiser = objective.hash_optimiser(auto, config)
        state: dict[str, Stateful] = {"auto": auto, "optimiser": optimiser, **critics.state()}
        decoded_to = targets if config.decodes else {}
        for epoch in run.epochs(config.epochs, state):
            rng = run.rng(epoch)
            objective.set_learning_rate(optimiser, config, epoch)
            for rows in objective.batches(len(pairs), config, rng):
                part, part_labels = pairs.take(rows), labels.take(rows)
                auto.train()
                batch: ForwardPass = auto(part.image, part.text)
                made = Reconstructions.of(auto, decoded_to, part, batch)
                run.log(_critics_step(critics, batch, made, config))
                run.log(
                    _autoencoder_step(
                        auto, critics, optimiser, batch, made, part_labels, config, epoch
                    )
                )
            last = epoch == config.epochs
            if raw and config.decodes and (epoch % SHEET_PICTURES == 0 or last):
                run.sheet("decoded", epoch, _pictures(auto, targets, pairs))
            run.end_of_epoch(epoch, towers)
        return run.finish(towers)


@torch.inference_mode()
def _pictures(
    auto: AutoEncoder, targets: Mapping[Modality, ReconstructionTargets], pairs: TrainingPairs
) -> list[npt.NDArray[np.uint8]]:
    """Some pictures, and the same decoded from their own codes and from their texts' codes."""
    some = pairs.take(even_choice(len(pairs), SHEET_PICTURES).to(pairs.image.device))
    auto.eval()
    target = targets["image"]
    codes = auto.towers.image(some.image), auto.towers.text(some.text)
    decoded = [auto.decoders["image"](straight_through_sign(one)) for one in codes]
    return [target.pictures(z) for z in (target(some.image), *decoded)]
