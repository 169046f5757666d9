"""What a loader that may be killed at any byte has noted: never more than the server has taken."""

from __future__ import annotations

from pathlib import Path

from xmodal_opensearch.client import bulk
from xmodal_opensearch.loading.load import Checkpoint


def batch(number: int) -> bulk.Batch:
    return [bulk.Line(f"{number}-{n}", f"body {number} {n}\n".encode()) for n in range(3)]


def noted(path: Path, *numbers: int) -> Checkpoint:
    """A checkpoint of a load that sent these batches."""
    made = Checkpoint(path)
    for number in numbers:
        one = batch(number)
        assert not made.has(number, one)
        made.note(one)
    return made


def known(path: Path, count: int = 6) -> list[int]:
    """The batches that the next run would not send."""
    opened = Checkpoint(path)
    return [number for number in range(count) if opened.has(number, batch(number))]


def test_a_checkpoint_knows_what_was_taken(tmp_path: Path) -> None:
    file = tmp_path / "new" / "a.load"
    assert known(file) == []
    noted(file, 0, 2, 3)
    assert known(file) == [0, 2, 3]
    noted(file, 1)  # a second run
    assert known(file) == [0, 1, 2, 3]
    Checkpoint(file).remove()
    assert known(file) == []
    Checkpoint(file).remove()


def test_a_half_written_line_is_no_note(tmp_path: Path) -> None:
    file = tmp_path / "a.load"
    noted(file, 0, 1, 2)
    whole = file.read_bytes()
    for length in range(len(whole) + 1):  # killed after any byte
        file.write_bytes(whole[:length])
        before = known(file, 3)
        assert before == list(range((length + 1) // 35)), length  # "0 <32 digits>\n"
        noted(file, 4)
        assert known(file) == [*before, 4], length
    file.write_bytes(whole + b"\xff\x00 7\n3 " + 32 * b"z" + b"\n")
    assert known(file) == [0, 1, 2]


def test_a_batch_that_changed_ends_what_is_known(tmp_path: Path) -> None:
    file = tmp_path / "a.load"
    noted(file, 0, 1, 3, 4)
    opened = Checkpoint(file)
    assert opened.has(0, batch(0))
    between, changed = batch(2), batch(9)
    assert not opened.has(2, between)
    opened.note(between)
    assert not opened.has(3, changed)
    assert not opened.has(4, batch(4))  # not looked at: what follows a change is sent
    opened.note(changed)
    assert Checkpoint(file).has(3, batch(9))
    assert known(file) == [0, 1, 2]


def test_batches_of_equal_ids_are_told_apart(tmp_path: Path) -> None:
    opened = Checkpoint(tmp_path / "a.load")
    first, second = ([bulk.Line("a", body)] for body in (b"1", b"2"))
    assert not opened.has(0, first) and not opened.has(1, second)
    opened.note(second)
    opened.note(first)
    again = Checkpoint(tmp_path / "a.load")
    assert again.has(0, first) and again.has(1, second)
