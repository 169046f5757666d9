"""The FastAPI application of the service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from PIL import Image
from starlette.middleware import Middleware

from xmodal.encoders.encoder import Encoder
from xmodal.errors import XmodalError
from xmodal.index.contract import Hit, Index, shown_source
from xmodal.retrieval.retriever import Retriever
from xmodal.service.backend import Backend
from xmodal.service.compression import CompressionMiddleware
from xmodal.service.description import describe
from xmodal.service.errors import RequestError, handle_error
from xmodal.service.middleware import ServiceMiddleware
from xmodal.service.routes import ROUTERS
from xmodal.service.settings import Settings

SAMPLE_SIZE = 20
"""Documents whose image files are looked up at start."""
HANDLED: tuple[Any, ...] = (
    *(RequestError, RequestValidationError, XmodalError, TimeoutError),
    *(404, 405),
)


def create_app(encoder: Encoder, index: Index, settings: Settings | None = None) -> FastAPI:
    """The service as an ASGI application, which closes ``index`` at shutdown.

    Encodes an image and a text and searches the index before it returns, so that a model or an
    index that cannot be loaded raises its XmodalError here and not at the first request.
    ``app.state.picture_sample`` is a pair: of SAMPLE_SIZE documents, how many name an image file,
    and how many of these files can be served.
    """
    settings = settings or Settings()
    encoder.encode_images([Image.new("RGB", (64, 64), "red")])

    def warm_up(index: Index) -> Sequence[Hit]:
        retriever = Retriever(encoder, index)
        retriever.search(text="red", target="text", k=1)
        return retriever.search(text="red", target="image", k=SAMPLE_SIZE)

    hits = warm_up(index)
    backend = Backend(encoder, index, settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        reloading = asyncio.create_task(backend.reload_index(warm_up))
        yield
        reloading.cancel()
        await asyncio.to_thread(backend.close)

    app = FastAPI(
        openapi_url=None,  # the routes have it, with an ETag
        docs_url=None,  # the pages load scripts of other sites
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
        middleware=[
            Middleware(ServiceMiddleware, settings=settings, metrics=backend.metrics),
            Middleware(CompressionMiddleware),
        ],
        exception_handlers={Exception: handle_error, **dict.fromkeys(HANDLED, handle_error)},
        lifespan=lifespan,
    )
    for router in ROUTERS:
        app.include_router(router)
    description = describe(app, token=bool(settings.tokens or settings.token_files))
    app.openapi = lambda: description  # type: ignore[method-assign]
    app.state.backend = backend
    app.state.metrics = backend.metrics
    named = [(hit.id, file) for hit in hits if (file := shown_source(hit, "image", "image"))]
    app.state.picture_sample = len(named), sum(bool(backend.thumbnails.path(*n)) for n in named)
    return app
