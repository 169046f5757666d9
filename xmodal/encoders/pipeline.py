"""Encoding of any number of items with bounded memory: read, decode, encode, in chunks.

A chunk is the unit of work: codes of its items depend on the chunk and the encoder alone, so that
several processes, or one after a restart, give equal documents.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from xmodal.data.dataset import Dataset, Item, Problems
from xmodal.data.picture_files import picture_hashes
from xmodal.encoders.encoder import Encoder
from xmodal.index.documents import DocumentBatch
from xmodal.index.update import origin_of

CHUNK_ITEMS = 512
CHUNK_SOURCES = 1024
"""Items, and pictures and captions, of a chunk; an item with more is a chunk of its own."""


def chunks(items: Iterable[Item]) -> Iterator[list[Item]]:
    """Yield the items in chunks."""
    chunk: list[Item] = []
    sources = 0
    for item in items:
        number = len(item.images) + len(item.captions)
        if chunk and (len(chunk) == CHUNK_ITEMS or sources + number > CHUNK_SOURCES):
            yield chunk
            chunk, sources = [], 0
        chunk.append(item)
        sources += number
    if chunk:
        yield chunk


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

    Unusable items are recorded in ``problems`` and left out.
    """
    for chunk in chunks(items):
        yield encode_chunk(
            encoder, chunk, source=source, problems=problems, cache=cache, vectors=vectors
        )


def encode_chunk(
    encoder: Encoder,
    items: Sequence[Item],
    *,
    source: str,
    problems: Problems,
    cache: Path | None = None,
    vectors: bool = True,
) -> DocumentBatch:
    """Return the documents of the items of a chunk; see :func:`encode_stream`."""
    data = Dataset(tuple(items), problems=problems)
    encoded = encoder.batches(data, cache=cache, vectors=vectors, size=len(items))
    batch = next(encoded, DocumentBatch.empty(encoder.bits))
    kept = set(batch.ids)
    by_id = {item.id: item for item in items if item.id in kept}
    hashes = picture_hashes(image for item in by_id.values() for image in item.images)
    origins = [origin_of(by_id[id_], source, hashes).to_text() for id_ in batch.ids]
    return replace(batch, origins=origins)
