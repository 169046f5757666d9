"""xmodal search --queries: forms of the queries and of the results; --preview in a terminal."""

from __future__ import annotations

import base64
import csv
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image

from xmodal.cli.preview import half_blocks, iterm_sequence, kitty_sequence, protocol

Run = Callable[..., Any]


@pytest.fixture
def search(xmodal_cli: Run, model: Path, index_path: Path, tmp_path: Path) -> Run:
    """``xmodal search`` in the index of the rendered pictures, in an empty folder."""
    return lambda *arguments: xmodal_cli(
        "search", "--model", model, "--index", index_path, *arguments
    )


def single(search: Run, *arguments: object) -> list[str]:
    return [hit["id"] for hit in json.loads(search(*arguments, "--json").out)["hits"]]


@pytest.fixture
def queries(tmp_path: Path) -> Path:
    path = tmp_path / "queries.txt"
    path.write_text("a red circle\n\na blue star\n")
    return path


def test_each_form_has_the_hits_of_single_searches(
    search: Run, queries: Path, tmp_path: Path
) -> None:
    expected = {
        id_: single(search, text, "-k", 3)
        for id_, text in (("1", "a red circle"), ("3", "a blue star"))
    }
    for ending in ("jsonl", "csv", "parquet", "run"):
        out = tmp_path / "new" / f"hits.{ending}"
        result = search("--queries", queries, "--out", out, "-k", 3)
        assert result.status == 0 and result.out == f"{out}: 6 hits of 2 queries\n"
        assert {id_: hits for id_, hits in read_hits(out).items()} == expected


def read_hits(path: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    if path.suffix == ".jsonl":
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        return {row["id"]: [hit["id"] for hit in row["hits"]] for row in rows}
    if path.suffix == ".run":
        lines = [line.split(" ") for line in path.read_text().splitlines()]
        scores = [float(line[4]) for line in lines[:3]]
        assert scores == sorted(scores, reverse=True)
        pairs = [(line[0], line[2]) for line in lines]
    elif path.suffix == ".csv":
        with open(path, newline="") as file:
            pairs = [(row["query_id"], row["id"]) for row in csv.DictReader(file)]
    else:
        pairs = [(row["query_id"], row["id"]) for row in pq.read_table(path).to_pylist()]
    for query, hit in pairs:
        found.setdefault(query, []).append(hit)
    return found


def test_queries_of_a_table(search: Run, photos_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "q.csv").write_text("id,query\nq1,a red circle\n")
    search("--queries", tmp_path / "q.csv", "--out", tmp_path / "o.jsonl", "-k", 2)
    assert read_hits(tmp_path / "o.jsonl") == {"q1": single(search, "a red circle", "-k", 2)}
    rows = [
        {"id": "p", "image": str(photos_folder / "00003.png")},
        {"id": "missing", "image": "no.png", "text": ""},
    ]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = search("--queries", tmp_path / "q.jsonl", "--out", tmp_path / "o.jsonl", "-k", 2)
    assert "picture missing" in result.err
    expected = single(search, "--image", photos_folder / "00003.png", "-k", 2)
    assert read_hits(tmp_path / "o.jsonl") == {"p": expected}


def test_a_query_that_cannot_be_used_costs_nothing_else(search: Run, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_text("no picture")
    rows = [{"id": "bad", "image": str(tmp_path / "bad.png")}, {"id": "good", "text": "red"}]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = search("--queries", tmp_path / "q.jsonl", "--out", tmp_path / "o.csv")
    assert result.status == 0 and list(read_hits(tmp_path / "o.csv")) == ["good"]
    assert "1 x query that cannot be used: bad" in result.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--queries", "q.txt"), "--queries without --out"),
        (("red", "--out", "o.csv"), "--out without --queries"),
        (("red", "--queries", "q.txt", "--out", "o.csv"), "leave WORDS"),
        (("--queries", "q.txt", "--out", "o.xls"), ".jsonl, .csv, .parquet, .run"),
    ],
)
def test_mistakes_are_one_line(
    search: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: Any, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "q.txt").write_text("\n")
    result = search(*arguments)
    assert result.status == 2 and message in result.err and len(result.err.splitlines()) == 1
    assert not (tmp_path / "o.csv").exists()


# ---- previews ----------------------------------------------------------------------------------


def test_sequences_hold_the_picture() -> None:
    picture = Image.effect_noise((96, 64), 90).convert("RGB")
    parts = re.findall(r"\x1b_G([^;]*);([^\x1b]*)\x1b\\", kitty_sequence(picture))
    assert len(parts) > 1 and all(len(data) <= 4096 for _, data in parts)
    assert [keys.endswith("m=1") for keys, _ in parts] == [True] * (len(parts) - 1) + [False]
    (encoded,) = re.findall(r":([A-Za-z0-9+/=]+)\x07$", iterm_sequence(picture))
    for data in ("".join(data for _, data in parts), encoded):
        with Image.open(io.BytesIO(base64.b64decode(data))) as sent:
            assert sent.tobytes() == picture.tobytes()
    text = half_blocks(Image.new("RGB", (100, 50), "red"))
    assert text.plain == ("▀" * 32 + "\n") * 8 and {str(s.style) for s in text.spans} == {
        "#ff0000 on #ff0000"
    }


def test_protocol_of_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    assert protocol({"KITTY_WINDOW_ID": "1"}) is None  # the output of a test is no terminal
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    assert protocol({"KITTY_WINDOW_ID": "1"}) == "kitty"
    assert protocol({"TERM_PROGRAM": "iTerm.app"}) == "iterm"
    assert protocol({"KITTY_WINDOW_ID": "1", "TMUX": "x"}) == "blocks"
    assert protocol({"TERM": "xterm-256color"}) == "blocks" and protocol({"TERM": "dumb"}) is None


def test_a_pipe_gets_no_picture(search: Run) -> None:
    usual = search("red", "-k", 2)
    assert search("red", "-k", 2, "--preview").out == usual.out


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_a_terminal_gets_pictures(model: Path, index_path: Path) -> None:
    import pty

    script = "from xmodal.cli import main; main()"
    words = ["search", "red", "-k", "1", "--preview", "--model", model, "--index", index_path]
    variables = {"TERM": "xterm-kitty", "COLUMNS": "80"}
    variables |= {k: v for k, v in os.environ.items() if k not in ("TMUX", "STY", "TERM")}
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", script, *map(str, words)], stdout=slave, stderr=slave, env=variables
    )
    os.close(slave)
    output = b""
    while True:
        try:
            output += os.read(master, 65536)
        except OSError:  # the end of the output
            break
    os.close(master)
    assert process.wait(60) == 0 and b"\x1b_Ga=T,f=100" in output
