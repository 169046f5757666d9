"""What connect can be asked for beside: defaults, failures kept, own documents, every way."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.endpoint import Endpoint, Reply, Request
from support.hamming_server import Refused, Server
from support.rest_path import (
    Photos,
    alias,
    connected,
    done,
    everything,
    found,
    laid,
    picture,
    pipeline,
    plain,
    run,
    service_behind,
)

from xmodal.codes import BinaryCodes
from xmodal.data.dataset import Dataset
from xmodal.encoders.encoder import Encoder
from xmodal.encoders.load import load_encoder
from xmodal_opensearch.index.store import open_opensearch

Run = Callable[..., Any]


def encodings(service: Endpoint) -> int:
    """How often a service was asked to encode."""
    return sum(one.path == "/v1/embed" for one in service.requests)


# ---- the default pipeline ----------------------------------------------------------------------


def test_as_the_default_it_takes_documents_unasked_but_not_those_of_the_python_path(
    ml: Server, ml_address: Callable[..., str], service_url: str, model: Path, encoder: Encoder
) -> None:
    with Endpoint(service_behind(service_url)) as service:
        there = f"http://127.0.0.1:{service.port}"
        photos = laid(ml_address(), there, model, "--make-default")
        assert "?pipeline=" not in photos.told["try"][0]["curl"]
        before, code = encodings(service), encoder.encode_texts(["a red circle"])
        ml("PUT", f"{photos.name}/_doc/1?refresh=true", {"text": "a red circle"})
        assert encodings(service) == before + 1
        with open_opensearch(photos.uri) as index:
            index.add(["2"], text=code, fields=[{"text": "a red circle"}])
            assert [hit.id for hit in index.search(code, 9, target="text")[0]] == ["1", "2"]
            assert encodings(service) == before + 1
        one, two = (ml("GET", f"{photos.name}/_doc/{id_}")["_source"] for id_ in "12")
        assert two | {"xmodal": {"id": "1"}} == one
        ml("POST", f"{photos.name}/_update/1?refresh=true", {"doc": {"text": "a green star"}})
        changed = ml("GET", f"{photos.name}/_doc/1")["_source"]
        assert changed["text_code"] == encoder.encode_texts(["a green star"]).to_signed()[0]
        upsert = '{"update":{"_id":"3"}}\n{"doc":{"text":"a star"},"doc_as_upsert":true}\n'
        answer = ml("POST", f"{photos.name}/_bulk", upsert)
        assert "has no id here" in json.dumps(answer["items"])
        ml("DELETE", f"{photos.name}/_doc/xmodal-self-test?refresh=true")
        run("doctor", photos.uri, "--repair")  # stores it again, through the pipeline
        assert ml("GET", f"{photos.name}/_doc/xmodal-self-test")["found"]
        run("disconnect", photos.uri)
        ml("PUT", f"{photos.name}/_doc/3", {"text": "a red circle"})
        photos.index.close()


def test_a_new_version_takes_pipelines_of_its_encoder_along_and_leaves_others(
    ml: Server, ml_address: Callable[..., str], service_url: str, model: Path, other_model: Path,
    index_path: Path, world: Path, opensearch_cli: Run, encoder: Encoder,
) -> None:  # fmt: skip
    uri = ml_address()
    run("load", index_path, "--index", uri)
    before = everything(ml)
    told = connected(opensearch_cli, uri, service_url, "--make-default")
    laid_ = everything(ml)
    again = opensearch_cli("load", index_path, "--index", uri, "--new-version")
    assert again.status == 0 and "removed" not in again.err
    second = f"{alias(uri)}-000002"
    default = {"index": {"default_pipeline": pipeline(told, "ingest")}}
    assert everything(ml) == laid_ | {"defaults": laid_["defaults"] | {second: default}}

    other = ("load", world, "--index", uri, "--model", other_model, "--new-version")
    last = opensearch_cli(*other)
    assert last.status == 0, last.err
    assert f"removed {pipeline(told, 'ingest')}, " in last.err
    assert "serve this one, and run xmodal-opensearch connect again" in last.err
    left = everything(ml)
    assert [left[kind] for kind in ("ingest", "search", "defaults")] == [
        before[kind] for kind in ("ingest", "search", "defaults")
    ]
    with pytest.raises(Refused, match="does not exist"):
        ml("PUT", f"{alias(uri)}/_doc/1?pipeline={pipeline(told, 'ingest')}", {"text": "a star"})

    names = encoder.fingerprint, load_encoder(other_model).fingerprint

    def of_the_other(asked: Request, reply: Reply) -> Reply:
        return Reply(reply.status, str(reply.body).replace(*names))

    with Endpoint(service_behind(service_url, of_the_other)) as service:
        there = f"http://127.0.0.1:{service.port}"
        new = connected(opensearch_cli, uri, there, "--make-default")
        assert [step["done"] for step in new["steps"]] == [
            *("updated", "updated"),
            *["created"] * 6,
            "updated",
        ]
        assert new["steps"][1]["id"] == told["steps"][1]["id"]
        assert done(connected(opensearch_cli, uri, there, "--make-default")) == {"unchanged"}
    assert opensearch_cli("disconnect", uri).status == 0
    assert everything(ml) == before


# ---- failures kept -----------------------------------------------------------------------------


def test_a_document_can_be_kept_with_the_reason(
    ml: Server, ml_address: Callable[..., str], service_url: str, model: Path, encoder: Encoder,
    dataset: Dataset,
) -> None:  # fmt: skip
    photos = laid(ml_address(), service_url, model, "--on-failure", "keep")
    text, bad = "a red circle", "bm90aGluZw=="
    good = photos.put(ml, "good", {"text": text, "image_base64": picture(dataset.items[0])})
    both = photos.put(ml, "both", {"text": text, "image_base64": bad, "n": 1})
    alone = photos.put(ml, "alone", {"image_base64": bad, "n": 2})
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
    wanted = {"query": {"prefix": {"xmodal.problem": "Error"}}}
    assert ml("POST", f"{photos.name}/_count", wanted)["count"] == 2
    with pytest.raises(Refused, match="expected one text"):  # what only its author can mend
        photos.put(ml, "list", {"text": ["a", "b"]})
    run("disconnect", photos.uri)
    photos.index.close()


# ---- own documents, fields by other names ------------------------------------------------------


def test_documents_of_somebodys_own(
    ml: Server, ml_address: Callable[..., str], service_url: str, model: Path, encoder: Encoder,
    dataset: Dataset, opensearch_cli: Run,
) -> None:  # fmt: skip
    uri = ml_address()
    ml("PUT", f"{alias(uri)}/_doc/old?refresh=true", {"product": {"title": "a red circle"}})
    run("enrich", "--index", uri, "--model", model, "--text-field", "product.title")
    fields = ("--text-field", "product.title", "--image-field", "product.picture")
    photos = Photos(uri, connected(opensearch_cli, uri, service_url, *fields), open_opensearch(uri))
    item = dataset.items[0]
    product = {"title": "a green star", "picture": picture(item), "price": 3}
    kept = photos.put(ml, "new", {"product": product})
    texts = encoder.encode_texts(["a red circle", "a green star"])
    assert kept == {
        "product": {"title": "a green star", "price": 3},
        "xmodal": {"id": "new", "encoder": encoder.fingerprint},
        "text_code": texts.to_signed()[1],
        "image_code": encoder.encode_images([str(item.image)]).to_signed()[0],
    }
    body = {"query": {"match": {"product.title": "a red circle"}}}
    hits = found(photos.search(ml, "text-to-text", body))
    assert hits == plain(photos.index.search(texts[:1], 10, target="text")[0])
    assert ("old", 0) in [hit[:2] for hit in hits] and len(hits) == 2
    # A document whose codes are of another encoder is none of these hits.
    ml("POST", f"{photos.name}/_update/new?refresh=true", {"doc": {"xmodal": {"encoder": "other"}}})
    assert [hit[0] for hit in found(photos.search(ml, "text-to-text", body))] == ["old"]
    run("disconnect", uri)
    photos.index.close()


# ---- ways --------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["hamming", "knn"])
def test_every_way_searches_alike(
    way: str, ml: Server, ml_address: Callable[..., str], service_url: str, model: Path,
    encoder: Encoder,
) -> None:  # fmt: skip
    photos = laid(ml_address(strategy=way), service_url, model)
    drawn = np.random.default_rng(0).integers(0, 256, (60, encoder.bits // 8), dtype=np.uint8)
    codes = BinaryCodes(drawn & 0xF1, encoder.bits)  # few bits, many ties
    photos.index.add([f"d{n:02}" for n in range(60)], image=codes)
    photos.index.handle.refresh()
    asked = encoder.encode_texts(["a red circle"])
    for size in (1, 8, 99):
        body = {"query": {"match": {"text": "a red circle"}}, "size": size}
        hits = found(photos.search(ml, "text-to-image", body))
        assert hits == plain(photos.index.search(asked, size, target="image")[0])
        assert len(hits) == min(size, 60)
    assert done({"steps": json.loads(run("disconnect", photos.uri, "--json"))["steps"]}) == {
        "removed"
    }
    photos.index.close()
