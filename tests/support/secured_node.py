"""A node with the security plugin: users and roles, made through its REST API."""

from __future__ import annotations

import json
import ssl
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import pytest
from support.hamming_server import Refused

API = "_plugins/_security/api"
ADMIN = "admin"


@dataclass
class SecuredNode:
    """Requests of the administrator to a node, and the addresses of its indexes.

    ``ca``: certificate of the node. ``password``: of all users.
    """

    url: str
    ca: Path
    password: str
    _context: ssl.SSLContext = field(init=False)

    def __post_init__(self) -> None:
        self._context = ssl.create_default_context(cafile=str(self.ca))

    def __call__(self, method: str, path: str, body: Any = None) -> Any:
        """Send a request as the administrator; raise Refused for an error."""
        secret = b64encode(f"{ADMIN}:{self.password}".encode()).decode()
        headers = {"content-type": "application/json", "authorization": f"Basic {secret}"}
        data = None if body is None else json.dumps(body).encode()
        request = Request(f"{self.url}/{path}", data, headers, method=method)
        try:
            with urlopen(request, timeout=60, context=self._context) as answer:
                return json.loads(answer.read() or b"{}")
        except HTTPError as error:
            with error:
                raise Refused(error.code, error.read().decode()) from None

    def address(self, name: str, **options: str) -> str:
        """Return the address of an index, with the certificate of the node."""
        query = urlencode({"ca": str(self.ca), **options})
        return f"{self.url.replace('https', 'opensearch')}/{name}?{query}"

    def put_role(self, name: str, role: Mapping[str, Any]) -> None:
        """Make or replace a role, given in the form of the API."""
        self("PUT", f"{API}/roles/{name}", role)

    def put_user(self, name: str, roles: Sequence[str]) -> None:
        """Make or replace a user with these roles."""
        body = {"password": self.password, "opendistro_security_roles": list(roles)}
        self("PUT", f"{API}/internalusers/{name}", body)

    @contextmanager
    def acting_as(self, user: str) -> Iterator[None]:
        """Set the user of new clients in the environment."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("XMODAL_OPENSEARCH_USER", user)
            patch.setenv("XMODAL_OPENSEARCH_PASSWORD", self.password)
            yield


def all_but(**limits: Any) -> dict[str, Any]:
    """Return a role with all permissions; ``limits``: ``dls``, ``fls``, ``masked_fields``."""
    indexes = {"index_patterns": ["*"], "allowed_actions": ["*"], **limits}
    return {"cluster_permissions": ["*"], "index_permissions": [indexes]}


def documents_with(**fields: Any) -> str:
    """Return the query of document-level security for documents with these values."""
    return json.dumps({"bool": {"filter": [{"term": {k: v}} for k, v in fields.items()]}})
