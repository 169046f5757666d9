"""Settings of SCH-GAN."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from xmodal.config import check_at_least, check_at_most
from xmodal.training.negatives import NegativesConfig
from xmodal.training.objective import ClassObjectiveConfig


@dataclass(frozen=True, kw_only=True)
class Config(NegativesConfig, ClassObjectiveConfig):
    """Settings of SCH-GAN."""

    positives: Literal["pseudo-labels", "policy"] = "pseudo-labels"
    """Contrastive targets: match probabilities of the pseudo-labels , or in addition
    positives that a policy selects for pairs whose class is uncertain."""
    positive_share: float = 0.3
    """Share of the contrastive target for selected positives, at an uncertainty of 1."""
    positive_pool_share: float = 0.02
    """Target of the effective share of the pool that the policy of positives selects from."""

    def __post_init__(self) -> None:
        NegativesConfig.__post_init__(self)
        ClassObjectiveConfig.__post_init__(self)
        check_at_least(self, 0, "positive_share")
        check_at_least(self, 1e-9, "positive_pool_share")
        check_at_most(self, 1, "positive_share", "positive_pool_share")
