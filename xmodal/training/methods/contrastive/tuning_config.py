"""Settings of the fine-tuning of backbones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from xmodal.config import check_at_least
from xmodal.errors import ConfigError
from xmodal.modality import Modality

NONE = "none"


@dataclass(frozen=True, kw_only=True)
class TuningConfig:
    """Settings of a training in which blocks of the backbones are trained with the towers."""

    fine_tune: str = NONE
    """Numbers of the last blocks of the backbones that are trained: "text:2", "text:2,image:1"."""
    fine_tune_rate: float = 3e-4
    """Learning rate of the blocks."""

    def __post_init__(self) -> None:
        parse_blocks(self.fine_tune)
        check_at_least(self, 0, "fine_tune_rate")

    @property
    def blocks(self) -> dict[Modality, int]:
        """Numbers of the blocks that are trained, by modality; empty without any."""
        return parse_blocks(self.fine_tune)


def parse_blocks(text: str) -> dict[Modality, int]:
    """Return the numbers of blocks by modality: "text:2,image:1" -> {"text": 2, "image": 1}.

    Empty for "none". Raises ConfigError for another form, and for a modality that is named twice.
    """
    if text == NONE:
        return {}
    found: dict[Modality, int] = {}
    for part in text.split(","):
        name, _, number = part.strip().partition(":")
        modality = next((one for one in get_args(Modality) if one == name), None)
        valid = number.isascii() and number.isdigit() and len(number) < 5 and int(number) > 0
        if modality is None or modality in found or not valid:
            raise ConfigError(
                f"fine_tune is {text!r}, expected numbers of blocks of one or both backbones, such "
                "as text:2,image:1"
            )
        found[modality] = int(number)
    return found
