"""Settings of the released SCH-GAN, and the faults of the release by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from xmodal.config import check_at_least, check_at_most
from xmodal.errors import ConfigError

Reward = Literal["A", "B", "C"]

FAULTS: dict[str, dict[str, Any]] = {
    "zero pair labels": {"pair_target": "zero"},
    "softmax over picks": {"softmax": "picks"},
    "needle-thin reward": {"reward_width": "fixed"},
    "leaked labels": {"class_labels": "all"},
    "best epoch on queries": {"best_epoch": "queries"},
    "false negatives": {"false_negatives": "ignored"},
    "decay not applied": {"rate_decay": "declared"},
    "bits left alone": {
        "start": "released",
        "quantise": 0.0,
        "balance": 0.0,
        "decorrelate": 0.0,
    },
    "fixed margin": {"margin_unit": "absolute"},
    "plain policy gradient": {"policy_gradient": "plain", "entropy": 0.0},
    "untrained generator": {"generator_pretraining": False},
}
"""Faults 1 to 11 of the release, each with the settings that reproduce it."""


@dataclass(frozen=True)
class Config:
    """Settings; each fault of the release is a setting whose default is the corrected value.

    Distances here are |h - h'|^2 of codes h in (0, 1), as released: between 0 and the bits.
    """

    # ---- architecture and schedule, as released unless said otherwise

    hidden: int = 8192
    epochs: int = 30
    """Outer epochs, after pretraining: the generator's passes, then one of the discriminator."""
    generator_passes: int = 2
    pretraining: int = 5
    """Epochs on labelled triplets before that; this default is not the release's."""
    redraw: int = 30
    """Pretraining epochs after which triplets are sampled again (as released on Wikipedia)."""
    triplets: int = 4
    """Triplets a query in pretraining."""
    pretraining_batch: int = 20
    """Triplets a step; the learning rate does not depend on it."""
    pretraining_rate: float = 0.01
    candidate_share: float = 0.1
    """Share of the training pairs in the pool of a step: 1/10 on Wikipedia, else 1/20."""
    picks: int = 2
    random_negatives: int = 2
    """Random negatives of the discriminator, in addition to the picks."""
    query_share: float = 0.25
    """Share of the queries, and of the triplets, that a pass uses. As released 1; smaller for
    speed, like the next setting."""
    queries_per_step: int = 128
    """As released 1: an update of all weights for each query, with a pool of its own; with
    ``query_share=1`` that takes hours, the default takes minutes. Queries of a step share their
    pool, and ``learning_rate`` is multiplied by their number; ``generator_rate`` is not."""
    learning_rate: float = 1e-4
    generator_rate: float = 0.01
    margin: float = 5.0
    """beta."""
    pair_weight: float = 0.1
    """gamma, of the cross-entropy on natural pairs."""
    weight_decay: float = 0.01
    """lambda, of |w|^2 / 2 of all weights and biases."""
    reward: Reward = "B"
    """With f = beta + d+ - d-. A: sigmoid(max(0, f)), as in UGACH. B: 10^-|f|, as released. C:
    log(1 + exp(max(0, f))), the literal minimax gradient. A and C reward the hardest items."""

    # ---- the faults, 1 to 11

    pair_target: Literal["match", "natural", "zero"] = "match"
    """1. Target of the cross-entropy for x+. As released "zero", for every item. "natural", which
    the release documents: 1 for the natural pair of the query alone, which a random x+ rarely is.
    "match": 1 for every x+, so that the term does not push positives apart."""
    softmax: Literal["pool", "picks"] = "pool"
    """2. The items over which p sums to 1. As released the "picks" alone: with p1 + p2 = 1 the
    gradient of |p1 - r1| + |p2 - r2| is 0 if both p are on the same side of their r. Corrected: the
    whole "pool", as in the paper. With a baseline (fault 10 corrected) the sum cancels from the
    selection gradient, and only the entropy term differs."""
    reward_width: Literal["spread", "fixed"] = "spread"
    """3. Width of reward B, exp(-|f| / width). As released "fixed", 1 / ln 10: almost 0 nearly
    everywhere. Corrected: the standard deviation of f over the pool. A and C have no width."""
    class_labels: Literal["labelled", "all"] = "labelled"
    """4. Labels in the generator's class loss. As released those of "all" picks, hidden labels too
    (if the data has them in the rows of unlabelled pairs)."""
    best_epoch: Literal["validation", "queries"] = "validation"
    """5. Data that selects the best epoch. As released the test "queries", which are not part of
    the training data: the run needs ``with_selection_queries(data, queries, config)``."""
    false_negatives: Literal["estimated", "ignored"] = "estimated"
    """6. Unlabelled items of the query's class. As released "ignored": they are negatives like all
    others. Corrected: negatives are weighted by the probability of being one, from the generator's
    class logits. Both report the share of false negatives among validation pairs."""
    rate_decay: Literal["applied", "declared"] = "applied"
    """7. As released "declared": the decay is not applied to the optimiser."""
    decay: float = 0.9
    """Factor of both rates from one outer epoch to the next; not the release's."""
    start: Literal["scaled", "released"] = "scaled"
    """8. Initialisation. "released": normal of std .1 for any features, so units are saturated
    (long vectors) or almost constant (short ones). "scaled": the inputs of tanh and sigmoid have
    mean 0 and standard deviation 1 over the training features."""
    quantise: float = 0.1
    """8, too. Weight of this term per bit; 0 as released, like the next two."""
    balance: float = 0.1
    decorrelate: float = 0.1
    margin_unit: Literal["bits", "absolute"] = "bits"
    """9. As released "absolute": beta is 5 for any K. Corrected: beta K / 64."""
    policy_gradient: Literal["centred", "plain"] = "centred"
    """10. As released "plain": mean |p - r| for reward B, -mean(r log p) for A and C. Corrected:
    REINFORCE with a leave-one-out baseline and entropy, for each of the three."""
    entropy: float = 0.01
    """Weight of the policy's entropy with the centred policy gradient; 0 as released."""
    generator_pretraining: bool = True
    """11. As released false. Corrected: on the discriminator's triplets, and on classes."""

    def __post_init__(self) -> None:
        check_at_least(self, 1, "hidden", "epochs", "generator_passes", "redraw", "triplets")
        check_at_least(self, 1, "queries_per_step", "pretraining_batch")
        check_at_least(self, 2, "picks")
        check_at_least(self, 0, "pretraining", "random_negatives", "pair_weight", "weight_decay")
        check_at_least(self, 0, "quantise", "balance", "decorrelate", "entropy")
        rates = ("learning_rate", "generator_rate", "pretraining_rate")
        check_at_least(self, 1e-9, *rates, "margin", "candidate_share", "query_share", "decay")
        check_at_most(self, 1, "candidate_share", "query_share", "decay")

    @classmethod
    def as_released(cls, **changes: Any) -> Config:
        """Return settings with every fault of the release; ``changes`` override them."""
        return cls(**{k: v for one in FAULTS.values() for k, v in one.items()} | changes)

    @classmethod
    def with_faults(cls, *names: str, **changes: Any) -> Config:
        """Return settings with these of ``FAULTS``; raise ConfigError for an unknown one."""
        unknown = [name for name in names if name not in FAULTS]
        if unknown:
            raise ConfigError(f"there is no fault {unknown[0]!r}; there are {', '.join(FAULTS)}")
        return cls(**{k: v for name in names for k, v in FAULTS[name].items()} | changes)

    def beta(self, bits: int) -> float:
        """Return the margin for codes of ``bits`` bits."""
        return self.margin * bits / 64 if self.margin_unit == "bits" else self.margin

    def decayed(self, epoch: int) -> float:
        """Return the factor of the learning rates in an outer epoch, counted from 1."""
        return float(self.decay ** (epoch - 1)) if self.rate_decay == "applied" else 1.0
