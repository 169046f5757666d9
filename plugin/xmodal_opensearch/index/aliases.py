"""Versions of an index behind an alias: the alias ``photos`` points to ``photos-000003``.

Searches use the alias. Codes of a new model are loaded into the next version, which is not searched
until the alias is moved to it by one atomic request.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from xmodal.errors import IndexMismatch, IndexMissing
from xmodal_opensearch.client.server import Server
from xmodal_opensearch.index.scope import check_single

LIMITS = {"filter": "filter", "search routing": "search_routing"}
"""Restrictions of an alias to a part of its index, with their keys in the alias' description."""


def next_version(alias: str, existing: Iterable[str]) -> str:
    """Return the name of the version that follows all existing ones."""
    numbers = [int(name.rpartition("-")[2]) for name in existing if is_version(alias, name)]
    return f"{alias}-{max(numbers, default=0) + 1:06d}"


def is_version(alias: str, name: str) -> bool:
    """Return whether ``name`` is the name of a version of ``alias``."""
    return re.fullmatch(rf"{re.escape(alias)}-\d{{6,}}", name) is not None


def alias_actions(alias: str, old: Iterable[str], new: str) -> dict[str, Any]:
    """Return the body that moves the alias from all ``old`` versions to ``new`` atomically."""
    actions: list[dict[str, Any]] = [
        {"remove": {"index": name, "alias": alias}} for name in old if name != new
    ]
    actions.append({"add": {"index": new, "alias": alias, "is_write_index": True}})
    return {"actions": actions}


def describe(server: Server, name: str) -> tuple[str, dict[str, Any]] | None:
    """Return the index behind a name and its aliases, mappings and flat settings, None if missing.

    For requests that change the index: reads use the scope of a name, see index/scope.py. Raises
    IndexMismatch for an alias of several indexes, and for an alias with a filter or search routing,
    which would not apply to the concrete index; ConfigError for a name of several indexes.
    """
    check_single(name)
    try:
        found = server.request("GET", f"/{name}", doing=f"opening {name}", flat_settings="true")
    except IndexMissing:
        return None
    if len(found) > 1:
        raise IndexMismatch(
            f"the alias {name} points to {len(found)} indexes ({', '.join(sorted(found)[:3])}), "
            "expected one: use the name of one of them"
        )
    ((concrete, content),) = found.items()
    alias = content["aliases"].get(name, {})
    limits = [label for label, key in LIMITS.items() if key in alias]
    if limits:
        raise IndexMismatch(
            f"the alias {name} has a {' and a '.join(limits)} and covers a part of {concrete}, "
            f"expected all of it: open {concrete} itself, or an alias without a {limits[0]}"
        )
    return concrete, content


def versions_of(server: Server, alias: str) -> dict[str, bool]:
    """Return all versions of an alias, and whether the alias points to each."""
    doing = "listing versions"
    found = server.request("GET", f"/{alias}-*/_alias", doing=doing, expand_wildcards="all") or {}
    return {
        name: alias in content["aliases"]
        for name, content in sorted(found.items())
        if is_version(alias, name)
    }


def move_alias(server: Server, alias: str, new: str) -> list[str]:
    """Move the alias to ``new``; return the versions to which it pointed."""
    old = [name for name, active in versions_of(server, alias).items() if active and name != new]
    body = alias_actions(alias, old, new)
    server.request("POST", "/_aliases", body, doing=f"moving the alias to {new}")
    return old
