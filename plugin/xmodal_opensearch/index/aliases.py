"""Versions behind an alias: ``photos`` stands for ``photos-000003``.

A search goes through the alias; a new model fills the next version, which nobody sees until the
alias is moved, in one step.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from xmodal.codes import check_bits
from xmodal.errors import IndexMismatch, IndexMissing, ServerFailure
from xmodal_opensearch.client.address import Address
from xmodal_opensearch.client.server import Server
from xmodal_opensearch.index import mapping
from xmodal_opensearch.index.bit_order_check import store_self_test
from xmodal_opensearch.index.mapping import Layout

LIMITS = {"filter": "filter", "search routing": "search_routing"}
"""What can limit an alias to a part of its index, and its key in the description of the alias."""


def next_version(alias: str, existing: Iterable[str]) -> str:
    """The name of the version after all that exist."""
    numbers = [int(name.rpartition("-")[2]) for name in existing if is_version(alias, name)]
    return f"{alias}-{max(numbers, default=0) + 1:06d}"


def is_version(alias: str, name: str) -> bool:
    """Whether an index is one of the alias' versions."""
    return re.fullmatch(rf"{re.escape(alias)}-\d{{6,}}", name) is not None


def swap(alias: str, old: Iterable[str], new: str) -> dict[str, Any]:
    """The body that moves the alias from all old versions to the new one, at once."""
    actions: list[dict[str, Any]] = [
        {"remove": {"index": name, "alias": alias}} for name in old if name != new
    ]
    actions.append({"add": {"index": new, "alias": alias, "is_write_index": True}})
    return {"actions": actions}


def describe(server: Server, name: str) -> tuple[str, dict[str, Any]] | None:
    """The one index behind a name, and its aliases, mappings and flat settings; None if missing.

    Raises IndexMismatch for an alias of several indexes, and for one that shows a part of its index
    only: requests go to the index itself, so they would not be limited to that part.
    """
    try:
        found = server.request("GET", f"/{name}", doing=f"opening {name}", flat_settings="true")
    except IndexMissing:
        return None
    if len(found) > 1:
        raise IndexMismatch(
            f"the alias {name} stands for {len(found)} indexes ({', '.join(sorted(found)[:3])}), "
            "expected one: name one of them"
        )
    ((concrete, content),) = found.items()
    alias = content["aliases"].get(name, {})
    limits = [word for word, key in LIMITS.items() if key in alias]
    if limits:
        raise IndexMismatch(
            f"the alias {name} has a {' and a '.join(limits)} and shows only a part of {concrete}, "
            f"expected the whole: open {concrete} itself, or an alias without a {limits[0]}"
        )
    return concrete, content


def versions_of(server: Server, alias: str) -> dict[str, bool]:
    """The versions of an alias that exist, and whether it stands for them."""
    doing = "looking for versions"
    found = server.request("GET", f"/{alias}-*/_alias", doing=doing, expand_wildcards="all") or {}
    return {
        name: alias in content["aliases"]
        for name, content in sorted(found.items())
        if is_version(alias, name)
    }


def move_alias(server: Server, alias: str, new: str) -> list[str]:
    """Let the alias stand for ``new`` from now on; return the versions for which it stood."""
    old = [name for name, stood in versions_of(server, alias).items() if stood and name != new]
    server.request("POST", "/_aliases", swap(alias, old, new), doing=f"swapping in {new}")
    return old


def make_version(
    server: Server,
    address: Address,
    bits: int,
    fingerprint: str | None,
    layout: Layout,
    *,
    alias: str | None,
    fields: Mapping[str, Any] | None = None,
) -> str:
    """Create the next version of ``address.index``, with its self-test document; return its name.

    ``alias`` None leaves it unseen until it is swapped in. Raises CodeError for a width that codes
    cannot have.
    """
    check_bits(bits)  # the server would take some of the wrong ones
    name = next_version(address.index, versions_of(server, address.index))
    body = mapping.new_index(
        bits,
        fingerprint,
        layout,
        shards=address.shards,
        replicas=address.replicas,
        fields=fields,
        alias=alias,
    )
    try:
        server.request("PUT", f"/{name}", body, doing=f"creating {name}")
    except ServerFailure as error:
        if "already exists" not in error.reason:
            raise
        # Another process made it at the same moment: both store the same self-test.
    store_self_test(server, name, bits, layout)
    return name
