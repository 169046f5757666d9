"""``xmodal-opensearch node`` as a person runs it: a process that is told to end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.request import urlopen

import pytest

import xmodal
import xmodal_opensearch
from xmodal_opensearch.node.process import free_ports

SOURCES = [str(Path(str(one.__file__)).parents[1]) for one in (xmodal_opensearch, xmodal)]

# A terminal lets Ctrl-C through; whoever runs the tests in the background may not.
START = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from xmodal_opensearch.cli import main
main()
"""


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_node_until_it_is_told_to_end(
    node_parts: None, tmp_path: Path, how: signal.Signals
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
            process.send_signal(how)
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 0
    assert time.monotonic() - began < 30
    assert out == ""
    lines = err.splitlines()
    assert lines[-2:] == ["Ctrl-C ends it", "stopping"]
    assert f"an index is opensearch://localhost:{port}/NAME" in lines[-3]
    assert gone(server)


def test_ctrl_c_while_it_starts(node_parts: None, tmp_path: Path) -> None:
    command = ["node", "--folder", str(tmp_path / "n"), "--port", str(free_ports(1)[0])]
    with subprocess.Popen(
        [sys.executable, "-c", START, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(SOURCES)},
    ) as process:
        mark = tmp_path / "n" / "node.json"
        end = time.monotonic() + 60
        while not (mark.exists() and mark.stat().st_size) and time.monotonic() < end:
            time.sleep(0.05)
        server = json.loads(mark.read_text())["pid"]
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert err.splitlines()[-1].startswith("xmodal: stopped")
    assert "Traceback" not in err
    assert gone(server)
