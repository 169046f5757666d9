"""gzip: bounded decompression of request bodies, compression of responses."""

from __future__ import annotations

import asyncio
import gzip
import zlib

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from xmodal.service.errors import RequestError
from xmodal.service.settings import Settings

GZIP_FORMAT = 16 + zlib.MAX_WBITS
MIN_BYTES = 1024
"""Smaller responses are not compressed."""
DIRECT_BYTES = 16 * 1024
"""Larger responses are compressed in a thread: 16 KB take 0.2 ms."""
LEVEL = 4
COMPRESSIBLE = ("application/json", "application/problem+json", "text/", "image/svg+xml")


def decompress(data: bytes, settings: Settings) -> bytes:
    """The content of a gzip file of one member. Raises RequestError.

    No more than the limit of a body is decompressed, and no second member: with members of a few
    bytes, a small file can take minutes.
    """
    limit = settings.max_body_bytes
    decompressor = zlib.decompressobj(GZIP_FORMAT)
    try:
        content = decompressor.decompress(data, limit + 1)
    except zlib.error:
        raise RequestError(400, "the body is not gzip, as its content encoding says") from None
    if len(content) > limit:
        raise RequestError(413, f"the decompressed body is larger than {limit:,} bytes")
    if not decompressor.eof or decompressor.unused_data:
        raise RequestError(400, "the body is not one complete gzip member")
    return content


class CompressionMiddleware:
    """Compresses responses for clients that accept gzip; larger ones in a thread."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not _accepts_gzip(Headers(scope=scope)):
            await self._app(scope, receive, send)
            return
        start: Message = {}

        async def send_compressed(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start":
                start = message
                return
            if start:
                message = await _compressed(start, message)
                await send(start)
                start = {}
            await send(message)

        await self._app(scope, receive, send_compressed)


async def _compressed(start: Message, message: Message) -> Message:
    """A response's only body, compressed if that is worthwhile; ``start`` gets the headers."""
    headers = MutableHeaders(scope=start)
    if not headers.get("content-type", "").startswith(COMPRESSIBLE):
        return message
    headers.add_vary_header("Accept-Encoding")
    body = message.get("body", b"")
    if message.get("more_body") or len(body) < MIN_BYTES or "content-encoding" in headers:
        return message
    if len(body) <= DIRECT_BYTES:
        body = gzip.compress(body, LEVEL, mtime=0)
    else:
        body = await asyncio.to_thread(gzip.compress, body, LEVEL, mtime=0)
    headers["Content-Encoding"] = "gzip"
    headers["Content-Length"] = str(len(body))
    return {**message, "body": body}


def _accepts_gzip(headers: Headers) -> bool:
    """Whether Accept-Encoding has gzip, or ``*``, with a quality above 0."""
    accepted = {}
    for part in headers.get("accept-encoding", "").lower().split(","):
        name, _, parameter = part.partition(";")
        accepted[name.strip()] = parameter.replace(" ", "")
    quality = accepted.get("gzip", accepted.get("*", "q=0"))
    try:
        return float(quality.removeprefix("q=") or 1) > 0
    except ValueError:
        return False
