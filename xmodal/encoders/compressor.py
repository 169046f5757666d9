"""The compressor of vectors to codes, and its folder with the codes."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save

from xmodal import linear_models
from xmodal.codes import BinaryCodes, check_bits
from xmodal.data.vectors import Matrix, check_features, unit_chunks
from xmodal.encoders.folder import (
    CHECKPOINT,
    CONFIG,
    DAMAGED_WEIGHTS,
    HISTORY,
    WEIGHTS,
    write_bytes,
    write_json,
)
from xmodal.errors import ConfigError, DataError, ModelError

CODES, REPORT = "codes.npy", "report.json"
FILES = {CODES, WEIGHTS, CONFIG, REPORT, HISTORY, CHECKPOINT}
"""Files of a folder of codes; a restart removes these and nothing else."""
FORMAT, KIND = 1, "compressor"


@dataclass(frozen=True, eq=False)
class Compressor:
    """Encodes vectors: bit = weight x + offset > 0 for unit vectors x.

    ``weight`` (bits, dim) and ``offset`` (bits,), both float32. ``about``: settings, seed, versions
    and identity of the training run.
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
        """16 hexadecimal digits: a hash of weight and offset."""
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
                f"the vectors have {features.shape[1]} dimensions, these codes were made of "
                f"{self.dim}: bring vectors of the same model"
            )
        parts = [
            BinaryCodes.from_relaxed(rows @ self.weight.T + self.offset)
            for rows in unit_chunks(features)
        ]
        return BinaryCodes.concatenate(parts)

    def save(self, folder: Path, codes: BinaryCodes) -> None:
        """Write the folder, with codes; ``config.json`` is last: a folder with it is complete."""
        folder.mkdir(parents=True, exist_ok=True)
        new = folder / f"{CODES}.new"
        with open(new, "wb") as file:
            np.save(file, codes.packed, allow_pickle=False)
        os.replace(new, folder / CODES)
        weights = {"weight": self.weight, "offset": self.offset}
        write_bytes(folder / WEIGHTS, save(weights))
        own = {"format": FORMAT, "kind": KIND, "fingerprint": self.fingerprint}
        write_json(folder / CONFIG, own | {"bits": self.bits, "dim": self.dim} | self.about)

    @classmethod
    def load(cls, folder: str | Path) -> Compressor:
        """Load the compressor in ``folder``; raise ModelError if there is none or it is damaged."""
        path = Path(folder)
        if not (path / CONFIG).is_file():
            hint = (
                "the run there was stopped: give the same command again to go on"
                if (path / CHECKPOINT).exists()
                else f"make them with xmodal compress FEATURES.npy --out {path}"
            )
            raise ModelError(f"there are no finished codes at {path}: {hint}")
        try:
            config = read_json(path / CONFIG)
            if config.get("kind") != KIND:
                raise ModelError(
                    f"{path} is not a folder of xmodal compress: an encoder of pictures and texts "
                    "is for xmodal encode"
                )
            if config["format"] != FORMAT:
                raise ModelError(
                    f"{path} has format {config['format']}, this version reads {FORMAT}: make the "
                    "codes again, or use the version that wrote them"
                )
            written, weights = config["fingerprint"], load_file(path / WEIGHTS)
            weight, offset = weights["weight"], weights["offset"]
            if weight.shape != (check_bits(config["bits"]), config["dim"]):
                raise ValueError(f"weight has shape {weight.shape}")
            if offset.shape != weight.shape[:1] or weight.dtype != np.float32:
                raise ValueError(f"offset has shape {offset.shape}, weight is {weight.dtype}")
        except DAMAGED_WEIGHTS as error:
            reason = " ".join(str(error).split())[:160]
            raise ModelError(
                f"the codes in {path} are damaged ({reason}): make them again"
            ) from None
        own = ("format", "kind", "fingerprint", "bits", "dim")
        about = {name: value for name, value in config.items() if name not in own}
        loaded = cls(weight, offset, about)
        if loaded.fingerprint != written:
            raise ModelError(
                f"the codes in {path} have fingerprint {loaded.fingerprint}, their config says "
                f"{written}: weights and config do not belong together"
            )
        return loaded


def prepare_folder(folder: Path, restart: bool) -> bool:
    """Create or clear a folder for codes; return whether finished codes are in it.

    Raises ConfigError if it is a file, or a folder with other files.
    """
    if folder.is_file():
        raise ConfigError(f"{folder} is a file, expected a folder to put the codes in")
    there = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    kept = {name for name in there if not name.endswith(".new")}
    others = kept - FILES if restart or kept & {CONFIG, CHECKPOINT} else kept
    if others:
        raise ConfigError(
            f"{folder} is a folder with other things in it ({min(others)}): name a new one"
        )
    if restart:
        for name in there:
            (folder / name).unlink()
    folder.mkdir(parents=True, exist_ok=True)
    return (folder / CONFIG).is_file()


def read_codes(folder: str | Path) -> BinaryCodes:
    """Read the codes of a folder; raise ModelError for a damaged file."""
    path = Path(folder) / CODES
    try:
        packed = np.load(path, allow_pickle=False)
        return BinaryCodes(packed, packed.shape[1] * 8)
    except DAMAGED_WEIGHTS as error:
        reason = " ".join(str(error).split())[:160]
        raise ModelError(f"{path} is damaged ({reason}): make the codes again") from None


def read_json(path: Path) -> Any:
    """Read a JSON object; raise ModelError for anything else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} is damaged ({error}): make the codes again") from None
    if not isinstance(content, dict):
        raise ModelError(f"{path} is damaged (no JSON object): make the codes again")
    return content
