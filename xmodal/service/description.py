"""The OpenAPI description, generated from the routes and the models of bodies and results."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue, models_json_schema
from pydantic_core import core_schema

from xmodal.service import bodies
from xmodal.service.results import Problem

REFERENCE = "#/components/schemas/{model}"
REQUEST_BODIES = (bodies.Search, bodies.SearchBatch, bodies.Encode, bodies.Embed)
DESCRIPTIONS = {
    304: "Not modified: the client's copy is current.",
    400: "The body is not JSON, or the request is not valid HTTP.",
    401: "A token is required: Authorization: Bearer TOKEN.",
    404: "Unknown document or picture.",
    408: "The request was not received in time.",
    413: "The body is too large.",
    415: "The content type or content encoding is not supported.",
    421: "The Host header is not allowed.",
    422: "The request is understood but invalid; the detail has the place.",
    502: "The host of a picture failed.",
    503: "Too many requests, the time limit, or a failed index; Retry-After has the seconds.",
}
OF_ANY = (421, 503)
OF_BODY = (400, 408, 413, 415, 422)


class _Schema(GenerateJsonSchema):
    """Without titles, and without ``"default": null`` of fields that may be left out."""

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        if schema.get("default") is None and "default_factory" not in schema:
            return self.generate_inner(schema["schema"])
        return super().default_schema(schema)

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def get(router: APIRouter, path: str, **options: Any) -> Callable[[Any], Any]:
    """Decorator of the handler of GET requests, and of HEAD requests, which are not described."""

    def register(handler: Any) -> Any:
        router.head(path, response_model=None, include_in_schema=False)(handler)
        router.get(path, response_model=None, **options)(handler)
        return handler

    return register


def post(
    router: APIRouter, path: str, body: type[BaseModel], example: Any, **options: Any
) -> Callable[[Any], Any]:
    """Decorator of the handler of POST requests with a JSON body, which ``body_of`` reads."""
    schema = {"$ref": REFERENCE.format(model=body.__name__)}
    content = {"application/json": {"schema": schema, "examples": {"one": {"value": example}}}}
    return router.post(
        path,
        response_model=None,
        openapi_extra={"requestBody": {"required": True, "content": content}},
        **options,
    )


def responses(
    result: type[BaseModel], *statuses: int, public: bool = False, body: bool = False
) -> dict[int | str, dict[str, Any]]:
    """The responses of an operation: its result, and problems.

    ``statuses``: those that not every operation has. ``public``: no token is required. ``body``:
    the request has one.
    """
    docs = (result.__doc__ or "").partition("\n")[0]
    success = {200: {"model": result, "description": docs}}
    return success | problems(*statuses, public=public, body=body)


def problems(
    *statuses: int, public: bool = False, body: bool = False
) -> dict[int | str, dict[str, Any]]:
    """The problem responses of an operation; see :func:`responses`."""
    every = {*statuses, *OF_ANY, *(() if public else (401,)), *(OF_BODY if body else ())}
    schema = {"$ref": REFERENCE.format(model=Problem.__name__)}
    content = {"application/problem+json": {"schema": schema}}
    return {
        status: {"description": DESCRIPTIONS[status]}
        | ({"content": content} if status >= 400 else {})
        for status in sorted(every)
    }


PUBLIC: dict[str, Any] = {"security": [{}]}
"""``openapi_extra`` of an operation that needs no token."""


def describe(app: FastAPI, *, token: bool) -> dict[str, Any]:
    """The OpenAPI description; ``token``: whether requests need one."""
    description = get_openapi(
        title="xmodal",
        version="1",
        openapi_version="3.1.0",
        summary="Cross-modal search: pictures by text and texts by picture.",
        description="Queries are encoded as binary codes; documents are ranked by Hamming distance "
        "in bits. Errors are application/problem+json.",
        routes=app.routes,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
    )
    _, definitions = models_json_schema(
        [(model, "validation") for model in (*REQUEST_BODIES, Problem)],
        ref_template=REFERENCE,
        schema_generator=_Schema,
    )
    components = description.setdefault("components", {})
    components.setdefault("schemas", {}).update(definitions["$defs"])
    components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    description["security"] = [{"token": []}] if token else [{}, {"token": []}]
    return description
