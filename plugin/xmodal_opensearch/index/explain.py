"""Explanation of a hit: distance, differing bits and ranks of one document for one query."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from xmodal.codes import BinaryCodes
from xmodal.errors import IndexMissing
from xmodal.index.contract import WordsQuery
from xmodal.index.validation import check_search
from xmodal.modality import Modality
from xmodal_opensearch.index.exact_search import count_within
from xmodal_opensearch.index.handle import IndexHandle
from xmodal_opensearch.index.mapping import ID
from xmodal_opensearch.index.queries import MAX_HITS
from xmodal_opensearch.index.reading import read_batch
from xmodal_opensearch.index.words_search import search_words


class Explanation(NamedTuple):
    """Distance and ranks of one document for one query.

    ``nearest``: position, from 0, of the document's nearest code, to which ``distance`` and
    ``differing`` refer. ``differing``: positions of the bits, from 0, in which code and query
    differ. ``code_rank``, ``text_rank``: from 1; ``text_rank`` is None without words, or beyond the
    first 10,000.
    """

    id: str
    distance: int
    bits: int
    differing: tuple[int, ...]
    code_rank: int
    text_rank: int | None
    nearest: int = 0

    @property
    def agreeing(self) -> int:
        """Number of bits in which code and query agree."""
        return self.bits - self.distance


def explain(
    handle: IndexHandle,
    id_: str,
    query: BinaryCodes,
    *,
    target: Modality,
    words: str | None = None,
    text_field: str | None = None,
    where: Mapping[str, Any] | None = None,
) -> Explanation:
    """Return distance and ranks of a document for one query.

    ``words``, ``text_field``: also rank by BM25 of these words, see search_words. ``where``: rank
    among documents that pass this filter. The confidence of a hit depends on the other hits of its
    query: a :class:`~xmodal.retrieval.retriever.Retriever` returns it. Raises IndexMissing for a
    document that does not exist or has no code of ``target``.
    """
    check_search(query, handle.bits, 1, target, None)
    ids, codes = read_batch(handle, [id_]).codes(target)
    if not ids:
        raise IndexMissing(f"{handle.address} has no document {id_!r} with a code of its {target}")
    distances = query.distances(codes)[0]
    nearest = int(distances.argmin())  # the first of equal ones
    distance = int(distances[nearest])
    differing = np.flatnonzero(query.to_bits()[0] != codes.to_bits()[nearest])
    filters = handle.filters(where)
    handle.refresh()
    smaller_id = [*filters, {"range": {ID: {"lt": id_}}}]
    nearer = count_within(handle, query, target, filters, distance - 1)
    tied_before = count_within(handle, query, target, smaller_id, distance)
    tied_before -= count_within(handle, query, target, smaller_id, distance - 1)
    text_rank = None
    if words is not None:
        (found,) = search_words(
            handle,
            [WordsQuery(words)],
            MAX_HITS,
            target=target,
            where=where,
            text_field=text_field,
        )
        ranked = [hit.id for hit in found]
        text_rank = ranked.index(id_) + 1 if id_ in ranked else None
    return Explanation(
        id_,
        distance,
        handle.bits,
        tuple(int(bit) for bit in differing),
        nearer + tied_before + 1,
        text_rank,
        nearest,
    )
