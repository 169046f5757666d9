"""A node with the security plugin: certificate, password, users."""

from __future__ import annotations

from pathlib import Path

import pytest
from urllib3 import make_headers

from xmodal.web.failures import RequestFailed
from xmodal_opensearch.client.http import request
from xmodal_opensearch.node import security
from xmodal_opensearch.node.artifacts import newest_version
from xmodal_opensearch.node.process import Node


@pytest.mark.slow
def test_node_with_security_checks_passwords_and_keeps_its_certificate(
    node_parts: None, tmp_path: Path
) -> None:
    version = newest_version([security.PLUGIN])
    with Node.start(
        tmp_path / "node", version=version, plugins=[security.PLUGIN], timeout=300
    ) as node:
        folder = node.folder / security.FOLDER
        ca, password = folder / security.CERTIFICATE, (folder / security.PASSWORD).read_text()
        assert folder.stat().st_mode & 0o777 == 0o700
        assert password not in node.log.read_text()

        def status(user: str, secret: str, method: str = "GET", path: str = "/") -> int:
            headers = make_headers(basic_auth=f"{user}:{secret}")
            return request(method, node.url + path, headers=headers, ca=ca).status

        assert status("admin", password) == 200
        assert status("admin", "admin") == 401
        assert status("reader", password, "GET", "/_all/_search") == 200
        assert status("reader", password, "PUT", "/photos") == 403
        assert status("admin", password, "PUT", "/photos") == 200
        with pytest.raises(RequestFailed, match="certificate verify failed"):
            request("GET", node.url)
        certificate = ca.read_bytes()
        node.restart(300)
        assert ca.read_bytes() == certificate
        assert status("reader", password, "GET", "/photos/_search") == 200
