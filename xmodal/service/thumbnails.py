"""Pictures in and out: what a client sends is measured before it is decoded, what was found is
shown small, and only from the folder that the service was given."""

from __future__ import annotations

import base64
import binascii
import io
import os
from collections import OrderedDict
from pathlib import Path
from threading import Lock
from typing import Any

from PIL import Image, ImageOps

from xmodal.errors import DataError
from xmodal.images import load, measure

SIZES = (320, 1024)
"""Longest sides, in pixels, in which a picture is shown."""
KEPT = 512


def received(text: str, pixels: int) -> bytes:
    """The file of a picture from base64, perhaps as a data URL. Raises DataError.

    Only its head is read: a picture of more than ``pixels`` is refused before it costs memory.
    """
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise DataError(
            "the picture is not base64: send the file's bytes, base64-encoded"
        ) from None
    width, height = measure(data)
    if width * height > pixels:
        raise DataError(
            f"the picture has {width} x {height} pixels, expected at most {pixels / 1e6:g} million"
        )
    return data


class Thumbnails:
    """Small JPEGs of pictures below ``folder``; the last ones are kept in memory."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        self._kept: OrderedDict[tuple[str, int, int], bytes] = OrderedDict()
        self._lock = Lock()

    def path(self, id_: str, image: Any) -> Path | None:
        """The file that a document's field ``image`` names, if it lies in the folder and is there.

        A name counts from the current folder, as it did when the index was filled, else from the
        folder of pictures. One that ends in the document's id, as those of a folder of pictures do,
        was in that folder at the id: the pictures may have moved since.
        """
        if not isinstance(image, str) or not image or "\0" in image:
            return None
        names = [image, os.path.join(self._folder, image)]
        if f"/{image}".replace("\\", "/").endswith(f"/{id_}"):
            names.append(os.path.join(self._folder, id_))
        for name in dict.fromkeys(names):
            if os.path.isfile(name):  # cheap, where resolving is not
                path = Path(os.path.realpath(name))
                if path.is_relative_to(self._folder):
                    return path
        return None

    def jpeg(self, path: Path, size: int) -> bytes:
        """The picture, at most ``size`` pixels long. Raises DataError if it cannot be decoded."""
        key = str(path), path.stat().st_mtime_ns, size
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        image = load(path, size)
        if max(image.size) > size:
            image = ImageOps.contain(image, (size, size), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=85)
        data = buffer.getvalue()
        with self._lock:
            self._kept[key] = data
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return data
