"""Our service as a model of ml-commons: a connector, which calls it, and the model that is named.

Both are found by their tag, oldest first; what a killed run left twice goes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from xmodal.errors import ConfigError, IndexMissing, ServerFailure
from xmodal_opensearch.client.retry import poll
from xmodal_opensearch.client.server import Server
from xmodal_opensearch.index.capabilities import Capabilities
from xmodal_opensearch.index.ownership import OwnershipTag, read_tag
from xmodal_opensearch.rest import cluster_settings, pipelines
from xmodal_opensearch.rest.cluster_settings import Lack
from xmodal_opensearch.rest.pipelines import Body, Wiring
from xmodal_opensearch.rest.service_probe import SAMPLE

ML = "/_plugins/_ml"
DEPLOYING = 60.0  # seconds until a model has to be there
PAUSE = 0.1


class Step(NamedTuple):
    """One thing, and what became of it: created, updated, unchanged or removed."""

    what: str
    name: str
    done: str
    id: str | None = None


class NotAllowed(ConfigError):
    """Cluster settings are in the way; ``lacks`` says which."""

    def __init__(self, message: str, lacks: list[Lack]) -> None:
        super().__init__(message)
        self.lacks = lacks


def check_plugins(can: Capabilities, where: str) -> None:
    """Raises ConfigError where ml-commons is missing or too old."""
    if can.plugins is not None and "opensearch-ml" not in can.plugins:
        raise ConfigError(
            f"{where} has no ml-commons (plugin opensearch-ml) on every node, which calls the "
            "service: install it, or for a trial start xmodal-opensearch node --with-ml"
        )
    if can.version < (2, 19):
        version = ".".join(map(str, can.version))
        raise ConfigError(f"{where} is OpenSearch {version}, expected 2.19 or later")


def lacking(server: Server, url: str, *, private: bool) -> list[Lack]:
    """The cluster settings that keep ml-commons from calling ``url``; read, never changed.

    Nothing where settings may not be read: the trial call will show.
    """
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
            return []
        raise
    return cluster_settings.lacking(cluster_settings.effective(answer), url, private=private)


def allow(server: Server, lacks: list[Lack]) -> None:
    """Change cluster settings, for an operator who asked for it."""
    body = cluster_settings.change(lacks)
    server.request("PUT", "/_cluster/settings", body, doing="changing cluster settings")


def lay(
    server: Server, wiring: Wiring, expected: Sequence[int], token: str | None
) -> tuple[Step, Step]:
    """A connector and a model whose answer to the sample is ``expected``; the steps have their ids.

    Raises NotAllowed, and ServerFailure if the cluster cannot reach the service.
    """
    stem = wiring.tag.stem
    connectors, models = (_marked(server, kind, wiring.tag) for kind in ("connectors", "models"))
    wanted = pipelines.connector(wiring, token)
    if not connectors:
        made = _ml(server, "POST", "/connectors/_create", wanted, "creating a connector")
        connector = Step("connector", stem, "created", made["connector_id"])
    else:
        connector = Step("connector", stem, "unchanged", next(iter(connectors)))
        if not pipelines.is_as_wanted(connectors[str(connector.id)], wanted):
            connector = _rewrite(server, connector, wanted, models)
    registration = pipelines.model(wiring, str(connector.id))
    fitting = [id_ for id_, one in models.items() if one.get("connector_id") == connector.id]
    for id_, one in models.items():
        if id_ not in fitting[:1]:
            _remove_model(server, id_, one)
    for id_ in list(connectors)[1:]:
        _ml(server, "DELETE", f"/connectors/{id_}", None, "removing a connector")
    if not fitting:
        made = _ml(server, "POST", "/models/_register", registration, "registering a model")
        model = Step("model", stem, "created", made["model_id"])
    else:
        model = Step("model", stem, "unchanged", fitting[0])
        description = registration["description"]
        if models[fitting[0]].get("description") != description:
            changed = {"description": description}
            _ml(server, "PUT", f"/models/{model.id}", changed, "updating the model")
            model = model._replace(done="updated")
    return _tried(server, wiring, wanted, expected, connector, model)


def remove(server: Server, tag: OwnershipTag) -> list[Step]:
    """Remove what :func:`lay` made for a name and an index: first what uses the others."""
    steps = []
    for id_, one in _marked(server, "models", tag).items():
        _remove_model(server, id_, one)
        steps.append(Step("model", tag.stem, "removed", id_))
    for kind, what in (("model_groups", "model group"), ("connectors", "connector")):
        for id_ in _marked(server, kind, tag):
            _gone(server, f"/{kind}/{id_}", f"removing a {what}")
            steps.append(Step(what, tag.stem, "removed", id_))
    return steps


# ---- how it works --------------------------------------------------------------------------------


def _tried(
    server: Server,
    wiring: Wiring,
    wanted: Body,
    expected: Sequence[int],
    connector: Step,
    model: Step,
) -> tuple[Step, Step]:
    """The same steps, after the model has answered.

    A token cannot be read back, and a model keeps the cluster settings of the time when it was
    deployed: where it does not answer, an unchanged connector is written and deployed anew, once.
    """
    try:
        _try(server, wiring, str(model.id), expected)
        return connector, model
    except ServerFailure as error:
        if connector.done != "unchanged":
            _explain(server, wiring, error)
            raise
    connector = _rewrite(server, connector, wanted, [str(model.id)])
    try:
        _try(server, wiring, str(model.id), expected)
    except ServerFailure as error:
        _explain(server, wiring, error)
        raise
    return connector, model


def _try(server: Server, wiring: Wiring, model_id: str, expected: Sequence[int]) -> None:
    """Deploy the model and encode the sample by it. Raises ServerFailure."""
    _deploy(server, model_id)
    body = {"parameters": {"inputText": SAMPLE}}
    doing = f"calling {wiring.url}, which answers us here: does the cluster reach it there?"
    answer = _ml(server, "POST", f"/models/{model_id}/_predict", body, doing)
    told = answer["inference_results"][0]["output"][0]["dataAsMap"]["text_code"]
    if list(map(int, told)) != list(expected):
        raise ServerFailure(
            f"the cluster finds another service at {wiring.url} than we do: name it so that both "
            "reach the same",
            0,
            "service",
        )


def _deploy(server: Server, model_id: str) -> None:
    """Wait until a model is deployed. Raises ServerFailure."""
    path, asked, deploying = f"/models/{model_id}", False, poll(DEPLOYING, PAUSE)
    while True:
        state = _ml(server, "GET", path, None, "looking at the model")["model_state"]
        if state == "DEPLOYED":
            return
        failed = asked and state == "DEPLOY_FAILED"
        if not asked:
            _ml(server, "POST", f"{path}/_deploy", None, "deploying the model")
            asked = True
        if failed or not deploying.wait():
            raise ServerFailure(
                f"{server.address.server} did not deploy model {model_id} (it is {state}): its log "
                "says why",
                0,
                state,
            )


def _explain(server: Server, wiring: Wiring, error: ServerFailure) -> None:
    """Raise NotAllowed instead, if the host is public for us and private for the cluster."""
    lacks = lacking(server, wiring.url, private=True) if "private ip" in error.reason else []
    if lacks:
        raise NotAllowed(str(error), lacks) from None


def _rewrite(server: Server, step: Step, wanted: Body, models: Iterable[str]) -> Step:
    """Write a connector anew; no model may use it meanwhile."""
    for id_ in models:
        _ml(server, "POST", f"/models/{id_}/_undeploy", None, "undeploying the model")
    _ml(server, "PUT", f"/connectors/{step.id}", wanted, "updating the connector")
    return step._replace(done="updated")


def _remove_model(server: Server, id_: str, found: Mapping[str, Any]) -> None:
    """Undeploy and remove a model; what it says of its state may be a moment old."""
    undeployed = found.get("model_state") in ("REGISTERED", "UNDEPLOYED")
    undeploying = poll(DEPLOYING, PAUSE)
    while True:
        if not undeployed:
            _ml(server, "POST", f"/models/{id_}/_undeploy", None, "undeploying a model")
        try:
            _gone(server, f"/models/{id_}", "removing a model")
            return
        except ServerFailure as error:
            if "ndeploy" not in error.reason or not undeploying.wait():
                raise
        undeployed = False


def _gone(server: Server, path: str, doing: str) -> None:
    try:
        _ml(server, "DELETE", path, None, doing)
    except ServerFailure as error:
        if error.status != 404:  # somebody else was faster
            raise


def _marked(server: Server, kind: str, tag: OwnershipTag) -> dict[str, Any]:
    """Connectors, models or model groups of a name and an index, oldest first, by id."""
    query = {"term": {"name.keyword": tag.stem}}
    body = {"query": query, "size": 1000, "sort": [{"created_time": "asc"}]}
    try:
        found = _ml(server, "POST", f"/{kind}/_search", body, f"looking for {kind}")
    except IndexMissing:  # nobody ever made one
        return {}
    return {
        hit["_id"]: hit["_source"]
        for hit in found["hits"]["hits"]
        if tag.matches(read_tag(hit["_source"].get("description")))
    }


def _ml(server: Server, method: str, path: str, body: Body | None, doing: str) -> Any:
    return server.request(method, f"{ML}{path}", body, doing=doing)
