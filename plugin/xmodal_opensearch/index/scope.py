"""Scope: the part of a cluster that an address covers, and how it is read.

An address names an index, an alias, a data stream, a pattern (``photos-*``) or a list of these with
commas. Reads are sent to this name, so that the server itself applies the filter and the routing
that an alias has at the time of the request.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any

from xmodal.errors import ConfigError, IndexFailure, IndexMissing
from xmodal_opensearch.client.server import Server
from xmodal_opensearch.index.queries import MAX_HITS, Query, any_of
from xmodal_opensearch.index.remote import describe_remote, is_remote

Contents = dict[str, dict[str, Any]]
"""Aliases, mappings and flat settings of indexes, by concrete name."""


@dataclass(frozen=True)
class Scope:
    """The indexes that an address covers.

    ``name``: as in the address. ``indexes``: concrete names, sorted. ``uuids``: of these.
    ``target``: the name to which reads are sent. ``filters``: of the alias; the server applies them
    to every search of ``target``, but a knn query needs them among its own filters.
    ``routing``: search routing of the alias, applied by the server. ``write_index``: the concrete
    index to which documents are written, or None with the reason in ``read_only``. ``window``: the
    smallest ``index.max_result_window``.
    """

    name: str
    indexes: tuple[str, ...]
    uuids: tuple[str, ...]
    target: str
    filters: tuple[Query, ...] = field(default=(), hash=False)
    routing: str | None = None
    write_index: str | None = None
    read_only: str = ""
    window: int = MAX_HITS

    @property
    def is_fixed(self) -> bool:
        """Whether ``target`` is one concrete index, and no alias."""
        return self.indexes == (self.target,) and not self.has_remote

    @property
    def has_several(self) -> bool:
        """Whether there is more than one index, so that two documents may have one id."""
        return len(self.indexes) > 1

    @property
    def has_remote(self) -> bool:
        """Whether an index is in another cluster."""
        return any(map(is_remote, self.indexes))

    @property
    def is_whole(self) -> bool:
        """Whether it is one index of this cluster with all its documents."""
        return not (self.has_several or self.filters or self.routing or self.has_remote)

    def pinned(self) -> Scope:
        """Return the scope of the one index alone, after its alias was moved to another."""
        (index,) = self.indexes
        return replace(self, target=index, filters=(), routing=None)


class ScopeChanged(IndexFailure):
    """The indexes behind a name, or its filter, changed while it was read: repeat the read."""


def read_scope(server: Server, name: str) -> tuple[Scope, Contents] | None:
    """Return the scope of a name with the description of each index, or None if it is missing."""
    parts = name.split(",")
    local = ",".join(part for part in parts if not is_remote(part))
    found: Contents = {}
    try:
        if local:
            doing = f"opening {local}"
            found |= server.request("GET", f"/{local}", doing=doing, flat_settings="true")
        for part in filter(is_remote, parts):
            found |= describe_remote(server, part)
    except IndexMissing:
        return None
    return (to_scope(name, found), dict(sorted(found.items()))) if found else None


def to_scope(name: str, contents: Mapping[str, Mapping[str, Any]]) -> Scope:
    """Return the scope of a name from the server's description of its indexes."""
    indexes = tuple(sorted(contents))
    settings = [contents[index]["settings"] for index in indexes]
    windows = [int(one.get("index.max_result_window", MAX_HITS)) for one in settings]
    limits = {index: _limits(name, index, contents[index]) for index in indexes}
    routings = {limit.get("search_routing") for limit in limits.values()}
    write_index, read_only = _write_index(name, contents, limits)
    return Scope(
        name,
        indexes,
        tuple(str(one["index.uuid"]) for one in settings),
        name,
        _filters(limits),
        ",".join(sorted(map(str, filter(None, routings)))) or None,
        write_index,
        read_only,
        min([MAX_HITS, *windows]),
    )


def _limits(name: str, index: str, content: Mapping[str, Any]) -> dict[str, Any]:
    """Return filter and routing of one index of ``name``; {} if all its documents are covered.

    As for the server: an index whose own name matches is covered as a whole, and so is one with an
    alias without a filter; the filters of several aliases are alternatives.
    """
    parts = [part for part in name.split(",") if not part.startswith("-")]

    def matches(candidate: str) -> bool:
        return any(fnmatchcase(candidate, part) for part in parts)

    aliases = [found for alias, found in content["aliases"].items() if matches(alias)]
    stream = content.get("data_stream")
    if matches(index) or (stream is not None and matches(stream)) or not aliases:
        return {}
    limits = dict(aliases[0]) if len(aliases) == 1 else {}
    filters = [alias["filter"] for alias in aliases if "filter" in alias]
    if len(aliases) > 1 and len(filters) == len(aliases):
        limits["filter"] = any_of(filters)
    if len(aliases) > 1 and any("search_routing" in alias for alias in aliases):
        limits["search_routing"] = "several"
    return limits


def _filters(limits: Mapping[str, Mapping[str, Any]]) -> tuple[Query, ...]:
    """Return the filters of all indexes as at most one query, {index: limits} given."""
    filters: dict[str, Query | None] = {
        index: limit.get("filter") for index, limit in limits.items()
    }
    first, *others = filters.values()
    if all(one == first for one in others):
        return () if first is None else (first,)
    return (
        any_of(
            [
                {"bool": {"filter": [{"term": {"_index": index}}, *([one] if one else [])]}}
                for index, one in filters.items()
            ]
        ),
    )


def _write_index(
    name: str, contents: Mapping[str, Mapping[str, Any]], limits: Mapping[str, Mapping[str, Any]]
) -> tuple[str | None, str]:
    """Return the index to which documents are written, or None and the reason."""
    if is_remote(name):
        return None, "it covers indexes of a remote cluster: write there"
    if len(contents) > 1 or re.search(r"[*,]", name):
        writers = [
            index
            for index, content in contents.items()
            if content["aliases"].get(name, {}).get("is_write_index")
        ]
        first = writers[0] if writers else min(contents)
        return None, (
            f"it covers {len(contents)} indexes, in each of which a document may have the same id: "
            f"write to one of them, such as {first}"
        )
    ((index, content),) = contents.items()
    if "data_stream" in content:
        return None, "documents of a data stream cannot be replaced: load them into an index"
    if "filter" in limits[index]:
        return None, (
            f"it is an alias with a filter, which does not protect other documents of {index} from "
            f"being replaced: write to {index} itself"
        )
    if limits[index].get("index_routing") or limits[index].get("search_routing"):
        return None, f"it is an alias with a routing: write to {index} itself"
    return index, ""


def check_single(name: str) -> None:
    """Raise ConfigError for a name of several indexes, where one is changed or created."""
    if re.search(r"[*,:]", name):
        raise ConfigError(f"{name} names several indexes, expected the name of one index")


def ambiguous(scope: Scope, hits: Sequence[Mapping[str, Any]]) -> str | None:
    """Return the first id that several of the hits have, with their places; None if none has."""
    places: dict[str, list[str]] = {}
    for hit in hits:
        place = str(hit.get("_index", scope.indexes[0]))
        place += f" (routing {hit['_routing']})" if "_routing" in hit else ""
        places.setdefault(hit["_id"], []).append(place)
    return next(
        (f"{id_!r} is in {' and in '.join(sorted(at))}" for id_, at in places.items() if at[1:]),
        None,
    )
