"""Tests of the search for pictures that a table names in a form of another computer."""

from __future__ import annotations

import json
import os
import unicodedata
from pathlib import Path

import pytest
from PIL import Image

from xmodal.data.dataset import Dataset
from xmodal.data.readers import loose_names, pictures
from xmodal.data.readers.read import read


def draw(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), "teal").save(path, "PNG")


def table(folder: Path, *names: str) -> Path:
    """Write a table of pictures with captions; ``names`` are values of its column "image"."""
    path = folder / "t.jsonl"
    rows = [{"image": name, "text": f"picture {k}"} for k, name in enumerate(names)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def found(data: Dataset, folder: Path) -> list[str]:
    """Return the pictures of the items, relative to a folder."""
    return [str(image.relative_to(folder)) for item in data for image in item.images]


@pytest.mark.parametrize(
    ("name", "file", "note"),
    [
        ("sub\\1.png", "sub/1.png", "\\ for /"),
        (".\\sub\\1.png", "sub/1.png", "\\ for /"),
        ("SUB/1.PNG", "sub/1.png", "another case"),
        ("sub/1.png", "Sub/1.PNG", "another case"),
        (
            unicodedata.normalize("NFC", "Žluť/ů.png"),
            unicodedata.normalize("NFD", "Žluť/ů.png"),
            "",
        ),
        (unicodedata.normalize("NFD", "é.png"), unicodedata.normalize("NFC", "É.png"), "Unicode"),
        ("sub/two%20words%C3%A9.png", "sub/two wordsé.png", "percent"),
        ("sub/1", "sub/1.png", "without the ending"),
        ("sub/v1.2", "sub/v1.2.webp", "without the ending"),
        ("/sub/1.png", "sub/1.png", "/ at the beginning"),
        ("data/set/sub/1.png", "sub/1.png", "without data/set/"),
        ("C:\\Users\\me\\sub\\1.png", "sub/1.png", "without C:/Users/me/"),
        ("/home/me/sub/1.png", "sub/1.png", "without home/me/"),
        ("sub / 1.png", "sub/1.png", "spaces"),
        ("SUB\\two%20WORDS", "sub/two words.png", "percent"),
    ],
)
def test_names_of_other_computers_are_found_and_said(
    tmp_path: Path, name: str, file: str, note: str
) -> None:
    draw(tmp_path, file, "more/other.png")
    data = read(table(tmp_path, name))
    assert [item.id for item in data] == [name]
    assert found(data, tmp_path) == [file]
    assert note in " ".join(data.problems.names(pictures.OTHER_FORM))
    assert data.problems.count_by_kind().keys() == {pictures.OTHER_FORM}


def test_file_addresses_are_names(tmp_path: Path) -> None:
    draw(tmp_path, "two words.png")
    address = (tmp_path / "two words.png").as_uri()
    data = read(table(tmp_path, address, "https://example.org/1.png"))
    assert found(data, tmp_path) == ["two words.png"]
    assert data.problems.names(pictures.OTHER_FORM) == ["file: addresses"]
    assert len(data.problems.names("picture is a URL (download it first)")) == 1


def test_a_name_as_it_is_has_precedence(tmp_path: Path) -> None:
    files = ["a%20b.png", "a b.png", "x\\y.png", "x/y.png", "Case.png", "case.png"]
    draw(tmp_path, *files)
    assert found(read(table(tmp_path, *files)), tmp_path) == files


def test_a_form_is_said_once_for_a_table(tmp_path: Path) -> None:
    files = [f"sub/{k}.png" for k in range(5)]
    draw(tmp_path, *files)
    data = read(table(tmp_path, *(name.replace("/", "\\") for name in files)))
    assert found(data, tmp_path) == files
    assert data.problems.names(pictures.OTHER_FORM) == ["names with \\ for /"]


def test_names_that_fit_several_files_are_not_guessed(tmp_path: Path) -> None:
    draw(tmp_path, "A.png", "a.png", "b.png", "b.jpg")
    data = read(table(tmp_path, "a.PNG", "b"))
    assert found(data, tmp_path) == []
    assert data.problems.names("picture name fits several files, none is used") == ["a.PNG", "b"]


def test_one_leading_folder_is_left_out_but_not_several(tmp_path: Path) -> None:
    draw(tmp_path, "1.png", "2.png")
    data = read(table(tmp_path, "train/1.png", "train/2.png", "test/1.png"))
    assert [len(item.images) for item in data] == [1, 1, 0]
    assert data.problems.names("picture missing") == ["test/1.png"]


def test_pictures_are_searched_for_in_the_named_folder(tmp_path: Path) -> None:
    draw(tmp_path, "far/Photos/1.JPG")
    (tmp_path / "near").mkdir()
    path = table(tmp_path / "near", "photos\\1.jpg", "2.jpg")
    data = read(path, pictures=tmp_path / "far")
    assert found(data, tmp_path) == ["far/Photos/1.JPG"]
    assert data.problems.names("picture missing") == ["2.jpg"]


@pytest.mark.parametrize("folder", ["annotations", "Metadata", "captions"])
def test_pictures_of_a_table_in_a_folder_of_tables_are_beside_it(
    tmp_path: Path, folder: str
) -> None:
    draw(tmp_path, "pictures/1.png")
    (tmp_path / folder).mkdir()
    data = read(table(tmp_path / folder, "1.PNG"))
    assert found(data, tmp_path) == ["pictures/1.png"]


def test_pipes_and_folders_that_a_table_names_are_not_opened(tmp_path: Path) -> None:
    (tmp_path / "1.png").mkdir()
    os.mkfifo(tmp_path / "2.png")
    data = read(table(tmp_path, "1.png", "2.png", "3.png", "4\0.png", "5" * 5000))
    assert not found(data, tmp_path)
    assert data.problems.names("picture is a folder") == ["1.png"]
    assert data.problems.names("pipe, socket or device, not opened") == ["2.png"]
    assert len(data.problems.names("picture missing")) == 2
    assert len(data.problems.names("name of a picture with a zero byte")) == 1


def test_folders_are_listed_once_for_many_missing_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw(tmp_path, "sub/1.png")
    listed = []
    listdir = os.listdir
    monkeypatch.setattr(
        loose_names.os, "listdir", lambda path: listed.append(path) or listdir(path)
    )
    monkeypatch.setattr(pictures, "MAX_KNOWN", 10)
    names = [f"sub/{k}.png" for k in range(2, 300)]
    data = read(table(tmp_path, *names, *names))
    assert data.problems.count_by_kind()["picture missing"] == len(names)
    assert len(listed) == len(set(listed)) < 10


def test_folders_of_very_many_files_need_exact_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loose_names, "MAX_NAMES", 3)
    draw(tmp_path, "1.png", "2.png", "3.png", "few/4.png")
    data = read(table(tmp_path, "1.PNG", "2.png", "few/4.PNG"))
    assert found(data, tmp_path) == ["2.png", "few/4.png"]


@pytest.mark.parametrize("need_pictures", [True, False])
def test_a_name_with_a_zero_byte_is_recorded(tmp_path: Path, need_pictures: bool) -> None:
    table = tmp_path / "t.jsonl"
    table.write_text('{"id": "a", "image": "a\\u0000b.png", "text": "red"}\n')
    data = read(table, need_pictures=need_pictures)
    assert data.problems.names("name of a picture with a zero byte") == ["'a\\x00b.png'"]
    assert data.items[0].document() == {"text": "red"}
