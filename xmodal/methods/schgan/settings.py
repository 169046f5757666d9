"""Settings of the practical mode."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from xmodal.methods.schgan import paper_settings
from xmodal.settings import check_at_least, check_at_most


@dataclass(frozen=True)
class Config:
    """Settings; the defaults stand here and nowhere else."""

    epochs: int = 30
    batch: int = 512
    """Pairs a step, and the pool of candidates; fewer where an epoch would have under 8 steps."""
    hidden: int = 512
    feature_dropout: float = 0.3
    """Share of the features that a training step hides from the towers."""
    learning_rate: float = 5e-3
    weight_decay: float = 1e-2

    classes: float = 3.0
    """Weight of the cross-entropy to the classes' codewords."""
    certainty: float = 0.85
    """Posterior of a class whose codeword a code equals while the other codewords are orthogonal:
    the more classes, the lower the temperature has to be."""
    pseudo_labels: bool = True
    """Whether unlabelled pairs learn the classes that both of their sides together suggest."""
    pairs: float = 0.7
    """Weight of the contrast of natural pairs and other matches."""
    match_share: float = 0.3
    """How much of that contrast goes to all likely matches, the rest to the natural pair."""
    temperature: float = 0.1
    """Of softmaxes over code similarities, which lie in [-1, 1]."""
    neighbours: float = 2.0
    """Weight of keeping neighbours in the shared space, for pairs whose class is in doubt."""
    neighbour_temperature: float = 0.1
    directions: int = 64
    """Canonical directions of the shared space."""
    quantise: float = 0.1
    balance: float = 0.1
    decorrelate: float = 0.1
    code_critic: float = 0.0
    """Weight of a critic that tells codes from coin flips; 0: there is none."""

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
        check_at_least(self, 1, "epochs", "hidden", "directions")
        check_at_least(self, 2, "batch", "picks")
        check_at_least(
            self, 0, "weight_decay", "triplet", "pairs", "classes", "neighbours", "aim", "pace"
        )
        check_at_least(self, 0, "quantise", "balance", "decorrelate", "policy_entropy", "warmup")
        check_at_least(self, 0, "trust_entropy", "code_critic")
        rates = ("learning_rate", "policy_rate", "temperature", "neighbour_temperature")
        check_at_least(self, 1e-9, *rates, "policy_uses", "positive_uses", "margin")
        uses = ("policy_share", "policy_uses", "positive_share", "positive_uses")
        shares = ("feature_dropout", "match_share", *uses)
        check_at_least(self, 0, *shares)
        check_at_most(self, 1, *shares, "margin")
        check_at_least(self, 0.6, "certainty")
        check_at_most(self, 0.9999, "certainty")

    @staticmethod
    def paper(**switches: Any) -> paper_settings.Config:
        """The released program instead, with each of its faults a switch."""
        return paper_settings.Config(**switches)
