"""Services for tests: on a real socket, in a thread of the test process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import httpx
from support.described import described

if TYPE_CHECKING:
    from xmodal.encoders.encoder import Encoder


class Running(NamedTuple):
    """A running service: its port, its application, and an HTTP client for it.

    The client fails for a response that the OpenAPI description does not have.
    """

    port: int
    app: Any
    client: httpx.Client

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def post(self, path: str, body: Any, **options: Any) -> httpx.Response:
        return self.client.post(path, json=body, **options)

    def get(self, path: str, **params: Any) -> httpx.Response:
        return self.client.get(path, params=params)


@contextmanager
def running(encoder: Encoder, index: Any, **settings: Any) -> Iterator[Running]:
    """A service over an index, or over the index at an address, until the block ends."""
    from xmodal.index.contract import open_index
    from xmodal.service import Settings, create_app, server

    if isinstance(index, str | Path):
        index = open_index(index, bits=encoder.bits, fingerprint=encoder.fingerprint)
    options = Settings(**settings)
    app = create_app(encoder, index, options)
    listening = server.listen("127.0.0.1", 0)
    ready, started = threading.Event(), []
    thread = threading.Thread(
        target=server.serve,
        args=(app, listening, options, ready.set, started.append),
        daemon=True,
    )
    thread.start()
    assert ready.wait(30)
    port = listening.getsockname()[1]
    try:
        url = f"http://127.0.0.1:{port}"
        hooks = {"response": [described(app.openapi())]}
        with httpx.Client(base_url=url, timeout=60, trust_env=False, event_hooks=hooks) as client:
            yield Running(port, app, client)
    finally:
        started[0].should_exit = True
        thread.join(30)
    assert not thread.is_alive()
