"""Retriever of LlamaIndex over an index of xmodal (extra ``llama-index``)."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Self

from xmodal.errors import missing_extra
from xmodal.index.contract import Hit, shown_source
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
    from llama_index.core.retrievers import BaseRetriever
    from llama_index.core.schema import ImageNode, NodeWithScore, QueryBundle, TextNode
    from llama_index.core.vector_stores.types import (
        FilterCondition,
        FilterOperator,
        MetadataFilter,
        MetadataFilters,
    )
except ModuleNotFoundError as error:
    raise missing_extra(error) or error from None

OPERATORS = {
    FilterOperator.EQ: "eq",
    FilterOperator.NE: "ne",
    FilterOperator.GT: "gt",
    FilterOperator.GTE: "gte",
    FilterOperator.LT: "lt",
    FilterOperator.LTE: "lte",
    FilterOperator.IN: "in",
    FilterOperator.NIN: "nin",
    FilterOperator.ANY: "in",
    FilterOperator.ALL: "all",
    FilterOperator.CONTAINS: "eq",
    FilterOperator.IS_EMPTY: "eq",
}
"""Operators as :func:`~xmodal.integrations.conditions.compare` calls them. A field with a list of
values equals each of them."""


class XmodalRetriever(BaseRetriever):
    """Nodes that a text, a picture or both find, as :meth:`xmodal.Retriever.search` does.

    A picture is ``QueryBundle(query_str="", image_path=...)``, both are one query. ``filters`` must
    hold with ``where``, an option. ``options``: arguments of
    :class:`~xmodal.retrieval.query.Query` for every search, such as ``k``, ``target`` and
    ``min_confidence``.

    A found picture is an ImageNode, with the caption as its text, a found text is a TextNode. The
    metadata are the fields with ``id``, ``distance`` and ``confidence``. The score of a node is the
    sum of reciprocal ranks of a fused search, else the similarity.
    """

    def __init__(
        self, retriever: Retriever, *, filters: MetadataFilters | None = None, **options: Any
    ) -> None:
        super().__init__()
        self.retriever, self.options = retriever, options
        self._pairs = filter_pairs(filters)

    @classmethod
    def open(cls, index: str | Path, model: str | Path | None = None, **arguments: Any) -> Self:
        """Open an index; see :func:`~xmodal.retrieval.opening.open_retriever`."""
        return cls(open_retriever(index, model), **arguments)

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        """Return the nodes of one query. Raises as :meth:`xmodal.Retriever.search`."""
        parts = {"text": query_bundle.query_str or None, "image": query_bundle.image_path}
        query = build_query(self.options | parts, self._pairs)
        (hits,) = self.retriever.search_batch([query])
        return [NodeWithScore(node=_node(hit, query.searched), score=score_of(hit)) for hit in hits]

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        """Return the nodes of one query, which is searched in another thread."""
        return await asyncio.to_thread(self._retrieve, query_bundle)


def filter_pairs(filters: MetadataFilters | MetadataFilter | None) -> Pairs:
    """Return the conditions of filters of LlamaIndex. Raises ConfigError for one without them.

    As in LlamaIndex, NOT holds if none of its filters does.
    """
    if filters is None:
        return []
    if isinstance(filters, MetadataFilter):
        operator = filters.operator
        if operator not in OPERATORS:
            raise unsupported(operator.value, [known.value for known in OPERATORS])
        value = None if operator == FilterOperator.IS_EMPTY else filters.value
        return compare(filters.key, OPERATORS[operator], value, written=operator.value)
    parts = [filter_pairs(one) for one in filters.filters]
    if filters.condition == FilterCondition.OR:
        return any_of(parts, written="or")
    if filters.condition == FilterCondition.NOT:
        parts = [not_all(part, written="not") for part in parts]
    return [pair for part in parts for pair in part]


def _node(hit: Hit, target: Modality) -> TextNode:
    content: dict[str, Any] = {
        "id_": document_id(hit),
        "text": text_of(hit, target),
        "metadata": metadata_of(hit),
    }
    path = shown_source(hit, "image", target)
    if target == "image" and path is not None:
        return ImageNode(**content, image_path=path)
    return TextNode(**content)
