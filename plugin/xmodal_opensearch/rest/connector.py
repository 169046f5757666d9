"""The way for clients that speak only REST, laid and removed: remote model and pipelines.

What is there is found by the tag in its description, compared with what is wanted, and changed
only if it differs. So a second run changes nothing, one that was killed is completed by the next,
and removing takes what was made here and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from xmodal.errors import ConfigError, ServerFailure
from xmodal_opensearch.client.server import Server
from xmodal_opensearch.index.ownership import OwnershipTag, read_tag
from xmodal_opensearch.rest import remote_model
from xmodal_opensearch.rest.pipelines import (
    INGEST,
    SEARCH,
    Body,
    Wiring,
    pipelines,
)
from xmodal_opensearch.rest.remote_model import Step

DEFAULT = "index.default_pipeline"
DEFAULTS = (DEFAULT, "index.search.default_pipeline")
HIDDEN = (400, 401, 403, 405)
"""Answers of a server where this user may not see pipelines, or that has none."""


def connect(
    server: Server,
    wiring: Wiring,
    expected: Sequence[int],
    *,
    token: str | None = None,
    neural: bool = False,
    default_of: str | None = None,
) -> list[Step]:
    """Make what is not there and change what differs; say so, connector and model first.

    ``expected``: the code of the sample, as the service gave it to us. ``neural``: also for the
    queries of neural-search. ``default_of``: the index whose documents shall go through the ingest
    pipeline unasked. Raises ConfigError for names that somebody else took, NotAllowed, and
    ServerFailure if the cluster cannot reach the service.
    """
    if default_of is not None:
        _check_default(server, wiring, default_of)
    steps = list(remote_model.lay(server, wiring, expected, token))
    for path, body in pipelines(wiring, str(steps[1].id), neural=neural).items():
        steps.append(_write(server, wiring.tag, path, body))
    if default_of is not None:
        steps.append(_make_default(server, wiring, default_of))
    return steps


def disconnect(server: Server, name: str, index: str) -> list[Step]:
    """Remove what connect made under ``name`` for ``index``; what is not there is no error."""
    tag = OwnershipTag(name, index, "")
    ours = [path for path, one in marked_pipelines(server).items() if tag.matches(one)]
    return _remove(server, ours) + remote_model.remove(server, tag)


def hand_over(server: Server, alias: str, new: str, encoder: str | None) -> list[Step]:
    """What an alias takes along when it moves to ``new``, whose codes are of ``encoder``.

    Pipelines of the same encoder go on, and are the default there too if they were. Those of
    another are removed: they would write codes that nothing there can be compared with.
    """
    try:
        ours = {p: tag for p, tag in marked_pipelines(server).items() if tag.index == alias}
    except ServerFailure as error:
        if error.status in HIDDEN:  # whoever may not see pipelines moves an alias only
            return []
        raise
    outdated = [path for path, tag in ours.items() if tag.fingerprint != encoder]
    steps = _remove(server, outdated)
    for settings in (_defaults(server, alias) if ours else {}).values():
        name = settings.get(DEFAULT)
        if f"{INGEST}/{name}" in ours:
            doing = f"keeping the default pipeline of {new}"
            server.request("PUT", f"/{new}/_settings", {DEFAULT: name}, doing=doing)
    return steps


def marked_pipelines(server: Server) -> dict[str, OwnershipTag]:
    """The path and the ownership tag of every pipeline that a connect made."""
    out = {}
    for kind in (INGEST, SEARCH):
        for name, body in _read(server, kind).items():
            tag = read_tag(body.get("description"))
            if tag is not None:
                out[f"{kind}/{name}"] = tag
    return out


# ---- how it works --------------------------------------------------------------------------------


def _write(server: Server, tag: OwnershipTag, path: str, body: Body) -> Step:
    kind, _, name = path.rpartition("/")
    there = _read(server, path).get(name)
    if there == body:
        return Step(_what(kind), name, "unchanged")
    if there is not None and not tag.matches(read_tag(there.get("description"))):
        raise ConfigError(
            f"{server.address.server} has {_what(kind)} {name}, which connect did not make: give "
            "another --name"
        )
    server.request("PUT", path, body, doing=f"writing {_what(kind)} {name}")
    return Step(_what(kind), name, "created" if there is None else "updated")


def _remove(server: Server, paths: Iterable[str]) -> list[Step]:
    """First where they are the default: such an index would take nothing without them."""
    steps = []
    names = {path.rpartition("/")[2] for path in paths}
    for index, settings in (_defaults(server, "_all") if names else {}).items():
        ours = {key: None for key in DEFAULTS if settings.get(key) in names}
        if ours:
            doing = f"taking the default pipeline of {index} away"
            server.request("PUT", f"/{index}/_settings", ours, doing=doing)
            steps.append(Step("default pipeline of", index, "removed"))
    for path in paths:
        kind, _, name = path.rpartition("/")
        try:
            server.request("DELETE", path, doing=f"removing {_what(kind)} {name}")
        except ServerFailure as error:
            if error.status != 404:  # somebody else was faster
                raise
        steps.append(Step(_what(kind), name, "removed"))
    return steps


def _check_default(server: Server, wiring: Wiring, index: str) -> None:
    """Raises ConfigError if the index has a default pipeline of somebody else's."""
    found, ours = _defaults(server, index).get(index, {}).get(DEFAULT), wiring.ingest_name
    if found not in (None, "_none", ours):
        raise ConfigError(
            f"{index} has default pipeline {found} already: leave --make-default out and call ours "
            f'from it, {{"pipeline": {{"name": "{ours}"}}}}'
        )


def _make_default(server: Server, wiring: Wiring, index: str) -> Step:
    name = wiring.ingest_name
    if _defaults(server, index).get(index, {}).get(DEFAULT) == name:
        return Step("default pipeline of", index, "unchanged")
    doing = "making the pipeline the default"
    server.request("PUT", f"/{index}/_settings", {DEFAULT: name}, doing=doing)
    return Step("default pipeline of", index, "updated")


def _defaults(server: Server, index: str) -> dict[str, dict[str, Any]]:
    """The default pipelines of an index, or of ``_all``, by the index' own name."""
    found = server.request(
        "GET",
        f"/_cluster/state/metadata/{index}",
        doing="looking for default pipelines",
        filter_path=",".join(f"metadata.indices.*.settings.{name}" for name in DEFAULTS),
        ignore_unavailable="true",
    )
    out = {}
    for name, content in found.get("metadata", {}).get("indices", {}).items():
        told = content["settings"]["index"]
        search = told.get("search", {}).get("default_pipeline")
        out[name] = dict(zip(DEFAULTS, (told.get("default_pipeline"), search), strict=True))
    return out


def _read(server: Server, path: str) -> dict[str, Any]:
    """Pipelines by name; none if there are none."""
    try:
        found: dict[str, Any] = server.request("GET", path, doing="looking at pipelines")
    except ServerFailure as error:
        if error.status == 404:
            return {}
        raise
    return found


def _what(kind: str) -> str:
    return "ingest pipeline" if kind == INGEST else "search pipeline"
