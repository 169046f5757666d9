"""Requests that try to stop a service: 40 kinds, each up to 20 MB, sent only to 127.0.0.1."""

from __future__ import annotations

import base64
import gzip
import json
import socket
import struct
import time
import zlib
from collections.abc import Callable

MEGABYTE = 1_000_000
MAX_BYTES = 20 * MEGABYTE
SECONDS = 3.0
"""Seconds for one request: slow ones are given up then."""

Send = Callable[[int], str]
"""Sends one request to a port; returns the status, or why there is none."""


def exchange(port: int, data: bytes, pause: float = 0.0, step: int = 0, read: bool = True) -> str:
    """Send bytes, at once or in steps with pauses; returns the status of the first response."""
    end = time.monotonic() + SECONDS
    with socket.create_connection(("127.0.0.1", port), timeout=SECONDS) as connection:
        try:
            for start in range(0, len(data), step or len(data) or 1):
                connection.sendall(data[start : start + (step or len(data))])
                if pause:
                    time.sleep(pause)
                if time.monotonic() > end:
                    break
            if not read:
                time.sleep(0.5)
                return "not read"
            return connection.recv(4096)[9:12].decode() or "closed"
        except OSError as error:
            return type(error).__name__


def post(path: str, body: bytes, *headers: str) -> bytes:
    """A POST request with a JSON body."""
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", "Content-Type: application/json"]
    lines += [f"Content-Length: {len(body)}", "Connection: close", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def search(**fields: object) -> bytes:
    return post("/v1/search", json.dumps(fields).encode())


def raw_search(body: str) -> bytes:
    return post("/v1/search", body.encode())


def get(path: str, *headers: str) -> bytes:
    lines = [f"GET {path} HTTP/1.1", "Host: localhost", "Connection: close", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def picture(data: bytes) -> bytes:
    return search(image=base64.b64encode(data).decode())


def png(width: int, height: int, rows: bytes) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + crc

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + head + body


def tiff(width: int, height: int) -> bytes:
    tags = [(256, 4, width), (257, 4, height), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 8)]
    tags += [(277, 3, 1), (278, 4, height), (279, 4, width * height % 2**31)]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + b"\0\0\0\0"


def gif(frames: int) -> bytes:
    frame = b"!\xf9\x04\0\0\0\0\0,\0\0\0\0\xff\xff\xff\xff\0\x02\x02D\x01\0"
    return b"GIF89a\xff\xff\xff\xff\x80\0\0" + b"\0\0\0\xff\xff\xff" + frame * frames + b";"


def webp(width: int, height: int) -> bytes:
    size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    chunk = b"VP8X" + struct.pack("<I", 10) + b"\0\0\0\0" + size
    return b"RIFF" + struct.pack("<I", 4 + len(chunk)) + b"WEBP" + chunk


def avif(width: int, height: int) -> bytes:
    def box(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", 8 + len(data)) + kind + data

    size = box(b"ispe", b"\0\0\0\0" + struct.pack(">II", width, height))
    properties = box(b"iprp", box(b"ipco", size))
    return box(b"ftyp", b"avif\0\0\0\0avifmif1") + box(b"meta", b"\0\0\0\0" + properties)


def noise_png(side: int) -> bytes:
    """A valid picture of the largest size that is accepted: it takes long to decode."""
    return png(
        side, side, (b"\0" + bytes(range(256)) * (3 * side // 256 + 1))[: 3 * side + 1] * side
    )


def chunked(chunk: bytes, count: int) -> bytes:
    head = "POST /v1/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return head.encode() + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * count + b"0\r\n\r\n"


def long_list(value: str, path: str = "/v1/encode", name: str = "texts") -> bytes:
    count = (MAX_BYTES // (len(value) + 1)) // 2
    return post(path, f'{{"{name}":[{",".join([value] * count)}]}}'.encode())


def hostile_requests() -> dict[str, Send]:
    """Functions that send one request each, by kind."""
    big, limit = 10 * MEGABYTE, 20 * MEGABYTE - 1000
    bodies: dict[str, Callable[[], bytes]] = {
        "list of 5 million texts": lambda: long_list('"a"'),
        "list of empty objects": lambda: long_list("{}"),
        "list in where": lambda: raw_search(
            f'{{"text":"a","where":{{"a":[{"1," * big}1]}}}}'[:limit]
        ),
        "deep lists": lambda: raw_search('{"text":' + "[" * big),
        "deep objects": lambda: raw_search('{"text":"a","where":' + '{"a":' * 15_000 + "1"),
        "10 MB text": lambda: search(text="a" * big),
        "20 MB text": lambda: search(text="a" * limit),
        "10 MB of escapes": lambda: raw_search('{"text":"' + "\\n" * (big // 2) + '"}'),
        "10 MB of quotes and commas": lambda: raw_search('{"text":"' + '\\",' * (big // 3) + '"}'),
        "10 MB of unicode escapes": lambda: raw_search('{"text":"' + "\\u4f60" * (big // 6) + '"}'),
        "10 MB of spaces": lambda: raw_search(" " * big + '{"text":"a"}'),
        "many keys": lambda: raw_search("{" + ",".join(f'"a{n}":1' for n in range(800_000)) + "}"),
        "19,000 unknown keys": lambda: raw_search(
            "{" + ",".join(f'"a{n}":1' for n in range(19_000)) + "}"
        ),
        "duplicate keys": lambda: raw_search("{" + '"text":"a",' * 19_000 + '"k":1}'),
        "one key of 10 MB": lambda: raw_search('{"' + "a" * big + '":1}'),
        "10 MB number": lambda: raw_search('{"text":"a","k":' + "9" * big + "}"),
        "10 MB fraction": lambda: raw_search('{"text":"a","radius":0.' + "9" * big + "}"),
        "1e999": lambda: raw_search('{"text":"a","min_confidence":1e999}'),
        "surrogates": lambda: raw_search('{"text":"' + "\\ud800" * 9_000 + '"}'),
        "invalid UTF-8": lambda: post(
            "/v1/search", b'{"text":"' + b"\xc3\x28" * (big // 2) + b'"}'
        ),
        "10 MB of base64": lambda: search(image=base64.b64encode(bytes(7 * MEGABYTE)).decode()),
        "32 pictures of base64": lambda: post(
            "/v1/encode", json.dumps({"images": ["A" * 310_000] * 32}).encode()
        ),
        "PNG of 60,000 x 60,000": lambda: picture(png(60_000, 60_000, b"")),
        "PNG of 24 million pixels": lambda: picture(noise_png(4_900)),
        "PNG bomb in its text": lambda: picture(png(64, 64, b"\0" * 200_000_000)),
        "GIF of 65,535 x 65,535": lambda: picture(gif(10_000)),
        "WEBP of 16,383 x 16,383": lambda: picture(webp(16_383, 16_383)),
        "TIFF of 2 billion pixels": lambda: picture(tiff(50_000, 40_000)),
        "AVIF of 65,535 x 65,535": lambda: picture(avif(65_535, 65_535)),
        "gzip bomb": lambda: post(
            "/v1/search", gzip.compress(b" " * 400 * MEGABYTE), "Content-Encoding: gzip"
        ),
        "gzip of 10 MB": lambda: post(
            "/v1/search", gzip.compress(b'{"text":"' + b"a" * big), "Content-Encoding: gzip"
        ),
        "many ids": lambda: get("/v1/documents?" + "&".join(["id=a"] * 2_500)),
        "where with prefixes": lambda: search(
            text="a", where={f"f{n}": {"all": [{"prefix": "a" * 400}] * 32} for n in range(32)}
        ),
        "where with negations": lambda: search(
            text="a", where={f"f{n}": {"not": list(range(256))} for n in range(32)}
        ),
        "one word of 10,000 characters": lambda: search(text="a" * 10_000),
        "text of 10,000 characters": lambda: search(text="ab " * 3_333, k=1000),
        "256 texts of 10,000 characters": lambda: post(
            "/v1/encode", json.dumps({"texts": ["ab " * 3_333] * 256}).encode()
        ),
        "typed with 3,000 exclusions": lambda: search(typed="a " + "-b " * 3_000),
        "16 negatives of 10,000 characters": lambda: search(
            **{"text": "a", "not": ["ab " * 3_333] * 16}
        ),
        "deep offset and large k": lambda: search(text="red", k=1000, offset=9000),
        "chunks of 1 byte": lambda: chunked(b"1\r\na\r\n", 3 * MEGABYTE),
        "endless chunk size": lambda: chunked(b"1;" + b"a" * MEGABYTE, 5),
        "length too large": lambda: post("/v1/search", b"{}").replace(b": 2\r", b": 200000\r"),
        "negative length": lambda: post("/v1/search", b"{}").replace(b": 2\r", b": -2\r"),
        "pipelined requests": lambda: get("/health/live").replace(b"close", b"keep-alive") * 40_000,
        "header of 1 MB": lambda: get("/health/live", "X: " + "a" * MEGABYTE),
        "300,000 headers": lambda: get("/health/live", *["X: a"] * 300_000),
        "not HTTP": lambda: bytes(range(256)) * 4000,
    }

    def sender(make: Callable[[], bytes]) -> Send:
        made: list[bytes] = []

        def send(port: int) -> str:
            if not made:
                made.append(make())
                assert len(made[0]) <= 1.2 * MAX_BYTES
            return exchange(port, made[0])

        return send

    slow = search(text="a red circle", k=1000)
    return {kind: sender(make) for kind, make in bodies.items()} | {
        "head in single bytes": lambda port: exchange(port, slow, pause=0.01, step=1),
        "half-open": lambda port: exchange(port, slow[:-5], read=False),
        "response not read": lambda port: exchange(port, slow * 200, read=False),
    }
