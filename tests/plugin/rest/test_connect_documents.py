"""Documents and hits through the pipelines equal those of the Python client."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.hamming_server import Refused, Server
from support.rest_path import (
    ConnectedIndex,
    answer_hits,
    client_hits,
    create_connected,
    curl,
    picture,
    pipeline_name,
    run,
)

from xmodal.data.dataset import Dataset
from xmodal.encoders.encoder import Encoder

STORED = 40
"""Number of items that the Python client stores."""


@pytest.fixture(scope="module")
def photos(
    ml_address: Callable[..., str], service_url: str, model: Path, encoder: Encoder,
    dataset: Dataset, cache: Path,
) -> Iterator[ConnectedIndex]:  # fmt: skip
    """A connected index with strategy script and the first items of the dataset."""
    connected = create_connected(ml_address(strategy="script"), service_url, model)
    items = dataset.items[:STORED]
    codes = encoder.encode_data(Dataset(items), cache=cache)
    connected.index.add(
        [item.id for item in items],
        image=codes["image"][1],
        text=codes["text"][1],
        fields=[item.document() for item in items],
    )
    connected.index.handle.refresh()
    yield connected
    run("disconnect", connected.uri)
    connected.index.close()


@pytest.fixture
def neural(server_version: str) -> None:
    """Skip tests of ``neural`` with integer codes on OpenSearch 2.x."""
    if server_version.startswith("2."):
        pytest.skip("queries and processors of neural-search take integer codes since 3.0")


# ---- curl commands -----------------------------------------------------------------------------


def test_printed_commands_store_and_search(
    photos: ConnectedIndex,
    encoder: Encoder,
    dataset: Dataset,
    tmp_path: Path,
    ml: Server,
    server_version: str,
) -> None:
    item = dataset.items[STORED]
    put, by_words, by_picture, *by_neural = (one["curl"] for one in photos.report["try"])
    assert curl(put, tmp_path, item)["result"] == "created"
    stored = ml("GET", f"{photos.name}/_doc/my-first")["_source"]
    texts, pictures = (
        encoder.encode_texts(["a red circle"]),
        encoder.encode_images([item.images[0]]),
    )
    assert stored == {
        "text": "a red circle",
        "xmodal": {"id": "my-first"},
        "text_code": texts.to_signed()[0],
        "image_code": pictures.to_signed()[0],
    }
    word_hits = answer_hits(curl(by_words, tmp_path))
    assert len(word_hits) == 5
    assert word_hits == client_hits(photos.index.search(texts, 5, target="image")[0])
    picture_hits = answer_hits(curl(by_picture, tmp_path, item))
    assert picture_hits == client_hits(photos.index.search(pictures, 5, target="text")[0])
    assert len(by_neural) == (0 if server_version.startswith("2.") else 1)
    for command in by_neural:
        neural_hits = answer_hits(curl(command, tmp_path))
        assert [one[1] for one in neural_hits] == [one[1] for one in word_hits]
        assert not {"image_code", "text_code", "xmodal"} & set(neural_hits[0][2])
    ml("DELETE", f"{photos.name}/_doc/my-first?refresh=true")


def test_commands_of_the_documentation_run(
    neural: None, photos: ConnectedIndex, dataset: Dataset, tmp_path: Path
) -> None:
    """docs/opensearch.md, with the addresses of node, service and index replaced."""
    whole = (Path(__file__).parents[3] / "docs" / "opensearch.md").read_text()
    page = whole.partition("\n## Encoding on the server\n")[2].partition("\n## ")[0]
    commands, requests = (
        block.replace("opensearch://localhost:9200/photos", photos.uri)
        .replace("localhost:9200", photos.index.handle.address.server.partition("//")[2])
        .replace("http://127.0.0.1:8080", photos.report["service"])
        .replace("/photos", f"/{photos.name}")
        .replace("-photos-", f"-{photos.name}-")
        .splitlines()
        for block in re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
    )
    assert [line.split()[1] for line in commands] == ["node", "index", "serve", "connect"]
    assert json.loads(run(*shlex.split(commands[-1])[1:], "--json"))["steps"] == [
        step | {"done": "unchanged"} for step in photos.report["steps"]
    ]
    stored, *searches = (curl(line, tmp_path, dataset.items[0]) for line in requests)
    assert stored["result"] == "created" and len(searches) == 3
    assert all(answer_hits(answer) for answer in searches)
    assert photos.index.delete(["a1"]) == 1


# ---- documents ---------------------------------------------------------------------------------


def test_ingest_pipeline_stores_the_documents_of_the_python_client(
    photos: ConnectedIndex, encoder: Encoder, dataset: Dataset, ml: Server
) -> None:
    before = len(photos.index)
    both, text_only, image_only, neither = dataset.items[STORED + 1 : STORED + 5]
    text = encoder.encode_texts([both.captions[0] or "", text_only.captions[0] or ""]).to_signed()
    codes = encoder.encode_images([str(both.images[0]), str(image_only.images[0])]).to_signed()
    for item, sent, expected in (
        (both, {"text", "image"}, {"text_code": text[0], "image_code": codes[0]}),
        (text_only, {"text"}, {"text_code": text[1]}),
        (image_only, {"image"}, {"image_code": codes[1]}),
        (neither, set(), {}),
    ):
        fields = {name: one for name, one in item.document().items() if name != "text"}
        document = dict(fields)
        if "text" in sent:
            document["text"] = item.captions[0]
        if "image" in sent:
            document["image_base64"] = picture(item)
        stored = photos.put(ml, item.id, document)
        document.pop("image_base64", None)
        assert stored == {**document, "xmodal": {"id": item.id}, **expected}
    assert len(photos.index) == before + 4
    query = encoder.encode_texts(["a red circle"])
    images = {hit.id for hit in photos.index.search(query, 999, target="image")[0]}
    texts = {hit.id for hit in photos.index.search(query, 999, target="text")[0]}
    ids = [both.id, text_only.id, image_only.id, neither.id]
    assert [one in images for one in ids] == [True, False, True, False]
    assert [one in texts for one in ids] == [True, True, False, False]
    assert photos.index.delete(ids) == 4


def test_pictures_by_address_are_encoded_and_their_addresses_stored(
    photos: ConnectedIndex, encoder: Encoder, dataset: Dataset, ml: Server, pictures_url: str
) -> None:
    item = dataset.items[STORED + 1]
    path = Path(str(item.images[0]))
    address = f"{pictures_url}/{path.name}?a=%C3%A4&b='"
    code = encoder.encode_images([path])
    document = {"text": "a star", "image_base64": address}
    stored = photos.put(ml, "linked", document)
    assert stored["image_base64"] == address
    assert stored["image_code"] == code.to_signed()[0]
    body = {"query": {"match": {"image_base64": address.replace("http", "HTTP")}}, "size": 99}
    hits = answer_hits(photos.search(ml, "image-to-image", body))
    assert hits == client_hits(photos.index.search(code, 99, target="image")[0])
    assert ("linked", 0) in [hit[:2] for hit in hits]
    for wrong in (f"{pictures_url}/missing.png", "https://169.254.169.254/", "http//x"):
        with pytest.raises(Refused) as refused:
            photos.put(ml, "wrong", document | {"image_base64": wrong})
        assert 400 <= refused.value.status < 500
    assert photos.index.delete(["linked"]) == 1


@pytest.mark.parametrize("request_kind", ["single", "bulk"])
def test_ingest_pipeline_encodes_single_documents_and_bulks_of_200(
    request_kind: str, photos: ConnectedIndex, encoder: Encoder, dataset: Dataset, ml: Server
) -> None:
    count = 200 if request_kind == "bulk" else 3
    items = [dataset.items[n % len(dataset.items)] for n in range(count)]
    lines: list[dict[str, Any]] = []
    for n, item in enumerate(items):
        document = {
            "text": f"{item.captions[0]}, number {n}",
            "image_base64": picture(item),
            "n": n,
        }
        if request_kind == "single":
            photos.put(ml, f"n{n:03}", document)
        lines += [{"index": {"_id": f"n{n:03}"}}, document]
    if request_kind == "bulk":
        answer = photos.bulk(ml, lines)
        assert not answer["errors"], [one for one in answer["items"] if "error" in one["index"]][:3]
    ids = [f"n{n:03}" for n in range(count)]
    texts = encoder.encode_texts(
        [f"{item.captions[0]}, number {n}" for n, item in enumerate(items)]
    )
    images = encoder.encode_images([str(item.images[0]) for item in items])
    batch = photos.index.get(ids)
    for modality, expected in (("text", texts), ("image", images)):
        stored, codes = batch.codes(modality)  # type: ignore[arg-type]
        assert stored == ids and (codes.packed == expected.packed).all()
    assert photos.index.delete(ids) == count


SPECIAL_TEXTS = (
    "he said \"a \\ red\" 'star'",
    "two\nlines\tand a \x01 sign",
    "grün 日本 🙂 \u2028 é",
    "{{mustache}} ${model} $x </script> %s",
    "null and void",
    "a red circle, " * 200,
    "3.0",
    '["red", "blue"]',
    '  {"a": "b"}',
    "{a: [1, 2]}",
    "(a red circle)",
    '"a red circle"',
    "null",
    "\u2060 a red circle",
    "${parameters.inputImage} $5 ${parameters.inputText",
    "{costs $\u2060{5}}",
)


def test_special_characters_are_encoded_unchanged(
    photos: ConnectedIndex, encoder: Encoder, ml: Server
) -> None:
    ids = [f"s{n}" for n in range(len(SPECIAL_TEXTS))]
    lines = [
        line
        for id_, text in zip(ids, SPECIAL_TEXTS, strict=True)
        for line in ({"index": {"_id": id_}}, {"text": text})
    ]
    answer = photos.bulk(ml, lines)
    assert not answer["errors"], answer["items"]
    stored, codes = photos.index.get(ids).codes("text")
    assert stored == ids and (codes.packed == encoder.encode_texts(SPECIAL_TEXTS).packed).all()
    for text in SPECIAL_TEXTS[:5]:
        answer = photos.search(ml, "text-to-text", {"query": {"match": {"text": text}}, "size": 3})
        expected = photos.index.search(encoder.encode_texts([text]), 3, target="text")[0]
        assert answer_hits(answer) == client_hits(expected)
    assert photos.index.delete(ids) == len(ids)


@pytest.mark.parametrize(
    "absent", [{}, {"text": None}, {"text": " \x1c\x85\xa0\u3000"}, {"text": "", "a": 1}]
)
def test_documents_without_text_and_picture_are_stored_without_codes(
    photos: ConnectedIndex, ml: Server, absent: Any
) -> None:
    stored = photos.put(ml, "empty", {**absent, "image_base64": ""})
    assert stored == {**absent, "xmodal": {"id": "empty"}}
    assert photos.index.delete(["empty"]) == 1


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"text": "a star", "image_base64": "bm90aGluZw=="}, "not a picture"),
        ({"text": "a star", "image_base64": "no base64!"}, "base64"),
        ({"text": ["a star", "two"]}, "field text holds several values"),
        ({"image_base64": "${parameters.inputText}"}, "holds ${parameters."),
    ],
)
def test_ingest_pipeline_refuses_only_the_invalid_document(
    photos: ConnectedIndex, ml: Server, document: dict[str, Any], words: str
) -> None:
    answer = photos.bulk(
        ml,
        [
            {"index": {"_id": "before"}},
            {"text": "a red circle"},
            {"index": {"_id": "bad"}},
            document,
            {"index": {"_id": "after"}},
            {"text": "a red circle"},
        ],
    )
    first, bad, last = (one["index"] for one in answer["items"])
    assert (first["status"], last["status"]) == (201, 201)
    assert 400 <= bad["status"] < 500 and words in json.dumps(bad["error"])
    ids = ["before", "bad", "after"]
    assert photos.index.get(ids).codes("text")[0] == ["before", "after"]
    assert photos.index.delete(ids) == 2


def test_ingest_pipeline_refuses_missing_and_reserved_ids(
    photos: ConnectedIndex, ml: Server
) -> None:
    query = f"pipeline={pipeline_name(photos.report, 'ingest')}"
    with pytest.raises(Refused, match="the document has no _id"):
        ml("POST", f"{photos.name}/_doc?{query}", {"text": "a red circle"})
    with pytest.raises(Refused, match="xmodal-self-test is reserved"):
        photos.put(ml, "xmodal-self-test", {"text": "a red circle"})


def test_update_by_query_encodes_changed_fields_again(
    photos: ConnectedIndex, encoder: Encoder, dataset: Dataset, ml: Server
) -> None:
    item = dataset.items[STORED]
    first = photos.put(ml, "up", {"text": "a red circle", "image_base64": picture(item)})
    name = pipeline_name(photos.report, "ingest")
    path = f"{photos.name}/_update_by_query?pipeline={name}&refresh=true"
    script = {"source": "ctx._source.text = 'a green star'"}
    ml("POST", path, {"query": {"ids": {"values": ["up"]}}, "script": script})
    second = ml("GET", f"{photos.name}/_doc/up")["_source"]
    assert second["text_code"] == encoder.encode_texts(["a green star"]).to_signed()[0]
    assert second["image_code"] == first["image_code"]
    assert photos.index.delete(["up"]) == 1


# ---- searches ----------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["text", "image"])
@pytest.mark.parametrize("target", ["text", "image"])
def test_search_pipelines_return_the_hits_of_the_python_client(
    photos: ConnectedIndex, encoder: Encoder, dataset: Dataset, ml: Server, source: str, target: Any
) -> None:
    item = dataset.items[-1]
    code, query = encoder.encode_texts([item.captions[0] or ""]), {"text": item.captions[0]}
    if source == "image":
        code, query = encoder.encode_images([str(item.images[0])]), {"image_base64": picture(item)}
    for size in (1, 7, STORED + 5):
        body = {"query": {"match": query}, "size": size}
        answer = photos.search(ml, f"{source}-to-{target}", body)
        assert answer_hits(answer) == client_hits(photos.index.search(code, size, target=target)[0])
    answer = photos.search(ml, f"{source}-to-{target}", {"query": {"match": query}})
    assert len(answer_hits(answer)) == 10


def test_search_pipelines_keep_other_parameters_of_a_request(
    photos: ConnectedIndex, encoder: Encoder, ml: Server
) -> None:
    code = encoder.encode_texts(["a red circle"])
    query = {"query": {"match": {"text": {"query": "a red circle"}}}}
    every = client_hits(photos.index.search(code, 99, target="image")[0])

    def search(**more: Any) -> Any:
        return photos.search(ml, "text-to-image", query | more)

    assert answer_hits(search(size=5)) + answer_hits(search(**{"from": 5, "size": 99})) == every
    filtered = photos.index.search(code, 99, target="image", where={"size": "large"})[0]
    large = {"post_filter": {"term": {"size": "large"}}, "size": 99}
    assert 0 < len(filtered) < len(every) and answer_hits(search(**large)) == client_hits(filtered)
    radius = every[5][1]
    near = photos.index.search(code, 99, target="image", radius=radius)[0]
    assert answer_hits(search(min_score=1 / (1 + radius), size=99)) == client_hits(near)
    hit = search(size=1, _source=["text"])["hits"]["hits"][0]
    assert list(hit["_source"]) == ["text"]
    assert "_source" not in search(size=1, _source=False)["hits"]["hits"][0]
    by_id = search(size=99, sort=[{"xmodal.id": "desc"}])["hits"]["hits"]
    assert [one["_id"] for one in by_id] == sorted((one[0] for one in every), reverse=True)
    after = search(size=5)["hits"]["hits"][-1]["sort"]
    assert answer_hits(search(size=99, search_after=after)) == every[5:]
    counted = search(size=0, aggs={"c": {"terms": {"field": "colour"}}})["aggregations"]["c"]
    assert sum(one["doc_count"] for one in counted["buckets"]) == len(every)


def test_search_pipelines_refuse_other_queries(photos: ConnectedIndex, ml: Server) -> None:
    for query in ({"match_all": {}}, {"match": {"title": "a red circle"}}):
        with pytest.raises(Refused, match=r"cannot find field: \$.query.match\['text'\].query"):
            photos.search(ml, "text-to-image", {"query": query})


def test_neural_queries_apply_their_filter(
    neural: None, photos: ConnectedIndex, encoder: Encoder, dataset: Dataset, ml: Server
) -> None:
    item = dataset.items[-1]
    code = encoder.encode_images([str(item.images[0])])
    expected = photos.index.search(code, 99, target="image", where={"size": "large"})[0]
    query = {"query_image": picture(item), "k": 99, "filter": {"term": {"size": "large"}}}
    body = {"query": {"neural": {"image_code": query}}, "size": 99, "_source": False}
    answer = photos.search(ml, "neural", body | {"sort": ["_score", {"xmodal.id": "asc"}]})
    assert [one[:2] for one in answer_hits(answer)] == [(hit.id, hit.distance) for hit in expected]
    assert 3 < len(expected) < STORED


def test_processors_of_neural_search_write_the_same_codes(
    neural: None, photos: ConnectedIndex, encoder: Encoder, dataset: Dataset, ml: Server
) -> None:
    """text_embedding and text_image_embedding with the model of connect, as documented."""
    item = dataset.items[STORED]
    model = photos.report["steps"][1]["id"]
    picture_alone = {"embedding": "image_code", "field_map": {"image": "image_base64"}}
    processors = [
        {"text_embedding": {"model_id": model, "field_map": {"text": "text_code"}}},
        {"text_image_embedding": {"model_id": model, **picture_alone}},
        {"remove": {"field": "image_base64", "ignore_missing": True}},
        {"set": {"field": "xmodal.id", "value": "{{_id}}"}},
    ]
    ml("PUT", "_ingest/pipeline/by-neural", {"processors": processors})
    for id_, document in (
        ("both", {"text": item.captions[0], "image_base64": picture(item)}),
        ("words", {"text": item.captions[0]}),
    ):
        ml("PUT", f"{photos.name}/_doc/{id_}?pipeline=by-neural&refresh=true", document)
    text = encoder.encode_texts([item.captions[0] or ""])
    image = encoder.encode_images([str(item.images[0])])
    stored, codes = photos.index.get(["both", "words"]).codes("text")
    assert stored == ["both", "words"] and (codes.packed == text.packed).all()
    stored, codes = photos.index.get(["both", "words"]).codes("image")
    assert stored == ["both"] and (codes.packed == image.packed).all()
    body = {"query": {"match": {"image_base64": picture(item)}}, "size": 99}
    hits = answer_hits(photos.search(ml, "image-to-image", body))
    assert hits == client_hits(photos.index.search(image, 99, target="image")[0])
    assert ("both", 0) in [hit[:2] for hit in hits]
    assert photos.index.delete(["both", "words"]) == 2
    ml("DELETE", "_ingest/pipeline/by-neural")
