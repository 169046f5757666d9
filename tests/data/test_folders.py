"""Tests of folders: layouts, caption files beside pictures, and what is left out and recorded."""

from __future__ import annotations

import json
import os
import socket
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from support.plain_user import plain_user, shared_folder

from xmodal.data.dataset import Dataset
from xmodal.data.problems import Problems
from xmodal.data.readers.columns import Columns
from xmodal.data.readers.read import iterate, read
from xmodal.data.readers.walk import Tree
from xmodal.data.situation import recognise
from xmodal.errors import ConfigError, DataError
from xmodal.training.train import train


def draw(folder: Path, *names: str) -> None:
    """Write small pictures; each one is a PNG, whatever its name."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), "teal").save(path, "PNG")


def write(path: Path, content: str | Any) -> Path:
    """Write a text, or another value as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def captions(data: Dataset) -> dict[str, tuple[str, ...]]:
    return {item.id: item.captions for item in data}


def problems(data: Dataset) -> dict[str, list[str]]:
    """Map kinds of problems to their names."""
    return {kind: data.problems.names(kind) for kind in data.problems.count_by_kind()}


def names_of(data: Dataset, words: str) -> list[str]:
    """Return the names of the problems whose kind contains some words."""
    return [name for kind, names in problems(data).items() if words in kind for name in names]


# ---- caption files ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("picture", "file"),
    [
        ("a.jpg", "a.txt"),
        ("A.JPG", "A.TXT"),
        ("Photo.png", "photo.Caption"),
        ("b.webp", "b.webp.txt"),
        ("v1.2.png", "v1.2.txt"),
        ("STRASSE.png", "straße.txt"),
    ],
)
def test_caption_files_are_found_in_any_case(tmp_path: Path, picture: str, file: str) -> None:
    draw(tmp_path, picture)
    write(tmp_path / file, "a bridge")
    data = read(tmp_path)
    assert captions(data) == {picture: ("a bridge",)} and not len(data.problems)


def test_json_beside_pictures_gives_captions_and_fields(tmp_path: Path) -> None:
    draw(tmp_path, "0.jpg", "1.jpg", "2.jpg", "3.jpg", "4.jpg")
    write(tmp_path / "0.json", {"caption": "a boat", "url": "u", "width": 512, "exif": {"a": 1}})
    write(tmp_path / "1.jpg.json", {"Description": "two boats", "title": "1.jpg", "tags": ["sea"]})
    write(tmp_path / "2.json", ["three boats", "boats"])
    write(tmp_path / "2.txt", "a text has precedence")
    write(tmp_path / "3.json", "{")
    write(tmp_path / "4.json", {"id": 17, "split": "test", "kind": "x", "title": ""})
    data = read(tmp_path, label_column="kind")
    assert captions(data) == {
        "0.jpg": ("a boat",),
        "1.jpg": ("two boats",),
        "2.jpg": ("a text has precedence",),
        "3.jpg": (),
        "4.jpg": (),
    }
    items = {item.id: item for item in data}
    assert items["0.jpg"].fields == {"caption": "a boat", "url": "u", "width": 512}
    assert items["1.jpg"].fields["tags"] == ["sea"]
    assert (items["4.jpg"].labels, items["4.jpg"].split) == (("x",), "test")
    assert names_of(data, "not a JSON object") == ["3.json"]
    assert names_of(data, "not stored") == ["exif (objects)"]


def test_a_named_text_column_is_read_from_json_beside_pictures(tmp_path: Path) -> None:
    draw(tmp_path, "0.jpg")
    write(tmp_path / "0.json", {"caption": "machine text", "meta": {"alt": "a windmill"}})
    (item,) = read(tmp_path, Columns(text="meta.alt"))
    assert item.captions == ("a windmill",)


def test_texts_in_a_folder_beside_that_of_the_pictures(tmp_path: Path) -> None:
    draw(tmp_path, "set/Images/3.jpg", "set/Images/deep/4.jpg", "set/Images/5.jpg", "6.jpg")
    write(tmp_path / "set/text/3.txt", "three")
    write(tmp_path / "set/text/deep/4.txt", "four")
    write(tmp_path / "set/text/6.txt", "the picture is in another folder")
    data = read(tmp_path)
    assert captions(data) == {
        "6.jpg": (),
        "set/Images/3.jpg": ("three",),
        "set/Images/5.jpg": (),
        "set/Images/deep/4.jpg": ("four",),
    }
    assert problems(data) == {"text without a picture of its name, not used": ["set/text/6.txt"]}


def test_unusable_caption_files_are_recorded_and_the_pictures_read(tmp_path: Path) -> None:
    draw(tmp_path, "a.png", "b.png", "c.png")
    write(tmp_path / "a.txt", "x" * 2_000_000)
    write(tmp_path / "B.TXT", "spelled otherwise")
    write(tmp_path / "B.txt", "spelled otherwise")
    os.mkfifo(tmp_path / "c.txt")
    data = read(tmp_path)
    assert captions(data) == {"a.png": (), "b.png": (), "c.png": ()}
    assert names_of(data, "more than 1 MB") == ["a.txt"]
    assert names_of(data, "differ by case") == ["B.TXT"]
    assert names_of(data, "pipe") == ["c.txt"]


# ---- tables ----------------------------------------------------------------------------------


def test_folders_with_and_without_tables_are_read_at_any_depth(tmp_path: Path) -> None:
    draw(tmp_path, "top.png", "a/train/1.png", "a/test/1.png", "a/test/extra.png", "b/2.png")
    for split in ("train", "test"):
        row = {"file_name": "1.png", "text": f"one of {split}"}
        write(tmp_path / "a" / split / "metadata.jsonl", json.dumps(row))
    write(tmp_path / "b" / "2.txt", "two")
    data = read(tmp_path)
    assert {item.id: (item.captions, item.split) for item in data} == {
        "top.png": ((), None),
        "a/test/1.png": (("one of test",), "test"),
        "a/train/1.png": (("one of train",), "train"),
        "b/2.png": (("two",), None),
    }
    assert names_of(data, "does not name") == ["a/test/extra.png"]


@pytest.mark.parametrize("name", ["captions.csv", "Captions.CSV", "styles.csv", "all.jsonl"])
def test_the_table_that_names_the_pictures_is_used_whatever_its_name(
    tmp_path: Path, name: str
) -> None:
    draw(tmp_path, "photos/1.png", "photos/2.png")
    row = {"image": "1.png", "caption": "a kite"}
    text = json.dumps(row) if name.endswith("jsonl") else "image,caption\n1.png,a kite\n"
    write(tmp_path / name, text)
    write(tmp_path / "numbers.csv", "a,b\n1,2\n")
    write(tmp_path / "urls.csv", "image,text\nhttps://example.org/1.png,x\n")
    write(tmp_path / "settings.json", {"image": "1.png"})
    data = read(tmp_path)
    assert captions(data) == {"1.png": ("a kite",)}
    assert names_of(data, "does not name") == ["photos/2.png"]
    assert names_of(data, "names no picture") == ["numbers.csv", "settings.json", "urls.csv"]


def test_tables_that_cannot_be_chosen_are_recorded(tmp_path: Path) -> None:
    draw(tmp_path, "two/1.png", "beside/1.png")
    for table in ("two/a.csv", "two/b.csv", "beside/c.csv"):
        write(tmp_path / table, "image,caption\n1.png,a kite\n")
    write(tmp_path / "beside" / "1.txt", "a kite of its own")
    data = read(tmp_path)
    assert captions(data) == {"two/1.png": (), "beside/1.png": ("a kite of its own",)}
    assert names_of(data, "other tables") == ["two/a.csv", "two/b.csv"]
    assert names_of(data, "caption files") == ["beside/c.csv"]


def test_two_metadata_tables_are_an_error_in_the_folder_itself_alone(tmp_path: Path) -> None:
    draw(tmp_path, "1.png", "sub/1.png")
    for name in ("metadata.csv", "metadata.jsonl"):
        write(tmp_path / "sub" / name, "file_name,text\n1.png,x\n")
    data = read(tmp_path)
    assert captions(data) == {"1.png": (), "sub/1.png": ()}
    assert len(names_of(data, "several tables")) == 1
    with pytest.raises(DataError, match=r"metadata\.jsonl and metadata\.csv"):
        read(tmp_path / "sub")


def test_a_damaged_table_of_a_subfolder_is_recorded(tmp_path: Path) -> None:
    draw(tmp_path, "1.png", "sub/2.png")
    write(tmp_path / "sub" / "metadata.parquet", "no Parquet")
    data = read(tmp_path)
    assert captions(data) == {"1.png": ()}
    assert names_of(data, "not read") and names_of(data, "does not name") == ["sub/2.png"]
    with pytest.raises(DataError, match="Parquet"):
        read(tmp_path / "sub")


def test_column_names_without_a_table_are_an_error(tmp_path: Path) -> None:
    draw(tmp_path, "1.png")
    write(tmp_path / "1.txt", "one")
    with pytest.raises(ConfigError, match="no metadata table"):
        read(tmp_path, Columns(text="caption"))


def test_class_folders_are_hinted_at_where_there_is_no_pair(tmp_path: Path) -> None:
    draw(tmp_path, "cat/1.png", "dog/2.png")
    data = read(tmp_path)
    assert "--labels-from folders" in recognise(data).line
    with pytest.raises(DataError, match="--labels-from folders"):
        train(data, tmp_path / "model")


# ---- what is left out ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "folder",
    [
        *(".git", ".Trash-1000", ".thumbnails", ".ipynb_checkpoints", "@eaDir", "#recycle"),
        *("$RECYCLE.BIN", "lost+found", "__MACOSX", "System Volume Information"),
    ],
)
def test_folders_of_trash_and_programs_are_left_out_and_recorded(
    tmp_path: Path, folder: str
) -> None:
    draw(tmp_path, "a.png", f"b/{folder}/c.png", "b/d.png")
    write(tmp_path / "b" / folder / "metadata.csv", "file_name,text\nc.png,x\n")
    data = read(tmp_path)
    assert data.ids == ["a.png", "b/d.png"]
    assert names_of(data, "trash") == [f"b/{folder}"]
    assert read(tmp_path / "b" / folder).ids == ["c.png"]  # it was named


def test_files_that_are_passed_over_are_recorded_by_ending(tmp_path: Path) -> None:
    draw(tmp_path, "a.png", "._a.png", ".hidden.png")
    others = ["Thumbs.db", "b.CR2", "c.svg", "d.mp4", "e.psd", "f.xyz", "g.XYZ", "LICENSE", "h.zip"]
    for name in (*others, "notes.txt", "i.tga"):
        write(tmp_path / name, "x")
    data = read(tmp_path)
    assert data.ids == ["a.png"]
    assert names_of(data, "hidden") == ["._a.png", ".hidden.png", "Thumbs.db"]
    assert names_of(data, "raw photo") == ["b.CR2"]
    assert names_of(data, "drawing") == ["c.svg"]
    assert names_of(data, "film") == ["d.mp4"]
    assert names_of(data, "editor") == ["e.psd"]
    assert names_of(data, "ending .xyz") == ["f.xyz", "g.XYZ"]
    assert names_of(data, "without ending") == ["LICENSE"]
    assert names_of(data, "archive") == ["h.zip"]
    assert names_of(data, "without a picture") == ["notes.txt"]
    assert names_of(data, "format that is not read") == ["i.tga"]


def test_many_endings_are_few_kinds(tmp_path: Path) -> None:
    draw(tmp_path, "a.png")
    for number in range(100):
        write(tmp_path / f"b.{number}x", "")
    data = read(tmp_path)
    assert len(data.problems.summary_lines()) < 15 and len(data.problems) == 100


def test_heic_is_a_picture_if_it_can_be_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw(tmp_path, "a.png", "IMG_1.HEIC")
    monkeypatch.setattr("xmodal.data.picture_formats.reads_heif", lambda: True)
    assert read(tmp_path).ids == ["IMG_1.HEIC", "a.png"]
    monkeypatch.setattr("xmodal.data.picture_formats.reads_heif", lambda: False)
    data = read(tmp_path)
    assert data.ids == ["a.png"] and names_of(data, "[heic]") == ["IMG_1.HEIC"]


def test_pipes_and_sockets_are_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw(tmp_path, "a.png")
    os.mkfifo(tmp_path / "b.png")
    (tmp_path / "c.png").symlink_to("b.png")
    monkeypatch.chdir(tmp_path)  # addresses of sockets are short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("d.png")
        data = read(tmp_path)
    assert data.ids == ["a.png"]
    assert names_of(data, "not opened") == ["b.png", "c.png", "d.png"]


def test_unreadable_folders_and_files_are_recorded_and_the_rest_is_read() -> None:
    with shared_folder() as folder:
        draw(folder, "a.png", "private/b.png", "c.png", "sub/d.png", "e/f.png")
        write(folder / "c.txt", "c")
        write(folder / "sub" / "metadata.csv", "file_name,text\nd.png,d\n")
        write(folder / "e" / "table.csv", "file_name,text\nf.png,f\n")
        for name in ("private", "c.txt", "sub/metadata.csv", "e/table.csv"):
            (folder / name).chmod(0)
        with plain_user():
            data = read(folder)
        assert data.ids == ["a.png", "c.png", "e/f.png"]
        for name in ("private", "c.txt", "sub/metadata.csv", "e/table.csv"):
            assert any(name in one for one in names_of(data, "")), name
        assert names_of(data, "folder not readable (Permission denied)") == ["private"]
        assert not any("damaged" in line for line in data.problems.summary_lines())


# ---- links -----------------------------------------------------------------------------------


def test_linked_folders_are_read_once(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    draw(root, "a.png", "sub/b.png")
    draw(outside, "c.png", "deep/d.png", ".git/e.png")
    (root / "up").symlink_to(root)
    (root / "same").symlink_to("sub")
    (root / "far").symlink_to(outside)
    (root / "far2").symlink_to(outside)
    (root / "farther").symlink_to(outside / "deep")
    (outside / "cycle").symlink_to(outside)
    (outside / "back").symlink_to(root)
    data = read(root)
    assert data.ids == ["a.png", "far/c.png", "farther/d.png", "sub/b.png"]
    already = ["up", "same", "far2", "far/deep", "far/cycle", "far/back"]
    assert sorted(names_of(data, "read already")) == sorted(already)
    assert names_of(data, "trash") == ["far/.git"]


def test_links_to_pictures_are_read_and_broken_ones_recorded(tmp_path: Path) -> None:
    draw(tmp_path, "far/a.png", "near/b.png")
    (tmp_path / "near" / "c.png").symlink_to(tmp_path / "far" / "a.png")
    (tmp_path / "near" / "d.png").symlink_to("gone.png")
    (tmp_path / "near" / "e.png").symlink_to("e.png")
    data = read(tmp_path / "near")
    assert data.ids == ["b.png", "c.png"]
    assert names_of(data, "does not exist") == ["d.png"]
    assert names_of(data, "link not readable") == ["e.png"]


# ---- streaming -------------------------------------------------------------------------------


def test_folders_are_listed_when_their_items_are_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(20):
        draw(tmp_path, f"{number:02d}/a.png")
    listed = []
    listing = Tree.listing
    monkeypatch.setattr(
        Tree, "listing", lambda tree, path: listed.append(path.name) or listing(tree, path)
    )
    items = iterate(tmp_path, problems=Problems())
    assert [item.id for item in islice(items, 3)] == ["00/a.png", "01/a.png", "02/a.png"]
    assert "02" in listed and "03" not in listed


def test_deep_folders_are_read_without_recursion(tmp_path: Path) -> None:
    deep = "/".join(["d"] * 300)
    draw(tmp_path, f"{deep}/a.png")
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(250)
    try:
        assert read(tmp_path).ids == [f"{deep}/a.png"]
    finally:
        sys.setrecursionlimit(limit)
