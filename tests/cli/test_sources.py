"""DATA of commands: several sources, paths on standard input, and options of tables."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from xmodal.index.contract import open_index

Run = Callable[..., Any]
PROGRESS = re.compile(r"loading .*")
"""Lines before an error."""
COLOURS = ("red", "green", "blue")


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """Two folders of pictures with equal names, each with a caption."""
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        for number, colour in enumerate(COLOURS):
            size = (number + 3, 3 if folder == "a" else 4)
            Image.new("RGB", size, colour).save(tmp_path / folder / f"{colour}.png")
            (tmp_path / folder / f"{colour}.txt").write_text(f"{colour} of {folder}")
    return [tmp_path / "a", tmp_path / "b"]


def standard_input(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))


def index(run: Run, *arguments: object) -> dict[str, Any]:
    result = run("index", *arguments, "--json")
    assert result.status == 0, result.err
    return json.loads(result.out)  # type: ignore[no-any-return]


def test_several_sources_are_sources_of_their_own(
    folders: list[Path], model: Path, xmodal_cli: Run, tmp_path: Path
) -> None:
    target = ("--model", model, "--index", tmp_path / "i")
    found = index(xmodal_cli, *folders, *target)
    assert found["changes"]["added"] == 6 and found["renamed"]["red.png"] == "b/red.png"
    again = index(xmodal_cli, folders[1], *target)
    assert again["changes"]["unchanged"] == 3 and again["documents"] == 6
    (folders[0] / "red.png").unlink()
    pruned = index(xmodal_cli, *folders, *target, "--prune")
    assert pruned["changes"]["removed"] == 1 and pruned["documents"] == 5
    missing = xmodal_cli("index", *folders, tmp_path / "gone", *target)
    assert missing.status == 2 and "gone does not exist" in missing.err


@pytest.mark.parametrize("separator", [b"\n", b"\r\n", b"\0"])
def test_paths_are_read_from_standard_input(
    folders: list[Path],
    model: Path,
    xmodal_cli: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    separator: bytes,
) -> None:
    paths = [folders[0] / "red.png", folders[0] / "blue.png", folders[1]]
    standard_input(monkeypatch, separator.join(str(path).encode() for path in paths))
    found = index(xmodal_cli, "-", "--model", model, "--index", tmp_path / "i")
    assert found["documents"] == 5 and found["text"] == 5
    ids = open_index(tmp_path / "i").codes("image")[0]
    assert {paths[0].as_posix(), "red.png"} <= set(ids)


def test_standard_input_without_a_path_is_refused(
    model: Path, xmodal_cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    standard_input(monkeypatch, b"\n")
    command = ("index", "-", "--model", model)
    assert "standard input" in xmodal_cli(*command).error_line(PROGRESS)
    monkeypatch.setattr("sys.stdin", None)
    assert "standard input" in xmodal_cli(*command).error_line(PROGRESS)


def test_several_sources_are_encoded_together(
    folders: list[Path], model: Path, xmodal_cli: Run, tmp_path: Path
) -> None:
    command = ("encode", *folders, "--model", model, "--out", tmp_path / "c.npz")
    assert "6 image codes, 6 text codes" in xmodal_cli(*command).out
    (tmp_path / "f.npz").write_bytes(b"")
    command = ("encode", folders[0], tmp_path / "f.npz", "--model", model, "--out", "c.npz")
    assert "f.npz is a file of features" in xmodal_cli(*command).error_line(PROGRESS)


def test_table_without_a_header_elsewhere_than_its_pictures(
    folders: list[Path], model: Path, xmodal_cli: Run, tmp_path: Path
) -> None:
    (tmp_path / "t").mkdir()
    table = tmp_path / "t" / "t.csv"
    table.write_text("".join(f"{colour}.png!{colour}, really!x\n" for colour in COLOURS))
    target = ("--model", model, "--index", tmp_path / "i")
    options = ("--separator", "!", "--columns", "image,text,-")
    for name in ("--images", "--pictures"):
        found = index(xmodal_cli, table, *target, *options, name, folders[0])
        assert (found["image"], found["text"]) == (3, 3)
    assert "--pictures" not in xmodal_cli("index", "--help").out
    refused = xmodal_cli("index", table, *target, "--columns", "text,text")
    assert "--columns" in refused.error_line(PROGRESS)
