"""Training of the last blocks of backbones: sources of features before and after it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from xmodal.config import Options
from xmodal.encoders.changed_weights import Changed
from xmodal.encoders.torch_encoder import BackboneRef
from xmodal.errors import ConfigError
from xmodal.features.backbones.changed import with_changed
from xmodal.features.states import StateSource, TrainedImages, TrainedSide, TrainedTexts
from xmodal.features.units import BackboneSource, FeatureSource, FeatureTable
from xmodal.modality import Modality
from xmodal.training.methods.contrastive.tuning_config import NONE


def check_method(method: str, settings: Mapping[str, Any]) -> None:
    """Raise ConfigError if settings of another method than "contrastive" name blocks."""
    if method != "contrastive" and settings.get("fine_tune", NONE) != NONE:
        raise ConfigError(
            f"fine_tune needs the method contrastive, found {method}: add --method contrastive, or "
            "leave --fine-tune out"
        )


def state_source(
    source: FeatureSource, blocks: Mapping[Modality, int], options: Options
) -> StateSource:
    """Return a source of features whose last blocks are trained; ``blocks``: their numbers.

    Raises ConfigError for features of a file and for a precision other than float32, ModelError for
    a backbone that has no such blocks.
    """
    if not isinstance(source, BackboneSource):
        raise ConfigError(
            "fine_tune needs backbones, pictures and captions, found features of a file: leave "
            "--features or --fine-tune out"
        )
    if options.precision != "float32":
        raise ConfigError(
            f"precision is {options.precision}, expected float32 for fine_tune: leave --precision "
            "or --fine-tune out"
        )
    sides: dict[Modality, TrainedSide] = {}
    if "image" in blocks:
        sides["image"] = TrainedImages(source.image, blocks["image"])
    if "text" in blocks:
        sides["text"] = TrainedTexts(source.text, blocks["text"])
    return StateSource(source.image, source.text, source.cache, source.progress, sides)


@dataclass(frozen=True)
class Tuned:
    """Backbones after the training: their references, changed weights, and features of the data."""

    refs: dict[Modality, BackboneRef]
    changed: Changed
    table: FeatureTable

    @classmethod
    def of(
        cls, source: StateSource, refs: Mapping[Modality, BackboneRef], table: FeatureTable
    ) -> Tuned:
        """Compute the features of the data of ``table`` by the changed backbones."""
        backbones: dict[Modality, Any] = {"image": source.image, "text": source.text}
        named = dict(refs)
        changed: dict[Modality, Any] = {}
        for modality, side in source.sides.items():
            changed[modality] = side.tensors()
            backbones[modality] = with_changed(backbones[modality], changed[modality])
            fingerprint = backbones[modality].fingerprint
            named[modality] = BackboneRef(refs[modality].spec, fingerprint)
        features = BackboneSource(
            backbones["image"], backbones["text"], source.cache, source.progress
        )
        return cls(named, changed, FeatureTable.of(table.data, features))
