"""Refusals of a server: unknown users, missing permissions and blocks have different errors."""

from __future__ import annotations

from typing import Any

import pytest
from opensearchpy import exceptions

from xmodal.errors import ServerFailure
from xmodal_opensearch.client import bulk
from xmodal_opensearch.client.errors import describe_missing, missing_permission, to_xmodal_error

USER = "User [name=ada, backend_roles=[], requestedTenant=null]"


def refusal(status: int, kind: str, reason: str) -> ServerFailure:
    info = {"error": {"root_cause": [], "type": kind, "reason": reason}, "status": status}
    error = exceptions.TransportError(status, kind, info)
    found = to_xmodal_error(error, "opensearch://host", "searching")
    assert isinstance(found, ServerFailure) and found.status == status
    return found


@pytest.mark.parametrize(
    ("listed", "permission"),
    [
        ("indices:data/read/search", "indices:data/read/search"),
        ("indices:data/write/bulk[s]", "indices:data/write/bulk[s]"),
        ("indices:admin/get, indices:admin/mappings/get", "indices:admin/get"),
        ("indices:data/write/bulk[s], indices:admin/get", "indices:data/write/bulk[s]"),
        ("", None),
    ],
)
def test_missing_permission_is_a_datum(listed: str, permission: str | None) -> None:
    reason = f"no permissions for [{listed}] and {USER}"
    assert missing_permission(reason) == permission
    error = refusal(403, "security_exception", reason)
    assert error.permission == permission
    if permission is not None:
        assert permission in str(error) and "ada" in str(error)
        assert "PASSWORD" not in str(error)


def test_unknown_user_is_not_a_missing_permission(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XMODAL_OPENSEARCH_USER", raising=False)
    error = refusal(401, "security_exception", "Unauthorized")
    assert error.permission is None and "no user is set" in str(error)
    monkeypatch.setenv("XMODAL_OPENSEARCH_USER", "ada")
    assert "ada" in str(refusal(401, "security_exception", "Unauthorized"))


@pytest.mark.parametrize("kind", ["cluster_block_exception", "index_create_block_exception"])
def test_block_is_named(kind: str) -> None:
    error = refusal(403, kind, "blocked by: [FORBIDDEN/8/index write (api)]")
    assert "index write" in str(error) and "PASSWORD" not in str(error)
    assert error.permission is None


def test_refused_lines_of_a_bulk_request_name_the_permission() -> None:
    reason = f"no permissions for [indices:data/write/delete] and {USER}"
    refused = {"status": 403, "error": {"type": "security_exception", "reason": reason}}

    def post(body: bytes) -> Any:
        return {"errors": True, "items": [{"delete": {"_id": "a", **refused}}]}

    report = bulk.send_batch([bulk.delete_line("a")], post, lambda error: False, 1.0)
    assert "indices:data/write/delete" in report.failed["a"]
    assert describe_missing("another reason") == "another reason"
