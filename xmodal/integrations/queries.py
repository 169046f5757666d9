"""Queries of the options that a retriever is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from xmodal.errors import ConfigError
from xmodal.index.filters import parse
from xmodal.integrations.conditions import Pairs, to_where
from xmodal.retrieval.query import Query

OPTIONS = tuple(field.name for field in fields(Query))


def build_query(options: Mapping[str, Any], pairs: Pairs) -> Query:
    """Return the query of ``options``, in which ``pairs`` hold in addition to its ``where``.

    Raises ConfigError for an option that :class:`~xmodal.retrieval.query.Query` lacks, and for an
    invalid ``where``.
    """
    if unknown := set(options) - set(OPTIONS):
        raise ConfigError(f"option {min(unknown)!r}: expected one of {', '.join(OPTIONS)}")
    parse(options.get("where"))
    where = to_where(options.get("where"), pairs)
    return Query(**{**options, "where": where})
