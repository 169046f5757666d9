"""Reads, parses and validates request bodies against the service's OpenAPI description.

The cost is bounded before the work: the number of JSON values is limited before a body is parsed,
the length of a list or object is checked before its elements, and the pixels of an image are read
from its header before it is decoded.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from collections.abc import Iterator
from concurrent.futures import Executor
from functools import cache
from importlib.resources import files
from typing import Any

from jsonschema import Draft202012Validator, ValidationError
from jsonschema.exceptions import best_match
from jsonschema.validators import extend
from starlette.requests import ClientDisconnect, Request

from xmodal.data.images import image_size
from xmodal.errors import DataError
from xmodal.service.errors import RequestError
from xmodal.service.settings import Settings

TEXT = files("xmodal.service").joinpath("openapi.json").read_text("utf-8")
MESSAGE_LENGTH = 160
"""Characters of a value in an error message."""
MAX_VALUES = 20_000
"""Lists, objects and their elements in one body. The largest body without repeated conditions of
a field has 8,300."""
DIRECT_BYTES = 2048
"""A body up to this size is parsed in the event loop: below 1 ms if valid, about 10 ms at worst.
On a busy machine, switching threads would take longer."""
DISCARD_FACTOR = 4
"""A body above the size limit is received and discarded up to this multiple of the limit. Otherwise
the connection is reset and the client does not receive the error response."""


async def read_body(request: Request, schema: str, settings: Settings, threads: Executor) -> Any:
    """The JSON body of a request, validated against a schema of openapi.json.

    Parsing and validation of a body above DIRECT_BYTES run in ``threads``, not in the event loop.
    Raises RequestError.
    """
    media_type = request.headers.get("content-type", "")
    if media_type.partition(";")[0].strip().lower() != "application/json":
        raise RequestError(
            415, f"the content type is {media_type[:80]!r}, expected application/json"
        )
    data = bytearray()
    received, limit = 0, settings.max_body_bytes
    try:
        async with asyncio.timeout(settings.body_timeout):
            async for chunk in request.stream():
                received += len(chunk)
                if received <= limit:
                    data += chunk
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
    if received <= DIRECT_BYTES:
        return parse_and_validate(schema, bytes(data))
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(threads, parse_and_validate, schema, bytes(data))


def parse_and_validate(schema: str, data: bytes) -> Any:
    """The content of a body, parsed and validated against a schema of openapi.json.

    Whole numbers written as floats (``20.0``) are returned as int where the schema has an integer.
    Raises RequestError.
    """
    content = validate(schema, parse(data))
    for name, rule in _schema(schema)["properties"].items():
        if rule.get("type") == "integer" and name in content:
            content[name] = int(content[name])
    return content


def parse(data: bytes) -> Any:
    """The content of a JSON body. Raises RequestError if it is not strict JSON in UTF-8, has more
    than MAX_VALUES values or is nested too deeply."""
    _check_values(data)
    try:
        return json.loads(data.decode("utf-8"), parse_constant=_reject_constant)
    except UnicodeDecodeError:
        raise RequestError(400, "the body is not UTF-8, expected JSON in UTF-8") from None
    except RecursionError:
        raise RequestError(400, "the body is nested too deeply") from None
    except ValueError as error:
        raise RequestError(400, f"the body is not JSON: {_short(error)}") from None


def validate(schema: str, content: Any) -> Any:
    """``content`` if it fits the schema. Raises RequestError with the place of the first error."""
    try:
        error = best_match(_validator(schema).iter_errors(content))
    except RecursionError:
        raise RequestError(400, "the body is nested too deeply") from None
    if error is not None:
        place = "".join(f"[{key!r:.60}]" for key in error.absolute_path)
        if error.validator in ("oneOf", "anyOf", "required") and not place:
            if isinstance(content, dict):
                raise RequestError(422, _expected_fields(schema, content))
        detail = error.message
        if error.validator in ("maxItems", "maxProperties", "maxLength"):
            limit = error.validator_value
            detail = f"the length is {len(error.instance):,}, expected at most {limit:,}"
        raise RequestError(422, f"body{place}: {_short(detail)}")
    _check_unicode(content)
    return content


def _expected_fields(schema: str, content: dict[str, Any]) -> str:
    """The message for a body without the fields of which its schema requires some."""
    rule = _schema(schema)
    number = "exactly one" if "oneOf" in rule else "at least one"
    names = [one["required"][0] for one in rule.get("oneOf", rule.get("anyOf", ()))]
    found = ", ".join(map(_short, content)) or "no field"
    return f"the body has {found}, expected {number} of {', '.join(names)}"


def decode_image(text: str, max_pixels: int) -> bytes:
    """The image file in ``text``: base64, or a data URL.

    Raises DataError if it is not an image, or has more than ``max_pixels`` by its header.
    """
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise DataError(
            "the picture is not base64: send the file's bytes, base64-encoded"
        ) from None
    check_picture(data, max_pixels)
    return data


def check_picture(data: bytes, max_pixels: int) -> None:
    """Raise DataError unless a file is an image with at most ``max_pixels`` by its header."""
    width, height = image_size(data)
    if width * height > max_pixels:
        raise DataError(
            f"the picture has {width} x {height} pixels, expected at most "
            f"{max_pixels / 1e6:g} million"
        )


def _check_values(data: bytes) -> None:
    """Raise RequestError for more than MAX_VALUES lists, objects and elements, without parsing.

    Parsing many small values holds the interpreter lock: for seconds with 16 MB of empty objects.
    """
    marks = (b",", b"[", b"{")
    if sum(map(data.count, marks)) <= MAX_VALUES:
        return
    unescaped = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    if unescaped.count(b'"') <= 4 * MAX_VALUES:  # two around each key and each string
        outside_strings = b"".join(unescaped.split(b'"')[::2])
        if sum(map(outside_strings.count, marks)) <= MAX_VALUES:
            return
    raise RequestError(422, f"the body has too many JSON values, expected at most {MAX_VALUES:,}")


def _length_first(keyword: str, limit: str) -> Any:
    """The jsonschema ``keyword``, skipped for a value that is longer than the schema's ``limit``.

    The keyword of the limit reports that value, and its elements are not validated one by one.
    """
    validate_keyword = Draft202012Validator.VALIDATORS[keyword]

    def limited(
        validator: Any, rule: Any, value: Any, schema: dict[str, Any]
    ) -> Iterator[ValidationError]:
        if isinstance(value, list | dict) and len(value) > schema.get(limit, len(value)):
            return
        yield from validate_keyword(validator, rule, value, schema) or ()

    return limited


_Validator = extend(
    Draft202012Validator,
    {
        "items": _length_first("items", "maxItems"),
        "additionalProperties": _length_first("additionalProperties", "maxProperties"),
        "propertyNames": _length_first("propertyNames", "maxProperties"),
    },
)


@cache
def _validator(schema: str) -> Any:
    return _Validator(
        {"$ref": f"#/components/schemas/{schema}", "components": json.loads(TEXT)["components"]}
    )


@cache
def _schema(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(TEXT)["components"]["schemas"][name]
    return found


def _check_unicode(content: Any) -> None:
    """Raise RequestError for a lone surrogate: JSON allows it, UTF-8 and tokenizers do not."""
    if isinstance(content, str):
        try:
            content.encode()
        except UnicodeEncodeError:
            raise RequestError(422, f"{_short(content)} is not valid Unicode") from None
    elif isinstance(content, dict):
        for name, value in content.items():
            _check_unicode(name)
            _check_unicode(value)
    elif isinstance(content, list):
        for value in content:
            _check_unicode(value)


def _reject_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


def _short(value: object) -> str:
    text = " ".join(str(value).encode("utf-8", "replace").decode().split())
    return text if len(text) <= MESSAGE_LENGTH else f"{text[:MESSAGE_LENGTH]}..."
