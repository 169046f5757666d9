"""The networks of multi-adversarial semantic hashing: reconstruction targets, decoders, critics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from xmodal.device import device
from xmodal.encoders.torch_encoder import RowTensor
from xmodal.encoders.towers import Thumbnail, Towers
from xmodal.modality import MODALITIES, Modality
from xmodal.training.checkpoint import Stateful
from xmodal.training.critics import CodeCritic, Critic
from xmodal.training.losses import straight_through_sign
from xmodal.training.methods.multiadversarial.config import Config
from xmodal.training.objective import ForwardPass, HashNetwork
from xmodal.training.pairs import Pairs, even_choice
from xmodal.training.prototypes import ClassPrototypes
from xmodal.training.pseudo_labels import MAX_FIT_ROWS


class ReconstructionTargets(nn.Module):
    """Principal components z of a modality, scaled to a mean square of 1, as bits have.

    With ``raw`` features (pixels) they are the components of 16 x 16 thumbnails.
    """

    def __init__(
        self, features: torch.Tensor | RowTensor, components: int, *, raw: bool = False
    ) -> None:
        super().__init__()
        self.raw, self.thumbnail = raw, Thumbnail()
        rows = self._rows(features[even_choice(len(features), MAX_FIT_ROWS)].cpu())
        _, _, directions = torch.pca_lowrank(rows, min(components, *rows.shape))
        z = (rows - rows.mean(0)) @ directions
        self.register_buffer("mean", rows.mean(0))
        self.register_buffer("directions", directions)
        self.register_buffer("scale", z.square().mean().sqrt().clamp(min=1e-6))

    @property
    def width(self) -> int:
        """Number of components."""
        return self.get_buffer("directions").shape[1]

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Features (n, d), or pixels, -> z (n, width)."""
        centred = self._rows(features) - self.get_buffer("mean")
        return centred @ self.get_buffer("directions") / self.get_buffer("scale")

    def pictures(self, z: torch.Tensor) -> npt.NDArray[np.uint8]:
        """z (n, width) of thumbnails -> pictures (n, 16, 16, 3)."""
        side = Thumbnail.size
        rows = z * self.get_buffer("scale") @ self.get_buffer("directions").T
        squares = (255 * (rows + self.get_buffer("mean"))).clamp(0, 255)
        return squares.view(-1, 3, side, side).permute(0, 2, 3, 1).cpu().numpy().astype(np.uint8)

    def _rows(self, features: torch.Tensor) -> torch.Tensor:
        return self.thumbnail(features) if self.raw else features.float()


class AutoEncoder(HashNetwork):
    """The hash network, and a decoder to each modality."""

    def __init__(
        self,
        towers: Towers,
        prototypes: ClassPrototypes,
        widths: dict[Modality, int],
        config: Config,
    ) -> None:
        super().__init__(towers, prototypes)
        self.decoders = nn.ModuleDict()
        for modality, width in widths.items():
            first = nn.Linear(towers.bits, config.hidden)
            self.decoders[modality] = nn.Sequential(
                first, nn.GELU(), nn.Linear(config.hidden, width)
            )


@dataclass(frozen=True)
class Reconstructions:
    """Targets and decoded components of each modality, (2n, width).

    The first n rows are decoded from the images' codes, the others from the texts' codes. Empty if
    nothing is decoded.
    """

    target: dict[Modality, torch.Tensor]
    decoded: dict[Modality, torch.Tensor]

    @classmethod
    def of(
        cls,
        auto: AutoEncoder,
        targets: Mapping[Modality, ReconstructionTargets],
        part: Pairs,
        batch: ForwardPass,
    ) -> Reconstructions:
        """Decode the codes of a batch to the modalities of ``targets``."""
        features = {"image": part.image, "text": part.text}
        bits = straight_through_sign(torch.cat(batch.codes))
        return cls(
            {modality: one(features[modality]).repeat(2, 1) for modality, one in targets.items()},
            {modality: auto.decoders[modality](bits) for modality in targets},
        )

    def critic_inputs(self, modality: Modality) -> tuple[torch.Tensor, torch.Tensor]:
        """(x, x) and (x, x') as the first and the difference, (2n, 2 width): real and fake rows."""
        x, decoded = self.target[modality], self.decoded[modality]
        return torch.cat([x, 0 * x], dim=1), torch.cat([x, decoded - x], dim=1)


@dataclass(frozen=True)
class Critics:
    """D_x of each modality and D_h, those that the settings select."""

    inputs: dict[Modality, Critic]
    codes: CodeCritic | None

    @classmethod
    def create(cls, bits: int, widths: dict[Modality, int], config: Config) -> Critics:
        """Return untrained critics."""
        inputs: dict[Modality, Critic] = {}
        if config.decodes and config.reconstruction == "critic":
            for modality in MODALITIES:
                critic = Critic(2 * widths[modality], rate=config.critic_rate)
                inputs[modality] = critic.to(device())
        if config.regularises_codes and config.codes == "critic":
            codes = CodeCritic(bits, rate=config.critic_rate, steps=config.critic_steps)
            return cls(inputs, codes.to(device()))
        return cls(inputs, None)

    def state(self) -> dict[str, Stateful]:
        """Return modules and optimisers for the checkpoint of a run."""
        state: dict[str, Stateful] = {}
        for modality, critic in self.inputs.items():
            state |= critic.state(f"d_x {modality}")
        return state | self.codes.state("d_h") if self.codes is not None else state
