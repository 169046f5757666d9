"""BM25 of Lucene over the words of segments.

Robertson, Zaragoza: The Probabilistic Relevance Framework: BM25 and Beyond (2009), with k1 = 1.2,
b = .75 and the rounded lengths of Lucene's ``BM25Similarity``. Numbers are of the types that Lucene
uses (score of a word float32, their sum float64, score of a document float32), so that scores and
ties equal those of a server with the same documents.

The score of a word in a document depends on the code of a posting only. Therefore it is computed
once per code, and a compiled loop adds it to the sums of the documents.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from functools import cache
from itertools import compress
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from xmodal.errors import IndexFailure
from xmodal.index.contract import WordsHit
from xmodal.index.scan_kernel import Kernel, compile_function
from xmodal.index.segments.word_columns import LENGTHS, MAX_COUNT, Postings, WordColumns
from xmodal.index.words import tokens

K1, B = np.float32(1.2), np.float32(0.75)
MAX_WORDS = 500
"""Words of a query that are searched; servers refuse longer queries."""
BLOCK = 256
"""Number of consecutive documents for which one maximum is computed."""
Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]
Rows = npt.NDArray[np.int32]
Mask = npt.NDArray[np.bool_]

# for (i = 0; i < count; i++)
#     if (accepted[rows[i]]) sums[rows[i]] += scores[codes[i]];
ADD_SCORES = """
define void @add_scores(ptr noalias %rows, ptr noalias %codes, i64 %count, ptr noalias %scores,
                        ptr noalias %accepted, ptr noalias %sums) {
start:
  %none = icmp eq i64 %count, 0
  br i1 %none, label %end, label %loop
loop:
  %i = phi i64 [ 0, %start ], [ %next, %loop ]
  %row.at = getelementptr i32, ptr %rows, i64 %i
  %row = load i32, ptr %row.at
  %code.at = getelementptr i16, ptr %codes, i64 %i
  %code.narrow = load i16, ptr %code.at
  %code = zext i16 %code.narrow to i64
  %score.at = getelementptr float, ptr %scores, i64 %code
  %score.narrow = load float, ptr %score.at
  %score = fpext float %score.narrow to double
  %accepted.at = getelementptr i8, ptr %accepted, i32 %row
  %accepted.byte = load i8, ptr %accepted.at
  %is.accepted = icmp ne i8 %accepted.byte, 0
  %added = select i1 %is.accepted, double %score, double 0.0
  %sum.at = getelementptr double, ptr %sums, i32 %row
  %sum = load double, ptr %sum.at
  %new = fadd double %sum, %added
  store double %new, ptr %sum.at
  %next = add i64 %i, 1
  %last = icmp eq i64 %next, %count
  br i1 %last, label %end, label %loop
end:
  ret void
}
"""


class Part(NamedTuple):
    """Words of a segment of ``n`` documents, ids of its rows, and live documents, None for all."""

    words: WordColumns
    ids_of: Callable[[Int64], Sequence[str]]
    n: int
    live: Mask | None


class BM25:
    """Ranking of the documents of all parts of an index by the words of a query."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts = parts
        totals = [part.words.totals(part.live) for part in parts]
        self._n, length = (sum(counts) for counts in zip((0, 0), *totals, strict=True))
        mean = np.float32(length / self._n if self._n else 1)
        # Inverse of k1 * (1 - b + b * length / mean), for each of Lucene's lengths.
        norms = 1 / (K1 * ((1 - B) + B * LENGTHS.astype(np.float32) / mean))
        counts = np.arange(MAX_COUNT + 1, dtype=np.float32)
        # For each code of a posting: the score of a word of weight w is w - w / divisor.
        self._divisors: Float32 = (1 + counts[:, None] * norms).astype(np.float32).ravel()

    def search(
        self, text: str, excluded: str, k: int, accepted: Sequence[Mask | None]
    ) -> list[WordsHit]:
        """Return the best ``k`` documents that have a word of ``text``; ties in order of ids.

        Each different word counts once, after ``MAX_WORDS`` none. ``accepted``: for each part the
        live documents that can be found, (n,), None for all. Documents with a word of ``excluded``
        cannot.
        """
        words, unwanted = (list(dict.fromkeys(tokens(t)))[:MAX_WORDS] for t in (text, excluded))
        postings = [part.words.postings(words) for part in self._parts]
        scores_of_codes = [
            self._scores_of_codes(sum(map(_live_count, self._parts, of_word)))
            for of_word in zip(*postings, strict=True)
        ]
        hits: list[WordsHit] = []
        for part, own, mask in zip(self._parts, postings, accepted, strict=True):
            if any(len(rows) for rows, _ in own):
                allowed = np.ones(part.n, np.bool_) if mask is None else mask.copy()
                for rows, _ in part.words.postings(unwanted):
                    allowed[rows] = False
                rows, scores = best(_scores(part.n, own, scores_of_codes, allowed), k)
                has = [_has(one, rows) for one in own]
                matched = (tuple(compress(words, column)) for column in zip(*has, strict=True))
                hits += map(WordsHit, part.ids_of(rows.astype(np.int64)), scores.tolist(), matched)
        return sorted(hits, key=lambda hit: (-hit.score, hit.id))[:k]

    def _scores_of_codes(self, documents: int) -> Float32:
        """Return the score of each code of postings of a word that so many documents have."""
        weight = np.float32(np.log(1 + (self._n - documents + 0.5) / (documents + 0.5)))
        return np.asarray(weight - weight / self._divisors, np.float32)


def _live_count(part: Part, postings: Postings) -> int:
    """Return the number of documents of postings that are not deleted."""
    rows = postings.rows
    return len(rows) if part.live is None else int(np.count_nonzero(part.live[rows]))


def _scores(
    n: int, postings: Sequence[Postings], scores_of_codes: Sequence[Float32], accepted: Mask
) -> Float32:
    """Return the score of each document, 0 without any of the words; (n + padding,)."""
    sums = np.zeros(-(-n // BLOCK) * BLOCK)
    for (rows, codes), scores in zip(postings, scores_of_codes, strict=True):
        # The compiled loop does not check that rows are those of documents.
        if len(rows) and not 0 <= int(rows.min()) <= int(rows.max()) < n:
            raise IndexFailure(f"a word is of row {rows.max()} of {n} documents: index again")
        add_scores()(rows, codes, len(rows), scores, accepted, sums)
    return sums.astype(np.float32)


def _has(postings: Postings, rows: Rows) -> list[bool]:
    """Return whether each of the documents has a word."""
    having = postings.rows
    if not len(having):
        return [False] * len(rows)
    places = np.minimum(np.searchsorted(having, rows), len(having) - 1)
    has: list[bool] = (having[places] == rows).tolist()
    return has


def best(scores: Float32, k: int) -> tuple[Rows, Float32]:
    """Return the rows and values of the ``k`` largest scores above 0, ties in order of rows.

    The number of scores is a multiple of ``BLOCK``. ``k`` blocks have a score that is at least the
    ``k``-th largest of the maxima of blocks, so smaller scores are not among the best.
    """
    maxima = scores.reshape(-1, BLOCK).max(axis=1)
    limit = np.partition(maxima, -k)[-k] if k <= len(maxima) else 0
    rows = np.flatnonzero(scores >= limit) if limit > 0 else np.flatnonzero(scores)
    if len(rows) > k:
        values = scores[rows]
        rows = rows[values >= np.partition(values, -k)[-k]]
    order = np.argsort(-scores[rows], kind="stable")[:k]
    found: Rows = rows[order].astype(np.int32)
    return found, scores[found]


@cache
def add_scores() -> Kernel:
    """Return the compiled loop; see ``ADD_SCORES``."""
    pointer = ctypes.c_void_p
    types = [pointer, pointer, ctypes.c_int64, pointer, pointer, pointer]
    return compile_function(ADD_SCORES, "add_scores", types)
