"""Settings of multi-adversarial semantic hashing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from xmodal.config import check_at_least
from xmodal.errors import ConfigError
from xmodal.training.objective import ClassObjectiveConfig


@dataclass(frozen=True, kw_only=True)
class Config(ClassObjectiveConfig):
    """Settings; ``quantise``, ``balance`` and ``decorrelate`` are for ``codes="penalty"``."""

    epochs: int = 16
    reconstruction: Literal["critic", "l2", "none"] = "critic"
    """Loss of decoded inputs: the critic D_x, the L2 error, or none: nothing is decoded."""
    reconstruction_weight: float = 1.0
    """Weight of that loss."""
    warmup: int = 6
    """Epochs in which the L2 error is annealed to 0 and replaced by D_x."""
    components: int = 128
    """Principal components of each modality that are decoded."""
    codes: Literal["critic", "penalty"] = "critic"
    """Regulariser of the codes: the critic D_h, or quantisation, balance and decorrelation."""
    code_critic: float = 1.0
    """Weight of D_h; with 0 codes are not regularised."""
    critic_steps: int = 5
    """Updates of the critics for each step of the hash network."""
    critic_rate: float = 1e-3
    """Learning rate of the critics."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 1, "components", "critic_steps")
        check_at_least(self, 0, "reconstruction_weight", "warmup")
        check_at_least(self, 1e-9, "critic_rate")
        if not self.pairs and not self.decodes and not self.regularises_codes:
            raise ConfigError(
                "no term but the labels has a weight: set pairs, reconstruction_weight or "
                "code_critic"
            )

    @property
    def decodes(self) -> bool:
        """Whether inputs are decoded from codes."""
        return self.reconstruction != "none" and self.reconstruction_weight > 0

    @property
    def regularises_codes(self) -> bool:
        """Whether the distribution of codes has a loss term."""
        if self.codes == "critic":
            return self.code_critic > 0
        return self.quantise + self.balance + self.decorrelate > 0
