"""Settings of SSAH."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from xmodal.config import check_at_least, check_at_most
from xmodal.training.objective import ObjectiveConfig


@dataclass(frozen=True, kw_only=True)
class Config(ObjectiveConfig):
    """Settings of SSAH."""

    epochs: int = 16

    adversary: Literal["learned", "random", "none"] = "learned"
    """Hard samples: hidden cells and angles selected by A-Net, or at random with the same number
    and the same angles, or no hard samples."""
    area: float = 1 / 3
    """Share of the cells that are hidden, at most 1/3."""
    angle: float = 30.0
    """Largest angle in degrees, at most 30; the angles of a batch are evenly spaced below it."""
    hardness: float = 0.3
    """rho at the end of training: the target of L_H(hard) / L_H(natural) - 1."""
    pace: float = 0.8
    """Share of the training in which rho grows to ``hardness``; 0: rho is constant."""
    adversary_rate: float = 1e-2
    """Learning rate of A-Net."""
    warmup: int = 2
    """Epochs without hard samples."""
    share: float = 0.4
    """Share of each batch with hard samples; batches are sampled again in each epoch."""
    hard: float = 1.5
    """Weight of L_H of hard samples."""
    consistency: float = 1.0
    """Weight of |u(hard) - u'(natural)|^2 / K, with codes u' of the averaged network."""
    ema_decay: float = 0.95
    """Decay of the exponential moving average of H-Net's weights, per step."""

    likelihood: float = 3.0
    """Weight of L_H, the negative log-likelihood of pairwise similarity."""
    slope: float = 10.0
    """Slope of the logit slope * (similarity - middle); similarities lie in [-1, 1]."""
    middle: float = 0.5
    """Similarity of codes at which the likelihood of a similar pair is 1/2."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 0, "hardness", "warmup", "hard", "consistency", "likelihood")
        check_at_least(self, 0, "area", "angle", "ema_decay", "pace")
        check_at_least(self, 1e-9, "adversary_rate", "slope")
        check_at_least(self, 0.01, "share")
        check_at_most(self, 1, "ema_decay", "pace", "share", "middle")
        check_at_least(self, -1, "middle")
        check_at_most(self, 1 / 3, "area")
        check_at_most(self, 30, "angle")
