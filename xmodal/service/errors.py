"""Error responses as problem JSON (RFC 9457), without stack traces."""

from __future__ import annotations

import json
from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from xmodal.errors import IndexFailure, IndexMissing, ServerFailure, XmodalError
from xmodal.service.headers import RESPONSE_HEADERS

MEDIA_TYPE = "application/problem+json"
REFUSED_INPUTS = (400, 413)
"""Statuses with which OpenSearch refuses the values of a request: a repetition fails, too."""


class RequestError(Exception):
    """A request that is answered with an error status and a one-line detail."""

    def __init__(self, status: int, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.headers = headers or {}


def problem_response(status: int, detail: str, headers: dict[str, str] | None = None) -> Response:
    """An error response with ``title``, ``status`` and ``detail``."""
    problem = {"title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    body = json.dumps(problem, ensure_ascii=False).encode("utf-8", "replace")
    return Response(body, status, RESPONSE_HEADERS | (headers or {}), MEDIA_TYPE)


async def handle_error(request: Request, error: Exception) -> Response:
    """The response to a request whose handler raised ``error``."""
    if isinstance(error, RequestError):
        return problem_response(error.status, str(error), error.headers)
    if isinstance(error, HTTPException):
        detail = {
            404: f"no such path: {request.url.path[:200]}; /openapi.json lists all paths",
            405: f"{request.method[:20]} is not supported at {request.url.path[:200]}",
        }.get(error.status_code, str(error.detail))
        return problem_response(error.status_code, detail, dict(error.headers or {}))
    if isinstance(error, IndexMissing):
        return problem_response(404, str(error))
    if isinstance(error, ServerFailure) and error.status in REFUSED_INPUTS:
        return problem_response(422, str(error))
    if isinstance(error, IndexFailure):
        return problem_response(503, f"the index failed: {error}", {"Retry-After": "5"})
    if isinstance(error, XmodalError):
        return problem_response(422, str(error))
    if isinstance(error, TimeoutError):
        return problem_response(
            503, "the request timed out: ask for less, or retry later", {"Retry-After": "5"}
        )
    # uvicorn closes the connection after an exception, so the response announces it.
    return problem_response(
        500, "internal error: see the log of the service", {"Connection": "close"}
    )
