"""Settings of the contrastive method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from xmodal.config import check_at_least, check_at_most
from xmodal.errors import ConfigError
from xmodal.training.methods.contrastive.noise import NoiseConfig
from xmodal.training.methods.contrastive.tuning_config import TuningConfig
from xmodal.training.methods.contrastive.unpaired import UnpairedConfig
from xmodal.training.negatives import NegativesConfig

ITQ_BITS = 128
"""Bits up to which codes without prefixes begin as ITQ; benchmarks/code_quality.py compares it."""
FRAME_RATIO = 6
"""Canonical directions of a frame, divided by the root of the number of bits up to its end."""


@dataclass(frozen=True, kw_only=True)
class Config(UnpairedConfig, NegativesConfig, NoiseConfig, TuningConfig):
    """Settings of the contrastive method; benchmarks/tune.py compares other values."""

    epochs: int = 40
    batch: int = 512
    """Units a step; fewer where an epoch would have under 8 steps."""
    hidden: int = 512
    """Hidden units of the towers."""
    dropout: float = 0.4
    """Dropout rate of the towers' input features and hidden units."""
    learning_rate: float = 1e-3
    linear_rate: float = 0.1
    """Learning rate of the linear maps that begin as CCA, as a share of ``learning_rate``."""
    weight_decay: float = 1e-2
    warmup_steps: int = 20
    """Steps in which the learning rate rises; then it follows a cosine to 0."""
    prefixes: int = 0
    """Smallest number of first bits that are trained as codes of their own, beside twice as many,
    four times as many ...; 0: only whole codes are trained."""
    temperature: float = 0.05
    """Temperature of the softmax over code similarities, which lie in [-1, 1]."""
    quantise: float = 0.1
    """Weight of the distance of relaxed codes from binary ones."""
    caption_mix: float = 0.5
    """A caption's features are mixed with those of another caption of the same unit; the largest
    share of the other one."""

    label_weight: float = 1.0
    """Weight of the cross-entropy to the class prototypes, with labels."""
    match_share: float = 0.3
    """Share of the contrastive target for units that share a label, with labels."""
    certainty: float = 0.85
    """Softmax probability of a class for a code that equals its prototype, with all other
    prototypes orthogonal to it; determines the temperature by the number of classes."""
    pseudo_labels: bool = True
    """Train unlabelled units on predicted class probabilities, with labels."""
    directions: int = 64
    """Canonical directions in the input of the predicted class probabilities."""

    negatives: Literal["none", "policy", "semi-hard", "random"] = "none"  # type: ignore[assignment]
    """Negatives of an additional hinge: none, those of SCH-GAN's policy, or of a rule."""

    def __post_init__(self) -> None:
        UnpairedConfig.__post_init__(self)
        TuningConfig.__post_init__(self)
        NegativesConfig.__post_init__(self)
        check_at_least(self, 1, "epochs", "hidden", "directions", "warmup_steps")
        check_at_least(self, 2, "batch")
        check_at_least(self, 0, "weight_decay", "quantise", "label_weight", "linear_rate")
        check_at_least(self, 0, "prefixes")
        check_at_least(self, 1e-9, "learning_rate", "temperature")
        check_at_least(self, 0, "dropout", "caption_mix", "match_share")
        check_at_most(self, 1, "dropout", "caption_mix", "match_share")
        check_at_least(self, 0.6, "certainty")
        check_at_most(self, 0.9999, "certainty")
        if self.prefixes % 8:
            raise ConfigError(f"prefixes is {self.prefixes}, expected a multiple of 8")

    def frames(self, bits: int) -> list[tuple[int, int]]:
        """Return bits and canonical directions of the frames that training begins with.

        One for each prefix of ``bits`` bits, and one for the rest; empty for few bits without
        prefixes, which begin with ITQ.
        """
        widths = self.prefix_widths(bits)
        ends = [*widths, bits] if widths or bits > ITQ_BITS else []
        return [
            (end - begin, round(FRAME_RATIO * end**0.5))
            for begin, end in zip([0, *ends], ends, strict=False)
        ]

    def prefix_widths(self, bits: int) -> tuple[int, ...]:
        """Return the numbers of first bits of ``bits`` that are codes of their own, ascending."""
        widths = []
        width = self.prefixes
        while 0 < width < bits:
            widths.append(width)
            width *= 2
        return tuple(widths)
