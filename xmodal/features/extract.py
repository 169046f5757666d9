"""Features of many pictures and texts: parallel decoding, batches, cache on disk.

A feature vector is scaled to length 1 and stored in float16, under a hash of the picture or text
and the backbone's fingerprint. Training, indexing and evaluation share these rows, and a run that
was killed continues with the missing ones. Raw pixels (``small-cnn``) are stored as uint8.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from xmodal.data.dataset import Dataset, Problems, Progress
from xmodal.data.images import Preprocessing, Source, load_image
from xmodal.errors import DataError
from xmodal.features.backbones import ImageBackbone, TextBackbone
from xmodal.features.cache import FeatureCache, content_hash, open_cache
from xmodal.modality import Modality

Array = npt.NDArray[Any]
Usable = npt.NDArray[np.bool_]

MAX_NAME = 80  # characters of a text or a path in a message
LOOKAHEAD_BATCHES = 3  # decoded while the network computes
CACHE_FORMAT = 2  # rows of format 1 could be in the precision of the processor


class Reader(Protocol):
    """Maps batches of pixels or of texts to rows that are stored in the cache.

    ``dim`` and ``dtype`` of a row; ``batch``: items in a batch; ``fingerprint``: changes with
    everything that changes a row.
    """

    dim: int
    dtype: str
    batch: int
    fingerprint: str

    def rows(self, batch: Any) -> tuple[Array, Usable]:
        """Rows (b, dim) of pixels (b, size, size, 3) or ``b`` texts, and which are usable, (b,).

        A row is unusable if the backbone found nothing in the picture or text.
        """


class _Features:
    """Reader of a backbone: features of length 1 in float16, or raw pixels unchanged."""

    def __init__(self, backbone: ImageBackbone | TextBackbone, fingerprint: str, raw: bool) -> None:
        self.dim, self.batch = backbone.dim, backbone.batch
        self.fingerprint = f"{fingerprint}-{CACHE_FORMAT}"
        self.dtype = "uint8" if raw else "float16"
        self._raw = raw
        self._forward: Callable[[Any], Array] = backbone.forward

    def rows(self, batch: Any) -> tuple[Array, Usable]:
        values = self._forward(batch)
        if self._raw:  # black pixels are all zero, and usable
            return values, np.ones(len(values), np.bool_)
        features = _unit(values)
        return features, says_something(features)


def says_something(features: Array) -> Usable:
    """Which features (n, dim) are usable: those that are finite and not all zero, (n,)."""
    return np.asarray(np.isfinite(features).all(axis=1) & features.any(axis=1))


def image_features(
    backbone: ImageBackbone,
    images: Sequence[Source],
    *,
    cache: Path | None = None,
    problems: Problems | None = None,
    progress: Progress | None = None,
) -> tuple[Array, Usable]:
    """Features of pictures, shape (n, dim), and which of them are usable, (n,).

    float16 of length 1, or uint8 pixels for a raw backbone. Rows of unusable pictures are zero and
    recorded in ``problems``; without ``problems`` the first one raises DataError.
    """
    prepared = content_hash(str(backbone.preprocessing).encode()).hex()[:8]
    reader = _Features(backbone, f"{backbone.fingerprint}-{prepared}", backbone.raw)
    noted = {"cache": cache, "problems": problems, "progress": progress}
    return image_rows(reader, backbone.preprocessing, images, **noted)  # type: ignore[arg-type]


def text_features(
    backbone: TextBackbone,
    texts: Sequence[str],
    *,
    cache: Path | None = None,
    problems: Problems | None = None,
    progress: Progress | None = None,
) -> tuple[Array, Usable]:
    """Features of texts, shape (n, dim) float16 of length 1, and which are usable, (n,).

    A text whose features are zero is unusable: it is recorded in ``problems``; without ``problems``
    it raises DataError.
    """
    reader = _Features(backbone, backbone.fingerprint, raw=False)
    return text_rows(reader, texts, cache=cache, problems=problems, progress=progress)


def image_rows(
    reader: Reader,
    preprocessing: Preprocessing,
    images: Sequence[Source],
    *,
    cache: Path | None = None,
    problems: Problems | None = None,
    progress: Progress | None = None,
) -> tuple[Array, Usable]:
    """Rows of pictures, (n, dim), and which are usable, (n,); see :func:`image_features`."""
    rows = np.zeros((len(images), reader.dim), reader.dtype)
    usable = np.zeros(len(images), dtype=np.bool_)
    with open_cache(cache, reader.fingerprint, reader.dim, reader.dtype) as store:
        keys = _image_keys(images, store)
        left = _fill_from(store, keys, rows, usable)
        done = len(images) - len(left)
        for at, pixels in _decoded(preprocessing, reader.batch, images, left, problems):
            done += len(at) + len(pixels.failed)
            if at:
                found = reader.rows(np.stack(pixels.good))
                _keep(store, keys, at, found, rows, usable, problems, images, "picture")
            if progress:
                progress("pictures", done, len(images))
    return rows, usable


def text_rows(
    reader: Reader,
    texts: Sequence[str],
    *,
    cache: Path | None = None,
    problems: Problems | None = None,
    progress: Progress | None = None,
) -> tuple[Array, Usable]:
    """Rows of texts, (n, dim), and which are usable, (n,); see :func:`text_features`."""
    rows = np.zeros((len(texts), reader.dim), reader.dtype)
    usable = np.zeros(len(texts), dtype=np.bool_)
    with open_cache(cache, reader.fingerprint, reader.dim, reader.dtype) as store:
        keys: list[bytes | None] = [content_hash(text.encode()) for text in texts]
        left = _fill_from(store, keys, rows, usable)
        # Equal texts are computed once; texts of similar length share a batch, with less padding.
        same: dict[str, list[int]] = {}
        for row in left:
            same.setdefault(texts[row], []).append(row)
        order = sorted(same, key=len)
        done = len(texts) - len(left)
        for start in range(0, len(order), reader.batch):
            part = order[start : start + reader.batch]
            at = [same[text][0] for text in part]
            _keep(store, keys, at, reader.rows(part), rows, usable, problems, texts, "text")
            for text in part:
                first, *others = same[text]
                rows[others], usable[others] = rows[first], usable[first]
                done += 1 + len(others)
            if progress:
                progress("texts", done, len(texts))
    return rows, usable


def pair_features(
    image_backbone: ImageBackbone,
    text_backbone: TextBackbone,
    pairs: Dataset,
    *,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> tuple[Dataset, dict[Modality, Array]]:
    """The pairs whose picture and text are usable, and their features, row by row.

    The others are recorded in ``pairs.problems``.
    """
    sources = pair_sources(pairs)
    noted = {"cache": cache, "problems": pairs.problems, "progress": progress}
    of_images, image_ok = image_features(image_backbone, sources["image"], **noted)  # type: ignore[arg-type]
    of_texts, text_ok = text_features(text_backbone, sources["text"], **noted)  # type: ignore[arg-type]
    good = image_ok & text_ok
    return keep_rows(pairs, good), {"image": of_images[good], "text": of_texts[good]}


def pair_sources(pairs: Dataset) -> dict[Modality, list[Any]]:
    """The picture and the text of each item. Raises DataError for an item that is not a pair."""
    for item in pairs:
        if item.image is None or item.text is None:
            raise DataError(f"item {item.id!r} is not a pair: take data.pairs() first")
    return {"image": [item.image for item in pairs], "text": [item.text for item in pairs]}


def keep_rows(data: Dataset, good: Usable) -> Dataset:
    """The items whose row of ``good`` (n,) is true."""
    kept = {id_ for id_, fine in zip(data.ids, good, strict=True) if fine}
    return data.keep(lambda item: item.id in kept)


class _Decoded:
    """Decoded pictures of a batch, and the rows of those that cannot be decoded."""

    def __init__(self) -> None:
        self.good: list[Array] = []
        self.failed: list[int] = []


def _decoded(
    preprocessing: Preprocessing,
    size: int,
    images: Sequence[Source],
    rows: Sequence[int],
    problems: Problems | None,
) -> Iterator[tuple[list[int], _Decoded]]:
    """Batches of pixels, decoded by threads some batches ahead of the consumer."""
    workers = max(2, os.cpu_count() or 2)
    with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        waiting: list[list[tuple[int, Future[Any]]]] = []
        parts = iter([rows[start : start + size] for start in range(0, len(rows), size)])
        try:
            while True:
                while len(waiting) < LOOKAHEAD_BATCHES and (part := next(parts, None)) is not None:
                    decode = preprocessing.pixels
                    waiting.append([(row, pool.submit(decode, images[row])) for row in part])
                if not waiting:
                    return
                good, batch = [], _Decoded()
                for row, future in waiting.pop(0):
                    try:
                        batch.good.append(future.result())
                        good.append(row)
                    except DataError as error:
                        if problems is None:
                            raise
                        problems.add("picture not usable", error)
                        batch.failed.append(row)
                yield good, batch
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _image_keys(images: Sequence[Source], store: FeatureCache | None) -> list[bytes | None]:
    """Hash of each picture's content; None if it cannot be read, or without a cache."""
    if store is None:
        return [None] * len(images)
    paths = [Path(one) for one in images if isinstance(one, str | Path)]
    of_path = dict(zip(paths, store.file_keys(paths), strict=True))
    keys: list[bytes | None] = []
    for one in images:
        if isinstance(one, str | Path):
            keys.append(of_path[Path(one)])
        elif isinstance(one, Image.Image):
            keys.append(_open_image_key(one))
        else:
            keys.append(content_hash(one))
    return keys


def _open_image_key(image: Image.Image) -> bytes | None:
    """Hash of the picture as displayed, with palette, transparency and orientation applied."""
    try:
        shown = load_image(image)
    except DataError:
        return None
    return content_hash(f"{shown.size}".encode() + shown.tobytes())


def _fill_from(
    store: FeatureCache | None,
    keys: Sequence[bytes | None],
    rows: Array,
    usable: Usable,
) -> list[int]:
    """Copy rows from the cache; return the numbers of the missing ones."""
    if store is None:
        return list(range(len(keys)))
    found = store.get([key for key in keys if key is not None])
    left = []
    for row, key in enumerate(keys):
        if key in found:
            rows[row], usable[row] = found[key], True
        else:
            left.append(row)
    return left


def _keep(
    store: FeatureCache | None,
    keys: Sequence[bytes | None],
    at: list[int],
    found: tuple[Array, Usable],
    rows: Array,
    usable: Usable,
    problems: Problems | None,
    sources: Sequence[Any],
    what: str,
) -> None:
    """Store the rows of a batch in the result and the cache; record unusable ones as problems."""
    values, good = found
    for row in np.array(at)[~good]:
        message = f"{what} without anything that the backbone can read"
        if problems is None:
            raise DataError(f"{message}: {_named(sources[row], what)!r}")
        problems.add(message, repr(_named(sources[row], what)))
    kept = np.array(at)[good]
    rows[kept], usable[kept] = values[good], True
    if store is not None:
        pairs = [(keys[row], row) for row in kept if keys[row] is not None]
        store.put([key for key, _ in pairs if key], rows[[row for _, row in pairs]])


def _named(source: Any, what: str) -> str:
    """The beginning of a text, or the end of a picture's path, for a message."""
    if what == "picture" and not isinstance(source, str | Path):
        return type(source).__name__
    name = str(source)
    if len(name) <= MAX_NAME:
        return name
    return f"...{name[-MAX_NAME:]}" if what == "picture" else f"{name[:MAX_NAME]}..."


def _unit(values: Array) -> Array:
    """Rows scaled to length 1, in float16; zero rows stay zero, infinite ones get NaN."""
    with np.errstate(invalid="ignore", over="ignore"):
        length = np.linalg.norm(values, axis=1, keepdims=True)
        scaled: Array = (values / np.maximum(length, 1e-12)).astype(np.float16)
    return scaled
