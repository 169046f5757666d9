"""The routes of the service: what is asked goes to the encoder, then to the index."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import cache
from hashlib import blake2b
from importlib.resources import files
from typing import Any
from urllib.parse import urlencode

from PIL import Image
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from xmodal import __version__
from xmodal.encoder import Encoder
from xmodal.errors import XmodalError
from xmodal.index import Hit, Index
from xmodal.service import routes, schema
from xmodal.service.batching import Batcher
from xmodal.service.errors import Refusal, refused
from xmodal.service.metrics import MEDIA_TYPE, Meters
from xmodal.service.middleware import Guard
from xmodal.service.reload import renewals
from xmodal.service.searching import Question, RanksWords, Searching
from xmodal.service.settings import Settings
from xmodal.service.thumbnails import SIZES, Thumbnails

Document = dict[str, Any]
MOST_IDS, LONGEST_ID = 100, 2048
SAMPLE = 20
"""Documents whose pictures are looked for at the start."""
FRESH = 5.0
"""Seconds for which the number of documents is remembered."""
PAGE = {
    "": ("index.html", "text/html; charset=utf-8"),
    "page.css": ("page.css", "text/css; charset=utf-8"),
    "page.js": ("page.js", "text/javascript; charset=utf-8"),
    "icon.svg": ("icon.svg", "image/svg+xml"),
}


def create_app(encoder: Encoder, index: Index, settings: Settings | None = None) -> Starlette:
    """The service as an ASGI application; it closes ``index`` when it ends.

    Both sides of the encoder and the index are asked once: what cannot be loaded raises its
    XmodalError here, not at the first request. ``state.pictures`` of the application has how many
    documents that were found name a picture, and how many of these can be shown.
    """
    settings = settings or Settings()
    encoder.encode_images([Image.new("RGB", (64, 64), "red")])
    red = encoder.encode_texts(["red"])

    def warm(some: Index) -> Sequence[Hit]:
        some.search(red, 1, target="text")
        return some.search(red, SAMPLE, target="image")[0]

    hits = warm(index)
    service = Service(encoder, index, settings)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        following = asyncio.create_task(service.follow(warm))
        yield
        following.cancel()
        service.close()

    app = Starlette(
        routes=[
            Route("/", service.page),
            Route("/page/{name}", service.page),
            Route("/openapi.json", service.description),
            Route("/health/live", service.live),
            Route("/health/ready", service.ready),
            Route("/metrics", service.metrics),
            Route("/v1/about", service.about),
            Route("/v1/filters", service.filters),
            Route("/v1/documents", service.documents),
            Route("/v1/picture", service.picture),
            Route("/v1/search", service.search, methods=["POST"]),
            Route("/v1/encode", service.encode, methods=["POST"]),
            Route("/v1/embed", service.embed, methods=["POST"]),
        ],
        middleware=[Middleware(Guard, settings=settings, meters=service.meters)],
        exception_handlers={Exception: refused, **dict.fromkeys(HANDLED, refused)},
        lifespan=lifespan,
    )
    named = [(hit.id, hit.fields["image"]) for hit in hits if hit.fields.get("image")]
    app.state.pictures = len(named), sum(bool(service.thumbnails.path(*one)) for one in named)
    return app


HANDLED: tuple[Any, ...] = (Refusal, XmodalError, TimeoutError, 404, 405)


class Service:
    """What the routes share: encoder, index, and the threads in which they work."""

    def __init__(self, encoder: Encoder, index: Index, settings: Settings) -> None:
        self.encoder, self.settings = encoder, settings
        self.meters = Meters()
        self.thumbnails = Thumbnails(settings.pictures)
        self._counted = (-FRESH, 0)
        # One thread: parsing holds the interpreter lock, so more would only delay the event loop.
        self._parsing = ThreadPoolExecutor(1, thread_name_prefix="body")

        def seen(work: str, size: int) -> None:
            self.meters.batches.labels(work).observe(size)

        self.encoding = routes.Encoding(encoder, settings, seen)
        self.answering = Searching(index, encoder.confidence)

        def answers(questions: Sequence[Question]) -> list[list[Document] | Exception]:
            return [
                told
                if isinstance(told, Exception)
                else self._shown([hit._asdict() for hit in told])
                for told in self.answering.answers(questions)
            ]

        self.searching: Batcher[Question, list[Document]] = Batcher(
            answers,
            most=settings.together,
            workers=2,
            seen=lambda size: seen("searches", size),
        )

    @property
    def index(self) -> Index:
        """The index as it is now."""
        return self.answering.index

    async def follow(self, warm: Callable[[Index], object]) -> None:
        """Take in what another process saves, until this is cancelled."""
        async for index in renewals(self.index, warm, self.settings.look_seconds):
            self.answering.index = index
            self._counted = (-FRESH, 0)

    def close(self) -> None:
        """Finish what is running and let go of the index."""
        self._parsing.shutdown(wait=True, cancel_futures=True)
        self.encoding.close()
        self.searching.close()
        self.index.close()

    async def search(self, request: Request) -> Response:
        """POST /v1/search"""
        started = time.perf_counter()
        asked = await self._body(request, "Search")
        async with asyncio.timeout(self.settings.seconds):
            question = await routes.question(asked, self.encoding)
            hits = await self.searching(question)
        return JSONResponse(
            {
                "target": question.target,
                "bits": self.encoder.bits,
                "took_ms": round(1000 * (time.perf_counter() - started), 2),
                "hits": hits,
            }
        )

    async def encode(self, request: Request) -> Response:
        """POST /v1/encode"""
        asked = await self._body(request, "Encode")
        async with asyncio.timeout(self.settings.seconds):
            codes = await routes.codes(asked, self.encoding)
        return JSONResponse(self._made_by() | {"codes": codes})

    async def embed(self, request: Request) -> Response:
        """POST /v1/embed"""
        asked = await self._body(request, "Embed")
        async with asyncio.timeout(self.settings.seconds):
            told = await routes.embedding(asked, self.encoding)
        return JSONResponse(self._made_by() | told)

    async def about(self, request: Request) -> Response:
        """GET /v1/about"""
        limits = {
            name: getattr(self.settings, name) for name in ("body_bytes", "pixels", "seconds")
        }
        told = {
            "version": __version__,
            "method": self.encoder.about.get("options", {}).get("method"),
            "documents": await self._documents(),
            "ranks_words": isinstance(self.index, RanksWords),
            "limits": limits,
        }
        return JSONResponse(self._made_by() | told)

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
        ids = [_usable(one) for one in _only(request, "id").getlist("id")]
        if not 0 < len(ids) <= MOST_IDS:
            raise Refusal(422, f"{len(ids)} ids, expected 1 to {MOST_IDS}: /v1/documents?id=a&id=b")

        def known() -> list[Document]:
            found = self.index.fields_of(ids)
            return self._shown([{"id": id_, "fields": fields} for id_, fields in found.items()])

        return JSONResponse({"documents": await self._in_thread(known)})

    async def picture(self, request: Request) -> Response:
        """GET /v1/picture?id=...&size=320"""
        given = _only(request, "id", "size")
        id_, size = _usable(given.get("id", "")), given.get("size", str(SIZES[0]))
        if size not in map(str, SIZES):
            raise Refusal(422, f"the size is {size[:20]!r}, expected one of {SIZES}")
        fields = (await self._in_thread(self.index.fields_of, [id_])).get(id_, {})
        path = self.thumbnails.path(id_, fields.get("image"))
        if path is None:
            raise Refusal(404, f"there is no picture of {id_[:100]!r} to show")
        data = await self._in_thread(self.thumbnails.jpeg, path, int(size))
        mark = f'"{blake2b(data, digest_size=12).hexdigest()}"'
        headers = {"ETag": mark, "Cache-Control": "private, max-age=600"}
        if request.headers.get("if-none-match") == mark:
            return Response(status_code=304, headers=headers)
        return Response(data, headers=headers, media_type="image/jpeg")

    async def live(self, request: Request) -> Response:
        """GET /health/live"""
        return JSONResponse({"status": "live"})

    async def ready(self, request: Request) -> Response:
        """GET /health/ready"""
        told: Document = {"status": "ready"}
        count = await self._documents()
        if self.settings.token is None:  # this path needs no token, the size of the index does
            told["documents"] = count
        return JSONResponse(told)

    async def metrics(self, request: Request) -> Response:
        """GET /metrics"""
        return Response(self.meters.text(), headers={"Content-Type": MEDIA_TYPE})

    async def description(self, request: Request) -> Response:
        """GET /openapi.json"""
        return Response(schema.TEXT, media_type="application/json")

    async def page(self, request: Request) -> Response:
        """GET / and what the page consists of"""
        name = request.path_params.get("name", "")
        if name not in PAGE or (not name and request.url.path != "/"):
            raise Refusal(404, f"there is nothing at {request.url.path[:200]}")
        content, kind = _page_file(name)
        return Response(content, headers={"Content-Type": kind, "Cache-Control": "no-cache"})

    async def _body(self, request: Request, schema: str) -> Any:
        return await routes.body(request, schema, self.settings, self._parsing)

    async def _documents(self) -> int:
        """How many there are, as of a moment ago."""
        when, count = self._counted
        if time.monotonic() - when >= FRESH:
            count = await self._in_thread(len, self.index)
            self._counted = time.monotonic(), count
        return count

    async def _in_thread(self, work: Any, *given: Any) -> Any:
        async with asyncio.timeout(self.settings.seconds):
            return await asyncio.to_thread(work, *given)

    def _made_by(self) -> dict[str, Any]:
        return {"bits": self.encoder.bits, "encoder": self.encoder.fingerprint}

    def _shown(self, documents: list[Document]) -> list[Document]:
        """With where the picture of each is, if there is one that may be shown; looks at files."""
        for one in documents:
            there = self.thumbnails.path(one["id"], one["fields"].get("image")) is not None
            one["picture"] = f"/v1/picture?{urlencode({'id': one['id']})}" if there else None
        return documents


def _only(request: Request, *names: str) -> Any:
    """The query of an address in which nothing else stands. Raises Refusal."""
    unknown = set(request.query_params) - set(names)
    if unknown:
        raise Refusal(422, f"{min(unknown)[:100]!r} is not known here, expected {', '.join(names)}")
    return request.query_params


def _usable(id_: str) -> str:
    if not 0 < len(id_) <= LONGEST_ID:
        raise Refusal(422, f"an id of {len(id_)} characters, expected 1 to {LONGEST_ID}")
    return id_


@cache
def _page_file(name: str) -> tuple[bytes, str]:
    file, kind = PAGE[name]
    return files("xmodal.service").joinpath("page", file).read_bytes(), kind
