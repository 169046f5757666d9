"""The HTTP service as a remote model of ml-commons: a connector and a model that refers to it.

Both are found by their ownership tags. Of several, the oldest one is used; the others, left by a
killed run, are removed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from xmodal.errors import ConfigError, ServerFailure
from xmodal_opensearch.client.server import Server
from xmodal_opensearch.index.ownership import OwnershipTag
from xmodal_opensearch.rest import cluster_settings, models, pipelines
from xmodal_opensearch.rest.cluster_settings import MissingSetting
from xmodal_opensearch.rest.models import ML, ResourceChange
from xmodal_opensearch.rest.pipelines import Body, ConnectorConfig
from xmodal_opensearch.rest.service_probe import SAMPLE


class NotAllowed(ConfigError):
    """Cluster settings do not allow the call; ``missing`` lists them."""

    def __init__(self, message: str, missing: list[MissingSetting]) -> None:
        super().__init__(message)
        self.missing = missing


def read_missing_settings(server: Server, url: str, *, private_ip: bool) -> list[MissingSetting]:
    """Return the cluster settings that prevent ml-commons from calling ``url``.

    Returns [] if the user has no permission to read cluster settings.
    """
    settings = models.read_settings(server)
    return cluster_settings.missing_settings(settings, url, private_ip=private_ip)


def create(
    server: Server, config: ConnectorConfig, expected: Sequence[int], token: str | None
) -> tuple[ResourceChange, ResourceChange]:
    """Create or update connector and model, and return both changes with their ids.

    ``expected``: code of the sample as signed bytes. Raises NotAllowed, and ServerFailure if the
    cluster does not reach the service or receives another code.
    """
    connectors = models.find_tagged(server, "connectors", config.tag)
    found = models.find_tagged(server, "models", config.tag)
    connector = _create_connector(server, config, token, connectors, found)
    usable = [id_ for id_, one in found.items() if one.get("connector_id") == connector.id]
    for id_, one in found.items():
        if id_ not in usable[:1]:
            models.remove_model(server, id_, one)
    for id_ in list(connectors)[1:]:
        models.request(server, "DELETE", f"/connectors/{id_}", None, "removing a connector")
    existing = {id_: found[id_] for id_ in usable[:1]}
    model = _register_model(server, config, str(connector.id), existing)
    return _test_or_rewrite(server, config, token, expected, connector, model)


def find_problem(server: Server, tag: OwnershipTag) -> str | None:
    """Return why the model of ``tag`` does not encode a text, or None if it does."""
    try:
        found = models.find_tagged(server, "models", tag)
        if not found:
            return "their model is missing"
        _predict(server, next(iter(found)), "calling the service", retry_timeout=0)
    except ServerFailure as error:
        if error.status in (401, 403):
            raise
        return error.reason
    return None


# ---- details -------------------------------------------------------------------------------------


def _create_connector(
    server: Server,
    config: ConnectorConfig,
    token: str | None,
    connectors: Mapping[str, Any],
    model_ids: Iterable[str],
) -> ResourceChange:
    """Create the connector, or update the oldest existing one if it differs."""
    body = pipelines.connector_body(config, token)
    if not connectors:
        answer = models.request(server, "POST", "/connectors/_create", body, "creating a connector")
        return ResourceChange("connector", config.tag.stem, "created", answer["connector_id"])
    id_, found = next(iter(connectors.items()))
    unchanged = ResourceChange("connector", config.tag.stem, "unchanged", id_)
    if pipelines.is_up_to_date(found, body):
        return unchanged
    return _rewrite_connector(server, unchanged, body, model_ids)


def _register_model(
    server: Server, config: ConnectorConfig, connector_id: str, existing: Mapping[str, Any]
) -> ResourceChange:
    """Register the model of the connector, or update the description of the existing one."""
    body = pipelines.model_body(config, connector_id)
    if not existing:
        answer = models.request(server, "POST", "/models/_register", body, "registering a model")
        return ResourceChange("model", config.tag.stem, "created", answer["model_id"])
    ((id_, found),) = existing.items()
    if found.get("description") == body["description"]:
        return ResourceChange("model", config.tag.stem, "unchanged", id_)
    update = {"description": body["description"]}
    models.request(server, "PUT", f"/models/{id_}", update, "updating the model")
    return ResourceChange("model", config.tag.stem, "updated", id_)


def _test_or_rewrite(
    server: Server,
    config: ConnectorConfig,
    token: str | None,
    expected: Sequence[int],
    connector: ResourceChange,
    model: ResourceChange,
) -> tuple[ResourceChange, ResourceChange]:
    """Test the model; if it fails, write an unchanged connector again and repeat the test once.

    A changed token cannot be detected otherwise, because ml-commons does not return it. A deployed
    model also keeps the cluster settings that were in effect when it was deployed.
    """
    try:
        _test(server, config, str(model.id), expected)
        return connector, model
    except ServerFailure as error:
        if connector.change != "unchanged":
            _raise_if_not_allowed(server, config, error)
            raise
    body = pipelines.connector_body(config, token)
    connector = _rewrite_connector(server, connector, body, [str(model.id)])
    try:
        _test(server, config, str(model.id), expected)
    except ServerFailure as error:
        _raise_if_not_allowed(server, config, error)
        raise
    return connector, model


def _test(server: Server, config: ConnectorConfig, model_id: str, expected: Sequence[int]) -> None:
    """Deploy the model and encode the sample with it. Raises ServerFailure."""
    models.deploy(server, model_id)
    doing = f"calling {config.url}, which this machine reaches: check that the cluster does"
    if _predict(server, model_id, doing) != list(expected):
        raise ServerFailure(
            f"the cluster reaches another service at {config.url} than this machine, or one of an "
            "older version: pass an address that is the same service for both, of this version",
            0,
            "service",
        )


def _predict(
    server: Server, model_id: str, doing: str, *, retry_timeout: float | None = None
) -> list[int]:
    """Encode the sample with a deployed model, and return its code as signed bytes."""
    body = {"parameters": {"inputText": pipelines.LITERAL + SAMPLE}}
    path = f"{ML}/models/{model_id}/_predict"
    answer = server.request("POST", path, body, doing=doing, retry_timeout=retry_timeout)
    code = answer["inference_results"][0]["output"][0]["dataAsMap"]["text_code"]
    return list(map(int, code))


def _raise_if_not_allowed(server: Server, config: ConnectorConfig, error: ServerFailure) -> None:
    """Raise NotAllowed if the host is public for this machine and private for the cluster."""
    if "private ip" not in error.reason:
        return
    missing = read_missing_settings(server, config.url, private_ip=True)
    if missing:
        raise NotAllowed(str(error), missing) from None


def _rewrite_connector(
    server: Server, connector: ResourceChange, body: Body, model_ids: Iterable[str]
) -> ResourceChange:
    """Update a connector; ml-commons requires that its models are undeployed before."""
    for id_ in model_ids:
        models.request(server, "POST", f"/models/{id_}/_undeploy", None, "undeploying the model")
    models.request(server, "PUT", f"/connectors/{connector.id}", body, "updating the connector")
    return connector._replace(change="updated")
