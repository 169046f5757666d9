"""CodeSearch: several parts give the documents of one part with all of them."""

from __future__ import annotations

import numpy as np
import pytest

from xmodal.codes import BinaryCodes
from xmodal.errors import IndexFailure
from xmodal.index.code_search import CodeSearch, Match, Part
from xmodal.index.query_codes import QueryCodes
from xmodal.index.scan import CodeColumn, word_major
from xmodal.vectors import to_int8

BITS = 16
"""So few that many documents tie."""


class Documents:
    """Random documents with ids in ascending order; ``counts``: codes of each."""

    def __init__(self, rng: np.random.Generator, counts: np.ndarray) -> None:
        self.counts, self.offsets = counts, np.concatenate([[0], np.cumsum(counts)])
        self.outputs = rng.normal(size=(self.offsets[-1], BITS)).round(0)
        self.ids = np.array([f"{number:05d}" for number in range(len(counts))])
        self.live = rng.random(len(counts)) < 0.8

    def part(self, rows: np.ndarray, *, vectors: bool) -> Part:
        """Return a part with these documents, in ascending order."""
        codes = np.concatenate(
            [np.arange(self.offsets[row], self.offsets[row + 1]) for row in rows]
            or [np.zeros(0, np.int64)]
        )
        counts, outputs, ids = self.counts[rows], self.outputs[codes], self.ids[rows]
        words = word_major(BinaryCodes.from_relaxed(outputs).packed)
        words.setflags(write=False)  # as in a file that is mapped into memory
        return Part(
            CodeColumn(words, len(outputs)),
            lambda own: ids[own].tolist(),
            None if (counts == 1).all() else np.concatenate([[0], np.cumsum(counts)]),
            live=self.live[rows],
            vectors=(lambda starts, ends: to_int8(outputs)) if vectors else None,
        )


def named(matches: list[Match], parts: list[Part]) -> list[tuple[object, ...]]:
    """Return the matches with ids in place of part and row."""
    ids = [parts[match.part].ids_of(np.array([match.row]))[0] for match in matches]
    return [(id_, *match[2:]) for id_, match in zip(ids, matches, strict=True)]


@pytest.mark.parametrize("most", [1, 3])
@pytest.mark.parametrize("kind", ["codes", "weights", "vectors"])
def test_several_parts_equal_one(kind: str, most: int) -> None:
    rng = np.random.default_rng([most, len(kind)])
    counts = rng.integers(0, most + 1, 700) if most > 1 else np.ones(700, np.int64)
    documents = Documents(rng, counts)
    of_part = rng.integers(0, 5, 700)
    of_part[of_part == 3] = 0  # a part without documents
    rows = [np.flatnonzero(of_part == number) for number in range(5)]
    parts = [documents.part(own, vectors=kind == "vectors") for own in rows]
    whole = [documents.part(np.arange(700), vectors=kind == "vectors")]
    several, one = CodeSearch(parts), CodeSearch(whole)
    queries = QueryCodes.of(rng.normal(size=(4, BITS)).astype(np.float32))
    queries = QueryCodes(
        queries.codes,
        None if kind == "codes" else queries.weights,
        queries.vectors if kind == "vectors" else None,
    )
    for mask in (None, rng.random(700) < 0.3, np.zeros(700, np.bool_)):
        masks = [None if mask is None else mask[own] for own in rows]
        for k, radius, window in ((1, BITS, 5), (10, BITS, 40), (30, 4, 2), (900, BITS, 900)):
            options = {"radius": radius, "window": window}
            found = several.search(queries, k, masks=masks, **options)
            expected = one.search(queries, k, masks=[mask], **options)
            for own, other in zip(found, expected, strict=True):
                assert named(own, parts) == named(other, whole)
    wanted = [rng.permutation(len(own))[:20] for own in rows]
    asked = np.concatenate([own[places] for own, places in zip(rows, wanted, strict=True)])
    measured = named(several.measure(queries, wanted), parts)
    assert sorted(measured) == sorted(named(one.measure(queries, [asked]), whole))
    assert len(measured) == np.count_nonzero(counts[asked])


def test_deleted_documents_are_not_found_but_their_ids_may_be_live_elsewhere() -> None:
    codes = CodeColumn.of(np.zeros((2, 2), np.uint8))
    old = Part(codes, lambda rows: [["a", "b"][row] for row in rows], live=np.array([False, True]))
    new = Part(codes, lambda rows: [["a", "c"][row] for row in rows])
    queries = QueryCodes(BinaryCodes(np.zeros((1, 2), np.uint8), BITS))
    [found] = CodeSearch([old, new]).search(queries, 3, radius=0, window=3)
    assert [(match.part, match.row) for match in found] == [(1, 0), (0, 1), (1, 1)]


def test_vectors_are_checked_before_they_are_read() -> None:
    def vectors(starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
        if 2 in starts:
            raise IndexFailure("damaged")
        return to_int8(outputs)

    outputs = np.eye(4, BITS) - 0.5
    part = Part(
        CodeColumn.of(BinaryCodes.from_relaxed(outputs).packed),
        lambda rows: [str(row) for row in rows],
        vectors=vectors,
    )
    search = CodeSearch([part])
    queries = QueryCodes.of(outputs[:1].astype(np.float32))
    assert [match.row for match in search.measure(queries, [np.array([0, 3])])] == [0, 3]
    with pytest.raises(IndexFailure):
        search.search(queries, 1, radius=BITS, window=4)
    masks = [np.array([True, True, False, True])]
    [[match]] = search.search(queries, 1, radius=BITS, window=4, masks=masks)
    assert match.row == 0


def test_no_parts() -> None:
    queries = QueryCodes.of(np.ones((2, BITS), np.float32))
    assert CodeSearch([]).search(queries, 5, radius=BITS, window=10) == [[], []]
    assert CodeSearch([]).measure(queries, []) == []
