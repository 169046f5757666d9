"""Guard of writes: a hidden alias of one index, through which xmodal writes to it.

A server creates a missing index for a document that is written to it, with guessed types. With
``require_alias`` it refuses the request if the alias is missing, as it is after the index was
deleted, or deleted and created again. The alias has a random part, as in
``photos-000001-write-1a2b3c4d``, and is created with the index, or before the first write.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable
from typing import Any

from xmodal.errors import IndexMissing, ServerFailure
from xmodal_opensearch.client.server import Server

FORBIDDEN, MISSING = 403, 404


def new_guard(name: str) -> dict[str, dict[str, Any]]:
    """Return the alias of a new index, as a part of the body that creates it."""
    return {f"{name}-write-{secrets.token_hex(4)}": {"is_hidden": True}}


def find_guard(name: str, aliases: Iterable[str]) -> str | None:
    """Return the guard of an index among its aliases."""
    pattern = re.compile(rf"{re.escape(name)}-write-[0-9a-f]{{8}}")
    return next((alias for alias in sorted(aliases) if pattern.fullmatch(alias)), None)


def add_guard(server: Server, name: str, uuid: str) -> str | None:
    """Add a guard to an index that has none; None if the user may not do that.

    Such a user cannot create an index either. Raises IndexMissing if the index has another uuid.
    """
    ((alias, options),) = new_guard(name).items()
    action = {"add": {"index": name, "alias": alias, **options}}
    try:
        server.request("POST", "/_aliases", {"actions": [action]}, doing="adding an alias")
    except ServerFailure as error:
        if error.status != FORBIDDEN:
            raise
        return None
    finally:
        check_uuid(server, name, uuid)
    return alias


def write_target(server: Server, name: str) -> tuple[str, bool]:
    """Return the alias through which an existing index is written, or its name; whether alias."""
    found = server.request("GET", f"/{name}", doing=f"opening {name}", flat_settings="true")
    ((concrete, content),) = found.items()
    guard = find_guard(concrete, content["aliases"])
    guard = guard or add_guard(server, concrete, content["settings"]["index.uuid"])
    return guard or concrete, guard is not None


def check_uuid(server: Server, name: str, uuid: str) -> None:
    """Raise IndexMissing if an index was deleted, or deleted and created again."""
    found = server.request("GET", f"/{name}", doing="comparing the index", flat_settings="true")
    if [content["settings"].get("index.uuid") for content in found.values()] != [uuid]:
        raise IndexMissing(f"{name} was deleted and created again while it was open: open it again")


def prepare_guard(server: Server, name: str, uuid: str, guard: str | None) -> str | None:
    """Return the guard of an index, added if it has none; None if the user may not add it.

    A copy of the index that was restored under another name has the guard, too: it is removed from
    there. Raises IndexMissing if the index was deleted.
    """
    if guard is None:
        return add_guard(server, name, uuid)
    try:
        found = server.request("GET", f"/_alias/{guard}", doing="reading an alias")
    except ServerFailure as error:
        if error.status == FORBIDDEN:
            return guard
        if error.status == MISSING:
            raise IndexMissing(f"{name} was deleted while it was open: open it again") from None
        raise
    actions = [
        {"remove": {"index": copy, "alias": guard}} for copy in sorted(found) if copy != name
    ]
    if actions:
        server.request("POST", "/_aliases", {"actions": actions}, doing="removing an alias")
    return guard
