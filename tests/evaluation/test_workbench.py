"""Query sets and judgments of the Search Relevance Workbench."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.evaluation_parts import units_of

from xmodal.data.dataset import Dataset
from xmodal.data.items import FeatureName, Item
from xmodal.evaluation import workbench
from xmodal.evaluation.workbench import write_workbench

CAPTIONS = [["red", "a red one"], ["blue"], ["red", 'a "quoted" one'], ["x" * 2001, "green"]]


def items() -> Dataset:
    """Items of ``units_of(CAPTIONS)``, whose captions are named u0#0, u0#1, ..."""
    return Dataset(
        tuple(Item(f"u{n}", captions=tuple(captions)) for n, captions in enumerate(CAPTIONS))
    )


def read(folder: Path, kind: str) -> dict[str, object]:
    content = json.loads((folder / f"m.{kind}.json").read_text())
    assert isinstance(content, dict)
    return content


def test_queries_and_judgments_by_hand(tmp_path: Path) -> None:
    data = items()
    units = units_of(CAPTIONS)
    units.text_ids[units.text_ids.index("u1#0")] = "u1"  # an item with one caption
    problems = write_workbench(tmp_path, "m", units, data)
    query_set, judgments = read(tmp_path, "query_set"), read(tmp_path, "judgments")
    assert query_set == {
        "name": "m",
        "description": "captions of the query part, measured by xmodal",
        "sampling": "manual",
        "querySetQueries": [{"queryText": text} for text in ("a red one", "blue", "green", "red")],
    }
    assert judgments["type"] == "IMPORT_JUDGMENT"
    assert judgments["judgmentRatings"] == [
        {"query": text, "ratings": [{"docId": id_, "rating": "1.000"} for id_ in ids]}
        for text, ids in (
            ("a red one", ["u0"]),
            ("blue", ["u1"]),
            ("green", ["u3"]),
            ("red", ["u0", "u2"]),  # equal captions are one query
        )
    ]
    ((kind, count),) = problems.count_by_kind().items()
    assert count == 2 and "the workbench refuses" in kind
    assert problems.names(kind) == ["u2#1", "u3#0"]


def test_captions_of_unknown_text_are_counted(tmp_path: Path) -> None:
    data = Dataset((Item("u0#0", captions=(FeatureName("u0#0"),)),))
    problems = write_workbench(tmp_path, "m", units_of([["a"]]), data)
    assert problems.count_by_kind() == {"caption of unknown text": 1}
    assert read(tmp_path, "query_set")["querySetQueries"] == []


def test_many_queries_are_chosen_evenly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workbench, "MAX_QUERIES", 3)
    captions = [[letter, f"{letter}{letter}"] for letter in "abcd"]
    data = Dataset(tuple(Item(f"u{n}", captions=tuple(c)) for n, c in enumerate(captions)))
    write_workbench(tmp_path, "m", units_of(captions), data)
    queries = [one["queryText"] for one in read(tmp_path, "query_set")["querySetQueries"]]
    assert queries == ["a", "bb", "dd"]
    judged = [one["query"] for one in read(tmp_path, "judgments")["judgmentRatings"]]
    assert judged == queries
