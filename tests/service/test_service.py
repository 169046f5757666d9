"""The service by HTTP on a real socket: its answers are those of the encoder and the index."""

from __future__ import annotations

import base64
import io
import re
import signal
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from absent import TORCH, command, environment
from jsonschema import Draft202012Validator
from PIL import Image
from service_process import Running, running

from xmodal.codes import BinaryCodes
from xmodal.data import Dataset
from xmodal.encoder import Encoder
from xmodal.hamming import HammingIndex
from xmodal.index import open_index

WORDS = "a red circle on the left"


@pytest.fixture(scope="module")
def index(index_path: Path, encoder: Encoder) -> HammingIndex:
    """What the service searches, opened beside it."""
    opened = open_index(index_path, bits=encoder.bits, encoder=encoder.fingerprint)
    assert isinstance(opened, HammingIndex)
    return opened


def base64_of(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def plain(hits: list[dict[str, Any]]) -> list[tuple[str, int, dict[str, Any]]]:
    return [(hit["id"], hit["distance"], hit["fields"]) for hit in hits]


# ---- searching -------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["image", "text"])
def test_words_find_what_the_index_finds(
    service: Running, encoder: Encoder, index: HammingIndex, target: Any
) -> None:
    told = service.post("/v1/search", {"text": WORDS, "k": 7, "target": target}).json()
    codes = encoder.encode_texts([WORDS])
    wanted = index.search(codes, 7, target=target)[0]
    assert plain(told["hits"]) == [(hit.id, hit.distance, hit.fields) for hit in wanted]
    assert (told["target"], told["bits"]) == (target, encoder.bits) and told["took_ms"] > 0
    for hit in told["hits"]:
        across = target == "image"
        sure = pytest.approx(encoder.confidence(hit["distance"]), abs=1e-4) if across else None
        assert hit["confidence"] == sure


def test_a_picture_finds_texts_and_itself(
    service: Running, encoder: Encoder, index: HammingIndex, world: Path
) -> None:
    id_ = index.codes("image")[0][3]
    path = Path(index.fields_of([id_])[id_]["image"])
    for given in (base64_of(path), f"data:image/png;base64,{base64_of(path)}"):
        found = service.post("/v1/search", {"image": given, "k": 3, "target": "text"}).json()
        wanted = index.search(encoder.encode_images([path]), 3, target="text")[0]
        assert plain(found["hits"]) == [(hit.id, hit.distance, hit.fields) for hit in wanted]
        assert all(hit["confidence"] is not None for hit in found["hits"])
    same = service.post("/v1/search", {"image": base64_of(path), "k": 150}).json()["hits"]
    assert {hit["distance"] for hit in same if hit["id"] == id_} == {0}
    assert {hit["confidence"] for hit in same} == {None}


def test_more_like_a_document_leaves_it_out(service: Running, index: HammingIndex) -> None:
    ids, codes = index.codes("image")
    told = service.post("/v1/search", {"like": ids[5], "k": 4}).json()["hits"]
    wanted = [h for h in index.search(codes[5:6], 5, target="image")[0] if h.id != ids[5]][:4]
    assert plain(told) == [(hit.id, hit.distance, hit.fields) for hit in wanted]
    gone = service.post("/v1/search", {"like": "nobody"})
    assert gone.status_code == 404 and "no document 'nobody'" in gone.json()["detail"]


def test_a_document_without_a_picture_is_compared_by_its_text(encoder: Encoder) -> None:
    index = HammingIndex(encoder.bits)
    codes = BinaryCodes(np.array([[1] * 4, [2] * 4], np.uint8), encoder.bits)
    index.add(["words"], text=codes[:1])
    index.add(["picture"], image=codes[1:])
    with running(encoder, index) as service:
        (hit,) = service.post("/v1/search", {"like": "words"}).json()["hits"]
        assert (hit["id"], hit["distance"]) == ("picture", 8) and hit["confidence"] is not None


def test_filters_and_cut_offs_are_those_of_the_index(
    service: Running, encoder: Encoder, index: HammingIndex
) -> None:
    codes = encoder.encode_texts([WORDS])
    for where in ({"colour": "red"}, {"colour": ["red", "blue"], "place": {"exists": True}}):
        told = service.post("/v1/search", {"text": WORDS, "k": 150, "where": where}).json()
        wanted = index.search(codes, 150, target="image", where=where)[0]
        assert plain(told["hits"]) == [(hit.id, hit.distance, hit.fields) for hit in wanted]
    near = service.post("/v1/search", {"text": WORDS, "k": 150, "radius": 5}).json()["hits"]
    assert len(near) == len(index.search(codes, 150, target="image", radius=5)[0])
    least = (encoder.confidence(4) + encoder.confidence(5)) / 2
    sure = service.post("/v1/search", {"text": WORDS, "k": 150, "min_confidence": least}).json()
    assert {hit["distance"] for hit in sure["hits"]} <= {0, 1, 2, 3, 4}
    assert len(sure["hits"]) == len(index.search(codes, 150, target="image", radius=4)[0])
    nothing = service.post("/v1/search", {"text": WORDS, "where": {"colour": "ultraviolet"}})
    assert nothing.status_code == 200 and nothing.json()["hits"] == []


def test_search_accepts_whole_numbers_written_as_floats(service: Running) -> None:
    asked = {"text": WORDS, "k": 7, "radius": 12}
    wanted = service.post("/v1/search", asked).json()["hits"]
    told = service.client.post(
        "/v1/search",
        content=f'{{"text": "{WORDS}", "k": 7.0, "radius": 1.2e1}}',
        headers={"Content-Type": "application/json"},
    )
    assert told.status_code == 200 and told.json()["hits"] == wanted


def test_searches_at_once_are_answered_each(service: Running, index: HammingIndex) -> None:
    ids = index.codes("image")[0][:40]
    with ThreadPoolExecutor(16) as pool:
        asked = [{"like": id_, "k": 1 + n % 3, "target": "image"} for n, id_ in enumerate(ids)]
        told = list(pool.map(lambda body: service.post("/v1/search", body).json()["hits"], asked))
    for body, hits in zip(asked, told, strict=True):
        alone = service.post("/v1/search", body).json()["hits"]
        assert hits == alone and len(hits) == body["k"]


# ---- encoding --------------------------------------------------------------------------------


def test_codes_are_those_of_the_encoder(
    service: Running, encoder: Encoder, index: HammingIndex
) -> None:
    texts = [WORDS, "a blue star", WORDS]
    told = service.post("/v1/encode", {"texts": texts}).json()
    assert told["codes"] == encoder.encode_texts(texts).to_hex()
    assert (told["bits"], told["encoder"]) == (encoder.bits, encoder.fingerprint)
    paths = [Path(f["image"]) for f in index.fields_of(index.codes("image")[0][:3]).values()]
    pictures = service.post("/v1/encode", {"images": [base64_of(path) for path in paths]}).json()
    assert pictures["codes"] == encoder.encode_images(paths).to_hex()


def test_one_bad_text_is_named_and_spoils_no_other_request(service: Running) -> None:
    told = service.post("/v1/encode", {"texts": ["a star", "!!!"]})
    assert told.status_code == 422 and told.json()["detail"].startswith("texts[1]: text without")
    with ThreadPoolExecutor(8) as pool:
        asked = ["!!!", "a star"] * 8
        status = pool.map(lambda t: service.post("/v1/search", {"text": t}).status_code, asked)
    assert list(status) == [422, 200] * 8


def test_embedding_speaks_signed_bytes_in_every_shape(
    service: Running, encoder: Encoder, index: HammingIndex
) -> None:
    path = Path(index.fields_of(index.codes("image")[0][:1]).popitem()[1]["image"])
    of_text = encoder.encode_texts([WORDS]).packed.view(np.int8)[0].tolist()
    of_image = encoder.encode_images([path]).packed.view(np.int8)[0].tolist()
    picture = base64_of(path)
    cases: list[tuple[dict[str, Any], Any, Any]] = [
        ({"inputText": WORDS}, of_text, None),
        ({"inputText": WORDS, "inputImage": "null"}, of_text, None),
        ({"inputText": "null", "inputImage": picture}, None, of_image),
        ({"inputText": "", "inputImage": picture}, None, of_image),
        ({"inputText": None, "inputImage": picture}, None, of_image),
        ({"inputText": WORDS, "inputImage": picture}, of_text, of_image),
    ]
    for body, text, image in cases:
        told = service.post("/v1/embed", body).json()
        assert (told["text_code"], told["image_code"]) == (text, image), body
        one = image or text
        assert told["embedding"] == one
        assert told["embeddings"] == {"binary": [one]}
        assert told["embeddingsByType"] == {"binary": one}


# ---- documents and pictures ------------------------------------------------------------------


def test_documents_facets_and_what_this_is(
    service: Running, encoder: Encoder, index: HammingIndex
) -> None:
    ids = index.codes("image")[0][:2]
    told = service.client.get("/v1/documents", params={"id": [*ids, "nobody"]}).json()
    assert [(one["id"], one["fields"]) for one in told["documents"]] == list(
        index.fields_of(ids).items()
    )
    fields = service.get("/v1/filters").json()["fields"]
    assert {one["name"]: [(v["value"], v["count"]) for v in one["values"]] for one in fields} == (
        index.facets()
    )
    about = service.get("/v1/about").json()
    assert about["documents"] == len(index) == 150 and about["ranks_words"] is False
    assert (about["encoder"], about["method"]) == (encoder.fingerprint, "schgan")


def test_thumbnails_are_small_upright_and_kept(service: Running, index: HammingIndex) -> None:
    hit = service.post("/v1/search", {"text": WORDS, "k": 1}).json()["hits"][0]
    first = service.client.get(hit["picture"])
    assert first.headers["content-type"] == "image/jpeg"
    seen = Image.open(io.BytesIO(first.content))
    original = Image.open(hit["fields"]["image"]).convert("RGB")
    assert max(seen.size) <= 320 and seen.size == original.size
    assert np.abs(np.asarray(seen, float) - np.asarray(original, float)).mean() < 12
    again = service.client.get(hit["picture"], headers={"if-none-match": first.headers["etag"]})
    assert again.status_code == 304 and again.content == b""
    assert service.get("/v1/picture", id="nobody").status_code == 404


@pytest.mark.parametrize("named", ["photos/{}", "{}", "{tmp}/photos/{}", "/gone/photos/{}"])
@pytest.mark.parametrize("id_", ["a/1.png", "own"])
def test_pictures_are_found_where_the_index_was_filled_and_where_they_moved_to(
    named: str, id_: str, encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "photos" / "a").mkdir(parents=True)
    Image.new("RGB", (30, 30), "red").save(tmp_path / "photos" / "a" / "1.png")
    monkeypatch.chdir(tmp_path)
    index = HammingIndex(encoder.bits)
    codes = BinaryCodes(np.zeros((1, encoder.bits // 8), np.uint8), encoder.bits)
    index.add([id_], image=codes, fields=[{"image": named.format("a/1.png", tmp=tmp_path)}])
    expected = 404 if (id_, named) == ("own", "/gone/photos/{}") else 200
    with running(encoder, index, pictures=Path("photos")) as service:
        assert service.get("/v1/picture", id=id_).status_code == expected
        assert service.app.state.pictures == (1, int(expected == 200))


def test_only_pictures_of_the_folder_are_shown(encoder: Encoder, tmp_path: Path) -> None:
    folder = tmp_path / "shown"
    folder.mkdir()
    for place in (folder / "in.png", tmp_path / "out.png"):
        Image.new("RGB", (900, 300), "red").save(place)
    (folder / "link.png").symlink_to(tmp_path / "out.png")
    (folder / "words.png").write_text("no picture")
    paths: dict[str, Any] = {
        "in": str(folder / "in.png"),
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
        assert status == dict.fromkeys(paths, 404) | {"in": 200, "relative": 200}
        told = service.client.get("/v1/documents", params={"id": list(paths)}).json()["documents"]
        assert {one["id"] for one in told if one["picture"]} == {"in", "relative"}
        assert service.get("/v1/picture", id="words").status_code == 422
        for size, wanted in ((320, (320, 107)), (1024, (900, 300))):
            seen = service.get("/v1/picture", id="in", size=size)
            assert Image.open(io.BytesIO(seen.content)).size == wanted


# ---- figures, description ------------------------------------------------------------------------


def test_figures_for_prometheus(encoder: Encoder, index_path: Path) -> None:
    with running(encoder, index_path) as service:
        for _ in range(3):
            service.post("/v1/search", {"text": WORDS})
        service.post("/v1/search", {"text": 7})
        service.client.get("/anything/else")
        told = service.client.get("/metrics")
        assert told.headers["content-type"].startswith("text/plain; version=0.0.4")
        lines = dict(line.rsplit(" ", 1) for line in told.text.splitlines() if line[0] != "#")
        assert lines['xmodal_requests_total{path="/v1/search",status="200"}'] == "3.0"
        assert lines['xmodal_requests_total{path="/v1/search",status="422"}'] == "1.0"
        assert lines['xmodal_requests_total{path="other",status="404"}'] == "1.0"
        assert lines['xmodal_request_seconds_count{path="/v1/search"}'] == "4.0"
        assert lines['xmodal_batch_size_count{work="searches"}'] == "3.0"
        assert lines["xmodal_requests_running"] == "1.0"


def test_answers_are_as_described(service: Running) -> None:
    description = service.get("/openapi.json").json()
    asked: dict[str, Any] = {
        "/v1/search": {"text": WORDS},
        "/v1/encode": {"texts": [WORDS]},
        "/v1/embed": {"inputText": WORDS},
    }
    for path, methods in description["paths"].items():
        for method, told in methods.items():
            content = told["responses"]["200"]["content"].get("application/json")
            if content is None:
                continue
            schema = content["schema"] | {"components": description["components"]}
            answer = (
                service.post(path, asked[path])
                if method == "post"
                else service.client.get(path, params={"id": "a"} if path == "/v1/documents" else {})
            )
            assert answer.status_code == 200, path
            Draft202012Validator(schema).validate(answer.json())


# ---- the command --------------------------------------------------------------------------------


@pytest.mark.parametrize(("served", "absent"), [("model", ()), ("portable_path", TORCH)])
def test_the_command_says_where_it_listens_and_stops_gracefully(
    served: str,
    absent: tuple[str, ...],
    index_path: Path,
    world: Path,
    dataset: Dataset,
    request: pytest.FixtureRequest,
) -> None:
    given = ("--model", request.getfixturevalue(served), "--index", index_path, "--port", 0)
    with subprocess.Popen(
        command(absent, "serve", *given, "--pictures", world),
        env=environment(),
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        said = []
        for line in process.stderr:
            said.append(line)
            if line.startswith("listening on "):
                break
        url = said[-1].removeprefix("listening on ").strip()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+", url), said
        assert any("this machine alone" in line for line in said)
        assert not any("none of" in line for line in said)
        told = httpx.post(f"{url}/v1/search", json={"text": WORDS}, trust_env=False).json()
        assert len(told["hits"]) == 20
        asked = {"image": base64_of(Path(str(dataset.items[0].image))), "k": 1}
        told = httpx.post(f"{url}/v1/search", json=asked, trust_env=False).json()
        assert told["hits"][0]["distance"] == 0
        other = {"Host": "elsewhere.example"}
        assert httpx.get(f"{url}/", headers=other, trust_env=False).status_code == 421
        process.send_signal(signal.SIGTERM)
        out, rest = process.communicate(timeout=30)
    assert process.returncode == 0 and rest == "stopped\n" and out == ""


def test_mistakes_of_the_command_are_one_line(
    xmodal_cli: Callable[..., Any], model: Path, index_path: Path, tmp_path: Path
) -> None:
    (tmp_path / "short").write_text("secret\n")
    announced = re.compile(r"\Z.")
    for given, wanted in (
        (("--port", 70000), "Invalid value for '--port'"),
        (("--host", "192.0.2.1"), "cannot listen on 192.0.2.1:8080"),
        (("--token-file", tmp_path / "short"), "16 or more ASCII characters"),
        (("--token-file", tmp_path / "gone"), "cannot be read"),
        (("--max-body", 0), "--max-body is 0, expected more than 0"),
        (("--pictures", tmp_path / "gone"), "there is no such folder"),
        (("--batch", 0), "--batch is 0, expected more than 0"),
    ):
        ran = xmodal_cli("serve", "--model", model, "--index", index_path, *given)
        assert wanted in ran.mistake(announced) and "secret" not in ran.err
    gone = xmodal_cli("serve", "--model", model, "--index", tmp_path / "none")
    assert "no index at" in gone.mistake(announced)
