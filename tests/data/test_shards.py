"""Readers of webdataset shards, of ranges and folders of shards."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from support.packed_files import archive, png

from xmodal.data.dataset import Dataset
from xmodal.data.images import load_image
from xmodal.data.readers import shards, webdataset
from xmodal.data.readers.read import iterate, read
from xmodal.errors import ConfigError, DataError


def sample(key: str, number: int, **others: bytes) -> dict[str, bytes]:
    files = {f"{key}.png": png(number), f"{key}.txt": f"picture {number}\n".encode()}
    return files | {f"{key}.{ending}": data for ending, data in others.items()}


def shard(path: Path, numbers: range, mode: str = "w") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    members = {k: v for n in numbers for k, v in sample(f"{n:05d}", n).items()}
    return archive(path, members, mode)


def pictures_and_captions(data: Dataset) -> list[tuple[int, tuple[str, ...]]]:
    return [(load_image(one.images[0]).getpixel((0, 0))[0], one.captions) for one in data]


EXPECTED = [(n, (f"picture {n}",)) for n in range(6)]


@pytest.mark.parametrize("ending", [".tar", ".tar.gz", ".tgz"])
def test_one_shard(tmp_path: Path, ending: str) -> None:
    path = shard(tmp_path / f"a{ending}", range(6), "w" if ending == ".tar" else "w:gz")
    data = read(path)
    assert pictures_and_captions(data) == EXPECTED
    assert data.ids[2] == "00002"
    assert data.items[2].document()["image"] == str(path / "00002.png")
    assert not data.problems


def test_several_shards_are_one_source(tmp_path: Path) -> None:
    for n in range(3):
        shard(tmp_path / "s" / f"{n:03d}.tar", range(2 * n, 2 * n + 2))
    for source in (tmp_path / "s", tmp_path / "s" / "{000..002}.tar"):
        data = read(source)
        assert pictures_and_captions(data) == EXPECTED
        assert data.ids[:3] == ["000/00000", "000/00001", "001/00002"]
        assert "3" in data.source or "2 more" in data.source
    assert [item.id for item in iterate(tmp_path / "s")] == data.ids


def test_equal_keys_of_two_shards_stay_apart(tmp_path: Path) -> None:
    shard(tmp_path / "s/train/0.tar", range(2))
    shard(tmp_path / "s/val/0.tar", range(2))
    shard(tmp_path / "s/more-test-0.tar", range(2))
    data = read(tmp_path / "s")
    assert [(item.id, item.split) for item in data] == [
        ("more-test-0/00000", "test"),
        ("more-test-0/00001", "test"),
        ("train/0/00000", "train"),
        ("train/0/00001", "train"),
        ("val/0/00000", "val"),
        ("val/0/00001", "val"),
    ]
    assert not data.problems


def test_missing_and_damaged_shards_are_recorded(tmp_path: Path) -> None:
    shard(tmp_path / "0.tar", range(2))
    (tmp_path / "1.tar").write_bytes(b"no archive" * 100)
    data = read(tmp_path / "{0..2}.tar")
    assert len(data) == 2
    assert len(data.problems.names(shards.UNREADABLE)) == 2
    for text in ("{3..1}.tar", "{0..99999999}.tar", "{0..999}{0..999}.tar"):
        with pytest.raises(DataError, match="range"):
            read(tmp_path / text)


def test_a_cut_shard_gives_the_samples_before(tmp_path: Path) -> None:
    whole = shard(tmp_path / "whole.tar", range(6)).read_bytes()
    path = tmp_path / "cut.tar"
    path.write_bytes(whole[: 4 * 2048 + 1024 + 100])
    data = read(path)
    assert pictures_and_captions(data)[:4] == EXPECTED[:4]
    assert len(data.problems) == 1 + 1
    path.write_bytes(whole[:100])
    with pytest.raises(DataError, match="damaged"):
        read(path)


def test_fields_labels_and_captions_of_a_sample(tmp_path: Path) -> None:
    content = {
        **{"caption": "from json", "url": "u", "width": 3, "key": "0", "id": 7, "text": "t"},
        "status": "success",
        "exif": {"a": 1},
    }
    members = {
        "d/0.left.png": png(1),
        "d/0.right.PNG": png(2),
        "d/0.json": json.dumps(content).encode(),
        "d/0.caption": b"one",
        "d/0.de.txt": "zw\u00f6lf".encode("utf-16"),
        "d/0.cls": b"3\n",
        "d/1.jpg": png(3),
        "d/1.json": json.dumps(["first", "second"]).encode(),
        "d/1.cls": b"cat",
    }
    path = archive(tmp_path / "a.tar", members)
    data = read(path, label_column="cls")
    first, second = data
    assert (first.id, first.images) == ("d/0", (path / "d/0.left.png", path / "d/0.right.PNG"))
    assert first.captions == ("one", "zw\u00f6lf")
    assert first.labels == ("3",)
    assert first.fields == {
        **{"caption": "from json", "url": "u", "width": 3, "key": "0", "json.id": 7},
        **{"json.text": "t", "status": "success"},
    }
    assert (second.captions, second.labels) == (("first", "second"), ("cat",))
    assert read(path).items[0].labels is None
    with pytest.raises(ConfigError, match="no column"):
        read(path, label_column="none")


def test_captions_of_json_alone(tmp_path: Path) -> None:
    members = {"0.png": png(1), "0.json": b'{"caption": "a red one", "split": "val"}'}
    item = read(archive(tmp_path / "a.tar", members)).items[0]
    assert (item.captions, item.split) == (("a red one",), "val")


def test_losses_are_recorded(tmp_path: Path) -> None:
    members = {
        **{"0.png": png(0), "0.txt": b"zero", "0.npy": b"x", ".DS_Store": b"x", "README": b"x"},
        **{"1.txt": b"no picture", "2.png": png(2), "2.json": b"{broken", "2.txt": b"\xff\xff\xfe"},
        **{"3.png": png(3), "3.json": b"[" * 100_000, "3.txt": b"three"},
        **{"4.png": png(4), "4.json": b"17", "4.txt": b""},
    }
    data = read(archive(tmp_path / "a.tar", members))
    not_used = data.problems.names(webdataset.NOT_USED)
    assert not_used == ["0.npy", ".DS_Store", "README"]
    assert [name.split()[0] for name in data.problems.names(webdataset.UNREADABLE)] == [
        *("2.json", "2.txt", "3.json", "4.json"),
    ]
    assert data.problems.names("row without a picture") == ["1"]
    assert [item.captions for item in data] == [("zero",), ("no picture",), (), ("three",), ()]


def test_large_texts_and_repeated_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webdataset, "MAX_TEXT_BYTES", 10)
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as file:
        for name, data in [
            *(("0.png", png(0)), ("0.txt", b"x" * 11), ("0.caption", b"fine")),
            *(("0.png", png(1)), ("0.caption", b"again"), ("1.png", png(1))),
        ]:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    data = read(path)
    assert data.problems.names(webdataset.UNREADABLE) == ["0.txt (11 bytes)"]
    assert data.problems.names(webdataset.REPEATED) == ["0.png", "0.caption"]
    assert [item.captions for item in data] == [("fine",), ()]
    assert load_image(data.items[0].images[0]).getpixel((0, 0)) == (0, 10, 20)


def test_files_of_a_sample_that_are_apart(tmp_path: Path) -> None:
    members = {f"{n}.png": png(n) for n in range(6)}
    members |= {f"{n}.txt": f"picture {n}".encode() for n in range(6)}
    data = read(archive(tmp_path / "a.tar", members))
    assert pictures_and_captions(data) == EXPECTED


def test_folders_of_labels_in_a_shard(tmp_path: Path) -> None:
    members = {"cat/0.png": png(0), "dog/1.png": png(1), "2.png": png(2)}
    data = read(archive(tmp_path / "a.tar", members), labels_from="folders")
    assert [item.labels for item in data] == [("cat",), ("dog",), None]


@pytest.mark.parametrize(
    ("name", "split"),
    [
        *(("train-00000-of-00002-ab12cd.parquet", "train"), ("cc3m-val-0001.tar", "val")),
        *(("test_set-train-00000-of-00001.arrow", "train"), ("00000.tar", None)),
        *(("my.train.tar", None), ("validation.parquet", "validation")),
    ],
)
def test_split_in_the_name_of_a_shard(tmp_path: Path, name: str, split: str | None) -> None:
    (tmp_path / name).touch()
    found = shards.find_shards(tmp_path)
    assert found is not None and found.paths == [(tmp_path / name, split)]


def test_img2dataset_folders(tmp_path: Path) -> None:
    for n in range(2):
        path = shard(tmp_path / f"{n:05d}.tar", range(2 * n, 2 * n + 2))
        path.with_suffix(".parquet").write_bytes(b"metadata of the shard")
        (tmp_path / f"{n:05d}_stats.json").write_text("{}")
    (tmp_path / "left-over.mp4").write_bytes(b"")
    data = read(tmp_path)
    assert pictures_and_captions(data) == EXPECTED[:4]
    assert data.problems.count_by_kind() == {shards.NOT_USED: 1}


def test_folders_with_pictures_or_tables_are_no_folders_of_shards(tmp_path: Path) -> None:
    shard(tmp_path / "a.tar", range(2))
    assert shards.find_shards(tmp_path) is not None
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "b.png").write_bytes(png(1))
    assert shards.find_shards(tmp_path) is None


@pytest.mark.parametrize(
    "content",
    [
        *({}, [], 3, {"_data_files": [{}]}, {"_data_files": [{"filename": "../a.arrow"}]}),
        {"_data_files": [{"filename": 3}]},
    ],
)
def test_damaged_state_files(tmp_path: Path, content: Any) -> None:
    (tmp_path / "state.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"state\.json"):
        read(tmp_path)


def test_end_marks(tmp_path: Path) -> None:
    path = shard(tmp_path / "a.tar", range(2))
    path.write_bytes(path.read_bytes()[: 4 * 1024])
    assert len(read(path).problems) == 1


def test_lists_and_tables_of_packed_pictures(tmp_path: Path) -> None:
    path = shard(tmp_path / "a.tar", range(3))
    listed = read([path / "00002.png", path / "00000.png"])
    assert [item.images for item in listed] == [(path / "00002.png",), (path / "00000.png",)]
    (tmp_path / "t.csv").write_text("image,text\na.tar/00001.png,one\na.tar/00002.png,two\n")
    data = read(tmp_path / "t.csv")
    assert [load_image(item.images[0]).getpixel((0, 0))[0] for item in data] == [1, 2]
    assert not data.problems and not listed.problems
