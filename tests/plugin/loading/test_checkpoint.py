"""Checkpoint: a file that may end at any byte never lists more than the stored batches."""

from __future__ import annotations

from pathlib import Path

from xmodal_opensearch.client import bulk
from xmodal_opensearch.loading.load import Checkpoint


def batch(number: int) -> bulk.Batch:
    return [bulk.Line(f"{number}-{n}", f"body {number} {n}\n".encode()) for n in range(3)]


def add(path: Path, *numbers: int) -> None:
    """Add batches to a checkpoint."""
    checkpoint = Checkpoint(path)
    for number in numbers:
        lines = batch(number)
        assert not checkpoint.has(number, lines)
        checkpoint.add(lines)


def stored(path: Path, count: int = 6) -> list[int]:
    """Return the numbers of the batches that the next run would not send."""
    checkpoint = Checkpoint(path)
    return [number for number in range(count) if checkpoint.has(number, batch(number))]


def test_checkpoint_lists_stored_batches(tmp_path: Path) -> None:
    file = tmp_path / "new" / "a.load"
    assert stored(file) == []
    add(file, 0, 2, 3)
    assert stored(file) == [0, 2, 3]
    add(file, 1)  # a second run
    assert stored(file) == [0, 1, 2, 3]
    Checkpoint(file).remove()
    assert stored(file) == []
    Checkpoint(file).remove()


def test_incomplete_line_is_ignored(tmp_path: Path) -> None:
    file = tmp_path / "a.load"
    add(file, 0, 1, 2)
    whole = file.read_bytes()
    for length in range(len(whole) + 1):  # killed after any byte
        file.write_bytes(whole[:length])
        before = stored(file, 3)
        assert before == list(range((length + 1) // 35)), length  # "0 <32 digits>\n"
        add(file, 4)
        assert stored(file) == [*before, 4], length
    file.write_bytes(whole + b"\xff\x00 7\n3 " + 32 * b"z" + b"\n")
    assert stored(file) == [0, 1, 2]


def test_changed_batch_invalidates_later_ones(tmp_path: Path) -> None:
    file = tmp_path / "a.load"
    add(file, 0, 1, 3, 4)
    checkpoint = Checkpoint(file)
    assert checkpoint.has(0, batch(0))
    between, changed = batch(2), batch(9)
    assert not checkpoint.has(2, between)
    checkpoint.add(between)
    assert not checkpoint.has(3, changed)
    assert not checkpoint.has(4, batch(4))  # it follows a changed batch
    checkpoint.add(changed)
    assert Checkpoint(file).has(3, batch(9))
    assert stored(file) == [0, 1, 2]


def test_batches_of_equal_ids_are_distinguished(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "a.load")
    first, second = ([bulk.Line("a", body)] for body in (b"1", b"2"))
    assert not checkpoint.has(0, first) and not checkpoint.has(1, second)
    checkpoint.add(second)
    checkpoint.add(first)
    again = Checkpoint(tmp_path / "a.load")
    assert again.has(0, first) and again.has(1, second)
