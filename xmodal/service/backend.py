"""What the request handlers share: encoder, index, thread pools, metrics."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import Depends
from starlette.requests import Request

from xmodal.codes import BinaryCodes
from xmodal.encoders.encoder import Encoder
from xmodal.index.contract import Hit, Index, nearest_to_json, source_at
from xmodal.modality import Modality
from xmodal.retrieval.query import Query
from xmodal.retrieval.retriever import Retriever
from xmodal.service.batching import BatchedEncoder, Batcher, gather
from xmodal.service.bodies import MAX_K, MAX_OFFSET
from xmodal.service.input_threads import InputThreads, Precedence, give_way
from xmodal.service.json_response import to_json
from xmodal.service.metrics import Metrics
from xmodal.service.reload import watch_index
from xmodal.service.settings import Settings
from xmodal.service.thumbnails import Thumbnails
from xmodal.service.tracing import traced

MAX_DEPTH = MAX_OFFSET + MAX_K
"""Last hit of a ranking that a request can have; whether more follow is not searched."""
COUNT_SECONDS = 5.0
"""Seconds for which the number of documents is cached."""


LARGE_CHARACTERS, LARGE_EXCLUSIONS, LARGE_DEPTH, LARGE_VALUES = 2000, 4, 200, 64
"""Characters of the texts, excluded texts, hits, and values of filters from which a search may take
long."""
LARGE_BATCH = 4


def is_large(query: Query) -> bool:
    """Whether a search may take much longer than others."""
    characters = len(query.text or "") + sum(map(len, query.not_text))
    return (
        query.image is not None
        or len(query.not_text) > LARGE_EXCLUSIONS
        or characters > LARGE_CHARACTERS
        or query.k + query.offset > LARGE_DEPTH
        or _values(query.where) > LARGE_VALUES
    )


def _values(where: Any) -> int:
    """Number of values in a filter."""
    if isinstance(where, Mapping):
        return sum(map(_values, where.values()))
    return sum(map(_values, where)) if isinstance(where, list | tuple) else 1


@dataclass(frozen=True)
class Page:
    """Hits as JSON; ``has_more``: whether further hits follow."""

    hits: list[bytes]
    has_more: bool


class Backend:
    """Encoder, index and thread pools of one service."""

    def __init__(self, encoder: Encoder, index: Index, settings: Settings) -> None:
        self.encoder, self.settings = encoder, settings
        self.metrics = Metrics()
        self.thumbnails = Thumbnails(settings.pictures)
        self._precedence = Precedence()
        self.inputs = InputThreads(self._precedence)
        self.encoding = BatchedEncoder(
            encoder,
            settings,
            self.inputs,
            self.metrics.observe_batch,
            lambda result: self.metrics.downloads.labels(result).inc(),
        )
        self._retriever = Retriever(traced(encoder), index, give_way)
        self._count, self._counted_at = 0, -COUNT_SECONDS
        self._searches = self._batcher(2)
        self._large_searches = self._batcher(1)
        waiting = self.encoding.waiting() | {
            "searches": lambda: self._searches.waiting,
            "large searches": lambda: self._large_searches.waiting,
        }
        for work, count in waiting.items():
            self.metrics.queue.labels(work).set_function(count)

    @property
    def index(self) -> Index:
        """The current index; a reload replaces it."""
        return self._retriever.index

    async def reload_index(self, warm_up: Callable[[Index], object]) -> None:
        """Replace the index whenever another process saves it, until cancelled."""
        async for index in watch_index(self.index, warm_up, self.settings.reload_interval):
            self._retriever.index = index
            self._counted_at = -COUNT_SECONDS

    def close(self) -> None:
        """Wait for running batches, end the threads and close the index."""
        self.inputs.close()
        self.encoding.close()
        self._searches.close()
        self._large_searches.close()
        self.index.close()

    async def search(self, query: Query) -> Page:
        """The hits of a query. Searches that may take long do not delay the others."""
        if is_large(query):
            return await self._large_searches(query)
        with self._precedence.small():
            return await self._searches(query)

    async def encode_texts(self, texts: Sequence[str]) -> list[BinaryCodes | BaseException]:
        """The codes of texts, or errors in their places. Many texts do not delay few."""
        if len(texts) > LARGE_BATCH or sum(map(len, texts)) > LARGE_CHARACTERS:
            return await gather(map(self.encoding.large_text, texts))
        with self._precedence.small():
            return await gather(map(self.encoding.text, texts))

    async def encode_images(self, images: Sequence[str]) -> list[BinaryCodes | BaseException]:
        """The codes of images, or errors in their places. Many images do not delay few."""
        many, encoding = len(images) > LARGE_BATCH, self.encoding
        return await gather(map(encoding.one_of_many_images if many else encoding.image, images))

    def _batcher(self, workers: int) -> Batcher[Query, Page]:
        return Batcher(
            self._search_batch,
            max_batch_size=self.settings.max_batch_size if workers > 1 else 1,
            workers=workers,
            initializer=(lambda: None) if workers > 1 else self._precedence.enter_thread,
            on_batch=lambda size: self.metrics.observe_batch("searches", size),
            name="search",
        )

    async def in_thread(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """The result of a blocking function. Raises TimeoutError."""
        async with asyncio.timeout(self.settings.request_timeout):
            return await asyncio.to_thread(function, *arguments)

    async def document_count(self) -> int:
        """Number of documents, cached for COUNT_SECONDS."""
        if time.monotonic() - self._counted_at >= COUNT_SECONDS:
            self._count = await self.in_thread(len, self.index)
            self._counted_at = time.monotonic()
        return self._count

    def identity(self) -> dict[str, Any]:
        """Width and encoder of the codes."""
        return {"bits": self.encoder.bits, "encoder": self.encoder.fingerprint}

    def picture_path(self, id_: str, fields: Mapping[str, Any], position: int = 0) -> str | None:
        """The path of the thumbnail of a document's picture, or None. Reads the disk."""
        if self.thumbnails.path(id_, source_at(fields.get("image"), position)) is None:
            return None
        query = {"id": id_} | ({"position": position} if position else {})
        return f"/v1/picture?{urlencode(query)}"

    def _search_batch(self, queries: Sequence[Query]) -> list[Page | Exception]:
        """Search for one hit more than each query asks for, which decides ``has_more``."""
        longer = [
            replace(query, k=query.k + (query.offset + query.k < MAX_DEPTH)) for query in queries
        ]
        return [
            found if isinstance(found, Exception) else self._page(found, query)
            for query, found in zip(queries, self._retriever.search_many(longer), strict=True)
        ]

    def _page(self, hits: Sequence[Hit], query: Query) -> Page:
        """The page as JSON, hit by hit, so that other threads run in between. Reads the disk."""
        page = []
        for hit in hits[: query.k]:
            give_way()
            page.append(to_json(self._hit_to_json(hit, query.target)))
        return Page(page, len(hits) > query.k or query.offset + len(hits) >= MAX_DEPTH)

    def _hit_to_json(self, hit: Hit, target: Modality | None) -> dict[str, Any]:
        """Return a hit with its nearest caption or picture. Reads the disk."""
        return {
            "id": hit.id,
            **({} if hit.index_name is None else {"index": hit.index_name}),
            "distance": hit.distance,
            "confidence": hit.confidence,
            "similarity": hit.similarity,
            "score": hit.score,
            "ranks": hit.ranks,
            "matched": hit.matched,
            "fields": dict(hit.fields),
            "nearest": None if target is None else nearest_to_json(hit, target),
            "picture": self.picture_path(
                hit.id, hit.fields, (hit.nearest or 0) if target == "image" else 0
            ),
        }


async def _backend(request: Request) -> Backend:
    backend: Backend = request.app.state.backend
    return backend


BackendDependency = Annotated[Backend, Depends(_backend)]
"""Argument of a request handler."""
