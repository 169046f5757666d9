"""Features of many pictures and texts: decoded in parallel, computed in batches, kept on disk.

Every feature vector is scaled to length 1 and kept in float16 under a hash of its content and the
backbone's fingerprint, so that training again, indexing and evaluating never run a backbone twice,
and a run that was killed goes on where it stopped. Raw pixels (``small-cnn``) are kept as uint8.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from xmodal.backbones import ImageBackbone, TextBackbone
from xmodal.data import Dataset, Problems
from xmodal.errors import DataError
from xmodal.images import Source, load
from xmodal.index import Modality

Array = npt.NDArray[Any]

LONGEST_NAME = 80  # characters of a text or a path in a message
AHEAD = 3  # batches that are decoded while the network works

TABLES = (
    "features (key BLOB PRIMARY KEY, value BLOB)",
    # A file that looks as it did (size, time of change) is not read again for its hash.
    "files (path TEXT PRIMARY KEY, size INT, time INT, key BLOB)",
)


Progress = Callable[[str, int, int], None]
"""Whoever shows how far a long job is: what it works on, how many are done, of how many."""


def default_cache() -> Path:
    """Where features are kept: $XMODAL_CACHE, else xmodal in the user's cache folder."""
    told = os.environ.get("XMODAL_CACHE")
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(told) if told else base / "xmodal"


class FeatureCache:
    """Feature vectors on disk, one SQLite file a backbone; safe to kill, safe to share."""

    def __init__(self, folder: Path, fingerprint: str, dim: int, dtype: str) -> None:
        self._dtype, self._dim = np.dtype(dtype), dim
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unusable(folder, error) from None
        name = "".join(c if c.isalnum() or c in "-._" else "_" for c in fingerprint)
        self._db = sqlite3.connect(folder / f"{name}.sqlite", timeout=60)
        try:
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            for table in TABLES:
                self._db.execute(f"CREATE TABLE IF NOT EXISTS {table}")
        except sqlite3.DatabaseError:
            self._db.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def get(self, keys: Sequence[bytes]) -> dict[bytes, Array]:
        """The vectors that are there."""
        found: dict[bytes, Array] = {}
        unique = list(dict.fromkeys(keys))
        size = self._dim * self._dtype.itemsize
        for start in range(0, len(unique), 500):
            part = unique[start : start + 500]
            marks = ",".join("?" * len(part))
            rows = self._db.execute(f"SELECT key, value FROM features WHERE key IN ({marks})", part)
            found |= {k: np.frombuffer(v, self._dtype) for k, v in rows if len(v) == size}
        return found

    def put(self, keys: Sequence[bytes], vectors: Array) -> None:
        """Keep vectors, one row a key; durable when this returns."""
        rows = [(k, v.tobytes()) for k, v in zip(keys, vectors.astype(self._dtype), strict=True)]
        with self._db:
            self._db.executemany("INSERT OR REPLACE INTO features VALUES (?, ?)", rows)

    def file_keys(self, paths: Sequence[Path]) -> list[bytes | None]:
        """The content hash of each file; None for one that cannot be read."""
        known = {
            path: (size, time, key)
            for path, size, time, key in self._db.execute("SELECT path, size, time, key FROM files")
        }
        keys: list[bytes | None] = []
        new = []
        for path in paths:
            try:
                stat = path.stat()
                looks = (stat.st_size, stat.st_mtime_ns)
                name = str(path.resolve())
                seen = known.get(name)
                if seen is None or seen[:2] != looks:
                    seen = (*looks, hashlib.blake2b(path.read_bytes(), digest_size=16).digest())
                    new.append((name, *seen))
                keys.append(seen[2])
            except (OSError, ValueError):  # a name with a null byte is a ValueError
                keys.append(None)
        with self._db:
            self._db.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?)", new)
        return keys


def image_features(
    backbone: ImageBackbone,
    images: Sequence[Source],
    *,
    cache: Path | None = None,
    problems: Problems | None = None,
    progress: Progress | None = None,
) -> tuple[Array, npt.NDArray[np.bool_]]:
    """Features of pictures, shape (n, dim), and which of them could be used, (n,).

    float16 of length 1, or uint8 pixels for a raw backbone. Rows of pictures that cannot be used
    are zero and noted in ``problems``; without ``problems`` the first one raises DataError.
    """
    dtype = "uint8" if backbone.raw else "float16"
    features = np.zeros((len(images), backbone.dim), dtype)
    usable = np.zeros(len(images), dtype=np.bool_)
    fingerprint = f"{backbone.fingerprint}-{_hash(str(backbone.preprocessing).encode()).hex()[:8]}"
    with _open(cache, fingerprint, backbone.dim, dtype) as store:
        keys = _image_keys(images, store)
        rows_left = _fill_from(store, keys, features, usable)
        done = len(images) - len(rows_left)
        for rows, pixels in _decoded(backbone, images, rows_left, problems):
            done += len(rows) + len(pixels.failed)
            if rows:
                values = backbone.forward(np.stack(pixels.good))
                vectors = values if backbone.raw else _unit(values)
                _keep(store, keys, rows, vectors, features, usable, problems, images, "picture")
            if progress:
                progress("pictures", done, len(images))
    return features, usable


def text_features(
    backbone: TextBackbone,
    texts: Sequence[str],
    *,
    cache: Path | None = None,
    problems: Problems | None = None,
    progress: Progress | None = None,
) -> tuple[Array, npt.NDArray[np.bool_]]:
    """Features of texts, shape (n, dim) float16 of length 1, and which could be used, (n,).

    A text in which the backbone finds nothing (its features are zero) cannot be used: it is noted
    in ``problems``; without ``problems`` it raises DataError.
    """
    features = np.zeros((len(texts), backbone.dim), np.float16)
    usable = np.zeros(len(texts), dtype=np.bool_)
    with _open(cache, backbone.fingerprint, backbone.dim, "float16") as store:
        keys: list[bytes | None] = [_hash(text.encode()) for text in texts]
        left = _fill_from(store, keys, features, usable)
        # Equal texts are computed once, and texts of like length together: less padding.
        same: dict[str, list[int]] = {}
        for row in left:
            same.setdefault(texts[row], []).append(row)
        order = sorted(same, key=len)
        done = len(texts) - len(left)
        for start in range(0, len(order), backbone.batch):
            part = order[start : start + backbone.batch]
            vectors = _unit(backbone.forward(part))
            rows = [same[text][0] for text in part]
            _keep(store, keys, rows, vectors, features, usable, problems, texts, "text")
            for text in part:
                first, *others = same[text]
                features[others], usable[others] = features[first], usable[first]
                done += 1 + len(others)
            if progress:
                progress("texts", done, len(texts))
    return features, usable


def pair_features(
    image_backbone: ImageBackbone,
    text_backbone: TextBackbone,
    pairs: Dataset,
    *,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> tuple[Dataset, dict[Modality, Array]]:
    """The pairs whose picture and text can be used, and their features; rows fit together.

    The others are noted in ``pairs.problems``.
    """
    images, texts = [], []
    for item in pairs:
        if item.image is None or item.text is None:
            raise DataError(f"item {item.id!r} is not a pair: take data.pairs() first")
        images.append(item.image)
        texts.append(item.text)
    noted = {"cache": cache, "problems": pairs.problems, "progress": progress}
    of_images, image_ok = image_features(image_backbone, images, **noted)  # type: ignore[arg-type]
    of_texts, text_ok = text_features(text_backbone, texts, **noted)  # type: ignore[arg-type]
    good = image_ok & text_ok
    kept = {id_ for id_, fine in zip(pairs.ids, good, strict=True) if fine}
    usable = pairs.keep(lambda item: item.id in kept)
    return usable, {"image": of_images[good], "text": of_texts[good]}


class _Decoded:
    """Squares of the pictures of a batch that could be decoded, and the rows that could not."""

    def __init__(self) -> None:
        self.good: list[Array] = []
        self.failed: list[int] = []


def _decoded(
    backbone: ImageBackbone,
    images: Sequence[Source],
    rows: Sequence[int],
    problems: Problems | None,
) -> Iterator[tuple[list[int], _Decoded]]:
    """Batches of pixels, decoded by threads some batches ahead of whoever takes them."""
    size = backbone.batch
    workers = max(2, os.cpu_count() or 2)
    with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        waiting: list[list[tuple[int, Future[Any]]]] = []
        parts = iter([rows[start : start + size] for start in range(0, len(rows), size)])
        try:
            while True:
                while len(waiting) < AHEAD and (part := next(parts, None)) is not None:
                    decode = backbone.preprocessing.pixels
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
    """A hash of each picture's content; None where there is none, or no cache to need it."""
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
            keys.append(_hash(one))
    return keys


def _open_image_key(image: Image.Image) -> bytes | None:
    """A hash of what is seen: palette, transparency and orientation decide it as pixels do."""
    try:
        seen = load(image)
    except DataError:
        return None
    return _hash(f"{seen.size}".encode() + seen.tobytes())


def _fill_from(
    store: FeatureCache | None,
    keys: Sequence[bytes | None],
    features: Array,
    usable: npt.NDArray[np.bool_],
) -> list[int]:
    """Fill in what the cache has; return the rows that it lacks."""
    if store is None:
        return list(range(len(keys)))
    found = store.get([key for key in keys if key is not None])
    left = []
    for row, key in enumerate(keys):
        if key in found:
            features[row], usable[row] = found[key], True
        else:
            left.append(row)
    return left


def _keep(
    store: FeatureCache | None,
    keys: Sequence[bytes | None],
    rows: list[int],
    vectors: Array,
    features: Array,
    usable: npt.NDArray[np.bool_],
    problems: Problems | None,
    sources: Sequence[Any],
    what: str,
) -> None:
    """Put a batch of vectors into the result and the cache; zero or broken ones are problems."""
    good = np.isfinite(vectors).all(axis=1)
    if vectors.dtype != np.uint8:  # a black square is a picture, a zero vector says nothing
        good = good & vectors.any(axis=1)
    for row in np.array(rows)[~good]:
        message = f"{what} without anything that the backbone can read"
        if problems is None:
            raise DataError(f"{message}: {_named(sources[row], what)!r}")
        problems.add(message, repr(_named(sources[row], what)))
    kept = np.array(rows)[good]
    features[kept], usable[kept] = vectors[good], True
    if store is not None:
        pairs = [(keys[row], row) for row in kept if keys[row] is not None]
        store.put([key for key, _ in pairs if key], features[[row for _, row in pairs]])


def _named(source: Any, what: str) -> str:
    """A text by how it begins, a picture by how its path ends."""
    if what == "picture" and not isinstance(source, str | Path):
        return type(source).__name__
    name = str(source)
    if len(name) <= LONGEST_NAME:
        return name
    return f"...{name[-LONGEST_NAME:]}" if what == "picture" else f"{name[:LONGEST_NAME]}..."


def _unit(values: Array) -> Array:
    """Rows of length 1 in float16; a zero row stays zero, and one that is not finite is NaN."""
    with np.errstate(invalid="ignore", over="ignore"):
        length = np.linalg.norm(values, axis=1, keepdims=True)
        scaled: Array = (values / np.maximum(length, 1e-12)).astype(np.float16)
    return scaled


def _hash(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()


@contextmanager
def _open(
    cache: Path | None, fingerprint: str, dim: int, dtype: str
) -> Iterator[FeatureCache | None]:
    """The cache while it is needed. Raises DataError wherever its file turns out to be damaged."""
    if cache is None:
        yield None
        return
    try:
        with closing(FeatureCache(cache, fingerprint, dim, dtype)) as store:
            yield store
    except sqlite3.DatabaseError as error:
        raise _unusable(cache, error) from None


def _unusable(folder: Path, error: Exception) -> DataError:
    return DataError(
        f"the feature cache in {folder} cannot be used ({error}): remove it, or name another with "
        "--cache or XMODAL_CACHE"
    )
