"""Encoder whose features come from a file; its towers are those of a trained encoder (torch)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from xmodal.codes import BinaryCodes
from xmodal.data.dataset import Dataset
from xmodal.data.feature_file import FeatureFile
from xmodal.data.problems import Problems
from xmodal.data.progress import Progress
from xmodal.encoders.derived_encoder import DerivedEncoder
from xmodal.encoders.encoder import Encoded, Encoder
from xmodal.encoders.torch_encoder import RowTensor, TrainedEncoder
from xmodal.errors import ConfigError
from xmodal.features.extract import Array
from xmodal.features.from_file import FileSource, check_dim
from xmodal.features.rows import Features
from xmodal.features.units import FeatureTable
from xmodal.modality import MODALITIES, Modality


def check_features(encoder: Encoder, file: FeatureFile) -> TrainedEncoder:
    """Return an encoder that can encode the features of a file.

    Raises ConfigError for an encoder without towers, and for features of another dimension than
    those of its training.
    """
    if not isinstance(encoder, TrainedEncoder):
        raise ConfigError(
            "a portable encoder contains its backbones and takes no features: name the folder "
            "of xmodal train with --model, or leave --features out"
        )
    for modality in MODALITIES:
        if modality in file.rows:
            check_dim(file, modality, encoder.towers.shape[f"{modality}_dim"])
    return encoder


class FeatureEncoder(DerivedEncoder[TrainedEncoder]):
    """Encodes pictures and captions by their features in ``source`` and the towers of ``encoder``.

    Codes and fingerprint are those of ``encoder``. Raises ConfigError for an encoder without
    towers, and for features of another dimension than those of its training.
    """

    def __init__(self, encoder: Encoder, source: FileSource) -> None:
        super().__init__(check_features(encoder, source.file))
        self.source = source

    def outputs(self, modality: Modality, features: Features) -> Array | None:
        """Return the real-valued outputs of the trained encoder."""
        return self.encoder.outputs(modality, features)

    def encode(
        self,
        modality: Modality,
        sources: Sequence[Any],
        *,
        cache: Path | None = None,
        problems: Problems | None = None,
        progress: Progress | None = None,
    ) -> Encoded:
        """Encode by the features of the file; ``cache`` and ``progress`` have no effect."""
        features, usable = self.source.find(modality, sources, problems)
        outputs = self.encoder.outputs(modality, features)
        return Encoded(BinaryCodes.from_relaxed(outputs), usable, features, outputs)

    def encode_pairs(
        self, pairs: Dataset, *, cache: Path | None = None, progress: Progress | None = None
    ) -> tuple[Dataset, dict[Modality, Encoded]]:
        """Encode pairs as :meth:`Encoder.encode_pairs`, without outputs and reading by rows."""
        table = FeatureTable.of(pairs, self.source)
        encoded: dict[Modality, Encoded] = {}
        for modality, rows in table.rows.items():
            codes = self.encoder.towers.codes(modality, RowTensor(rows))
            encoded[modality] = Encoded(codes, np.ones(len(rows), np.bool_), rows)
        return table.data, encoded
