"""Errors of the OpenSearch client as errors of xmodal, with a message of one line."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any

from opensearchpy import exceptions

from xmodal.errors import ConfigError, IndexFailure, IndexMissing, ServerFailure

RETRY_STATUSES = frozenset({429, 502, 503, 504})
"""HTTP statuses of a server that is overloaded or starting: the request may succeed later."""

TOO_LARGE = 413
"""HTTP status of a request that is larger than the server, or a proxy before it, accepts."""

BREAKER = "Data too large"
"""Part of the reasons of circuit breakers that count bytes."""

LASTING_TYPES = frozenset({"too_many_buckets_exception"})
"""Error types with a status of RETRY_STATUSES that a repetition of the request cannot change."""

NODE_LOST_TYPES = frozenset(
    {
        "node_not_connected_exception",
        "node_disconnected_exception",
        "node_closed_exception",
        "connect_transport_exception",
    }
)
"""Error types, sent with status 500, of a request to a node that has left the cluster."""

BLOCKED_TYPES = frozenset({"cluster_block_exception", "index_create_block_exception"})
"""Error types, sent with status 403, of an index or cluster that does not accept the request."""

NO_PERMISSION = re.compile(r"no permissions for \[([^\[\]]+(?:\[\w*\])?)")
USER_NAME = re.compile(r"User \[name=([^,\]]+)")
"""Parts of the reason of the security plugin, with status 403 or inside of a bulk answer."""

EMPTY_REASONS = ("", "all shards failed", "Partial shards failure")
MAX_REASON_LENGTH = 300
PLAIN_HTTP = "the server does not use TLS: use plain http with ?tls=no"
TLS_FAILURES = (
    (
        "CERTIFICATE_REQUIRED",
        "the server requires a client certificate: set it with ?cert=FILE&key=FILE",
    ),
    ("ALERT_CERTIFICATE_EXPIRED", "the client certificate ?cert=FILE has expired: renew it"),
    (
        "ALERT_UNKNOWN_CA",
        "the server trusts another authority than that of the client certificate ?cert=FILE",
    ),
    ("ALERT_BAD_CERTIFICATE", "the server refused the client certificate ?cert=FILE"),
    ("ALERT_CERTIFICATE_UNKNOWN", "the server refused the client certificate ?cert=FILE"),
    ("WRONG_VERSION_NUMBER", PLAIN_HTTP),
    ("RECORD_LAYER_FAILURE", PLAIN_HTTP),
    ("certificate has expired", "the certificate of the server has expired: renew it there"),
)
NOT_VERIFIED = (
    "the certificate could not be verified: set the authority that signed it with ?ca=FILE"
)


def to_xmodal_error(error: Exception, address: str, doing: str) -> IndexFailure | ConfigError:
    """Return the xmodal error of a client error.

    ``address`` (without secrets) and ``doing`` (the operation, such as "searching") are part of the
    message.
    """
    if isinstance(error, exceptions.SSLError):
        return _tls_failure(error, address, doing)
    if isinstance(error, exceptions.ConnectionTimeout):
        return ServerFailure(f"{address} did not answer in time while {doing}", 0, "timeout")
    if isinstance(error, exceptions.ConnectionError):
        return ServerFailure(
            f"no server answers at {address} while {doing} ({_shorten(error.info)}): check that it "
            "is running; to start a development node: xmodal-opensearch node",
            0,
            "connection",
        )
    if isinstance(error, exceptions.TransportError):
        return _refusal(error, address, doing)
    return IndexFailure(f"{address}: {doing} failed ({_shorten(error)})")


def status_of(status: Any, info: Any) -> int:
    """Return the HTTP status, with 503 in place of the 500 that reports a lost node."""
    number = status if isinstance(status, int) else 0
    types = {part.get("type") for part in _parts(info)}
    return 503 if number == 500 and types & NODE_LOST_TYPES else number


def may_pass(status: Any, info: Any) -> bool:
    """Return whether a repetition of the request, without other changes, may succeed."""
    number = status_of(status, info)
    return number in RETRY_STATUSES and not any(_is_lasting(number, part) for part in _parts(info))


def _is_lasting(status: int, part: dict[str, Any]) -> bool:
    kind = part.get("type")
    return (
        kind in LASTING_TYPES
        or (kind == "circuit_breaking_exception" and part.get("durability") == "PERMANENT")
        # A disk above the flood stage; blocks of a starting node have the status 503.
        or (kind in BLOCKED_TYPES and status == 429)
    )


def breaker_reason(info: Any) -> str:
    """Return the reason of a circuit breaker that counts bytes in an error body, or ""."""
    reasons = (
        str(part.get("reason"))
        for part in _parts(info)
        if part.get("type") == "circuit_breaking_exception"
    )
    return next((reason for reason in reasons if BREAKER in reason), "")


def is_broken_off(error: exceptions.SSLError) -> bool:
    """Whether a TLS connection ended early, as when a node stops; such a request is retried."""
    return "EOF" in str(error.info)


def reason_of(info: Any) -> str:
    """Return the outermost and the innermost reason of a server's error body, in one line."""
    reasons: list[str] = []
    for part in _parts(info):
        if isinstance(part.get("reason"), str) and part["reason"] not in EMPTY_REASONS:
            reasons.append(part["reason"].rstrip("; "))
        inner = _inner(part)
        if isinstance(inner, str) and not reasons and inner not in EMPTY_REASONS:
            reasons.append(inner)
    if not reasons:
        return ""
    first, last = reasons[0], reasons[-1]
    return _shorten(first if last in first else f"{first}: {last}")


def missing_permission(reason: str) -> str | None:
    """Return the permission that a reason of the security plugin names as missing, or None."""
    found = NO_PERMISSION.search(reason)
    return found[1].split(",")[0].strip() if found and found[1].strip() else None


def describe_missing(reason: str) -> str:
    """Return a reason that names a missing permission in words of one line; others unchanged."""
    permission = missing_permission(reason)
    if permission is None:
        return reason
    user = USER_NAME.search(reason)
    return (
        f"the user {user[1] if user else ''} lacks the permission {permission}: add it to a role "
        "of the user; xmodal-opensearch roles prints the role of each operation"
    ).replace("  ", " ")


def _who_is_refused() -> str:
    """Return why a request was refused with 401, by whether the environment names a user."""
    user = os.environ.get("XMODAL_OPENSEARCH_USER")
    return f"the user {user} or its password is wrong" if user else "no user is set"


def _tls_failure(error: exceptions.SSLError, address: str, doing: str) -> ServerFailure:
    reason = _shorten(error.info)
    if is_broken_off(error):
        return ServerFailure(
            f"{address} ended the TLS connection while {doing} ({reason}): check that the server "
            "is running, and whether it requires a client certificate (?cert=FILE&key=FILE) or "
            "refused it as expired or of another authority",
            0,
            "connection",
        )
    hint = next((hint for word, hint in TLS_FAILURES if word in reason), NOT_VERIFIED)
    return ServerFailure(f"{address}: {hint} ({reason})", 0, "certificate")


def _refusal(error: exceptions.TransportError, address: str, doing: str) -> IndexFailure:
    """Return the error of an answer with an HTTP error status."""
    status = status_of(error.status_code, error.info)
    reason = reason_of(error.info) or _shorten(error.error)
    types = {part.get("type") for part in _parts(error.info)}
    permission = missing_permission(reason)
    if permission is not None:
        return ServerFailure(
            f"{address} refused {doing} ({status}): {describe_missing(reason)}",
            status,
            reason,
            permission=permission,
        )
    if status == 401 or (status == 403 and not types & BLOCKED_TYPES):
        cause = _who_is_refused() if status == 401 else f"the user may not do that: {reason}"
        return ServerFailure(
            f"{address} refused {doing} ({status}): {cause}: set "
            "XMODAL_OPENSEARCH_USER and XMODAL_OPENSEARCH_PASSWORD (or ..._PASSWORD_FILE)",
            status,
            reason,
        )
    if status == TOO_LARGE:
        reason = (
            "the request is larger than the server, or a proxy before it, accepts: raise "
            "http.max_content_length, or the limit of the proxy (nginx: client_max_body_size)"
        )
    if "index_closed_exception" in types:
        reason = "the index is closed: open it with POST /NAME/_open"
    if status == 404 and "no such index" in reason:
        return IndexMissing(f"{address}: {reason} (while {doing})")
    return ServerFailure(f"{address} refused {doing} ({status}): {reason}", status, reason)


def _parts(info: Any) -> Iterator[dict[str, Any]]:
    """Yield a server's error body and the errors nested in it, outermost first."""
    queue = [info]
    while queue:
        part = queue.pop(0)
        if isinstance(part, dict):
            yield part
            queue.append(_inner(part))
            queue.extend(part.get("failed_shards") or [])


def _inner(part: dict[str, Any]) -> Any:
    return part.get("caused_by") or part.get("error") or part.get("reason")


def _shorten(text: object) -> str:
    return " ".join(str(text).split())[:MAX_REASON_LENGTH]
