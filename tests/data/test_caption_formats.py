"""The same captions in every format give the same documents, groups and splits."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from xmodal.data.dataset import Dataset
from xmodal.data.groups import with_groups
from xmodal.data.items import Item
from xmodal.data.readers.read import read
from xmodal.data.situation import recognise
from xmodal.data.split import split
from xmodal.errors import ConfigError, DataError

COLOURS = ["red", "green", "blue", "white", "black", "pink", "teal", "gold", "navy", "lime"]
CAPTIONS = {
    f"{colour}-{size}.png": tuple(
        f'{text}, "no. {size}"' for text in (f"a {colour} area", f"all {colour}", f"{colour} only")
    )
    for colour in COLOURS
    for size in (3, 4, 5)
}
"""Captions of each drawn picture, with commas and quotes."""
SPLITS = {name: ("val" if k % 5 == 0 else "train") for k, name in enumerate(CAPTIONS)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with a subfolder "drawn" of pictures."""
    root = tmp_path_factory.mktemp("captions")
    (root / "drawn").mkdir()
    for name in CAPTIONS:
        colour, size = name.removesuffix(".png").split("-")
        Image.new("RGB", (int(size), 4), colour).save(root / "drawn" / name)
    return root


def write_csv(path: Path, header: list[str], rows: list[list[str]]) -> Path:
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def rows(folder: Path) -> Path:
    """One row a caption; the captions of a picture are not neighbours."""
    found = [[name, SPLITS[name], CAPTIONS[name][k]] for k in range(3) for name in CAPTIONS]
    return write_csv(folder / "rows.csv", ["image", "split", "caption"], found)


def json_cells(folder: Path) -> Path:
    found = [[name, json.dumps(texts), SPLITS[name]] for name, texts in CAPTIONS.items()]
    return write_csv(folder / "cells.csv", ["File Name", "Captions", "Split"], found)


def python_cells(folder: Path) -> Path:
    found = [[name, str(list(texts)), SPLITS[name]] for name, texts in CAPTIONS.items()]
    return write_csv(folder / "python.csv", ["image", "text", "split"], found)


def lists(folder: Path) -> Path:
    path = folder / "lists.jsonl"
    found = (
        {"image": name, "captions": texts, "split": SPLITS[name]}
        for name, texts in CAPTIONS.items()
    )
    path.write_text("".join(json.dumps(row) + "\n" for row in found))
    return path


def karpathy(folder: Path) -> Path:
    images = [
        {
            "filename": name,
            "split": SPLITS[name],
            "imgid": k,
            "sentences": [{"raw": text, "tokens": text.split(), "sentid": 0} for text in texts],
        }
        for k, (name, texts) in enumerate(CAPTIONS.items())
    ]
    path = folder / "dataset_drawn.json"
    path.write_text(json.dumps({"images": images, "dataset": "drawn"}))
    return path


def coco(folder: Path) -> Path:
    numbers = {name: 100 + k for k, name in enumerate(CAPTIONS)}
    annotations = [
        {"image_id": numbers[name], "id": k, "caption": CAPTIONS[name][k]}
        for k in range(3)
        for name in CAPTIONS
    ]
    images = [{"file_name": name, "id": number} for name, number in numbers.items()]
    path = folder / "captions_drawn2017.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations}))
    return path


def token(folder: Path) -> Path:
    path = folder / "drawn.token.txt"
    lines = [
        f"{name}#{k}\t{text}\n" for name, texts in CAPTIONS.items() for k, text in enumerate(texts)
    ]
    path.write_text("".join(lines), encoding="utf-16")
    return path


def without_split(data: Dataset) -> Dataset:
    return replace(data, items=tuple(replace(item, split=None) for item in data))


@pytest.mark.parametrize("write", [rows, json_cells, python_cells, lists, karpathy, coco, token])
def test_every_format_gives_the_same_documents_and_splits(
    folder: Path, write: Callable[[Path], Path]
) -> None:
    data = read(write(folder))
    assert not len(data.problems)
    named = write not in (coco, token)
    assert {item.id: item for item in data} == {
        name: Item(name, (folder / "drawn" / name,), texts, split=SPLITS[name] if named else None)
        for name, texts in CAPTIONS.items()
    }
    assert recognise(data).name == "captions" and "90 captions" in recognise(data).line
    expected = with_groups(without_split(read(lists(folder))))
    found = with_groups(without_split(data))
    assert {item.id: item.group for item in found} == {item.id: item.group for item in expected}
    assert {role: sorted(ids) for role, ids in split(found).ids().items()} == {
        role: sorted(ids) for role, ids in split(expected).ids().items()
    }


def test_rows_with_own_ids_are_items_of_the_same_groups(folder: Path) -> None:
    found = [
        [f"{k}/{name}", name, text, SPLITS[name]]
        for name, texts in CAPTIONS.items()
        for k, text in enumerate(texts)
    ]
    table = write_csv(folder / "ids.csv", ["id", "image", "caption", "split"], found)
    data = with_groups(read(table))
    assert data.ids == [row[0] for row in found]
    groups = {item.id: item.group for item in with_groups(read(rows(folder)))}
    assert all(item.group == groups[item.id.partition("/")[2]] for item in data)
    pictures = {
        role: set(ids) for role, ids in split(with_groups(read(rows(folder)))).ids().items()
    }
    for role, ids in split(data).ids().items():
        assert {id_.partition("/")[2] for id_ in ids} == pictures[role]
        assert len(ids) == 3 * len(pictures[role])


def test_pictures_are_found_in_the_named_folder(folder: Path, tmp_path: Path) -> None:
    table = write_csv(tmp_path / "t.csv", ["image", "text"], [["red-3.png", "red"]])
    assert read(table).problems.names("picture missing") == ["red-3.png"]
    (item,) = read(table, pictures=folder / "drawn")
    assert (item.id, item.images) == ("red-3.png", (folder / "drawn" / "red-3.png",))
    with pytest.raises(ConfigError, match="no such folder"):
        read(table, pictures=folder / "none")


def test_folder_of_coco_has_the_splits_of_its_files(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "annotations").mkdir()
    for part, name in (("train2017", "red-3.png"), ("val2017", "blue-3.png")):
        (tmp_path / part).mkdir()
        (tmp_path / part / name).write_bytes((folder / "drawn" / name).read_bytes())
        annotations = [{"image_id": 1, "caption": "one"}, {"image_id": 2, "caption": "unknown"}]
        content = {"images": [{"id": 1, "file_name": name}], "annotations": annotations}
        path = tmp_path / "annotations" / f"captions_{part}.json"
        path.write_text(json.dumps(content))
    data = read(tmp_path)
    assert {item.id: (item.split, item.images[0].parent.name) for item in data} == {
        "red-3.png": ("train2017", "train2017"),
        "blue-3.png": ("val2017", "val2017"),
    }
    assert len(data.problems.names("caption of an unknown picture")) == 2
    assert [item.split for item in read(path)] == [None]
    path.write_text(json.dumps({"images": [], "annotations": [{"image_id": 1, "bbox": []}]}))
    with pytest.raises(DataError, match="captions_train2017"):
        read(path)


def test_lines_of_another_form_in_a_token_file_are_recorded(folder: Path) -> None:
    path = folder / "results.token"
    path.write_text("red-3.png#0\tred\n\nred-3.png\tno number\nred-4.png#1\tred\n")
    data = read(path)
    assert data.ids == ["red-3.png", "red-4.png"] and len(data.problems.names("bad line")) == 1


def test_several_pictures_of_a_row_are_one_item(folder: Path) -> None:
    path = folder / "drawn" / "several.jsonl"
    found = [
        {"image": ["red-3.png", "red-4.png"], "text": "red"},
        {"image": '["blue-3.png", "gone.png"]', "text": "blue"},
        {"image": {"path": "pink-3.png", "bytes": None}, "text": "pink"},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in found))
    data = read(path)
    assert [[image.name for image in item.images] for item in data] == [
        ["red-3.png", "red-4.png"],
        ["blue-3.png"],
        ["pink-3.png"],
    ]
    assert data.ids == ["red-3.png", "blue-3.png", "pink-3.png"]
    assert data.problems.names("picture missing") == ["gone.png"]


def test_merged_rows_keep_labels_and_fields_in_which_they_differ(folder: Path) -> None:
    path = folder / "drawn" / "merged.jsonl"
    found = [
        {"image": "red-3.png", "text": "a", "kind": "x", "n": 1, "shop": "s", "split": "train"},
        {"image": "./red-3.png", "text": "b", "kind": "y", "n": 2, "shop": "s", "split": "test"},
        {"image": "red-3.png", "text": "a", "kind": None, "n": 1},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in found))
    (item,) = read(path, label_column="kind")
    assert (item.captions, item.labels) == (("a", "b", "a"), ("x", "y"))
    assert item.fields == {"n": [1, 2], "shop": "s"} and item.split == "test"


def test_labels_from_folders(tmp_path: Path) -> None:
    for name in ("train/red_fox/a.png", "train/dog/b.png", "test/dog/c.png", "top.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(path)
    plain = read(tmp_path)
    assert recognise(plain).name == "pictures only" and not plain.classes
    data = read(tmp_path, labels_from="folders")
    assert {item.id: (item.labels, item.captions, item.split) for item in data} == {
        "train/red_fox/a.png": (("red_fox",), ("red fox",), "train"),
        "train/dog/b.png": (("dog",), ("dog",), "train"),
        "test/dog/c.png": (("dog",), ("dog",), "test"),
        "top.png": (None, (), None),
    }
    assert recognise(data).name == "labels only" and data.class_captions
    (tmp_path / "top.txt").write_text("a caption")
    data = read(tmp_path, labels_from="folders")
    assert recognise(data).name == "captions and labels" and not data.class_captions
