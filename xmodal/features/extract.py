"""Feature extraction: parallel decoding, batches, cache on disk.

A feature vector is scaled to length 1 and stored in float16, under the backbone's fingerprint and a
hash of the picture or text. Training, indexing and evaluation share the cache, and a killed run
continues with the missing rows. Raw pixels (``small-cnn``) are stored as uint8.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from xmodal.data.dataset import Dataset
from xmodal.data.images import Source, load_image
from xmodal.data.preprocessing import Preprocessing
from xmodal.data.problems import Problems
from xmodal.data.progress import Progress
from xmodal.data.spill import zeros
from xmodal.errors import DataError
from xmodal.features.backbones import ImageBackbone, TextBackbone
from xmodal.features.cache import FeatureCache, content_hash, open_cache
from xmodal.features.rows import unit_float16
from xmodal.modality import Modality

Array = npt.NDArray[Any]
Usable = npt.NDArray[np.bool_]

MAX_NAME = 80
"""Characters of a text or path in a message."""
LOOKAHEAD_BATCHES = 3
"""Batches that are decoded while the network computes."""
UNUSABLE = "picture not usable"
"""Kind of problem of a picture that cannot be decoded."""
CACHE_FORMAT = 2
"""Part of the fingerprint. The precision of rows of format 1 depended on the processor."""


class Featurizer(Protocol):
    """Maps batches of pixels or of texts to rows that are stored in the cache.

    ``dim`` and ``dtype`` of a row; ``batch``: batch size; ``fingerprint``: hash of everything that
    changes a row.
    """

    dim: int
    dtype: str
    batch: int
    fingerprint: str

    def rows(self, batch: Any) -> tuple[Array, Usable]:
        """Return rows (b, dim) of pixels (b, size, size, 3) or ``b`` texts, and usable ones (b,).

        A row is usable if it is finite and not all zero; raw pixels always are.
        """


class _BackboneFeaturizer:
    """Featurizer of a backbone: features of length 1 in float16, or raw pixels unchanged."""

    def __init__(self, backbone: ImageBackbone | TextBackbone, raw: bool) -> None:
        self.dim, self.batch = backbone.dim, backbone.batch
        self.fingerprint = cache_fingerprint(backbone)
        self.dtype = "uint8" if raw else "float16"
        self._raw = raw
        self._forward: Callable[[Any], Array] = backbone.forward

    def rows(self, batch: Any) -> tuple[Array, Usable]:
        values = self._forward(batch)
        if self._raw:  # black pixels are all zero, and usable
            return values, np.ones(len(values), np.bool_)
        features = unit_float16(values)
        return features, usable_rows(features)


def cache_fingerprint(backbone: ImageBackbone | TextBackbone) -> str:
    """Return the fingerprint under which features of a backbone are cached.

    It is a hash of everything that changes a feature, the preparation of pictures included.
    """
    parts = [backbone.fingerprint]
    preprocessing = getattr(backbone, "preprocessing", None)
    if preprocessing is not None:
        parts.append(content_hash(str(preprocessing).encode()).hex()[:8])
    return "-".join([*parts, str(CACHE_FORMAT)])


def usable_rows(features: Array) -> Usable:
    """Return which rows of features (n, dim) are finite and not all zero, (n,) bool."""
    return np.asarray(np.isfinite(features).all(axis=1) & features.any(axis=1))


def image_features(
    backbone: ImageBackbone,
    images: Sequence[Source],
    *,
    cache: Path | None = None,
    problems: Problems | None = None,
    progress: Progress | None = None,
) -> tuple[Array, Usable]:
    """Return the features of pictures (n, dim), and which of them are usable, (n,) bool.

    Features are float16 of length 1, or uint8 pixels for a raw backbone. Unusable pictures have
    zero rows and are recorded in ``problems``; without ``problems`` the first one raises DataError.
    """
    featurizer = _BackboneFeaturizer(backbone, backbone.raw)
    options = {"cache": cache, "problems": problems, "progress": progress}
    return image_rows(featurizer, backbone.preprocessing, images, **options)  # type: ignore[arg-type]


def text_features(
    backbone: TextBackbone,
    texts: Sequence[str],
    *,
    cache: Path | None = None,
    problems: Problems | None = None,
    progress: Progress | None = None,
) -> tuple[Array, Usable]:
    """Return the features of texts (n, dim), float16 of length 1, and which are usable, (n,) bool.

    A text with zero features is unusable: it is recorded in ``problems``; without ``problems`` it
    raises DataError.
    """
    featurizer = _BackboneFeaturizer(backbone, raw=False)
    return text_rows(featurizer, texts, cache=cache, problems=problems, progress=progress)


def image_rows(
    featurizer: Featurizer,
    preprocessing: Preprocessing,
    images: Sequence[Source],
    *,
    cache: Path | None = None,
    problems: Problems | None = None,
    progress: Progress | None = None,
) -> tuple[Array, Usable]:
    """Return rows of pictures (n, dim), and which are usable; see :func:`image_features`."""
    with open_cache(cache, featurizer.fingerprint, featurizer.dim, featurizer.dtype) as store:
        keys = _image_keys(images, store)
        result = _Result(featurizer, images, "picture", problems, store, keys)
        missing = result.fill_from_cache()
        # Pictures of equal bytes (with a cache) or of equal paths are computed once.
        equal: dict[Any, list[int]] = {}
        for row in missing:
            equal.setdefault(keys[row] or _identity(images[row]), []).append(row)
        copies = {rows[0]: rows[1:] for rows in equal.values()}
        done = len(images) - len(missing)
        for batch in _decoded(preprocessing, featurizer.batch, images, list(copies), problems):
            done += sum(1 + len(copies[row]) for row in batch.rows + batch.failed)
            if batch.rows:
                result.add(batch.rows, *featurizer.rows(np.stack(batch.pixels)))
                for row in batch.rows:
                    result.copy(row, copies[row])
            if problems is not None:
                for row in batch.failed:
                    _record_copies(images, row, copies[row], problems)
            if progress:
                progress("pictures", done, len(images))
    return result.rows, result.usable


def _record_copies(
    images: Sequence[Source], row: int, copies: list[int], problems: Problems
) -> None:
    """Record the other files with the bytes of an unusable picture."""
    paths = [image for image in (images[one] for one in copies) if isinstance(image, str | Path)]
    for path in dict.fromkeys(map(str, paths)):
        if path != str(images[row]):
            problems.add(UNUSABLE, f"{path}: the same file as {images[row]!s}")


def text_rows(
    featurizer: Featurizer,
    texts: Sequence[str],
    *,
    cache: Path | None = None,
    problems: Problems | None = None,
    progress: Progress | None = None,
) -> tuple[Array, Usable]:
    """Return rows of texts (n, dim), and which are usable; see :func:`text_features`."""
    with open_cache(cache, featurizer.fingerprint, featurizer.dim, featurizer.dtype) as store:
        keys = [content_hash(text.encode()) for text in texts]
        result = _Result(featurizer, texts, "text", problems, store, keys)
        missing = result.fill_from_cache()
        # Equal texts are computed once; texts of similar length share a batch, with less padding.
        equal: dict[str, list[int]] = {}
        for row in missing:
            equal.setdefault(texts[row], []).append(row)
        order = sorted(equal, key=len)
        done = len(texts) - len(missing)
        for start in range(0, len(order), featurizer.batch):
            batch = order[start : start + featurizer.batch]
            result.add([equal[text][0] for text in batch], *featurizer.rows(batch))
            for text in batch:
                first, *others = equal[text]
                result.copy(first, others)
                done += len(equal[text])
            if progress:
                progress("texts", done, len(texts))
    return result.rows, result.usable


def pair_sources(pairs: Dataset) -> dict[Modality, list[Any]]:
    """Return all pictures and all captions of pairs, item after item.

    Raises DataError for an item that is not a pair.
    """
    for item in pairs:
        if not item.images or not item.captions:
            raise DataError(f"item {item.id!r} is not a pair: use data.pairs()")
    return {
        "image": [image for item in pairs for image in item.images],
        "text": [caption for item in pairs for caption in item.captions],
    }


def keep_usable(
    pairs: Dataset, usable: Mapping[Modality, Usable]
) -> tuple[Dataset, dict[Modality, Usable]]:
    """Return the pairs that stay pairs without unusable sources, and which sources are kept.

    ``usable[modality]``: which rows of :func:`pair_sources` are usable.
    """
    whole = np.ones(len(pairs), np.bool_)
    of_pairs = {modality: pairs.sizes(modality) for modality in usable}
    for modality, mask in usable.items():
        item = np.repeat(np.arange(len(pairs)), of_pairs[modality])
        whole &= np.bincount(item[mask], minlength=len(pairs)) > 0
    in_whole = {modality: np.repeat(whole, sizes) for modality, sizes in of_pairs.items()}
    kept = {modality: mask & in_whole[modality] for modality, mask in usable.items()}
    data = pairs if whole.all() else pairs.take(np.flatnonzero(whole))
    if any((kept[modality] != in_whole[modality]).any() for modality in usable):
        data = data.select({modality: mask[in_whole[modality]] for modality, mask in kept.items()})
    return data, kept


@dataclass
class _DecodedBatch:
    """Pixels of the decoded pictures of a batch, their rows, and the rows of failures."""

    rows: list[int] = field(default_factory=list)
    pixels: list[Array] = field(default_factory=list)
    failed: list[int] = field(default_factory=list)


def _decoded(
    preprocessing: Preprocessing,
    size: int,
    images: Sequence[Source],
    rows: Sequence[int],
    problems: Problems | None,
) -> Iterator[_DecodedBatch]:
    """Yield batches of pixels; threads decode up to LOOKAHEAD_BATCHES in advance."""
    workers = max(2, os.cpu_count() or 2)
    with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        pending: list[list[tuple[int, Future[Any]]]] = []
        parts = iter([rows[start : start + size] for start in range(0, len(rows), size)])
        try:
            while True:
                while len(pending) < LOOKAHEAD_BATCHES and (part := next(parts, None)) is not None:
                    decode = preprocessing.pixels
                    pending.append([(row, pool.submit(decode, images[row])) for row in part])
                if not pending:
                    return
                batch = _DecodedBatch()
                for row, future in pending.pop(0):
                    try:
                        batch.pixels.append(future.result())
                        batch.rows.append(row)
                    except DataError as error:
                        if problems is None:
                            raise
                        problems.add(UNUSABLE, error)
                        batch.failed.append(row)
                yield batch
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _image_keys(images: Sequence[Source], store: FeatureCache | None) -> list[bytes | None]:
    """Return the content hash of each picture; None if unreadable, or without a cache."""
    if store is None:
        return [None] * len(images)
    paths = [Path(image) for image in images if isinstance(image, str | Path)]
    path_keys = dict(zip(paths, store.file_keys(paths), strict=True))
    keys: list[bytes | None] = []
    for image in images:
        if isinstance(image, str | Path):
            keys.append(path_keys[Path(image)])
        elif isinstance(image, Image.Image):
            keys.append(_open_image_key(image))
        else:
            keys.append(content_hash(image))
    return keys


def _identity(image: Source) -> object:
    """Return the path of a picture, or a number that is equal for the same object."""
    return str(image) if isinstance(image, str | Path) else id(image)


def _open_image_key(image: Image.Image) -> bytes | None:
    """Return a hash of the pixels after palette, transparency and orientation are applied."""
    try:
        converted = load_image(image)
    except DataError:
        return None
    return content_hash(f"{converted.size}".encode() + converted.tobytes())


class _Result:
    """Rows of all sources: from the cache, or computed batch by batch and then stored in it.

    ``kind``: "picture" or "text", for messages. ``keys``: keys of the sources in ``store``, None
    for sources that are not cached.
    """

    def __init__(
        self,
        featurizer: Featurizer,
        sources: Sequence[Any],
        kind: str,
        problems: Problems | None,
        store: FeatureCache | None,
        keys: Sequence[bytes | None],
    ) -> None:
        folder = None if store is None else store.folder
        self.rows = zeros((len(sources), featurizer.dim), featurizer.dtype, folder)
        self.usable = np.zeros(len(sources), dtype=np.bool_)
        self._sources, self._kind, self._problems = sources, kind, problems
        self._store, self._keys = store, keys

    def fill_from_cache(self) -> list[int]:
        """Copy rows from the cache; return the numbers of the missing ones."""
        if self._store is None:
            return list(range(len(self._sources)))
        stored = self._store.get([key for key in self._keys if key is not None])
        missing = []
        for row, key in enumerate(self._keys):
            if key in stored:
                self.rows[row], self.usable[row] = stored[key], True
            else:
                missing.append(row)
        return missing

    def add(self, numbers: list[int], values: Array, usable: Usable) -> None:
        """Store values (b, dim) as rows with these numbers; record unusable ones as problems.

        Raises DataError for an unusable one if there is no record of problems.
        """
        for row in np.array(numbers)[~usable]:
            message = f"{self._kind} without anything that the backbone can read"
            name = repr(_short_name(self._sources[row], self._kind))
            if self._problems is None:
                raise DataError(f"{message}: {name}")
            self._problems.add(message, name)
        added = np.array(numbers)[usable]
        self.rows[added], self.usable[added] = values[usable], True
        if self._store is not None:
            pairs = [(self._keys[row], row) for row in added if self._keys[row] is not None]
            self._store.put([key for key, _ in pairs if key], self.rows[[row for _, row in pairs]])

    def copy(self, row: int, others: list[int]) -> None:
        """Copy a row to the rows of equal sources."""
        self.rows[others], self.usable[others] = self.rows[row], self.usable[row]


def _short_name(source: Any, kind: str) -> str:
    """Return the beginning of a text, or the end of a picture's path, for a message."""
    if kind == "picture" and not isinstance(source, str | Path):
        return type(source).__name__
    name = str(source)
    if len(name) <= MAX_NAME:
        return name
    return f"...{name[-MAX_NAME:]}" if kind == "picture" else f"{name[:MAX_NAME]}..."
