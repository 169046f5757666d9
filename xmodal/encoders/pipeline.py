"""Encoding of any number of items with bounded memory: read, decode, encode, in chunks.

A chunk is the unit of work: codes of its items depend on the chunk and the encoder alone, so that
several processes, or one after a restart, give equal documents. While a chunk is encoded, threads
decode the pictures of the next one; Pillow and numpy release the lock of Python there.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from xmodal.data.dataset import Dataset
from xmodal.data.images import Pixels, read_named
from xmodal.data.items import FeatureName, ImageSource, Item
from xmodal.data.picture_files import picture_hashes
from xmodal.data.preprocessing import Preprocessing
from xmodal.data.problems import Problems
from xmodal.data.sharding import group_key, shard_number
from xmodal.encoders.decoded_encoder import DecodedEncoder
from xmodal.encoders.encoder import Encoder
from xmodal.errors import DataError
from xmodal.features.extract import UNUSABLE
from xmodal.index.documents import DocumentBatch
from xmodal.index.update import origin_of

CHUNK_ITEMS = 512
CHUNK_SOURCES = 1024
"""Items, and pictures and captions, of a chunk; an item with more is a chunk of its own."""


class Picture(NamedTuple):
    """A picture that was read: its pixels, or why it is unusable, and the SHA-256 of its bytes."""

    pixels: Pixels | None
    error: str | None
    hash: str | None


@dataclass(frozen=True)
class Chunk:
    """Items of a chunk, with their pictures if these were decoded."""

    items: Sequence[Item]
    pictures: dict[ImageSource, Picture] | None = None


class ChunkBuilder:
    """Makes chunks of items that are added one by one."""

    def __init__(self) -> None:
        self._items: list[Item] = []
        self._sources = 0

    def add(self, item: Item) -> Chunk | None:
        """Add an item; return the chunk of those before it if it is complete."""
        sources = len(item.images) + len(item.captions)
        is_full = len(self._items) == CHUNK_ITEMS or self._sources + sources > CHUNK_SOURCES
        complete = self.rest() if is_full else None
        self._items.append(item)
        self._sources += sources
        return complete

    def rest(self) -> Chunk | None:
        """Return the chunk of the items that are left, None without any."""
        items, self._items, self._sources = self._items, [], 0
        return Chunk(items) if items else None


def chunks(items: Iterable[Item]) -> Iterator[Chunk]:
    """Yield the items in chunks."""
    builder = ChunkBuilder()
    for item in items:
        if (complete := builder.add(item)) is not None:
            yield complete
    if (rest := builder.rest()) is not None:
        yield rest


def chunks_by_shard(
    items: Iterable[Item], count: int, wanted: Collection[int], root: Path
) -> Iterator[tuple[int, Chunk]]:
    """Yield the chunks of several shards of ``count``, each with the number of its shard.

    Those of one shard are equal to :func:`chunks` of :meth:`Shard.select`. Items are read once;
    memory is that of one chunk for each shard.
    """
    builders = {number: ChunkBuilder() for number in sorted(wanted)}
    for item in items:
        number = shard_number(group_key(item, root), count)
        if number in builders and (complete := builders[number].add(item)) is not None:
            yield number, complete
    for number, builder in builders.items():
        if (rest := builder.rest()) is not None:
            yield number, rest


def encode_stream(
    encoder: Encoder,
    items: Iterable[Item],
    *,
    source: str,
    problems: Problems,
    cache: Path | None = None,
    vectors: bool = True,
) -> Iterator[DocumentBatch]:
    """Yield the documents of items with their origins in ``source``, one batch for each chunk.

    Unusable items are recorded in ``problems`` and left out. With a cache, pictures are decoded
    when they are encoded, because those in the cache need no decoding.
    """
    read = chunks(items)
    for chunk in read if cache is not None else decoded_ahead(encoder, read):
        yield encode_chunk(
            encoder, chunk, source=source, problems=problems, cache=cache, vectors=vectors
        )


def decoded_ahead(encoder: Encoder, read: Iterator[Chunk]) -> Iterator[Chunk]:
    """Yield the chunks with their pictures; those of the next one are decoded meanwhile."""
    workers = max(2, os.cpu_count() or 2)
    with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        waiting: deque[tuple[Chunk, dict[ImageSource, Future[Picture]]]] = deque()
        try:
            for chunk in read:
                images = dict.fromkeys(image for item in chunk.items for image in item.images)
                preprocessing = encoder.preprocessing if images else None
                pictures = (
                    {}
                    if preprocessing is None
                    else {
                        image: pool.submit(decode_picture, image, preprocessing) for image in images
                    }
                )
                waiting.append((chunk, pictures))
                if len(waiting) > 1:
                    yield _finished(*waiting.popleft())
            while waiting:
                yield _finished(*waiting.popleft())
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _finished(chunk: Chunk, pictures: dict[ImageSource, Future[Picture]]) -> Chunk:
    if not pictures:
        return chunk
    return Chunk(chunk.items, {image: future.result() for image, future in pictures.items()})


def decode_chunk(chunk: Chunk, preprocessing: Preprocessing) -> Chunk:
    """Return a chunk with its pictures, decoded one after the other."""
    images = dict.fromkeys(image for item in chunk.items for image in item.images)
    return Chunk(chunk.items, {image: decode_picture(image, preprocessing) for image in images})


def decode_picture(image: ImageSource, preprocessing: Preprocessing) -> Picture:
    """Return a decoded picture and the hash of its bytes, or why it is unusable."""
    if isinstance(image, FeatureName):
        return Picture(None, f"{image}: there is no picture, only a feature", None)
    digest = None
    try:
        content = read_named(image)
        digest = hashlib.sha256(content).hexdigest()
        return Picture(preprocessing.pixels(content), None, digest)
    except DataError as error:
        return Picture(None, str(error), digest)


def encode_chunk(
    encoder: Encoder,
    chunk: Chunk,
    *,
    source: str,
    problems: Problems,
    cache: Path | None = None,
    vectors: bool = True,
) -> DocumentBatch:
    """Return the documents of the items of a chunk; see :func:`encode_stream`."""
    pictures = chunk.pictures
    if pictures is not None:
        encoder = DecodedEncoder(
            encoder, {k: one.pixels for k, one in pictures.items() if one.pixels is not None}
        )
        for one in pictures.values():
            if one.error is not None:
                problems.add(UNUSABLE, one.error)
    data = Dataset(tuple(chunk.items), problems=problems)
    encoded = encoder.batches(data, cache=cache, vectors=vectors, size=len(data))
    batch = next(encoded, DocumentBatch.empty(encoder.bits))
    kept = set(batch.ids)
    by_id = {item.id: item for item in chunk.items if item.id in kept}
    if pictures is not None:
        hashes = {image: one.hash for image, one in pictures.items()}
    else:
        hashes = picture_hashes(image for item in by_id.values() for image in item.images)
    origins = [origin_of(by_id[id_], source, hashes).to_text() for id_ in batch.ids]
    return replace(batch, origins=origins)
