"""Request handlers of the HTTP API."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from functools import cache
from hashlib import blake2b
from importlib.resources import files
from typing import Any
from urllib.parse import urlencode

from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from xmodal import __version__
from xmodal.codes import BinaryCodes
from xmodal.encoders.encoder import Encoder
from xmodal.errors import DataError
from xmodal.index.contract import FullTextIndex, Hit, Index, nearest_to_json, source_at
from xmodal.modality import Modality
from xmodal.retrieval.query import Query
from xmodal.retrieval.query_text import split_query_text
from xmodal.retrieval.retriever import Retriever
from xmodal.service import schema
from xmodal.service.batching import BatchedEncoder, Batcher
from xmodal.service.errors import RequestError
from xmodal.service.metrics import MEDIA_TYPE, Metrics
from xmodal.service.reload import watch_index
from xmodal.service.settings import Settings
from xmodal.service.thumbnails import SIZES, Thumbnails

Document = dict[str, Any]
MAX_IDS, MAX_ID_LENGTH = 100, 2048
COUNT_SECONDS = 5.0
"""Seconds for which the number of documents is cached."""
LITERAL = "\u2060"
"""Character before texts that OpenSearch's connectors would not quote; it is removed."""
ABSENT = (None, "", "null", LITERAL)
"""Values that OpenSearch's connectors send for a missing text or image."""
DEFAULT_K = 20
QUERY_FIELDS = (
    *("text", "like", "where", "radius", "min_confidence"),
    *("offset", "weights", "by", "stage", "word_weight"),
)
"""Fields of a body of /v1/search that are arguments of Query unchanged."""
PAGE = {
    "": ("index.html", "text/html; charset=utf-8"),
    "page.css": ("page.css", "text/css; charset=utf-8"),
    "page.js": ("page.js", "text/javascript; charset=utf-8"),
    "icon.svg": ("icon.svg", "image/svg+xml"),
}


class Service:
    """Request handlers, and the encoder, index and thread pools that they share."""

    def __init__(self, encoder: Encoder, index: Index, settings: Settings) -> None:
        self.encoder, self.settings = encoder, settings
        self.metrics = Metrics()
        self.thumbnails = Thumbnails(settings.pictures)
        self._count, self._counted_at = 0, -COUNT_SECONDS
        # One thread: parsing holds the interpreter lock, so more would only delay the event loop.
        self._parsing = ThreadPoolExecutor(1, thread_name_prefix="body")
        self._encoding = BatchedEncoder(
            encoder,
            settings,
            self.metrics.observe_batch,
            lambda result: self.metrics.downloads.labels(result).inc(),
        )
        self._retriever = Retriever(encoder, index)
        self._searching: Batcher[Query, list[Document]] = Batcher(
            self._search_batch,
            max_batch_size=settings.max_batch_size,
            workers=2,
            on_batch=lambda size: self.metrics.observe_batch("searches", size),
        )

    def routes(self) -> list[Route]:
        """All paths with their handlers."""
        return [
            Route("/", self.page),
            Route("/page/{name}", self.page),
            Route("/openapi.json", self.openapi),
            Route("/health/live", self.live),
            Route("/health/ready", self.ready),
            Route("/metrics", self.prometheus),
            Route("/v1/about", self.about),
            Route("/v1/filters", self.filters),
            Route("/v1/documents", self.documents),
            Route("/v1/picture", self.picture),
            Route("/v1/search", self.search, methods=["POST"]),
            Route("/v1/encode", self.encode, methods=["POST"]),
            Route("/v1/embed", self.embed, methods=["POST"]),
        ]

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
        self._parsing.shutdown(wait=True, cancel_futures=True)
        self._encoding.close()
        self._searching.close()
        self.index.close()

    # ---- search and encoding ------------------------------------------------------------------

    async def search(self, request: Request) -> Response:
        """POST /v1/search"""
        started = time.perf_counter()
        body = await self._body(request, "Search")
        async with asyncio.timeout(self.settings.request_timeout), AsyncExitStack() as pictures:
            query = await self._query(body, pictures)
            hits = await self._searching(query)
        return JSONResponse(
            {
                "target": query.target,
                "bits": self.encoder.bits,
                "took_ms": round(1000 * (time.perf_counter() - started), 2),
                "hits": hits,
            }
        )

    async def encode(self, request: Request) -> Response:
        """POST /v1/encode"""
        body = await self._body(request, "Encode")
        name = "texts" if "texts" in body else "images"
        encode = self._encoding.text if name == "texts" else self._encoding.image
        async with asyncio.timeout(self.settings.request_timeout):
            codes = await _gather([encode(value) for value in body[name]])
        for position, code in enumerate(codes):
            if isinstance(code, DataError):
                raise DataError(f"{name}[{position}]: {code}")
        found = [code.to_hex()[0] for code in _raise_errors(codes)]
        return JSONResponse(self._identity() | {"codes": found})

    async def embed(self, request: Request) -> Response:
        """POST /v1/embed: codes as signed bytes, in each shape that connectors read."""
        body = await self._body(request, "Embed")
        text, image = body.get("inputText"), body.get("inputImage")
        work: dict[str, Awaitable[BinaryCodes]] = {}
        if text not in ABSENT:
            work["text_code"] = self._encoding.text(text.removeprefix(LITERAL))
        if image not in ABSENT:
            work["image_code"] = self._encoding.image(image)
        if not work:
            raise RequestError(422, "inputText and inputImage are empty, expected one or both")
        async with asyncio.timeout(self.settings.request_timeout):
            codes = _raise_errors(await _gather(list(work.values())))
        found = {name: code.to_signed()[0] for name, code in zip(work, codes, strict=True)}
        text_code, image_code = found.get("text_code"), found.get("image_code")
        embedding = image_code or text_code
        return JSONResponse(
            {
                **self._identity(),
                "text_code": text_code,
                "image_code": image_code,
                "embedding": embedding,
                "embeddings": {"binary": [embedding]},
                "embeddingsByType": {"binary": embedding},
            }
        )

    async def _body(self, request: Request, name: str) -> Any:
        return await schema.read_body(request, name, self.settings, self._parsing)

    async def _query(self, body: dict[str, Any], pictures: AsyncExitStack) -> Query:
        """Return the query that a body describes, whose image is kept until ``pictures`` ends.

        Raises DataError for an image that is none, and RequestError if its host fails.
        """
        options = {name: body[name] for name in QUERY_FIELDS if body.get(name) is not None}
        not_text = list(body.get("not", ()))
        if "typed" in body:
            typed = split_query_text(body["typed"])
            not_text += typed.not_text
            if typed.text is not None:
                options["text"] = typed.text
        if "image" in body:
            picture = self._encoding.picture(body["image"])
            options["image"] = await pictures.enter_async_context(picture)
        return Query(
            target=body.get("target", "image"),
            k=body.get("k", DEFAULT_K),
            not_text=tuple(not_text),
            **options,
        )

    def _search_batch(self, queries: Sequence[Query]) -> list[list[Document] | Exception]:
        return [
            found
            if isinstance(found, Exception)
            else [self._hit_to_json(hit, query.target) for hit in found]
            for query, found in zip(queries, self._retriever.search_many(queries), strict=True)
        ]

    def _hit_to_json(self, hit: Hit, target: Modality | None) -> Document:
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
            "fields": hit.fields,
            "nearest": None if target is None else nearest_to_json(hit, target),
            "picture": self._picture_path(
                hit.id, hit.fields, (hit.nearest or 0) if target == "image" else 0
            ),
        }

    # ---- documents ----------------------------------------------------------------------------

    async def filters(self, request: Request) -> Response:
        """GET /v1/filters"""
        facets = await self._in_thread(self.index.facets)
        return JSONResponse(
            {
                "fields": [
                    {"name": name, "values": [{"value": v, "count": n} for v, n in values]}
                    for name, values in facets.items()
                ]
            }
        )

    async def documents(self, request: Request) -> Response:
        """GET /v1/documents?id=...&id=..."""
        ids = [_checked_id(id_) for id_ in _query_parameters(request, "id").getlist("id")]
        if not 0 < len(ids) <= MAX_IDS:
            raise RequestError(
                422, f"{len(ids)} ids, expected 1 to {MAX_IDS}: /v1/documents?id=a&id=b"
            )

        def fetch() -> list[Document]:
            found = self.index.get(ids).fields_by_id()
            return [
                {"id": id_, "fields": fields, "picture": self._picture_path(id_, fields)}
                for id_, fields in found.items()
            ]

        return JSONResponse({"documents": await self._in_thread(fetch)})

    async def picture(self, request: Request) -> Response:
        """GET /v1/picture?id=...&size=320&position=0"""
        query = _query_parameters(request, "id", "size", "position")
        id_, size = _checked_id(query.get("id", "")), query.get("size", str(SIZES[0]))
        if size not in map(str, SIZES):
            raise RequestError(422, f"the size is {size[:20]!r}, expected one of {SIZES}")
        position = query.get("position", "0")
        if not re.fullmatch("[0-9]{1,6}", position):
            raise RequestError(
                422, f"the position is {position[:20]!r}, expected a number from 0 to 999999"
            )
        document = await self._in_thread(self.index.get, [id_])
        image = source_at(document.fields_by_id().get(id_, {}).get("image"), int(position))
        path = self.thumbnails.path(id_, image)
        if path is None:
            raise RequestError(404, f"no picture of document {id_[:100]!r}")
        data = await self._in_thread(self.thumbnails.jpeg, path, int(size))
        etag = f'"{blake2b(data, digest_size=12).hexdigest()}"'
        headers = {"ETag": etag, "Cache-Control": "private, max-age=600"}
        if request.headers.get("if-none-match") == etag:
            return Response(status_code=304, headers=headers)
        return Response(data, headers=headers, media_type="image/jpeg")

    def _picture_path(self, id_: str, fields: Mapping[str, Any], position: int = 0) -> str | None:
        """The path of the thumbnail of a document's picture, or None. Reads the disk."""
        if self.thumbnails.path(id_, source_at(fields.get("image"), position)) is None:
            return None
        query = {"id": id_} | ({"position": position} if position else {})
        return f"/v1/picture?{urlencode(query)}"

    # ---- the service itself -------------------------------------------------------------------

    async def about(self, request: Request) -> Response:
        """GET /v1/about"""
        about = {
            "version": __version__,
            "method": self.encoder.about.get("options", {}).get("method"),
            "documents": await self._document_count(),
            "ranks_words": isinstance(self.index, FullTextIndex),
            "min_confidence": self.encoder.confidence.min_confidence,
            "limits": {
                "body_bytes": self.settings.max_body_bytes,
                "pixels": self.settings.max_pixels,
                "seconds": self.settings.request_timeout,
            },
        }
        return JSONResponse(self._identity() | about)

    async def live(self, request: Request) -> Response:
        """GET /health/live"""
        return JSONResponse({"status": "live"})

    async def ready(self, request: Request) -> Response:
        """GET /health/ready: needs no token, so with a token it returns no document count."""
        count = await self._document_count()
        documents = {"documents": count} if self.settings.token is None else {}
        return JSONResponse({"status": "ready", **documents})

    async def prometheus(self, request: Request) -> Response:
        """GET /metrics"""
        return Response(self.metrics.text(), headers={"Content-Type": MEDIA_TYPE})

    async def openapi(self, request: Request) -> Response:
        """GET /openapi.json"""
        return Response(schema.TEXT, media_type="application/json")

    async def page(self, request: Request) -> Response:
        """GET / and GET /page/NAME: the files of the search page."""
        name = request.path_params.get("name", "")
        if name not in PAGE or (not name and request.url.path != "/"):
            raise RequestError(404, f"no such path: {request.url.path[:200]}")
        content, media_type = _page_file(name)
        return Response(content, headers={"Content-Type": media_type, "Cache-Control": "no-cache"})

    async def _document_count(self) -> int:
        """Number of documents, cached for COUNT_SECONDS."""
        if time.monotonic() - self._counted_at >= COUNT_SECONDS:
            self._count = await self._in_thread(len, self.index)
            self._counted_at = time.monotonic()
        return self._count

    async def _in_thread(self, function: Callable[..., Any], *arguments: Any) -> Any:
        async with asyncio.timeout(self.settings.request_timeout):
            return await asyncio.to_thread(function, *arguments)

    def _identity(self) -> dict[str, Any]:
        return {"bits": self.encoder.bits, "encoder": self.encoder.fingerprint}


async def _gather(work: Sequence[Awaitable[BinaryCodes]]) -> list[BinaryCodes | BaseException]:
    """Codes, or errors in their places; waits for all of them."""
    return await asyncio.gather(*work, return_exceptions=True)


def _raise_errors(results: Sequence[BinaryCodes | BaseException]) -> list[BinaryCodes]:
    codes = []
    for result in results:
        if isinstance(result, BaseException):
            raise result
        codes.append(result)
    return codes


def _query_parameters(request: Request, *names: str) -> QueryParams:
    """The query parameters. Raises RequestError for one that is not in ``names``."""
    unknown = set(request.query_params) - set(names)
    if unknown:
        raise RequestError(
            422, f"unknown parameter {min(unknown)[:100]!r}, expected {', '.join(names)}"
        )
    return request.query_params


def _checked_id(id_: str) -> str:
    if not 0 < len(id_) <= MAX_ID_LENGTH:
        raise RequestError(422, f"an id of {len(id_)} characters, expected 1 to {MAX_ID_LENGTH}")
    return id_


@cache
def _page_file(name: str) -> tuple[bytes, str]:
    file, media_type = PAGE[name]
    return files("xmodal.service").joinpath("page", file).read_bytes(), media_type
