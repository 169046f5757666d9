"""Retriever: a search end to end, from text, picture or document to hits with confidence.

The only implementation of "encode the query, search the index, attach a confidence"; the command
line, the service, the demo and the benchmarks call it.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from xmodal.codes import BinaryCodes
from xmodal.errors import ConfigError, IndexMissing, XmodalError
from xmodal.index.contract import Hit, Hits, Index
from xmodal.modality import MODALITIES, Modality, other_modality

if TYPE_CHECKING:
    from xmodal.data.images import Source
    from xmodal.encoders.encoder import Encoder


@dataclass(frozen=True)
class Query:
    """One query: exactly one of ``text``, ``image``, ``like`` (a document id) and ``code``.

    ``modality``: of ``code``; needed for a confidence. ``target``: modality of the documents'
    codes; by default the other one, and for ``like`` "image". ``radius``: in bits. ``words``:
    also rank by BM25 of these words in the text field ``text_field`` and fuse both rankings.
    """

    text: str | None = None
    image: Source | None = None
    like: str | None = None
    code: BinaryCodes | None = None
    modality: Modality | None = None
    target: Modality | None = None
    k: int = 10
    where: Mapping[str, Any] | None = None
    radius: int | None = None
    min_confidence: float | None = None
    words: str | None = None
    text_field: str = "text"


@runtime_checkable
class FullTextIndex(Protocol):
    """An index that also ranks documents by the words of a text field."""

    def search_fused(
        self,
        queries: BinaryCodes,
        words: Sequence[str],
        k: int,
        *,
        target: Modality,
        text_field: str = "text",
        where: Mapping[str, Any] | None = None,
    ) -> Hits:
        """Return hits of both rankings, fused by reciprocal rank."""


class Retriever:
    """Searches ``index`` with queries that ``encoder`` encodes.

    Without an encoder, queries by ``like`` and by ``code`` work, and no hit has a confidence.
    """

    def __init__(self, encoder: Encoder | None, index: Index) -> None:
        self.encoder, self.index = encoder, index

    def search(
        self,
        *,
        text: str | None = None,
        image: Source | None = None,
        like: str | None = None,
        target: Modality | None = None,
        k: int = 10,
        where: Mapping[str, Any] | None = None,
        radius: int | None = None,
        min_confidence: float | None = None,
        words: str | None = None,
        text_field: str = "text",
    ) -> list[Hit]:
        """Return the hits of one query, best first; see :class:`Query` for the arguments.

        Raises DataError for a picture or text that cannot be used, IndexMissing for an unknown
        document, ConfigError and CodeError for other bad arguments.
        """
        query = Query(
            text=text,
            image=image,
            like=like,
            target=target,
            k=k,
            where=where,
            radius=radius,
            min_confidence=min_confidence,
            words=words,
            text_field=text_field,
        )
        (found,) = self.search_many([query])
        if isinstance(found, XmodalError):
            raise found
        return found

    def search_many(self, queries: Sequence[Query]) -> list[list[Hit] | XmodalError]:
        """Return for each query its hits, or the error that prevented them.

        Texts and pictures are encoded in one batch each; queries that differ in their codes alone
        are one search of the index. An error of a batch is the result of each of its queries.
        """
        results: list[list[Hit] | XmodalError] = [[] for _ in queries]
        ready: dict[int, Query] = {}
        for place, query in enumerate(queries):
            try:
                ready[place] = self._with_target(query)
            except XmodalError as error:
                results[place] = error
        for modality in MODALITIES:
            self._encode(modality, ready, results)
        groups: dict[str, dict[int, Query]] = defaultdict(dict)
        for place, query in ready.items():
            groups[_group_key(query)][place] = query
        for group in groups.values():
            try:
                found = self._search(list(group.values()))
            except XmodalError as error:
                results_of_group: Sequence[list[Hit] | XmodalError] = [error] * len(group)
            else:
                results_of_group = found
            for place, result in zip(group, results_of_group, strict=True):
                results[place] = result
        return results

    def _with_target(self, query: Query) -> Query:
        """The query with its target, and a query by document with the document's code.

        The code of a document is that of the target modality, or else of the other one.
        """
        given = [query.text, query.image, query.like, query.code]
        if sum(one is not None for one in given) != 1:
            raise ConfigError("search by a text, a picture or a document, exactly one of them")
        if query.like is None:
            modality = query.modality
            if query.text is not None or query.image is not None:
                modality = "text" if query.text is not None else "image"
            target = query.target or (None if modality is None else other_modality(modality))
            if target is None:
                raise ConfigError("a query by code needs a target: 'image' or 'text'")
            return replace(query, modality=modality, target=target)
        target = query.target or "image"
        document = self.index.get([query.like])
        for modality in (target, other_modality(target)):
            ids, code = document.codes(modality)
            if ids:
                return replace(query, modality=modality, code=code, target=target)
        raise IndexMissing(f"there is no document {query.like[:100]!r}")

    def _encode(
        self,
        modality: Modality,
        ready: dict[int, Query],
        results: list[list[Hit] | XmodalError],
    ) -> None:
        """Replace the texts or pictures of ``ready`` queries by their codes."""
        sources = {
            place: query.text if modality == "text" else query.image
            for place, query in ready.items()
            if query.code is None and query.modality == modality
        }
        if not sources:
            return
        try:
            if self.encoder is None:
                raise ConfigError("this retriever has no encoder: search by document or by code")
            codes = self.encoder.encode(modality, list(sources.values())).codes
        except XmodalError as error:
            for place in sources:
                results[place] = error
                del ready[place]
            return
        for row, place in enumerate(sources):
            ready[place] = replace(ready[place], code=codes[row : row + 1])

    def _search(self, queries: Sequence[Query]) -> list[list[Hit]]:
        """The hits of queries that differ in their codes, words and documents alone."""
        first = queries[0]
        assert first.target is not None
        across = first.modality is not None and first.modality != first.target
        codes = BinaryCodes.concatenate([query.code for query in queries if query.code is not None])
        k = first.k + any(query.like is not None for query in queries)  # the document is left out
        if first.words is not None:
            if not isinstance(self.index, FullTextIndex):
                raise ConfigError(
                    "words need an index in OpenSearch, which ranks documents by their words"
                )
            if first.radius is not None or first.min_confidence is not None:
                raise ConfigError("a search by words has no radius and no minimum confidence")
            lists = self.index.search_fused(
                codes,
                [str(query.words) for query in queries],
                k,
                target=first.target,
                text_field=first.text_field,
                where=first.where,
            )
        else:
            radius = self._radius(first, across)
            lists = self.index.search(
                codes, k, target=first.target, where=first.where, radius=radius
            )
        return [
            [
                hit._replace(confidence=self._confidence(hit.distance, across))
                for hit in hits
                if hit.id != query.like
            ][: query.k]
            for query, hits in zip(queries, lists, strict=True)
        ]

    def _radius(self, query: Query, across: bool) -> int | None:
        """The radius of both limits, distance and confidence, together."""
        if self.encoder is None:
            if query.min_confidence is not None:
                raise ConfigError("this retriever has no encoder, so hits have no confidence")
            return query.radius
        return self.encoder.confidence.search_radius(
            query.radius, query.min_confidence, cross_modal=across
        )

    def _confidence(self, distance: int, across: bool) -> float | None:
        """The confidence of a hit; it is calibrated between the two modalities only."""
        if self.encoder is None or not across:
            return None
        return round(self.encoder.confidence(distance), 4)


def _group_key(query: Query) -> str:
    """Equal for queries that one search of the index can answer."""
    shared = {
        name: getattr(query, name)
        for name in ("target", "modality", "k", "where", "radius", "min_confidence", "text_field")
    }
    return json.dumps(shared | {"words": query.words is not None}, sort_keys=True)
