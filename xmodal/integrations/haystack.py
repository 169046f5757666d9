"""Component of Haystack over an index of xmodal (extra ``haystack``)."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path
from typing import Any, Self

from xmodal.errors import ConfigError, missing_extra
from xmodal.index.contract import Hit
from xmodal.integrations.conditions import (
    Pairs,
    any_of,
    compare,
    not_all,
    unsupported,
)
from xmodal.integrations.documents import document_id, metadata_of, score_of, text_of
from xmodal.integrations.queries import build_query
from xmodal.modality import Modality
from xmodal.retrieval.opening import open_retriever
from xmodal.retrieval.retriever import Retriever

try:
    from haystack import Document, component, default_from_dict, default_to_dict
    from haystack.dataclasses import ByteStream, ImageContent
except ModuleNotFoundError as error:
    raise missing_extra(error) or error from None

OPERATORS = {
    "==": "eq",
    "!=": "ne",
    ">": "gt",
    ">=": "gte",
    "<": "lt",
    "<=": "lte",
    "in": "in",
    "not in": "nin",
}
"""Operators as :func:`~xmodal.integrations.conditions.compare` calls them."""


@component
class XmodalRetriever:
    """Documents that a text, a picture or both find, as :meth:`xmodal.Retriever.search` does.

    ``index``: folder or address; ``model``: folder of its encoder, by default the one that a local
    index records. They are opened by :meth:`warm_up`, or by the first search. ``options``:
    arguments of :class:`~xmodal.retrieval.query.Query` for every search, such as ``where``,
    ``target`` and ``min_confidence``, which must be JSON to be stored with a pipeline.

    The content of a document is the caption, its metadata are the fields with ``id``, ``distance``
    and ``confidence``. Its score is the sum of reciprocal ranks of a fused search, else the
    similarity.
    """

    def __init__(
        self,
        index: str,
        model: str | None = None,
        top_k: int = 10,
        filters: dict[str, Any] | None = None,
        options: dict[str, Any] | None = None,
    ) -> None:
        filter_pairs(filters)  # raises for filters without counterpart
        self.index, self.model, self.top_k = index, model, top_k
        self.filters, self.options = filters, options or {}
        self._retriever: Retriever | None = None

    def warm_up(self) -> None:
        """Open the index and its encoder; raise as open_retriever."""
        self.opened()

    def opened(self) -> Retriever:
        """Return the retriever, which the first call opens."""
        if self._retriever is None:
            self._retriever = open_retriever(self.index, self.model)
        return self._retriever

    def to_dict(self) -> dict[str, Any]:
        """Return the arguments as JSON."""
        return default_to_dict(
            self,
            index=self.index,
            model=self.model,
            top_k=self.top_k,
            filters=self.filters,
            options=self.options,
        )

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Return the component of :meth:`to_dict`."""
        return default_from_dict(cls, data)

    @component.output_types(documents=list[Document])
    def run(
        self,
        query: str | None = None,
        image: ByteStream | ImageContent | str | Path | None = None,
        filters: dict[str, Any] | None = None,
        top_k: int | None = None,
    ) -> dict[str, list[Document]]:
        """Return the documents of one query. Raises as :meth:`xmodal.Retriever.search`.

        ``image``: a picture file or its path. ``filters`` replace those of the component; ``where``
        among its options must hold, too.
        """
        parts = {"text": query or None, "image": _picture(image)}
        count = self.top_k if top_k is None else top_k
        pairs = filter_pairs(self.filters if filters is None else filters)
        built = build_query({**self.options, **parts, "k": count}, pairs)
        (hits,) = self.opened().search_batch([built])
        return {"documents": [_document(hit, built.searched) for hit in hits]}

    @component.output_types(documents=list[Document])
    async def run_async(
        self,
        query: str | None = None,
        image: ByteStream | ImageContent | str | Path | None = None,
        filters: dict[str, Any] | None = None,
        top_k: int | None = None,
    ) -> dict[str, list[Document]]:
        """Return the documents of one query, which is searched in another thread."""
        return await asyncio.to_thread(self.run, query, image, filters, top_k)


def filter_pairs(filters: dict[str, Any] | None) -> Pairs:
    """Return the conditions of filters of Haystack. Raises ConfigError for one without them.

    As in Haystack, NOT holds unless all of its conditions do.
    """
    if not filters:
        return []
    operator = filters.get("operator")
    if "field" in filters:
        if operator not in OPERATORS or "value" not in filters:
            raise unsupported(operator, [*OPERATORS, "AND, OR and NOT of conditions"])
        field = str(filters["field"]).removeprefix("meta.")
        return compare(field, OPERATORS[operator], filters["value"], written=operator)
    conditions = filters.get("conditions")
    if operator not in ("AND", "OR", "NOT") or not isinstance(conditions, list):
        raise ConfigError(
            f"filters {filters!s:.100}: expected field, operator and value, or an operator AND, "
            "OR or NOT with a list of conditions"
        )
    parts = [filter_pairs(one) for one in conditions]
    if operator == "OR":
        return any_of(parts, written="OR")
    joined = [pair for part in parts for pair in part]
    return joined if operator == "AND" else not_all(joined, written="NOT")


def _picture(image: ByteStream | ImageContent | str | Path | None) -> str | Path | bytes | None:
    if isinstance(image, ByteStream):
        return image.data
    return base64.b64decode(image.base64_image) if isinstance(image, ImageContent) else image


def _document(hit: Hit, target: Modality) -> Document:
    return Document(
        id=document_id(hit),
        content=text_of(hit, target),
        meta=metadata_of(hit),
        score=score_of(hit),
    )
