"""Error responses as problem JSON (RFC 9457), without stack traces."""

from __future__ import annotations

import json
from http import HTTPStatus

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from xmodal.errors import IndexFailure, IndexMissing, ServerFailure, XmodalError
from xmodal.service.validation import validation_message

MEDIA_TYPE = "application/problem+json"
REFUSED_INPUTS = (400, 413)
"""Statuses with which OpenSearch refuses the values of a request: a repetition fails, too."""


class RequestError(Exception):
    """A request that is answered with an error status and a one-line detail."""

    def __init__(self, status: int, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.headers = headers or {}


def problem(status: int, detail: str) -> bytes:
    """The body of an error response: ``title``, ``status`` and ``detail``."""
    content = {"title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    return json.dumps(content, ensure_ascii=False).encode("utf-8", "replace")


def problem_response(status: int, detail: str, headers: dict[str, str] | None = None) -> Response:
    """An error response."""
    return Response(problem(status, detail), status, headers, MEDIA_TYPE)


async def handle_error(request: Request, error: Exception) -> Response:
    """The response to a request whose handler raised ``error``."""
    if isinstance(error, RequestError):
        return problem_response(error.status, str(error), error.headers)
    if isinstance(error, RequestValidationError):
        return problem_response(422, _parameter_message(request, error))
    if isinstance(error, HTTPException):
        return _routing_error(request, error)
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


def _parameter_message(request: Request, error: RequestValidationError) -> str:
    """The message for invalid query parameters."""
    errors = [{**one, "loc": one["loc"][1:]} for one in error.errors()]
    content = {name: request.query_params.getlist(name) for name in request.query_params}
    single = {name: values if len(values) > 1 else values[0] for name, values in content.items()}
    operation = request.app.openapi()["paths"][request.url.path]["get"]
    names = [parameter["name"] for parameter in operation["parameters"]]
    return validation_message(errors, "query", single, names)


def _routing_error(request: Request, error: HTTPException) -> Response:
    """The response to a path that does not exist, or not for this method."""
    path, headers = request.url.path, dict(error.headers or {})
    if error.status_code == 404:
        detail = f"no such path: {path[:200]}; /openapi.json lists all paths"
    elif error.status_code == 405:
        methods = {method.upper() for method in request.app.openapi()["paths"].get(path, ("get",))}
        headers["Allow"] = ", ".join(sorted(methods | ({"HEAD"} if "GET" in methods else set())))
        detail = f"{request.method[:20]} is not supported at {path[:200]}"
    else:
        detail = str(error.detail)
    return problem_response(error.status_code, detail, headers)
