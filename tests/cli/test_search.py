"""xmodal search: words without quotes, parts of a query, output, defaults, hints."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from xmodal.cli import hits as hits_module
from xmodal.cli.hits import hit_to_json, print_hits, why
from xmodal.cli.query_command import with_exclusions
from xmodal.data.dataset import Dataset
from xmodal.encoders.encoder import Encoder
from xmodal.index.contract import Hit, open_index

Run = Callable[..., Any]
OPTIONS = {"-k": 1, "--not": 1, "--where": 1, "--json": 0, "-h": 0}


@pytest.fixture
def search(xmodal_cli: Run, model: Path, index_path: Path) -> Run:
    """``xmodal search --json`` in the index of the rendered pictures; returns the answer."""

    def run(*arguments: object) -> Any:
        options = ("--model", model, "--index", index_path, "--json")
        return json.loads(xmodal_cli("search", *options, *arguments).out)

    return run


def ids(answer: Any) -> list[str]:
    return [hit["id"] for hit in answer["hits"]]


# ---- words -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "parsed"),
    [
        ("red shoes -leather", ["red", "shoes", "--not=leather"]),
        ("red -5", ["red", "--not=5"]),
        ("-kitchen red -k5", ["--not=kitchen", "red", "-k5"]),
        ("red -k 5 --where -a=3 --json", ["red", "-k", "5", "--where", "-a=3", "--json"]),
        ("--not -x red", ["--not", "-x", "red"]),
        ("red - blue --where=a -b", ["red", "-", "blue", "--where=a", "--not=b"]),
        ("red -- -5 --json", ["red", "--", "-5", "--json"]),
        ("red --top-k 5 -h", ["red", "--top-k", "5", "-h"]),
    ],
)
def test_words_after_a_minus_sign_become_options(typed: str, parsed: list[str]) -> None:
    assert with_exclusions(typed.split(), OPTIONS) == parsed


def test_excluded_phrases() -> None:
    assert with_exclusions(["shoes", "-dark red"], OPTIONS) == ["shoes", "--not=dark red"]
    quoted = ['shoes -"dark red" -leather']
    assert with_exclusions(quoted, OPTIONS) == ["--not=dark red", "--not=leather", "shoes"]


def test_words_need_no_quotes(search: Run) -> None:
    assert search("a", "red", "circle", "-k", 5) == search("a red circle", "-k", 5)
    assert search("a", "-k", 5, "red", "circle")["query"] == "a red circle"


def test_documents_with_an_excluded_word_are_no_hits(search: Run) -> None:
    every = search("red", "-k", 150)
    assert any("circle" in hit["fields"]["text"] for hit in every["hits"])
    for excluded in (("-circle",), ("--not", "circle")):
        left = search("red", *excluded, "-k", 150)
        assert left["hits"] and left["query"] == "red -circle"
        assert not any("circle" in hit["fields"]["text"].split() for hit in left["hits"])


def test_after_two_minus_signs_all_are_words(search: Run) -> None:
    assert search("--", "red", "-circle")["query"] == "red -circle"
    assert any("circle" in hit["fields"]["text"] for hit in search("--", "red", "-circle")["hits"])


# ---- parts -----------------------------------------------------------------------------------


def test_a_picture_and_words_are_combined_by_weight(search: Run, dataset: Dataset) -> None:
    picture = dataset.items[0].images[0]
    options = ("--by", "codes", "--stage", "hamming", "--target", "image", "-k", 20)
    text, image = (search(*query, *options) for query in (["red circle"], ["--image", picture]))
    both = search("red circle", "--image", picture)
    assert both["target"] == "image" and both["query"] == f"red circle + {picture}"
    for weight, expected in (("image=0", text), ("text=0", image)):
        found = search("red circle", "--image", picture, "--weight", weight, *options)
        assert ids(found) == ids(expected)


def test_like_needs_no_model(xmodal_cli: Run, index_path: Path, dataset: Dataset) -> None:
    id_ = dataset.ids[3]
    result = xmodal_cli("search", "--like", id_, "--index", index_path, "--json", "-k", 3)
    answer = json.loads(result.out)
    assert answer["query"] == id_ and len(answer["hits"]) == 3 and id_ not in ids(answer)


def test_from_skips_hits(search: Run) -> None:
    assert ids(search("red", "--from", 4, "-k", 3)) == ids(search("red", "-k", 7))[4:]


@pytest.mark.parametrize("target", ["image", "text"])
def test_an_index_of_one_modality_is_searched_by_it(
    xmodal_cli: Run, model: Path, encoder: Encoder, dataset: Dataset, tmp_path: Path, target: str
) -> None:
    texts, pictures = ["a red circle"], [str(dataset.items[0].images[0])]
    codes = encoder.encode_texts(texts) if target == "text" else encoder.encode_images(pictures)
    with open_index(tmp_path / "i", bits=encoder.bits, create=True) as index:
        index.add(["a"], **{target: codes})
    query = ("red",) if target == "text" else ("--image", pictures[0])
    command = ("search", *query, "--model", model, "--index", tmp_path / "i", "--json")
    result = xmodal_cli(*command)
    assert ids(json.loads(result.out)) == ["a"]
    assert f"(--target {target})" in result.err
    other = "image" if target == "text" else "text"
    result = xmodal_cli(*command, "--target", other)
    assert result.status == 1 and f"--target {target}" in result.err


def test_a_text_without_a_known_token_is_said_so(
    xmodal_cli: Run, model: Path, index_path: Path
) -> None:
    command = ("search", "--model", model, "--index", index_path)
    assert "no token of these words" in xmodal_cli(*command, "zzzqqq", "wxvkj").err
    assert "no token" not in xmodal_cli(*command, "red").err


# ---- defaults --------------------------------------------------------------------------------


def test_model_and_index_are_found_in_the_working_directory(
    xmodal_cli: Run, model: Path, photos_folder: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    missing = xmodal_cli("search", "red")
    assert missing.status == 2 and ".xmodal/index" in missing.err
    shutil.copytree(model, ".xmodal/model")
    result = xmodal_cli("index", photos_folder, "--no-portable")
    assert result.status == 0 and "model: .xmodal/model" in result.err
    assert len(xmodal_cli("search", "red", "circle", "-k", 2).out.splitlines()) == 2
    assert len(xmodal_cli("search", "red", "--index", ".xmodal/index").out.splitlines()) == 10


# ---- output ----------------------------------------------------------------------------------

HITS = [
    Hit("a", 3, {"text": "a [red]\n\tcircle", "image": "photos/" + "x" * 70 + ".png"}, nearest=0),
    Hit("b", 5, {}, score=0.03, confidence=0.912, ranks={"codes": 3, "words": 1}, matched=("red",)),
]


def test_hits_in_a_pipe_are_lines_with_whole_paths(capsys: pytest.CaptureFixture[str]) -> None:
    print_hits(HITS, "image", first_rank=11)
    assert capsys.readouterr().out.splitlines() == [
        f"11\t3\t-\tcodes\ta [red]\\n\\tcircle\tphotos/{'x' * 70}.png",
        "12\t5\t91%\tcodes 3, words 1: red\t-\tb",
    ]


@pytest.mark.parametrize("width", [30, 80, 200])
def test_hits_in_a_terminal_are_wrapped(
    capsys: pytest.CaptureFixture[str], monkeypatch: Any, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr(hits_module.sys.stdout, "isatty", lambda: True)
    print_hits(HITS, "image")
    out = re.sub("\x1b[^m]*m", "", capsys.readouterr().out)
    assert "…" not in out and out.count("x") == 70  # the path is whole
    if width >= hits_module.TABLE_WIDTH:
        assert out.split()[:6] == list(hits_module.HEADER)
        assert max(map(len, out.splitlines())) <= width
    else:
        assert "2. b" in out and "distance 5, confidence 91%, codes 3, words 1: red" in out


def test_json_has_all_that_is_known() -> None:
    row = hit_to_json(HITS[1], "image")
    assert row["ranks"] == {"codes": 3, "words": 1} and row["matched"] == ["red"]
    assert hit_to_json(HITS[0], "text")["nearest"]["position"] == 0
    assert set(row) == set(Hit._fields) - {"index_name"}
    of_several = hit_to_json(HITS[1]._replace(index_name="photos-2"), "image")
    assert of_several == {"index": "photos-2"} | row


def test_why_names_the_words_that_matched() -> None:
    by_words = Hit("a", 3, {}, ranks={"codes": None, "words": 2}, matched=("red", "circle"))
    assert why(by_words) == "words 2: red circle"
    assert why(HITS[0]) == "codes"


def test_a_closed_pipe_is_no_error(model: Path, index_path: Path) -> None:
    command = [sys.executable, "-c", "from xmodal.cli import main; main()", "search", "red"]
    read, write = os.pipe()
    os.close(read)
    process = subprocess.run(
        [*command, "--model", model, "--index", index_path], stdout=write, stderr=subprocess.PIPE
    )
    os.close(write)
    assert process.returncode == 0 and b"Traceback" not in process.stderr


# ---- errors ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "part"),
    [
        ("search red --top-k 5", "--top-k (use -k)"),
        ("search red --fuse text", "see --by"),
        ("search red --tarject image", "--target"),
        ("search", "WORDS, --image or --like"),
        ("search -leather", "only words to exclude"),
        ("search --image https://example.org/a.png", "expected a file"),
        ("search --image data:image/png;base64,xx", "expected a file"),
        ("search red --weight colour=3", "'colour=3'"),
        ("search red --min-confidence 7", "expected between 0 and 1"),
        ("search red --where price=>3", "'price=>3'"),
        ("search red --by both -k x", "'x' is not a valid integer"),
        ("info a b", "xmodal info --help"),
    ],
)
def test_usage_errors_are_one_line(xmodal_cli: Run, command: str, part: str) -> None:
    result = xmodal_cli(*command.split())
    assert result.status == 2 and result.out == "" and part in result.err
    assert len(result.err.splitlines()) == 1 and result.err.startswith("xmodal: ")


def test_a_field_that_no_document_has_is_named_with_the_others(
    xmodal_cli: Run, model: Path, index_path: Path
) -> None:
    result = xmodal_cli(
        "search", "red", "--model", model, "--index", index_path, "--where", "color=red"
    )
    assert result.status == 2 and "'color', expected one of colour" in result.err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_an_index_without_the_right_to_read_is_not_told_as_damaged(
    xmodal_cli: Run, model: Path, index_path: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(index_path, tmp_path / "i")
    (copy / "index.json").chmod(0)
    result = xmodal_cli("search", "red", "--model", model, "--index", copy)
    assert result.status == 2 and "permission denied" in result.err and "damaged" not in result.err
