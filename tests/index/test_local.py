"""The local index survives being killed, sees other writers, and says what is wrong."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest

from xmodal.codes import BinaryCodes
from xmodal.errors import CodeError, ConfigError, IndexFailure, IndexMismatch, IndexMissing
from xmodal.index.local import FILE, HammingIndex, open_folder

SIZE = 3000


def codes(*numbers: int) -> BinaryCodes:
    """Codes of 8 bits."""
    return BinaryCodes(np.array(numbers, np.uint8).reshape(-1, 1), 8)


def filled(folder: Path, *ids: str) -> HammingIndex:
    """An index of 8 bits with an image code for each id, saved."""
    index = open_folder(folder, bits=8, fingerprint="e1", create=True)
    index.add(ids, image=codes(*range(len(ids))), fields=[{"name": id_} for id_ in ids])
    index.save()
    return index


def ids_of(folder: Path) -> list[str]:
    return open_folder(folder).codes("image")[0]


# ---- search ----------------------------------------------------------------------------------


def test_distances_by_hand() -> None:
    index = HammingIndex(16)
    index.add(["b", "a", "c"], image=BinaryCodes.from_hex(["ff00", "f00f", "0000"]))
    [hits] = index.search(BinaryCodes.from_hex(["f000"]), 3, target="image")
    # f000 ^ ff00 = 0f00: 4; f000 ^ f00f = 000f: 4, and a comes before b; f000 ^ 0000 = f000: 4
    assert [(hit.id, hit.distance) for hit in hits] == [("a", 4), ("b", 4), ("c", 4)]
    [hits] = index.search(BinaryCodes.from_hex(["ff01"]), 3, target="image", radius=7)
    # ff01 ^ ff00 = 0001: 1; ff01 ^ f00f = 0f0e: 4 + 3; ff01 ^ 0000 = ff01: 8 + 1 > 7
    assert [(hit.id, hit.distance) for hit in hits] == [("b", 1), ("a", 4 + 3)]


def test_the_codes_of_one_side_come_in_order_of_id() -> None:
    index = HammingIndex(8)
    index.add(["c", "a"], image=codes(1, 2))
    index.add(["b"], text=codes(3))
    assert index.codes("image") == (["a", "c"], codes(2, 1))
    assert index.codes("text") == (["b"], codes(3))


def test_a_change_is_seen_by_the_next_search_and_filter() -> None:
    index = HammingIndex(8)
    index.add(["a"], image=codes(0), fields=[{"x": 1}])

    def shown() -> list[str]:
        [hits] = index.search(codes(0), 9, target="image", where={"x": 1})
        return [hit.id for hit in hits]

    assert shown() == ["a"]
    index.add(["b"], image=codes(0), fields=[{"x": 1}])
    assert shown() == ["a", "b"]
    index.delete(["a"])
    assert shown() == ["b"]
    index.add(["b"], image=codes(0), fields=[{"x": 2}])
    assert shown() == []


@pytest.mark.parametrize("queries", [1, 2, 5])
def test_the_threads_of_faiss_are_as_before(queries: int) -> None:
    index = HammingIndex(8)
    index.add(["a"], image=codes(1))
    before = faiss.omp_get_max_threads()
    try:
        faiss.omp_set_num_threads(3)
        index.search(codes(*range(queries)), 1, target="image")
        assert faiss.omp_get_max_threads() == 3
    finally:
        faiss.omp_set_num_threads(before)


def test_the_threads_of_faiss_are_as_before_when_a_search_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    index = HammingIndex(8)
    index.add(["a"], image=codes(1))
    seen = []

    class Failing:
        def search(self, *arguments: Any, **options: Any) -> None:
            seen.append(faiss.omp_get_max_threads())
            raise MemoryError

    monkeypatch.setattr(index, "_flat", lambda side: (Failing(), np.array([0])))
    before = faiss.omp_get_max_threads()
    try:
        faiss.omp_set_num_threads(3)
        with pytest.raises(MemoryError):
            index.search(codes(1), 1, target="image")
        assert (seen, faiss.omp_get_max_threads()) == ([1], 3)
    finally:
        faiss.omp_set_num_threads(before)


# ---- the folder ------------------------------------------------------------------------------


def test_an_index_without_a_folder_is_not_saved() -> None:
    index = HammingIndex(8)
    index.close()
    with pytest.raises(ConfigError, match="this index has no folder"):
        index.save()


def test_leaving_a_with_block_saves_unless_it_failed(tmp_path: Path) -> None:
    with open_folder(tmp_path / "a", bits=8, create=True) as index:
        index.add(["x"], image=codes(1))
    assert ids_of(tmp_path / "a") == ["x"]
    with pytest.raises(RuntimeError), open_folder(tmp_path / "a") as index:
        index.add(["y"], image=codes(1))
        raise RuntimeError
    assert ids_of(tmp_path / "a") == ["x"]


def test_saving_without_a_change_writes_nothing(tmp_path: Path) -> None:
    index = filled(tmp_path / "a", "x")
    before = (tmp_path / "a" / FILE).stat()
    index.save()
    index.delete(["unknown"])
    open_folder(tmp_path / "a").close()
    assert (tmp_path / "a" / FILE).stat() == before


def test_an_index_is_made_in_folders_that_do_not_exist_yet(tmp_path: Path) -> None:
    filled(tmp_path / "some" / "where", "x").close()
    assert sorted(path.name for path in (tmp_path / "some" / "where").iterdir()) == [FILE, "lock"]
    (tmp_path / "empty").mkdir()
    filled(tmp_path / "empty", "x").close()
    assert ids_of(tmp_path / "empty") == ["x"]


# ---- two writers -----------------------------------------------------------------------------


def test_the_second_of_two_writers_is_told(tmp_path: Path) -> None:
    filled(tmp_path / "a", "x").close()
    first, second = open_folder(tmp_path / "a"), open_folder(tmp_path / "a")
    first.add(["y"], image=codes(1))
    second.add(["z"], image=codes(2))
    first.save()
    for _ in range(2):  # trying again does not help
        with pytest.raises(IndexFailure, match=r"changed by another process .* open it again"):
            second.save()
    assert ids_of(tmp_path / "a") == ["x", "y"]
    first.add(["w"], image=codes(3))
    first.save()  # its own saves are no one else's
    assert ids_of(tmp_path / "a") == ["w", "x", "y"]


def test_the_second_of_two_makers_is_told(tmp_path: Path) -> None:
    first, second = (open_folder(tmp_path / "a", bits=8, create=True) for _ in range(2))
    first.add(["x"], image=codes(1))
    first.close()
    with pytest.raises(IndexFailure, match="changed by another process"):
        second.close()
    assert ids_of(tmp_path / "a") == ["x"]


def test_a_writer_is_told_that_the_file_went_away(tmp_path: Path) -> None:
    index = filled(tmp_path / "a", "x")
    (tmp_path / "a" / FILE).unlink()
    index.add(["y"], image=codes(1))
    with pytest.raises(IndexFailure, match="changed by another process"):
        index.save()


def test_another_process_is_a_second_writer_too(tmp_path: Path) -> None:
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
    index.add([str(i) for i in range(n)], image=BinaryCodes(packed, 64), fields=[{"t": turn}] * n)
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
    """A process that saves turn after turn and prints each turn once it is saved."""
    command = [sys.executable, "-c", SAVER, str(folder), str(SIZE), moment]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def complete_turn(folder: Path) -> int:
    """The turn of the index in a folder, of which nothing is missing and nothing is mixed in."""
    index = open_folder(folder)
    turn = len(index) - SIZE
    ids, kept = index.codes("image")
    assert ids == sorted(str(at) for at in range(SIZE + turn))
    assert (kept.packed == turn % 256).all()
    [hits] = index.search(kept[:1], SIZE + turn, target="image", where={"t": turn})
    assert len(hits) == SIZE + turn
    return turn


def test_a_kill_at_any_moment_leaves_the_old_or_the_new_index(tmp_path: Path) -> None:
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
    index = open_folder(folder)
    index.delete(["0"])
    index.save()
    assert sorted(path.name for path in folder.iterdir()) == [FILE, "lock"]


@pytest.mark.parametrize(
    ("moment", "left", "turn"),
    [("before sync", 1, 7), ("before replace", 1, 7), ("after replace", 0, 8)],
)
def test_a_kill_at_the_worst_moments(tmp_path: Path, moment: str, left: int, turn: int) -> None:
    index = open_folder(tmp_path, bits=64, create=True)
    packed = np.full((SIZE + 7, 8), 7, np.uint8)
    ids = [str(at) for at in range(SIZE + 7)]
    index.add(ids, image=BinaryCodes(packed, 64), fields=[{"t": 7}] * len(ids))
    index.save()
    with start(tmp_path, moment) as process:
        assert process.wait() == -signal.SIGKILL
    assert len(list(tmp_path.glob("saving-*"))) == left
    assert complete_turn(tmp_path) == turn
    with open_folder(tmp_path) as again:
        again.delete(["0"])
    assert sorted(path.name for path in tmp_path.iterdir()) == [FILE, "lock"]


def test_a_first_save_that_was_killed_can_be_repeated(tmp_path: Path) -> None:
    with start(tmp_path / "a", "before replace") as process:
        assert process.wait() == -signal.SIGKILL
    assert len(list((tmp_path / "a").glob("saving-*"))) == 1
    with pytest.raises(IndexMissing, match="no index at"):
        open_folder(tmp_path / "a")
    filled(tmp_path / "a", "x").close()
    assert ids_of(tmp_path / "a") == ["x"]
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == [FILE, "lock"]


def test_a_lock_that_is_a_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    precious, folder = tmp_path / "precious", tmp_path / "a"
    precious.write_text("content")
    filled(folder, "x").close()
    (folder / "lock").unlink()
    (folder / "lock").symlink_to(precious)
    with pytest.raises(IndexFailure, match="symbolic link"), filled(folder, "y"):
        pass
    assert precious.read_text() == "content"
    assert ids_of(folder) == ["x"]


def test_a_lock_keeps_what_is_in_its_file(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("of another program")
    filled(tmp_path, "x").close()
    assert (tmp_path / "lock").read_text() == "of another program"


def test_a_save_that_fails_leaves_the_old_index_and_can_be_repeated(
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


# ---- what is wrong with it -------------------------------------------------------------------


def test_a_folder_that_is_not_an_index(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    for create in (False, True):
        with pytest.raises(IndexFailure, match=rf"is not an index \(it has no {FILE}\): name"):
            open_folder(tmp_path, bits=8, create=create)
        with pytest.raises(IndexFailure, match=r"notes\.txt exists and is not an index"):
            open_folder(tmp_path / "notes.txt", bits=8, create=create)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(IndexMissing, match=r"no index at .*nowhere: make one with xmodal index"):
        open_folder(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="say how many bits"):
        open_folder(tmp_path / "nowhere", create=True)
    with pytest.raises(CodeError, match="bits is 12"):
        open_folder(tmp_path / "nowhere", bits=12, create=True)
    assert not (tmp_path / "nowhere").exists()


def test_a_damaged_file_is_not_opened(tmp_path: Path) -> None:
    filled(tmp_path / "a", "x").close()
    file = tmp_path / "a" / FILE
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(IndexFailure, match=rf"{FILE} is damaged \(.+\): index again"):
        open_folder(tmp_path / "a", bits=8, create=True)


def test_an_index_of_other_bits_or_of_another_encoder(tmp_path: Path) -> None:
    filled(tmp_path / "a", "x").close()
    with pytest.raises(IndexMismatch, match="holds codes of 8 bits, asked for 16"):
        open_folder(tmp_path / "a", bits=16)
    with pytest.raises(IndexMismatch, match="filled by encoder e1, this is encoder e2"):
        open_folder(tmp_path / "a", fingerprint="e2")


def test_batches_of_one_index_fill_another() -> None:
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
