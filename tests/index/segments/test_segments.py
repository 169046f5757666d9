"""Segments of a local index: vectors, damage, merging, kills, readers beside a writer."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xmodal.codes import BinaryCodes
from xmodal.errors import CodeError, IndexFailure, IndexMismatch, IndexMissing
from xmodal.index.contract import WordsQuery
from xmodal.index.documents import DocumentBatch
from xmodal.index.local import FILE, HammingIndex, open_folder
from xmodal.index.query_codes import QueryCodes
from xmodal.index.segments.column_file import ColumnFile, FileRecord
from xmodal.index.segments.merging import FANOUT
from xmodal.index.segments.segment import PREFIX
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
    """Return the names of the files of segments."""
    return sorted(path.name for path in folder.glob(f"{PREFIX}*"))


# ---- changes ---------------------------------------------------------------------------------


def test_vectors_survive_saving_and_opening(tmp_path: Path) -> None:
    expected = batch("a", "b", "c")
    check_equal(stored(tmp_path, "a", "b", "c"), expected)
    check_equal(open_folder(tmp_path), expected)
    assert len(names(tmp_path)) == 1


def test_vectors_follow_documents_that_are_added_replaced_and_removed(tmp_path: Path) -> None:
    stored(tmp_path, "b", "d")
    new = batch("c", "a", "d", fill=3)
    with open_folder(tmp_path) as index:
        index.add(new)
        index.delete(["c"])
    again = open_folder(tmp_path)
    check_equal(again, DocumentBatch.join([batch("b", "d").take([0]), new.take([1, 2])]))
    assert [b.dim for b in again.batches(2)] == [DIM, DIM]


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
    stored(tmp_path / "many", *(f"d{number}" for number in range(1000, 5000)))
    return tmp_path / "many"


@pytest.mark.parametrize("read", READS)
def test_changed_content_is_found_when_it_is_read(many: Path, read: str) -> None:
    file = many / names(many)[0]
    content = bytearray(file.read_bytes())
    vectors = open_folder(many).get([f"d{number}" for number in range(1000, 5000)]).vectors
    content[content.index(vectors["text"].tobytes()) + vectors["text"].size - 1] ^= 4
    file.write_bytes(content)
    with pytest.raises(IndexFailure, match=f"{file.name} is missing or damaged") as caught:
        READS[read](open_folder(many))
    assert "\n" not in str(caught.value)
    index = open_folder(many)
    check_equal(index, batch(*(f"d{number}" for number in range(1000, 1010))))
    with pytest.raises(IndexFailure):  # a block that was checked leaves others unchecked
        READS[read](index)


def test_files_of_another_index_of_the_same_shape_are_found(tmp_path: Path) -> None:
    stored(tmp_path / "one", "a", "b")
    stored(tmp_path / "other", "a", "b", fill=5)
    for name, other in zip(names(tmp_path / "one"), names(tmp_path / "other"), strict=True):
        shutil.copy(tmp_path / "other" / other, tmp_path / "one" / name)
    with pytest.raises(IndexFailure, match="is missing or damaged"):
        open_folder(tmp_path / "one").get(["a"])


@pytest.fixture
def varied(tmp_path: Path) -> Path:
    """A saved index of two segments, one of them with deleted documents."""
    path = tmp_path / "varied"
    index = open_folder(path, bits=8, fingerprint="f", create=True)
    first = batch(*"abcdef")
    fields = ['{"t": "é"}', *["{}"] * 5]
    index.add(replace(first, origins=['["/x","a"]', *[""] * 5], fields=fields))
    index.save()
    index.add(batch("x", "y", "z"))
    index.delete(["b"])
    index.save()
    assert sorted(file.name.partition("-")[0] for file in path.iterdir()) == [
        *("deleted", FILE, "lock", "segment", "segment")
    ]
    return path


def everything(folder: Path) -> Any:
    """Open an index and read all that it stores."""
    index = open_folder(folder)
    for one in index.check():
        raise IndexFailure(f"column {one.column} {one.damage}")
    query = QueryCodes(codes(1), vectors=np.ones((1, DIM), np.int8))
    words = index.search_words([WordsQuery("é")], 9, target="text")
    hits = [index.search(query, 9, target=modality) for modality in MODALITIES]
    return hits, words, list(index.entries()), index.facets(), index.fingerprint, len(index)


def test_every_changed_byte_and_every_cut_is_found(varied: Path) -> None:
    expected = everything(varied)
    for file in varied.iterdir():
        if file.name == "lock":
            continue
        content = file.read_bytes()
        step = max(1, len(content) // 150)
        changed = [
            content[:at] + bytes([content[at] ^ 1 << at % 8]) + content[at + 1 :]
            for at in range(0, len(content), step)
        ]
        cut = [content[:at] for at in range(0, len(content), step)]
        for wrong in (*changed, *cut, content + b"\0", content[:-1]):
            file.write_bytes(wrong)
            with pytest.raises((IndexFailure, IndexMismatch)) as caught:
                everything(varied)
            assert "\n" not in str(caught.value)
        file.unlink()
        with pytest.raises((IndexFailure, IndexMissing)):
            everything(varied)
        file.write_bytes(content)
    assert everything(varied) == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda found: found.update(format=5), "has format 5, this version reads formats up to 4"),
        (lambda found: found.update(bits=7), "is damaged"),
        (lambda found: found["segments"][0].update(name="../segment-0"), "is damaged"),
        (lambda found: found["segments"][0].update(documents=True), "is damaged"),
        (lambda found: found["segments"][0]["file"].update(size=-1), "is damaged"),
        (lambda found: found["segments"].pop(), "is damaged"),
        (lambda found: found.pop("segments"), "is damaged"),
    ],
)
def test_other_commit_files_are_refused(
    varied: Path, change: Callable[[dict[str, Any]], Any], message: str
) -> None:
    content = json.loads((varied / FILE).read_text())
    change(content)
    (varied / FILE).write_text(json.dumps(content, indent=1))
    with pytest.raises((IndexFailure, IndexMismatch), match=f"{FILE} {message}"):
        open_folder(varied)
    for text in ("[]", "null", "{", "\udcff"):
        (varied / FILE).write_bytes(text.encode(errors="surrogateescape"))
        with pytest.raises(IndexFailure, match="is damaged"):
            open_folder(varied)


def test_save_refuses_to_commit_files_that_are_gone(varied: Path) -> None:
    index = open_folder(varied)
    index.add(batch("zz"))
    (varied / names(varied)[0]).unlink()
    before = (varied / FILE).read_bytes()
    with pytest.raises(IndexFailure, match="is missing or damaged"):
        index.save()
    assert (varied / FILE).read_bytes() == before


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
    opened, saves = ColumnFile.open, [lambda: stored(tmp_path, "a", fill=7)]

    def open_after_save(path: Path, record: FileRecord) -> ColumnFile:
        if saves:
            saves.pop()()
        return opened(path, record)

    monkeypatch.setattr(ColumnFile, "open", open_after_save)
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
        assert len(names(folder)) == 1
        assert not list(folder.glob("saving-*"))
        if killed == 0:
            break
    assert killed == 0 and seen == {0, 1, 2}


def test_leftovers_of_a_killed_first_save_do_not_prevent_another(tmp_path: Path) -> None:
    for name in ("segment-0", "deleted-0", "saving-1", "vectors-0", "words-0"):
        (tmp_path / name).write_text("left")
    stored(tmp_path, "a")
    assert len(names(tmp_path)) == 1
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
    assert set(before) <= set(names(tmp_path))
    check_equal(open_folder(tmp_path), batch("a"))
    index.save()
    assert len(names(tmp_path)) == 1
    check_equal(open_folder(tmp_path), batch("a", fill=2))


# ---- merging ---------------------------------------------------------------------------------


def test_number_of_segments_stays_small_and_every_document_is_kept(tmp_path: Path) -> None:
    rng = random.Random(1)
    expected: dict[str, int] = {}
    for turn in range(30):
        with open_folder(tmp_path, bits=8, create=True) as index:
            ids = sorted({f"d{rng.randrange(200):03}" for _ in range(rng.randrange(1, 9))})
            index.add(ids, image=codes(len(ids)), fields=[{"turn": turn}] * len(ids))
            gone = [f"d{rng.randrange(200):03}" for _ in range(2)]
            index.delete(gone)
            expected |= dict.fromkeys(ids, turn)
            expected = {id_: at for id_, at in expected.items() if id_ not in gone}
        assert len(names(tmp_path)) < FANOUT
        index = open_folder(tmp_path)
        found = {entry.id: entry.fields["turn"] for entry in index.entries()}
        assert found == dict(sorted(expected.items())) and len(index) == len(expected)


def test_a_stopped_merge_leaves_the_old_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for letter in "abcdefg":
        stored(tmp_path, letter)
    before = names(tmp_path)
    assert len(before) == FANOUT - 1

    def stop(*arguments: object) -> None:
        raise KeyboardInterrupt

    index = open_folder(tmp_path)
    index.add(batch("h"))
    with monkeypatch.context() as patched:
        patched.setattr("xmodal.index.segments.merging.merge_word_columns", stop)
        with pytest.raises(KeyboardInterrupt):
            index.save()
    assert names(tmp_path) == before
    assert open_folder(tmp_path).codes("image")[0] == list("abcdefg")
    index.save()
    assert len(names(tmp_path)) == 1
    assert open_folder(tmp_path).codes("image")[0] == list("abcdefgh")


def test_search_after_a_save_reads_the_merged_segments(tmp_path: Path) -> None:
    index = open_folder(tmp_path, bits=8, create=True)
    expected = {}
    for turn in range(2 * FANOUT + 3):
        ids = [f"{99 - turn:02}{letter}" for letter in "ab"]
        index.add(ids, image=codes(2), fields=[{"text": f"word{turn}", "turn": turn}] * 2)
        expected |= {id_: {"text": f"word{turn}", "turn": turn} for id_ in ids}
        for _ in range(2):  # before and after the save
            [hits] = index.search(codes(1), 99, target="image")
            assert {hit.id: hit.fields for hit in hits} == expected
            assert [hit.id for hit in hits] == sorted(expected, key=lambda i: (i[2:], i))
            [words] = index.search_words([WordsQuery(f"word{turn}")], 9, target="image")
            assert [hit.id for hit in words][:2] == ids
            assert index.count("image", {"turn": turn}) == 2
            index.save() if turn % 3 else None


def test_added_documents_do_not_stay_in_many_segments() -> None:
    index = HammingIndex(8)
    for number in range(50):
        index.add([f"{number:02}"], image=codes(1))
        assert len(index) == number + 1 and len(index.segments) < FANOUT
    index.add(["07"], image=codes(1), fields=[{"new": 1}])
    assert (len(index), index.count("image", {"new": 1})) == (50, 1)


def test_large_batches_are_written_before_the_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xmodal.index.local.PART", 4)
    index = open_folder(tmp_path / "i", bits=8, create=True)
    for start in range(0, 12, 2):
        index.add([f"{n:02}" for n in range(start, start + 2)], image=codes(2))
    assert len(names(tmp_path / "i")) == 3
    with pytest.raises(IndexMissing):
        open_folder(tmp_path / "i")
    index.add(["00", "03"], image=codes(2), fields=[{"new": 1}] * 2)
    index.save()
    again = open_folder(tmp_path / "i")
    assert [entry.id for entry in again.entries()] == [f"{n:02}" for n in range(12)]
    assert again.count("image", {"new": 1}) == 2


def test_segments_with_many_deleted_documents_are_written_again(tmp_path: Path) -> None:
    index = stored(tmp_path, *(f"d{number}" for number in range(10, 20)))
    index.delete(["d10", "d11"])
    index.save()
    assert list(tmp_path.glob("deleted-*"))
    index.delete(["d12"])
    index.save()
    assert not list(tmp_path.glob("deleted-*")) and len(names(tmp_path)) == 1
    assert [entry.id for entry in open_folder(tmp_path).entries()] == [
        f"d{number}" for number in range(13, 20)
    ]
