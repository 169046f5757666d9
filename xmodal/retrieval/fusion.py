"""Two ranked lists made one: reciprocal rank fusion. Pure.

Cormack, Clarke, Büttcher: Reciprocal Rank Fusion outperforms Condorcet and individual rank learning
methods (SIGIR 2009): score(d) = sum over lists of 1 / (constant + rank(d)), ranks from 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

CONSTANT = 60
"""The paper's value."""


class Fused(NamedTuple):
    """One document: its summed score, and its rank (from 1) in each list, None where absent."""

    id: str
    score: float
    ranks: tuple[int | None, ...]


def reciprocal_rank(lists: Sequence[Sequence[str]], constant: int = CONSTANT) -> list[Fused]:
    """The documents of all lists, best first; equal scores come in order of id."""
    places = [{id_: rank for rank, id_ in enumerate(ids, start=1)} for ids in lists]
    fused = []
    for id_ in {id_ for ids in lists for id_ in ids}:
        ranks = tuple(place.get(id_) for place in places)
        score = sum(1 / (constant + rank) for rank in ranks if rank is not None)
        fused.append(Fused(id_, score, ranks))
    return sorted(fused, key=lambda one: (-one.score, one.id))
