"""Settings of SCH-GAN."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from xmodal.config import check_at_least, check_at_most
from xmodal.training.objective import ClassObjectiveConfig


@dataclass(frozen=True, kw_only=True)
class NegativesConfig:
    """Settings of the selection of negatives. The batch is also the pool of candidates."""

    negatives: Literal["policy", "semi-hard", "random"] = "semi-hard"
    """Selection of the negatives x-: the generator's policy, or a rule without a generator."""
    triplet: float = 3.0
    """Weight of the hinge on positives x+ and negatives x-."""
    margin: float = 0.2
    """beta, as a share of the bits."""
    reward_margin: float = 0.5
    """The generator's reward is largest for d- - d+ of this share of the margin. In the paper it is
    1, where the hinge is 0."""
    warmup: int = 2
    """Epochs in which negatives are random and the generator's positives are not used."""
    estimator: Literal["exact", "reinforce"] = "exact"
    """Gradient of the policy: the exact expectation over the pool, or sampled (REINFORCE)."""
    picks: int = 8
    """Samples a query for REINFORCE."""
    policy_share: float = 0.5
    """Share of the negatives that ``negatives`` selects; the rest is random."""
    policy_pool_share: float = 0.05
    """Target of the effective share of the pool that the policy selects from."""
    policy_rate: float = 1e-3
    """Learning rate of the generator."""
    policy_entropy: float = 0.01
    """Weight of the policy's entropy."""

    def __post_init__(self) -> None:
        check_at_least(self, 2, "picks")
        check_at_least(self, 0, "triplet", "reward_margin", "warmup", "policy_entropy")
        check_at_least(self, 1e-9, "policy_rate", "margin", "policy_pool_share")
        check_at_least(self, 0, "policy_share")
        check_at_most(self, 1, "policy_share", "policy_pool_share", "margin")


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
