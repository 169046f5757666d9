"""connect --in-cluster: texts stored and found by curl with codes that the node computes."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.hamming_server import Refused, Server
from support.rest_path import alias, changes, curl, run

from xmodal.encoders.onnx_encoder import PortableEncoder
from xmodal.encoders.text_tower import TextTower
from xmodal.export.ml_commons import write_text_tower
from xmodal_opensearch.client.address import parse_address
from xmodal_opensearch.client.server import Server as Client
from xmodal_opensearch.diagnostics.inspection import inspect
from xmodal_opensearch.index.store import open_opensearch

TEXTS = int(os.environ.get("XMODAL_IN_CLUSTER_TEXTS", "60"))
PIECES: tuple[str, ...] = (
    "a",
    "B",
    "ß",
    "я",
    "猫",
    "ก",
    "🦊",
    "א",
    '"',
    "\\",
    "\n",
    "\t",
    "'",
    " ",
    "{",
    "}",
    "[",
)
PIECES += ("\x01", "\x1c", "\x85", "\xa0", "\u3000")
PIECES += ("${code}", "{{text}}", "<b>", "@text@", '{"a": 1}', "${input_map.docs}", "%s", "0")
PIECES += ("$", "${", "${x:-y}", "${input_map.x:-y}", "${parameters.x}", "${model_config.x:-y}")


@pytest.fixture(scope="module")
def uri(ml: Server, ml_address: Callable[..., str], tower: Path) -> Iterator[str]:
    """The address of an index that ``connect --in-cluster`` created."""
    new = ml_address()
    report = json.loads(run("connect", new, "--in-cluster", tower, "--allow", "--json"))
    assert changes(report) == {"created", "updated"}
    yield new
    assert changes(json.loads(run("disconnect", new, "--json"))) == {"removed"}
    assert json.loads(run("disconnect", new, "--json"))["steps"] == []
    with pytest.raises(Refused):
        ml("GET", f"_scripts/xmodal-{alias(new)}-fused")


def put(ml: Server, uri: str, id_: str, document: Any) -> Any:
    """Store a document through the default pipeline and return the stored document."""
    ml("PUT", f"{alias(uri)}/_doc/{id_}?refresh=true", document)
    return ml("GET", f"{alias(uri)}/_doc/{id_}")["_source"]


def search(ml: Server, uri: str, name: str, **params: Any) -> dict[str, float]:
    """Search by a template of ``connect``; return the scores of the hits by id, in order."""
    template = f"xmodal-{alias(uri)}-{name}"
    path = f"{alias(uri)}/_search/template?search_pipeline={template}"
    answer = ml("POST", path, {"id": template, "params": params})
    return {hit["_id"]: hit["_score"] for hit in answer["hits"]["hits"]}


def signed(encoder: PortableEncoder, *texts: str) -> list[list[int]]:
    """Return the codes of texts as signed bytes."""
    return [list(map(int, row)) for row in encoder.encode("text", list(texts)).codes.to_signed()]


def test_random_texts_have_the_codes_of_the_encoder(
    ml: Server, uri: str, bert_encoder: PortableEncoder
) -> None:
    rng = random.Random(TEXTS)
    texts = ["".join(rng.choices(PIECES, k=rng.randint(0, 12))) for _ in range(TEXTS)]
    lines = [
        json.dumps(line)
        for number, text in enumerate(texts)
        for line in ({"index": {"_id": f"r{number}"}}, {"text": text, "group": "random"})
    ]
    answer = ml("POST", f"{alias(uri)}/_bulk?refresh=true", "\n".join(lines) + "\n")
    assert not answer["errors"], answer
    kept = {f"r{number}": text for number, text in enumerate(texts) if text.strip()}
    with open_opensearch(uri) as index:
        ids, codes = index.get([f"r{number}" for number in range(TEXTS)]).codes("text")
    assert list(ids) == list(kept)
    expected = bert_encoder.encode("text", list(kept.values())).codes
    np.testing.assert_array_equal(codes.packed, expected.packed)
    for id_, text in list(kept.items())[:20]:
        found = search(ml, uri, "text-to-text", text=text, filter={"ids": {"values": [id_]}})
        assert found == {id_: 1.0}, text


def test_texts_and_filters_like_templates_are_not_templates(ml: Server, uri: str) -> None:
    for text in ("${code}", 'b "${code}" "${x', "${input_map.docs}", "a ${ml_inference.docs}"):
        put(ml, uri, "t", {"text": text})  # captions are not restricted
        own = {"ids": {"values": ["t"]}}
        both = {"bool": {"filter": [own, {"match": {"text.words": text}}]}}
        assert list(search(ml, uri, "fused", text="a", filter=both)) == ["t"], text
        if "${ml_inference." not in text:
            assert search(ml, uri, "text-to-text", text=text, filter=own) == {"t": 1.0}, text
            assert list(search(ml, uri, "fused", text=text, filter=own)) == ["t"], text


def test_texts_that_cannot_be_encoded_are_refused_with_400(ml: Server, uri: str) -> None:
    path = f"{alias(uri)}/_search?search_pipeline=xmodal-{alias(uri)}-text-to-text"
    queries: list[Any] = ["${ml_inference.docs}", "a ${ml_inference.x:-y}", "$${ml_inference.x}"]
    bodies = [{"ext": {"ml_inference": {"text": text}}} for text in [*queries, None, 1, ["a"], {}]]
    for body in [*bodies, {"ext": {"ml_inference": {}}}, {"size": 1}]:
        with pytest.raises(Refused) as refused:
            ml("POST", path, body)
        assert refused.value.status == 400 and "Empty text docs" in str(refused.value), body


def test_a_list_has_a_code_for_each_text(
    ml: Server, uri: str, bert_encoder: PortableEncoder
) -> None:
    texts = ["a dog", 'a "cat"\n{{x}} ${code}', "a red boat"]
    stored = put(ml, uri, "list", {"text": [texts[0], " ", *texts[1:]]})
    assert [one["code"] for one in stored["text_codes"]] == signed(bert_encoder, *texts)
    assert "text_code" not in stored and stored["xmodal"] == {"id": "list"}
    one = put(ml, uri, "list", {"text": [texts[1]]})
    assert one["text_code"] == signed(bert_encoder, texts[1])[0] and "text_codes" not in one


def test_documents_without_a_text_have_no_code(ml: Server, uri: str) -> None:
    documents: tuple[dict[str, Any], ...] = (
        {},
        {"text": None},
        {"text": ""},
        {"text": " \n"},
        {"text": "\x1f\x85\xa0\u3000"},
        {"text": []},
    )
    for document in documents:
        assert not {"text_code", "text_codes"} & put(ml, uri, "empty", document).keys()
    with pytest.raises(Refused):
        put(ml, uri, "object", {"text": {"a": "b"}})


def test_numbers_updates_and_deletion(ml: Server, uri: str, bert_encoder: PortableEncoder) -> None:
    assert put(ml, uri, "n", {"text": 12})["text_code"] == signed(bert_encoder, "12")[0]
    path = f"{alias(uri)}/_update/n?refresh=true"
    ml("POST", path, {"doc": {"text": "a blue star"}})
    source = ml("GET", f"{alias(uri)}/_doc/n")["_source"]
    assert source["text_code"] == signed(bert_encoder, "a blue star")[0]
    assert "n" in search(ml, uri, "text-to-text", text="a blue star", size=1000)
    ml("DELETE", f"{alias(uri)}/_doc/n?refresh=true")
    assert "n" not in search(ml, uri, "text-to-text", text="a blue star", size=1000)


def test_hits_equal_those_of_the_client_and_are_fused_with_words(
    ml: Server, uri: str, bert_encoder: PortableEncoder
) -> None:
    for id_, text in (("x", "a red circle"), ("y", "a green square"), ("z", "blue stars")):
        put(ml, uri, id_, {"text": text, "group": "shapes"})
    query = bert_encoder.encode("text", ["a green circle"]).codes
    with open_opensearch(uri) as index:
        (expected,) = index.search(query, 2, target="text", where={"group": "shapes"})
    only = {"ids": {"values": ["x", "y", "z"]}}
    found = search(ml, uri, "text-to-text", text="a green circle", size=2, filter=only)
    assert [(id_, round(1 / score - 1)) for id_, score in found.items()] == [
        (hit.id, hit.distance) for hit in expected
    ]
    fused = search(ml, uri, "fused", text="stars", filter=only)
    assert set(fused) == {"x", "y", "z"}
    assert fused["z"] > 1 / 61  # it is the only hit of BM25


def test_printed_commands_work_and_a_second_run_changes_nothing(
    uri: str, tower: Path, tmp_path: Path
) -> None:
    report = json.loads(run("connect", uri, "--in-cluster", tower, "--json"))
    assert changes(report) == {"unchanged"}
    assert "default pipeline of" in {step["what"] for step in report["steps"]}
    for line in report["try"]:
        answer = curl(line["curl"], tmp_path)
        assert answer.get("result") in ("created", "updated") or answer["hits"]["hits"], line


def test_doctor_compares_the_samples(ml: Server, uri: str) -> None:
    address = parse_address(uri)

    def findings() -> list[Any]:
        found = inspect(Client(address), address).findings
        return [one for one in found if one.kind == "text-tower"]

    assert findings() == []
    path = f"_ingest/pipeline/xmodal-{alias(uri)}-ingest"
    (pipeline,) = ml("GET", path).values()
    text = json.dumps(pipeline)
    samples = pipeline["processors"][0]["script"]["params"]["samples"]
    samples[0][1][0] ^= 1
    ml("PUT", path, pipeline)
    (wrong,) = findings()
    assert "1 of 384 bits" in wrong.meaning and "--in-cluster" in wrong.repair
    ml("PUT", path, json.loads(text))


def test_another_tower_is_refused(
    uri: str, tmp_path: Path, tower: Path, opensearch_cli: Callable[..., Any]
) -> None:
    (tmp_path / "other.zip").write_bytes(tower.read_bytes())
    other = replace(TextTower.load(tower), fingerprint="0" * 16)
    (tmp_path / "other.json").write_text(other.to_json(), "utf-8")
    result = opensearch_cli("connect", uri, "--in-cluster", tmp_path / "other.zip")
    assert result.status == 2 and "0" * 16 in result.err, result
    both = opensearch_cli("connect", uri, "--in-cluster", tower, "--service", "http://h:1")
    assert both.status == 2 and "--service" in both.err


def test_a_failed_upload_leaves_nothing(
    ml: Server, ml_address: Callable[..., str], tower: Path, opensearch_cli: Callable[..., Any]
) -> None:
    new = ml_address()
    content = TextTower.load(tower)
    copy = tower.with_name("wrong.zip")
    copy.write_bytes(tower.read_bytes())
    (text, code), *others = content.samples
    changed = replace(content, samples=((text, (code[0] ^ 2, *code[1:])), *others))
    copy.with_suffix(".json").write_text(changed.to_json(), "utf-8")
    result = opensearch_cli("connect", new, "--in-cluster", copy)
    assert result.status == 2 and "1 of 384 bits" in result.err, result
    left = ml("POST", "_plugins/_ml/models/_search", {"size": 100})["hits"]["hits"]
    assert not [one for one in left if one["_source"].get("name") == f"xmodal-{alias(new)}"]
    run("disconnect", new)


def test_int8_has_an_index_of_its_own(
    ml: Server, ml_address: Callable[..., str], bert_folder: Path, uri: str, opensearch_cli: Any
) -> None:
    tower = write_text_tower(bert_folder / "x.onnx", bert_folder / "small.zip", int8=True)
    mixed = opensearch_cli("connect", uri, "--in-cluster", tower.file)
    assert mixed.status == 2 and tower.fingerprint in mixed.err, mixed
    new = ml_address()
    run("connect", new, "--in-cluster", tower.file)
    stored = put(ml, new, "1", {"text": "Two dogs"})
    found = search(ml, new, "text-to-text", text="Two dogs")
    assert found == {"1": 1.0}, stored
    address = parse_address(new)
    assert "text-tower" not in {one.kind for one in inspect(Client(address), address).findings}
    run("disconnect", new)
