"""connect and disconnect on a real node with ml-commons: laid, repeated, killed, changed, gone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.endpoint import Asked, Endpoint, Reply
from support.hamming_server import Refused, Server
from support.rest_path import (
    alias,
    allow,
    connected,
    curl,
    done,
    everything,
    pipeline,
    service_behind,
)

from xmodal.encoders.encoder import Encoder
from xmodal.encoders.load import load_encoder
from xmodal.errors import ConfigError, ServerFailure
from xmodal_opensearch.client.server import Server as Client
from xmodal_opensearch.index.capabilities import Capabilities
from xmodal_opensearch.rest.remote_model import check_plugins
from xmodal_opensearch.rest.service_probe import ask

Run = Callable[..., Any]
PIPELINES = ["ingest", "text-to-image", "image-to-text", "text-to-text", "image-to-image", "neural"]


@pytest.fixture
def uri(ml_address: Callable[..., str], opensearch_cli: Run, model: Path) -> Iterator[str]:
    """A new, empty index for the codes of ``model``; nothing of connect is left of it."""
    new = ml_address()
    assert opensearch_cli("create", new, "--model", model).status == 0
    yield new
    assert opensearch_cli("disconnect", new).status == 0


def refused(run: Run, *arguments: object) -> str:
    """The mistake that a command tells, in one line or, of settings, several."""
    told = run(*arguments)
    assert (told.status, told.out) == (2, ""), told
    assert told.err.startswith("xmodal: ") and "Traceback" not in told.err
    return str(told.err)


# ---- cluster settings --------------------------------------------------------------------------


def forbid(ml: Server) -> dict[str, Any]:
    """A cluster that lets ml-commons call nothing: the settings as they are then."""
    off = {"plugins.ml_commons.remote_inference.enabled": False}
    ml("PUT", "_cluster/settings", {"persistent": {"plugins.ml_commons.*": None}})
    ml("PUT", "_cluster/settings", {"persistent": off})
    settings: dict[str, Any] = ml("GET", "_cluster/settings")
    return settings


def test_settings_that_lack_are_explained_and_the_line_mends_them(
    ml: Server, uri: str, service_url: str, opensearch_cli: Run, tmp_path: Path
) -> None:
    settings = forbid(ml)
    try:
        before = everything(ml)
        told = refused(opensearch_cli, "connect", uri, "--service", service_url).splitlines()
        assert told[0] == (
            f"xmodal: this cluster does not let ml-commons call {service_url}/v1/embed; an "
            "operator has to allow it:"
        )
        assert [line.split(":")[0] for line in told[1:4]] == [
            "  plugins.ml_commons.remote_inference.enabled",
            "  plugins.ml_commons.connector.private_ip_enabled",
            "  plugins.ml_commons.trusted_connector_endpoints_regex",
        ]
        assert everything(ml) == before  # nothing was made, no setting changed
        assert ml("GET", "_cluster/settings") == settings
        assert curl(told[-1], tmp_path)["acknowledged"]
        assert done(connected(opensearch_cli, uri, service_url)) == {"created"}
        assert "openai" in json.dumps(ml("GET", "_cluster/settings"))  # what was trusted still is
    finally:
        allow(ml)


def test_allow_changes_them(ml: Server, uri: str, service_url: str, opensearch_cli: Run) -> None:
    forbid(ml)
    try:
        told = opensearch_cli("connect", uri, "--service", service_url, "--allow")
        assert told.status == 0
        assert told.err.startswith("changed cluster settings: plugins.ml_commons.remote_inference")
        again = opensearch_cli("connect", uri, "--service", service_url, "--allow")
        assert (again.status, again.err) == (0, "")
    finally:
        allow(ml)


# ---- laid, laid again, removed -----------------------------------------------------------------


def test_a_second_run_changes_nothing(
    ml: Server, uri: str, service_url: str, opensearch_cli: Run, encoder: Encoder
) -> None:
    before = everything(ml)
    first = connected(opensearch_cli, uri, service_url)
    assert done(first) == {"created"} and first["encoder"] == encoder.fingerprint
    assert [step["what"] for step in first["steps"][:2]] == ["connector", "model"]
    stem = f"xmodal-{alias(uri)}"
    assert [step["name"] for step in first["steps"][2:]] == [f"{stem}-{end}" for end in PIPELINES]
    made = everything(ml)
    assert {kind: len(made[kind]) - len(before[kind]) for kind in made} == {
        "ingest": 1,
        "search": 5,
        "connectors": 1,
        "models": 1,
        "model_groups": 1,
        "defaults": 0,
    }
    again = connected(opensearch_cli, uri, service_url)
    assert done(again) == {"unchanged"} and again["try"] == first["try"]
    assert everything(ml) == made


def test_disconnect_takes_what_is_ours_and_leaves_the_rest(
    ml: Server, uri: str, service_url: str, opensearch_cli: Run
) -> None:
    stem, mine = f"xmodal-{alias(uri)}", {"processors": [{"set": {"field": "a", "value": 1}}]}
    ml("PUT", f"_ingest/pipeline/{stem}-mine", {"description": "mine", **mine})
    ml("PUT", f"{alias(uri)}-mine", {"settings": {"index.default_pipeline": f"{stem}-mine"}})
    ml("PUT", f"{alias(uri)}-both", {})
    other = connected(opensearch_cli, uri, service_url, "--name", "other")
    left = everything(ml)
    told = connected(opensearch_cli, uri, service_url, "--make-default")
    assert told["steps"][-1]["what"] == "default pipeline of"
    both = {
        "index.default_pipeline": pipeline(told, "ingest"),
        "index.search.default_pipeline": pipeline(told, "neural"),
    }
    ml("PUT", f"{alias(uri)}-both/_settings", both)
    gone = opensearch_cli("disconnect", uri, "--json")
    assert done(json.loads(gone.out)) == {"removed"}
    assert everything(ml) == left
    ml("PUT", f"{alias(uri)}-both/_doc/1", {"it": "takes documents"})
    again = opensearch_cli("disconnect", uri)
    assert again.status == 0
    assert again.out == f"{uri}: nothing of connect --name xmodal is there\n"
    gone = json.loads(opensearch_cli("disconnect", uri, "--name", "other", "--json").out)
    assert len(gone["steps"]) == len(other["steps"]) + 1  # and the model's group
    ml("DELETE", f"_ingest/pipeline/{stem}-mine")


def test_a_pipeline_of_somebody_elses_is_not_overwritten(
    ml: Server, uri: str, service_url: str, opensearch_cli: Run
) -> None:
    name = f"xmodal-{alias(uri)}-text-to-text"
    mine = {"description": "mine", "request_processors": []}
    ml("PUT", f"_search/pipeline/{name}", mine)
    told = refused(opensearch_cli, "connect", uri, "--service", service_url)
    assert f"has search pipeline {name}, which connect did not make: give another --name" in told
    assert opensearch_cli("disconnect", uri).status == 0
    assert ml("GET", f"_search/pipeline/{name}") == {name: mine}
    ml("DELETE", f"_search/pipeline/{name}")


def test_a_default_pipeline_of_somebody_elses_is_not_replaced(
    ml: Server, uri: str, service_url: str, opensearch_cli: Run
) -> None:
    before = everything(ml)
    ml("PUT", f"{alias(uri)}/_settings", {"index.default_pipeline": "mine"})
    told = refused(opensearch_cli, "connect", uri, "--service", service_url, "--make-default")
    assert "has default pipeline mine already: leave --make-default out" in told
    ml("PUT", f"{alias(uri)}/_settings", {"index.default_pipeline": None})
    assert everything(ml) == before


# ---- killed ------------------------------------------------------------------------------------


class Killed(BaseException):
    """What a process that is killed would do: nothing more."""


def dying(patch: pytest.MonkeyPatch) -> None:
    """Every process ends as soon as the server has done one thing, before it hears of it."""
    request = Client.request

    def once(self: Client, method: str, path: str, *arguments: Any, **more: Any) -> Any:
        answer = request(self, method, path, *arguments, **more)
        if method != "GET" and not path.endswith(("_search", "_count", "_predict")):
            raise Killed(f"{method} {path}")
        return answer

    patch.setattr(Client, "request", once)


def test_killed_after_every_change_it_is_completed_by_repeating(
    ml: Server, uri: str, service_url: str, opensearch_cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = everything(ml)
    kills = []
    for command, least in (
        (("connect", uri, "--service", service_url, "--make-default"), 10),
        (("disconnect", uri), 10),
    ):
        count = 0
        while True:
            with monkeypatch.context() as patch:
                dying(patch)
                try:
                    told = opensearch_cli(*command)
                    break
                except Killed as kill:
                    count += 1
                    kills.append(str(kill))
                    assert count < 30, kills
        assert told.status == 0 and count >= least, kills
        if command[0] == "connect":
            assert done(connected(opensearch_cli, uri, service_url, "--make-default")) == {
                "unchanged"
            }
            made = everything(ml)
            for kind, more in (("connectors", 1), ("models", 1), ("ingest", 1), ("search", 5)):
                assert len(made[kind]) == len(before[kind]) + more
    assert everything(ml) == before


# ---- changed -----------------------------------------------------------------------------------


def test_a_service_that_moved(ml: Server, uri: str, service_url: str, opensearch_cli: Run) -> None:
    connected(opensearch_cli, uri, service_url)
    with Endpoint(service_behind(service_url)) as moved:
        told = connected(opensearch_cli, uri, f"http://127.0.0.1:{moved.port}")
        assert [step["done"] for step in told["steps"][:2]] == ["updated", "unchanged"]
        assert {step["done"] for step in told["steps"][2:]} == {"unchanged"}
        asked = len(moved.asked)
        name = pipeline(told, "text-to-image")
        body = {"query": {"match": {"text": "a red circle"}}}
        ml("POST", f"{alias(uri)}/_search?search_pipeline={name}", body)
        assert [one.path for one in moved.asked[asked:]] == ["/v1/embed"]
        head = moved.asked[-1].headers
        assert head["content-type"] == "application/json" and "authorization" not in head


def test_a_token_is_carried_and_never_shown(
    ml: Server, uri: str, service_url: str, opensearch_cli: Run, tmp_path: Path
) -> None:
    wanted, file = ["a-first-secret-token"], tmp_path / "token"

    def guarded(asked: Asked, reply: Reply) -> Reply:
        fits = asked.headers.get("authorization") == f"Bearer {wanted[0]}"
        open_ = asked.path.startswith("/health/")
        return reply if fits or open_ else Reply(401, {"detail": "a token is asked for"})

    with Endpoint(service_behind(service_url, guarded)) as service:
        there = f"http://127.0.0.1:{service.port}"
        told = refused(opensearch_cli, "connect", uri, "--service", there)
        assert told.endswith(
            "401 (a token is asked for): give the service's token by --token-file\n"
        )
        file.write_text("two words")
        arguments = ("connect", uri, "--service", there, "--token-file", file)
        assert "holds no token, expected one line" in refused(opensearch_cli, *arguments)
        for token, done_ in ((wanted[0], "created"), ("a-second-secret-token", "updated")):
            wanted[0] = token
            file.write_text(token + "\n")
            told = opensearch_cli(*arguments, "--json")
            assert told.status == 0, told.err
            connector = json.loads(told.out)["steps"][0]
            assert connector["done"] == done_
            assert token not in told.out + told.err + json.dumps(everything(ml))
            seen = ml("GET", f"_plugins/_ml/connectors/{connector['id']}")
            assert token not in json.dumps(seen)
            assert done(connected(opensearch_cli, uri, there, "--token-file", file)) == {
                "unchanged"
            }


def test_two_ways_to_the_same_service(
    uri: str, service_url: str, opensearch_cli: Run, encoder: Encoder
) -> None:
    """The cluster may know the service by another name than we do, but not another service."""
    with Endpoint(service_behind(service_url)) as inside:
        told = connected(
            opensearch_cli, uri, f"http://127.0.0.1:{inside.port}", "--from-here", service_url
        )
        assert [one.path for one in inside.asked] == ["/v1/embed"]  # by the cluster's trial alone
    assert told["service"].endswith(str(inside.port))
    told = refused(opensearch_cli, "connect", uri, "--service", told["service"],
                   "--from-here", service_url)  # fmt: skip
    assert "which answers us here: does the cluster reach it there?" in told


# ---- what cannot be connected ------------------------------------------------------------------


def test_a_service_of_another_encoder(
    ml: Server, ml_address: Callable[..., str], other_model: Path, service_url: str,
    opensearch_cli: Run, encoder: Encoder,
) -> None:  # fmt: skip
    before = everything(ml)
    uri, narrow, missing = ml_address(), ml_address(), ml_address()
    assert opensearch_cli("create", uri, "--model", other_model).status == 0
    told = refused(opensearch_cli, "connect", uri, "--service", service_url)
    other = load_encoder(other_model).fingerprint
    assert f"was filled by encoder {other}, this is encoder {encoder.fingerprint}" in told
    assert opensearch_cli("create", narrow, "--bits", 64).status == 0
    told = refused(opensearch_cli, "connect", narrow, "--service", service_url)
    assert "holds codes of 64 bits, expected 32" in told
    told = refused(opensearch_cli, "connect", missing, "--service", service_url)
    assert f"xmodal index DATA --model M --index {missing}, or an empty one" in told
    assert everything(ml) == before


def test_an_index_that_remembers_no_encoder_does_from_then_on(
    ml: Server, ml_address: Callable[..., str], service_url: str, opensearch_cli: Run,
    encoder: Encoder,
) -> None:  # fmt: skip
    uri = ml_address()
    assert opensearch_cli("create", uri, "--bits", encoder.bits).status == 0
    connected(opensearch_cli, uri, service_url)
    ((_, content),) = ml("GET", f"{alias(uri)}/_mapping").items()
    assert content["mappings"]["_meta"]["xmodal"]["encoder"] == encoder.fingerprint
    ml("DELETE", f"{alias(uri)}-*")
    gone = opensearch_cli("disconnect", uri, "--json")  # of an index that is no more
    assert gone.status == 0 and len(json.loads(gone.out)["steps"]) == 9


def test_codes_as_words_cannot_be_written_by_ml_commons(
    ml_address: Callable[..., str], service_url: str, opensearch_cli: Run, model: Path
) -> None:
    uri = ml_address(strategy="long")
    assert opensearch_cli("create", uri, "--model", model).status == 0
    told = refused(opensearch_cli, "connect", uri, "--service", service_url)
    assert "keeps its codes as 64-bit words, which ml-commons cannot write" in told


def test_a_service_that_changes_its_model_is_found_out(
    ml: Server, uri: str, service_url: str, opensearch_cli: Run, encoder: Encoder
) -> None:
    models = [encoder.fingerprint]

    def another(asked: Asked, reply: Reply) -> Reply:
        return Reply(reply.status, str(reply.body).replace(encoder.fingerprint, models[-1]))

    with Endpoint(service_behind(service_url, another)) as service:
        told = connected(opensearch_cli, uri, f"http://127.0.0.1:{service.port}")
        models.append("0123456789abcdef")
        search = f"_search?search_pipeline={pipeline(told, 'text-to-image')}"
        for path, body in (
            (f"_doc/1?pipeline={pipeline(told, 'ingest')}", {"text": "a red circle"}),
            (search, {"query": {"match": {"text": "a red circle"}}}),
        ):
            with pytest.raises(Refused) as failure:
                ml("POST", f"{alias(uri)}/{path}", body)
            assert "the service encodes with model 0123456789abcdef" in str(failure.value)
    with pytest.raises(Refused, match="404"):
        ml("GET", f"{alias(uri)}/_doc/1")


def test_a_server_that_cannot() -> None:
    check_plugins(Capabilities((2, 19), frozenset({"opensearch-ml"}), True), "there")
    check_plugins(Capabilities((3, 6), None, True), "there")
    with pytest.raises(ConfigError, match=r"there has no ml-commons .* node --with-ml"):
        check_plugins(Capabilities((3, 6), frozenset({"opensearch-knn"}), True), "there")
    with pytest.raises(ConfigError, match=r"there is OpenSearch 2\.18, expected 2\.19"):
        check_plugins(Capabilities((2, 18), None, True), "there")


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (Reply(200, "hello"), "answers 'hello', expected a service of xmodal serve"),
        (Reply(200, {"bits": 64}), "expected a service of xmodal serve"),
        (Reply(200, {"bits": 16, "encoder": "a", "text_code": [1]}), "expected a service"),
        (Reply(503, {"title": "not ready"}), r"/health/ready answered 503 \(not ready\)"),
        (Reply(404, "x"), r"/health/ready answered 404$"),
    ],
)
def test_something_else_at_the_address(reply: Reply, words: str) -> None:
    with Endpoint(lambda asked: reply) as service:
        with pytest.raises(ServerFailure, match=words):
            ask(f"http://127.0.0.1:{service.port}")
    with pytest.raises(
        ServerFailure, match=r"no service answers at .*: start it with xmodal serve"
    ):
        ask(f"http://127.0.0.1:{service.port}")
