"""A local HTTP server of the pictures in a folder, which also redirects and fails."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

from support.endpoint import Endpoint, Reply, Request


@contextmanager
def picture_host(folder: Path) -> Iterator[Endpoint]:
    """Serve the files of ``folder`` by name; ``/to?ADDRESS`` redirects, ``/503`` has that status.

    Answers with an error status have the body "secret".
    """

    def reply(request: Request) -> Reply:
        parts = urlsplit(request.path)
        name = unquote(parts.path[1:])
        if name == "to":
            return Reply(302, "secret", "text/plain", (("location", parts.query),))
        if name.isdigit() and len(name) == 3:
            return Reply(int(name), "secret", "text/plain")
        file = folder / name
        if not file.is_file():
            return Reply(404, "secret", "text/plain")
        return Reply(200, file.read_bytes(), "image/png")

    with Endpoint(reply) as endpoint:
        yield endpoint
