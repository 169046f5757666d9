"""Models of ml-commons that ``connect`` created, found by their ownership tags."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from xmodal.errors import ConfigError, IndexMissing, ServerFailure
from xmodal_opensearch.client.retry import poll
from xmodal_opensearch.client.server import Body, Server
from xmodal_opensearch.index.capabilities import Capabilities
from xmodal_opensearch.index.ownership import OwnershipTag, read_tag
from xmodal_opensearch.rest import cluster_settings
from xmodal_opensearch.rest.cluster_settings import MissingSetting

ML = "/_plugins/_ml"
DEPLOY_TIMEOUT = 60.0  # seconds
POLL_INTERVAL = 0.1  # seconds
DEPLOY_REQUESTS = 5


class ResourceChange(NamedTuple):
    """A resource of the cluster and its change: created, updated, unchanged or removed."""

    kind: str
    name: str
    change: str
    id: str | None = None


def check_plugins(capabilities: Capabilities, server: str) -> None:
    """Raise ConfigError if ml-commons is missing, or OpenSearch older than 2.19."""
    if capabilities.plugins is not None and "opensearch-ml" not in capabilities.plugins:
        raise ConfigError(
            f"{server} has no plugin opensearch-ml (ml-commons) on every node: install it, or for "
            "a test start xmodal-opensearch node --with-ml"
        )
    if capabilities.version < (2, 19):
        version = ".".join(map(str, capabilities.version))
        raise ConfigError(f"{server} is OpenSearch {version}, expected 2.19 or later")


def read_settings(server: Server) -> dict[str, Any]:
    """Return the effective cluster settings; {} if the user has no permission to read them."""
    try:
        answer = server.request(
            "GET",
            "/_cluster/settings",
            doing="reading cluster settings",
            include_defaults="true",
            flat_settings="true",
        )
    except ServerFailure as error:
        if error.status in (401, 403):
            return {}
        raise
    return cluster_settings.effective_settings(answer)


def change_settings(server: Server, missing: list[MissingSetting]) -> None:
    """Set the required values in the cluster settings."""
    body = cluster_settings.settings_body(missing)
    server.request("PUT", "/_cluster/settings", body, doing="changing cluster settings")


def find_tagged(server: Server, path: str, tag: OwnershipTag) -> dict[str, Any]:
    """Return connectors, models or model groups with name and index of ``tag``, oldest first."""
    return {
        id_: one
        for id_, one in _find_named(server, path, tag.stem).items()
        if tag.matches(read_tag(one.get("description")))
    }


def find_models(server: Server, tag: OwnershipTag) -> dict[str, Any]:
    """Return models of ``tag``, and models in its model groups, oldest first.

    ml-commons does not store the description of a model that is sent in parts; such a model belongs
    to a model group with the tag.
    """
    groups = find_tagged(server, "model_groups", tag)
    return {
        id_: one
        for id_, one in _find_named(server, "models", tag.stem).items()
        if one.get("model_group_id") in groups or tag.matches(read_tag(one.get("description")))
    }


def _find_named(server: Server, path: str, name: str) -> dict[str, Any]:
    """Connectors, models or model groups of this name, oldest first."""
    query = {"term": {"name.keyword": name}}
    body = {"query": query, "size": 1000, "sort": [{"created_time": "asc"}]}
    try:
        found = request(server, "POST", f"/{path}/_search", body, f"searching {path}")
    except IndexMissing:  # ml-commons creates its index with the first resource
        return {}
    return {hit["_id"]: hit["_source"] for hit in found["hits"]["hits"]}


def deploy(server: Server, model_id: str) -> None:
    """Deploy a model and wait until it is deployed. Raises ServerFailure.

    A deployment that failed or conflicts (409) with another change of the model is requested again.
    """
    path, requests, retry = f"/models/{model_id}", 0, poll(DEPLOY_TIMEOUT, POLL_INTERVAL)
    while True:
        state = request(server, "GET", path, None, "reading the state of the model")["model_state"]
        if state == "DEPLOYED":
            return
        failed = state == "DEPLOY_FAILED"
        if (failed and requests == DEPLOY_REQUESTS) or not retry.wait():
            raise ServerFailure(
                f"{server.address.server} did not deploy model {model_id} (state {state}): see the "
                "log of the server",
                0,
                state,
            )
        if failed or not requests:
            requests += _request_deployment(server, path)


def remove(server: Server, tag: OwnershipTag) -> list[ResourceChange]:
    """Remove what :func:`create` made for the name and index of ``tag``: models first."""
    changes = []
    for id_, one in find_models(server, tag).items():
        remove_model(server, id_, one)
        changes.append(ResourceChange("model", tag.stem, "removed", id_))
    for path, kind in (("model_groups", "model group"), ("connectors", "connector")):
        for id_ in find_tagged(server, path, tag):
            delete(server, f"/{path}/{id_}", f"removing a {kind}")
            changes.append(ResourceChange(kind, tag.stem, "removed", id_))
    return changes


def remove_model(server: Server, id_: str, found: Mapping[str, Any]) -> None:
    """Undeploy and remove a model. The state in ``found`` may be out of date."""
    undeployed = found.get("model_state") in ("REGISTERED", "UNDEPLOYED")
    retry = poll(DEPLOY_TIMEOUT, POLL_INTERVAL)
    while True:
        if not undeployed:
            request(server, "POST", f"/models/{id_}/_undeploy", None, "undeploying a model")
        try:
            delete(server, f"/models/{id_}", "removing a model")
            return
        except ServerFailure as error:
            if "ndeploy" not in error.reason or not retry.wait():
                raise
        undeployed = False


def delete(server: Server, path: str, doing: str) -> None:
    """Remove a resource. A group is refused until ml-commons sees that its models are removed."""
    retry = poll(DEPLOY_TIMEOUT, POLL_INTERVAL)
    while True:
        try:
            request(server, "DELETE", path, None, doing)
            return
        except ServerFailure as error:
            if error.status == 404:  # already removed
                return
            if "associated model versions" not in error.reason or not retry.wait():
                raise


def request(server: Server, method: str, path: str, body: Body | None, doing: str) -> Any:
    return server.request(method, f"{ML}{path}", body, doing=doing)


def _request_deployment(server: Server, path: str) -> bool:
    """Send the request to deploy a model; return whether the server accepted it."""
    try:
        request(server, "POST", f"{path}/_deploy", None, "deploying the model")
    except ServerFailure as error:
        if error.status != 409:
            raise
        return False
    return True
