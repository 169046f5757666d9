"""Searches: one, several in one request, and by the address alone."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter
from starlette.responses import Response

from xmodal.retrieval.query import Query
from xmodal.retrieval.query_text import split_query_text
from xmodal.service.backend import Backend, BackendDependency, Page
from xmodal.service.bodies import EXAMPLE, Search
from xmodal.service.description import post, responses
from xmodal.service.json_response import MEDIA_TYPE, to_json
from xmodal.service.reading import body_of
from xmodal.service.results import Found

router = APIRouter()


@post(
    router,
    "/v1/search",
    Search,
    {"text": EXAMPLE, "k": 5},
    summary="Search by text, by picture, or by document (more like this).",
    responses=responses(Found, 404, 502, body=True),
)
async def search(backend: BackendDependency, body: Annotated[Search, body_of(Search)]) -> Response:
    """POST /v1/search"""
    started = time.perf_counter()
    async with asyncio.timeout(backend.settings.request_timeout):
        page = await find(backend, body)
    head = {
        "target": body.target,
        "bits": backend.encoder.bits,
        "took_ms": round(1000 * (time.perf_counter() - started), 2),
        "next": body.offset + body.k if page.has_more else None,
    }
    return Response(with_hits(head, page.hits), media_type=MEDIA_TYPE)


def with_hits(head: dict[str, Any], hits: list[bytes]) -> bytes:
    """A JSON object with the members of ``head`` and with ``hits``, which are JSON already."""
    return b'%s,"hits":[%s]}' % (to_json(head)[:-1], b",".join(hits))


async def find(backend: Backend, body: Search) -> Page:
    """The hits of one search. Raises XmodalError, and RequestError if the host of a picture fails.

    A picture is in memory until the search ends.
    """
    async with AsyncExitStack() as pictures:
        query = to_query(body)
        if query.image is not None:
            picture = backend.encoding.picture(body.image)
            query = replace(query, image=await pictures.enter_async_context(picture))
        return await backend.search(query)


def to_query(body: Search) -> Query:
    """The query that a body describes, with the image as in the body."""
    options = body.model_dump(by_alias=True, exclude_unset=True)
    not_text = options.pop("not", [])
    typed = options.pop("typed", None)
    if typed is not None:
        parts = split_query_text(typed)
        not_text += parts.not_text
        if parts.text is not None:
            options["text"] = parts.text
    return Query(**options | {"target": body.target, "k": body.k, "not_text": tuple(not_text)})
