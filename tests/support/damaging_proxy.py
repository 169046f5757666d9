"""A proxy between a client and a real server that cuts, delays, repeats and damages answers."""

from __future__ import annotations

import gzip
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from support.local_server import LocalServer

PAGES = (b"<html>Sign in</html>", b"{}", b"[]", b"null", b'{"status": "ok"}', b"", b'"ok"')


class Answer(NamedTuple):
    """An answer of the server: status, headers in lower case, body as it was sent."""

    status: int
    headers: dict[str, str]
    body: bytes

    def raw(self) -> bytes:
        """Return the bytes of the answer, with the length of its body."""
        lines = [f"HTTP/1.1 {self.status} X"]
        lines += [f"{k}: {v}" for k, v in self.headers.items() if k != "content-length"]
        lines.append(f"content-length: {len(self.body)}")
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + self.body

    def plain(self) -> bytes:
        """Return the body without compression."""
        zipped = self.headers.get("content-encoding") == "gzip"
        return gzip.decompress(self.body) if zipped else self.body

    def with_plain(self, body: bytes) -> Answer:
        """Return the answer with another body, without compression."""
        headers = {k: v for k, v in self.headers.items() if k != "content-encoding"}
        return Answer(self.status, headers, body)


class DamagingProxy(LocalServer):
    """Forwards requests to ``url`` while ``rate`` of the answers, drawn at random, are damaged.

    ``faults`` counts the injected faults by name. ``rate`` can be changed; 0 damages nothing.
    """

    def __init__(self, url: str, seed: int, rate: float = 0.0) -> None:
        self.rate, self.faults = rate, Counter[str]()
        self._random, self._lock = random.Random(seed), threading.Lock()
        self._target = urlsplit(url)
        self._last: list[Answer] = []
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 10

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                fault = proxy._draw()
                if fault == "refused":
                    self.close_connection = True
                    return
                found = proxy._forward(self.command, self.path, body, dict(self.headers))
                self.wfile.write(found.raw() if fault is None else proxy._damage(fault, found))
                self.close_connection = fault not in (None, "twice", "repeated", "late")
                proxy._remember(found)

            do_GET = do_POST = do_PUT = do_DELETE = answer

            def log_message(self, *arguments: Any) -> None:
                """Print nothing."""

        super().__init__(Handler)

    def _draw(self) -> str | None:
        """Return the name of the next fault, or None."""
        with self._lock:
            if self._random.random() >= self.rate:
                return None
            name = self._random.choice(FAULTS)
            self.faults[name] += 1
            return name

    def _forward(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> Answer:
        connection = HTTPConnection(str(self._target.hostname), self._target.port, timeout=60)
        try:
            connection.request(method, path, body or None, headers)
            answer = connection.getresponse()
            kept = {k.lower(): v for k, v in answer.headers.items()}
            return Answer(answer.status, kept, answer.read())
        finally:
            connection.close()

    def _remember(self, answer: Answer) -> None:
        with self._lock:
            self._last = [*self._last[-3:], answer]

    def _damage(self, fault: str, answer: Answer) -> bytes:
        """Return the bytes to send instead of those of ``answer``."""
        with self._lock:
            draw, earlier = random.Random(self._random.random()), list(self._last)
        if fault == "repeated":
            return draw.choice(earlier).raw() if earlier else b""
        return _DAMAGES[fault](draw, answer)


def _lost(draw: random.Random, answer: Answer) -> bytes:
    return b""


def _late(draw: random.Random, answer: Answer) -> bytes:
    time.sleep(draw.uniform(0.01, 0.2))
    return answer.raw()


def _twice(draw: random.Random, answer: Answer) -> bytes:
    return answer.raw() * 2


def _cut(draw: random.Random, answer: Answer) -> bytes:
    raw = answer.raw()
    return raw[: draw.randrange(len(raw))]


def _cut_with_length(draw: random.Random, answer: Answer) -> bytes:
    body = answer.body
    return answer._replace(body=body[: draw.randrange(len(body) + 1)][:-1]).raw()


def _cut_json(draw: random.Random, answer: Answer) -> bytes:
    body = answer.plain()
    return answer.with_plain(body[: draw.randrange(len(body) + 1)][:-1]).raw()


def _flipped(draw: random.Random, answer: Answer) -> bytes:
    raw = bytearray(answer.raw())
    for _ in range(draw.randint(1, 3)):
        raw[draw.randrange(len(raw))] ^= 1 << draw.randrange(8)
    return bytes(raw)


def _flipped_body(draw: random.Random, answer: Answer) -> bytes:
    body = bytearray(answer.body)
    if body:
        body[draw.randrange(len(body))] ^= 1 << draw.randrange(8)
    return answer._replace(body=bytes(body)).raw()


def _page(draw: random.Random, answer: Answer) -> bytes:
    kind = draw.choice(("text/html", "application/json; charset=UTF-8"))
    return Answer(200, {"content-type": kind}, draw.choice(PAGES)).raw()


def _page_with_headers(draw: random.Random, answer: Answer) -> bytes:
    return answer._replace(status=200).with_plain(draw.choice(PAGES)).raw()


def _redirect(draw: random.Random, answer: Answer) -> bytes:
    headers = {"location": "http://127.0.0.1:9/elsewhere", "content-type": "text/html"}
    return Answer(draw.choice((301, 302, 307)), headers, b"moved").raw()


def _busy(draw: random.Random, answer: Answer) -> bytes:
    return Answer(draw.choice((429, 502, 503, 504)), {"content-type": "text/html"}, b"<h1>").raw()


def _refused_here(draw: random.Random, answer: Answer) -> bytes:
    status = draw.choice((401, 403, 404, 413, 500))
    return Answer(status, {"content-type": "text/html"}, b"<h1>").raw()


def _partial(draw: random.Random, answer: Answer) -> bytes:
    """Say in one part of the answer that it is incomplete, or remove an item of a list."""
    try:
        content = json.loads(answer.plain())
    except ValueError:
        return answer.raw()
    parts = [content, *(content.get("responses") or ())] if isinstance(content, dict) else []
    part = draw.choice(parts) if parts else None
    if isinstance(part, dict):
        lists = [name for name in ("items", "responses", "docs") if part.get(name)]
        if "hits" in part and draw.random() < 0.5:
            part["timed_out"] = True
        elif lists:
            part[lists[0]].pop(draw.randrange(len(part[lists[0]])))
        elif "_shards" in part and "hits" in part:
            part["_shards"] |= draw.choice(({"failed": 1}, {"successful": 0}))
        elif "acknowledged" in part:
            part["acknowledged"] = False
        else:
            return _page(draw, answer)
    return answer.with_plain(json.dumps(content).encode()).raw()


_DAMAGES: dict[str, Callable[[random.Random, Answer], bytes]] = {
    "lost": _lost,
    "late": _late,
    "twice": _twice,
    "cut": _cut,
    "cut with its length": _cut_with_length,
    "cut JSON": _cut_json,
    "flipped": _flipped,
    "flipped body": _flipped_body,
    "page": _page,
    "page with the headers": _page_with_headers,
    "redirect": _redirect,
    "busy": _busy,
    "refused by the proxy": _refused_here,
    "partial": _partial,
}
FAULTS = ("refused", "repeated", *_DAMAGES)
