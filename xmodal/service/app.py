"""The ASGI application of the service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from PIL import Image
from starlette.applications import Starlette
from starlette.middleware import Middleware

from xmodal.encoders.encoder import Encoder
from xmodal.errors import XmodalError
from xmodal.index.contract import Hit, Index, shown_source
from xmodal.service.errors import RequestError, handle_error
from xmodal.service.middleware import ServiceMiddleware
from xmodal.service.routes import Service
from xmodal.service.settings import Settings

SAMPLE_SIZE = 20
"""Documents whose image files are looked up at start."""
HANDLED: tuple[Any, ...] = (RequestError, XmodalError, TimeoutError, 404, 405)


def create_app(encoder: Encoder, index: Index, settings: Settings | None = None) -> Starlette:
    """The service as an ASGI application, which closes ``index`` at shutdown.

    Encodes an image and a text and searches the index before it returns, so that a model or an
    index that cannot be loaded raises its XmodalError here and not at the first request.
    ``app.state.picture_sample`` is a pair: of SAMPLE_SIZE documents, how many name an image file,
    and how many of these files can be served.
    """
    settings = settings or Settings()
    encoder.encode_images([Image.new("RGB", (64, 64), "red")])
    code = encoder.encode_texts(["red"])

    def warm_up(index: Index) -> Sequence[Hit]:
        index.search(code, 1, target="text")
        return index.search(code, SAMPLE_SIZE, target="image")[0]

    hits = warm_up(index)
    service = Service(encoder, index, settings)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        reloading = asyncio.create_task(service.reload_index(warm_up))
        yield
        reloading.cancel()
        await asyncio.to_thread(service.close)

    app = Starlette(
        routes=service.routes(),
        middleware=[Middleware(ServiceMiddleware, settings=settings, metrics=service.metrics)],
        exception_handlers={Exception: handle_error, **dict.fromkeys(HANDLED, handle_error)},
        lifespan=lifespan,
    )
    app.state.metrics = service.metrics
    named = [(hit.id, file) for hit in hits if (file := shown_source(hit, "image", "image"))]
    app.state.picture_sample = len(named), sum(bool(service.thumbnails.path(*n)) for n in named)
    return app
