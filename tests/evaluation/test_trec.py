"""TREC files: lines of runs and relevance judgements."""

from __future__ import annotations

from pathlib import Path

from support.evaluation_parts import part

from xmodal.evaluation.trec import trec_qrels, trec_run, write_trec


def test_trec_run_and_qrels_by_hand() -> None:
    database = part("bac", [[1, 0], [0, 1], [1, 0]], [0, 0, 0], [3, 3, 0])
    query = part("p", [[1, 0]], [0], [0])
    database.ids[0] = "b with space"
    assert list(trec_run(query, database, "image", "text")) == [
        "p Q0 c 1 0 xmodal",
        "p Q0 a 2 -2 xmodal",  # tied with b: order of id
        "p Q0 b_with_space 3 -2 xmodal",
    ]
    assert len(list(trec_run(query, database, "image", "text", depth=2))) == 2
    assert list(trec_qrels(query, database)) == ["p 0 b_with_space 1", "p 0 c 1"]


def test_write_trec_writes_both_directions_and_qrels(tmp_path: Path) -> None:
    database = part("ab", [[1, 0], [0, 1]], [0, 1], [0, 3])
    query = part("p", [[1, 0]], [0], [0])
    write_trec(tmp_path, "m", query, database)
    written = {path.name: path.read_text().splitlines() for path in tmp_path.iterdir()}
    assert written == {
        "m.image-text.run": ["p Q0 a 1 0 xmodal", "p Q0 b 2 -2 xmodal"],
        "m.text-image.run": ["p Q0 a 1 0 xmodal", "p Q0 b 2 -1 xmodal"],
        "m.qrels": ["p 0 a 1"],
    }
