"""plan_update: what an update of an index from a source adds, keeps, moves and leaves."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from xmodal.codes import BinaryCodes
from xmodal.data.dataset import Dataset
from xmodal.data.items import Item
from xmodal.index.documents import DocumentBatch
from xmodal.index.local import HammingIndex
from xmodal.index.update import Update, plan_update

BITS = 16


def picture(path: Path, content: str) -> Path:
    """Write bytes in place of a picture; plan_update does not decode it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode())
    return path


def read(folder: Path, captions: dict[str, str] | None = None) -> Dataset:
    """Return an item for each file of a folder."""
    texts = captions or {}
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    names = [path.relative_to(folder).as_posix() for path in paths]
    return Dataset(
        tuple(
            Item(name, (path,), (texts[name],) if name in texts else ())
            for name, path in zip(names, paths, strict=True)
        )
    )


def code(content: bytes) -> BinaryCodes:
    """Return the code of a picture or caption: its first bytes."""
    return BinaryCodes(np.frombuffer(content[:2].ljust(2), np.uint8).reshape(1, 2), BITS)


def update(index: HammingIndex, data: Dataset, source: str, *, prune: bool = False) -> Update:
    """Apply an update to an index, as xmodal index does."""
    found = plan_update(index, data, source)
    for batch in found.rewritten:
        index.add(batch)
    if len(found.encode):
        batch = DocumentBatch.of(
            found.encode.ids,
            image=[code(item.images[0].read_bytes()) for item in found.encode],  # type: ignore[union-attr]
            text=[
                code(item.captions[0].encode()) if item.captions else BinaryCodes.empty(BITS)
                for item in found.encode
            ],
            fields=[item.document() for item in found.encode],
        )
        index.add(found.with_origins(batch))
    index.delete([*found.moved, *(found.gone if prune else [])])
    return found


def documents(index: HammingIndex) -> dict[str, bytes]:
    """Return the pictures of the documents by id, and check their codes."""
    contents = {}
    for entry in index.entries():
        contents[entry.id] = Path(str(entry.fields["image"])).read_bytes()
        assert index.get([entry.id]).codes("image")[1] == code(contents[entry.id])
    return contents


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of three pictures."""
    for name in ("a", "b", "c"):
        picture(tmp_path / "holiday" / f"{name}.jpg", f"{name}{name}")
    return tmp_path / "holiday"


@pytest.fixture
def index(folder: Path) -> HammingIndex:
    """An index of the folder."""
    index = HammingIndex(BITS)
    assert len(update(index, read(folder), "holiday").encode) == 3
    return index


def test_unchanged_items_are_not_encoded_again(folder: Path, index: HammingIndex) -> None:
    found = update(index, read(folder), "holiday")
    assert (len(found.encode), found.unchanged, found.rewritten) == (0, 3, [])
    os.utime(folder / "a.jpg", ns=(1, 1))  # same bytes: the new stamp is stored
    found = update(index, read(folder), "holiday")
    assert (len(found.encode), found.unchanged, len(found.rewritten)) == (0, 2, 1)
    assert update(index, read(folder), "holiday").unchanged == 3


def test_changed_pictures_captions_and_fields_replace_their_documents(
    folder: Path, index: HammingIndex
) -> None:
    picture(folder / "b.jpg", "zz")
    found = update(index, read(folder, {"c.jpg": "a cat"}), "holiday")
    assert found.encode.ids == ["b.jpg", "c.jpg"]
    assert documents(index) == {"a.jpg": b"aa", "b.jpg": b"zz", "c.jpg": b"cc"}
    assert index.count_codes() == {"image": 3, "text": 1}
    data = read(folder, {"c.jpg": "a cat"})
    priced = Dataset(
        tuple(Item(item.id, item.images, item.captions, fields={"price": 2}) for item in data)
    )
    assert len(update(index, priced, "holiday").encode) == 0
    assert {entry.fields["price"] for entry in index.entries()} == {2}
    assert index.count_codes() == {"image": 3, "text": 1}


def test_gone_items_stay_until_they_are_pruned(folder: Path, index: HammingIndex) -> None:
    (folder / "a.jpg").unlink()
    assert update(index, read(folder), "holiday").gone == ["a.jpg"]
    assert len(index) == 3
    index.add(["by hand"], image=code(b"hh"))
    update(index, read(folder), "holiday", prune=True)
    assert [entry.id for entry in index.entries()] == ["b.jpg", "by hand", "c.jpg"]


def test_renamed_pictures_move_without_being_encoded(folder: Path, index: HammingIndex) -> None:
    (folder / "a.jpg").rename(folder / "z.jpg")
    found = update(index, read(folder), "holiday")
    assert (len(found.encode), found.moved, found.gone) == (0, ["a.jpg"], [])
    assert documents(index) == {"b.jpg": b"bb", "c.jpg": b"cc", "z.jpg": b"aa"}


def test_pictures_that_exchange_their_names(folder: Path, index: HammingIndex) -> None:
    (folder / "a.jpg").rename(folder / "t")
    (folder / "b.jpg").rename(folder / "a.jpg")
    (folder / "c.jpg").rename(folder / "b.jpg")
    (folder / "t").rename(folder / "d.jpg")
    assert update(index, read(folder), "holiday").gone == []
    assert documents(index) == {"a.jpg": b"bb", "b.jpg": b"cc", "d.jpg": b"aa"}


def test_a_copy_of_a_picture_that_stays_is_no_move(folder: Path, index: HammingIndex) -> None:
    picture(folder / "copy.jpg", "aa")
    assert update(index, read(folder), "holiday").moved == []
    assert len(documents(index)) == 4
    data = Dataset(tuple(item for item in read(folder) if item.id != "a.jpg"))
    found = update(index, data, "holiday")  # the file is there, the item is not
    assert (found.moved, found.gone) == ([], ["a.jpg"])


def test_sources_with_equal_ids_stay_apart(folder: Path, index: HammingIndex) -> None:
    other = folder.parent / "work"
    picture(other / "a.jpg", "xx")
    picture(other / "n.jpg", "nn")
    found = update(index, read(other), str(other))
    assert found.apart == {"a.jpg": "work/a.jpg"}
    assert set(documents(index)) == {"a.jpg", "b.jpg", "c.jpg", "n.jpg", "work/a.jpg"}
    again = update(index, read(other), str(other))
    assert (again.apart, again.unchanged) == ({}, 2)
    third = folder.parent / "old" / "work"
    picture(third / "a.jpg", "yy")
    picture(third / "work" / "a.jpg", "zz")  # this id is taken, too
    assert update(index, read(third), str(third)).apart == {
        "a.jpg": "old/work/a.jpg",
        "work/a.jpg": "work/work/a.jpg",
    }
    (other / "a.jpg").unlink()
    update(index, read(other), str(other), prune=True)
    kept = documents(index)
    assert (kept["a.jpg"], kept["old/work/a.jpg"], "work/a.jpg" in kept) == (b"aa", b"yy", False)


def test_a_folder_that_moved_takes_over_its_documents(tmp_path: Path) -> None:
    index, old, new = HammingIndex(BITS), tmp_path / "old" / "p", tmp_path / "new" / "p"
    for name in ("a", "b", "c"):
        picture(old / name, name * 2)
    update(index, read(old), str(old))
    new.parent.mkdir()
    old.rename(new)
    picture(new / "b", "changed")
    picture(new / "d", "dd")
    (new / "c").unlink()
    found = update(index, read(new), str(new))
    assert (found.encode.ids, found.gone) == (["b", "d"], ["c"])
    update(index, read(new), str(new), prune=True)
    assert documents(index) == {"a": b"aa", "b": b"changed", "d": b"dd"}
    assert {entry.id for entry in index.entries(source=str(new))} == {"a", "b", "d"}


def test_texts_of_a_table_that_moved(tmp_path: Path) -> None:
    index = HammingIndex(BITS)
    for folder, captions, encoded in (
        ("x", ["one", "two"], ["0", "1"]),
        ("y", ["others", "all"], ["t.csv/0", "t.csv/1"]),  # the table x is gone, and not this one
        ("z", ["one", "changed"], ["1"]),
    ):
        items = tuple(Item(str(n), captions=(text,)) for n, text in enumerate(captions))
        found = plan_update(index, Dataset(items), str(tmp_path / folder / "t.csv"))
        assert found.encode.ids == encoded
        batch = DocumentBatch.of(
            encoded,
            text=[code(item.captions[0].encode()) for item in found.encode],
            fields=[item.document() for item in found.encode],
        )
        index.add(found.with_origins(batch))


def test_documents_of_unknown_origin_are_replaced(folder: Path) -> None:
    index = HammingIndex(BITS)
    index.add(["a.jpg", "other"], image=BinaryCodes.concatenate([code(b"11"), code(b"22")]))
    found = update(index, read(folder), "holiday")
    assert (found.apart, found.existing) == ({}, {"a.jpg"})
    assert len(index) == 4 and index.get(["a.jpg"]).codes("image")[1] == code(b"aa")


def test_unreadable_pictures_and_texts_alone(folder: Path, index: HammingIndex) -> None:
    (folder / "a.jpg").unlink()
    missing = Item("a.jpg", (folder / "a.jpg",))
    found = plan_update(index, Dataset((missing,)), "holiday")
    assert (found.encode.ids, found.gone) == (["a.jpg"], ["b.jpg", "c.jpg"])
    texts = Dataset((Item("1", captions=("one",)), Item("2", captions=("two",))))
    found = plan_update(index, texts, "table")
    batch = DocumentBatch.of(
        ["1", "2"],
        text=BinaryCodes.concatenate([code(b"on"), code(b"tw")]),
        fields=[item.document() for item in texts],
    )
    index.add(found.with_origins(batch))
    changed = Dataset((Item("1", captions=("one",)), Item("2", captions=("other",))))
    found = plan_update(index, changed, "table")
    assert (found.unchanged, found.encode.ids) == (1, ["2"])
    assert len(plan_update(index, texts, "table", reuse=False).encode) == 2


def test_documents_without_a_code_of_each_picture_are_encoded_again(folder: Path) -> None:
    index = HammingIndex(BITS)
    item = Item("both", (folder / "a.jpg", folder / "b.jpg"))
    found = plan_update(index, Dataset((item,)), "s")
    one = DocumentBatch.of(["both"], image=code(b"aa"), fields=[item.document()])
    index.add(found.with_origins(one))
    assert plan_update(index, Dataset((item,)), "s").encode.ids == ["both"]
