"""Request bodies, ownership tags, missing settings and curl commands of connect."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from xmodal.codes import BinaryCodes
from xmodal.errors import ConfigError
from xmodal.index.query_codes import QueryCodes
from xmodal_opensearch.client.address import parse_address
from xmodal_opensearch.index import queries
from xmodal_opensearch.index.mapping import LAYOUTS, self_test_code
from xmodal_opensearch.index.ownership import OwnershipTag, read_tag
from xmodal_opensearch.rest import cluster_settings, pipelines
from xmodal_opensearch.rest.curl import Curl, examples
from xmodal_opensearch.rest.pipelines import ConnectorConfig, is_up_to_date, query_template
from xmodal_opensearch.rest.service_probe import check_url

TAG = OwnershipTag("xmodal", "photos", "f37")
DESCRIPTION = "made by xmodal-opensearch connect (name xmodal, index photos, encoder f37)"
QUERIES: Mapping[Any, Any] = {
    "image": {"match": {"a": "@code@"}},
    "text": {"match": {"it's \\": "@code@"}},
}
CONFIG = ConnectorConfig(TAG, "http://10.0.0.5:8000", QUERIES)


# ---- bodies ----------------------------------------------------------------------------------


def test_connector_body() -> None:
    body = pipelines.connector_body(CONFIG)
    (action,) = body.pop("actions")
    script = action.pop("post_process_function")
    assert body == {
        "name": "xmodal-photos",
        "description": DESCRIPTION,
        "version": "1",
        "protocol": "http",
        "parameters": {},
        "client_config": pipelines.CLIENT_CONFIG,
        "credential": {"token": "none"},
    }
    assert action == {
        "action_type": "PREDICT",
        "method": "POST",
        "url": "http://10.0.0.5:8000/v1/embed",
        "headers": {"content-type": "application/json"},
        "request_body": '{"inputText": "${parameters.inputText:-null}", '
        '"inputImage": "${parameters.inputImage:-null}"}',
        "pre_process_function": "connector.pre_process.bedrock.multimodal_embedding",
    }
    # JSON in a Painless string: backslashes and single quotes are escaped again.
    assert """'text': '{"match": {"it\\'s \\\\\\\\": "@code@"}}'""" in script
    assert """'image': '{"match": {"a": "@code@"}}'""" in script
    assert "params.encoder != 'f37'" in script
    assert '"order":[{"_score": "desc"}, {"xmodal.id":' in script
    assert not [one for one in ("@encoder@", "@index@", "@order@", "@fields@") if one in script]


def test_connector_body_has_the_token_only_in_the_credential() -> None:
    config = ConnectorConfig(TAG, "http://10.0.0.5:8000", QUERIES, with_token=True)
    body = pipelines.connector_body(config, "s3cret-token")
    assert body.pop("credential") == {"token": "s3cret-token"}
    assert body["actions"][0]["headers"]["authorization"] == "Bearer ${credential.token}"
    assert "s3cret" not in json.dumps(body)


def test_ingest_pipeline() -> None:
    body = pipelines.ingest_pipeline(CONFIG, "m1")
    before, encode, after = body["processors"]
    fields = [
        {"path": ["text"], "input": "inputText", "code": "text_code", "codes": "text_codes"},
        {
            "path": ["image_base64"],
            "input": "inputImage",
            "code": "image_code",
            "codes": "image_codes",
        },
    ]
    assert body["description"] == DESCRIPTION
    assert before["script"]["params"] == {
        "fields": fields,
        "literal": pipelines.LITERAL,
        "self_test": "xmodal-self-test",
        "self_test_field": "self_test_code",
    }
    assert encode == {
        "ml_inference": {
            "tag": "encode",
            "if": "ctx.xmodal?.asked != null",
            "model_id": "m1",
            "input_map": [
                {"inputText": "xmodal.asked.inputText", "inputImage": "xmodal.asked.inputImage"}
            ],
            "output_map": [
                {
                    "xmodal.asked.image_code": "image_code",
                    "xmodal.asked.text_code": "text_code",
                }
            ],
        }
    }
    assert after["script"]["params"] == {"fields": fields, "picture": ["image_base64"]}


def test_ingest_pipeline_of_an_enriched_index_that_keeps_failed_documents() -> None:
    config = ConnectorConfig(
        TAG, "https://s", QUERIES, text_field="a.title", enriched=True, keep_failed=True
    )
    before, encode, _ = pipelines.ingest_pipeline(config, "m1")["processors"]
    assert before["script"]["params"]["encoder"] == "f37"
    assert before["script"]["params"]["fields"][0]["path"] == ["a", "title"]
    reason, _, retry = encode["ml_inference"]["on_failure"]
    assert reason["set"] == {
        "field": "xmodal.problem",
        "value": "{{{_ingest.on_failure_message}}}",
    }
    assert retry["ml_inference"]["ignore_failure"] and "on_failure" not in retry["ml_inference"]


def test_search_pipelines() -> None:
    bodies = pipelines.pipeline_bodies(CONFIG, "m1", neural=True)
    assert list(bodies) == [
        "/_ingest/pipeline/xmodal-photos-ingest",
        "/_search/pipeline/xmodal-photos-text-to-image",
        "/_search/pipeline/xmodal-photos-image-to-text",
        "/_search/pipeline/xmodal-photos-text-to-text",
        "/_search/pipeline/xmodal-photos-image-to-image",
        "/_search/pipeline/xmodal-photos-neural",
    ]
    assert len(pipelines.pipeline_bodies(CONFIG, "m1", neural=False)) == 5
    assert bodies["/_search/pipeline/xmodal-photos-image-to-text"] == {
        "description": DESCRIPTION,
        "request_processors": [
            {
                "ml_inference": {
                    "model_id": "m1",
                    "input_map": [{"inputImage": "$.query.match['image_base64'].query"}],
                    "output_map": [
                        {
                            "query": "image_to_text",
                            "$[?(!@.sort)].sort": "order",
                            "$[?(!@._source)]._source": "fields",
                        }
                    ],
                }
            }
        ],
    }
    assert bodies["/_search/pipeline/xmodal-photos-neural"]["request_processors"] == [
        {"neural_query_enricher": {"default_model_id": "m1"}}
    ]


@pytest.mark.parametrize("build", [queries.by_script, queries.by_hamming])
def test_query_template_is_the_query_of_the_builder(build: Any) -> None:
    other = BinaryCodes.from_hex(["00ff80017e"])
    template = query_template(
        build("image_code", QueryCodes(self_test_code(40)), LAYOUTS["faiss"], [], None),
        self_test_code(40),
    )
    filled = json.dumps(template).replace('"@code@"', json.dumps(other.to_signed()[0]))
    expected = build("image_code", QueryCodes(other), LAYOUTS["faiss"], [], None)
    if build is queries.by_hamming:  # the query accepts signed bytes and hexadecimal
        expected["hamming"]["code"] = other.to_signed()[0]
    assert json.loads(filled) == expected and "@code@" in json.dumps(template)


# ---- ownership tags, names, comparison ---------------------------------------------------------


def test_read_tag_accepts_only_descriptions_of_connect() -> None:
    assert str(TAG) == DESCRIPTION and read_tag(DESCRIPTION) == TAG
    for other in (
        None,
        "",
        "made by me",
        DESCRIPTION + " too",
        DESCRIPTION.replace("photos", "two words"),
    ):
        assert read_tag(other) is None
    assert TAG.matches(OwnershipTag("xmodal", "photos", "another"))
    assert not TAG.matches(OwnershipTag("xmodal", "shoes", "f37")) and not TAG.matches(None)


@pytest.mark.parametrize(
    ("change", "value"),
    [
        ({"tag": OwnershipTag("My Name", "photos", "f37")}, "'My Name'"),
        ({"tag": OwnershipTag("xmodal", "phötos", "f37")}, "'phötos'"),
        ({"text_field": "image_base64"}, "'image_base64'"),
        ({"text_field": "image_code"}, "'image_code'"),
        ({"image_field": "xmodal.picture"}, "'xmodal.picture'"),
        ({"image_field": "a..b"}, "'a..b'"),
        ({"image_field": "it's"}, '"it\'s"'),
    ],
)
def test_connector_config_rejects_invalid_names(change: dict[str, Any], value: str) -> None:
    with pytest.raises(ConfigError, match=value):
        ConnectorConfig(**({"tag": TAG, "service": "https://s", "queries": QUERIES} | change))


def test_is_up_to_date_ignores_credentials_and_added_defaults() -> None:
    expected = pipelines.connector_body(CONFIG)
    found = json.loads(json.dumps(expected))
    del found["credential"]
    found["created_time"] = 3
    found["client_config"]["skip_ssl_verification"] = False
    assert is_up_to_date(found, expected)
    for change in ({"description": "x"}, {"actions": []}, {"client_config": None}):
        assert not is_up_to_date(found | change, expected)
    found["actions"][0]["url"] = "http://10.0.0.5:8000/V1/embed"
    assert not is_up_to_date(found, expected)


# ---- cluster settings --------------------------------------------------------------------------

URL = "http://10.0.0.5:8000/v1/embed"
CLOSED = {
    cluster_settings.PRIVATE_IP: "false",
    cluster_settings.TRUSTED_ENDPOINTS: ["^https://api\\.openai\\.com/.*$"],
}


def test_missing_settings_and_the_body_that_sets_them() -> None:
    missing = cluster_settings.missing_settings(CLOSED, URL, private_ip=True)
    body = cluster_settings.settings_body(missing)
    assert body == {
        "persistent": {
            cluster_settings.PRIVATE_IP: True,
            cluster_settings.TRUSTED_ENDPOINTS: [
                *CLOSED[cluster_settings.TRUSTED_ENDPOINTS],
                "^http://10\\.0\\.0\\.5:8000/.*$",
            ],
        }
    }
    assert cluster_settings.missing_settings(body["persistent"], URL, private_ip=True) == []
    assert [
        one.setting for one in cluster_settings.missing_settings(CLOSED, URL, private_ip=False)
    ] == [cluster_settings.TRUSTED_ENDPOINTS]
    off = cluster_settings.missing_settings(
        {cluster_settings.REMOTE_INFERENCE: "false"}, URL, private_ip=True
    )
    assert [one.setting for one in off] == [cluster_settings.REMOTE_INFERENCE]
    assert cluster_settings.missing_settings(
        {cluster_settings.TRUSTED_ENDPOINTS: ["(?U)^.*"]}, URL, private_ip=False
    )
    lines = cluster_settings.explanation(missing, URL, "curl ...").splitlines()
    assert [line.split(":")[0].strip() for line in lines[1:3]] == list(body["persistent"])
    assert lines[-1] == "curl ..."


def test_effective_settings_prefer_transient_to_persistent_to_defaults() -> None:
    answer = {"defaults": {"a": 1, "b": 1, "c": 1}, "persistent": {"b": 2, "c": 2}}
    assert cluster_settings.effective_settings(answer | {"transient": {"c": 3}}) == {
        "a": 1,
        "b": 2,
        "c": 3,
    }


@pytest.mark.parametrize(
    ("url", "regex"),
    [
        ("https://e.example.org/v1/embed", "^https://e\\.example\\.org/.*$"),
        ("http://[::1]:80/v1/embed", "^http://\\[::1\\]:80/.*$"),
    ],
)
def test_endpoint_pattern_matches_the_service(url: str, regex: str) -> None:
    assert cluster_settings.endpoint_pattern(url) == regex
    assert (
        cluster_settings.missing_settings(
            {cluster_settings.TRUSTED_ENDPOINTS: [regex]}, url, private_ip=False
        )
        == []
    )


# ---- curl commands -----------------------------------------------------------------------------


def test_curl_commands_name_the_environment_variables_of_secrets(tmp_path: Path) -> None:
    ca = tmp_path / "an authority.pem"
    ca.touch()
    address = parse_address(f"opensearch://a.example.org:9200,b:9200/photos?ca={ca}")
    secret = {"XMODAL_OPENSEARCH_USER": "anna", "XMODAL_OPENSEARCH_PASSWORD": "s3cret"}
    command = Curl(address, secret).command("GET", "/x")
    assert command == (
        f"curl -sS --cacert '{ca}' "
        '-u "$XMODAL_OPENSEARCH_USER:$XMODAL_OPENSEARCH_PASSWORD" https://a.example.org:9200/x'
    )
    command = Curl(address, {"XMODAL_OPENSEARCH_USER": "anna"}).command("DELETE", "/x?a=b&c=d")
    assert '"$XMODAL_OPENSEARCH_USER:$(cat "$XMODAL_OPENSEARCH_PASSWORD_FILE")"' in command
    assert command.startswith("curl -sS -X DELETE ") and command.endswith("9200/x?a=b&c=d'")
    aws = Curl(parse_address("opensearch://x/photos?aws=eu-west-1"), secret).command("GET", "/")
    assert "--aws-sigv4 aws:amz:eu-west-1:es" in aws and "XMODAL" not in aws


def test_curl_commands_send_the_body_unchanged(tmp_path: Path) -> None:
    (tmp_path / "picture.jpg").write_bytes(
        bytes(range(256)) * 1000
    )  # more than an argument can hold
    curl = Curl(parse_address("opensearch://localhost:9200/photos"), {})
    body = {"it's": 'a "red"\n$HOME `x` \\ %s ü', "picture": "HERE"}
    command = curl.picture_command("PUT", "/x", body, "HERE")
    printing = command.replace("| curl", "| cat #", 1)
    done = subprocess.run(["bash", "-c", printing], cwd=tmp_path, capture_output=True, check=True)
    sent = json.loads(done.stdout)
    assert sent["it's"] == body["it's"]
    assert len(sent["picture"]) == 4 * -(-256_000 // 3)
    printing = curl.command("POST", "/x", body).replace("curl", "printf '<%s>'", 1)
    done = subprocess.run(["bash", "-c", printing], capture_output=True, text=True, check=True)
    assert done.stdout.split("<")[-1] == json.dumps(body, ensure_ascii=False) + ">"


def test_examples_use_the_names_of_the_config() -> None:
    curl = Curl(parse_address("opensearch://localhost:9200/photos"), {})
    config = ConnectorConfig(
        TAG, "https://s", QUERIES, text_field="p.title", image_field="p.picture"
    )
    commands = examples(curl, config, neural=False, is_default=True)
    assert len(commands) == 3 and "pipeline=xmodal-photos-ingest" not in commands[0][1]
    assert """'{"p": {"title": "a red circle", "picture": "'""" in commands[0][1]
    assert """{"match": {"p.title": "a red circle"}}""" in commands[1][1]
    commands = examples(curl, CONFIG, neural=True, is_default=False)
    assert len(commands) == 4 and "?pipeline=xmodal-photos-ingest&refresh=true" in commands[0][1]


# ---- the address of the service ----------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "10.0.0.5:8000",
        "ftp://a",
        "http://",
        "http://a:x",
        "http://a/?b",
        "http://a#b",
        "http://a b",
    ],
)
def test_check_url_rejects_invalid_addresses(url: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(repr(url))):
        check_url(url)


def test_check_url_rejects_credentials_and_does_not_print_them() -> None:
    with pytest.raises(ConfigError, match="--token-file") as error:
        check_url("http://anna:s3cret@a:8000")
    assert "s3cret" not in str(error.value)
    assert check_url("https://a.example.org/encoder/") == "https://a.example.org/encoder"
