"""Output of the commands: markup, control characters and encodings; search strategy; imports."""

from __future__ import annotations

import io
import json
import logging
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from xmodal.cli import output

ROOT = Path(__file__).resolve().parents[2]
MARKUP = ["[/b] closes nothing", "[red]no colour[/red]", ":rocket: [link=a]b[/link]", "\\[x]"]


@pytest.mark.parametrize("cell", MARKUP)
def test_tables_print_markup_literally(cell: str, capsys: pytest.CaptureFixture[str]) -> None:
    output.print_table([["n", cell], ["1", cell]], title=cell)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and all(cell in line for line in lines)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[2Jb", r"a\x1b[2Jb"),
        ("over\rwritten", r"over\rwritten"),
        ("two\nlines", r"two\nlines"),
        ("\x9b31m", r"\x9b31m"),
        ("bell\a\x7f", r"bell\x07\x7f"),
        ("gpj.\u202eexe", r"gpj.\u202eexe"),
        ("日本 🚲 é", "日本 🚲 é"),
    ],
)
def test_control_characters_are_escaped(
    text: str, shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    output.print_table([["n", "text"], ["1", text]])
    assert capsys.readouterr().out.splitlines()[1].split(maxsplit=1)[1] == shown
    output.info(text.replace("\n", ""))
    assert capsys.readouterr().err == shown.replace(r"\n", "") + "\n"


def test_json_is_read_back_unchanged(capsys: pytest.CaptureFixture[str]) -> None:
    content = {"ids": ["\x1b[0m", "\x9b", "\u2028", "ü\n"], "n": 2}
    for indent in (None, 1):
        output.print_json(content, indent=indent)
        out = capsys.readouterr().out
        assert json.loads(out) == content and "ü" in out
        assert not re.search("[\x1b\x9b\u2028]", out)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_characters_that_the_encoding_lacks_are_replaced(
    encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for errors in ("strict", "surrogateescape"):
        raw = io.BytesIO()
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding, errors=errors))
        output.print_table([["n", "text"], ["1", "дом a"], ["2", "x" * 500]])
        output.print_line("日 b")
        output.print_json({"text": "дом"})
        sys.stdout.flush()
        *table, line, last = raw.getvalue().decode(encoding).splitlines()
        assert "??? a" in table[1] and line == "? b"
        assert json.loads(last) == {"text": "дом"}


def test_unpaired_surrogates_are_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, "utf-8"))
    output.print_line("a\udcff.png")
    assert raw.getvalue() == b"a?.png\n"


@pytest.mark.parametrize(("delay", "shown"), [(0.0, "loading x\n"), (3600.0, "")])
def test_status_is_printed_after_a_delay(
    delay: float, shown: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(output, "STATUS_DELAY", delay)
    with output.status("loading x"):
        time.sleep(0.2)
    assert capsys.readouterr() == ("", shown)


@pytest.mark.parametrize("delay", [0.0, 3600.0])
def test_slow_jobs_print_one_line_without_a_terminal(
    delay: float, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(output, "STATUS_DELAY", delay)
    with output.progress_bars() as bars:
        time.sleep(0.2)
        for job in ("pictures", "texts"):
            for done in range(0, 5000, 1000):
                bars(job, done, 5000)
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(":")[0] for line in lines] == (
        ["loading models", "pictures", "texts"] if delay == 0 else []
    )


def test_log_of_the_library_is_printed_once(capsys: pytest.CaptureFixture[str]) -> None:
    log = logging.getLogger("xmodal")
    before = log.level, log.handlers[:]
    try:
        output.print_log()
        output.print_log()
        logging.getLogger("xmodal.features").info("downloading %s", "a\x1b model")
        assert capsys.readouterr().err == "downloading a\\x1b model\n"
    finally:
        log.setLevel(before[0])
        log.handlers[:] = before[1]


def test_print_strategy_prints_indexes_of_servers_only(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for uri in ("my.index", "file:///my.index"):
        output.print_strategy(uri, "an index")
    assert capsys.readouterr().err == ""
    output.print_strategy("opensearch://localhost:9200/photos", "an index")
    assert capsys.readouterr().err == "opensearch://localhost:9200/photos: 'an index'\n"


def test_search_prints_captions_literally(
    model: Path, tmp_path: Path, xmodal_cli: Callable[..., Any]
) -> None:
    rows = [{"id": str(n), "text": f"blue {cell}"} for n, cell in enumerate(MARKUP)]
    table = tmp_path / "t.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    index = tmp_path / "i"
    xmodal_cli("index", table, "--model", model, "--index", index)
    result = xmodal_cli("search", "blue", "--model", model, "--index", index, "--target", "text")
    assert result.status == 0
    assert all(f"blue {cell}" in result.out for cell in MARKUP)


def test_errors_are_printed_to_an_ascii_terminal(tmp_path: Path) -> None:
    code = "from xmodal.cli import main; main()"
    process = subprocess.run(
        [sys.executable, "-c", code, "search", "x", "--model", "größe", "--index", "i"],
        env={"PYTHONIOENCODING": "ascii:strict", "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
    )
    assert process.returncode == 2 and rb"gr\xf6\xdfe" in process.stderr


@pytest.mark.parametrize("folder", ["xmodal/cli", "plugin/xmodal_opensearch/cli"])
def test_commands_print_only_with_the_output_module(folder: str) -> None:
    paths = sorted((ROOT / folder).glob("*.py"))
    assert len(paths) > 5
    for path in paths:
        if path.name != "output.py":
            found = re.search(
                r"\b(click\.s?echo|(?<!\.)print|sys\.stdout\.write)\(", path.read_text()
            )
            assert found is None, path
