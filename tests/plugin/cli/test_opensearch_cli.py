"""xmodal-opensearch from end to end: output, exit status, and errors of one line."""

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
from xmodal.index.parts.part import Part
from xmodal_opensearch.client.address import parse_address
from xmodal_opensearch.index.store import open_opensearch

Run = Callable[..., Any]
COMMANDS = "node create load enrich connect disconnect doctor delete demo config".split()


def alias(uri: str) -> str:
    return parse_address(uri).index


# ---- help ------------------------------------------------------------------------------------


def test_help_of_every_command_has_an_example(opensearch_cli: Run) -> None:
    overview = opensearch_cli("--help")
    assert overview.status == 0
    assert re.search(r"Example:\n +xmodal-opensearch node", overview.out)
    for command in COMMANDS:
        result = opensearch_cli(command, "--help")
        assert result.status == 0 and f"\n  {command} " in overview.out
        assert re.search(rf"Example:\n(.*\n)? +xmodal-opensearch {command}\b", result.out), command
        assert result.err == ""


def test_version_is_printed(opensearch_cli: Run) -> None:
    version = opensearch_cli("--version").out
    assert version == f"xmodal-opensearch, version {xmodal.__version__}\n"


# ---- create and delete -----------------------------------------------------------------------


def test_an_index_is_created_filled_searched_and_deleted(
    opensearch_cli: Run, xmodal_cli: Run, address: Callable[..., str], rest: Run,
    model: Path, photos_folder: Path, index_path: Path,
) -> None:  # fmt: skip
    uri = address()
    fields = ("--field", "text=text", "--field", "size=keyword", "--field", "price=float")
    created = opensearch_cli("create", uri, "--model", model, *fields)
    assert created.status == 0 and created.err == ""
    name = f"{alias(uri)}-000001"
    assert re.fullmatch(rf"{uri}: {name} on OpenSearch .*, 32 bits, .*script.*\n", created.out)
    properties = rest("GET", f"/{name}/_mapping")[name]["mappings"]["properties"]
    assert [properties[one]["type"] for one in ("text", "size", "price")] == [
        "text",
        "keyword",
        "float",
    ]

    filled = xmodal_cli("index", photos_folder, "--model", model, "--index", uri)
    assert filled.status == 0, filled.err
    assert filled.out.startswith(f"{uri}: 150 documents")
    for extra in ((), ("--where", "colour=red", "-k", 99), ("--target", "text")):
        search = ("search", "a red circle", "--model", model, "--json", *extra)
        remote, local = (xmodal_cli(*search, "--index", one) for one in (uri, index_path))
        assert remote.status == local.status == 0
        assert json.loads(remote.out) == json.loads(local.out)
    by_words = xmodal_cli(*search, "--index", uri, "--by", "words")
    assert by_words.status == 0
    assert json.loads(by_words.out)["hits"][0]["ranks"]["words"] == 1

    deleted = opensearch_cli("delete", uri, "--yes")
    assert (deleted.status, deleted.out) == (0, f"deleted {name}\n")
    again = opensearch_cli("delete", uri, "--yes")
    assert again.status == 2 and f"no index at {uri}" in again.err


def test_delete_requires_confirmation(
    opensearch_cli: Run, address: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = address()
    assert opensearch_cli("create", uri, "--bits", 64).status == 0
    prompts: list[str] = []

    def answer(word: str) -> None:
        def read(prompt: str = "", **_: Any) -> str:
            prompts.append(prompt)
            return word

        monkeypatch.setattr("click.termui.visible_prompt_func", read)

    answer("n")
    result = opensearch_cli("delete", uri)
    assert result.status == 130 and result.out == ""
    with open_opensearch(uri) as index:
        assert index.bits == 64
    answer("y")
    assert opensearch_cli("delete", uri).status == 0
    assert len(prompts) == 2


def test_delete_old_versions_only(
    opensearch_cli: Run, address: Callable[..., str], index_path: Path, rest: Run
) -> None:
    uri = address()
    for number in (1, 2, 3):
        result = opensearch_cli("load", index_path, "--index", uri, "--new-version")
        assert result.status == 0, result.err
        assert result.out.startswith(f"{uri}: 150 documents")
        new, old = (f"{alias(uri)}-{n:06}" for n in (number, number - 1))
        assert (new in result.out and old in result.out) == (number > 1)
    result = opensearch_cli("delete", uri, "--old-versions", "--yes")
    assert result.out == f"deleted {alias(uri)}-000001, {alias(uri)}-000002\n"
    assert list(rest("GET", f"/{alias(uri)}*")) == [f"{alias(uri)}-000003"]
    result = opensearch_cli("delete", uri, "--old-versions", "--yes")
    assert result.status == 2 and f"no old version at {uri}" in result.err


def test_delete_refuses_indexes_of_the_user(
    opensearch_cli: Run, address: Callable[..., str], model: Path, rest: Run
) -> None:
    plain, rolled, pointed = (address() for _ in range(3))
    rest("PUT", f"/{alias(plain)}/_doc/1?refresh=true", {"title": "a red star"})
    # The name of a rollover index has the form of a version.
    rest("PUT", f"/{alias(rolled)}-000001", {"aliases": {alias(rolled): {}}})
    rest("PUT", f"/{alias(rolled)}-000001/_doc/1?refresh=true", {"title": "a red star"})
    rest("PUT", f"/{alias(pointed)}-users", {"aliases": {alias(pointed): {}}})
    enriched = ("--model", model, "--text-field", "title")
    for uri in (plain, rolled):
        assert opensearch_cli("delete", uri, "--yes").status == 2
        assert opensearch_cli("enrich", "--index", uri, *enriched).status == 0
    for uri in (plain, rolled, pointed):
        for old in ((), ("--old-versions",)):
            result = opensearch_cli("delete", uri, "--yes", *old)
            assert result.status == 2
            assert f"{alias(uri)} is not an alias created by xmodal" in result.err
    assert len(rest("GET", f"/{alias(plain)}*,{alias(rolled)}*,{alias(pointed)}*")) == 3


# ---- load ------------------------------------------------------------------------------------


def test_load_stores_a_local_index(
    opensearch_cli: Run,
    address: Callable[..., str],
    rest: Callable[..., Any],
    index_path: Path,
    encoder: Encoder,
) -> None:
    uri = address(strategy="knn")
    result = opensearch_cli("load", index_path, "--index", uri)
    assert result.status == 0 and result.out == f"{uri}: 150 documents\n"
    assert "knn query" in result.err and "  150 created\n" in result.err
    options = ("--json", "--quiet", "--no-replicas", "--processes", "2", "--merge")
    again = opensearch_cli("load", index_path, "--index", uri, *options)
    assert again.err == ""
    stats = rest("GET", f"/{alias(uri)}/_stats/segments")
    assert stats["_all"]["primaries"]["segments"]["count"] == 1
    assert json.loads(again.out) == {
        "index": uri,
        "version": f"{alias(uri)}-000001",
        "documents": 150,
        "replaced": [],
        "refused": {},
        "problems": {},
    }
    queries = encoder.encode_texts(["a red circle", "t blue star"])
    with open_index(uri, fingerprint=encoder.fingerprint) as remote:
        local = HammingIndex.load(index_path, bits=None, fingerprint=None)
        for target in ("image", "text"):
            assert remote.search(queries, 30, target=target) == local.search(
                queries, 30, target=target
            )


def test_load_stores_parts_without_the_model(
    xmodal_cli: Run,
    opensearch_cli: Run,
    address: Callable[..., str],
    photos_folder: Path,
    model: Path,
    tmp_path: Path,
) -> None:
    parts, uri = tmp_path / "parts", address()
    for number in (1, 2):
        shard = ("--shard", f"{number}/2", "--out", parts)
        assert xmodal_cli("encode", photos_folder, "--model", model, *shard).status == 0
    incomplete = opensearch_cli("load", min(parts.iterdir()), "--index", uri)
    assert incomplete.status == 2 and "1 of 2 shards" in incomplete.err
    result = opensearch_cli("load", parts, "--index", uri, "--json")
    assert json.loads(result.out)["documents"] == len(list(photos_folder.glob("**/*.png")))
    with open_index(uri) as loaded:
        for batch in (batch for path in parts.iterdir() for batch in Part(path).batches()):
            stored = loaded.get(batch.ids)
            order = [batch.ids.index(id_) for id_ in stored.ids]
            assert (stored.packed["text"] == batch.take(order).packed["text"]).all()
            assert loaded.fingerprint == load_encoder(model).fingerprint


def test_load_accepts_without_copies_as_the_former_name_of_no_replicas(
    opensearch_cli: Run,
) -> None:
    address = "opensearch://127.0.0.1:1/photos"
    result = opensearch_cli("load", "nowhere", "--index", address, "--without-copies")
    assert result.status == 2 and "nowhere is not a local index" in result.err
    options = opensearch_cli("load", "--help").out
    assert "--no-replicas" in options and "--without-copies" not in options


def test_load_encodes_a_folder_and_switches_to_a_new_model(
    opensearch_cli: Run, address: Callable[..., str], model: Path, other_model: Path,
    photos_folder: Path, tmp_path: Path,
) -> None:  # fmt: skip
    data = tmp_path / "photos"
    data.mkdir()
    rows = [
        json.loads(line)
        for line in (photos_folder / "metadata.jsonl").read_text().splitlines()[:20]
    ]
    for row in rows:
        shutil.copy(photos_folder / row["file_name"], data)
    rows[3]["price"] = "x"
    (data / "broken.png").write_bytes(b"nothing")
    rows.append({"file_name": "broken.png"})
    (data / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    uri = address()
    assert opensearch_cli("create", uri, "--model", model, "--field", "price=float").status == 0
    result = opensearch_cli("load", data, "--index", uri, "--model", model, "--json")
    assert result.status == 0, result.err
    answer = json.loads(result.out)
    assert answer["documents"] == 19 and list(answer["refused"]) == [rows[3]["file_name"]]
    assert "[price]" in answer["refused"][rows[3]["file_name"]]
    assert answer["problems"]["picture not usable"] == 1 and "broken.png" in result.err

    other = ("load", data, "--index", uri, "--model", other_model)
    refused = opensearch_cli(*other)
    assert refused.status == 2 and refused.out == ""
    assert "--new-version" in refused.err.splitlines()[-1]
    result = opensearch_cli(*other, "--new-version", "--delete-old", "--json")
    assert result.status == 0, result.err
    answer = json.loads(result.out)
    assert answer["version"] == f"{alias(uri)}-000002" and answer["documents"] == 19
    assert answer["replaced"] == [f"{alias(uri)}-000001"]
    with open_opensearch(uri, fingerprint=load_encoder(other_model).fingerprint) as index:
        assert len(index) == 19


def test_create_like_another_index_copies_mapping_and_encoder(
    opensearch_cli: Run, address: Callable[..., str], index_path: Path
) -> None:
    uri, copy = address(strategy="long"), address()
    assert opensearch_cli("load", index_path, "--index", uri).status == 0
    result = opensearch_cli("create", copy, "--like", uri)
    assert result.status == 0, result.err
    with open_opensearch(uri) as source, open_opensearch(copy) as index:
        assert (index.bits, index.dim, index.fingerprint) == (
            source.bits,
            source.dim,
            source.fingerprint,
        )
        assert index.handle.layout == source.handle.layout and len(index) == 0
        assert index.handle.read_types() == source.handle.read_types()
    for options in (("--bits", 64), ("--field", "day=date")):
        assert opensearch_cli("create", address(), "--like", uri, *options).status == 2
    missing = opensearch_cli("create", address(), "--like", address())
    assert missing.status == 2 and "no index" in missing.err


# ---- enrich, doctor, demo --------------------------------------------------------------------


def test_enrich_adds_codes_and_names_problems(
    opensearch_cli: Run, xmodal_cli: Run, address: Callable[..., str], model: Path, rest: Run
) -> None:
    uri = address()
    for number, title in enumerate(("a red circle", "a blue star", "")):
        rest("PUT", f"/{alias(uri)}/_doc/{number}?refresh=true", {"title": title})
    photo = {"title": "a pink cross", "photo": "http://127.0.0.1:1/a.png"}
    rest("PUT", f"/{alias(uri)}/_doc/3?refresh=true", photo)
    enrich = ("enrich", "--index", uri, "--model", model)
    both = ("--text-field", "title", "--image-field", "photo")
    result = opensearch_cli(*enrich, *both, "--json")
    assert result.status == 0, result.err
    answer = json.loads(result.out)
    problems = answer.pop("problems")
    numbers = {"read": 4, "updated": 3, "changed": 0, "refused": 0, "with_codes": 3}
    assert answer == {"index": uri} | numbers
    assert problems.pop("picture not available") == 1 and sum(problems.values()) == 1
    assert "--download" in result.err
    result = opensearch_cli(*enrich, *both, "--again", "--download")
    assert result.out == f"{uri}: 3 documents updated, 3 have codes\n"
    assert "--allow-host 127.0.0.1" in result.err
    result = opensearch_cli(
        *enrich, *both, "--incomplete", "--download", "--allow-host", "127.0.0.1"
    )
    assert "Connection refused" in result.err
    result = opensearch_cli(*enrich, *both, "--dry-run")
    assert f"{uri}: 4 documents, 3 with codes of this encoder, 0 of another" in result.out
    assert json.loads(opensearch_cli(*enrich, *both, "--dry-run", "--json").out)["to_encode"] == 1
    for wrong in (("--slice", "2/1"), ("--allow-host", "a.example"), ("--workers", "0")):
        assert opensearch_cli(*enrich, *both, *wrong).status == 2
    search = ("search", "a blue star", "--model", model, "--index", uri, "--target", "text")
    hits = json.loads(xmodal_cli(*search, "--json").out)["hits"]
    codes = load_encoder(model).encode_texts(["a blue star"])
    with open_opensearch(uri) as index:
        (expected,) = index.search(codes, 10, target="text")
    assert [(hit["id"], hit["distance"]) for hit in hits] == [(h.id, h.distance) for h in expected]
    assert "1" in {hit["id"] for hit in hits}
    result = opensearch_cli("load", model, "--index", uri, "--model", model)
    assert result.status == 2
    result = opensearch_cli("enrich", "--index", uri, "--undo", "--yes")
    assert result.out == f"{uri}: codes of 3 documents removed\n"
    assert rest("GET", f"/{alias(uri)}/_doc/3")["_source"] == photo


def test_doctor_measures_and_repairs(
    opensearch_cli: Run, address: Callable[..., str], index_path: Path, rest: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("xmodal_opensearch.diagnostics.measurements.QUERIES", 2)
    uri = address(strategy="lucene-hnsw")
    assert opensearch_cli("load", index_path, "--index", uri).status == 0
    result = opensearch_cli("doctor", uri, "--json")
    assert result.status == 0 and result.err == ""
    answer = json.loads(result.out)
    assert [one["modality"] for one in answer["sides"]] == ["image", "text"]
    assert [one["codes"] for one in answer["sides"]] == [150, 150]
    assert {one["strategy"] for one in answer["latencies"]} == {"script", "graph"}
    for one in answer["latencies"]:  # the former keys
        assert (one["way"], one["side"]) == (one["strategy"], one["modality"])
    assert [one["target"] for one in answer["recalls"]] == ["image", "text"]
    assert answer["advice"]
    result = opensearch_cli("doctor", uri, "--repair")
    assert result.status == 0 and result.err == "found nothing to repair\n"
    for part in (
        "largest group of equal codes",
        "median of one query, ms",
        "the graph finds",
        "- ",
    ):
        assert part in result.out
    rest("DELETE", f"/{alias(uri)}/_doc/xmodal-self-test?refresh=true")
    result = opensearch_cli("doctor", uri)
    assert result.status == 1 and result.err == ""
    assert "xmodal-self-test: it cannot be opened" in result.out
    result = opensearch_cli("doctor", uri, "--repair", "--json")
    assert result.status == 0 and result.err.startswith("repaired: ")
    answer = json.loads(result.out)
    assert (answer["wrong"], answer["findings"], answer["not_checked"]) == (False, [], [])


def test_demo_on_a_running_server(
    opensearch_cli: Run, node_url: str, model: Path, index_path: Path, tmp_path: Path, rest: Run
) -> None:
    (tmp_path / "index").symlink_to(index_path)
    (tmp_path / "model").symlink_to(model)
    server = node_url.replace("http", "opensearch")
    try:
        result = opensearch_cli("demo", "--out", tmp_path, "--url", f"{server}/")
    finally:
        rest("DELETE", "/xmodal-demo-*")
    assert result.status == 0, result.err
    last = result.out.splitlines()[-1]
    same, total = map(int, re.match(r"(\d+) of (\d+) answers have the same", last).groups())  # type: ignore[union-attr]
    assert same == total > 100
    result = opensearch_cli("demo", "--out", tmp_path / "none")
    assert result.status == 2 and "xmodal demo --out" in result.err


# ---- usage errors ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "part"),
    [
        ("doctor opensearch://127.0.0.1:1/photos", "opensearch://127.0.0.1:1"),
        ("doctor {url}/missing", "no index missing at"),
        ("doctor {url}/missing --repair", "no index missing at"),
        ("doctor {url}", "no index"),
        ("doctor http://127.0.0.1/x", "expected opensearch://"),
        ("create {url}/x", "give one of --model"),
        ("create {url}/x --bits 64 --model m", "give one of --model"),
        ("create {url}/x --bits 60", "bits is 60"),
        ("create {url}/x --model nowhere", "encoder at nowhere"),
        ("create {url}/x --bits 64 --field day", "--field day: expected NAME=TYPE"),
        ("create {url}/x --bits 64 --field xmodal=text", "'xmodal'"),
        ("create {url}/x --bits 64 --field a=strange", "[strange]"),
        (
            "create {url}/x?strategy=much --bits 64",
            "strategy is 'much', expected one of hamming, script, knn, long",
        ),
        ("load nowhere --index {url}/x", "nowhere is not a local index"),
        ("load nowhere --index {url}/x --model m", "nowhere"),
        ("load {index} --index {url}/x --model m", "is a local index, which holds codes"),
        ("load {index} --index {url}/x --workers 0", "--workers is 0, expected at least 1"),
        ("load {index} --index {url}/x --delete-old", "--delete-old requires --new-version"),
        ("load {index}", "Missing option '--index'"),
        ("enrich --index {url}/x --model nowhere --text-field a", "encoder at nowhere"),
        ("enrich --index {url}/x --model {model}", "field"),
        ("enrich --index {url}/x --model {model} --text-field a", "no index x at"),
        ("delete {url}/missing --yes", "no index at"),
        ("node --port 70000 --folder {tmp}/n", "port is 70000"),
        ("node --port 0 --folder {tmp}/n --heap much", "heap is 'much'"),
        ("demo --out nowhere", "no demo at nowhere"),
    ],
)
def test_usage_errors_are_one_line(
    opensearch_cli: Run, node_url: str, index_path: Path, model: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, rest: Run, command: str, part: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    url = node_url.replace("http", "opensearch")
    values = {"url": url, "index": index_path, "model": model, "tmp": tmp_path}
    result = opensearch_cli(*(word.format(**values) for word in command.split()))
    assert result.status == 2 and result.out == ""
    line = result.err.splitlines()[-1]
    assert part in line and "Traceback" not in result.err
    assert len(result.err.splitlines()) == 1
    assert list(rest("GET", "/x-*")) == []


def test_create_refuses_an_existing_index(opensearch_cli: Run, address: Callable[..., str]) -> None:
    uri = address()
    assert opensearch_cli("create", uri, "--bits", 64).status == 0
    result = opensearch_cli("create", uri, "--bits", 32)
    assert result.status == 2 and f"{uri} exists" in result.err
    with open_opensearch(uri) as index:
        assert index.bits == 64
