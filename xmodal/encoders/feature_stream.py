"""Encoding of files of features with bounded memory, without an object for each item."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from xmodal.codes import BinaryCodes
from xmodal.data.feature_file import FeatureFile
from xmodal.data.problems import Problems
from xmodal.data.sharding import Shard
from xmodal.encoders.encoder import Encoder
from xmodal.features.extract import usable_rows
from xmodal.features.from_file import UNUSABLE
from xmodal.features.rows import unit_float16
from xmodal.index.documents import DocumentBatch, to_offsets
from xmodal.index.origins import Origin
from xmodal.modality import MODALITIES, Modality
from xmodal.vectors import to_int8

CHUNK_ITEMS = 4096


def encode_features(
    encoder: Encoder,
    file: FeatureFile,
    *,
    shard: Shard,
    source: str,
    problems: Problems,
    label_column: str | None = None,
    vectors: bool = True,
) -> Iterator[DocumentBatch]:
    """Yield the documents of a shard of a file of features, one batch for each chunk.

    The file must outlive the iterator: arrays that are mapped from .npy files are read one chunk at
    a time. Unusable features are recorded in ``problems``. Raises ConfigError for features of
    another dimension than those of the encoder's training, and like ``FeatureFile.dataset``.
    """
    from xmodal.encoders.feature_encoder import check_features  # needs torch

    check_features(encoder, file)
    for start in range(0, len(file), CHUNK_ITEMS):
        part = file.slice(start, start + CHUNK_ITEMS)
        items = part.dataset(label_column).items
        chosen = np.array([shard.has_key(name) for name in part.names], np.bool_)
        packed: dict[Modality, npt.NDArray[np.uint8]] = {}
        columns: dict[Modality, npt.NDArray[np.int8]] = {}
        counts: dict[Modality, npt.NDArray[np.int64]] = {}
        for modality in MODALITIES:
            outputs, counts[modality] = _outputs(encoder, part, modality, chosen, problems)
            packed[modality] = BinaryCodes.from_relaxed(outputs).packed
            columns[modality] = to_int8(outputs)
        rows = np.flatnonzero(counts["image"] + counts["text"])
        ids = [part.names[row] for row in rows.tolist()]
        found = (items[row].document() for row in rows.tolist())
        fields = [json.dumps(document, ensure_ascii=False) for document in found]
        offsets = {modality: to_offsets(counts[modality][rows]) for modality in MODALITIES}
        origins = [Origin(source, id_).to_text() for id_ in ids]
        yield DocumentBatch(ids, packed, offsets, fields, columns if vectors else {}, origins)


def _outputs(
    encoder: Encoder,
    part: FeatureFile,
    modality: Modality,
    chosen: npt.NDArray[np.bool_],
    problems: Problems,
) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
    """Return the outputs (m, bits) of the usable features of the chosen items, and the number of
    them for each item, (n,).
    """
    if modality not in part.rows:
        return np.zeros((0, encoder.bits), np.float32), np.zeros(len(part), np.int64)
    offsets = part.offsets[modality]
    item = np.repeat(np.arange(len(part)), np.diff(offsets))
    rows = np.flatnonzero(chosen[item])
    features = unit_float16(np.asarray(part.rows[modality])[rows])
    usable = usable_rows(features)
    for row in rows[~usable]:
        name, several = part.names[item[row]], offsets[item[row] + 1] - offsets[item[row]] > 1
        place = f"#{row - offsets[item[row]]}" if several else ""
        problems.add(UNUSABLE[modality], f"{name}{place}"[:80])
    counts = np.bincount(item[rows[usable]], minlength=len(part))
    if not usable.any():
        return np.zeros((0, encoder.bits), np.float32), counts
    outputs = encoder.outputs(modality, features[usable])
    assert outputs is not None
    return outputs, counts
