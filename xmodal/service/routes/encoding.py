"""Codes of texts and pictures."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Annotated

from fastapi import APIRouter
from starlette.responses import Response

from xmodal.codes import BinaryCodes
from xmodal.errors import DataError
from xmodal.service.backend import BackendDependency
from xmodal.service.batching import gather
from xmodal.service.bodies import EXAMPLE, Embed, Encode
from xmodal.service.description import post, responses
from xmodal.service.errors import RequestError
from xmodal.service.json_response import json_response
from xmodal.service.reading import body_of
from xmodal.service.results import Codes, Embedding

router = APIRouter()
LITERAL = "\u2060"
"""Character before texts that OpenSearch's connectors would change.

It is removed, and so is the one after each $ of such a text.
"""
ABSENT = (None, "", "null", LITERAL)
"""Values that OpenSearch's connectors send for a missing text or image."""


@post(
    router,
    "/v1/encode",
    Encode,
    {"texts": [EXAMPLE]},
    summary="Codes of texts or pictures.",
    responses=responses(Codes, 502, body=True),
)
async def encode(backend: BackendDependency, body: Annotated[Encode, body_of(Encode)]) -> Response:
    """Codes in hexadecimal; equal texts and pictures have equal codes."""
    (name,) = body.model_fields_set
    async with asyncio.timeout(backend.settings.request_timeout):
        if name == "texts":
            codes = await backend.encode_texts(body.texts)
        else:
            codes = await backend.encode_images(body.images)
    for position, code in enumerate(codes):
        if isinstance(code, DataError):
            raise DataError(f"{name}[{position}]: {code}")
    found = [code.to_hex()[0] for code in _raise_errors(codes)]
    return json_response(backend.identity() | {"codes": found})


@post(
    router,
    "/v1/embed",
    Embed,
    {"inputText": EXAMPLE},
    summary="The code of a text, a picture or both, in the formats that OpenSearch's connectors "
    "read.",
    responses=responses(Embedding, 502, body=True),
)
async def embed(backend: BackendDependency, body: Annotated[Embed, body_of(Embed)]) -> Response:
    """Codes as signed bytes, in each shape that connectors read."""
    work: dict[str, Awaitable[BinaryCodes]] = {}
    if body.input_text not in ABSENT:
        work["text_code"] = backend.encoding.text(_original(str(body.input_text)))
    if body.input_image not in ABSENT:
        work["image_code"] = backend.encoding.image(str(body.input_image))
    if not work:
        raise RequestError(422, "inputText and inputImage are empty, expected one or both")
    async with asyncio.timeout(backend.settings.request_timeout):
        codes = _raise_errors(await gather(work.values()))
    found = {name: code.to_signed()[0] for name, code in zip(work, codes, strict=True)}
    text_code, image_code = found.get("text_code"), found.get("image_code")
    embedding = image_code or text_code
    return json_response(
        {
            **backend.identity(),
            "text_code": text_code,
            "image_code": image_code,
            "embedding": embedding,
            "embeddings": {"binary": [embedding]},
            "embeddingsByType": {"binary": embedding},
        }
    )


def _raise_errors(results: Sequence[BinaryCodes | BaseException]) -> list[BinaryCodes]:
    codes = []
    for result in results:
        if isinstance(result, BaseException):
            raise result
        codes.append(result)
    return codes


def _original(text: str) -> str:
    """Return the text that a connector changed to one that ml-commons passes unchanged."""
    return text[1:].replace(f"${LITERAL}", "$") if text.startswith(LITERAL) else text
