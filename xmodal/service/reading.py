"""Reads, parses and validates request bodies; the cost is bounded before the work.

The size is limited while a body is received and decompressed, the number of JSON values and the
digits of a number before it is parsed, and the length of a list before its elements are validated.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any, TypeVar

from fastapi import Depends
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect, Request

from xmodal.service.backend import Backend, BackendDependency
from xmodal.service.compression import decompress
from xmodal.service.errors import RequestError
from xmodal.service.input_threads import give_way
from xmodal.service.settings import Settings
from xmodal.service.validation import field_names, validation_message

Model = TypeVar("Model", bound=BaseModel)

MAX_VALUES = 20_000
"""Lists, objects and their elements in one body. The largest body without repeated conditions of
a field has 8,300."""
MAX_DIGITS = 1000
"""Digits of a whole number: the time to parse one grows with their square."""
MAX_ESCAPES = 1_000_000
"""Backslashes in one body: parsing an escaped character takes 20 times as long as another one."""
SLICE_BYTES = 128 * 1024
"""Bytes whose values are counted at once; other threads run in between."""
DIRECT_BYTES = 2048
"""A body up to this size is parsed in the event loop: below 1 ms if valid, about 10 ms at worst.
On a busy machine, switching threads would take longer."""
DISCARD_FACTOR = 4
"""A body above the size limit is received and discarded up to this multiple of the limit. Otherwise
the connection is reset and the client does not receive the error response."""


def body_of(model: type[Model]) -> Any:
    """A dependency of FastAPI: the request body, validated against ``model``.

    FastAPI itself would parse and validate a body of any size in the event loop.
    """

    async def read(request: Request, backend: BackendDependency) -> Model:
        return await read_body(request, model, backend)

    return Depends(read)


async def read_body(request: Request, model: type[Model], backend: Backend) -> Model:
    """The JSON body of a request, which may be compressed (gzip). Raises RequestError.

    A body above DIRECT_BYTES or a compressed one is processed in a thread, not in the event loop.
    """
    media_type = request.headers.get("content-type", "")
    if media_type.partition(";")[0].strip().lower() != "application/json":
        raise RequestError(
            415, f"the content type is {media_type[:80]!r}, expected application/json"
        )
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", "gzip"):
        raise RequestError(
            415,
            f"the content encoding is {encoding[:80]!r}, expected gzip or none",
            {"Accept-Encoding": "gzip"},
        )
    chunks = await _receive(request, backend.settings)
    size = sum(map(len, chunks))
    if encoding == "identity" and size <= DIRECT_BYTES:
        return parse_and_validate(model, b"".join(chunks))

    def process() -> Model:
        data = b"".join(chunks)
        chunks.clear()
        if encoding == "gzip":
            data = decompress(data, backend.settings)
        return parse_and_validate(model, data)

    if encoding == "gzip":  # the size of the content is not known
        size = backend.settings.max_body_bytes
    return await backend.inputs.run(size, process)


async def _receive(request: Request, settings: Settings) -> list[bytes]:
    """The parts of a body. Raises RequestError if they are too many or arrive too slowly."""
    chunks = []
    received, limit = 0, settings.max_body_bytes
    try:
        async with asyncio.timeout(settings.body_timeout):
            async for chunk in request.stream():
                received += len(chunk)
                if received <= limit:
                    chunks.append(chunk)
                elif received > DISCARD_FACTOR * limit:
                    break
    except TimeoutError:
        raise RequestError(
            408, f"the body was not received within {settings.body_timeout:g} s"
        ) from None
    except ClientDisconnect:
        raise RequestError(400, "the connection ended before the end of the body") from None
    if received > limit:
        raise RequestError(413, f"the body is larger than the limit of {limit:,} bytes")
    return chunks


def parse_and_validate(model: type[Model], data: bytes) -> Model:
    """The content of a body, parsed and validated. Raises RequestError."""
    return validate(model, parse(data), "body")


def validate(model: type[Model], content: Any, name: str) -> Model:
    """``content`` as a model. Raises RequestError with the place in ``name`` of the first error."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        errors = error.errors(include_url=False)
        message = validation_message(errors, name, content, field_names(model))
        raise RequestError(422, message) from None


def parse(data: bytes, name: str = "the body") -> Any:
    """The content of JSON; ``name`` is for errors.

    Raises RequestError if it is not strict JSON in UTF-8, has more than MAX_VALUES values, a number
    of more than MAX_DIGITS, or is nested too deeply.
    """
    _check_values(data, name)
    give_way()
    try:
        return json.loads(
            data.decode("utf-8"), parse_constant=_reject_constant, parse_int=_parse_int
        )
    except UnicodeDecodeError:
        raise RequestError(400, f"{name} is not UTF-8, expected JSON in UTF-8") from None
    except RecursionError:
        raise RequestError(400, f"{name} is nested too deeply") from None
    except ValueError as error:
        raise RequestError(400, f"{name} is not JSON: {error}") from None


def _check_values(data: bytes, name: str) -> None:
    """Raise RequestError for more than MAX_VALUES lists, objects and elements, without parsing.

    Parsing many small values holds the interpreter lock: for seconds with 16 MB of empty objects.
    """
    inside, count, escapes, rest = False, 0, 0, b""
    for start in range(0, len(data), SLICE_BYTES):
        give_way()
        part = rest + data[start : start + SLICE_BYTES]
        backslashes = len(part) - len(part.rstrip(b"\\"))
        rest = part[-1:] if backslashes % 2 else b""  # it belongs to the next character
        inside, found = _count_marks(part[: len(part) - len(rest)], inside)
        count += found
        escapes += part.count(b"\\")
        if escapes > MAX_ESCAPES:
            raise RequestError(
                422,
                f"{name} has more than {MAX_ESCAPES:,} escaped characters, expected UTF-8 instead",
            )
        if count > MAX_VALUES:
            raise RequestError(
                422, f"{name} has too many JSON values, expected at most {MAX_VALUES:,}"
            )


def _count_marks(part: bytes, inside: bool) -> tuple[bool, int]:
    """Whether the end of a part is inside a string, and the number of marks outside of strings.

    ``inside``: whether its beginning is.
    """
    if b"\\" in part:
        part = part.replace(b"\\\\", b"").replace(b'\\"', b"")
    pieces = part.split(b'"')
    marks = sum(piece.count(mark) for piece in pieces[inside::2] for mark in (b",", b"[", b"{"))
    return inside != (len(pieces) % 2 == 0), marks


def _parse_int(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"a number of {len(digits):,} digits, expected at most {MAX_DIGITS:,}")
    return int(digits)


def _reject_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")
