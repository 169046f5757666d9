"""Counts and names of problems."""

from __future__ import annotations

from pathlib import Path

from xmodal.data.problems import Problems


def test_problems_are_counted_and_their_first_names_listed() -> None:
    problems = Problems()
    for name in "abcde":
        problems.add("picture missing", name)
    other = Problems()
    other.add("caption empty", Path("f.txt"))
    problems.extend(other)
    assert problems.count_by_kind() == {"picture missing": 5, "caption empty": 1}
    assert problems.summary_lines() == [
        "5 x picture missing: a, b, c, and 2 more",
        "1 x caption empty: f.txt",
    ]
    assert len(problems) == 6 and problems.names("unknown kind") == []


def test_names_with_line_breaks_are_shown_on_one_line() -> None:
    problems = Problems()
    problems.add("picture missing", "a\nb.jpg")
    assert problems.summary_lines() == ["1 x picture missing: a b.jpg"]
    assert problems.names("picture missing") == ["a\nb.jpg"]
