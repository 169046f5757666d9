"""Retriever of LangChain over an index of xmodal (extra ``langchain``)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Self

from xmodal.errors import missing_extra
from xmodal.index.contract import Hit
from xmodal.integrations.conditions import (
    Pairs,
    any_of,
    compare,
    not_all,
    unsupported,
)
from xmodal.integrations.documents import document_id, metadata_of, text_of
from xmodal.integrations.queries import build_query
from xmodal.modality import Modality
from xmodal.retrieval.opening import open_retriever
from xmodal.retrieval.retriever import Retriever

try:
    from langchain_core.callbacks import (
        AsyncCallbackManagerForRetrieverRun,
        CallbackManagerForRetrieverRun,
    )
    from langchain_core.documents import Document
    from langchain_core.retrievers import BaseRetriever
    from langchain_core.runnables import run_in_executor
    from langchain_core.structured_query import Comparison, FilterDirective, Operation
    from pydantic import Field, SkipValidation
except ModuleNotFoundError as error:
    raise missing_extra(error) or error from None

COMPARATORS = ("eq", "ne", "gt", "gte", "lt", "lte", "in", "nin")


class XmodalRetriever(BaseRetriever):
    """Documents that a text finds; the order is that of :meth:`xmodal.Retriever.search`.

    ``options``: arguments of :class:`~xmodal.retrieval.query.Query` for every search, such as
    ``k``, ``where`` and ``min_confidence``; keywords of ``invoke`` override them for one.
    ``filter``, among both, is a filter of LangChain, which must hold with ``where``. ``image`` and
    ``like`` join a picture or a document to the text, or replace an empty one.

    The content of a document is the caption, its metadata are the fields with ``id``, ``distance``
    and ``confidence``.
    """

    retriever: SkipValidation[Retriever]
    options: dict[str, Any] = Field(default_factory=dict)

    @classmethod
    def open(cls, index: str | Path, model: str | Path | None = None, **options: Any) -> Self:
        """Open an index; see :func:`~xmodal.retrieval.opening.open_retriever`."""
        return cls(retriever=open_retriever(index, model), options=options)

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, **options: Any
    ) -> list[Document]:
        """Return the documents of one query. Raises as :meth:`xmodal.Retriever.search`."""
        given = {"text": query or None} | self.options | options
        built = build_query(given, filter_pairs(given.pop("filter", None)))
        (hits,) = self.retriever.search_batch([built])
        return [_document(hit, built.searched) for hit in hits]

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, **options: Any
    ) -> list[Document]:
        """Return the documents of one query, which is searched in another thread."""
        search = partial(self._get_relevant_documents, run_manager=run_manager.get_sync())
        return await run_in_executor(None, search, query, **options)


def filter_pairs(directive: FilterDirective | None) -> Pairs:
    """Return the conditions of a filter of LangChain. Raises ConfigError for one without them."""
    if directive is None:
        return []
    if isinstance(directive, Comparison):
        operator = directive.comparator.value
        if operator not in COMPARATORS:
            raise unsupported(operator, COMPARATORS)
        value = directive.value
        if isinstance(value, Mapping) and {"date", "datetime"} & set(value):  # of its query parser
            value = value.get("date") or value["datetime"]
        return compare(directive.attribute, operator, value, written=operator)
    if not isinstance(directive, Operation):
        raise unsupported(type(directive).__name__, ["Comparison", "Operation"])
    parts = [filter_pairs(argument) for argument in directive.arguments]
    joined = [pair for part in parts for pair in part]
    if directive.operator == "or":
        return any_of(parts, written="or")
    return joined if directive.operator == "and" else not_all(joined, written="not")


def _document(hit: Hit, target: Modality) -> Document:
    return Document(
        id=document_id(hit), page_content=text_of(hit, target), metadata=metadata_of(hit)
    )
