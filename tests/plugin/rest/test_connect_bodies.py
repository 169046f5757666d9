"""What connect sends and prints: the bodies, the marks, the settings that lack, the curl lines."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from xmodal.codes import BinaryCodes
from xmodal.errors import ConfigError
from xmodal_opensearch.client.address import parse_address
from xmodal_opensearch.index import queries
from xmodal_opensearch.index.mapping import LAYOUTS, self_test_code
from xmodal_opensearch.index.ownership import OwnershipTag, read_tag
from xmodal_opensearch.rest import cluster_settings, pipelines
from xmodal_opensearch.rest.curl import Curl, examples
from xmodal_opensearch.rest.pipelines import Wiring, finding, is_as_wanted
from xmodal_opensearch.rest.service_probe import check_url

MARK = OwnershipTag("xmodal", "photos", "f37")
TOLD = "made by xmodal-opensearch connect (name xmodal, index photos, encoder f37)"
FINDS: Mapping[Any, Any] = {
    "image": {"match": {"a": "@code@"}},
    "text": {"match": {"it's \\": "@code@"}},
}
WIRING = Wiring(MARK, "http://10.0.0.5:8000", FINDS)


# ---- bodies ----------------------------------------------------------------------------------


def test_the_connector() -> None:
    body = pipelines.connector(WIRING)
    (action,) = body.pop("actions")
    script = action.pop("post_process_function")
    assert body == {
        "name": "xmodal-photos",
        "description": TOLD,
        "version": "1",
        "protocol": "http",
        "parameters": {},
        "client_config": pipelines.CLIENT,
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
    # JSON within a string of Painless: its own backslashes and quotes are escaped once more.
    assert """'text': '{"match": {"it\\'s \\\\\\\\": "@code@"}}'""" in script
    assert """'image': '{"match": {"a": "@code@"}}'""" in script
    assert "params.encoder != 'f37'" in script
    assert '"order":[{"_score": "desc"}, {"xmodal.id":' in script
    assert not [one for one in ("@encoder@", "@index@", "@order@", "@fields@") if one in script]


def test_a_token_stands_in_the_credential_alone() -> None:
    wiring = Wiring(MARK, "http://10.0.0.5:8000", FINDS, with_token=True)
    body = pipelines.connector(wiring, "s3cret-of-many-letters")
    assert body.pop("credential") == {"token": "s3cret-of-many-letters"}
    assert body["actions"][0]["headers"]["authorization"] == "Bearer ${credential.token}"
    assert "s3cret" not in json.dumps(body)


def test_the_ingest_pipeline() -> None:
    body = pipelines.ingest(WIRING, "m1")
    before, ask, after = body["processors"]
    fields = [
        {"path": ["text"], "input": "inputText", "code": "text_code"},
        {"path": ["image_base64"], "input": "inputImage", "code": "image_code"},
    ]
    assert body["description"] == TOLD
    assert before["script"]["params"] == {
        "fields": fields,
        "self_test": "xmodal-self-test",
        "self_test_field": "self_test_code",
    }
    assert ask == {
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


def test_the_ingest_pipeline_of_somebodys_own_documents_that_keeps_failures() -> None:
    wiring = Wiring(MARK, "https://s", FINDS, text_field="a.title", added=True, keep=True)
    before, ask, _ = pipelines.ingest(wiring, "m1")["processors"]
    assert before["script"]["params"]["encoder"] == "f37"
    assert before["script"]["params"]["fields"][0]["path"] == ["a", "title"]
    reason, _, again = ask["ml_inference"]["on_failure"]
    assert reason["set"] == {
        "field": "xmodal.problem",
        "value": "{{{_ingest.on_failure_message}}}",
    }
    assert again["ml_inference"]["ignore_failure"] and "on_failure" not in again["ml_inference"]


def test_the_search_pipelines() -> None:
    made = pipelines.pipelines(WIRING, "m1", neural=True)
    assert list(made) == [
        "/_ingest/pipeline/xmodal-photos-ingest",
        "/_search/pipeline/xmodal-photos-text-to-image",
        "/_search/pipeline/xmodal-photos-image-to-text",
        "/_search/pipeline/xmodal-photos-text-to-text",
        "/_search/pipeline/xmodal-photos-image-to-image",
        "/_search/pipeline/xmodal-photos-neural",
    ]
    assert len(pipelines.pipelines(WIRING, "m1", neural=False)) == 5
    assert made["/_search/pipeline/xmodal-photos-image-to-text"] == {
        "description": TOLD,
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
    assert made["/_search/pipeline/xmodal-photos-neural"]["request_processors"] == [
        {"neural_query_enricher": {"default_model_id": "m1"}}
    ]


@pytest.mark.parametrize("build", [queries.by_script, queries.by_hamming])
def test_a_search_asks_what_our_own_searches_ask(build: Any) -> None:
    """With numbers for the placeholder it is the query that the builder makes for that code."""
    other = BinaryCodes.from_hex(["00ff80017e"])
    template = finding(
        build("image_code", self_test_code(40), LAYOUTS["faiss"], [], None), self_test_code(40)
    )
    filled = json.dumps(template).replace('"@code@"', json.dumps(other.to_signed()[0]))
    wanted = build("image_code", other, LAYOUTS["faiss"], [], None)
    if build is queries.by_hamming:  # it takes numbers as well as hex
        wanted["hamming"]["code"] = other.to_signed()[0]
    assert json.loads(filled) == wanted and "@code@" in json.dumps(template)


# ---- marks, names, comparison ------------------------------------------------------------------


def test_a_mark_is_read_back_and_nothing_else_is_one() -> None:
    assert str(MARK) == TOLD and read_tag(TOLD) == MARK
    for other in (None, "", "made by me", TOLD + " too", TOLD.replace("photos", "two words")):
        assert read_tag(other) is None
    assert MARK.fits(OwnershipTag("xmodal", "photos", "another"))
    assert not MARK.fits(OwnershipTag("xmodal", "shoes", "f37")) and not MARK.fits(None)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"mark": OwnershipTag("My Name", "photos", "f37")}, "the name 'My Name' cannot name"),
        ({"mark": OwnershipTag("xmodal", "phötos", "f37")}, "the index 'phötos' cannot name"),
        ({"text_field": "image_base64"}, "text and picture cannot both be in field"),
        ({"text_field": "image_code"}, "'image_code' cannot be a field of text"),
        ({"image_field": "xmodal.picture"}, "'xmodal.picture' cannot be a field"),
        ({"image_field": "a..b"}, "'a..b' cannot be a field"),
        ({"image_field": "it's"}, "cannot be a field"),
    ],
)
def test_names_that_cannot_be(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Wiring(**({"mark": MARK, "service": "https://s", "finds": FINDS} | change))


def test_what_a_server_tells_is_compared_with_what_is_wanted() -> None:
    wanted = pipelines.connector(WIRING)
    told = json.loads(json.dumps(wanted))
    del told["credential"]  # it is never told
    told["created_time"] = 3
    told["client_config"]["skip_ssl_verification"] = False
    assert is_as_wanted(told, wanted)
    for change in ({"description": "x"}, {"actions": []}, {"client_config": None}):
        assert not is_as_wanted(told | change, wanted)
    told["actions"][0]["url"] = "http://10.0.0.5:8000/V1/embed"
    assert not is_as_wanted(told, wanted)


# ---- cluster settings --------------------------------------------------------------------------

URL = "http://10.0.0.5:8000/v1/embed"
CLOSED = {
    cluster_settings.PRIVATE: "false",
    cluster_settings.TRUSTED: ["^https://api\\.openai\\.com/.*$"],
}


def test_what_lacks_and_the_change_that_mends_it() -> None:
    lacks = cluster_settings.lacking(CLOSED, URL, private=True)
    change = cluster_settings.change(lacks)
    assert change == {
        "persistent": {
            cluster_settings.PRIVATE: True,
            cluster_settings.TRUSTED: [
                *CLOSED[cluster_settings.TRUSTED],
                "^http://10\\.0\\.0\\.5:8000/.*$",
            ],
        }
    }
    assert cluster_settings.lacking(change["persistent"], URL, private=True) == []
    assert [one.setting for one in cluster_settings.lacking(CLOSED, URL, private=False)] == [
        cluster_settings.TRUSTED
    ]
    off = cluster_settings.lacking({cluster_settings.REMOTE: "false"}, URL, private=True)
    assert [one.setting for one in off] == [cluster_settings.REMOTE]
    assert cluster_settings.lacking({cluster_settings.TRUSTED: ["(?U)^.*"]}, URL, private=False)
    told = cluster_settings.explained(lacks, URL, "curl ...").splitlines()
    assert [line.split(":")[0].strip() for line in told[1:3]] == list(change["persistent"])
    assert told[-1] == "curl ..."


def test_the_setting_that_holds() -> None:
    answer = {"defaults": {"a": 1, "b": 1, "c": 1}, "persistent": {"b": 2, "c": 2}}
    assert cluster_settings.effective(answer | {"transient": {"c": 3}}) == {"a": 1, "b": 2, "c": 3}


@pytest.mark.parametrize(
    ("url", "regex"),
    [
        ("https://e.example.org/v1/embed", "^https://e\\.example\\.org/.*$"),
        ("http://[::1]:80/v1/embed", "^http://\\[::1\\]:80/.*$"),
    ],
)
def test_the_pattern_of_a_service(url: str, regex: str) -> None:
    assert cluster_settings.pattern(url) == regex
    assert cluster_settings.lacking({cluster_settings.TRUSTED: [regex]}, url, private=False) == []


# ---- curl lines --------------------------------------------------------------------------------


def test_curl_lines_name_what_holds_the_secrets(tmp_path: Path) -> None:
    ca = tmp_path / "an authority.pem"
    ca.touch()
    address = parse_address(f"opensearch://a.example.org:9200,b:9200/photos?ca={ca}")
    secret = {"XMODAL_OPENSEARCH_USER": "anna", "XMODAL_OPENSEARCH_PASSWORD": "s3cret"}
    line = Curl(address, secret).line("GET", "/x")
    assert line == (
        f"curl -sS --cacert '{ca}' "
        '-u "$XMODAL_OPENSEARCH_USER:$XMODAL_OPENSEARCH_PASSWORD" https://a.example.org:9200/x'
    )
    line = Curl(address, {"XMODAL_OPENSEARCH_USER": "anna"}).line("DELETE", "/x?a=b&c=d")
    assert '"$XMODAL_OPENSEARCH_USER:$(cat "$XMODAL_OPENSEARCH_PASSWORD_FILE")"' in line
    assert line.startswith("curl -sS -X DELETE ") and line.endswith("9200/x?a=b&c=d'")
    aws = Curl(parse_address("opensearch://x/photos?aws=eu-west-1"), secret).line("GET", "/")
    assert "--aws-sigv4 aws:amz:eu-west-1:es" in aws and "XMODAL" not in aws


def test_a_shell_sends_what_was_meant(tmp_path: Path) -> None:
    (tmp_path / "picture.jpg").write_bytes(bytes(range(256)) * 1000)  # longer than an argument
    curl = Curl(parse_address("opensearch://localhost:9200/photos"), {})
    body = {"it's": 'a "red"\n$HOME `x` \\ %s ü', "picture": "HERE"}
    line = curl.with_picture("PUT", "/x", body, "HERE")
    shown = line.replace("| curl", "| cat #", 1)
    done = subprocess.run(["bash", "-c", shown], cwd=tmp_path, capture_output=True, check=True)
    sent = json.loads(done.stdout)
    assert sent["it's"] == body["it's"]
    assert len(sent["picture"]) == 4 * -(-256_000 // 3)
    plain = curl.line("POST", "/x", body).replace("curl", "printf '<%s>'", 1)
    done = subprocess.run(["bash", "-c", plain], capture_output=True, text=True, check=True)
    assert done.stdout.split("<")[-1] == json.dumps(body, ensure_ascii=False) + ">"


def test_examples_follow_what_was_made() -> None:
    curl = Curl(parse_address("opensearch://localhost:9200/photos"), {})
    wiring = Wiring(MARK, "https://s", FINDS, text_field="p.title", image_field="p.picture")
    lines = examples(curl, wiring, neural=False, is_default=True)
    assert len(lines) == 3 and "pipeline=xmodal-photos-ingest" not in lines[0][1]
    assert """'{"p": {"title": "a red circle", "picture": "'""" in lines[0][1]
    assert """{"match": {"p.title": "a red circle"}}""" in lines[1][1]
    lines = examples(curl, WIRING, neural=True, is_default=False)
    assert len(lines) == 4 and "?pipeline=xmodal-photos-ingest&refresh=true" in lines[0][1]


# ---- the service's address ---------------------------------------------------------------------


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
def test_addresses_that_cannot_be(url: str) -> None:
    with pytest.raises(ConfigError, match="expected an address such as http"):
        check_url(url)


def test_an_address_holds_no_user() -> None:
    with pytest.raises(ConfigError, match="by --token-file") as told:
        check_url("http://anna:s3cret@a:8000")
    assert "s3cret" not in str(told.value)
    assert check_url("https://a.example.org/encoder/") == "https://a.example.org/encoder"
