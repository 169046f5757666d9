"""Reciprocal rank fusion of ranked lists.

Cormack, Clarke, Büttcher: Reciprocal Rank Fusion outperforms Condorcet and individual rank learning
methods (SIGIR 2009): score(d) = sum over lists of weight / (constant + rank(d)), ranks from 1. The
paper has no weights; with weights of 1 the score is that of the paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, NamedTuple, TypeVar

RRF_CONSTANT = 60
"""Constant used in the paper."""


Id = TypeVar("Id", str, tuple[str, str])
"""Id of a document, or the id and another part of its identity."""


class FusedRank(NamedTuple, Generic[Id]):
    """Score of a document and its rank, from 1, in each list; None where a list lacks it."""

    id: Id
    score: float
    ranks: tuple[int | None, ...]


def reciprocal_rank(
    lists: Sequence[Sequence[Id]],
    constant: int = RRF_CONSTANT,
    weights: Sequence[float] | None = None,
) -> list[FusedRank[Id]]:
    """Return the documents of all lists, best first; equal scores are ordered by id.

    ``weights``: one per list, by default 1.
    """
    each = [1.0] * len(lists) if weights is None else list(weights)
    ranks_by_id = [{id_: rank for rank, id_ in enumerate(ids, start=1)} for ids in lists]
    fused = []
    for id_ in {id_ for ids in lists for id_ in ids}:
        ranks = tuple(by_id.get(id_) for by_id in ranks_by_id)
        score = sum(
            weight / (constant + rank)
            for weight, rank in zip(each, ranks, strict=True)
            if rank is not None
        )
        fused.append(FusedRank(id_, score, ranks))
    return sorted(fused, key=lambda document: (-document.score, document.id))
