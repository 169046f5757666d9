"""``xmodal-opensearch node`` as a process that receives SIGINT and SIGTERM."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from urllib.request import urlopen

import pytest
from conftest import CommandResult

import xmodal
import xmodal_opensearch
from xmodal_opensearch.node.artifacts import known_versions
from xmodal_opensearch.node.process import free_ports

SOURCES = [str(Path(str(module.__file__)).parents[1]) for module in (xmodal_opensearch, xmodal)]

# Background jobs of a shell ignore SIGINT; this restores the handler.
START = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from xmodal_opensearch.cli import main
main()
"""


def has_ended(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_node_command_stops_on_a_signal(
    node_parts: None, tmp_path: Path, number: signal.Signals
) -> None:
    (port,) = free_ports(1)
    folder = tmp_path / "my-node"
    command = ["node", "--folder", str(folder), "--port", str(port), "--heap", "384m"]
    with subprocess.Popen(
        [sys.executable, "-c", START, *command, "--fast-start"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(SOURCES)},
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        try:
            assert process.stdout.readline() == f"http://127.0.0.1:{port}\n"
            server = json.loads((folder / "node.json").read_text())["pid"]
            with urlopen(f"http://127.0.0.1:{port}/_cat/plugins") as answer:
                assert b"opensearch-knn" in answer.read()
            began = time.monotonic()
            process.send_signal(number)
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 0
    assert time.monotonic() - began < 30
    assert out == ""
    assert err.splitlines()[-1] == "stopping"
    assert f"opensearch://localhost:{port}/NAME" in err
    assert has_ended(server)


def test_node_command_stops_on_ctrl_c_during_the_start(node_parts: None, tmp_path: Path) -> None:
    command = ["node", "--folder", str(tmp_path / "n"), "--port", str(free_ports(1)[0])]
    with subprocess.Popen(
        [sys.executable, "-c", START, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(SOURCES)},
    ) as process:
        node_file = tmp_path / "n" / "node.json"
        end = time.monotonic() + 60
        while not (node_file.exists() and node_file.stat().st_size) and time.monotonic() < end:
            time.sleep(0.05)
        server = json.loads(node_file.read_text())["pid"]
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert err.splitlines()[-1].startswith("xmodal: stopped")
    assert "Traceback" not in err
    assert has_ended(server)


def test_node_command_lists_the_versions(
    opensearch_cli: Callable[..., CommandResult], tmp_path: Path
) -> None:
    for options in (("--server", "1.0.0"), ("--server", "4.0.0", "--with-plugin")):
        done = opensearch_cli("node", "--folder", tmp_path / "n", *options)
        assert done.status == 2 and len(done.err.splitlines()) == 1
        assert all(version in done.err for version in known_versions())
    done = opensearch_cli("node", "--server", "3.7.0", "--with-security")
    assert done.status == 2 and "3.4.0" in done.err.splitlines()[-1]
    done = opensearch_cli("node", "--server", "3.7.0", "--java", tmp_path / "java")
    assert done.status == 2 and str(tmp_path / "java") in done.err.splitlines()[-1]
