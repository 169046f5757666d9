"""Findings of doctor about pipelines of connect: their encoder, service and index."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from support.endpoint import Endpoint
from support.hamming_server import Server as Rest
from support.rest_path import create_connected, proxy, run

from xmodal_opensearch.client.address import parse_address
from xmodal_opensearch.client.server import Server
from xmodal_opensearch.diagnostics.connect_checks import check_connect
from xmodal_opensearch.diagnostics.findings import Finding
from xmodal_opensearch.diagnostics.inspection import inspect


def findings(uri: str) -> list[Finding]:
    """Return the findings of an index about connect."""
    address = parse_address(uri)
    result = inspect(Server(address), address)
    assert result.not_checked == []
    assert check_connect.__doc__
    kinds = ("pipelines-of-other-encoder", "service", "pipelines-without-index")
    return [one for one in result.findings if one.kind in kinds and address.index in str(one)]


def test_pipelines_of_connect(
    ml: Rest, ml_address: Callable[..., str], service_url: str, model: Path
) -> None:
    uri = ml_address()
    with Endpoint(proxy(service_url)) as service:
        photos = create_connected(uri, f"http://127.0.0.1:{service.port}", model)
        assert findings(uri) == []
    (gone,) = findings(uri)
    assert gone.kind == "service" and f"connect {uri}" in gone.repair
    handle = photos.index.handle
    meta = handle.read_meta()
    handle.write_meta({"xmodal": meta["xmodal"] | {"encoder": "another"}})
    (other,) = findings(uri)
    assert other.kind == "pipelines-of-other-encoder" and "another" in other.meaning
    photos.index.close()
    ml("DELETE", handle.name)
    beside = ml_address()
    run("create", beside, "--bits", 64)
    address = parse_address(beside)
    left = [
        one
        for one in inspect(Server(address), address).findings
        if one.kind == "pipelines-without-index" and photos.name in one.found
    ]
    assert len(left) == 1
    assert left[0].repair == f"xmodal-opensearch disconnect {uri} --name xmodal"
    run("disconnect", uri)
