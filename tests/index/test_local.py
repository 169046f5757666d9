"""HammingIndex: search, atomic saves, concurrent writers, kills, and invalid folders."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xmodal.codes import BinaryCodes
from xmodal.errors import CodeError, ConfigError, IndexFailure, IndexMismatch, IndexMissing
from xmodal.index.contract import WordsQuery
from xmodal.index.documents import DocumentBatch
from xmodal.index.folder import identity
from xmodal.index.local import FILE, HammingIndex, open_folder
from xmodal.index.origins import Entry, Origin

SIZE = 3000


def codes(*numbers: int) -> BinaryCodes:
    """Return codes of 8 bits."""
    return BinaryCodes(np.array(numbers, np.uint8).reshape(-1, 1), 8)


def filled(folder: Path, *ids: str) -> HammingIndex:
    """Return a saved index of 8 bits with an image code for each id."""
    index = open_folder(folder, bits=8, fingerprint="e1", create=True)
    index.add(ids, image=codes(*range(len(ids))), fields=[{"name": id_} for id_ in ids])
    index.save()
    return index


def names(folder: Path) -> list[str]:
    """Return the names in a folder; random parts of the names of segments are left out."""
    return sorted(path.name.partition("-")[0] for path in folder.iterdir())


def ids_of(folder: Path) -> list[str]:
    return open_folder(folder).codes("image")[0]


# ---- search ----------------------------------------------------------------------------------


def test_search_returns_distances_computed_by_hand() -> None:
    index = HammingIndex(16)
    index.add(["b", "a", "c"], image=BinaryCodes.from_hex(["ff00", "f00f", "0000"]))
    [hits] = index.search(BinaryCodes.from_hex(["f000"]), 3, target="image")
    # f000 ^ ff00 = 0f00: 4; f000 ^ f00f = 000f: 4, and a comes before b; f000 ^ 0000 = f000: 4
    assert [(hit.id, hit.distance) for hit in hits] == [("a", 4), ("b", 4), ("c", 4)]
    [hits] = index.search(BinaryCodes.from_hex(["ff01"]), 3, target="image", radius=7)
    # ff01 ^ ff00 = 0001: 1; ff01 ^ f00f = 0f0e: 4 + 3; ff01 ^ 0000 = ff01: 8 + 1 > 7
    assert [(hit.id, hit.distance) for hit in hits] == [("b", 1), ("a", 4 + 3)]


def test_distance_is_that_of_the_nearest_code() -> None:
    index = HammingIndex(8)
    index.add(["b"], image=[codes(0b1111, 0b0011, 0b0110)])
    index.add(["a", "c"], image=[codes(0b0111), codes(0b11111, 0b1)], fields=[{}, {"x": 1}])
    [hits] = index.search(codes(0b0010), 3, target="image")
    # b: 3, 1, 1, the first of the equal ones is nearest; a: 2; c: 4, 2
    found = [(hit.id, hit.distance, hit.nearest) for hit in hits]
    assert found == [("b", 1, 1), ("a", 2, 0), ("c", 2, 1)]
    [hits] = index.search(codes(0b0010), 1, target="image", where={"x": 1})
    assert [(hit.id, hit.distance, hit.nearest) for hit in hits] == [("c", 2, 1)]
    assert len(index.search(codes(0b0010), 3, target="image", radius=1)[0]) == 1


@pytest.mark.parametrize("k", [1, 2, 3, 50, 300, 400])
def test_more_codes_are_requested_until_k_documents_are_found(k: int) -> None:
    rng = np.random.default_rng(k)
    many = BinaryCodes(
        np.zeros((40, 2), np.uint8), 16
    )  # the nearest 400 codes are of ten documents
    parts = [many] * 10 + [
        BinaryCodes(rng.integers(0, 256, (rng.integers(0, 3), 2), dtype=np.uint8), 16)
        for _ in range(290)
    ]
    ids = [f"{n:03}" for n in range(300)]
    index = HammingIndex(16)
    index.add(ids, image=parts, text=BinaryCodes(np.zeros((300, 2), np.uint8), 16))
    queries = BinaryCodes(np.array([[0, 0], [255, 255], [15, 240]], np.uint8), 16)
    for radius in (16, 5):
        expected = []
        for query in range(3):
            nearest = [
                (int(distances.min()), id_, int(distances.argmin()))
                for id_, part in zip(ids, parts, strict=True)
                for [distances] in [queries[query : query + 1].distances(part)]
                if len(part) and distances.min() <= radius
            ]
            expected.append(sorted(nearest)[:k])
        found = index.search(queries, k, target="image", radius=radius)
        assert [[(h.distance, h.id, h.nearest) for h in hits] for hits in found] == expected


def test_codes_are_sorted_by_id() -> None:
    index = HammingIndex(8)
    index.add(["c", "a"], image=codes(1, 2))
    index.add(["b"], text=codes(3))
    assert index.codes("image") == (["a", "c"], codes(2, 1))
    assert index.codes("text") == (["b"], codes(3))


def test_search_and_filter_see_every_change() -> None:
    index = HammingIndex(8)
    index.add(["a"], image=codes(0), fields=[{"x": 1}])

    def found() -> list[str]:
        [hits] = index.search(codes(0), 9, target="image", where={"x": 1})
        return [hit.id for hit in hits]

    assert found() == ["a"]
    index.add(["b"], image=codes(0), fields=[{"x": 1}])
    assert found() == ["a", "b"]
    index.delete(["a"])
    assert found() == ["b"]
    index.add(["b"], image=codes(0), fields=[{"x": 2}])
    assert found() == []


# ---- the folder ------------------------------------------------------------------------------


def test_save_needs_a_folder() -> None:
    index = HammingIndex(8)
    index.close()
    with pytest.raises(ConfigError, match="this index has no folder"):
        index.save()


def test_with_block_saves_unless_it_raised(tmp_path: Path) -> None:
    with open_folder(tmp_path / "a", bits=8, create=True) as index:
        index.add(["x"], image=codes(1))
    assert ids_of(tmp_path / "a") == ["x"]
    with pytest.raises(RuntimeError), open_folder(tmp_path / "a") as index:
        index.add(["y"], image=codes(1))
        raise RuntimeError
    assert ids_of(tmp_path / "a") == ["x"]


def test_save_without_changes_writes_nothing(tmp_path: Path) -> None:
    index = filled(tmp_path / "a", "x")
    before = identity(tmp_path / "a")
    index.save()
    index.delete(["unknown"])
    open_folder(tmp_path / "a").close()
    assert identity(tmp_path / "a") == before


def test_save_creates_folders(tmp_path: Path) -> None:
    filled(tmp_path / "some" / "where", "x").close()
    assert names(tmp_path / "some" / "where") == [FILE, "lock", "segment"]
    (tmp_path / "empty").mkdir()
    filled(tmp_path / "empty", "x").close()
    assert ids_of(tmp_path / "empty") == ["x"]


# ---- two writers -----------------------------------------------------------------------------


def test_second_of_two_writers_gets_an_error(tmp_path: Path) -> None:
    filled(tmp_path / "a", "x").close()
    first, second = open_folder(tmp_path / "a"), open_folder(tmp_path / "a")
    first.add(["y"], image=codes(1))
    second.add(["z"], image=codes(2))
    first.save()
    for _ in range(2):  # a retry fails as well
        with pytest.raises(IndexFailure, match="changed by another process"):
            second.save()
    assert ids_of(tmp_path / "a") == ["x", "y"]
    first.add(["w"], image=codes(3))
    first.save()  # its own saves are not changes of another process
    assert ids_of(tmp_path / "a") == ["w", "x", "y"]


def test_second_of_two_creators_gets_an_error(tmp_path: Path) -> None:
    first, second = (open_folder(tmp_path / "a", bits=8, create=True) for _ in range(2))
    first.add(["x"], image=codes(1))
    first.close()
    with pytest.raises(IndexFailure, match="changed by another process"):
        second.close()
    assert ids_of(tmp_path / "a") == ["x"]


def test_save_detects_a_deleted_file(tmp_path: Path) -> None:
    index = filled(tmp_path / "a", "x")
    (tmp_path / "a" / FILE).unlink()
    index.add(["y"], image=codes(1))
    with pytest.raises(IndexFailure, match="changed by another process"):
        index.save()


def test_save_detects_a_write_of_another_process(tmp_path: Path) -> None:
    index = filled(tmp_path / "a", "x")
    script = """
import sys
from xmodal.codes import BinaryCodes
from xmodal.index.local import open_folder
with open_folder(sys.argv[1]) as index:
    index.add(["other"], image=BinaryCodes.from_hex(["00"]))
"""
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "a")], check=True)
    index.add(["mine"], image=codes(1))
    with pytest.raises(IndexFailure, match="changed by another process"):
        index.save()
    assert ids_of(tmp_path / "a") == ["other", "x"]


# ---- kill -9 ---------------------------------------------------------------------------------

SAVER = """
import os, signal, sys
import numpy as np
from xmodal.codes import BinaryCodes
from xmodal.index.local import open_folder

folder, size, moment = sys.argv[1], int(sys.argv[2]), sys.argv[3]
index = open_folder(folder, bits=64, create=True)
turn = len(index) - size if len(index) else 0
die = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
while True:
    turn += 1
    n = size + turn  # turn t: size + t documents, all of turn t
    packed = np.full((n, 8), turn % 256, np.uint8)
    fields = [{"t": turn, "text": str(turn)}] * n
    index.add([str(i) for i in range(n)], image=BinaryCodes(packed, 64), fields=fields)
    if moment == "before sync":
        os.fsync = die
    if moment == "before replace":
        os.replace = die
    if moment == "after replace":
        replace = os.replace
        os.replace = lambda *paths: (replace(*paths), die())
    index.save()
    print(turn, flush=True)
"""


def start(folder: Path, moment: str = "any") -> subprocess.Popen[str]:
    """Start a process that saves turn after turn and prints each saved turn."""
    command = [sys.executable, "-c", SAVER, str(folder), str(SIZE), moment]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def complete_turn(folder: Path) -> int:
    """Return the turn of an index after checking that it is complete and of one turn."""
    index = open_folder(folder)
    turn = len(index) - SIZE
    ids, codes = index.codes("image")
    assert ids == sorted(str(at) for at in range(SIZE + turn))
    assert (codes.packed == turn % 256).all()
    [hits] = index.search(codes[:1], SIZE + turn, target="image", where={"t": turn})
    assert len(hits) == SIZE + turn
    queries = [WordsQuery(str(turn)), WordsQuery(str(turn - 1)), WordsQuery(str(turn + 1))]
    found = index.search_words(queries, SIZE + turn, target="image", where={"t": turn})
    assert [len(hits) for hits in found] == [SIZE + turn, 0, 0]
    return turn


def test_kill_during_save_leaves_the_old_or_the_new_index(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rng, folder = random.Random(0), tmp_path / "a"
    for _ in range(5):
        with start(folder) as process:
            assert process.stdout is not None
            first = int(process.stdout.readline())
            time.sleep(rng.uniform(0, 0.12))
            process.send_signal(signal.SIGKILL)
            printed = [first, *map(int, process.stdout.read().split())]
        assert process.returncode == -signal.SIGKILL
        assert complete_turn(folder) in (printed[-1], printed[-1] + 1)
    assert not caplog.records  # the words were not computed again
    index = open_folder(folder)
    index.delete(["0"])
    index.save()
    assert names(folder) == ["deleted", FILE, "lock", "segment"]


@pytest.mark.parametrize(
    ("moment", "left", "turn"),
    [
        ("before sync", [FILE, "lock", "segment", "segment"], 7),
        ("before replace", [FILE, "lock", "saving", "segment", "segment"], 7),
        ("after replace", [FILE, "lock", "segment", "segment"], 8),
    ],
)
def test_kill_around_the_rename_leaves_a_complete_index(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, moment: str, left: list[str], turn: int
) -> None:
    index = open_folder(tmp_path, bits=64, create=True)
    packed = np.full((SIZE + 7, 8), 7, np.uint8)
    ids = [str(at) for at in range(SIZE + 7)]
    index.add(ids, image=BinaryCodes(packed, 64), fields=[{"t": 7, "text": "7"}] * len(ids))
    index.save()
    with start(tmp_path, moment) as process:
        assert process.wait() == -signal.SIGKILL
    assert names(tmp_path) == left
    assert complete_turn(tmp_path) == turn
    assert not caplog.records  # the words were not computed again
    with open_folder(tmp_path) as again:
        again.delete(["0"])
    assert names(tmp_path) == ["deleted", FILE, "lock", "segment"]


def test_killed_first_save_can_be_repeated(tmp_path: Path) -> None:
    with start(tmp_path / "a", "before replace") as process:
        assert process.wait() == -signal.SIGKILL
    assert names(tmp_path / "a") == ["lock", "saving", "segment"]
    with pytest.raises(IndexMissing, match="no index at"):
        open_folder(tmp_path / "a")
    filled(tmp_path / "a", "x").close()
    assert ids_of(tmp_path / "a") == ["x"]
    assert names(tmp_path / "a") == [FILE, "lock", "segment"]


def test_lock_is_no_symbolic_link(tmp_path: Path) -> None:
    precious, folder = tmp_path / "precious", tmp_path / "a"
    precious.write_text("content")
    filled(folder, "x").close()
    (folder / "lock").unlink()
    (folder / "lock").symlink_to(precious)
    with pytest.raises(IndexFailure, match="symbolic link"), filled(folder, "y"):
        pass
    assert precious.read_text() == "content"
    assert ids_of(folder) == ["x"]


def test_lock_does_not_change_an_existing_file(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("of another program")
    filled(tmp_path, "x").close()
    assert (tmp_path / "lock").read_text() == "of another program"


def test_failed_save_leaves_the_old_index_and_can_be_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = filled(tmp_path / "a", "x")
    index.add(["y"], image=codes(1))

    def full(*paths: Any) -> None:
        raise OSError("no space left")

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", full)
        with pytest.raises(OSError, match="no space left"):
            index.save()
    assert ids_of(tmp_path / "a") == ["x"]
    assert not list((tmp_path / "a").glob("saving-*"))
    index.save()
    assert ids_of(tmp_path / "a") == ["x", "y"]


# ---- invalid folders -------------------------------------------------------------------------


def test_open_folder_rejects_a_folder_that_is_no_index(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    for create in (False, True):
        with pytest.raises(IndexFailure, match=rf"is not an index \(it has no {FILE}\)"):
            open_folder(tmp_path, bits=8, create=create)
        with pytest.raises(IndexFailure, match=r"notes\.txt exists and is not an index"):
            open_folder(tmp_path / "notes.txt", bits=8, create=create)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_open_folder_rejects_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(IndexMissing, match=r"no index at .*nowhere"):
        open_folder(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="bits is None"):
        open_folder(tmp_path / "nowhere", create=True)
    with pytest.raises(CodeError, match="bits is 12"):
        open_folder(tmp_path / "nowhere", bits=12, create=True)
    assert not (tmp_path / "nowhere").exists()


def test_open_folder_rejects_a_damaged_file(tmp_path: Path) -> None:
    filled(tmp_path / "a", "x").close()
    file = tmp_path / "a" / FILE
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(IndexFailure, match=rf"{FILE} is damaged"):
        open_folder(tmp_path / "a", bits=8, create=True)


def test_open_folder_rejects_other_bits_and_fingerprints(tmp_path: Path) -> None:
    filled(tmp_path / "a", "x").close()
    with pytest.raises(IndexMismatch, match=r"codes of 8 bits.* 16"):
        open_folder(tmp_path / "a", bits=16)
    with pytest.raises(IndexMismatch, match=r"encoder e1, .* e2"):
        open_folder(tmp_path / "a", fingerprint="e2")


def test_batches_of_an_index_fill_another() -> None:
    rng = np.random.default_rng(3)
    index = HammingIndex(16)
    codes = BinaryCodes(rng.integers(0, 256, (9, 2), dtype=np.uint8), 16)
    index.add([f"a{n}" for n in range(5)], image=codes[:5], fields=[{"n": n} for n in range(5)])
    index.add(["b0", "b1"], text=codes[5:7])
    index.add(["c0", "c1"], image=codes[7:], text=codes[:2], fields=[{"x": ["é"]}, {}])
    other = HammingIndex(16)
    sizes = []
    for batch in index.batches(size=2):
        sizes.append(len(batch))
        other.add(batch)
    assert sizes == [2, 2, 2, 2, 1]
    assert len(other) == 9
    for target in ("image", "text"):
        assert other.search(codes, 9, target=target) == index.search(codes, 9, target=target)
    assert list(HammingIndex(16).batches()) == []


# ---- reload ----------------------------------------------------------------------------------


def test_reload_returns_a_changed_index_once(tmp_path: Path) -> None:
    filled(tmp_path / "a", "x")
    reader = open_folder(tmp_path / "a")
    assert reader.reload_if_changed() is None
    with open_folder(tmp_path / "a") as writer:
        writer.add(["y"], image=codes(1))
    reloaded = reader.reload_if_changed()
    assert reloaded is not None and len(reloaded) == 2
    assert reloaded.reload_if_changed() is None
    assert HammingIndex(8).reload_if_changed() is None


def test_reload_raises_once_for_an_unusable_file(tmp_path: Path) -> None:
    reader = filled(tmp_path / "a", "x")
    file = tmp_path / "a" / FILE
    content = file.read_bytes()
    file.write_bytes(b"damaged")
    with pytest.raises(IndexFailure):
        reader.reload_if_changed()
    assert reader.reload_if_changed() is None
    file.unlink()
    with pytest.raises(IndexMissing):
        reader.reload_if_changed()
    assert reader.reload_if_changed() is None
    file.write_bytes(content)
    assert reader.reload_if_changed() is not None


# ---- listing ---------------------------------------------------------------------------------


def test_entries_are_listed_by_filter_and_by_source(tmp_path: Path) -> None:
    index = open_folder(tmp_path / "i", bits=8, create=True)
    batch = DocumentBatch.of(["b", "c"], image=codes(1, 2), fields=[{"n": 1}, {"n": 2}])
    origins = [Origin("/x", "b", "hash"), Origin("/y", "c")]
    index.add(replace(batch, origins=[origin.to_text() for origin in origins]))
    index.add(["a"], text=[codes(3, 4)], fields=[{"n": 2}])
    index.close()
    reopened = open_folder(tmp_path / "i")
    assert list(reopened.entries()) == [
        Entry("a", {"n": 2}, None),
        Entry("b", {"n": 1}, origins[0]),
        Entry("c", {"n": 2}, origins[1]),
    ]
    assert [entry.id for entry in reopened.entries(where={"n": 2})] == ["a", "c"]
    assert [entry.id for entry in reopened.entries(source="/x")] == ["b"]
    assert reopened.count_codes() == {"image": 2, "text": 2}
    assert reopened.disk_usage()[FILE] == (tmp_path / "i" / FILE).stat().st_size
    assert HammingIndex(8).disk_usage() == {}
