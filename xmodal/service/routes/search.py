"""Searches: one, several in one request, and one by the address alone."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter
from fastapi import Query as QueryParameters
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from xmodal.errors import XmodalError
from xmodal.modality import Modality
from xmodal.retrieval.query import By, Query
from xmodal.retrieval.query_text import split_query_text
from xmodal.service import bodies
from xmodal.service.backend import Backend, BackendDependency
from xmodal.service.bodies import EXAMPLE, Search, SearchBatch
from xmodal.service.conditions import LEFT_OUT
from xmodal.service.description import get, post, responses
from xmodal.service.errors import RequestError, handle_error
from xmodal.service.json_response import MEDIA_TYPE, cacheable, to_json
from xmodal.service.parameters import Digits, Parameters
from xmodal.service.reading import body_of, parse, validate
from xmodal.service.results import Found, FoundBatch

router = APIRouter()
MAX_AGE = 10
"""Seconds for which a client may keep the hits of an address."""


@post(
    router,
    "/v1/search",
    Search,
    {"text": EXAMPLE, "k": 5},
    summary="Search by text, by picture, or by document (more like this).",
    responses=responses(Found, 404, 502, body=True),
)
async def search(backend: BackendDependency, body: Annotated[Search, body_of(Search)]) -> Response:
    """`next` of the response is the `offset` of the next page, or null after the last hit."""
    started = time.perf_counter()
    async with asyncio.timeout(backend.settings.request_timeout):
        page, _ = await find(backend, body)
    return Response(_with_time(page, started), media_type=MEDIA_TYPE)


@post(
    router,
    "/v1/search/batch",
    SearchBatch,
    {"searches": [{"text": EXAMPLE, "k": 5}, {"text": "a blue star", "k": 5}]},
    summary="Several searches in one request; one that fails does not fail the others.",
    responses=responses(FoundBatch, body=True),
)
async def search_batch(
    request: Request, backend: BackendDependency, body: Annotated[SearchBatch, body_of(SearchBatch)]
) -> Response:
    """A batch with an invalid field is refused as a whole."""
    started = time.perf_counter()

    async def result(one: Search) -> bytes:
        try:
            return (await find(backend, one))[0]
        except (XmodalError, RequestError) as error:
            return bytes((await handle_error(request, error)).body)

    async with asyncio.timeout(backend.settings.request_timeout):
        results = await asyncio.gather(*map(result, body.searches))
    content = b'{"results":[%s]}' % b",".join(results)
    return Response(_with_time(content, started), media_type=MEDIA_TYPE)


class SearchParameters(Parameters):
    """Parameters of GET /v1/search."""

    q: bodies.Text = Field(
        LEFT_OUT,
        description='Text as typed into a search field: -word and -"some words" exclude.',
        examples=[EXAMPLE],
    )
    like: bodies.DocumentId = Field(LEFT_OUT, description="Id of a document, for more like this.")
    target: Modality = Field("image", description="Modality of the documents.")
    k: Annotated[bodies.K, Digits] = Field(bodies.DEFAULT_K, description="Maximum number of hits.")
    offset: Annotated[bodies.Offset, Digits] = Field(
        0, description="Number of hits before the first one returned."
    )
    where: str = Field(LEFT_OUT, description="Filters as in the body of POST, as JSON.")
    radius: Annotated[bodies.Radius, Digits] = Field(
        LEFT_OUT, description="Maximum distance of a hit in bits."
    )
    min_confidence: bodies.Confidence = Field(LEFT_OUT, description="Minimum confidence of a hit.")
    by: By = Field("both", description="Ranking: by codes, by words (BM25), or both, fused.")


@get(
    router,
    "/v1/search",
    summary="Search by text or by document, by the address alone: for curl, and as a user types.",
    responses=responses(Found, 304, 400, 404, 422),
)
async def search_by_address(
    request: Request,
    backend: BackendDependency,
    parameters: Annotated[SearchParameters, QueryParameters()],
) -> Response:
    """The header `Link` has the address of the next page, `ETag` changes with the hits."""
    started = time.perf_counter()
    content = parameters.model_dump(exclude_unset=True)
    if not {"q", "like"} & set(content):
        raise RequestError(422, "the query has neither q nor like, expected one or both")
    if "q" in content:
        content["typed"] = content.pop("q")
    if "where" in content:
        content["where"] = parse(content["where"].encode("utf-8", "replace"), "where")
    body = validate(Search, content, "query")
    async with asyncio.timeout(backend.settings.request_timeout):
        page, next_offset = await find(backend, body)
    headers = {}
    if next_offset is not None:
        following = urlencode({**request.query_params, "offset": next_offset})
        headers["Link"] = f'</v1/search?{following}>; rel="next"'
    return cacheable(
        request,
        _with_time(page, started),
        MEDIA_TYPE,
        f"private, max-age={MAX_AGE}",
        of=page,
        headers=headers,
    )


async def find(backend: Backend, body: Search) -> tuple[bytes, int | None]:
    """The page of hits of one search as JSON, and the offset of the next page, or None.

    A picture is in memory until the search ends. Raises XmodalError, and RequestError if the host
    of a picture fails.
    """
    async with AsyncExitStack() as pictures:
        query = to_query(body)
        if query.image is not None:
            picture = backend.encoding.picture(body.image)
            query = replace(query, image=await pictures.enter_async_context(picture))
        page = await backend.search(query)
    following = body.offset + body.k if page.has_more else None
    head = {"target": body.target, "bits": backend.encoder.bits, "next": following}
    return b'%s,"hits":[%s]}' % (to_json(head)[:-1], b",".join(page.hits)), following


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


def _with_time(content: bytes, started: float) -> bytes:
    """A JSON object with the milliseconds that its search took."""
    return b'%s,"took_ms":%.2f}' % (content[:-1], 1000 * (time.perf_counter() - started))
