"""The text tower as a local model of ml-commons, which the nodes of the cluster compute.

The archive of a :class:`~xmodal.encoders.text_tower.TextTower` is sent in parts, deployed, and
tested: the cluster must compute the code of each sample text. The next run completes a killed one.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from xmodal.data.progress import Progress
from xmodal.encoders.text_tower import CHUNK_BYTES, Samples, TextTower
from xmodal.errors import ConfigError, ServerFailure
from xmodal_opensearch.client.retry import poll
from xmodal_opensearch.client.server import Server
from xmodal_opensearch.index.capabilities import Capabilities
from xmodal_opensearch.index.ownership import OwnershipTag
from xmodal_opensearch.rest import models
from xmodal_opensearch.rest.cluster_settings import ML as ML_SETTINGS
from xmodal_opensearch.rest.cluster_settings import MissingSetting
from xmodal_opensearch.rest.models import ML, POLL_INTERVAL, ResourceChange

OUTPUT = "sentence_embedding"
UNFINISHED = ("REGISTERING", "UPLOADING", None)
"""States of a model of which parts are missing; a killed run left it."""
REFRESHED = 1.5
"""Seconds after which the server finds the parts that it stored; it removes only such parts."""
READY_TIMEOUT = 180.0
"""Seconds for which a deployment, and the first answer of the model, are waited for."""
ML_NODES, LOCAL_FILE = (
    f"{ML_SETTINGS}.only_run_on_ml_node",
    f"{ML_SETTINGS}.allow_registering_model_via_local_file",
)
NATIVES = ("djl", "pytorch", "unsatisfiedlink", "onnxruntime", "native")
"""Words of errors of a node without the libraries of PyTorch and ONNX Runtime."""
NO_NATIVES = (
    "the nodes have no libraries of PyTorch and ONNX Runtime, or found none at their first try: "
    "install them (docs/opensearch.md), then restart every node, because a failed try is not "
    "repeated; for a test: xmodal-opensearch node --with-ml --local-models"
)


def check_version(capabilities: Capabilities, server: str) -> None:
    """Raise ConfigError if neural-search of this version cannot store binary codes."""
    if capabilities.version < (3, 0):
        version = ".".join(map(str, capabilities.version))
        raise ConfigError(
            f"{server} is OpenSearch {version}, expected 3.0 or later for --in-cluster: use "
            "--service"
        )


def missing_settings(server: Server) -> list[MissingSetting]:
    """Return the cluster settings that prevent a local model; [] if they cannot be read."""
    settings = models.read_settings(server)
    missing = []
    if str(settings.get(ML_NODES)).lower() == "true" and not _has_ml_nodes(server):
        missing.append(MissingSetting(ML_NODES, False, "no node has the role ml"))
    if str(settings.get(LOCAL_FILE)).lower() == "false":
        missing.append(MissingSetting(LOCAL_FILE, True, "sending a model is disabled"))
    return missing


def create(
    server: Server, tag: OwnershipTag, tower: TextTower, progress: Progress
) -> ResourceChange:
    """Register, deploy and test the model of ``tower``, unless the cluster has it already.

    All parts of an unfinished model are sent again. ``progress`` is called with the bytes of the
    archive that were sent. Raises ServerFailure if the cluster does not compute the codes of the
    samples; a model that this call completed is removed then.
    """
    found = [
        (id_, one.get("model_state") in UNFINISHED)
        for id_, one in _find(server, tag).items()
        if one.get("model_content_hash_value") == tower.sha256
    ]
    for id_, is_unfinished in found:
        if not is_unfinished:
            deploy(server, id_)
            check_samples(server, id_, tower.samples, max_share=tower.max_differing_share)
            return ResourceChange("model", tag.stem, "unchanged", id_)
    id_ = found[0][0] if found else _register(server, tag, tower)
    try:
        for number, chunk in enumerate(tower.chunks()):
            path = f"/models/{id_}/upload_chunk/{number}"
            models.request(server, "POST", path, chunk, "sending the model")
            progress("sending", min((number + 1) * CHUNK_BYTES, tower.size), tower.size)
        deploy(server, id_)
        check_samples(server, id_, tower.samples, max_share=tower.max_differing_share)
    except BaseException:
        time.sleep(REFRESHED)
        models.remove_model(server, id_, {})
        raise
    return ResourceChange("model", tag.stem, "created", id_)


def remove_others(server: Server, tag: OwnershipTag, kept: str) -> list[ResourceChange]:
    """Remove the models of ``tag`` except ``kept``: of an earlier tower, or of a killed run."""
    changes = []
    for id_, one in _find(server, tag).items():
        if id_ != kept:
            models.remove_model(server, id_, one)
            changes.append(ResourceChange("model", tag.stem, "removed", id_))
    return changes


def deploy(server: Server, model_id: str) -> None:
    """Deploy a model and wait until it is deployed. Raises ServerFailure with the reason."""
    path, task, retry = f"/models/{model_id}", None, poll(READY_TIMEOUT, POLL_INTERVAL)
    while True:
        state = models.request(server, "GET", path, None, "reading the state of the model")
        if state["model_state"] == "DEPLOYED":
            return
        if task is None:
            task = _request_deployment(server, path)
        elif (failure := _failure(server, task)) is not None:
            raise _explained(server, failure)
        if not retry.wait():
            raise _explained(server, f"not deployed after {READY_TIMEOUT:.0f} s")


def check_samples(
    server: Server,
    model_id: str,
    samples: Samples,
    *,
    max_share: float = 0.0,
    timeout: float = READY_TIMEOUT,
) -> Samples:
    """Return the sample texts with their codes by the cluster.

    Raises ServerFailure if over ``max_share`` of their bits differ from those of ``samples``. A
    restarted node answers that the model is not ready for some seconds, although its state is
    DEPLOYED. ``timeout``: seconds for which this is waited for.
    """
    texts = [text for text, _ in samples]
    found = encode(server, model_id, texts, timeout=timeout)
    differing, total = Counter[str](), sum(8 * len(code) for code in found)
    for (text, expected), code in zip(samples, found, strict=True):
        pairs = zip(expected, code, strict=True)
        differing[text] = sum((a & 255 ^ b & 255).bit_count() for a, b in pairs)
    if differing.total() > max_share * total:
        ((text, bits),) = differing.most_common(1)
        raise ServerFailure(
            f"{server.address.server} computes codes of {len(texts)} sample texts that differ in "
            f"{differing.total()} of {total} bits from this model's ({bits} in {text[:30]!r}): use "
            "connect --service",
            0,
            "codes differ",
        )
    return tuple(zip(texts, map(tuple, found), strict=True))


def encode(
    server: Server, model_id: str, texts: Sequence[str], *, timeout: float = READY_TIMEOUT
) -> list[list[int]]:
    """Return the code of each text as signed bytes, computed by the cluster."""
    body = {"text_docs": list(texts), "return_number": True, "target_response": [OUTPUT]}
    path, retry = f"{ML}/models/{model_id}/_predict", poll(timeout, POLL_INTERVAL)
    while True:
        try:
            answer = server.request("POST", path, body, doing="encoding texts in the cluster")
            break
        except ServerFailure as error:
            if "not ready" not in error.reason.lower() or not retry.wait():
                raise _explained(server, error.reason, error.status) from None
    return [[int(n) for n in one["output"][0]["data"]] for one in answer["inference_results"]]


def find_problem(server: Server, tag: OwnershipTag, samples: Samples) -> str | None:
    """Return why the model of ``tag`` does not compute the samples' codes, None if it does."""
    found = _find(server, tag)
    if not found:
        return "their model is missing"
    try:
        check_samples(server, next(iter(found)), samples, timeout=0)
    except ServerFailure as error:
        if error.status in (401, 403):
            raise
        return str(error)
    return None


def cure(reason: str) -> str:
    """Return what to do about an error of ml-commons, in a deployment or an encoding."""
    words = reason.lower()
    if "circuit breaker" in words or "memory" in words:
        return "free memory or disk of the nodes, or raise plugins.ml_commons.*_threshold"
    if any(word in words for word in NATIVES):
        return NO_NATIVES
    if "not ready" in words:
        return "a started node loads its models for up to a minute: repeat the command then"
    return "see the log of the server"


# ---- details -------------------------------------------------------------------------------------


def _find(server: Server, tag: OwnershipTag) -> dict[str, Any]:
    """Local models of ``tag``, oldest first."""
    return {
        id_: one
        for id_, one in models.find_models(server, tag).items()
        if "connector_id" not in one
    }


def _register(server: Server, tag: OwnershipTag, tower: TextTower) -> str:
    """Register the model without its parts, in the model group of ``tag``; return its id."""
    groups = list(models.find_tagged(server, "model_groups", tag))
    if not groups:
        group = {"name": tag.stem, "description": str(tag)}
        path, doing = "/model_groups/_register", "registering a model group"
        groups = [str(models.request(server, "POST", path, group, doing)["model_group_id"])]
    body = {
        "name": tag.stem,
        "version": "1",
        "model_group_id": groups[0],
        "function_name": "TEXT_EMBEDDING",
        "model_format": "ONNX",
        "model_content_size_in_bytes": tower.size,
        "model_content_hash_value": tower.sha256,
        "total_chunks": -(-tower.size // CHUNK_BYTES),
        "model_config": dict(tower.model_config),
    }
    path = "/models/_register_meta"
    return str(models.request(server, "POST", path, body, "registering the model")["model_id"])


def _request_deployment(server: Server, path: str) -> str | None:
    """Request a deployment; return its task, None if another change of the model goes on."""
    try:
        answer = models.request(server, "POST", f"{path}/_deploy", None, "deploying the model")
    except ServerFailure as error:
        if error.status != 409:
            raise _explained(server, error.reason, error.status) from None
        return None
    return str(answer["task_id"])


def _failure(server: Server, task: str) -> str | None:
    """The error of a deployment that failed, None while it runs or if it succeeded."""
    found = models.request(server, "GET", f"/tasks/{task}", None, "reading the deployment")
    failed = found.get("state") in ("FAILED", "COMPLETED_WITH_ERROR", "CANCELLED")
    return str(found.get("error", found["state"])) if failed else None


def _explained(server: Server, reason: str, status: int = 0) -> ServerFailure:
    """The error of a deployment or an encoding, with its cure."""
    line = " ".join(reason.split())[:300]
    return ServerFailure(
        f"{server.address.server} cannot compute the text tower ({line}): {cure(reason)}",
        status,
        reason,
    )


def _has_ml_nodes(server: Server) -> bool:
    """Whether a node has the role ml; False if the nodes cannot be read."""
    try:
        found = server.request(
            "GET", "/_nodes", doing="reading the nodes", filter_path="nodes.*.roles"
        )
    except ServerFailure as error:
        if error.status in (401, 403):
            return False
        raise
    return any("ml" in node.get("roles", ()) for node in found.get("nodes", {}).values())
