"""xmodal index --prune, delete and info: an index stays true to its sources."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import CommandResult

from xmodal.index.contract import open_index
from xmodal.index.origins import ListedIndex

Run = Callable[..., CommandResult]


@pytest.fixture
def pictures(photos_folder: Path) -> Iterator[Path]:
    """Pictures to copy."""
    return iter(sorted(photos_folder.glob("**/*.png")))


@pytest.fixture
def holiday(pictures: Iterator[Path], tmp_path: Path) -> Path:
    """A folder of four pictures, of which one has a caption."""
    folder = tmp_path / "holiday"
    folder.mkdir()
    for name in ("a", "b", "c", "d"):
        shutil.copy(next(pictures), folder / f"{name}.png")
    (folder / "a.txt").write_text("a red circle")
    return folder


@pytest.fixture
def index(xmodal_cli: Run, model: Path, holiday: Path, tmp_path: Path) -> Path:
    """A local index of the folder."""
    result = xmodal_cli("index", holiday, "--model", model, "--index", tmp_path / "i")
    assert "(4 added)" in result.out
    return tmp_path / "i"


def ids(index: Path) -> list[str]:
    opened = open_index(index)
    assert isinstance(opened, ListedIndex)
    return [entry.id for entry in opened.entries()]


# ---- index -----------------------------------------------------------------------------------


def test_the_same_folder_from_another_working_directory_replaces_its_documents(
    xmodal_cli: Run, index: Path, holiday: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(holiday)
    (holiday / "a.txt").write_text("a blue star")
    result = json.loads(xmodal_cli("index", "../holiday", "--index", index, "--json").out)
    assert result["changes"]["unchanged"] == 3 and result["changes"]["replaced"] == 1
    assert ids(index) == ["a.png", "b.png", "c.png", "d.png"]
    hits = json.loads(xmodal_cli("search", "star", "--index", index, "--json").out)["hits"]
    images = {hit["fields"]["image"] for hit in hits}
    assert images == {str(holiday / f"{name}.png") for name in "abcd"}
    shown = xmodal_cli("search", "star", "--index", index).out
    assert str(holiday / "a.png") in shown  # a pipe gets whole paths


def test_prune_removes_what_is_gone_from_its_source_alone(
    xmodal_cli: Run, index: Path, holiday: Path, tmp_path: Path, pictures: Iterator[Path]
) -> None:
    other = tmp_path / "work"
    other.mkdir()
    shutil.copy(next(pictures), other / "a.png")
    result = xmodal_cli("index", other, "--index", index)
    assert "a.png as work/a.png" in result.err and len(ids(index)) == 5
    (holiday / "a.png").unlink()
    (holiday / "b.png").unlink()
    result = xmodal_cli("index", holiday, "--index", index)
    assert "2 documents" in result.err and "--prune" in result.err and len(ids(index)) == 5
    result = xmodal_cli("index", holiday, "--index", index, "--prune")
    assert "2 removed" in result.out
    assert ids(index) == ["c.png", "d.png", "work/a.png"]


def test_a_renamed_picture_is_one_document(xmodal_cli: Run, index: Path, holiday: Path) -> None:
    code = open_index(index).get(["b.png"]).codes("image")[1]
    (holiday / "b.png").rename(holiday / "z.png")
    result = xmodal_cli("index", holiday, "--index", index, "--json")
    assert json.loads(result.out)["changes"] == {
        **{"added": 0, "replaced": 0, "unchanged": 3, "moved": 1, "removed": 0, "missing": 0}
    }
    assert ids(index) == ["a.png", "c.png", "d.png", "z.png"]
    assert open_index(index).get(["z.png"]).codes("image")[1] == code


@pytest.mark.parametrize("left", ["nothing", "no folder", "no picture"])
def test_missing_or_empty_data_removes_nothing(
    xmodal_cli: Run, index: Path, holiday: Path, left: str
) -> None:
    shutil.rmtree(holiday)
    if left != "no folder":
        holiday.mkdir()
    if left == "no picture":
        (holiday / "readme.md").write_text("words")
    result = xmodal_cli("index", holiday, "--index", index, "--prune")
    assert result.status == 2 and "nothing was removed" in result.err
    assert len(result.err.splitlines()) == 1 and len(ids(index)) == 4


def test_tables_with_equal_ids_are_two_sources_unless_they_have_one_name(
    xmodal_cli: Run, model: Path, tmp_path: Path
) -> None:
    for name, text in (("old", "a red circle"), ("new", "a blue star")):
        (tmp_path / f"{name}.csv").write_text(f"id,text\n7,{text}\n")
    command: tuple[object, ...] = ("index", "--model", model, "--index", tmp_path / "i")
    for name in ("old", "new", "new"):
        xmodal_cli(*command, tmp_path / f"{name}.csv")
    assert ids(tmp_path / "i") == ["7", "new.csv/7"]
    command = (*command[:-1], tmp_path / "j", "--source", "shop")
    for name in ("old", "new"):
        xmodal_cli(*command, tmp_path / f"{name}.csv")
    assert ids(tmp_path / "j") == ["7"]
    assert open_index(tmp_path / "j").get(["7"]).fields_by_id()["7"]["text"] == "a blue star"


def test_a_gallery_of_moved_pictures_says_so(
    xmodal_cli: Run, index: Path, holiday: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    command = ("search", "red", "--index", index, "--gallery", "g.html")
    assert "cannot be read" not in xmodal_cli(*command).err
    assert Path("g.html").read_text().count("<img") == 4
    os.rename(holiday, tmp_path / "renamed")
    assert "4 x picture cannot be read" in xmodal_cli(*command).err


def test_pictures_that_moved_together_with_the_index_are_found(
    xmodal_cli: Run, index: Path, holiday: Path, tmp_path: Path
) -> None:
    before = tmp_path / "before"
    before.mkdir()
    for path in (index, holiday):
        path.rename(before / path.name)
    shutil.copy(before / "holiday" / "b.png", before / "holiday" / "c.png")  # another picture
    result = xmodal_cli("search", "red", "--index", before / "i", "--json")
    images = {hit["id"]: hit["fields"]["image"] for hit in json.loads(result.out)["hits"]}
    assert images["a.png"] == str(before / "holiday" / "a.png")
    assert images["c.png"] == str(holiday / "c.png")
    result = xmodal_cli("index", before / "holiday", "--index", before / "i", "--json")
    changes = json.loads(result.out)["changes"]
    assert (changes["added"], changes["replaced"], changes["missing"]) == (0, 4, 0)


# ---- delete ----------------------------------------------------------------------------------


def test_delete_by_id_names_unknown_ids(xmodal_cli: Run, index: Path) -> None:
    result = xmodal_cli("delete", index, "a.png", "nope", "c.png", "--json")
    assert json.loads(result.out) == {
        **{"index": str(index), "deleted": 2, "documents": 2, "dry_run": False},
        **{"ids": ["a.png", "c.png"], "unknown": ["nope"]},
    }
    assert "nope" in result.err and ids(index) == ["b.png", "d.png"]
    result = xmodal_cli("delete", index, "a.png")
    assert (result.status, ids(index)) == (1, ["b.png", "d.png"])


def test_delete_by_filter_and_by_source(
    xmodal_cli: Run, index: Path, holiday: Path, model: Path, tmp_path: Path
) -> None:
    (tmp_path / "t.csv").write_text("id,text,year\n1,red,2019\n2,blue,2021\n")
    xmodal_cli("index", tmp_path / "t.csv", "--index", index, "--model", model)
    result = xmodal_cli("delete", index, "--where", "year<2020", "--dry-run")
    assert "1 documents would be deleted (1)" in result.out and len(ids(index)) == 6
    assert "1 documents deleted" in xmodal_cli("delete", index, "--where", "year<2020").out
    assert xmodal_cli("delete", index, "--where", "yeer<2020").status == 2
    assert xmodal_cli("delete", index, "--source", os.path.relpath(holiday)).status == 0
    assert ids(index) == ["2"]


@pytest.mark.parametrize("arguments", [[], ["a.png", "--where", "a=b"], ["a.png", "--source", "s"]])
def test_delete_needs_one_choice_of_documents(
    xmodal_cli: Run, index: Path, arguments: list[str]
) -> None:
    result = xmodal_cli("delete", index, *arguments)
    assert result.status == 2 and "--where" in result.err and len(ids(index)) == 4


# ---- info ------------------------------------------------------------------------------------


def test_info_describes_an_index(
    xmodal_cli: Run, index: Path, holiday: Path, model: Path, tmp_path: Path
) -> None:
    (tmp_path / "t.csv").write_text(
        "id,text,year,day,sale\n1,red,2019,2024-05-01,true\n2,blue,,,\n"
    )
    xmodal_cli("index", tmp_path / "t.csv", "--index", index, "--model", model)
    found: dict[str, Any] = json.loads(xmodal_cli("info", index, "--json").out)
    assert (found["documents"], found["codes"]) == (6, {"image": 4, "text": 3})
    assert found["sources"] == {str(holiday): 4, str(tmp_path / "t.csv"): 2}
    assert found["model"]["path"] == str(model) and found["model"]["exists"]
    assert found["fields"]["year"] == {"documents": 1, "kinds": ["text"], "examples": ["2019"]}
    assert found["fields"]["day"]["kinds"] == ["date"]
    assert found["bytes"]["index.json"] > 0 and found["bits"] == 32
    table = xmodal_cli("info", index).out
    for datum in ("6 documents", "4 of images, 3 of texts", "32 bits", str(holiday), "2024-05-01"):
        assert datum in table, datum
    shutil.move(model, tmp_path / "moved")
    try:
        assert "not there" in xmodal_cli("info", index).out
    finally:
        shutil.move(tmp_path / "moved", model)


def test_info_and_delete_of_a_missing_index(xmodal_cli: Run, tmp_path: Path) -> None:
    for command in (["info", "none"], ["delete", "none", "a"]):
        assert xmodal_cli(command[0], tmp_path / command[1], *command[2:]).status == 2
