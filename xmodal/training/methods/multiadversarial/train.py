"""Multi-adversarial semantic hashing: Wang, Liu, Zhao, "Deep semantic hashing with
multi-adversarial training", CIKM 2018.

The idea. Codes are the hidden layer of an auto-encoder, which is to keep what the input says. Two
adversaries replace two losses. D_x takes the place of the L2 error, which blurs: it tells inputs
from what the decoder made of their codes. D_h takes the place of a norm penalty, which is too
strict: it tells codes from fair coin flips, so the hash network makes bits that are on half of the
time and independent of each other. With labels the codes are told classes as well.

Departures from the paper, of which the abstract alone is public; all of them ours:

- Two modalities, a tower each. Either's code is decoded to both sides, so a picture's code also
  says what its text does.
- D_x judges pairs, (x, x) against (x, x'): without x it could not see a code that ignores its
  input. It is shown x' as x' - x, which loses nothing and is far easier to judge. Both critics are
  Wasserstein critics with gradient penalty, five updates on the batch of each step. The L2 error
  warms the decoders up and is annealed to zero.
- D_h sees signs, passed straight through, so that it cannot win by telling .9 from 1. One D_h
  judges the mixture of both modalities' codes.
- What is decoded are the principal components of the features; of pixels (``raw_images``) those of
  the picture at 16 x 16, because vectors that the tower learns could be made easy to decode.
- For retrieval across modalities: natural pairs are contrasted; classes have learned codewords,
  whose labels reach unlabelled pairs as what both sides together suggest, and pairs in doubt keep
  their neighbours (``beliefs``). Without labels the pairs, the neighbours and both critics are all.
- ``reconstruction="l2", codes="penalty"`` trains the same towers without any adversary.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from xmodal.config import check_at_least
from xmodal.device import device
from xmodal.errors import ConfigError
from xmodal.index import MODALITIES, Modality
from xmodal.towers import Thumbnail, Towers
from xmodal.training import losses
from xmodal.training import objective as groundwork
from xmodal.training import pairs as sampling
from xmodal.training.critics import CodeCritic, Critic
from xmodal.training.objective import ClassGroundwork, HashNetwork, Terms
from xmodal.training.pairs import Pairs
from xmodal.training.prototypes import Codewords
from xmodal.training.pseudo_labels import ENOUGH, Beliefs
from xmodal.training.run import Run, Stateful, TrainingData

SHOWN = 10
"""Pictures on a sheet, and epochs from one sheet to the next."""


@dataclass(frozen=True, kw_only=True)
class Config(ClassGroundwork):
    """Settings. Quantisation, balance and decorrelation weigh where ``codes`` is "penalty"."""

    epochs: int = 16
    reconstruction: Literal["critic", "l2", "none"] = "critic"
    """Who judges what is decoded: D_x, the L2 error, or nobody: then nothing is decoded."""
    decoded: float = 1.0
    """Weight of that judgement."""
    warmup: int = 6
    """Epochs over which the L2 error gives way to D_x."""
    components: int = 128
    """Principal components of each modality that are decoded."""
    codes: Literal["critic", "penalty"] = "critic"
    """Who keeps codes healthy: D_h, or quantisation, balance and decorrelation."""
    code_critic: float = 1.0
    """Weight of D_h; without it codes are left alone."""
    critic_steps: int = 5
    """Updates of the critics for each of the hash network's."""
    critic_rate: float = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 1, "components", "critic_steps")
        check_at_least(self, 0, "decoded", "warmup")
        check_at_least(self, 1e-9, "critic_rate")
        if not self.pairs and not self.judges_inputs and not self.judges_codes:
            raise ConfigError(
                "labels alone would teach: give pairs, decoded or code_critic a weight"
            )

    @property
    def judges_inputs(self) -> bool:
        """Whether anything is decoded."""
        return self.reconstruction != "none" and self.decoded > 0

    @property
    def judges_codes(self) -> bool:
        """Whether the distribution of codes has a term."""
        if self.codes == "critic":
            return self.code_critic > 0
        return self.quantise + self.balance + self.decorrelate > 0


# ---- networks --------------------------------------------------------------------------------


class Originals(nn.Module):
    """What is decoded: principal components z of a modality, of mean square 1 as bits are."""

    def __init__(self, features: torch.Tensor, components: int, *, raw: bool = False) -> None:
        super().__init__()
        self.raw, self.small = raw, Thumbnail()
        rows = self._rows(features[sampling.even_choice(len(features), ENOUGH)].cpu())
        _, _, directions = torch.pca_lowrank(rows, min(components, *rows.shape))
        z = (rows - rows.mean(0)) @ directions
        self.register_buffer("mean", rows.mean(0))
        self.register_buffer("directions", directions)
        self.register_buffer("scale", z.square().mean().sqrt().clamp(min=1e-6))

    @property
    def width(self) -> int:
        """How many components there are."""
        return self.get_buffer("directions").shape[1]

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Features (n, d), or pixels, -> z (n, width)."""
        centred = self._rows(features) - self.get_buffer("mean")
        return centred @ self.get_buffer("directions") / self.get_buffer("scale")

    def pictures(self, z: torch.Tensor) -> npt.NDArray[np.uint8]:
        """z (n, width) -> pictures (n, side, side, 3)."""
        side = Thumbnail.side
        rows = z * self.get_buffer("scale") @ self.get_buffer("directions").T
        squares = (255 * (rows + self.get_buffer("mean"))).clamp(0, 255)
        return squares.view(-1, 3, side, side).permute(0, 2, 3, 1).cpu().numpy().astype(np.uint8)

    def _rows(self, features: torch.Tensor) -> torch.Tensor:
        return self.small(features) if self.raw else features.float()


class AutoEncoder(HashNetwork):
    """The hash network, and a decoder to each modality."""

    def __init__(
        self, towers: Towers, codewords: Codewords, widths: dict[Modality, int], config: Config
    ) -> None:
        super().__init__(towers, codewords)
        self.decoders = nn.ModuleDict()
        for side, width in widths.items():
            first = nn.Linear(towers.bits, config.hidden)
            self.decoders[side] = nn.Sequential(first, nn.GELU(), nn.Linear(config.hidden, width))


@dataclass(frozen=True)
class Critics:
    """D_x of each modality and D_h, those of them that the settings want."""

    inputs: dict[Modality, Critic]
    codes: CodeCritic | None

    @classmethod
    def wanted(cls, bits: int, widths: dict[Modality, int], config: Config) -> Critics:
        """Fresh ones."""
        inputs: dict[Modality, Critic] = {}
        if config.judges_inputs and config.reconstruction == "critic":
            for side in MODALITIES:
                inputs[side] = Critic(2 * widths[side], rate=config.critic_rate).to(device())
        if config.judges_codes and config.codes == "critic":
            fair = CodeCritic(bits, rate=config.critic_rate, steps=config.critic_steps)
            return cls(inputs, fair.to(device()))
        return cls(inputs, None)

    def state(self) -> dict[str, Stateful]:
        """What a run saves of them."""
        state: dict[str, Stateful] = {}
        for side, one in self.inputs.items():
            state |= one.state(f"d_x {side}")
        return state | self.codes.state("d_h") if self.codes is not None else state


@dataclass(frozen=True)
class View:
    """What everybody looks at: relaxed codes (n, bits) of a batch, and what is made of them.

    ``original`` and ``decoded`` (2n, width) of each modality, from the images' codes and then the
    texts'; empty where nothing is decoded.
    """

    image: torch.Tensor
    text: torch.Tensor
    original: dict[Modality, torch.Tensor]
    decoded: dict[Modality, torch.Tensor]

    def pairs(self, side: Modality) -> tuple[torch.Tensor, torch.Tensor]:
        """(x, x) and (x, x'), of each the first and the difference, (2n, 2 width)."""
        x, decoded = self.original[side], self.decoded[side]
        return torch.cat([x, 0 * x], dim=1), torch.cat([x, decoded - x], dim=1)


def look(auto: AutoEncoder, originals: Mapping[Modality, Originals], part: Pairs) -> View:
    """Code some pairs, and decode what there are ``originals`` of."""
    auto.train()
    u, v = auto.towers.image(part.image), auto.towers.text(part.text)
    features = {"image": part.image, "text": part.text}
    original = {side: one(features[side]).repeat(2, 1) for side, one in originals.items()}
    bits = losses.sign_through(torch.cat([u, v]))
    decoded = {side: auto.decoders[side](bits) for side in originals}
    return View(u, v, original, decoded)


# ---- terms -----------------------------------------------------------------------------------


def l2_share(epoch: int, config: Config) -> float:
    """How much of the judgement of what is decoded is the L2 error's: from 1 down to 0."""
    if config.reconstruction == "l2":
        return 1.0
    return max(0.0, 1 - (epoch - 1) / config.warmup) if config.warmup else 0.0


# ---- the players -----------------------------------------------------------------------------


def _critics_step(critics: Critics, view: View, config: Config) -> dict[str, float]:
    """The critics' updates on a batch; how far apart each found real and fake."""
    figures: dict[str, float] = {}
    for side, critic in critics.inputs.items():
        real, fake = view.pairs(side)
        for _ in range(config.critic_steps):
            figures[f"{side}s apart"] = critic.compare(real, fake.detach())
    if critics.codes is not None:
        figures["codes apart"] = critics.codes.learn(torch.cat([view.image, view.text]))
    return figures


def _autoencoder_step(
    auto: AutoEncoder,
    critics: Critics,
    steps: torch.optim.Optimizer,
    view: View,
    belief: Beliefs,
    config: Config,
    epoch: int,
) -> dict[str, float]:
    """One step of towers, decoders and codewords against critics that stand still."""
    u, v = view.image, view.text
    terms: Terms = {}
    if config.classes and bool((belief.classes > 0).any()):
        terms["classes"] = config.classes * auto.codewords.loss((u, v), belief.classes)
    terms |= groundwork.meaning(u, v, belief, config)
    error = torch.zeros((), device=u.device)
    for side in view.decoded:
        error = error + (view.decoded[side] - view.original[side]).square().mean() / 2
    by_l2 = l2_share(epoch, config)
    if view.decoded and by_l2 > 0:
        terms["l2"] = config.decoded * by_l2 * error
    if critics.inputs and by_l2 < 1:
        told = [one.term(view.pairs(side)[1]) for side, one in critics.inputs.items()]
        terms["input critic"] = config.decoded * (1 - by_l2) * torch.stack(told).mean()
    if critics.codes is not None:
        terms["code critic"] = config.code_critic * critics.codes.term(torch.cat([u, v]))
    if config.codes == "penalty" and config.judges_codes:
        terms["bits"] = groundwork.bit_term(u, v, config)
    figures = groundwork.update(auto, steps, terms)
    return figures | ({"decoding error": float(error.detach())} if view.decoded else {})


# ---- training --------------------------------------------------------------------------------


def train(data: TrainingData, config: Config, run: Run) -> Towers:
    """Train towers; the alternation of the critics and the auto-encoder is this page."""
    with torch.random.fork_rng():
        run.rng(0)
        pairs, raw = data.train.to(device()), data.raw_images
        beliefs = groundwork.believer(data, config)(pairs)
        originals: dict[Modality, Originals] = {
            "image": Originals(data.train.image, config.components, raw=raw).to(device()),
            "text": Originals(data.train.text, config.components).to(device()),
        }
        widths = {side: one.width for side, one in originals.items()}
        towers = data.towers(config.hidden, config.feature_dropout)
        auto = AutoEncoder(towers, groundwork.codewords(data, config), widths, config).to(device())
        critics = Critics.wanted(data.bits, widths, config)
        steps = groundwork.optimiser(auto, config)
        state: dict[str, Stateful] = {"auto": auto, "steps": steps, **critics.state()}
        for epoch in run.epochs(config.epochs, state):
            rng = run.rng(epoch)
            groundwork.set_rate(steps, config, epoch)
            for rows in groundwork.batches(len(pairs), config, rng):
                view = look(auto, originals if config.judges_inputs else {}, pairs.take(rows))
                run.note(_critics_step(critics, view, config))
                belief = beliefs.take(rows)
                run.note(_autoencoder_step(auto, critics, steps, view, belief, config, epoch))
            if raw and config.judges_inputs and (epoch % SHOWN == 0 or epoch == config.epochs):
                run.sheet("decoded", epoch, _pictures(auto, originals, pairs))
            run.end_of_epoch(epoch, towers)
        return run.finish(towers)


@torch.inference_mode()
def _pictures(
    auto: AutoEncoder, originals: Mapping[Modality, Originals], pairs: Pairs
) -> list[npt.NDArray[np.uint8]]:
    """Some pictures as they are, as their own codes draw them, and as their texts' codes do."""
    some = pairs.take(sampling.even_choice(len(pairs), SHOWN).to(pairs.image.device))
    auto.eval()
    drawn = originals["image"]
    codes = auto.towers.image(some.image), auto.towers.text(some.text)
    decoded = [auto.decoders["image"](losses.sign_through(one)) for one in codes]
    return [drawn.pictures(z) for z in (drawn(some.image), *decoded)]
