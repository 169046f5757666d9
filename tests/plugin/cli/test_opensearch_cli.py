"""xmodal-opensearch from end to end: what works is told plainly, what does not in one line."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import xmodal
from xmodal.encoders.encoder import Encoder
from xmodal.encoders.load import load_encoder
from xmodal.index.contract import open_index
from xmodal.index.local import HammingIndex
from xmodal_opensearch.client.address import parse_address
from xmodal_opensearch.index.store import open_opensearch

Run = Callable[..., Any]
COMMANDS = "node create load enrich connect disconnect doctor delete demo".split()


def alias(uri: str) -> str:
    return parse_address(uri).index


# ---- help ------------------------------------------------------------------------------------


def test_every_command_has_an_example(opensearch_cli: Run) -> None:
    everything = opensearch_cli("--help")
    assert everything.status == 0
    assert re.search(r"Example:\n +xmodal-opensearch node", everything.out)
    for command in COMMANDS:
        told = opensearch_cli(command, "--help")
        assert told.status == 0 and f"\n  {command} " in everything.out
        assert re.search(rf"Example:\n(.*\n)? +xmodal-opensearch {command}\b", told.out), command
        assert told.err == ""


def test_version(opensearch_cli: Run) -> None:
    version = opensearch_cli("--version").out
    assert version == f"xmodal-opensearch, version {xmodal.__version__}\n"


# ---- create, then xmodal's own commands ------------------------------------------------------


def test_create_index_search_delete(
    opensearch_cli: Run, xmodal_cli: Run, address: Callable[..., str], rest: Run,
    model: Path, world: Path, index_path: Path,
) -> None:  # fmt: skip
    uri = address()
    fields = ("--field", "text=text", "--field", "size=keyword", "--field", "price=float")
    made = opensearch_cli("create", uri, "--model", model, *fields)
    assert made.status == 0 and made.err == ""
    name = f"{alias(uri)}-000001"
    assert re.fullmatch(rf"{uri}: {name} on OpenSearch .*, 32 bits, exact search .script.\n", made.out)
    properties = rest("GET", f"/{name}/_mapping")[name]["mappings"]["properties"]
    assert [properties[one]["type"] for one in ("text", "size", "price")] == [
        "text",
        "keyword",
        "float",
    ]

    filled = xmodal_cli("index", world, "--model", model, "--index", uri)
    assert filled.status == 0, filled.err
    assert filled.out == f"{uri}: 150 documents; from {world}: 150 pictures, 150 texts\n"
    for extra in ((), ("--where", "colour=red", "-k", 99), ("--target", "text")):
        asked = ("search", "a red circle", "--model", model, "--json", *extra)
        there, here = (xmodal_cli(*asked, "--index", one) for one in (uri, index_path))
        assert there.status == here.status == 0
        assert json.loads(there.out) == json.loads(here.out)
    fused = xmodal_cli(*asked, "--index", uri, "--fuse", "text")
    assert fused.status == 0
    encoder = load_encoder(model)
    with open_opensearch(uri, fingerprint=encoder.fingerprint) as index:
        codes = encoder.encode_texts(["a red circle"])
        (wanted,) = index.search_fused(codes, ["a red circle"], 10, target="text")
    hits = json.loads(fused.out)["hits"]
    assert [(hit["id"], hit["distance"]) for hit in hits] == [(h.id, h.distance) for h in wanted]

    gone = opensearch_cli("delete", uri, "--yes")
    assert (gone.status, gone.out) == (0, f"deleted {name}\n")
    again = opensearch_cli("delete", uri, "--yes")
    assert (again.status, again.err) == (2, f"xmodal: no index at {uri}\n")


def test_delete_asks(
    opensearch_cli: Run, address: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = address()
    assert opensearch_cli("create", uri, "--bits", 64).status == 0
    asked: list[str] = []

    def answer(word: str) -> None:
        def read(prompt: str = "", **_: Any) -> str:
            asked.append(prompt)
            return word

        monkeypatch.setattr("click.termui.visible_prompt_func", read)

    answer("n")
    told = opensearch_cli("delete", uri)
    assert told.status == 130 and told.out == ""
    with open_opensearch(uri) as index:
        assert index.bits == 64
    answer("y")
    assert opensearch_cli("delete", uri).status == 0
    assert len(asked) == 2


def test_delete_old_versions_only(
    opensearch_cli: Run, address: Callable[..., str], index_path: Path, rest: Run
) -> None:
    uri = address()
    for number in (1, 2, 3):
        told = opensearch_cli("load", index_path, "--index", uri, "--new-version")
        assert told.status == 0, told.err
        assert told.out.startswith(f"{uri}: 150 documents")
        now, before = (f"{alias(uri)}-{n:06}" for n in (number, number - 1))
        says = f"; it stands for {now} now, before for {before} (kept: xmodal-opensearch delete"
        assert (says in told.out) == (number > 1)
    told = opensearch_cli("delete", uri, "--old-versions", "--yes")
    assert told.out == f"deleted {alias(uri)}-000001, {alias(uri)}-000002\n"
    assert list(rest("GET", f"/{alias(uri)}*")) == [f"{alias(uri)}-000003"]
    told = opensearch_cli("delete", uri, "--old-versions", "--yes")
    assert (told.status, told.err) == (2, f"xmodal: no old version at {uri}\n")


def test_delete_never_takes_what_is_somebodys_own(
    opensearch_cli: Run, address: Callable[..., str], model: Path, rest: Run
) -> None:
    plain, rolled, pointed = (address() for _ in range(3))
    rest("PUT", f"/{alias(plain)}/_doc/1?refresh=true", {"title": "a red star"})
    # A rollover index looks like one of our versions, but for what it holds.
    rest("PUT", f"/{alias(rolled)}-000001", {"aliases": {alias(rolled): {}}})
    rest("PUT", f"/{alias(rolled)}-000001/_doc/1?refresh=true", {"title": "a red star"})
    rest("PUT", f"/{alias(pointed)}-mine", {"aliases": {alias(pointed): {}}})
    enriched = ("--model", model, "--text-field", "title")
    for uri in (plain, rolled):
        assert opensearch_cli("delete", uri, "--yes").status == 2
        assert opensearch_cli("enrich", "--index", uri, *enriched).status == 0
    for uri in (plain, rolled, pointed):
        for old in ((), ("--old-versions",)):
            told = opensearch_cli("delete", uri, "--yes", *old)
            assert told.status == 2
            assert told.err.startswith(f"xmodal: {alias(uri)} is no alias that xmodal made (it sta")
    assert len(rest("GET", f"/{alias(plain)}*,{alias(rolled)}*,{alias(pointed)}*")) == 3


# ---- load ------------------------------------------------------------------------------------


def test_load_a_local_index(
    opensearch_cli: Run, address: Callable[..., str], index_path: Path, encoder: Encoder
) -> None:
    uri = address(strategy="knn")
    told = opensearch_cli("load", index_path, "--index", uri)
    assert told.status == 0 and told.out == f"{uri}: 150 documents\n"
    assert "32 bits, exact search (knn query)" in told.err and "  150 created\n" in told.err
    again = opensearch_cli("load", index_path, "--index", uri, "--json", "--without-copies")
    assert json.loads(again.out) == {
        "index": uri,
        "version": f"{alias(uri)}-000001",
        "documents": 150,
        "replaced": [],
        "refused": {},
        "problems": {},
    }
    queries = encoder.encode_texts(["a red circle", "two"[:1] + " blue star"])
    with open_index(uri, fingerprint=encoder.fingerprint) as there:
        here = HammingIndex.load(index_path, bits=None, fingerprint=None)
        for target in ("image", "text"):
            assert there.search(queries, 30, target=target) == here.search(
                queries, 30, target=target
            )


def test_load_pictures_and_a_new_model(
    opensearch_cli: Run, address: Callable[..., str], model: Path, other_model: Path,
    world: Path, tmp_path: Path,
) -> None:  # fmt: skip
    data = tmp_path / "photos"
    data.mkdir()
    rows = [json.loads(line) for line in (world / "metadata.jsonl").read_text().splitlines()[:20]]
    for row in rows:
        shutil.copy(world / row["file_name"], data)
    rows[3]["price"] = "x"
    (data / "broken.png").write_bytes(b"nothing")
    rows.append({"file_name": "broken.png"})
    (data / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    uri = address()
    assert opensearch_cli("create", uri, "--model", model, "--field", "price=float").status == 0
    told = opensearch_cli("load", data, "--index", uri, "--model", model, "--json")
    assert told.status == 0, told.err
    answer = json.loads(told.out)
    assert answer["documents"] == 19 and list(answer["refused"]) == [rows[3]["file_name"]]
    assert "failed to parse field [price]" in answer["refused"][rows[3]["file_name"]]
    assert answer["problems"]["picture not usable"] == 1 and "broken.png" in told.err

    other = ("load", data, "--index", uri, "--model", other_model)
    refused = opensearch_cli(*other)
    assert refused.status == 2 and refused.out == ""
    assert refused.err.splitlines()[-1].endswith("while people search this one: --new-version")
    told = opensearch_cli(*other, "--new-version", "--delete-old", "--json")
    assert told.status == 0, told.err
    answer = json.loads(told.out)
    assert answer["version"] == f"{alias(uri)}-000002" and answer["documents"] == 19
    assert answer["replaced"] == [f"{alias(uri)}-000001"]
    with open_opensearch(uri, encoder=load_encoder(other_model).fingerprint) as index:
        assert len(index) == 19


# ---- enrich, doctor, demo --------------------------------------------------------------------


def test_enrich_an_index(
    opensearch_cli: Run, xmodal_cli: Run, address: Callable[..., str], model: Path, rest: Run
) -> None:
    uri = address()
    for number, title in enumerate(("a red circle", "a blue star", "")):
        rest("PUT", f"/{alias(uri)}/_doc/{number}?refresh=true", {"title": title})
    photo = {"title": "a pink cross", "photo": "http://127.0.0.1:1/a.png"}
    rest("PUT", f"/{alias(uri)}/_doc/3?refresh=true", photo)
    asked = ("enrich", "--index", uri, "--model", model)
    both = ("--text-field", "title", "--image-field", "photo")
    told = opensearch_cli(*asked, *both, "--json")
    assert told.status == 0, told.err
    answer = json.loads(told.out)
    problems = answer.pop("problems")
    assert answer == {"index": uri, "updated": 3, "with_codes": 3}
    assert problems.pop("picture not available") == 1 and sum(problems.values()) == 1
    assert "allow downloads with --download" in told.err
    told = opensearch_cli(*asked, *both, "--again", "--download")
    assert told.out == f"{uri}: 3 documents updated, 3 have codes\n"
    assert "Connection refused" in told.err
    search = ("search", "a blue star", "--model", model, "--index", uri, "--target", "text")
    hits = json.loads(xmodal_cli(*search, "--json").out)["hits"]
    codes = load_encoder(model).encode_texts(["a blue star"])
    wanted = open_opensearch(uri).search(codes, 10, target="text")[0]
    assert [(hit["id"], hit["distance"]) for hit in hits] == [hit[:2] for hit in wanted]
    assert "1" in {hit["id"] for hit in hits}
    told = opensearch_cli("load", model, "--index", uri, "--model", model)
    assert told.status == 2


def test_doctor(
    opensearch_cli: Run, address: Callable[..., str], index_path: Path, rest: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("xmodal_opensearch.diagnostics.ASKED", 2)
    uri = address(strategy="lucene-hnsw")
    assert opensearch_cli("load", index_path, "--index", uri).status == 0
    told = opensearch_cli("doctor", uri, "--json")
    assert told.status == 0 and told.err == ""
    answer = json.loads(told.out)
    assert [one["side"] for one in answer["sides"]] == ["image", "text"]
    assert [one["codes"] for one in answer["sides"]] == [150, 150]
    assert {one["way"] for one in answer["latencies"]} == {"script", "graph"}
    assert [one["target"] for one in answer["recalls"]] == ["image", "text"]
    assert answer["advice"]
    told = opensearch_cli("doctor", uri, "--repair")
    assert told.status == 0 and told.err == "nothing was to be repaired\n"
    for words in (
        "largest group of equal ones",
        "median of one query, ms",
        "the graph finds",
        "- ",
    ):
        assert words in told.out
    rest("DELETE", f"/{alias(uri)}/_doc/xmodal-self-test?refresh=true")
    assert opensearch_cli("doctor", uri).status == 2
    told = opensearch_cli("doctor", uri, "--repair", "--json")
    assert told.status == 0 and told.err == "the self-test document was stored again\n"


def test_the_demo_on_a_server_that_runs(
    opensearch_cli: Run, node_url: str, model: Path, index_path: Path, tmp_path: Path, rest: Run
) -> None:
    (tmp_path / "index").symlink_to(index_path)
    (tmp_path / "model").symlink_to(model)
    server = node_url.replace("http", "opensearch")
    try:
        told = opensearch_cli("demo", "--out", tmp_path, "--url", f"{server}/")
    finally:
        rest("DELETE", "/xmodal-demo-*")
    assert told.status == 0, told.err
    last = told.out.splitlines()[-1]
    same, total = map(int, re.match(r"(\d+) of (\d+) answers have the same", last).groups())  # type: ignore[union-attr]
    assert same == total > 100
    told = opensearch_cli("demo", "--out", tmp_path / "none")
    assert told.status == 2 and "make it first with xmodal demo --out" in told.err


# ---- mistakes --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("doctor opensearch://127.0.0.1:1/photos", "no server answers at opensearch://127.0.0.1:1"),
        ("doctor {url}/missing", "no index missing at"),
        ("doctor {url}/missing --repair", "no index missing at"),
        ("doctor {url}", "names no index, expected opensearch://localhost:9200/photos"),
        ("doctor http://127.0.0.1/x", "is not an address, expected opensearch://"),
        ("create {url}/x", "give --model or --bits, one of them"),
        ("create {url}/x --bits 64 --model m", "give --model or --bits, one of them"),
        ("create {url}/x --bits 60", "bits is 60, expected a multiple of 8 between"),
        ("create {url}/x --model nowhere", "there is no finished encoder at nowhere"),
        ("create {url}/x --bits 64 --field day", "--field day: expected NAME=TYPE, such as day=d"),
        ("create {url}/x --bits 64 --field xmodal=text", "'xmodal' is reserved in an index with codes"),
        ("create {url}/x --bits 64 --field a=strange", "No handler for type [strange]"),
        (
            "create {url}/x?strategy=much --bits 64",
            "way is 'much', expected one of hamming, script, knn, long",
        ),
        ("load nowhere --index {url}/x", "nowhere is no local index: to encode pictures and"),
        ("load nowhere --index {url}/x --model m", "nowhere"),
        ("load {index} --index {url}/x --model m", "is a local index, whose codes are made: leave"),
        ("load {index} --index {url}/x --workers 0", "--workers is 0, expected at least 1"),
        ("load {index} --index {url}/x --delete-old", "--delete-old goes with --new-version"),
        ("load {index}", "Missing option '--index'"),
        ("enrich --index {url}/x --model nowhere --text-field a", "no finished encoder at nowhere"),
        ("enrich --index {url}/x --model {model}", "the field of the picture, of the text"),
        ("enrich --index {url}/x --model {model} --text-field a", "no index x at"),
        ("delete {url}/missing --yes", "no index at"),
        ("node --port 70000 --folder {tmp}/n", "port is 70000, expected 1 to 65535, or 0"),
        ("node --port 0 --folder {tmp}/n --heap much", "heap is 'much', expected a size such as"),
        ("demo --out nowhere", "there is no demo at nowhere"),
    ],
)
def test_mistakes_are_one_line(
    opensearch_cli: Run, node_url: str, index_path: Path, model: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, rest: Run, command: str, words: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    url = node_url.replace("http", "opensearch")
    filled = {"url": url, "index": index_path, "model": model, "tmp": tmp_path}
    told = opensearch_cli(*(part.format(**filled) for part in command.split()))
    assert told.status == 2 and told.out == ""
    line = told.err.splitlines()[-1]
    assert words in line and "Traceback" not in told.err
    assert len(told.err.splitlines()) == 1 or told.err.startswith("Usage: ")
    assert list(rest("GET", "/x-*")) == []


def test_what_exists_is_not_created_again(opensearch_cli: Run, address: Callable[..., str]) -> None:
    uri = address()
    assert opensearch_cli("create", uri, "--bits", 64).status == 0
    told = opensearch_cli("create", uri, "--bits", 32)
    assert told.err == f"xmodal: {uri} exists: delete it first, or take another name\n"
    with open_opensearch(uri) as index:
        assert index.bits == 64
