"""Choice of the runtime of a trained encoder: torch, or its portable export by onnxruntime.

``xmodal train`` and ``xmodal index`` write the export into the subfolder ``portable`` of the
encoder. It has the same fingerprint, starts in a tenth of the time, and computes on the CPU. This
module imports neither torch nor onnxruntime.
"""

from __future__ import annotations

import os
import platform
import sys
import zlib
from pathlib import Path
from typing import Literal

from xmodal.config import FEATURES
from xmodal.encoders.folder import (
    CONFIG,
    NOT_PORTABLE,
    ONNX_ENCODER,
    PORTABLE,
    TORCH_ENCODER,
    encoder_format,
    read_config,
)
from xmodal.errors import ConfigError, ExtraMissing, require
from xmodal.writing import write_bytes

Engine = Literal["auto", "torch", "onnx"]
ENGINES: tuple[Engine, ...] = ("auto", "torch", "onnx")

DRIVERS = ("/dev/nvidiactl", "/proc/driver/nvidia/version", "/dev/dxg")
"""Files that exist if there is a driver of NVIDIA: Linux, and Linux under Windows."""


def portable_folder(model: Path) -> Path | None:
    """Return the folder of the portable export in a trained encoder's folder, None without one.

    An export of another encoder is not used. Raises ModelError if ``model`` has no trained encoder,
    or if a ``config.json`` is damaged.
    """
    recorded = read_config(model, TORCH_ENCODER).get("fingerprint")
    folder = model / PORTABLE
    if not (folder / CONFIG).is_file():
        return None
    return folder if read_config(folder, ONNX_ENCODER).get("fingerprint") == recorded else None


def require_portable(model: Path) -> Path:
    """Return the folder of the portable encoder: ``model`` itself, or that of a trained encoder.

    Raises ConfigError if there is none, ModelError if ``model`` has no encoder.
    """
    if encoder_format(model) is ONNX_ENCODER:
        return model
    folder = portable_folder(model)
    if folder is None:
        raise ConfigError(f"{model} has no portable encoder: run xmodal export --model {model}")
    return folder


def portable_obstacle(model: Path) -> str | None:
    """Return why the trained encoder in ``model`` cannot be exported, None if nothing is known.

    Raises ModelError if ``model`` has no trained encoder.
    """
    config = read_config(model, TORCH_ENCODER)
    precision = config.get("precision", "float32")
    if precision != "float32":
        return f"it computes in {precision}, a portable encoder in float32"
    if any(ref.get("spec") == FEATURES for ref in config.get("backbones", {}).values()):
        return "it was trained on features of a file and has no backbone"
    try:
        require("xmodal export", "export")
    except ExtraMissing as error:
        return str(error)
    return read_obstacle(model)


def write_obstacle(model: Path, reason: str) -> None:
    """Record why the trained encoder in ``model`` cannot be exported: the reason, its CRC-32."""
    line = " ".join(reason.split()).encode()
    write_bytes(model / NOT_PORTABLE, b"%s\n%08x\n" % (line, zlib.crc32(line)))


def read_obstacle(model: Path) -> str | None:
    """Return the reason of :func:`write_obstacle`, None without one.

    None for a damaged record: the export is tried again. Earlier versions wrote one line alone.
    """
    path = model / NOT_PORTABLE
    line, end, rest = path.read_bytes().partition(b"\n") if path.is_file() else (b"", b"", b"")
    whole = end and (not rest or rest == b"%08x\n" % zlib.crc32(line))
    return line.decode(errors="replace") if whole else None


def use_portable(*, for_queries: bool) -> bool:
    """Return whether the engine "auto" computes by onnxruntime rather than by torch.

    ``for_queries``: for single queries onnxruntime is faster, because torch takes long to import;
    for many items a GPU is faster.
    """
    return _installed("onnx") and (for_queries or not (has_gpu() and _installed("torch")))


def has_gpu() -> bool:
    """Return whether this machine seems to have a GPU for torch; torch is not imported.

    $XMODAL_DEVICE decides if it is set, as in :mod:`xmodal.device`.
    """
    configured = os.environ.get("XMODAL_DEVICE")
    if configured:
        return configured != "cpu"
    if sys.platform == "darwin":
        return platform.machine() == "arm64"
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1"):
        return False
    if sys.platform == "win32":
        return Path(os.environ.get("SYSTEMROOT", "C:/Windows"), "System32/nvcuda.dll").exists()
    return any(map(os.path.exists, DRIVERS))


def _installed(extra: str) -> bool:
    try:
        require("", extra)
    except ExtraMissing:
        return False
    return True
