"""Errors as problem JSON (RFC 9457): what was found, what was expected, never a trace."""

from __future__ import annotations

import json
from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from xmodal.errors import IndexFailure, IndexMissing, XmodalError

MEDIA_TYPE = "application/problem+json"


class Refusal(Exception):
    """A request that is not carried out: the status of the answer, and one line for a person."""

    def __init__(self, status: int, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.headers = headers or {}


def problem(status: int, detail: str, headers: dict[str, str] | None = None) -> Response:
    """The answer that tells an error."""
    told = {"title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    body = json.dumps(told, ensure_ascii=False).encode("utf-8", "replace")
    return Response(body, status, headers, MEDIA_TYPE)


async def refused(request: Request, error: Exception) -> Response:
    """The answer to a request that raised."""
    if isinstance(error, Refusal):
        return problem(error.status, str(error), error.headers)
    if isinstance(error, HTTPException):
        detail = {
            404: f"there is nothing at {request.url.path[:200]}: /openapi.json says what there is",
            405: f"{request.method[:20]} is not possible at {request.url.path[:200]}",
        }.get(error.status_code, str(error.detail))
        return problem(error.status_code, detail, dict(error.headers or {}))
    if isinstance(error, IndexMissing):
        return problem(404, str(error))
    if isinstance(error, IndexFailure):
        return problem(503, f"the index cannot answer: {error}", {"Retry-After": "5"})
    if isinstance(error, XmodalError):
        return problem(422, str(error))
    if isinstance(error, TimeoutError):
        return problem(
            503, "this took too long and was given up: ask for less", {"Retry-After": "5"}
        )
    # The server closes the connection of whatever raised: the client has to know.
    return problem(500, "an error of the service; its log says more", {"Connection": "close"})
