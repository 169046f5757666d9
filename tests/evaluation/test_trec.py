"""TREC files: lines of runs and relevance judgements."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from support.evaluation_parts import codes, part, units_of

from xmodal.codes import BinaryCodes
from xmodal.evaluation import trec
from xmodal.evaluation.trec import (
    run_lines,
    trec_qrels,
    trec_run,
    write_caption_trec,
    write_trec,
)


def test_trec_run_and_qrels_by_hand() -> None:
    database = part("bac", [[1, 0], [0, 1], [1, 0]], [0, 0, 0], [3, 3, 0])
    query = part("p", [[1, 0]], [0], [0])
    database.ids[0] = "b with space"
    assert list(trec_run(query, database, "image", "text")) == [
        "p Q0 c 1 0 xmodal",
        "p Q0 a 2 -2000 xmodal",  # tied with b: order of id
        "p Q0 b%20with%20space 3 -2001 xmodal",
    ]
    assert len(list(trec_run(query, database, "image", "text", depth=2))) == 2
    assert list(trec_qrels(query, database)) == ["p 0 b%20with%20space 1", "p 0 c 1"]


def test_write_trec_writes_both_directions_and_qrels(tmp_path: Path) -> None:
    database = part("ab", [[1, 0], [0, 1]], [0, 1], [0, 3])
    query = part("p", [[1, 0]], [0], [0])
    write_trec(tmp_path, "m", query, database)
    assert read_lines(tmp_path) == {
        "m.image-text.run": ["p Q0 a 1 0 xmodal", "p Q0 b 2 -2000 xmodal"],
        "m.text-image.run": ["p Q0 a 1 0 xmodal", "p Q0 b 2 -1000 xmodal"],
        "m.qrels": ["p 0 a 1"],
    }


def test_all_own_captions_are_relevant(tmp_path: Path) -> None:
    units = units_of([["red", "round"], ["blue"]])
    write_caption_trec(tmp_path, "m", units, {"image": codes([0, 7]), "text": codes([1, 0, 3])})
    assert read_lines(tmp_path) == {
        "m.captions.image-text.run": [
            "u0#0 Q0 u0#1 1 0 xmodal",
            "u0#0 Q0 u0#0 2 -1000 xmodal",
            "u0#0 Q0 u1#0 3 -2000 xmodal",
            "u1#0 Q0 u1#0 1 -1000 xmodal",
            "u1#0 Q0 u0#0 2 -2000 xmodal",
            "u1#0 Q0 u0#1 3 -3000 xmodal",
        ],
        "m.captions.image-text.qrels": ["u0#0 0 u0#0 1", "u0#0 0 u0#1 1", "u1#0 0 u1#0 1"],
        "m.captions.text-image.run": [
            "u0#0 Q0 u0#0 1 -1000 xmodal",
            "u0#0 Q0 u1#0 2 -2000 xmodal",
            "u0#1 Q0 u0#0 1 0 xmodal",
            "u0#1 Q0 u1#0 2 -3000 xmodal",
            "u1#0 Q0 u1#0 1 -1000 xmodal",
            "u1#0 Q0 u0#0 2 -2000 xmodal",
        ],
        "m.captions.text-image.qrels": ["u0#0 0 u0#0 1", "u0#1 0 u0#0 1", "u1#0 0 u1#0 1"],
    }


def test_ids_stay_distinct_and_can_be_restored() -> None:
    ids = ["a b", "a_b", "a%20b", "a\tb", "a\nb", "a\u2003b", " a", "a ", "a\x00b", "ä/b#1", "赤い"]
    lines = list(run_lines(["q"], codes([0]), ids, codes([0] * len(ids))))
    tokens = [line.split()[2] for line in lines]
    assert all(len(line.split()) == 6 for line in lines)
    assert sorted(map(unquote, tokens)) == sorted(ids)
    assert "ä/b#1" in tokens and "赤い" in tokens


def test_a_run_does_not_depend_on_the_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    queries, documents = (
        BinaryCodes(rng.integers(0, 8, size=(n, 1)).astype(np.uint8), 8) for n in (5, 9)
    )
    names = [f"d{rng.integers(1000)}" for _ in range(9)], [f"q{number}" for number in range(5)]
    whole = list(run_lines(names[1], queries, names[0], documents, 4))
    monkeypatch.setattr(trec, "CHUNK_CELLS", 1)
    assert list(run_lines(names[1], queries, names[0], documents, 4)) == whole
    for query in range(5):
        distances = queries[query : query + 1].distances(documents)[0].tolist()
        expected = sorted(zip(distances, names[0], strict=True))[:4]
        found = [line.split() for line in whole[4 * query : 4 * query + 4]]
        assert [(-int(line[4]) // 1000, line[2]) for line in found] == expected
        scores = [int(line[4]) for line in found]
        assert scores == sorted(set(scores), reverse=True)


def read_lines(folder: Path) -> dict[str, list[str]]:
    return {path.name: path.read_text().splitlines() for path in folder.iterdir()}
