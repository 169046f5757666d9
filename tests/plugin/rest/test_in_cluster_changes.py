"""connect --in-cluster: replaced, refused; roles; strategies; requests of a user's own."""

from __future__ import annotations

import hashlib
import json
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.connect_requests import granted, recorded_permissions
from support.hamming_server import Refused, Server
from support.rest_path import (
    alias,
    answer_hits,
    changes,
    client_hits,
    cluster_state,
    run,
)

from xmodal.codes import BinaryCodes
from xmodal.encoders.onnx_encoder import PortableEncoder
from xmodal.encoders.text_tower import TextTower
from xmodal_opensearch.index.store import open_opensearch
from xmodal_opensearch.rest import local_model

Cli = Callable[..., Any]


def connect(uri: str, tower: Path, *options: str) -> Any:
    """Run ``connect --in-cluster`` and return its report."""
    return json.loads(run("connect", uri, "--in-cluster", tower, "--allow", "--json", *options))


def disconnect(uri: str) -> None:
    assert changes(json.loads(run("disconnect", uri, "--json"))) == {"removed"}


def search(ml: Server, uri: str, suffix: str, **params: Any) -> Any:
    """Search by the template with this suffix; return the answer."""
    name = f"xmodal-{alias(uri)}-{suffix}"
    path = f"{alias(uri)}/_search/template?search_pipeline={name}"
    return ml("POST", path, {"id": name, "params": params})


def parts(ml: Server) -> int:
    """Number of stored models and parts of models."""
    ml("POST", ".plugins-ml-model/_refresh")
    return int(ml("GET", ".plugins-ml-model/_count")["count"])


def test_requests_need_the_permissions_of_the_roles(
    ml: Server, ml_address: Callable[..., str], tower: Path
) -> None:
    uri = ml_address()
    with recorded_permissions() as needed:
        connect(uri, tower)
    assert needed <= granted("connect-in-cluster")
    with recorded_permissions() as needed:
        disconnect(uri)
    assert needed <= granted("disconnect")


def rewritten(tower: Path, file: Path) -> Path:
    """Write the content of an archive as another archive."""
    with zipfile.ZipFile(tower) as old, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    content = file.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    described = replace(TextTower.load(tower), file=file, size=len(content), sha256=digest)
    file.with_suffix(".json").write_text(described.to_json(), "utf-8")
    return file


@contextmanager
def repeated(send: Callable[[], Any]) -> Iterator[list[Any]]:
    """Repeat a request in a thread; yield the list of its answers and errors."""
    found: list[Any] = []
    stop = threading.Event()

    def repeat() -> None:
        while not stop.is_set():
            try:
                found.append(send())
            except Refused as error:
                found.append(error)

    thread = threading.Thread(target=repeat)
    thread.start()
    try:
        yield found
    finally:
        stop.set()
        thread.join()


def test_another_archive_replaces_the_model_while_searches_go_on(
    ml: Server, ml_address: Callable[..., str], tower: Path, tmp_path: Path
) -> None:
    uri = ml_address()
    (first,) = (step for step in connect(uri, tower)["steps"] if step["what"] == "model")
    ml("PUT", f"{alias(uri)}/_doc/1?refresh=true", {"text": "a dog"})
    with repeated(lambda: search(ml, uri, "text-to-text", text="a dog")) as answers:
        report = connect(uri, rewritten(tower, tmp_path / "again.zip"))
    models = [(step["done"], step["id"]) for step in report["steps"] if step["what"] == "model"]
    assert [done for done, _ in models] == ["created", "removed"] and models[1][1] == first["id"]
    assert len(answers) > 10
    assert [one for one in answers if isinstance(one, Refused)] == []
    assert {hit["_score"] for one in answers for hit in one["hits"]["hits"]} == {1}
    disconnect(uri)


def test_a_tripped_memory_limit_is_named(
    ml: Server, ml_address: Callable[..., str], tower: Path, opensearch_cli: Cli
) -> None:
    uri, limit = ml_address(), "plugins.ml_commons.jvm_heap_memory_threshold"
    parts(ml)  # makes the removal of earlier models visible
    before = cluster_state(ml)["models"]
    ml("PUT", "_cluster/settings", {"persistent": {limit: 1}})
    try:
        result = opensearch_cli("connect", uri, "--in-cluster", tower)
    finally:
        ml("PUT", "_cluster/settings", {"persistent": {limit: None}})
    assert result.status == 2 and "plugins.ml_commons.*_threshold" in result.err, result
    parts(ml)
    assert cluster_state(ml)["models"] == before
    connect(uri, tower)
    disconnect(uri)


def test_missing_libraries_are_named() -> None:
    # The errors of ml-commons at the first deployment on a node without them, and at the next one.
    for reason in (
        '{"njUd": "ai.onnxruntime.OrtException"}',
        '{"njUd": "java.lang.NoClassDefFoundError: ai/onnxruntime/OrtException"}',
    ):
        assert local_model.cure(reason) == local_model.NO_NATIVES


@pytest.mark.parametrize("strategy", ["hamming", "script", "knn"])
def test_templates_return_the_hits_of_each_strategy(
    strategy: str,
    ml: Server,
    ml_address: Callable[..., str],
    tower: Path,
    bert_encoder: PortableEncoder,
) -> None:
    uri = ml_address(strategy=strategy)
    connect(uri, tower)
    drawn = np.random.default_rng(0).integers(0, 256, (60, bert_encoder.bits // 8), dtype=np.uint8)
    codes = BinaryCodes(drawn & 0x11, bert_encoder.bits)  # few bits, many ties
    groups = [{"group": "even" if row % 2 == 0 else "odd"} for row in range(60)]
    query = bert_encoder.encode("text", ["a red circle"]).codes
    with open_opensearch(uri) as index:
        index.add([f"d{row:02}" for row in range(60)], image=codes, text=codes, fields=groups)
        index.handle.refresh()
        for target in ("image", "text"):
            for where in (None, {"group": "odd"}):
                only = {} if where is None else {"filter": {"term": where}}
                for size in (1, 7, 99):
                    suffix = f"text-to-{target}"
                    answer = search(ml, uri, suffix, text="a red circle", size=size, **only)
                    (expected,) = index.search(query, size, target=target, where=where)
                    assert answer_hits(answer) == client_hits(expected), (target, where, size)
    disconnect(uri)


def test_a_rendered_template_is_extended_to_a_request_of_ones_own(
    ml: Server, ml_address: Callable[..., str], tower: Path
) -> None:
    uri = ml_address()
    connect(uri, tower)
    texts = {"a": "a red dog", "b": "a dog", "c": "a red cat"}
    for id_, text in texts.items():
        ml("PUT", f"{alias(uri)}/_doc/{id_}?refresh=true", {"text": text, "group": id_})
    for suffix in ("text-to-text", "fused"):
        name = f"xmodal-{alias(uri)}-{suffix}"
        params = {"text": "a dog", "filter": {"match": {"text.words": "red"}}}
        rendered = ml("POST", "_render/template", {"id": name, "params": params})
        body = rendered["template_output"]
        body["aggs"] = {"groups": {"terms": {"field": "group"}}}
        words = {"match": {"text.words": "red"}}
        body["highlight"] = {"fields": {"text.words": {"highlight_query": words}}}
        if suffix != "fused":  # ranks are not sorted again
            body["sort"] = [{"group": "desc"}]
        answer = ml("POST", f"{alias(uri)}/_search?search_pipeline={name}", body)
        hits = {hit["_id"]: hit for hit in answer["hits"]["hits"]}
        assert list(hits) == (["c", "a"] if suffix != "fused" else ["a", "c"])
        buckets = answer["aggregations"]["groups"]["buckets"]
        assert [(one["key"], one["doc_count"]) for one in buckets] == [("a", 1), ("c", 1)]
        assert hits["a"]["highlight"] == {"text.words": ["a <em>red</em> dog"]}
    disconnect(uri)
