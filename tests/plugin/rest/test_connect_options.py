"""Options of connect: default pipeline, failed documents, enriched indexes, strategies."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.endpoint import Endpoint, Reply, Request
from support.hamming_server import Refused, Server
from support.rest_path import (
    ConnectedIndex,
    alias,
    answer_hits,
    changes,
    client_hits,
    cluster_state,
    connect,
    create_connected,
    picture,
    pipeline_name,
    proxy,
    run,
)

from xmodal.codes import BinaryCodes
from xmodal.data.dataset import Dataset
from xmodal.encoders.encoder import Encoder
from xmodal.encoders.load import load_encoder
from xmodal_opensearch.index.store import open_opensearch
from xmodal_opensearch.rest.models import deploy

Run = Callable[..., Any]


def encode_requests(service: Endpoint) -> int:
    """Return the number of encode requests that a service received."""
    return sum(one.path == "/v1/embed" for one in service.requests)


# ---- the default pipeline ----------------------------------------------------------------------


def test_make_default_encodes_documents_except_those_of_the_python_client(
    ml: Server, ml_address: Callable[..., str], service_url: str, model: Path, encoder: Encoder
) -> None:
    with Endpoint(proxy(service_url)) as service:
        url = f"http://127.0.0.1:{service.port}"
        photos = create_connected(ml_address(), url, model, "--make-default")
        assert "?pipeline=" not in photos.report["try"][0]["curl"]
        before, code = encode_requests(service), encoder.encode_texts(["a red circle"])
        ml("PUT", f"{photos.name}/_doc/1?refresh=true", {"text": "a red circle"})
        assert encode_requests(service) == before + 1
        with open_opensearch(photos.uri) as index:
            index.add(["2"], text=code, fields=[{"text": "a red circle"}])
            assert [hit.id for hit in index.search(code, 9, target="text")[0]] == ["1", "2"]
            assert encode_requests(service) == before + 1
        one, two = (ml("GET", f"{photos.name}/_doc/{id_}")["_source"] for id_ in "12")
        assert two | {"xmodal": {"id": "1"}} == one
        ml("POST", f"{photos.name}/_update/1?refresh=true", {"doc": {"text": "a green star"}})
        changed = ml("GET", f"{photos.name}/_doc/1")["_source"]
        assert changed["text_code"] == encoder.encode_texts(["a green star"]).to_signed()[0]
        upsert = '{"update":{"_id":"3"}}\n{"doc":{"text":"a star"},"doc_as_upsert":true}\n'
        answer = ml("POST", f"{photos.name}/_bulk", upsert)
        assert "has no _id" in json.dumps(answer["items"])
        ml("DELETE", f"{photos.name}/_doc/xmodal-self-test?refresh=true")
        run("doctor", photos.uri, "--repair")  # stores it through the pipeline
        assert ml("GET", f"{photos.name}/_doc/xmodal-self-test")["found"]
        run("disconnect", photos.uri)
        ml("PUT", f"{photos.name}/_doc/3", {"text": "a red circle"})
        photos.index.close()


def test_concurrent_deployments_of_one_model_succeed(
    ml: Server, ml_address: Callable[..., str], service_url: str, model: Path
) -> None:
    """ml-commons refuses (409) a deployment during another change of the model."""
    photos = create_connected(ml_address(), service_url, model)
    id_ = next(step["id"] for step in photos.report["steps"] if step["what"] == "model")
    for _ in range(5):
        ml("POST", f"_plugins/_ml/models/{id_}/_undeploy")
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda _: deploy(photos.index.handle.server, id_), range(2)))
    run("disconnect", photos.uri)
    photos.index.close()


def test_load_new_version_keeps_pipelines_of_the_same_encoder_only(
    ml: Server, ml_address: Callable[..., str], service_url: str, model: Path, other_model: Path,
    index_path: Path, photos_folder: Path, opensearch_cli: Run, encoder: Encoder,
) -> None:  # fmt: skip
    uri = ml_address()
    run("load", index_path, "--index", uri)
    before = cluster_state(ml)
    report = connect(opensearch_cli, uri, service_url, "--make-default")
    connected = cluster_state(ml)
    again = opensearch_cli("load", index_path, "--index", uri, "--new-version")
    assert again.status == 0 and "removed" not in again.err
    second = f"{alias(uri)}-000002"
    default = {"index": {"default_pipeline": pipeline_name(report, "ingest")}}
    assert cluster_state(ml) == connected | {"defaults": connected["defaults"] | {second: default}}

    other = ("load", photos_folder, "--index", uri, "--model", other_model, "--new-version")
    last = opensearch_cli(*other)
    assert last.status == 0, last.err
    assert f"removed {pipeline_name(report, 'ingest')}, " in last.err
    assert "run xmodal-opensearch connect again" in last.err
    after = cluster_state(ml)
    assert [after[kind] for kind in ("ingest", "search", "defaults")] == [
        before[kind] for kind in ("ingest", "search", "defaults")
    ]
    with pytest.raises(Refused, match="does not exist"):
        ml(
            "PUT",
            f"{alias(uri)}/_doc/1?pipeline={pipeline_name(report, 'ingest')}",
            {"text": "a star"},
        )

    fingerprints = encoder.fingerprint, load_encoder(other_model).fingerprint

    def change_model(request: Request, reply: Reply) -> Reply:
        return Reply(reply.status, str(reply.body).replace(*fingerprints))

    with Endpoint(proxy(service_url, change_model)) as service:
        url = f"http://127.0.0.1:{service.port}"
        new = connect(opensearch_cli, uri, url, "--make-default")
        assert [step["done"] for step in new["steps"]] == [
            *("updated", "updated"),
            *["created"] * 6,
            "updated",
        ]
        assert new["steps"][1]["id"] == report["steps"][1]["id"]
        assert changes(connect(opensearch_cli, uri, url, "--make-default")) == {"unchanged"}
    assert opensearch_cli("disconnect", uri).status == 0
    assert cluster_state(ml) == before


# ---- failed documents --------------------------------------------------------------------------


def test_on_failure_keep_stores_documents_with_the_reason(
    ml: Server, ml_address: Callable[..., str], service_url: str, model: Path, encoder: Encoder,
    dataset: Dataset,
) -> None:  # fmt: skip
    photos = create_connected(ml_address(), service_url, model, "--on-failure", "keep")
    text, invalid = "a red circle", "bm90aGluZw=="
    good = photos.put(ml, "good", {"text": text, "image_base64": picture(dataset.items[0])})
    both = photos.put(ml, "both", {"text": text, "image_base64": invalid, "n": 1})
    alone = photos.put(ml, "alone", {"image_base64": invalid, "n": 2})
    code = encoder.encode_texts([text])
    assert set(good["xmodal"]) == {"id"} and good["image_code"]
    assert "not a picture" in both["xmodal"].pop("problem")
    assert both == {
        "text": text,
        "n": 1,
        "xmodal": {"id": "both"},
        "text_code": code.to_signed()[0],
    }
    assert "not a picture" in alone["xmodal"].pop("problem")
    assert alone == {"n": 2, "xmodal": {"id": "alone"}}
    assert len(photos.index) == 3
    hits = photos.index.search(code, 9, target="text")[0]
    assert [(hit.id, dict(hit.fields)) for hit in hits] == [
        ("both", {"text": text, "n": 1}),
        ("good", {"text": text}),
    ]
    query = {"query": {"prefix": {"xmodal.problem": "Error"}}}
    assert ml("POST", f"{photos.name}/_count", query)["count"] == 2
    with pytest.raises(Refused, match="expected one text"):  # not an error of the service
        photos.put(ml, "list", {"text": ["a", "b"]})
    run("disconnect", photos.uri)
    photos.index.close()


# ---- enriched indexes, nested fields -----------------------------------------------------------


def test_connect_to_an_enriched_index_with_nested_fields(
    ml: Server, ml_address: Callable[..., str], service_url: str, model: Path, encoder: Encoder,
    dataset: Dataset, opensearch_cli: Run,
) -> None:  # fmt: skip
    uri = ml_address()
    ml("PUT", f"{alias(uri)}/_doc/old?refresh=true", {"product": {"title": "a red circle"}})
    run("enrich", "--index", uri, "--model", model, "--text-field", "product.title")
    fields = ("--text-field", "product.title", "--image-field", "product.picture")
    photos = ConnectedIndex(
        uri, connect(opensearch_cli, uri, service_url, *fields), open_opensearch(uri)
    )
    item = dataset.items[0]
    product = {"title": "a green star", "picture": picture(item), "price": 3}
    stored = photos.put(ml, "new", {"product": product})
    texts = encoder.encode_texts(["a red circle", "a green star"])
    assert stored == {
        "product": {"title": "a green star", "price": 3},
        "xmodal": {"id": "new", "encoder": encoder.fingerprint},
        "text_code": texts.to_signed()[1],
        "image_code": encoder.encode_images([str(item.images[0])]).to_signed()[0],
    }
    body = {"query": {"match": {"product.title": "a red circle"}}}
    hits = answer_hits(photos.search(ml, "text-to-text", body))
    assert hits == client_hits(photos.index.search(texts[:1], 10, target="text")[0])
    assert ("old", 0) in [hit[:2] for hit in hits] and len(hits) == 2
    # Documents with codes of another encoder are not found.
    ml("POST", f"{photos.name}/_update/new?refresh=true", {"doc": {"xmodal": {"encoder": "other"}}})
    assert [hit[0] for hit in answer_hits(photos.search(ml, "text-to-text", body))] == ["old"]
    run("disconnect", uri)
    photos.index.close()


# ---- strategies --------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["hamming", "knn"])
def test_search_pipelines_return_the_hits_of_each_strategy(
    strategy: str, ml: Server, ml_address: Callable[..., str], service_url: str, model: Path,
    encoder: Encoder,
) -> None:  # fmt: skip
    photos = create_connected(ml_address(strategy=strategy), service_url, model)
    drawn = np.random.default_rng(0).integers(0, 256, (60, encoder.bits // 8), dtype=np.uint8)
    codes = BinaryCodes(drawn & 0xF1, encoder.bits)  # few bits, many ties
    photos.index.add([f"d{n:02}" for n in range(60)], image=codes)
    photos.index.handle.refresh()
    query = encoder.encode_texts(["a red circle"])
    for size in (1, 8, 99):
        body = {"query": {"match": {"text": "a red circle"}}, "size": size}
        hits = answer_hits(photos.search(ml, "text-to-image", body))
        assert hits == client_hits(photos.index.search(query, size, target="image")[0])
        assert len(hits) == min(size, 60)
    assert changes(json.loads(run("disconnect", photos.uri, "--json"))) == {"removed"}
    photos.index.close()
