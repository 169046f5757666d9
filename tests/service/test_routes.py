"""HTTP responses equal the results of the encoder and the index."""

from __future__ import annotations

import base64
import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.packed_files import archive
from support.service_process import Running, running

from xmodal.codes import BinaryCodes
from xmodal.encoders.encoder import Encoder
from xmodal.index.contract import open_index
from xmodal.index.local import HammingIndex
from xmodal.retrieval.retriever import Retriever
from xmodal.service import create_app

WORDS = "a red circle on the left"


@pytest.fixture(scope="module")
def index(index_path: Path, encoder: Encoder) -> HammingIndex:
    """The index of the service, opened a second time."""
    opened = open_index(index_path, bits=encoder.bits, fingerprint=encoder.fingerprint)
    assert isinstance(opened, HammingIndex)
    return opened


def base64_of(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def triples(hits: list[dict[str, Any]]) -> list[tuple[str, int, dict[str, Any]]]:
    return [(hit["id"], hit["distance"], hit["fields"]) for hit in hits]


@pytest.fixture
def search(encoder: Encoder, index: HammingIndex) -> Any:
    """A function: arguments of Retriever.search -> triples of its hits."""

    def found(**arguments: Any) -> list[tuple[str, int, Any]]:
        hits = Retriever(encoder, index).search(**arguments)
        return [(hit.id, hit.distance, hit.fields) for hit in hits]

    return found


# ---- searching -------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["image", "text"])
def test_text_search_returns_the_hits_of_the_index(
    service: Running, encoder: Encoder, index: HammingIndex, target: Any
) -> None:
    answer = service.post("/v1/search", {"text": WORDS, "k": 7, "target": target}).json()
    expected = Retriever(encoder, index).search(text=WORDS, k=7, target=target)
    names = ("id", "distance", "fields", "confidence", "similarity", "score", "ranks")
    for hit, of_index in zip(answer["hits"], expected, strict=True):
        assert [hit[name] for name in names] == [getattr(of_index, name) for name in names]
        assert hit["matched"] == list(of_index.matched)
    assert (answer["target"], answer["bits"]) == (target, encoder.bits) and answer["took_ms"] > 0


def test_image_search_returns_the_hits_of_the_index(
    service: Running, index: HammingIndex, search: Any
) -> None:
    id_ = index.codes("image")[0][3]
    path = Path(index.get([id_]).fields_by_id()[id_]["image"])
    for image in (base64_of(path), f"data:image/png;base64,{base64_of(path)}"):
        found = service.post("/v1/search", {"image": image, "k": 3, "target": "text"}).json()
        assert triples(found["hits"]) == search(image=path, k=3)
        assert all(hit["confidence"] is not None for hit in found["hits"])
    same = service.post("/v1/search", {"image": base64_of(path), "k": 150}).json()["hits"]
    assert triples(same) == search(image=path, k=150, target="image")
    assert id_ in {hit["id"] for hit in same}
    assert {hit["confidence"] for hit in same} == {None}


def test_parts_of_a_query_are_combined(service: Running, index: HammingIndex, search: Any) -> None:
    id_ = index.codes("image")[0][3]
    path = Path(index.get([id_]).fields_by_id()[id_]["image"])
    body: dict[str, Any] = {"image": base64_of(path), "not": ["blue star"], "k": 9, "offset": 2}
    body |= {"by": "codes", "stage": "weighted", "weights": {"image": 2.0, "not": 0.25}}
    expected = search(
        text=WORDS,
        image=path,
        not_text=["blue star"],
        target="image",
        k=9,
        offset=2,
        by="codes",
        stage="weighted",
        weights={"image": 2.0, "not": 0.25},
    )
    found = service.post("/v1/search", {"text": WORDS, **body}).json()["hits"]
    assert triples(found) == expected
    typed = service.post("/v1/search", {"typed": f'{WORDS} -"blue star"', **body, "not": []})
    assert triples(typed.json()["hits"]) == expected
    nothing = service.post("/v1/search", {"typed": "-blue"})
    assert nothing.status_code == 422


def test_more_like_this_excludes_the_document(
    service: Running, index: HammingIndex, search: Any
) -> None:
    ids = index.codes("image")[0]
    answer = service.post("/v1/search", {"like": ids[5], "k": 4}).json()["hits"]
    assert triples(answer) == search(like=ids[5], k=4)
    assert ids[5] not in {hit["id"] for hit in answer}
    unknown = service.post("/v1/search", {"like": "unknown"})
    assert unknown.status_code == 404 and "'unknown'" in unknown.json()["detail"]


def test_more_like_a_document_without_image_uses_its_text(encoder: Encoder) -> None:
    index = HammingIndex(encoder.bits)
    codes = BinaryCodes(np.array([[1] * 4, [2] * 4], np.uint8), encoder.bits)
    index.add(["words"], text=codes[:1])
    index.add(["picture"], image=codes[1:])
    with running(encoder, index) as service:
        (hit,) = service.post("/v1/search", {"like": "words"}).json()["hits"]
        assert (hit["id"], hit["distance"], hit["confidence"]) == ("picture", 8, None)


def test_filters_radius_and_confidence_are_applied(service: Running, search: Any) -> None:
    body = {"text": WORDS, "k": 150}
    for where in ({"colour": "red"}, {"colour": ["red", "blue"], "place": {"exists": True}}):
        answer = service.post("/v1/search", {**body, "where": where}).json()["hits"]
        assert triples(answer) == search(text=WORDS, k=150, where=where)
    every = service.post("/v1/search", body).json()["hits"]
    radius = sorted(hit["distance"] for hit in every)[40]
    within = service.post("/v1/search", {**body, "radius": radius}).json()["hits"]
    assert triples(within) == search(text=WORDS, k=150, radius=radius)
    assert {hit["distance"] <= radius for hit in within} == {True} and len(within) < len(every)
    least = sorted(hit["confidence"] for hit in every)[100]
    confident = service.post("/v1/search", {**body, "min_confidence": least}).json()["hits"]
    assert confident == [hit for hit in every if hit["confidence"] >= least]
    none = service.post("/v1/search", {"text": WORDS, "where": {"colour": "ultraviolet"}})
    assert none.status_code == 200 and none.json()["hits"] == []


def test_search_accepts_whole_floats_as_integers(service: Running) -> None:
    body = {"text": WORDS, "k": 7, "radius": 12}
    expected = service.post("/v1/search", body).json()["hits"]
    answer = service.client.post(
        "/v1/search",
        content=f'{{"text": "{WORDS}", "k": 7.0, "radius": 1.2e1}}',
        headers={"Content-Type": "application/json"},
    )
    assert answer.status_code == 200 and answer.json()["hits"] == expected


def test_concurrent_searches_equal_single_searches(service: Running, index: HammingIndex) -> None:
    ids = index.codes("image")[0][:40]
    with ThreadPoolExecutor(16) as pool:
        bodies = [{"like": id_, "k": 1 + n % 3, "target": "image"} for n, id_ in enumerate(ids)]
        found = list(pool.map(lambda body: service.post("/v1/search", body).json()["hits"], bodies))
    for body, hits in zip(bodies, found, strict=True):
        alone = service.post("/v1/search", body).json()["hits"]
        assert hits == alone and len(hits) == body["k"]


# ---- encoding --------------------------------------------------------------------------------


def test_encode_returns_the_codes_of_the_encoder(
    service: Running, encoder: Encoder, index: HammingIndex
) -> None:
    texts = [WORDS, "a blue star", WORDS]
    answer = service.post("/v1/encode", {"texts": texts}).json()
    assert answer["codes"] == encoder.encode_texts(texts).to_hex()
    assert (answer["bits"], answer["encoder"]) == (encoder.bits, encoder.fingerprint)
    paths = [
        Path(f["image"]) for f in index.get(index.codes("image")[0][:3]).fields_by_id().values()
    ]
    pictures = service.post("/v1/encode", {"images": [base64_of(path) for path in paths]}).json()
    assert pictures["codes"] == encoder.encode_images(paths).to_hex()


def test_bad_text_is_named_and_fails_its_own_request_only(service: Running) -> None:
    answer = service.post("/v1/encode", {"texts": ["a star", "!!!"]})
    assert answer.status_code == 422 and answer.json()["detail"].startswith("texts[1]: ")
    with ThreadPoolExecutor(8) as pool:
        texts = ["!!!", "a star"] * 8
        status = pool.map(lambda t: service.post("/v1/search", {"text": t}).status_code, texts)
    assert list(status) == [422, 200] * 8


def test_embed_returns_signed_bytes_in_each_format(
    service: Running, encoder: Encoder, index: HammingIndex
) -> None:
    path = Path(index.get(index.codes("image")[0][:1]).fields_by_id().popitem()[1]["image"])
    of_text = encoder.encode_texts([WORDS]).packed.view(np.int8)[0].tolist()
    of_image = encoder.encode_images([path]).packed.view(np.int8)[0].tolist()
    of_braces = encoder.encode_texts(["a ${red} $\u2060x"]).packed.view(np.int8)[0].tolist()
    image_file = base64_of(path)
    cases: list[tuple[dict[str, Any], Any, Any]] = [
        ({"inputText": WORDS}, of_text, None),
        ({"inputText": WORDS, "inputImage": "null"}, of_text, None),
        ({"inputText": "\u2060" + WORDS}, of_text, None),
        ({"inputText": "\u2060a $\u2060{red} $\u2060\u2060x"}, of_braces, None),
        ({"inputText": "\u2060", "inputImage": image_file}, None, of_image),
        ({"inputText": "null", "inputImage": image_file}, None, of_image),
        ({"inputText": "", "inputImage": image_file}, None, of_image),
        ({"inputText": None, "inputImage": image_file}, None, of_image),
        ({"inputText": WORDS, "inputImage": image_file}, of_text, of_image),
    ]
    for body, text, image in cases:
        answer = service.post("/v1/embed", body).json()
        assert (answer["text_code"], answer["image_code"]) == (text, image), body
        embedding = image or text
        assert answer["embedding"] == embedding
        assert answer["embeddings"] == {"binary": [embedding]}
        assert answer["embeddingsByType"] == {"binary": embedding}


# ---- documents and pictures ------------------------------------------------------------------


def test_documents_filters_and_about(
    service: Running, encoder: Encoder, index: HammingIndex
) -> None:
    ids = index.codes("image")[0][:2]
    answer = service.client.get("/v1/documents", params={"id": [*ids, "unknown"]}).json()
    assert [(doc["id"], doc["fields"]) for doc in answer["documents"]] == list(
        index.get(ids).fields_by_id().items()
    )
    fields = service.get("/v1/filters").json()["fields"]
    assert {f["name"]: [(v["value"], v["count"]) for v in f["values"]] for f in fields} == (
        index.facets()
    )
    about = service.get("/v1/about").json()
    assert about["documents"] == len(index) == 150 and about["ranks_words"] is True
    assert (about["encoder"], about["method"]) == (encoder.fingerprint, "schgan")


def test_thumbnail_is_a_small_jpeg_with_an_etag(service: Running, index: HammingIndex) -> None:
    hit = service.post("/v1/search", {"text": WORDS, "k": 1}).json()["hits"][0]
    first = service.client.get(hit["picture"])
    assert first.headers["content-type"] == "image/jpeg"
    thumbnail = Image.open(io.BytesIO(first.content))
    original = Image.open(hit["fields"]["image"]).convert("RGB")
    assert max(thumbnail.size) <= 320 and thumbnail.size == original.size
    assert np.abs(np.asarray(thumbnail, float) - np.asarray(original, float)).mean() < 12
    again = service.client.get(hit["picture"], headers={"if-none-match": first.headers["etag"]})
    assert again.status_code == 304 and again.content == b""
    assert service.get("/v1/picture", id="unknown").status_code == 404


@pytest.mark.parametrize("field", ["photos/{}", "{}", "{tmp}/photos/{}", "/gone/photos/{}"])
@pytest.mark.parametrize("id_", ["a/1.png", "own"])
def test_picture_is_found_at_its_original_path_and_after_a_move(
    field: str, id_: str, encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "photos" / "a").mkdir(parents=True)
    Image.new("RGB", (30, 30), "red").save(tmp_path / "photos" / "a" / "1.png")
    monkeypatch.chdir(tmp_path)
    index = HammingIndex(encoder.bits)
    codes = BinaryCodes(np.zeros((1, encoder.bits // 8), np.uint8), encoder.bits)
    index.add([id_], image=codes, fields=[{"image": field.format("a/1.png", tmp=tmp_path)}])
    expected = 404 if (id_, field) == ("own", "/gone/photos/{}") else 200
    with running(encoder, index, pictures=Path("photos")) as service:
        assert service.get("/v1/picture", id=id_).status_code == expected
        assert service.app.state.picture_sample == (1, int(expected == 200))


def test_pictures_outside_the_folder_are_not_served(encoder: Encoder, tmp_path: Path) -> None:
    folder = tmp_path / "served"
    folder.mkdir()
    for path in (folder / "in.png", tmp_path / "out.png"):
        Image.new("RGB", (900, 300), "red").save(path)
    (folder / "link.png").symlink_to(tmp_path / "out.png")
    (folder / "words.png").write_text("not a picture")
    for base in (folder, tmp_path):
        archive(base / "shard.tar", {"a.png": (folder / "in.png").read_bytes()})
    (folder / "link.tar").symlink_to(tmp_path / "shard.tar")
    paths: dict[str, Any] = {
        "in": str(folder / "in.png"),
        "packed": "shard.tar/a.png",
        "packed out": str(tmp_path / "shard.tar" / "a.png"),
        "packed link": "link.tar/a.png",
        "packed up": "shard.tar/../../out.png",
        "relative": "in.png",
        "out": str(tmp_path / "out.png"),
        "up": "../out.png",
        "link": "link.png",
        "gone": "gone.png",
        "folder": ".",
        "number": 7,
        "null": "in.png\0",
        "long": "x" * 5000,
    }
    index = HammingIndex(encoder.bits)
    codes = BinaryCodes(np.zeros((1, encoder.bits // 8), np.uint8), encoder.bits)
    for id_, value in {**paths, "words": "words.png"}.items():
        index.add([id_], image=codes, fields=[{"image": value}])
    with running(encoder, index, pictures=folder) as service:
        status = {id_: service.get("/v1/picture", id=id_).status_code for id_ in paths}
        assert status == dict.fromkeys(paths, 404) | {"in": 200, "relative": 200, "packed": 200}
        answer = service.client.get("/v1/documents", params={"id": list(paths)}).json()["documents"]
        assert {doc["id"] for doc in answer if doc["picture"]} == {"in", "relative", "packed"}
        assert service.get("/v1/picture", id="words").status_code == 422
        for size, expected in ((320, (320, 107)), (1024, (900, 300))):
            answer = service.get("/v1/picture", id="in", size=size)
            assert Image.open(io.BytesIO(answer.content)).size == expected


def test_nearest_source_is_returned_and_shown(encoder: Encoder, tmp_path: Path) -> None:
    for name, colour in (("a.png", "red"), ("b.png", "blue")):
        Image.new("RGB", (30, 30), colour).save(tmp_path / name)
    texts, images = ["a blue star", WORDS], ["a.png", "b.png", "../secret.png"]
    code = encoder.encode_texts([WORDS])
    far = BinaryCodes(~code.packed, code.bits)
    index = HammingIndex(encoder.bits)
    index.add(
        ["x"],
        text=[BinaryCodes.concatenate([far, code])],
        image=[BinaryCodes.concatenate([far, code, far])],
        fields=[{"text": texts, "image": images}],
    )
    with running(encoder, index, pictures=tmp_path) as service:
        (hit,) = service.post("/v1/search", {"text": WORDS, "target": "text"}).json()["hits"]
        assert hit["nearest"] == {"position": 1, "text": WORDS}
        assert hit["picture"] == "/v1/picture?id=x"
        (hit,) = service.post("/v1/search", {"text": WORDS, "target": "image"}).json()["hits"]
        assert hit["nearest"] == {"position": 1, "image": "b.png"}
        answer = service.client.get(hit["picture"])
        assert Image.open(io.BytesIO(answer.content)).convert("RGB").getpixel((9, 9))[2] > 200
        status = [service.get("/v1/picture", id="x", position=at).status_code for at in range(4)]
        assert status == [200, 200, 404, 404]  # outside of the folder; no such picture


def test_the_index_is_searched_by_codes_and_words_before_the_first_request(
    encoder: Encoder, index: HammingIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    targets = []
    search_words = index.search_words

    def recorded(*arguments: Any, **options: Any) -> Any:
        targets.append(options["target"])
        return search_words(*arguments, **options)

    monkeypatch.setattr(index, "search_words", recorded)
    create_app(encoder, index)
    assert sorted(targets) == ["image", "text"]


# ---- metrics -----------------------------------------------------------------------------------


def test_metrics_count_requests_and_batches(encoder: Encoder, index_path: Path) -> None:
    with running(encoder, index_path) as service:
        for _ in range(3):
            service.post("/v1/search", {"text": WORDS})
        service.post("/v1/search", {"text": 7})
        service.client.get("/anything/else")
        answer = service.client.get("/metrics")
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        lines = dict(line.rsplit(" ", 1) for line in answer.text.splitlines() if line[0] != "#")
        assert lines['xmodal_requests_total{path="/v1/search",status="200"}'] == "3.0"
        assert lines['xmodal_requests_total{path="/v1/search",status="422"}'] == "1.0"
        assert lines['xmodal_requests_total{path="other",status="404"}'] == "1.0"
        assert lines['xmodal_request_seconds_count{path="/v1/search"}'] == "4.0"
        assert lines['xmodal_batch_size_count{work="searches"}'] == "3.0"
        assert lines["xmodal_requests_running"] == "1.0"
