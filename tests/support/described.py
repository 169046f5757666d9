"""Checks of HTTP responses against the OpenAPI description of a service."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import httpx
from jsonschema import Draft202012Validator

PROBLEM = {"$ref": "#/components/schemas/Problem"}


def described(description: dict[str, Any]) -> Callable[[httpx.Response], None]:
    """A hook of httpx that fails for a response which the description does not have.

    Every error must be a problem, also one of a path or method that the description lacks.
    """

    @cache
    def validator(path: str, method: str, status: int, media_type: str) -> Any:
        operation = description["paths"].get(path, {}).get(method)
        if operation is None or status == 500:
            if status >= 400:
                assert media_type == "application/problem+json"
                return _validator(PROBLEM, description)
            return None
        assert str(status) in operation["responses"], f"{method} {path}: no status {status}"
        content = operation["responses"][str(status)].get("content", {})
        assert media_type in (content or {"": None}), f"{method} {path}: {status} {media_type}"
        return _validator(content.get(media_type, {}).get("schema"), description)

    def check(response: httpx.Response) -> None:
        response.read()
        request = response.request
        media_type = response.headers.get("content-type", "").partition(";")[0]
        found = validator(
            request.url.path, request.method.lower(), response.status_code, media_type
        )
        if found is not None and media_type.endswith("json") and request.method != "HEAD":
            found.validate(response.json())

    return check


def _validator(schema: dict[str, Any] | None, description: dict[str, Any]) -> Any:
    if schema is None:
        return None
    return Draft202012Validator({**schema, "components": description["components"]})
