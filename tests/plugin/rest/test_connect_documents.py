"""Documents and searches of a client that speaks only REST are those of the Python path."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.hamming_server import Refused, Server
from support.rest_path import Photos, curl, found, laid, picture, pipeline, plain, run

from xmodal.data.dataset import Dataset
from xmodal.encoders.encoder import Encoder

STORED = 40
"""So many items are there by the Python path."""


@pytest.fixture(scope="module")
def photos(
    ml_address: Callable[..., str], service_url: str, model: Path, encoder: Encoder,
    dataset: Dataset, cache: Path,
) -> Iterator[Photos]:  # fmt: skip
    """A connected index, searched by script, with some items of the world."""
    made = laid(ml_address(strategy="script"), service_url, model)
    items = dataset.items[:STORED]
    codes = encoder.encode_data(Dataset(items), cache=cache)
    made.index.add(
        [item.id for item in items],
        image=codes["image"][1],
        text=codes["text"][1],
        fields=[item.document() for item in items],
    )
    made.index.refresh()
    yield made
    run("disconnect", made.uri)
    made.index.close()


# ---- the lines that connect prints -------------------------------------------------------------


def test_the_printed_lines_do_what_they_say(
    photos: Photos, encoder: Encoder, dataset: Dataset, tmp_path: Path, ml: Server
) -> None:
    item = dataset.items[STORED]
    put, words, likeness, neural = (one["curl"] for one in photos.told["try"])
    assert curl(put, tmp_path, item)["result"] == "created"
    kept = ml("GET", f"{photos.name}/_doc/my-first")["_source"]
    texts, pictures = encoder.encode_texts(["a red circle"]), encoder.encode_images([item.image])
    assert kept == {
        "text": "a red circle",
        "xmodal": {"id": "my-first"},
        "text_code": texts.to_signed()[0],
        "image_code": pictures.to_signed()[0],
    }
    by_words = found(curl(words, tmp_path))
    assert len(by_words) == 5
    assert by_words == plain(photos.index.search(texts, 5, target="image")[0])
    by_picture = found(curl(likeness, tmp_path, item))
    assert by_picture == plain(photos.index.search(pictures, 5, target="text")[0])
    by_neural = found(curl(neural, tmp_path))
    assert [one[1] for one in by_neural] == [one[1] for one in by_words]
    assert not {"image_code", "text_code", "xmodal"} & set(by_neural[0][2])
    ml("DELETE", f"{photos.name}/_doc/my-first?refresh=true")


def test_the_lines_of_the_documents_run(photos: Photos, dataset: Dataset, tmp_path: Path) -> None:
    """Those of docs/opensearch.md, with the node, the service and the index of these tests."""
    page = (Path(__file__).parents[3] / "docs" / "opensearch.md").read_text()
    commands, lines = (
        block.replace("opensearch://localhost:9200/photos", photos.uri)
        .replace("localhost:9200", photos.index.handle.address.server.partition("//")[2])
        .replace("http://127.0.0.1:8080", photos.told["service"])
        .replace("/photos", f"/{photos.name}")
        .replace("-photos-", f"-{photos.name}-")
        .splitlines()
        for block in re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
    )
    assert [line.split()[1] for line in commands] == ["node", "index", "serve", "connect"]
    assert json.loads(run(*shlex.split(commands[-1])[1:], "--json"))["steps"] == [
        step | {"done": "unchanged"} for step in photos.told["steps"]
    ]
    stored, *searches = (curl(line, tmp_path, dataset.items[0]) for line in lines)
    assert stored["result"] == "created" and len(searches) == 3
    assert all(found(answer) for answer in searches)
    assert photos.index.delete(["a1"]) == 1


# ---- documents ---------------------------------------------------------------------------------


def test_documents_are_stored_as_the_python_path_stores_them(
    photos: Photos, encoder: Encoder, dataset: Dataset, ml: Server
) -> None:
    before = len(photos.index)
    both, words, image, neither = dataset.items[STORED + 1 : STORED + 5]
    text = encoder.encode_texts([both.text or "", words.text or ""]).to_signed()
    codes = encoder.encode_images([str(both.image), str(image.image)]).to_signed()
    for item, sent, made in (
        (both, {"text", "image"}, {"text_code": text[0], "image_code": codes[0]}),
        (words, {"text"}, {"text_code": text[1]}),
        (image, {"image"}, {"image_code": codes[1]}),
        (neither, set(), {}),
    ):
        fields = {name: one for name, one in item.document().items() if name != "text"}
        document = dict(fields)
        if "text" in sent:
            document["text"] = item.text
        if "image" in sent:
            document["image_base64"] = picture(item)
        kept = photos.put(ml, item.id, document)
        document.pop("image_base64", None)
        assert kept == {**document, "xmodal": {"id": item.id}, **made}
    assert len(photos.index) == before + 4
    query = encoder.encode_texts(["a red circle"])
    images = {hit.id for hit in photos.index.search(query, 999, target="image")[0]}
    texts = {hit.id for hit in photos.index.search(query, 999, target="text")[0]}
    four = [both.id, words.id, image.id, neither.id]
    assert [one in images for one in four] == [True, False, True, False]
    assert [one in texts for one in four] == [True, True, False, False]
    assert photos.index.delete(four) == 4


@pytest.mark.parametrize("way", ["single", "bulk"])
def test_two_hundred_documents(
    way: str, photos: Photos, encoder: Encoder, dataset: Dataset, ml: Server
) -> None:
    count = 200 if way == "bulk" else 3
    items = [dataset.items[n % len(dataset.items)] for n in range(count)]
    lines: list[dict[str, Any]] = []
    for n, item in enumerate(items):
        document = {"text": f"{item.text}, number {n}", "image_base64": picture(item), "n": n}
        if way == "single":
            photos.put(ml, f"n{n:03}", document)
        lines += [{"index": {"_id": f"n{n:03}"}}, document]
    if way == "bulk":
        answer = photos.bulk(ml, lines)
        assert not answer["errors"], [one for one in answer["items"] if "error" in one["index"]][:3]
    ids = [f"n{n:03}" for n in range(count)]
    texts = encoder.encode_texts([f"{item.text}, number {n}" for n, item in enumerate(items)])
    images = encoder.encode_images([str(item.image) for item in items])
    for side, wanted in (("text", texts), ("image", images)):
        stored, codes = photos.index.get(ids).codes(side)  # type: ignore[arg-type]
        assert stored == ids and (codes.packed == wanted.packed).all()
    assert photos.index.delete(ids) == count


STRANGE = (
    "he said \"a \\ red\" 'star'",
    "two\nlines\tand a \x01 sign",
    "grün 日本 🙂 \u2028 é",
    "{{mustache}} ${model} $x </script> %s",
    "null and void",
    "a red circle, " * 200,
    "3.0",
)


def test_texts_arrive_as_they_are(photos: Photos, encoder: Encoder, ml: Server) -> None:
    ids = [f"s{n}" for n in range(len(STRANGE))]
    lines = [
        line
        for id_, text in zip(ids, STRANGE, strict=True)
        for line in ({"index": {"_id": id_}}, {"text": text})
    ]
    answer = photos.bulk(ml, lines)
    assert not answer["errors"], answer["items"]
    stored, codes = photos.index.get(ids).codes("text")
    assert stored == ids and (codes.packed == encoder.encode_texts(STRANGE).packed).all()
    for text in STRANGE[:5]:
        answer = photos.search(ml, "text-to-text", {"query": {"match": {"text": text}}, "size": 3})
        wanted = photos.index.search(encoder.encode_texts([text]), 3, target="text")[0]
        assert found(answer) == plain(wanted)
    assert photos.index.delete(ids) == len(ids)


@pytest.mark.parametrize("absent", [{}, {"text": None}, {"text": "  "}, {"text": "null", "a": 1}])
def test_nothing_to_encode_is_no_failure(photos: Photos, ml: Server, absent: Any) -> None:
    kept = photos.put(ml, "empty", {**absent, "image_base64": ""})
    assert kept == {**absent, "xmodal": {"id": "empty"}}
    assert photos.index.delete(["empty"]) == 1


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"text": "a star", "image_base64": "bm90aGluZw=="}, "not a picture"),
        ({"text": "a star", "image_base64": "no base64!"}, "base64"),
        ({"text": ["a star", "two"]}, "field text holds several values, expected one text"),
        ({"text": "${parameters.inputImage}"}, "which ml-commons replaces"),
    ],
)
def test_a_bad_document_is_refused_with_the_reason(
    photos: Photos, ml: Server, document: dict[str, Any], words: str
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


def test_ids_are_the_documents_own(photos: Photos, ml: Server) -> None:
    through = f"pipeline={pipeline(photos.told, 'ingest')}"
    with pytest.raises(Refused, match=r"the document has no id here.*PUT it to INDEX/_doc/ID"):
        ml("POST", f"{photos.name}/_doc?{through}", {"text": "a red circle"})
    with pytest.raises(Refused, match="own self-test document: rename"):
        photos.put(ml, "xmodal-self-test", {"text": "a red circle"})


def test_an_update_through_the_pipeline_makes_what_changed_anew(
    photos: Photos, encoder: Encoder, dataset: Dataset, ml: Server
) -> None:
    item = dataset.items[STORED]
    first = photos.put(ml, "up", {"text": "a red circle", "image_base64": picture(item)})
    path = f"{photos.name}/_update_by_query?pipeline={pipeline(photos.told, 'ingest')}&refresh=true"
    script = {"source": "ctx._source.text = 'a green star'"}
    ml("POST", path, {"query": {"ids": {"values": ["up"]}}, "script": script})
    second = ml("GET", f"{photos.name}/_doc/up")["_source"]
    assert second["text_code"] == encoder.encode_texts(["a green star"]).to_signed()[0]
    assert second["image_code"] == first["image_code"]
    assert photos.index.delete(["up"]) == 1


# ---- searches ----------------------------------------------------------------------------------


@pytest.mark.parametrize("asked", ["text", "image"])
@pytest.mark.parametrize("target", ["text", "image"])
def test_every_search_is_that_of_the_python_path(
    photos: Photos, encoder: Encoder, dataset: Dataset, ml: Server, asked: str, target: Any
) -> None:
    item = dataset.items[-1]
    code, query = encoder.encode_texts([item.text or ""]), {"text": item.text}
    if asked == "image":
        code, query = encoder.encode_images([str(item.image)]), {"image_base64": picture(item)}
    for size in (1, 7, STORED + 5):
        body = {"query": {"match": query}, "size": size}
        answer = photos.search(ml, f"{asked}-to-{target}", body)
        assert found(answer) == plain(photos.index.search(code, size, target=target)[0])
    answer = photos.search(ml, f"{asked}-to-{target}", {"query": {"match": query}})
    assert len(found(answer)) == 10


def test_the_rest_of_a_request_is_left_alone(photos: Photos, encoder: Encoder, ml: Server) -> None:
    code = encoder.encode_texts(["a red circle"])
    query = {"query": {"match": {"text": {"query": "a red circle"}}}}
    every = plain(photos.index.search(code, 99, target="image")[0])

    def ask(**more: Any) -> Any:
        return photos.search(ml, "text-to-image", query | more)

    assert found(ask(size=5)) + found(ask(**{"from": 5, "size": 99})) == every
    filtered = photos.index.search(code, 99, target="image", where={"size": "large"})[0]
    large = {"post_filter": {"term": {"size": "large"}}, "size": 99}
    assert 0 < len(filtered) < len(every) and found(ask(**large)) == plain(filtered)
    radius = every[5][1]
    near = photos.index.search(code, 99, target="image", radius=radius)[0]
    assert found(ask(min_score=1 / (1 + radius), size=99)) == plain(near)
    hit = ask(size=1, _source=["text"])["hits"]["hits"][0]
    assert list(hit["_source"]) == ["text"]
    assert "_source" not in ask(size=1, _source=False)["hits"]["hits"][0]
    by_id = ask(size=99, sort=[{"xmodal.id": "desc"}])["hits"]["hits"]
    assert [one["_id"] for one in by_id] == sorted((one[0] for one in every), reverse=True)
    after = ask(size=5)["hits"]["hits"][-1]["sort"]
    assert found(ask(size=99, search_after=after)) == every[5:]
    counted = ask(size=0, aggs={"c": {"terms": {"field": "colour"}}})["aggregations"]["c"]
    assert sum(one["doc_count"] for one in counted["buckets"]) == len(every)


def test_another_query_is_refused_with_what_is_missing(photos: Photos, ml: Server) -> None:
    for query in ({"match_all": {}}, {"match": {"title": "a red circle"}}):
        with pytest.raises(Refused, match=r"cannot find field: \$.query.match\['text'\].query"):
            photos.search(ml, "text-to-image", {"query": query})


def test_neural_search_has_filters_of_its_own(
    photos: Photos, encoder: Encoder, dataset: Dataset, ml: Server
) -> None:
    item = dataset.items[-1]
    code = encoder.encode_images([str(item.image)])
    wanted = photos.index.search(code, 99, target="image", where={"size": "large"})[0]
    asked = {"query_image": picture(item), "k": 99, "filter": {"term": {"size": "large"}}}
    body = {"query": {"neural": {"image_code": asked}}, "size": 99, "_source": False}
    answer = photos.search(ml, "neural", body | {"sort": ["_score", {"xmodal.id": "asc"}]})
    assert [one[:2] for one in found(answer)] == [(hit.id, hit.distance) for hit in wanted]
    assert 3 < len(wanted) < STORED


def test_processors_of_neural_search_write_the_same_codes(
    photos: Photos, encoder: Encoder, dataset: Dataset, ml: Server
) -> None:
    """The alternative of the documents: text_embedding and text_image_embedding, by our model."""
    item = dataset.items[STORED]
    model = photos.told["steps"][1]["id"]
    picture_alone = {"embedding": "image_code", "field_map": {"image": "image_base64"}}
    processors = [
        {"text_embedding": {"model_id": model, "field_map": {"text": "text_code"}}},
        {"text_image_embedding": {"model_id": model, **picture_alone}},
        {"remove": {"field": "image_base64", "ignore_missing": True}},
        {"set": {"field": "xmodal.id", "value": "{{_id}}"}},
    ]
    ml("PUT", "_ingest/pipeline/by-neural", {"processors": processors})
    for id_, document in (
        ("both", {"text": item.text, "image_base64": picture(item)}),
        ("words", {"text": item.text}),
    ):
        ml("PUT", f"{photos.name}/_doc/{id_}?pipeline=by-neural&refresh=true", document)
    text = encoder.encode_texts([item.text or ""])
    image = encoder.encode_images([str(item.image)])
    stored, codes = photos.index.get(["both", "words"]).codes("text")
    assert stored == ["both", "words"] and (codes.packed == text.packed).all()
    stored, codes = photos.index.get(["both", "words"]).codes("image")
    assert stored == ["both"] and (codes.packed == image.packed).all()
    body = {"query": {"match": {"image_base64": picture(item)}}, "size": 99}
    hits = found(photos.search(ml, "image-to-image", body))
    assert hits == plain(photos.index.search(image, 99, target="image")[0])
    assert ("both", 0) in [hit[:2] for hit in hits]
    assert photos.index.delete(["both", "words"]) == 2
    ml("DELETE", "_ingest/pipeline/by-neural")
