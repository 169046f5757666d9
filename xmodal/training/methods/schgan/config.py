"""Settings of the practical mode."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from xmodal.config import check_at_least, check_at_most
from xmodal.training.objective import ClassGroundwork


@dataclass(frozen=True, kw_only=True)
class Config(ClassGroundwork):
    """Settings of the practical mode. The batch is also the pool of candidates."""

    negatives: Literal["policy", "semi-hard", "hardest", "random"] = "semi-hard"
    """Who chooses x-: the generator, or (no adversary) a rule."""
    triplet: float = 3.0
    """Weight of the hinge on x+ and x-."""
    margin: float = 0.2
    """beta, as a share of the bits."""
    aim: float = 0.5
    """Where the generator's reward is largest: x- farther from the query than x+ by this share of
    the margin. 1 is the paper's, where the hinge is zero already."""
    pace: float = 0.0
    """How much easier than ``aim`` the generator begins, as a share of the margin; at the end of
    training it is at ``aim`` (self-paced)."""
    warmup: int = 2
    """Epochs before the adversary has a say."""
    estimator: Literal["exact", "reinforce"] = "exact"
    picks: int = 8
    """Samples a query for REINFORCE."""
    policy_share: float = 0.5
    """Part of the negatives that the adversary chooses; the rest is drawn at random."""
    policy_uses: float = 0.05
    """Share of the pool that the policy spreads over."""
    policy_rate: float = 1e-3
    policy_entropy: float = 0.01

    positives: Literal["believed", "policy"] = "believed"
    """Whether a policy chooses further matches for pairs whose class is in doubt."""
    positive_share: float = 0.3
    """How much of the contrast's target those matches get where the doubt is full."""
    positive_uses: float = 0.02
    """Share of the pool that this policy spreads over."""
    trust: Literal["all", "policy"] = "all"
    """Whether a policy keeps or drops pseudo-labels."""
    trust_entropy: float = 0.3

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 2, "picks")
        check_at_least(self, 0, "triplet", "aim", "pace", "warmup")
        check_at_least(self, 0, "policy_entropy", "trust_entropy")
        check_at_least(self, 1e-9, "policy_rate", "policy_uses", "positive_uses", "margin")
        shares = ("policy_share", "policy_uses", "positive_share", "positive_uses")
        check_at_least(self, 0, *shares)
        check_at_most(self, 1, *shares, "margin")
