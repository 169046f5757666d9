"""Index templates of the cluster, which change the mapping and the settings of a new index."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

from xmodal.errors import ServerFailure
from xmodal_opensearch.client.server import Server
from xmodal_opensearch.index import mapping

SOURCE_PATHS = (
    *(mapping.ID, mapping.ENCODER, mapping.WORDS, mapping.SOURCE, mapping.ORIGIN),
    *(name for name in mapping.RESERVED_FIELDS if name != "xmodal"),
)
"""Fields of xmodal that ``_source`` must have, for updates and for answers."""


def template_conflict(
    body: Mapping[str, Any], mappings: Mapping[str, Any], settings: Mapping[str, Any]
) -> str | None:
    """Return what an index template gave to an index so that it cannot hold codes, or None.

    ``body``: with which the index was created. ``mappings``, ``settings`` (flat): of this index.
    """
    if mappings.get("_routing", {}).get("required"):
        return "_routing.required, which refuses documents without a routing"
    left_out = left_out_of_source(mappings)
    if left_out:
        return f"a _source without {left_out}, so that an update of a document loses its code"
    expected = body["mappings"]["properties"]
    found = mappings.get("properties", {})
    reserved = [name for name in found if name in mapping.RESERVED_FIELDS and name not in expected]
    if reserved or found.get("xmodal") != expected["xmodal"]:
        return f"another mapping of the reserved field {reserved[0] if reserved else 'xmodal'}"
    if is_true(settings.get("index.knn")) and "index.knn" not in body["settings"]:
        return "index.knn, with which the server builds graphs"
    blocks = set_blocks(settings)
    return f"the block {blocks[0]}" if blocks else None


def left_out_of_source(mappings: Mapping[str, Any]) -> str | None:
    """Return the first field of xmodal that ``_source`` of a mapping leaves out, or None."""
    source = mappings.get("_source", {})
    if not is_true(source.get("enabled", True)):
        return "fields"

    def matches(path: str, patterns: Iterable[str]) -> bool:
        parents = (path, path.partition(".")[0])
        return any(fnmatchcase(parent, one) for parent in parents for one in patterns)

    includes, excludes = source.get("includes") or ["*"], source.get("excludes") or []
    for path in SOURCE_PATHS:
        if matches(path, excludes) or not matches(path, includes):
            return path
    return None


def set_blocks(settings: Mapping[str, Any]) -> list[str]:
    """Return the names of the blocks, such as index.blocks.write, in flat settings."""
    return [
        name
        for name, value in settings.items()
        if name.startswith("index.blocks.") and is_true(value)
    ]


def is_true(value: Any) -> bool:
    """Return whether a setting is true; the server returns settings as text."""
    return str(value).lower() == "true"


def template_of(server: Server, name: str) -> str:
    """Return a description of the index template that applies to a new index ``name``."""
    try:
        found = server.request("GET", "/_index_template", doing="reading index templates")
        templates = [
            (one["index_template"].get("priority", 0), one["name"])
            for one in found.get("index_templates", ())
            if _matches(name, one["index_template"]["index_patterns"])
        ]
        if not templates:
            legacy = server.request("GET", "/_template", doing="reading index templates")
            templates = [
                (one.get("order", 0), key)
                for key, one in legacy.items()
                if _matches(name, one["index_patterns"])
            ]
    except ServerFailure:  # the user may not read them
        templates = []
    return f"the index template {max(templates)[1]}" if templates else "an index template"


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
