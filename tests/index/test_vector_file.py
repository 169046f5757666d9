"""Vectors of a local index: files beside the Parquet file, kills, damage, and other versions."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from xmodal.codes import BinaryCodes
from xmodal.errors import CodeError, IndexFailure
from xmodal.index.documents import DocumentBatch
from xmodal.index.local import FILE, HammingIndex, open_folder
from xmodal.index.query_codes import QueryCodes
from xmodal.index.vector_file import CHECKSUMS, PREFIX, VectorFile, files_from_json, write_vectors
from xmodal.modality import MODALITIES

DIM = 3


def codes(n: int) -> BinaryCodes:
    """Return n codes of 8 bits: 0, 1, 2 ..."""
    return BinaryCodes(np.arange(n, dtype=np.uint8).reshape(n, 1), 8)


def batch(*ids: str, fill: int = 1) -> DocumentBatch:
    """Return documents with an image code and two text codes each, and vectors."""
    n = len(ids)
    image = np.arange(n * DIM, dtype=np.int8).reshape(n, DIM) * fill
    text = np.arange(2 * n * DIM, dtype=np.int8).reshape(2 * n, DIM) - 5 * fill
    texts = [codes(2) for _ in ids]
    return DocumentBatch.of(ids, image=codes(n), text=texts, image_vectors=image, text_vectors=text)


def stored(folder: Path, *ids: str, fill: int = 1) -> HammingIndex:
    """Return an index that was saved with these documents."""
    index = open_folder(folder, bits=8, create=True)
    index.add(batch(*ids, fill=fill))
    index.save()
    return index


def check_equal(index: HammingIndex, expected: DocumentBatch) -> None:
    """Assert that codes and vectors of an index are those of a batch."""
    found = index.get(expected.ids)
    assert (found.ids, index.dim) == (expected.ids, expected.dim)
    for modality in MODALITIES:
        assert np.array_equal(found.packed[modality], expected.packed[modality])
        assert np.array_equal(found.vectors[modality], expected.vectors[modality])


def names(folder: Path) -> list[str]:
    """Return the names of the files of vectors, without those of their checksums."""
    found = {path.name for path in folder.glob(f"{PREFIX}*")}
    assert {name for name in found if name.endswith(CHECKSUMS)} == {
        f"{name}{CHECKSUMS}" for name in found if not name.endswith(CHECKSUMS)
    }
    return sorted(name for name in found if not name.endswith(CHECKSUMS))


# ---- changes ---------------------------------------------------------------------------------


def test_vectors_survive_saving_and_opening(tmp_path: Path) -> None:
    expected = batch("a", "b", "c")
    check_equal(stored(tmp_path, "a", "b", "c"), expected)
    check_equal(open_folder(tmp_path), expected)
    assert len(names(tmp_path)) == 2


def test_vectors_follow_documents_that_are_added_replaced_and_removed(tmp_path: Path) -> None:
    stored(tmp_path, "b", "d")
    new = batch("c", "a", "d", fill=3)
    with open_folder(tmp_path) as index:
        index.add(new)
        index.delete(["c"])
    again = open_folder(tmp_path)
    check_equal(again, DocumentBatch.join([batch("b", "d").take([0]), new.take([1, 2])]))
    assert [b.dim for b in again.batches(2)] == [DIM, DIM]
    assert len(names(tmp_path)) == 2


def test_search_reads_the_vectors_of_the_file(tmp_path: Path) -> None:
    index = stored(tmp_path, "a", "b", "c")
    query = QueryCodes(codes(1), vectors=np.array([[0, 0, 1]], np.int8))
    expected = index.search(query, 3, target="image")
    assert open_folder(tmp_path).search(query, 3, target="image") == expected
    assert expected[0][0].similarity == pytest.approx(2 / np.sqrt(0 + 1 + 4))


def test_removing_all_documents_leaves_an_index_that_takes_other_vectors(tmp_path: Path) -> None:
    index = stored(tmp_path, "a")
    index.delete(["a"])
    assert index.dim is None
    index.save()
    assert (open_folder(tmp_path).dim, names(tmp_path)) == (None, [])
    with open_folder(tmp_path) as again:
        again.add(["x"], image=codes(1))
    assert open_folder(tmp_path).dim is None


def test_codes_alone_are_rejected_by_an_index_with_vectors(tmp_path: Path) -> None:
    index = stored(tmp_path, "a")
    other = DocumentBatch.of(["x"], image=codes(1), image_vectors=np.ones((1, DIM + 1), np.int8))
    for wrong in (batch("x").without_vectors(), other):
        with pytest.raises(CodeError, match=f"this index holds vectors of {DIM}"):
            index.add(wrong)
    check_equal(index, batch("a"))
    assert len(index) == 1


def test_vectors_are_left_out_of_an_index_without(tmp_path: Path) -> None:
    index = HammingIndex(8)
    index.add(["x"], image=codes(1))
    index.add(batch("a"))
    assert (len(index), index.dim, index.get(["a"]).dim) == (2, None, None)


def test_first_documents_decide_before_they_are_merged() -> None:
    index = HammingIndex(8)
    index.add(DocumentBatch.empty(8))
    assert index.dim is None
    index.add(batch("a"))
    assert index.dim == DIM
    with pytest.raises(CodeError):
        index.add(["x"], image=codes(1))


def test_vectors_of_one_modality_only(tmp_path: Path) -> None:
    vectors = np.ones((2, DIM), np.int8)
    with open_folder(tmp_path, bits=8, create=True) as index:
        index.add(DocumentBatch.of(["a", "b"], image=codes(2), image_vectors=vectors))
    index = open_folder(tmp_path)
    assert index.dim == DIM
    assert np.array_equal(index.get(["b"]).vectors["image"], vectors[1:])


# ---- versions --------------------------------------------------------------------------------


def metadata(folder: Path) -> dict[str, str]:
    found = pq.read_schema(folder / FILE).metadata
    return {key.decode(): value.decode() for key, value in found.items()}


def test_earlier_versions_do_not_read_an_index_with_vectors(tmp_path: Path) -> None:
    """They would save it again without its vectors. They read formats 1 and 2."""
    stored(tmp_path, "a")
    assert metadata(tmp_path)["xmodal.format"] == "3"


def test_earlier_versions_read_an_index_without_vectors(tmp_path: Path) -> None:
    with open_folder(tmp_path, bits=8, create=True) as index:
        index.add(["a"], image=codes(1))
    assert metadata(tmp_path)["xmodal.format"] == "1"
    assert "xmodal.vectors" not in metadata(tmp_path)


def test_files_outside_of_the_folder_are_rejected() -> None:
    record = VectorFile("../other", 1, 1, 0)._asdict()
    del record["blocks"]
    text = str({"image": record, "text": record}).replace("'", '"')
    with pytest.raises(ValueError, match=r"\.\./other"):
        files_from_json(text)


# ---- damage ----------------------------------------------------------------------------------


@pytest.mark.parametrize("change", ["missing", "short", "long"])
def test_missing_or_incomplete_file_is_found_when_opened(tmp_path: Path, change: str) -> None:
    stored(tmp_path, "a", "b")
    file = tmp_path / names(tmp_path)[0]
    content = file.read_bytes()
    file.unlink()
    if change != "missing":
        file.write_bytes(content[:-1] if change == "short" else content + b"\0")
    with pytest.raises(IndexFailure, match=f"{file.name} is missing or damaged") as caught:
        open_folder(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("action", ["add", "delete"])
def test_changed_content_is_found_before_it_is_saved_again(tmp_path: Path, action: str) -> None:
    stored(tmp_path, "a", "b")
    before = names(tmp_path)
    file = tmp_path / before[1]
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    index = open_folder(tmp_path)
    with pytest.raises(IndexFailure, match=f"{file.name} .*checksum"):
        if action == "add":
            index.add(batch("c"))
            index.save()
        else:
            index.delete(["a"])
    assert names(tmp_path) == before


def flip(file: Path, at: int) -> None:
    """Flip a bit of a file."""
    content = bytearray(file.read_bytes())
    content[at] ^= 4
    file.write_bytes(content)


READS: dict[str, Callable[[HammingIndex], Any]] = {
    "search": lambda index: index.search(
        QueryCodes(codes(1), vectors=np.ones((1, DIM), np.int8)), 5000, target="text"
    ),
    "measure": lambda index: index.measure(
        QueryCodes(codes(1), vectors=np.ones((1, DIM), np.int8)), ["d4999"], target="text"
    ),
    "get": lambda index: index.get(["d4999"]),
    "batches": lambda index: list(index.batches()),
}


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """An index whose text vectors fill several blocks; its last document is d4999."""
    stored(tmp_path / "many", *(f"d{number}" for number in range(3000, 5000)))
    return tmp_path / "many"


@pytest.mark.parametrize("read", READS)
def test_changed_content_is_found_when_it_is_read(many: Path, read: str) -> None:
    file = many / names(many)[1]
    flip(file, -1)
    with pytest.raises(IndexFailure, match=f"{file.name} is missing or damaged") as caught:
        READS[read](open_folder(many))
    assert "\n" not in str(caught.value)
    index = open_folder(many)
    check_equal(index, batch(*(f"d{number}" for number in range(3000, 3010))))
    with pytest.raises(IndexFailure):  # a block that was checked leaves others unchecked
        READS[read](index)


def test_files_of_another_index_of_the_same_shape_are_found(tmp_path: Path) -> None:
    stored(tmp_path / "one", "a", "b")
    stored(tmp_path / "other", "a", "b", fill=5)
    for name, other in zip(names(tmp_path / "one"), names(tmp_path / "other"), strict=True):
        shutil.copy(tmp_path / "other" / other, tmp_path / "one" / name)
    with pytest.raises(IndexFailure, match="is missing or damaged"):
        open_folder(tmp_path / "one").get(["a"])


@pytest.mark.parametrize("change", ["flipped", "missing", "short", "folder"])
def test_damaged_checksums_are_found_when_opened(tmp_path: Path, change: str) -> None:
    stored(tmp_path, "a", "b")
    file = tmp_path / f"{names(tmp_path)[0]}{CHECKSUMS}"
    if change == "flipped":
        flip(file, 0)
    elif change == "short":
        file.write_bytes(file.read_bytes()[:-1])
    else:
        file.unlink()
        if change == "folder":
            file.mkdir()
    with pytest.raises(IndexFailure, match=f"{file.name} is missing or damaged"):
        open_folder(tmp_path)


def test_checksums_of_an_odd_number_of_bytes_are_damaged(tmp_path: Path) -> None:
    file = VectorFile("v", 1, 4, checksum=0, blocks=zlib.crc32(b"12345"))
    (tmp_path / f"v{CHECKSUMS}").write_bytes(b"12345")
    with pytest.raises(IndexFailure, match="5 bytes"):
        file.checked_blocks(tmp_path, np.zeros((1, 4), np.int8))


def test_files_of_an_earlier_version_need_no_checksums(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as earlier:
        earlier.setattr("xmodal.index.parquet.blocks_to_json", lambda files: "{}")
        stored(tmp_path, "a", "b")
    for file in tmp_path.glob(f"*{CHECKSUMS}"):
        file.unlink()
    check_equal(open_folder(tmp_path), batch("a", "b"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_missing_permission_is_not_called_damage(tmp_path: Path) -> None:
    stored(tmp_path, "a")
    file = tmp_path / names(tmp_path)[0]
    file.chmod(0)
    with pytest.raises(IndexFailure, match=r"(?i)cannot be read: permission denied"):
        open_folder(tmp_path)


# ---- two processes ---------------------------------------------------------------------------


def test_open_index_keeps_the_vectors_that_a_later_save_removes(tmp_path: Path) -> None:
    stored(tmp_path, "a", "b")
    reader = open_folder(tmp_path)
    with open_folder(tmp_path) as writer:
        writer.add(batch("a", "b", fill=4))
    check_equal(reader, batch("a", "b"))
    reloaded = reader.reload_if_changed()
    assert reloaded is not None
    check_equal(reloaded, batch("a", "b", fill=4))


def test_opening_is_repeated_if_a_save_removes_the_files_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored(tmp_path, "a")
    opened, saves = VectorFile.open, [lambda: stored(tmp_path, "a", fill=7)]

    def open_after_save(self: VectorFile, folder: Path) -> Any:
        if saves:
            saves.pop()()
        return opened(self, folder)

    monkeypatch.setattr(VectorFile, "open", open_after_save)
    check_equal(open_folder(tmp_path), batch("a", fill=7))


# ---- kill -9 ---------------------------------------------------------------------------------

SAVER = """
import os, signal, sys
import numpy as np
from xmodal.codes import BinaryCodes
from xmodal.index.documents import DocumentBatch
from xmodal.index.local import open_folder

folder, moment = sys.argv[1], int(sys.argv[2])
calls = 0
def count(call):
    def counted(*arguments, **options):
        global calls
        calls += 1
        if calls == moment:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*arguments, **options)
    return counted
os.fsync, os.replace = count(os.fsync), count(os.replace)
os.unlink = count(os.unlink)
index = open_folder(folder)
for value in range(1, 3):
    packed = np.full((50 + value, 1), value, np.uint8)
    vectors = np.full((50 + value, 4), value, np.int8)
    ids = [str(row) for row in range(50 + value)]
    index.add(DocumentBatch.of(ids, image=BinaryCodes(packed, 8), image_vectors=vectors))
    index.save()
"""


@pytest.mark.slow
def test_kill_at_every_step_of_a_save_keeps_codes_and_vectors_together(tmp_path: Path) -> None:
    seen = set()
    for moment in range(1, 60):
        folder = tmp_path / f"{moment}"
        index = open_folder(folder, bits=8, create=True)
        packed, vectors = np.zeros((50, 1), np.uint8), np.zeros((50, 4), np.int8)
        ids = [str(row) for row in range(50)]
        index.add(DocumentBatch.of(ids, image=BinaryCodes(packed, 8), image_vectors=vectors))
        index.save()
        command = [sys.executable, "-c", SAVER, str(folder), str(moment)]
        killed = subprocess.run(command, check=False).returncode
        assert killed in (0, -signal.SIGKILL)
        again = open_folder(folder)
        found = again.get([str(row) for row in range(60)])
        value = len(found) - 50
        assert (found.packed["image"] == value).all() and (found.vectors["image"] == value).all()
        seen.add(value)
        again.delete(["0"])
        again.save()
        assert len(names(folder)) == 2
        assert not list(folder.glob("saving-*"))
        if killed == 0:
            break
    assert killed == 0 and seen == {0, 1, 2}


def test_leftovers_of_a_killed_first_save_do_not_prevent_another(tmp_path: Path) -> None:
    write_vectors(tmp_path, batch("a").vectors)
    stored(tmp_path, "a")
    assert len(names(tmp_path)) == 2
    check_equal(open_folder(tmp_path), batch("a"))


def test_failed_save_leaves_the_old_vectors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = stored(tmp_path, "a")
    before = names(tmp_path)
    index.add(batch("a", fill=2))

    def full(*paths: Any) -> None:
        raise OSError("no space left")

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", full)
        with pytest.raises(OSError, match="no space left"):
            index.save()
    assert names(tmp_path) == before
    check_equal(open_folder(tmp_path), batch("a"))
    index.save()
    check_equal(open_folder(tmp_path), batch("a", fill=2))
