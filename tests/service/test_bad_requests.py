"""Invalid and malicious requests: each gets a 4xx problem response; memory does not grow."""

from __future__ import annotations

import base64
import gzip
import io
import json
import socket
import struct
import sys
import time
import zlib
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from support.bad_pictures import TEXT, damaged_avif, png_bomb, truncated_jpeg
from support.service_process import Running, running

from xmodal.encoders.encoder import Encoder

JSON = {"Content-Type": "application/json"}
GZIP = JSON | {"Content-Encoding": "gzip"}
BODY_LIMIT = 200_000


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def nested(depth: int) -> bytes:
    return b'{"text": "a", "where": ' + b'{"a":' * depth + b"1" + b"}" * depth + b"}"


def wide_png() -> bytes:
    """A valid PNG with few bytes and 30 million pixels."""
    buffer = io.BytesIO()
    Image.new("1", (6000, 5000)).save(buffer, "PNG")
    return buffer.getvalue()


def png_with_wrong_size() -> bytes:
    """A PNG whose header has 64 x 64 pixels, but not its data."""
    head = struct.pack(">IIBBBBB", 64, 64, 8, 2, 0, 0, 0)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    data = zlib.compress(b"\xff" * 20)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def postscript() -> bytes:
    """A format for which Pillow would start another program."""
    return b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"


def gzip_bomb() -> bytes:
    """150 KB that decompress to 150 MB of spaces."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    blocks = [
        compressor.compress(b" " * 1_000_000) + compressor.flush(zlib.Z_FULL_FLUSH)
        for _ in range(2)
    ]
    return blocks[0] + 150 * blocks[1]


SEARCHES: dict[str, tuple[Any, int]] = {
    "no query": ({}, 422),
    "unknown field": ({"text": "a", "colour": "red"}, 422),
    "text a number": ({"text": 7}, 422),
    "text null": ({"text": None}, 422),
    "text a list": ({"text": ["a"]}, 422),
    "text empty": ({"text": ""}, 422),
    "text of spaces": ({"text": "   \n"}, 422),
    "text without words": ({"text": "!?"}, 422),
    "text too long": ({"text": "a" * 10_001}, 422),
    "half a surrogate pair": ({"text": "a \ud800"}, 422),
    "k zero": ({"text": "a", "k": 0}, 422),
    "k negative": ({"text": "a", "k": -1}, 422),
    "k huge": ({"text": "a", "k": 10**9}, 422),
    "k larger than any integer type": ({"text": "a", "k": 10**400}, 422),
    "k fractional": ({"text": "a", "k": 1.5}, 422),
    "k a huge float": ({"text": "a", "k": 1e300}, 422),
    "k boolean": ({"text": "a", "k": True}, 422),
    "k a string": ({"text": "a", "k": "5"}, 422),
    "target unknown": ({"text": "a", "target": "sound"}, 422),
    "radius negative": ({"text": "a", "radius": -1}, 422),
    "confidence above one": ({"text": "a", "min_confidence": 1.5}, 422),
    "by unknown": ({"text": "a", "by": "sound"}, 422),
    "by words without text": ({"like": "a", "by": "words"}, 422),
    "stage unknown": ({"text": "a", "stage": "sound"}, 422),
    "offset negative": ({"text": "a", "offset": -1}, 422),
    "offset huge": ({"text": "a", "offset": 10**6}, 422),
    "weights of an unknown part": ({"text": "a", "weights": {"sound": 1}}, 422),
    "weight negative": ({"text": "a", "weights": {"text": -1}}, 422),
    "not of 17 texts": ({"text": "a", "not": ["b"] * 17}, 422),
    "typed without a word to find": ({"typed": "-a"}, 422),
    "confidence within one modality": (
        {"text": "a", "target": "text", "min_confidence": 0.5},
        422,
    ),
    "where a list": ({"text": "a", "where": ["colour"]}, 422),
    "where a null": ({"text": "a", "where": {"colour": None}}, 422),
    "where an empty list": ({"text": "a", "where": {"colour": []}}, 422),
    "where with a script": ({"text": "a", "where": {"colour": {"script": "1"}}}, 422),
    "where with mixed bounds": ({"text": "a", "where": {"size": {"gt": 1, "lt": "b"}}}, 422),
    "where of 33 fields": ({"text": "a", "where": {f"f{n}": 1 for n in range(33)}}, 422),
    "where of 257 values": ({"text": "a", "where": {"colour": list(range(257))}}, 422),
    "like an unknown id": ({"like": "../../etc/passwd"}, 404),
    "like a null byte": ({"like": "\0"}, 404),
    "picture not base64": ({"image": "%%%"}, 422),
    "picture cut base64": ({"image": encoded(b"abcd")[:-1]}, 422),
    "picture is a text file": ({"image": encoded(TEXT)}, 422),
    "picture truncated": ({"image": encoded(truncated_jpeg())}, 422),
    "picture overwritten": ({"image": encoded(damaged_avif())}, 422),
    "picture claims many pixels": ({"image": encoded(png_bomb(60_000, 60_000))}, 422),
    "picture has many pixels": ({"image": encoded(wide_png())}, 422),
    "picture header with a wrong size": ({"image": encoded(png_with_wrong_size())}, 422),
    "picture is postscript": ({"image": encoded(postscript())}, 422),
    "picture is a URL": ({"image": "http://127.0.0.1/a.jpg"}, 422),
    "picture is a path": ({"image": "/etc/passwd"}, 422),
    "picture is a data URL of text": ({"image": "data:text/plain,hello"}, 422),
    "body a list": ([{"text": "a"}], 422),
    "body a string": ("text", 422),
    "body null": (None, 422),
}

RAW: dict[str, tuple[bytes, dict[str, str], int]] = {
    "body empty": (b"", JSON, 400),
    "body not JSON": (b"text=a", JSON, 400),
    "body truncated": (b'{"text": "a', JSON, 400),
    "body with nan": (b'{"text": "a", "k": NaN}', JSON, 400),
    "body latin-1": ('{"text": "ä"}'.encode("latin-1"), JSON, 400),
    "body utf-16": ('{"text": "a"}'.encode("utf-16"), JSON, 400),
    "body not gzip": (b'{"text": "a"}', GZIP, 400),
    "body compressed, not complete": (gzip.compress(b'{"text": "a"}')[:-1], GZIP, 400),
    "body of two gzip members": (gzip.compress(b'{"text":') + gzip.compress(b'"a"}'), GZIP, 400),
    "body compressed, too large": (gzip.compress(b" " * (BODY_LIMIT + 1)), GZIP, 413),
    "body compressed, of 150 MB": (gzip_bomb(), GZIP, 413),
    "body compressed twice": (b"", JSON | {"Content-Encoding": "gzip, gzip"}, 415),
    "body compressed by brotli": (b"", JSON | {"Content-Encoding": "br"}, 415),
    # Python 3.14 parses more levels, and the content is refused.
    "body nested deeply": (nested(10_000), JSON, 422 if sys.version_info >= (3, 14) else 400),
    "body of many objects": (nested(30_000), JSON, 422),
    "body nested": (nested(50), JSON, 422),
    "number of many digits": (b'{"text": "a", "k": ' + b"9" * 50_000 + b"}", JSON, 400),
    "body too large": (b'{"text": "' + b"a" * BODY_LIMIT + b'"}', JSON, 413),
    "body a form": (b"text=a", {"Content-Type": "application/x-www-form-urlencoded"}, 415),
    "body as plain text": (b'{"text": "a"}', {"Content-Type": "text/plain"}, 415),
    "body without content type": (b'{"text": "a"}', {}, 415),
}

PATHS: dict[str, tuple[str, str, int]] = {
    "unknown path": ("GET", "/v1/nothing", 404),
    "path traversal": ("GET", "/page/..%2f..%2f..%2fetc%2fpasswd", 404),
    "path traversal, encoded twice": ("GET", "/page/%252e%252e%252fsettings.py", 404),
    "another file of the package": ("GET", "/page/openapi.json", 404),
    "backslashes": ("GET", "/page/..\\..\\app.py", 404),
    "a null byte": ("GET", "/page/page.js%00.css", 404),
    "wrong method": ("GET", "/v1/encode", 405),
    "method delete": ("DELETE", "/v1/documents?id=a", 405),
    "method unknown": ("BREW", "/v1/about", 405),
    "picture of an unknown id": ("GET", "/v1/picture?id=..%2f..%2fetc%2fpasswd", 404),
    "picture without id": ("GET", "/v1/picture", 422),
    "picture with unsupported size": ("GET", "/v1/picture?id=a&size=99999", 422),
    "picture with a negative position": ("GET", "/v1/picture?id=a&position=-1", 422),
    "picture with a long position": ("GET", f"/v1/picture?id=a&position={'9' * 5000}", 422),
    "picture with a path as position": ("GET", "/v1/picture?id=a&position=..%2fa", 422),
    "picture with unknown parameter": ("GET", "/v1/picture?id=a&path=/etc/passwd", 422),
    "documents without id": ("GET", "/v1/documents", 422),
    "documents with a long id": ("GET", f"/v1/documents?id={'a' * 3000}", 422),
    "documents with many ids": ("GET", "/v1/documents?" + "&".join(["id=a"] * 101), 422),
}

BYTES: dict[str, tuple[bytes, int]] = {
    "not HTTP": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    "no version": (b"GET /\r\n\r\n", 400),
    "header too large": (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 40_000, 431),
    "too many headers": (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: a\r\n" * 60_000 + b"\r\n", 431),
    "two lengths": (
        b"POST /v1/search HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        400,
    ),
    "negative length": (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", 400),
    "length and chunks": (
        b"POST /v1/search HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n"
        b"Transfer-Encoding: gzip\r\n\r\n0\r\n\r\n",
        400,
    ),
    "no Host header": (b"GET / HTTP/1.1\r\n\r\n", 400),
}


@pytest.fixture(scope="module")
def limited(encoder: Encoder, index_path: Path) -> Any:
    """A service with small limits."""
    limits = {"max_body_bytes": BODY_LIMIT, "header_timeout": 0.5, "body_timeout": 0.5}
    with running(encoder, index_path, **limits) as service:
        yield service


def check_problem(status: int, expected: int, media_type: str, text: str) -> None:
    """Check that a response is a problem with the expected status, a detail and no trace."""
    assert status == expected, text
    assert media_type == "application/problem+json"
    problem = json.loads(text)
    assert problem["status"] == expected and problem["detail"] and "Traceback" not in text
    assert len(text) < 1000


@pytest.mark.parametrize("kind", SEARCHES)
def test_invalid_search_is_rejected(limited: Running, kind: str) -> None:
    body, expected = SEARCHES[kind]
    content = json.dumps(body).encode()
    answer = limited.client.post("/v1/search", content=content, headers=JSON)
    check_problem(answer.status_code, expected, answer.headers["content-type"], answer.text)


@pytest.mark.parametrize("kind", RAW)
def test_invalid_body_is_rejected(limited: Running, kind: str) -> None:
    content, headers, expected = RAW[kind]
    for path in ("/v1/search", "/v1/encode", "/v1/embed"):
        answer = limited.client.post(path, content=content, headers=headers)
        check_problem(answer.status_code, expected, answer.headers["content-type"], answer.text)


@pytest.mark.parametrize("kind", PATHS)
def test_invalid_path_is_rejected(limited: Running, kind: str) -> None:
    method, path, expected = PATHS[kind]
    answer = limited.client.request(method, path)
    check_problem(answer.status_code, expected, answer.headers["content-type"], answer.text)


@pytest.mark.parametrize("kind", BYTES)
def test_malformed_http_is_rejected(limited: Running, kind: str) -> None:
    data, expected = BYTES[kind]
    status, headers, text = raw(limited, [data])
    check_problem(status, expected, headers["content-type"], text)


def raw(service: Running, parts: list[bytes], pause: float = 0.0) -> tuple[int, Any, str]:
    """Send bytes in parts; returns status, headers and body of the response."""
    with socket.create_connection(("127.0.0.1", service.port), timeout=10) as connection:
        for part in parts:
            connection.sendall(part)
            time.sleep(pause)
        answer = b""
        while received := connection.recv(65536):
            answer += received
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    return int(first.split()[1]), headers, body.decode()


def test_slow_requests_time_out_with_408(limited: Running) -> None:
    started = time.monotonic()
    for parts in ([], [b"GET / HTTP/1.1\r\n"], [b"GET / HT", b"TP/1.1\r\nHos"]):
        status, headers, text = raw(limited, parts, pause=0.05)
        check_problem(status, 408, headers["content-type"], text)
    head = b"POST /v1/search HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
    close = b"Connection: close\r\nContent-Length: 100\r\n\r\n"
    status, headers, text = raw(limited, [head + close, b'{"text"'], pause=0.05)
    check_problem(status, 408, headers["content-type"], text)
    assert time.monotonic() - started < 8


def test_header_timeout_applies_to_a_kept_connection(limited: Running) -> None:
    first = b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n"
    with socket.create_connection(("127.0.0.1", limited.port), timeout=10) as connection:
        connection.sendall(first)
        assert b"200 OK" in connection.recv(65536)
        connection.sendall(first)
        time.sleep(0.7)  # longer than header_timeout
        assert b"200 OK" in connection.recv(65536)
        connection.sendall(b"GET /hea")
        assert b"408 Request Timeout" in connection.recv(65536)


def test_disconnected_clients_do_not_affect_later_requests(limited: Running) -> None:
    head = b"POST /v1/search HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", limited.port)) as connection:
            connection.sendall(head + b"Content-Length: 15\r\n\r\n" + b'{"text":')
        with socket.create_connection(("127.0.0.1", limited.port)) as connection:
            connection.sendall(head + b"Content-Length: 15\r\n\r\n" + b'{"text": "red"}')
    assert limited.post("/v1/search", {"text": "a red circle"}).status_code == 200


def test_memory_does_not_grow_with_invalid_requests(limited: Running) -> None:
    def send_all() -> None:
        for body, _ in SEARCHES.values():
            content = json.dumps(body).encode()
            limited.client.post("/v1/search", content=content, headers=JSON)
        for content, headers, _ in RAW.values():
            limited.client.post("/v1/embed", content=content, headers=headers)

    send_all()
    before = resident()
    for _ in range(3):
        send_all()
    assert resident() < before + 30_000_000
    assert limited.post("/v1/search", {"text": "a red circle", "k": 1}).status_code == 200


def resident() -> int:
    """Resident memory in bytes of this process, which runs the service."""
    import gc

    gc.collect()
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmRSS"))) * 1024
