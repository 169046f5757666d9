"""Requests in another form for server versions with a defect."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SCRIPT_SCORE_DEFECT = ((3, 0), (3, 4))
"""First version whose ``script_score`` fails as one of several required clauses, and the first
without the defect.

A search of an index with nested fields is such a request: the server adds the clause that hits are
no nested objects. It answers 500 (a null pointer) if a segment has no document for the query of the
script.
"""


def replaces_script_score(version: tuple[int, int]) -> bool:
    """Return whether requests to a server version need :func:`replace_script_score`."""
    first, corrected = SCRIPT_SCORE_DEFECT
    return first <= version < corrected


def replace_script_score(value: Any) -> Any:
    """Return a request with each ``script_score`` query as a ``function_score`` of equal scores.

    The boosts of the queries around it are the score of its ``constant_score``.
    """
    if isinstance(value, list):
        return [replace_script_score(one) for one in value]
    if not isinstance(value, Mapping):
        return value
    if set(value) == {"script_score"} and "query" in value["script_score"]:
        parts = dict(value["script_score"])
        function = {"script": parts.pop("script")}
        query = {"constant_score": {"filter": replace_script_score(parts.pop("query"))}}
        whole = {"query": query, "script_score": function, "boost_mode": "multiply", **parts}
        return {"function_score": whole}
    return {name: replace_script_score(one) for name, one in value.items()}
