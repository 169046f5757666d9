"""Pictures and archives of them, made in memory."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

from PIL import Image


def png(red: int, size: tuple[int, int] = (6, 4)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (red, 10, 20)).save(buffer, "PNG")
    return buffer.getvalue()


def archive(
    path: Path, members: dict[str, bytes], mode: str = "w", format: int = tarfile.PAX_FORMAT
) -> Path:
    with tarfile.open(path, mode, format=format) as file:  # type: ignore[call-overload]
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return path
