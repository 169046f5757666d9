"""The service itself: description, health, metrics, search page."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from xmodal import __version__
from xmodal.index.contract import FullTextIndex
from xmodal.service.backend import BackendDependency
from xmodal.service.description import PUBLIC, get, problems, responses
from xmodal.service.errors import RequestError
from xmodal.service.json_response import MEDIA_TYPE as JSON
from xmodal.service.json_response import cacheable, json_response, to_json
from xmodal.service.metrics import MEDIA_TYPE as METRICS
from xmodal.service.results import About, Health

router = APIRouter()
PAGE = {
    "": ("index.html", "text/html; charset=utf-8"),
    "page.css": ("page.css", "text/css; charset=utf-8"),
    "page.js": ("page.js", "text/javascript; charset=utf-8"),
    "icon.svg": ("icon.svg", "image/svg+xml"),
}


@get(
    router,
    "/v1/about",
    summary="Model, index and limits of this service.",
    responses=responses(About),
)
async def about(backend: BackendDependency) -> Response:
    """Clients compare `encoder` and `bits` with those of stored codes."""
    encoder, settings = backend.encoder, backend.settings
    about = {
        "version": __version__,
        "method": encoder.about.get("options", {}).get("method"),
        "documents": await backend.document_count(),
        "ranks_words": isinstance(backend.index, FullTextIndex),
        "min_confidence": encoder.confidence.min_confidence,
        "limits": {
            "body_bytes": settings.max_body_bytes,
            "pixels": settings.max_pixels,
            "seconds": settings.request_timeout,
        },
    }
    return json_response(backend.identity() | about)


@get(
    router,
    "/health/live",
    summary="Liveness probe.",
    responses=responses(Health, public=True),
    openapi_extra=PUBLIC,
)
async def live() -> Response:
    """Answered as long as the process runs."""
    return json_response({"status": "live"})


@get(
    router,
    "/health/ready",
    summary="Readiness probe.",
    responses=responses(Health, public=True),
    openapi_extra=PUBLIC,
)
async def ready(backend: BackendDependency) -> Response:
    """Answered with 200 while the index can be reached; with a token, without a number."""
    count = await backend.document_count()
    documents = {"documents": count} if backend.settings.token is None else {}
    return json_response({"status": "ready", **documents})


@get(
    router,
    "/metrics",
    summary="Prometheus metrics.",
    response_class=Response,
    responses={
        200: {
            "description": "Prometheus' text format.",
            "content": {"text/plain": {"schema": {"type": "string"}}},
        }
    }
    | problems(),
)
async def metrics(backend: BackendDependency) -> Response:
    """Requests, seconds, batches and downloads."""
    return Response(backend.metrics.text(), headers={"Content-Type": METRICS})


@get(router, "/openapi.json", include_in_schema=False)
async def openapi(request: Request) -> Response:
    """The OpenAPI description."""
    return cacheable(request, to_json(request.app.openapi()), JSON, "no-cache")


@get(router, "/", include_in_schema=False)
async def index_page(request: Request) -> Response:
    """The search page."""
    return cacheable(request, *_page_file(""), "no-cache")


@get(router, "/page/{name}", include_in_schema=False)
async def page(request: Request, name: str) -> Response:
    """A file of the search page."""
    if name not in PAGE or not name:
        raise RequestError(404, f"no such path: {request.url.path[:200]}")
    return cacheable(request, *_page_file(name), "no-cache")


@cache
def _page_file(name: str) -> tuple[bytes, str]:
    file, media_type = PAGE[name]
    return files("xmodal.service").joinpath("page", file).read_bytes(), media_type
