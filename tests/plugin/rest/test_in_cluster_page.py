"""docs/in_cluster.md: its commands run on a node of their own, which is then restarted."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import CommandResult
from support.rest_path import curl
from support.text_families import text_model

from xmodal.errors import ConfigError
from xmodal_opensearch.node import local_models
from xmodal_opensearch.node.process import Node, free_ports

PAGE = Path(__file__).parents[3] / "docs" / "in_cluster.md"
READY = 60.0  # seconds until a restarted node has loaded the model


@pytest.fixture
def node(node_parts: None, server_version: str, tmp_path: Path) -> Any:
    """A node with local models, with the options of ``xmodal-opensearch node``."""
    plugins = ["opensearch-knn", local_models.ML, "neural-search"]
    try:
        local_models.check(server_version, plugins)
    except ConfigError as error:
        pytest.skip(str(error))
    (port,) = free_ports(1)
    with Node.start(
        tmp_path / "node", port=port, plugins=plugins, version=server_version, local_models=True
    ) as started:
        yield started


@pytest.mark.slow
def test_three_commands_then_curl_alone(
    export_extra: None,
    node: Node,
    tmp_path: Path,
    xmodal_cli: Callable[..., CommandResult],
    opensearch_cli: Callable[..., CommandResult],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    setup, requests = (
        block.replace("localhost:9200", f"127.0.0.1:{node.port}").splitlines()
        for block in re.findall(r"```sh\n(.*?)```", PAGE.read_text(), re.DOTALL)
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("XMODAL_NO_PORTABLE")
    assert setup[0] == "make demo-text"
    small = (
        "--pictures",
        120,
        "--set",
        "epochs=1",
        "--text-backbone",
        str(text_model("bert", tmp_path / "b")),
    )
    assert xmodal_cli("demo", "--out", "demo-text", *small).status == 0
    assert "node --with-ml --local-models &" in setup[1]
    connected = opensearch_cli(*shlex.split(setup[2])[1:])
    assert connected.status == 0, connected.err
    stored, *searches = requests
    answer = curl(stored, tmp_path)
    assert not answer["errors"], answer
    before = [hits(curl(line, tmp_path)) for line in searches]
    by_code, filtered, fused = before
    assert len(by_code) == 2 and set(fused) == {"a", "b", "c"}
    assert list(filtered) == ["c"]

    node.restart()
    end = time.monotonic() + READY
    while '"status":400' in (answer := printed(searches[0])) and time.monotonic() < end:
        assert "not ready" in answer, answer
        time.sleep(0.5)
    assert [hits(curl(line, tmp_path)) for line in searches] == before
    removed = opensearch_cli("disconnect", f"opensearch://127.0.0.1:{node.port}/captions")
    assert removed.status == 0, removed.err


def hits(answer: Any) -> dict[str, float]:
    """Return the scores of the hits by id, in order."""
    assert "hits" in answer, answer
    return {hit["_id"]: hit["_score"] for hit in answer["hits"]["hits"]}


def printed(line: str) -> str:
    """Return the output of a curl command without spaces."""
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True)
    return json.dumps(json.loads(done.stdout), separators=(",", ":"))
