"""JSON responses, with an ETag where clients may keep them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

MEDIA_TYPE = "application/json"


def to_json(value: Any) -> bytes:
    """JSON in UTF-8; a lone surrogate, which a stored text may contain, becomes a question mark."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode("utf-8", "replace")


def json_response(value: Any, headers: Mapping[str, str] | None = None) -> Response:
    """A response with a JSON body."""
    return Response(to_json(value), headers=headers, media_type=MEDIA_TYPE)


def cacheable(
    request: Request,
    content: bytes,
    media_type: str,
    cache_control: str,
    *,
    of: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """A response with the ETag of ``of`` or else its content; without body if the client has it."""
    digest = blake2b(content if of is None else of, digest_size=12).hexdigest()
    etag = f'W/"{digest}"'  # weak: the same for a compressed response
    headers = {**(headers or {}), "ETag": etag, "Cache-Control": cache_control}
    known = request.headers.get("if-none-match", "")
    if etag in (one.strip() for one in known.split(",")) or known.strip() == "*":
        return Response(status_code=304, headers=headers)
    return Response(content, headers={**headers, "Content-Type": media_type})
