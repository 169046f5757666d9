"""Killed enrich commands and the restart of a node: all codes equal those of a clean run."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.hamming_server import Server

from xmodal_opensearch.node.process import Node

pytestmark = pytest.mark.slow
COUNT = 4000
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


@contextmanager
def enriching(node: Node, name: str, model: Path, *more: str) -> Iterator[subprocess.Popen[str]]:
    """Start the command, and wait until it has opened the index."""
    uri = f"opensearch://127.0.0.1:{node.port}/{name}"
    options = ["--index", uri, "--model", str(model), "--text-field", "title", "--no-cache"]
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "enrich", *options, *more],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        while "on OpenSearch" not in (line := process.stderr.readline()):
            assert line, "the command ended"
        yield process


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
        with enriching(node, "clean", portable_path) as process:
            assert process.wait() == 0
        slowly = ("--docs-per-second", "200")
        for event in ("kill", "kill", "kill", "restart"):
            with enriching(node, "killed", portable_path, *slowly) as process:
                before = encoded(server, "killed")
                while encoded(server, "killed") < before + 200:
                    assert process.poll() is None
                    time.sleep(0.1)
                if event == "kill":
                    process.kill()
                    continue
                node.stop()
                assert process.poll() is None
                with Node.start(tmp_path / "node", port=node.port, heap="512m", timeout=600):
                    assert process.wait() == 0
                    expected = documents(server, "clean")
                    assert documents(server, "killed") == expected
                    assert sum("text_code" in one for one in expected.values()) == COUNT
