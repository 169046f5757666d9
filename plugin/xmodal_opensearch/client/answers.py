"""Checks of answers with HTTP status 200: whole, and of the kind that was requested.

A server answers 200 also for a part of an index, and a proxy in front of it may answer 200 with a
page of its own. ``check_answer`` covers every request of the plugin by the last part of its path.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from opensearchpy import exceptions

from xmodal_opensearch.client.errors import missing_permission, reason_of

NO_ACTIVE_COPY = "they have no active copy, see GET /_cat/shards"
DEFAULT_SIZE = 10
"""Hits of a search without ``size``."""


FINAL_TYPES = frozenset(
    {"illegal_argument_exception", "query_shard_exception", "parsing_exception", "script_exception"}
)
"""Error types of a shard that refuses a search which other shards answer; it will do so again."""


class IncompleteAnswer(Exception):
    """An answer with status 200 lacks a part of the index.

    ``is_final``: a repetition of the request would lack it, too. A cluster that is skipped
    (``cluster.remote.NAME.skip_unavailable``) is such a part.
    """

    def __init__(self, missing: str, reason: str, *, is_final: bool = False) -> None:
        super().__init__(missing, reason)
        self.missing, self.reason, self.is_final = missing, reason, is_final


class UnusableAnswer(Exception):
    """An answer with status 200 is not one to this request. The message is the reason."""


class SearchTimedOut(Exception):
    """A search exceeded the server's time limit, so that its answer is incomplete."""


class SearchEndedEarly(Exception):
    """A search stopped after a number of documents, so that its answer is incomplete."""


def check_answer(method: str, path: str, body: Any, answer: Any) -> None:
    """Check the decoded answer to a request; ``body``: of the request, decoded.

    Raises SearchTimedOut and SearchEndedEarly for an answer that would be cut short again,
    IncompleteAnswer for missing shards and documents and for a change that was not acknowledged,
    and UnusableAnswer for an answer of another kind.
    """
    check_whole(answer)
    parts = path.strip("/").split("/")
    last = parts[-1]
    _require(isinstance(answer, Mapping) or parts[0] == "_cat", "no JSON object")
    named = next((OBJECTS[part] for part in parts if part in OBJECTS), None)
    _require(named is None or isinstance(answer.get(named), Mapping), f"no {named}")
    if last == "_search":
        check_search(body if isinstance(body, Mapping) else {}, answer)
    elif last == "_mget":
        _check_documents(body, answer)
    elif last == "point_in_time" and method == "POST":
        _require(isinstance(_get(answer, "pit_id"), str), "no point in time")
    elif last == "_refresh":
        _require(isinstance(_get(answer, "_shards"), Mapping), "no shards")
    elif method == "GET" and (last in INDEX_PARTS or (len(parts) == 1 and last[:1] not in "_")):
        _check_indexes(INDEX_PARTS.get(last, ("settings",)), answer)
    elif method == "GET" and parts[0] == "_ingest":
        _require(isinstance(answer.get(last), Mapping), f"no pipeline {last}")
    elif (method, last) in CHANGES or (len(parts) == 1 and method in ("PUT", "DELETE")):
        _check_acknowledged(answer)


INDEX_PARTS = {
    "_mapping": ("mappings",),
    "_settings": ("settings",),
    "_alias": ("aliases",),
}
"""Last parts of paths whose answer describes indexes by name, with the keys of each."""

OBJECTS = {"_nodes": "nodes", "_stats": "indices", "_field_caps": "fields"}
"""Parts of paths whose answer has an object of this name."""

CHANGES = frozenset(
    {("PUT", "_mapping"), ("PUT", "_settings"), ("POST", "_aliases"), ("POST", "_open")}
)
"""Requests besides creation and deletion of an index that all nodes acknowledge."""


def check_whole(answer: Any) -> None:
    """Check that an answer covers the whole index; see check_answer for the errors."""
    if not isinstance(answer, Mapping):
        return
    if answer.get("timed_out"):
        raise SearchTimedOut
    shards = answer.get("_shards") or {}
    _require(isinstance(shards, Mapping), "no shards")
    if shards.get("failed"):
        reason = reason_of({"failed_shards": shards.get("failures")}) or "no reason given"
        _check_permitted(reason)
        types = {_get(_get(one, "reason"), "type") for one in shards.get("failures") or ()}
        is_final = bool(types & FINAL_TYPES)
        raise IncompleteAnswer(f"{shards['failed']} shards failed", reason, is_final=is_final)
    skipped = _get(_get(answer, "_clusters"), "skipped")
    if skipped:
        raise IncompleteAnswer(f"{skipped} remote clusters did not answer", "they were skipped")
    # A shard without an active copy is counted neither as successful nor as failed.
    missing = shards.get("total", 0) - shards.get("successful", 0)
    if missing > 0 and ("hits" in answer or "pit_id" in answer):
        raise IncompleteAnswer(
            f"{missing} of {shards['total']} shards did not answer", NO_ACTIVE_COPY
        )


def check_search(body: Mapping[str, Any], answer: Any) -> None:
    """Check the answer to one search, also as a part of ``_msearch``."""
    check_whole(answer)
    shards, hits = _get(answer, "_shards"), _get(_get(answer, "hits"), "hits")
    _require(_get(answer, "timed_out") is False, "no time limit")
    _require(isinstance(_get(shards, "total"), int), "no shards")
    size = body.get("size", DEFAULT_SIZE)
    _require(isinstance(hits, list) and len(hits) <= size, "no list of hits of this size")
    for hit in hits:
        is_sorted = isinstance(_get(hit, "sort"), list)
        # A search without stored fields returns no ids; they are among the sort values.
        _require(isinstance(_get(hit, "_id"), str) or is_sorted, "a hit without id")
        _require("pit" not in body or is_sorted, "a hit without sort values")
        is_scored = "_score" not in hit or isinstance(hit["_score"], int | float | None)
        _require(is_scored, "a hit without score")
    is_exact = body.get("track_total_hits") is True
    if is_exact:
        total = _get(answer["hits"], "total")
        _require(
            isinstance(_get(total, "value"), int) and _get(total, "relation") == "eq",
            "no exact number of hits",
        )
    for name in body.get("aggs", ()):
        _require(isinstance(_get(_get(answer, "aggregations"), name), Mapping), "no aggregations")
    # With size 0 and no exact total the server may end the count early; aggregations are whole.
    if answer.get("terminated_early") and (size > 0 or is_exact):
        raise SearchEndedEarly


def check_searches(bodies: Sequence[Mapping[str, Any]], answer: Any) -> list[Any]:
    """Return the answers of an ``_msearch``, one per body, unchecked but for their number."""
    answers = _get(answer, "responses")
    _require(
        isinstance(answers, list)
        and len(answers) == len(bodies)
        and all(isinstance(one, Mapping) for one in answers),
        f"not {len(bodies)} answers",
    )
    found: list[Any] = answers
    return found


def _check_documents(body: Any, answer: Any) -> None:
    """Check that an ``_mget`` answers each id of the request, in their order."""
    wanted = body.get("ids") or [_get(one, "_id") for one in body.get("docs", ())]
    documents = _get(answer, "docs")
    _require(
        isinstance(documents, list) and [_get(one, "_id") for one in documents] == list(wanted),
        "not the documents of these ids",
    )
    for document in documents:
        if "error" in document:
            _check_permitted(reason_of(document))
            raise IncompleteAnswer(
                f"document {document['_id']!r} was not read", reason_of(document)
            )
        found = document.get("found")
        _require(isinstance(found, bool), "a document neither found nor missing")


def _check_permitted(reason: str) -> None:
    """Raise the client's error of status 403 if a part is missing for lack of a permission."""
    if missing_permission(reason) is not None:
        kind = "security_exception"
        raise exceptions.TransportError(403, kind, {"error": {"type": kind, "reason": reason}})


def _check_indexes(keys: Sequence[str], answer: Any) -> None:
    """Check a description of indexes, by their names."""
    _require(isinstance(answer, Mapping), "no indexes")
    for content in answer.values():
        for key in keys:
            _require(isinstance(_get(content, key), Mapping), f"an index without {key}")


def _check_acknowledged(answer: Any) -> None:
    acknowledged = _get(answer, "acknowledged")
    _require(isinstance(acknowledged, bool), "no acknowledgement")
    if not acknowledged:
        raise IncompleteAnswer("not all nodes acknowledged the change", "the time limit has passed")


def _get(value: Any, key: str) -> Any:
    return value.get(key) if isinstance(value, Mapping) else None


def _require(condition: bool, found: str) -> None:
    if not condition:
        raise UnusableAnswer(f"it has {found}")
