"""Agreement of codes of two processors or runtimes, and bits so near the threshold that they vary.

Sums of floating-point numbers depend on their order, which differs between processors, numbers of
threads and runtimes. It decides a bit whose real value is almost zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xmodal.checksums import is_damage
from xmodal.codes import BinaryCodes
from xmodal.data.dataset import Dataset
from xmodal.data.feature_arrays import LOAD_ERRORS
from xmodal.data.problems import Problems
from xmodal.encoders.encoder import EncodedSources, Encoder
from xmodal.errors import ConfigError, DataError
from xmodal.modality import MODALITIES, Modality

MARGIN = 1e-4
"""Distance of an output from the threshold below which machines may give different bits."""
MIN_EQUAL = 0.999
"""Share of equal bits that two machines or runtimes should reach."""


@dataclass(frozen=True)
class Agreement:
    """Shares of equal ``bits`` and ``codes`` among ``n`` codes that are in both results."""

    bits: float
    codes: float
    n: int


def count_near_threshold(
    encoder: Encoder, data: Dataset, cache: Path | None
) -> dict[Modality, tuple[int, int]]:
    """Return by modality the number of bits within ``MARGIN`` of the threshold, and of all bits.

    Raises ConfigError for an encoder that computes codes alone.
    """
    counts: dict[Modality, tuple[int, int]] = {}
    for modality in MODALITIES:
        sources = list(dict.fromkeys(one for item in data for one in item.sources(modality)))
        if sources:
            encoded = encoder.encode(modality, sources, cache=cache, problems=Problems())
            if encoded.outputs is None:
                raise ConfigError(
                    "--margins needs real-valued outputs, this encoder has codes alone: name the "
                    "folder of xmodal train with --model"
                )
            outputs = encoded.outputs[encoded.usable]
            counts[modality] = int((np.abs(outputs) < MARGIN).sum()), outputs.size
    return counts


def to_arrays(codes: Mapping[Modality, EncodedSources], bits: int) -> dict[str, Any]:
    """Return the arrays of a file of codes: bits, and ids, positions and codes by modality."""
    arrays: dict[str, Any] = {"bits": np.array(bits)}
    for modality, encoded in codes.items():
        arrays[f"{modality}_ids"] = np.array(encoded.id_of_codes(), dtype=str)
        arrays[f"{modality}_positions"] = encoded.positions
        arrays[f"{modality}_codes"] = encoded.codes.packed
    return arrays


def compare_codes(arrays: Mapping[str, Any], path: Path) -> dict[Modality, Agreement]:
    """Compare the arrays of :func:`to_arrays` with those in the file ``path``, by id and position.

    Raises DataError for a file that cannot be read, or without a common code; ConfigError for codes
    of another width.
    """
    try:
        # numpy leaves a damaged file open that it opens by its path.
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as stored:
            other = {name: stored[name] for name in arrays}
    except LOAD_ERRORS as error:
        if not is_damage(error):
            raise
        reason = " ".join(str(error).split())[:120]
        raise DataError(f"{path} is no file of codes ({reason}): expected one of --out") from None
    bits = int(arrays["bits"])
    if int(other["bits"]) != bits:
        raise ConfigError(f"{path} has codes of {other['bits']} bits, expected {bits}")
    found: dict[Modality, Agreement] = {}
    for modality in MODALITIES:
        rows = [_rows(one, modality) for one in (arrays, other)]
        common = [key for key in rows[0] if key in rows[1]]
        if common:
            first, second = (
                BinaryCodes(one[f"{modality}_codes"][[row[key] for key in common]], bits).to_bits()
                for one, row in zip((arrays, other), rows, strict=True)
            )
            equal = first == second
            found[modality] = Agreement(
                float(equal.mean()), float(equal.all(axis=1).mean()), len(common)
            )
    if not found:
        raise DataError(f"{path} has no code of the same data: compare codes of equal ids")
    return found


def _rows(arrays: Mapping[str, Any], modality: Modality) -> dict[tuple[str, int], int]:
    """Return the row of each (id, position)."""
    names = arrays[f"{modality}_ids"].tolist(), arrays[f"{modality}_positions"].tolist()
    return {key: row for row, key in enumerate(zip(*names, strict=True))}
