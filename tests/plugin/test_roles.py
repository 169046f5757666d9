"""Each operation works with exactly its role, and names the permission that is taken from it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.restricted_operations import NAME, Operations
from support.secured_node import SecuredNode

from xmodal.errors import ServerFailure, XmodalError
from xmodal_opensearch.client.roles import operations, table

ML = "cluster:admin/opensearch/ml/"
TESTED = [
    name for name, one in operations().items() if not any(p.startswith(ML) for p in one.cluster)
]
"""Operations without ml-commons, which has no release for the version of the security plugin.

For the others, tests/plugin/rest compares the permissions with the requests that are sent.
"""
USER = "clerk"  # the built-in role own_index gives all rights on an index named like the user


def test_documented_table_is_that_of_the_command() -> None:
    page = Path(__file__).parents[2] / "docs" / "security.md"
    assert table() in page.read_text("utf-8")


def test_command_prints_roles_for_an_index(opensearch_cli: Callable[..., Any]) -> None:
    address = "opensearch://localhost:9200/photos"
    result = opensearch_cli("roles", "--print", "search", "--index", address)
    role = json.loads(result.out)["xmodal-search"]
    assert role["index_permissions"][0]["index_patterns"] == ["photos", "photos-*"]
    assert "cluster:monitor/nodes/info" in role["cluster_permissions"]
    least = json.loads(opensearch_cli("roles", "--print", "--least", "search").out)
    assert "cluster:monitor/nodes/info" not in least["xmodal-search"]["cluster_permissions"]
    assert opensearch_cli("roles").out == table()
    assert "no operation" in opensearch_cli("roles", "fly").err


@pytest.fixture(scope="module")
def available(secured: SecuredNode, tmp_path_factory: pytest.TempPathFactory) -> Operations:
    """The operations, on a node whose user has the role ``clerk``."""
    secured.put_role(USER, {"cluster_permissions": [], "index_permissions": []})
    secured.put_user(USER, [USER])
    return Operations(secured, tmp_path_factory.mktemp("operations"))


def run(available: Operations, name: str, role: dict[str, Any]) -> Exception | None:
    """Run an operation as a user with this role alone; return its error."""
    available.prepare(name)
    _, operate = available.by_name()[name]
    available.node.put_role(USER, role)
    try:
        with available.node.acting_as(USER):
            operate()
    except (XmodalError, AssertionError) as error:
        return error
    return None


def test_every_operation_is_tested(available: Operations) -> None:
    assert list(available.by_name()) == TESTED


@pytest.mark.slow  # about 10 requests for each of 90 permissions
@pytest.mark.parametrize("name", TESTED)
def test_operation_works_with_its_role_and_not_with_one_permission_less(
    available: Operations, name: str
) -> None:
    operation = operations()[name]
    assert run(available, name, operation.role(NAME, least=True)) is None
    assert run(available, name, operation.role(NAME)) is None
    for permission in (*operation.cluster, *operation.index):
        less = replace(
            operation,
            cluster=tuple(one for one in operation.cluster if one != permission),
            index=tuple(one for one in operation.index if one != permission),
        )
        error = run(available, name, less.role(NAME, least=True))
        assert error is not None and permission in str(error), (permission, error)


def test_search_works_with_its_role_and_names_a_missing_permission(available: Operations) -> None:
    role = operations()["search"].role(NAME)
    assert run(available, "search", role) is None
    role["index_permissions"][0]["allowed_actions"].remove("indices:data/read/search")
    error = run(available, "search", role)
    assert isinstance(error, ServerFailure)
    assert (error.status, error.permission) == (403, "indices:data/read/search")
