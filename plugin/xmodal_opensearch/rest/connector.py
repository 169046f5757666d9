"""Create and remove the resources of ``connect``: model, pipelines and search templates.

Existing resources are found by their ownership tag and changed only if they differ. A second run
therefore changes nothing, a killed run is completed by the next one, and ``disconnect`` removes
only what ``connect`` created.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from xmodal.data.progress import Progress
from xmodal.encoders.text_tower import Samples, TextTower
from xmodal.errors import ConfigError, ServerFailure
from xmodal_opensearch.client.server import Server
from xmodal_opensearch.index.ownership import OwnershipTag, read_source_tag, read_tag
from xmodal_opensearch.rest import local_model, models, remote_model, tower_pipelines
from xmodal_opensearch.rest.models import ResourceChange
from xmodal_opensearch.rest.pipelines import INGEST, SEARCH, Body, ConnectorConfig, pipeline_bodies
from xmodal_opensearch.rest.tower_pipelines import TEMPLATE_NAMES, TEMPLATES, TowerConfig

DEFAULT_PIPELINE = "index.default_pipeline"
DEFAULT_SETTINGS = (DEFAULT_PIPELINE, "index.search.default_pipeline")
UNREADABLE = (400, 401, 403, 405)
"""Status codes of servers without pipelines, or that do not let this user read them."""


def connect(
    server: Server,
    config: ConnectorConfig,
    expected: Sequence[int],
    *,
    token: str | None = None,
    neural: bool = False,
    default_of: str | None = None,
) -> list[ResourceChange]:
    """Create or update all resources; return their changes, connector and model first.

    ``expected``: code of the sample, as the service returned it to this machine. ``neural``: also
    create the pipeline for ``neural`` queries. ``default_of``: the index whose default pipeline the
    ingest pipeline becomes. Raises ConfigError if a pipeline of the same name, or another default
    pipeline, exists; NotAllowed; and ServerFailure if the cluster cannot reach the service.
    """
    if default_of is not None:
        _check_default(server, config.ingest_name, default_of)
    changes = list(remote_model.create(server, config, expected, token))
    for path, body in pipeline_bodies(config, str(changes[1].id), neural=neural).items():
        changes.append(_write(server, config.tag, path, body))
    if default_of is not None:
        changes.append(_set_default(server, config.ingest_name, default_of))
    return changes


def connect_in_cluster(
    server: Server,
    config: TowerConfig,
    tower: TextTower,
    *,
    default_of: str | None = None,
    progress: Progress = lambda job, done, total: None,
) -> list[ResourceChange]:
    """Create or update the local model of a tower, its pipelines and search templates.

    ``default_of``: as in :func:`connect`. The model of an earlier tower is removed when the
    pipelines use the new one. Raises ConfigError as :func:`connect`, and ServerFailure if the
    cluster cannot compute the tower.
    """
    ingest = config.name("ingest")
    if default_of is not None:
        _check_default(server, ingest, default_of)
    model = local_model.create(server, config.tag, tower, progress)
    if tower.max_differing_share:
        # doctor compares with codes of this cluster, whose rounding differs from that of the export
        codes = local_model.check_samples(server, str(model.id), tower.samples, max_share=1)
        config = replace(config, samples=codes)
    changes = [model]
    for path, body in tower_pipelines.bodies(config, str(model.id)).items():
        changes.append(_write(server, config.tag, path, body))
    if default_of is not None:
        changes.append(_set_default(server, ingest, default_of))
    return changes + local_model.remove_others(server, config.tag, str(model.id))


def disconnect(server: Server, name: str, index: str) -> list[ResourceChange]:
    """Remove the resources of ``name`` and ``index``; return the changes, [] if there are none."""
    tag = OwnershipTag(name, index, "")
    paths = [path for path, found in tagged_pipelines(server).items() if tag.matches(found)]
    for purpose in TEMPLATE_NAMES:
        path = f"{TEMPLATES}/{tag.stem}-{purpose}"
        if any(tag.matches(_tag_of(body)) for body in _read(server, path).values()):
            paths.append(path)
    return _remove(server, paths) + models.remove(server, tag)


def transfer_pipelines(
    server: Server, alias: str, new: str, fingerprint: str | None
) -> list[ResourceChange]:
    """Prepare the pipelines of an alias that will refer to index ``new``; return removed ones.

    Pipelines of encoder ``fingerprint`` are kept, and stay default pipelines. Pipelines of other
    encoders are removed, because the codes that they write do not match those of ``new``.
    """
    try:
        tags = tagged_pipelines(server)
    except ServerFailure as error:
        if error.status in UNREADABLE:
            return []
        raise
    paths = {path: tag for path, tag in tags.items() if tag.index == alias}
    outdated = [path for path, tag in paths.items() if tag.fingerprint != fingerprint]
    changes = _remove(server, outdated)
    for settings in (_read_defaults(server, alias) if paths else {}).values():
        name = settings.get(DEFAULT_PIPELINE)
        if f"{INGEST}/{name}" in paths:
            doing = f"setting the default pipeline of {new}"
            server.request("PUT", f"/{new}/_settings", {DEFAULT_PIPELINE: name}, doing=doing)
    return changes


def read_samples(server: Server, tag: OwnershipTag) -> Samples | None:
    """Return the sample texts of ``connect --in-cluster`` and their codes, None for a service."""
    name = f"{tag.stem}-ingest"
    return tower_pipelines.read_samples(_read(server, f"{INGEST}/{name}").get(name, {}))


def tagged_pipelines(server: Server) -> dict[str, OwnershipTag]:
    """Return path and ownership tag of every pipeline that ``connect`` created."""
    tags = {}
    for kind in (INGEST, SEARCH):
        for name, body in _read(server, kind).items():
            tag = read_tag(body.get("description"))
            if tag is not None:
                tags[f"{kind}/{name}"] = tag
    return tags


# ---- details -------------------------------------------------------------------------------------


def _write(server: Server, tag: OwnershipTag, path: str, body: Body) -> ResourceChange:
    """Create or update a pipeline. Raises ConfigError if one without the tag has its name."""
    kind, _, name = path.rpartition("/")
    found = _read(server, path).get(name)
    if found == body:
        return ResourceChange(_title(kind), name, "unchanged")
    if found is not None and not tag.matches(_tag_of(found)):
        raise ConfigError(
            f"{server.address.server} has a {_title(kind)} {name} that connect did not create: use "
            "another --name"
        )
    server.request("PUT", path, body, doing=f"writing {_title(kind)} {name}")
    return ResourceChange(_title(kind), name, "created" if found is None else "updated")


def _remove(server: Server, paths: Iterable[str]) -> list[ResourceChange]:
    """Remove pipelines, and before that their use as default: indexing would fail otherwise."""
    changes = []
    names = {path.rpartition("/")[2] for path in paths}
    for index, settings in (_read_defaults(server, "_all") if names else {}).items():
        reset = {key: None for key in DEFAULT_SETTINGS if settings.get(key) in names}
        if reset:
            doing = f"resetting the default pipeline of {index}"
            server.request("PUT", f"/{index}/_settings", reset, doing=doing)
            changes.append(ResourceChange("default pipeline of", index, "removed"))
    for path in paths:
        kind, _, name = path.rpartition("/")
        try:
            server.request("DELETE", path, doing=f"removing {_title(kind)} {name}")
        except ServerFailure as error:
            if error.status != 404:  # already removed
                raise
        changes.append(ResourceChange(_title(kind), name, "removed"))
    return changes


def _check_default(server: Server, name: str, index: str) -> None:
    """Raise ConfigError if the index has another default pipeline than ``name``."""
    found = default_pipeline(server, index)
    if found not in (None, "_none", name):
        raise ConfigError(
            f"{index} has default pipeline {found}: omit --make-default, and call {name} from "
            f'that pipeline, {{"pipeline": {{"name": "{name}"}}}}'
        )


def _set_default(server: Server, name: str, index: str) -> ResourceChange:
    if default_pipeline(server, index) == name:
        return ResourceChange("default pipeline of", index, "unchanged")
    doing = f"setting the default pipeline of {index}"
    server.request("PUT", f"/{index}/_settings", {DEFAULT_PIPELINE: name}, doing=doing)
    return ResourceChange("default pipeline of", index, "updated")


def default_pipeline(server: Server, index: str) -> str | None:
    """Return the name of the default pipeline of an index, None without one."""
    name: str | None = _read_defaults(server, index).get(index, {}).get(DEFAULT_PIPELINE)
    return name


def _read_defaults(server: Server, index: str) -> dict[str, dict[str, Any]]:
    """The default pipelines of ``index`` (or ``_all``): concrete index -> setting -> pipeline."""
    answer = server.request(
        "GET",
        f"/_cluster/state/metadata/{index}",
        doing="reading default pipelines",
        filter_path=",".join(f"metadata.indices.*.settings.{name}" for name in DEFAULT_SETTINGS),
        ignore_unavailable="true",
    )
    defaults = {}
    for name, content in answer.get("metadata", {}).get("indices", {}).items():
        settings = content["settings"]["index"]
        search = settings.get("search", {}).get("default_pipeline")
        values = (settings.get("default_pipeline"), search)
        defaults[name] = dict(zip(DEFAULT_SETTINGS, values, strict=True))
    return defaults


def _read(server: Server, path: str) -> dict[str, Any]:
    """Pipelines, or the search template, at ``path`` by name; {} if there are none."""
    try:
        found: dict[str, Any] = server.request("GET", path, doing="reading pipelines")
    except ServerFailure as error:
        if error.status == 404:
            return {}
        raise
    return {found["_id"]: {"script": found["script"]}} if "script" in found else found


def _tag_of(body: Body) -> OwnershipTag | None:
    """The ownership tag of a pipeline or a search template."""
    if "script" in body:
        return read_source_tag(body["script"]["source"])
    return read_tag(body.get("description"))


def _title(kind: str) -> str:
    names = {INGEST: "ingest pipeline", SEARCH: "search pipeline", TEMPLATES: "search template"}
    return names[kind]
