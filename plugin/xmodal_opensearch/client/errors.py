"""One function: what the client raised -> the xmodal error that says it in one line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from opensearchpy import exceptions

from xmodal.errors import ConfigError, IndexFailure, IndexMissing, ServerFailure

PASSING = frozenset({429, 502, 503, 504})
"""Answers of a server that is busy or not all there: the same request may succeed later."""

NODE_LOST = frozenset(
    {
        "node_not_connected_exception",
        "node_disconnected_exception",
        "node_closed_exception",
        "connect_transport_exception",
    }
)
"""What a server says, with status 500, that asked a node which has just gone."""

BLOCKED = frozenset({"cluster_block_exception", "index_create_block_exception"})
"""What a server says, with status 403, of an index or cluster that takes no such request."""

SAYS_NOTHING = ("", "all shards failed", "Partial shards failure")
LONGEST = 300
TLS_FAILURES = (
    ("CERTIFICATE_REQUIRED", "it asks for a client certificate: name one with ?cert=FILE&key=FILE"),
    ("WRONG_VERSION_NUMBER", "it does not speak TLS: use plain http with ?tls=no"),
)
NOT_VERIFIED = (
    "the certificate could not be verified: name the authority that signed it with ?ca=FILE"
)


def translated(error: Exception, address: str, doing: str) -> IndexFailure | ConfigError:
    """The error to raise for what happened at ``address`` (without secrets) while ``doing``."""
    if isinstance(error, exceptions.SSLError):
        why = _short(error.info)
        if is_broken_off(error):
            return ServerFailure(
                f"{address} broke TLS off while {doing} ({why}): did it stop, or ask for a client "
                "certificate (?cert=FILE&key=FILE)?",
                0,
                "connection",
            )
        what = next((told for word, told in TLS_FAILURES if word in why), NOT_VERIFIED)
        return ServerFailure(f"{address}: {what} ({why})", 0, "certificate")
    if isinstance(error, exceptions.ConnectionTimeout):
        return ServerFailure(f"{address} did not answer in time while {doing}", 0, "timeout")
    if isinstance(error, exceptions.ConnectionError):
        return ServerFailure(
            f"no server answers at {address} while {doing} ({_short(error.info)}): is it running? "
            "A node for development: xmodal-opensearch node",
            0,
            "connection",
        )
    if not isinstance(error, exceptions.TransportError):
        return IndexFailure(f"{address}: {doing} failed ({_short(error)})")
    status = status_of(error.status_code, error.info)
    reason = reason_of(error.info) or _short(error.error)
    kinds = {part.get("type") for part in _parts(error.info)}
    if status == 401 or (status == 403 and not kinds & BLOCKED):
        who = (
            "no user is named, or the password is wrong"
            if status == 401
            else f"this user may not do that: {reason}"
        )
        return ServerFailure(
            f"{address} refused {doing} ({status}: {who}): set "
            "XMODAL_OPENSEARCH_USER and XMODAL_OPENSEARCH_PASSWORD (or ..._PASSWORD_FILE)",
            status,
            reason,
        )
    if "index_closed_exception" in kinds:
        reason = "the index is closed: open it with POST /NAME/_open"
    if status == 404 and "no such index" in reason:
        return IndexMissing(f"{address}: {reason} (while {doing})")
    return ServerFailure(f"{address} refused {doing} ({status}): {reason}", status, reason)


def status_of(sent: Any, info: Any) -> int:
    """The status that a server sent, or 503 for a 500 that tells of a node it has just lost."""
    status = sent if isinstance(sent, int) else 0
    told = {part.get("type") for part in _parts(info)}
    return 503 if status == 500 and told & NODE_LOST else status


def is_broken_off(error: exceptions.SSLError) -> bool:
    """Whether a connection ended under TLS, as it does when a node stops; it may come back."""
    return "EOF" in str(error.info)


def reason_of(info: Any) -> str:
    """What an error that a server sent says first and, innermost, last; in one line."""
    found: list[str] = []
    for part in _parts(info):
        if isinstance(part.get("reason"), str) and part["reason"] not in SAYS_NOTHING:
            found.append(part["reason"])
        inner = _inner(part)
        if isinstance(inner, str) and not found and inner not in SAYS_NOTHING:
            found.append(inner)
    if not found:
        return ""
    first, last = found[0], found[-1]
    return _short(first if last in first else f"{first}: {last}")


def _parts(info: Any) -> Iterator[dict[str, Any]]:
    """An error that a server sent and the errors inside it, outermost first."""
    waiting = [info]
    while waiting:
        part = waiting.pop(0)
        if isinstance(part, dict):
            yield part
            waiting.append(_inner(part))
            waiting.extend(part.get("failed_shards") or [])


def _inner(part: dict[str, Any]) -> Any:
    return part.get("caused_by") or part.get("error") or part.get("reason")


def _short(text: object) -> str:
    return " ".join(str(text).split())[:LONGEST]
