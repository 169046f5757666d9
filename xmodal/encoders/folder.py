"""The folder of an encoder: file names, reading, damage, atomic writing."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xmodal.encoders.calibration import Confidence
from xmodal.errors import CodeError, ModelError

CONFIG, SPLIT = "config.json", "split.json"


DAMAGE = (AttributeError, LookupError, TypeError, ValueError, OSError, RuntimeError, CodeError)
"""What reading a file that is not as it was written may raise."""


def read_config(folder: Path) -> dict[str, Any]:
    """What ``config.json`` of an encoder's folder says. Raises ModelError if there is none."""
    path = folder / CONFIG
    if not path.is_file():
        hint = (
            "training there was stopped: run the same xmodal train again to go on"
            if (folder / "checkpoint.pt").exists()
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
    """Write a file; after a kill at any moment it is the old one or the new."""
    new = path.with_name(f"{path.name}.new")
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    new.write_text(text, encoding="utf-8")
    os.replace(new, path)
