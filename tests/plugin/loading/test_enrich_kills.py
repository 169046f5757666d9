"""Killed enrich commands and the restart of a node: all codes equal those of a clean run."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from support.hamming_server import Server

from xmodal_opensearch.node.process import Node

pytestmark = pytest.mark.slow
COUNT = 6000
WORDS = "red blue green pink circle star cross square small large".split()
PROGRAM = "from xmodal_opensearch.cli import main; main()"


def fill(server: Server, name: str) -> None:
    """Make an index of documents with a title, in two shards."""
    server("PUT", name, {"settings": {"number_of_shards": 2, "number_of_replicas": 0}})
    words = random.Random(0)
    lines: list[str] = []
    for number in range(COUNT):
        title = {"title": " ".join(words.choices(WORDS, k=4))}
        lines += [json.dumps({"index": {"_id": f"d{number}"}}), json.dumps(title)]
    answer = server("POST", f"{name}/_bulk?refresh=true", "\n".join(lines) + "\n")
    assert not answer["errors"]


def start(node: Node, name: str, model: Path) -> subprocess.Popen[bytes]:
    uri = f"opensearch://127.0.0.1:{node.port}/{name}"
    options = ["--index", uri, "--model", str(model), "--text-field", "title", "--no-cache"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    limit = ["--docs-per-second", "1000"]
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "enrich", *options, *limit], env=environment
    )


def encoded(server: Server, name: str) -> int:
    server("POST", f"{name}/_refresh")
    return int(
        server("POST", f"{name}/_count", {"query": {"exists": {"field": "xmodal.id"}}})["count"]
    )


def documents(server: Server, name: str) -> dict[str, Any]:
    """Return all documents by id."""
    hits = server("POST", f"{name}/_search", {"size": 10_000})["hits"]["hits"]
    return {hit["_id"]: hit["_source"] for hit in hits}


def test_killed_commands_and_a_restart_lose_nothing(
    node_parts: None, portable_path: Path, tmp_path: Path
) -> None:
    with Node.start(tmp_path / "node", heap="512m", timeout=600) as node:
        server = Server(node.url)
        for name in ("clean", "killed"):
            fill(server, name)
        assert start(node, "clean", portable_path).wait() == 0
        for kill in range(3):
            before, process = encoded(server, "killed"), start(node, "killed", portable_path)
            while encoded(server, "killed") < before + 500:
                assert process.poll() is None
                time.sleep(0.05)
            process.kill()
            process.wait()
            assert before < encoded(server, "killed") < COUNT, kill
        before, process = encoded(server, "killed"), start(node, "killed", portable_path)
        while encoded(server, "killed") < before + 500:
            assert process.poll() is None
            time.sleep(0.05)
        node.stop()
        assert process.poll() is None
        with Node.start(tmp_path / "node", port=node.port, heap="512m", timeout=600):
            assert process.wait() == 0
            expected = documents(server, "clean")
            assert documents(server, "killed") == expected
            assert sum("text_code" in one for one in expected.values()) == COUNT
