"""The folder of an encoder: file names, reading, damage, atomic writing."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from xmodal.encoders.calibration import Confidence
from xmodal.errors import CodeError, ModelError

CONFIG, SPLIT = "config.json", "split.json"
WEIGHTS = "weights.safetensors"
HISTORY, CHECKPOINT = "history.jsonl", "checkpoint.pt"
FILES, DIGEST = "files", "sha256"
"""Keys of ``config.json``: records of files, and the digest of all other keys."""


DAMAGE = (AttributeError, LookupError, TypeError, ValueError, OSError, RuntimeError, CodeError)
"""Exceptions that reading a damaged file may raise."""
DAMAGED_WEIGHTS = (*DAMAGE, SafetensorError)
"""The same for a folder with weights."""


def read_config(folder: Path) -> dict[str, Any]:
    """What ``config.json`` of an encoder's folder says. Raises ModelError if there is none."""
    path = folder / CONFIG
    if not path.is_file():
        hint = (
            "training there was stopped: run the same xmodal train again to go on"
            if (folder / CHECKPOINT).exists()
            else f"make one with xmodal train DATA --out {folder}"
        )
        raise ModelError(f"there is no finished encoder at {folder}: {hint}")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise TypeError("config.json holds no object")
    except DAMAGE as error:
        raise damaged(folder, error, "train again") from None
    return config


def write_config(folder: Path, config: Mapping[str, Any]) -> None:
    """Write ``config.json`` with its digest."""
    write_json(folder / CONFIG, {**config, DIGEST: config_digest(config)})


def config_digest(config: Mapping[str, Any]) -> str:
    """sha256 of the content, whatever its layout: of compact JSON with sorted keys."""
    content = json.loads(json.dumps({k: v for k, v in config.items() if k != DIGEST}))
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def check_config(config: Mapping[str, Any]) -> None:
    """Raise ValueError if the config has a digest, and it is another one."""
    if DIGEST in config and config[DIGEST] != config_digest(config):
        raise ValueError(f"{CONFIG} was changed after it was written: its {DIGEST} differs")


def file_record(path: Path) -> dict[str, Any]:
    """Size and sha256 of a file, as ``config.json`` records them."""
    return {"bytes": path.stat().st_size, "sha256": _sha256(path)}


def check_size(path: Path, record: Mapping[str, Any]) -> None:
    """Raise ValueError if a file has not the recorded size; OSError if it is missing."""
    size = path.stat().st_size
    if size != record["bytes"]:
        raise ValueError(f"{path.name} has {size:,} bytes, expected {record['bytes']:,}")


def check_file(path: Path, record: Mapping[str, Any]) -> None:
    """Raise ValueError if a file is not the recorded one; OSError if it cannot be read."""
    check_size(path, record)
    found = _sha256(path)
    if found != record["sha256"]:
        raise ValueError(
            f"{path.name} has sha256 {found[:12]}..., expected {str(record['sha256'])[:12]}..."
        )


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_curve(told: Mapping[str, Any], bits: int) -> Confidence:
    """The curve of confidence, as a config says it."""
    return Confidence(float(told["slope"]), float(told["offset"]), bits)


def read_split(folder: Path) -> dict[str, list[str]]:
    """The ids of each part; nothing where there is no such file."""
    path = folder / SPLIT
    parts = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return {role: list(ids) for role, ids in parts.items()}


def damaged(folder: Path, error: Exception, advice: str) -> ModelError:
    """One line about files that are not as they were written."""
    reason = " ".join(str(error).split())[:160]
    return ModelError(f"the encoder in {folder} is damaged ({reason}): {advice}")


def write_json(path: Path, content: Any) -> None:
    """Write a file as :func:`write_bytes` does."""
    write_bytes(path, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file; after a kill at any moment it is the old one or the new.

    Its mode follows the umask, as that of every file of a model.
    """
    new = path.with_name(f"{path.name}.new")
    new.write_bytes(content)
    os.replace(new, path)
