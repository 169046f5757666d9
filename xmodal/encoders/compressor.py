"""Compressor: an affine map from vectors to binary codes, and its folder."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from xmodal import linear_models
from xmodal.checksums import file_record
from xmodal.codes import BinaryCodes, check_bits
from xmodal.data.vectors import Matrix, check_features, unit_chunks
from xmodal.encoders.folder import (
    CODES,
    COMPRESSOR,
    FILES_KEY,
    REPORT,
    WEIGHTS,
    check_fingerprint,
    check_recorded,
    damage_as_model_error,
    read_config,
    read_json,
    write_config,
)
from xmodal.errors import DataError
from xmodal.writing import atomic_write, write_bytes, write_json


@dataclass(frozen=True, eq=False)
class Compressor:
    """Map from vectors to codes: bit = weight x + offset > 0 for unit vectors x.

    ``weight`` (bits, dim) and ``offset`` (bits,) are float32. ``about``: settings, seed, versions
    and identity of the training run.

    >>> import numpy as np
    >>> compressor = xmodal.Compressor(np.eye(8, dtype=np.float32), np.zeros(8, np.float32))
    >>> compressor.bits
    8
    """

    weight: linear_models.Matrix
    offset: linear_models.Matrix
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def bits(self) -> int:
        """Width of the codes."""
        return len(self.weight)

    @property
    def dim(self) -> int:
        """Width of the vectors."""
        return int(self.weight.shape[1])

    @cached_property
    def fingerprint(self) -> str:
        """Hash of weight and offset: 16 hexadecimal digits."""
        hashed = hashlib.blake2b(f"{self.weight.shape}\0".encode(), digest_size=8)
        for array in (self.weight, self.offset):
            hashed.update(np.ascontiguousarray(array, "<f4").tobytes())
        return hashed.hexdigest()

    def encode(self, features: Matrix) -> BinaryCodes:
        """Encode vectors (n, dim) float16, float32 or float64; one code a row.

        Raises DataError for another width or shape, and for NaN or infinity.
        """
        check_features(features)
        if features.shape[1] != self.dim:
            raise DataError(
                f"the vectors have {features.shape[1]} dimensions, expected {self.dim}: use "
                "vectors of the model that the compressor was trained on"
            )
        parts = [
            BinaryCodes.from_relaxed(rows @ self.weight.T + self.offset)
            for rows in unit_chunks(features)
        ]
        return BinaryCodes.concatenate(parts)

    def save(
        self, folder: Path, codes: BinaryCodes, report: Mapping[str, Any] | None = None
    ) -> None:
        """Write the folder with ``codes`` and the report; ``config.json`` is written last."""
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(folder / CODES) as file:
            np.save(file, codes.packed, allow_pickle=False)
        write_bytes(folder / WEIGHTS, save({"weight": self.weight, "offset": self.offset}))
        written = [CODES, WEIGHTS]
        if report is not None:
            write_json(folder / REPORT, report)
            written.append(REPORT)
        config = {
            "format": COMPRESSOR.version,
            "kind": COMPRESSOR.kind,
            "fingerprint": self.fingerprint,
            "bits": self.bits,
            "dim": self.dim,
            FILES_KEY: {name: file_record(folder / name) for name in written},
        }
        write_config(folder, config | self.about)

    @classmethod
    def load(cls, folder: str | Path) -> Compressor:
        """Load the compressor in ``folder``; raise ModelError if there is none or it is damaged."""
        path = Path(folder)
        config = read_config(path, COMPRESSOR)
        with damage_as_model_error(path, COMPRESSOR, SafetensorError):
            check_recorded(path, config, WEIGHTS)
            recorded, weights = config["fingerprint"], load_file(path / WEIGHTS)
            weight, offset = weights["weight"], weights["offset"]
            if weight.shape != (check_bits(config["bits"]), config["dim"]):
                raise ValueError(f"weight has shape {weight.shape}")
            if offset.shape != weight.shape[:1] or weight.dtype != np.float32:
                raise ValueError(f"offset has shape {offset.shape}, weight is {weight.dtype}")
        loaded = cls(weight, offset, COMPRESSOR.about(config))
        check_fingerprint(path, COMPRESSOR, loaded.fingerprint, recorded)
        return loaded


def read_codes(folder: str | Path) -> BinaryCodes:
    """Read the codes of a compressor's folder; raise ModelError for a damaged file."""
    path = Path(folder)
    config = read_config(path, COMPRESSOR)
    with damage_as_model_error(path, COMPRESSOR):
        check_recorded(path, config, CODES)
        # A mapped file does not allocate the memory that a damaged header asks for.
        packed = np.load(path / CODES, mmap_mode="r", allow_pickle=False)
        return BinaryCodes(np.array(packed), check_bits(config["bits"]))


def read_report(folder: str | Path) -> dict[str, Any] | None:
    """Read the report of a compressor's folder; raise ModelError for a damaged file.

    None for codes of ``--apply``, which have none.
    """
    path = Path(folder)
    config = read_config(path, COMPRESSOR)
    with damage_as_model_error(path, COMPRESSOR):
        check_recorded(path, config, REPORT)
        return read_json(path / REPORT) if (path / REPORT).exists() else None
