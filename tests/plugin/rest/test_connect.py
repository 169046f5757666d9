"""connect and disconnect on a node with ml-commons: created, repeated, killed, changed, removed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.connect_requests import granted, recorded_permissions
from support.endpoint import Endpoint, Reply, Request
from support.hamming_server import Refused, Server
from support.rest_path import (
    Killed,
    alias,
    allow,
    changes,
    cluster_state,
    connect,
    curl,
    kill_after_each_change,
    pipeline_name,
    proxy,
)

from xmodal.encoders.encoder import Encoder
from xmodal.encoders.load import load_encoder
from xmodal.errors import ConfigError, ServerFailure
from xmodal_opensearch.index.capabilities import Capabilities
from xmodal_opensearch.rest.models import check_plugins
from xmodal_opensearch.rest.service_probe import probe_service

Run = Callable[..., Any]
PIPELINES = ["ingest", "text-to-image", "image-to-text", "text-to-text", "image-to-image", "neural"]


@pytest.fixture
def uri(ml_address: Callable[..., str], opensearch_cli: Run, model: Path) -> Iterator[str]:
    """The address of a new empty index for ``model``, disconnected at the end."""
    new = ml_address()
    assert opensearch_cli("create", new, "--model", model).status == 0
    yield new
    assert opensearch_cli("disconnect", new).status == 0


def error_of(run: Run, *arguments: object) -> str:
    """Run a command that must fail with a usage error, and return its message."""
    result = run(*arguments)
    assert (result.status, result.out) == (2, ""), result
    assert result.err.startswith("xmodal: ") and "Traceback" not in result.err
    return str(result.err)


# ---- cluster settings --------------------------------------------------------------------------


def forbid(ml: Server) -> dict[str, Any]:
    """Reset all settings of ml-commons, disable remote models, and return the settings."""
    off = {"plugins.ml_commons.remote_inference.enabled": False}
    ml("PUT", "_cluster/settings", {"persistent": {"plugins.ml_commons.*": None}})
    ml("PUT", "_cluster/settings", {"persistent": off})
    settings: dict[str, Any] = ml("GET", "_cluster/settings")
    return settings


def test_missing_settings_are_listed_with_a_curl_command_that_sets_them(
    ml: Server, uri: str, service_url: str, opensearch_cli: Run, tmp_path: Path
) -> None:
    settings = forbid(ml)
    try:
        before = cluster_state(ml)
        lines = error_of(opensearch_cli, "connect", uri, "--service", service_url).splitlines()
        assert f"{service_url}/v1/embed" in lines[0]
        assert [line.split(":")[0] for line in lines[1:4]] == [
            "  plugins.ml_commons.remote_inference.enabled",
            "  plugins.ml_commons.connector.private_ip_enabled",
            "  plugins.ml_commons.trusted_connector_endpoints_regex",
        ]
        assert cluster_state(ml) == before
        assert ml("GET", "_cluster/settings") == settings
        assert curl(lines[-1], tmp_path)["acknowledged"]
        assert changes(connect(opensearch_cli, uri, service_url)) == {"created"}
        assert "openai" in json.dumps(
            ml("GET", "_cluster/settings")
        )  # the default value is extended
    finally:
        allow(ml)


def test_allow_changes_missing_settings(
    ml: Server, uri: str, service_url: str, opensearch_cli: Run
) -> None:
    forbid(ml)
    try:
        first = opensearch_cli("connect", uri, "--service", service_url, "--allow")
        assert first.status == 0
        assert "plugins.ml_commons.remote_inference" in first.err
        again = opensearch_cli("connect", uri, "--service", service_url, "--allow")
        assert (again.status, again.err) == (0, "")
    finally:
        allow(ml)


# ---- created, repeated, removed ----------------------------------------------------------------


def test_connect_repeated_changes_nothing(
    ml: Server, uri: str, service_url: str, opensearch_cli: Run, encoder: Encoder
) -> None:
    before = cluster_state(ml)
    first = connect(opensearch_cli, uri, service_url)
    assert changes(first) == {"created"} and first["encoder"] == encoder.fingerprint
    assert [step["what"] for step in first["steps"][:2]] == ["connector", "model"]
    stem = f"xmodal-{alias(uri)}"
    assert [step["name"] for step in first["steps"][2:]] == [f"{stem}-{end}" for end in PIPELINES]
    after = cluster_state(ml)
    assert {kind: len(after[kind]) - len(before[kind]) for kind in after} == {
        "ingest": 1,
        "search": 5,
        "connectors": 1,
        "models": 1,
        "model_groups": 1,
        "defaults": 0,
    }
    again = connect(opensearch_cli, uri, service_url)
    assert changes(again) == {"unchanged"} and again["try"] == first["try"]
    assert cluster_state(ml) == after


def test_disconnect_removes_only_what_connect_created(
    ml: Server, uri: str, service_url: str, opensearch_cli: Run
) -> None:
    stem, body = f"xmodal-{alias(uri)}", {"processors": [{"set": {"field": "a", "value": 1}}]}
    ml("PUT", f"_ingest/pipeline/{stem}-user", {"description": "user's", **body})
    ml("PUT", f"{alias(uri)}-user", {"settings": {"index.default_pipeline": f"{stem}-user"}})
    ml("PUT", f"{alias(uri)}-both", {})
    other = connect(opensearch_cli, uri, service_url, "--name", "other")
    before = cluster_state(ml)
    report = connect(opensearch_cli, uri, service_url, "--make-default")
    assert report["steps"][-1]["what"] == "default pipeline of"
    both = {
        "index.default_pipeline": pipeline_name(report, "ingest"),
        "index.search.default_pipeline": pipeline_name(report, "neural"),
    }
    ml("PUT", f"{alias(uri)}-both/_settings", both)
    with recorded_permissions() as needed:
        removed = opensearch_cli("disconnect", uri, "--json")
    assert changes(json.loads(removed.out)) == {"removed"}
    assert needed <= granted("disconnect")
    assert cluster_state(ml) == before
    ml("PUT", f"{alias(uri)}-both/_doc/1", {"it": "takes documents"})
    again = opensearch_cli("disconnect", uri)
    assert again.status == 0
    assert again.out.startswith(f"{uri}: ") and len(again.out.splitlines()) == 1
    last = json.loads(opensearch_cli("disconnect", uri, "--name", "other", "--json").out)
    assert len(last["steps"]) == len(other["steps"]) + 1  # and the model group
    ml("DELETE", f"_ingest/pipeline/{stem}-user")


def test_connect_does_not_overwrite_a_pipeline_of_the_user(
    ml: Server, uri: str, service_url: str, opensearch_cli: Run
) -> None:
    name = f"xmodal-{alias(uri)}-text-to-text"
    body = {"description": "user's", "request_processors": []}
    ml("PUT", f"_search/pipeline/{name}", body)
    message = error_of(opensearch_cli, "connect", uri, "--service", service_url)
    assert f"search pipeline {name} " in message and "--name" in message
    assert opensearch_cli("disconnect", uri).status == 0
    assert ml("GET", f"_search/pipeline/{name}") == {name: body}
    ml("DELETE", f"_search/pipeline/{name}")


def test_connect_does_not_replace_a_default_pipeline_of_the_user(
    ml: Server, uri: str, service_url: str, opensearch_cli: Run
) -> None:
    before = cluster_state(ml)
    ml("PUT", f"{alias(uri)}/_settings", {"index.default_pipeline": "users"})
    message = error_of(opensearch_cli, "connect", uri, "--service", service_url, "--make-default")
    assert "default pipeline users: omit --make-default" in message
    ml("PUT", f"{alias(uri)}/_settings", {"index.default_pipeline": None})
    assert cluster_state(ml) == before


# ---- killed ------------------------------------------------------------------------------------


def test_killed_commands_are_completed_by_repeating(
    ml: Server, uri: str, service_url: str, opensearch_cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = cluster_state(ml)
    kills = []
    for command, min_kills in (
        (("connect", uri, "--service", service_url, "--make-default"), 10),
        (("disconnect", uri), 10),
    ):
        count = 0
        while True:
            with monkeypatch.context() as patch:
                kill_after_each_change(patch)
                try:
                    result = opensearch_cli(*command)
                    break
                except Killed as kill:
                    count += 1
                    kills.append(str(kill))
                    assert count < 30, kills
        assert result.status == 0 and count >= min_kills, kills
        if command[0] == "connect":
            assert changes(connect(opensearch_cli, uri, service_url, "--make-default")) == {
                "unchanged"
            }
            after = cluster_state(ml)
            for kind, more in (("connectors", 1), ("models", 1), ("ingest", 1), ("search", 5)):
                assert len(after[kind]) == len(before[kind]) + more
    assert cluster_state(ml) == before


# ---- changed -----------------------------------------------------------------------------------


def test_connect_updates_the_address_of_the_service(
    ml: Server, uri: str, service_url: str, opensearch_cli: Run
) -> None:
    with recorded_permissions() as needed, Endpoint(proxy(service_url)) as moved:
        connect(opensearch_cli, uri, service_url)
        report = connect(opensearch_cli, uri, f"http://127.0.0.1:{moved.port}")
        assert needed <= granted("connect-service")
        assert [step["done"] for step in report["steps"][:2]] == ["updated", "unchanged"]
        assert {step["done"] for step in report["steps"][2:]} == {"unchanged"}
        before = len(moved.requests)
        name = pipeline_name(report, "text-to-image")
        body = {"query": {"match": {"text": "a red circle"}}}
        ml("POST", f"{alias(uri)}/_search?search_pipeline={name}", body)
        assert [one.path for one in moved.requests[before:]] == ["/v1/embed"]
        headers = moved.requests[-1].headers
        assert headers["content-type"] == "application/json" and "authorization" not in headers


def test_a_token_is_sent_and_never_printed(
    ml: Server, uri: str, service_url: str, opensearch_cli: Run, tmp_path: Path
) -> None:
    tokens, file = ["a-first-secret-token"], tmp_path / "token"

    def require_token(request: Request, reply: Reply) -> Reply:
        valid = request.headers.get("authorization") == f"Bearer {tokens[-1]}"
        health = request.path.startswith("/health/")
        return reply if valid or health else Reply(401, {"detail": "no valid token"})

    with Endpoint(proxy(service_url, require_token)) as service:
        url = f"http://127.0.0.1:{service.port}"
        message = error_of(opensearch_cli, "connect", uri, "--service", url)
        assert "401 (no valid token)" in message and "--token-file" in message
        file.write_text("two words")
        arguments = ("connect", uri, "--service", url, "--token-file", file)
        assert "holds no token" in error_of(opensearch_cli, *arguments)
        for token, change in ((tokens[0], "created"), ("a-second-secret-token", "updated")):
            tokens.append(token)
            file.write_text(token + "\n")
            result = opensearch_cli(*arguments, "--json")
            assert result.status == 0, result.err
            connector = json.loads(result.out)["steps"][0]
            assert connector["done"] == change
            assert token not in result.out + result.err + json.dumps(cluster_state(ml))
            stored = ml("GET", f"_plugins/_ml/connectors/{connector['id']}")
            assert token not in json.dumps(stored)
            again = connect(opensearch_cli, uri, url, "--token-file", file)
            assert changes(again) == {"unchanged"}


def test_from_here_is_another_address_of_the_same_service(
    uri: str, service_url: str, opensearch_cli: Run, encoder: Encoder
) -> None:
    with Endpoint(proxy(service_url)) as inside:
        report = connect(
            opensearch_cli, uri, f"http://127.0.0.1:{inside.port}", "--from-here", service_url
        )
        assert [one.path for one in inside.requests] == ["/v1/embed"]  # from the cluster only
    assert report["service"].endswith(str(inside.port))
    message = error_of(opensearch_cli, "connect", uri, "--service", report["service"],
                       "--from-here", service_url)  # fmt: skip
    assert f"calling {report['service']}/v1/embed" in message


# ---- refused connections -----------------------------------------------------------------------


def test_connect_refuses_a_service_of_another_encoder(
    ml: Server, ml_address: Callable[..., str], other_model: Path, service_url: str,
    opensearch_cli: Run, encoder: Encoder,
) -> None:  # fmt: skip
    before = cluster_state(ml)
    uri, other_width, missing = ml_address(), ml_address(), ml_address()
    assert opensearch_cli("create", uri, "--model", other_model).status == 0
    message = error_of(opensearch_cli, "connect", uri, "--service", service_url)
    assert load_encoder(other_model).fingerprint in message and encoder.fingerprint in message
    assert opensearch_cli("create", other_width, "--bits", 64).status == 0
    message = error_of(opensearch_cli, "connect", other_width, "--service", service_url)
    assert "64 bits" in message and "32" in message
    message = error_of(opensearch_cli, "connect", missing, "--service", service_url)
    assert f"xmodal index DATA --model M --index {missing}" in message
    assert cluster_state(ml) == before


def test_connect_stores_a_missing_fingerprint_in_the_index(
    ml: Server, ml_address: Callable[..., str], service_url: str, opensearch_cli: Run,
    encoder: Encoder,
) -> None:  # fmt: skip
    uri = ml_address()
    assert opensearch_cli("create", uri, "--bits", encoder.bits).status == 0
    connect(opensearch_cli, uri, service_url)
    ((_, content),) = ml("GET", f"{alias(uri)}/_mapping").items()
    assert content["mappings"]["_meta"]["xmodal"]["encoder"] == encoder.fingerprint
    ml("DELETE", f"{alias(uri)}-*")
    removed = opensearch_cli("disconnect", uri, "--json")  # although the index is deleted
    assert removed.status == 0 and len(json.loads(removed.out)["steps"]) == 9


def test_connect_refuses_an_index_of_64_bit_words(
    ml_address: Callable[..., str], service_url: str, opensearch_cli: Run, model: Path
) -> None:
    uri = ml_address(strategy="long")
    assert opensearch_cli("create", uri, "--model", model).status == 0
    assert "64-bit words" in error_of(opensearch_cli, "connect", uri, "--service", service_url)


def test_pipelines_reject_codes_after_the_service_changed_its_model(
    ml: Server, uri: str, service_url: str, opensearch_cli: Run, encoder: Encoder
) -> None:
    models = [encoder.fingerprint]

    def change_model(request: Request, reply: Reply) -> Reply:
        return Reply(reply.status, str(reply.body).replace(encoder.fingerprint, models[-1]))

    with Endpoint(proxy(service_url, change_model)) as service:
        report = connect(opensearch_cli, uri, f"http://127.0.0.1:{service.port}")
        models.append("0123456789abcdef")
        search = f"_search?search_pipeline={pipeline_name(report, 'text-to-image')}"
        for path, body in (
            (f"_doc/1?pipeline={pipeline_name(report, 'ingest')}", {"text": "a red circle"}),
            (search, {"query": {"match": {"text": "a red circle"}}}),
        ):
            with pytest.raises(Refused) as failure:
                ml("POST", f"{alias(uri)}/{path}", body)
            assert "model 0123456789abcdef" in str(failure.value)
    with pytest.raises(Refused, match="404"):
        ml("GET", f"{alias(uri)}/_doc/1")


def test_check_plugins_requires_ml_commons_and_2_19() -> None:
    check_plugins(Capabilities((2, 19), frozenset({"opensearch-ml"}), True), "server")
    check_plugins(Capabilities((3, 6), None, True), "server")
    with pytest.raises(ConfigError, match=r"server has no plugin opensearch-ml"):
        check_plugins(Capabilities((3, 6), frozenset({"opensearch-knn"}), True), "server")
    with pytest.raises(ConfigError, match=r"2\.18, expected 2\.19"):
        check_plugins(Capabilities((2, 18), None, True), "server")


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (Reply(200, "hello"), "answered 'hello', expected a service"),
        (Reply(200, {"bits": 64}), "expected a service"),
        (Reply(200, {"bits": 16, "encoder": "a", "text_code": [1]}), "expected a service"),
        (Reply(503, {"title": "not ready"}), r"/health/ready answered 503 \(not ready\)"),
        (Reply(404, "x"), r"/health/ready answered 404$"),
    ],
)
def test_probe_service_rejects_other_answers(reply: Reply, words: str) -> None:
    with Endpoint(lambda request: reply) as service:
        with pytest.raises(ServerFailure, match=words):
            probe_service(f"http://127.0.0.1:{service.port}")
    with pytest.raises(ServerFailure, match=f"no service answers at .*:{service.port}"):
        probe_service(f"http://127.0.0.1:{service.port}")
