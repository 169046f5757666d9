"""JPEG thumbnails of the documents' images."""

from __future__ import annotations

import io
import os
from collections import OrderedDict
from pathlib import Path
from threading import Lock
from typing import Literal, get_args

from PIL import Image, ImageOps

from xmodal.data.images import load_image
from xmodal.data.packed import is_picture_file, picture_stat

Size = Literal[320, 1024]
SIZES: tuple[Size, ...] = get_args(Size)
"""Longest sides of thumbnails, in pixels."""
CACHE_SIZE = 512
"""Thumbnails kept in memory."""


class Thumbnails:
    """Thumbnails of images below ``folder``, with a least-recently-used cache. Thread-safe."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        self._cache: OrderedDict[tuple[str, int, int], bytes] = OrderedDict()
        self._lock = Lock()

    def path(self, id_: str, image: str | None) -> Path | None:
        """The image file of a document, or None if it does not exist or is outside the folder.

        ``image`` is a path of the document's field. It is relative to the current folder, as when
        the index was made, or else to the folder of images. If it ends in the document's id, the id
        is tried as well, relative to the folder of images, because images may have moved since.
        """
        if not image or "\0" in image:
            return None
        names = [image, os.path.join(self._folder, image)]
        if f"/{image}".replace("\\", "/").endswith(f"/{id_}"):
            names.append(os.path.join(self._folder, id_))
        for name in dict.fromkeys(names):
            if is_picture_file(name):  # faster than realpath, which few names reach
                path = Path(os.path.realpath(name))
                if path.is_relative_to(self._folder):
                    return path
        return None

    def jpeg(self, path: Path, size: int) -> bytes:
        """The image as a JPEG, its longest side at most ``size`` pixels. Raises DataError."""
        key = str(path), picture_stat(path).st_mtime_ns, size
        with self._lock:
            if key in self._cache:
                self._cache.move_to_end(key)
                return self._cache[key]
        image = load_image(path, size)
        if max(image.size) > size:
            image = ImageOps.contain(image, (size, size), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=85)
        data = buffer.getvalue()
        with self._lock:
            self._cache[key] = data
            while len(self._cache) > CACHE_SIZE:
                self._cache.popitem(last=False)
        return data
