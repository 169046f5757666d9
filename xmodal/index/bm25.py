"""BM25 of Lucene over an inverted file.

Robertson, Zaragoza: The Probabilistic Relevance Framework: BM25 and Beyond (2009), with k1 = 1.2,
b = .75 and the rounded lengths of Lucene's ``BM25Similarity``. Numbers are of the types that Lucene
uses (score of a word float32, their sum float64, score of a document float32), so that scores and
ties equal those of a server with the same documents.

The score of a word in a document depends on the code of a posting only. Therefore it is computed
once per code, and a compiled loop adds it to the sums of the documents.
"""

from __future__ import annotations

import ctypes
from functools import cache
from itertools import compress
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from xmodal.index.postings import LENGTHS, Postings
from xmodal.index.scan_kernel import Kernel, compile_function
from xmodal.index.words import tokens

K1, B = np.float32(1.2), np.float32(0.75)
MAX_WORDS = 500
"""Words of a query that are searched; servers refuse longer queries."""
BLOCK = 256
"""Number of consecutive documents for which one maximum is computed."""
Float32 = npt.NDArray[np.float32]
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


class Found(NamedTuple):
    """A document, its score, and the words of the query that it has, in their order."""

    row: int
    score: float
    matched: tuple[str, ...]


class BM25:
    """Ranking of the documents of an inverted file by the words of a query."""

    def __init__(self, postings: Postings) -> None:
        self.postings = postings
        self._n = int(np.count_nonzero(postings.lengths))
        mean = np.float32(postings.lengths.sum(dtype=np.int64) / self._n if self._n else 1)
        # Inverse of k1 * (1 - b + b * length / mean), for each of Lucene's lengths.
        norms = 1 / (K1 * ((1 - B) + B * LENGTHS.astype(np.float32) / mean))
        counts = np.arange((int(postings.codes.max(initial=0)) >> 8) + 1, dtype=np.float32)
        # For each code of a posting: the score of a word of weight w is w - w / divisor.
        self._divisors: Float32 = (1 + counts[:, None] * norms).astype(np.float32).ravel()

    def search(self, text: str, excluded: str, k: int, accepted: Mask) -> list[Found]:
        """Return the best ``k`` documents that have a word of ``text``; ties in order of rows.

        Each different word counts once, after ``MAX_WORDS`` none. ``accepted``: documents that can
        be found, (n,). Documents with a word of ``excluded`` cannot.
        """
        words, unwanted = (list(dict.fromkeys(tokens(t)))[:MAX_WORDS] for t in (text, excluded))
        if unwanted:
            accepted = accepted.copy()
            for word in unwanted:
                accepted[self.postings.rows[self.postings.rows_of(word)]] = False
        return self._found(words, *best(self._scores(words, accepted), k))

    def _scores(self, words: list[str], accepted: Mask) -> Float32:
        """Return the score of each document, 0 without any of the words; (n + padding,)."""
        n = len(self.postings)
        sums = np.zeros(-(-n // BLOCK) * BLOCK)
        for word in words:
            place = self.postings.rows_of(word)
            rows, codes = self.postings.rows[place], self.postings.codes[place]
            add_scores()(rows, codes, len(rows), self._scores_of_codes(len(rows)), accepted, sums)
        return sums.astype(np.float32)

    def _scores_of_codes(self, documents: int) -> Float32:
        """Return the score of each code of postings of a word that so many documents have."""
        weight = np.float32(np.log(1 + (self._n - documents + 0.5) / (documents + 0.5)))
        return np.asarray(weight - weight / self._divisors, np.float32)

    def _found(self, words: list[str], rows: Rows, scores: Float32) -> list[Found]:
        """Return the documents at ``rows`` with the words that they have."""
        has = [self._has(word, rows) for word in words]
        matched = (tuple(compress(words, column)) for column in zip(*has, strict=True))
        return list(map(Found, rows.tolist(), scores.tolist(), matched))

    def _has(self, word: str, rows: Rows) -> list[bool]:
        """Return whether each of the documents has a word."""
        having = self.postings.rows[self.postings.rows_of(word)]
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
