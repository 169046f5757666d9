"""The development node: real servers, started, lost, started again; none outlives its parent."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

import xmodal_opensearch
from xmodal.errors import ConfigError, IndexFailure
from xmodal_opensearch.node import artifacts
from xmodal_opensearch.node import folder as node_folder
from xmodal_opensearch.node.folder import why_it_died
from xmodal_opensearch.node.process import Node, check_free, free_ports

pytestmark = pytest.mark.usefixtures("node_parts")

SOURCES = [str(Path(xmodal_opensearch.__file__).parents[1]), str(Path(__file__).parents[3])]

PARENT = """
import signal, sys, time
from pathlib import Path
from xmodal_opensearch.node.artifacts import VERSION
from xmodal_opensearch.node.process import Node
from xmodal_opensearch.node.folder import Plan
signal.signal(signal.SIGINT, signal.default_int_handler)  # shells start jobs that ignore it
plan = Plan(Path(sys.argv[1]), int(sys.argv[2]), VERSION, (), (), True, "256m", {})
with Node(plan) as node:  # not ready yet: a parent may die at any time
    print(node.pid, node._watcher.pid, flush=True)
    time.sleep(600)
"""


def put(url: str, body: dict[str, Any]) -> Any:
    """The answer to PUT."""
    head = {"Content-Type": "application/json"}
    asked = Request(url, json.dumps(body).encode(), headers=head, method="PUT")
    with urlopen(asked, timeout=30) as answer:
        return json.load(answer)


def within(seconds: float, condition: Callable[[], bool]) -> bool:
    """Whether the condition comes true in that time."""
    end = time.monotonic() + seconds
    while not (met := condition()) and time.monotonic() < end:
        time.sleep(0.05)
    return met


def gone(pid: int) -> bool:
    """Whether a process has ended, even if nobody has asked yet how."""
    try:
        os.kill(pid, 0)
        # "pid (name) state ...": a name may hold anything
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except ProcessLookupError:
        return True
    except FileNotFoundError:  # no such folder (macOS), or gone between the two lines
        return sys.platform == "linux"


@pytest.fixture
def child(tmp_path: Path) -> Any:
    """A process that has just started a node in ``tmp_path``: itself, the server, the watcher."""
    command = [sys.executable, "-c", PARENT, str(tmp_path / "node"), str(free_ports(1)[0])]
    path = os.pathsep.join(SOURCES)
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path},
        start_new_session=True,
    ) as parent:
        assert parent.stdout is not None
        server, watcher = map(int, parent.stdout.readline().split())
        assert not gone(server)
        assert not gone(watcher)
        yield parent, server, watcher
        parent.kill()
    assert within(30, lambda: gone(server) and gone(watcher))


def test_a_node_answers_on_this_machine_alone_and_has_k_nn(node: Node, node_url: str) -> None:
    [plugin] = node.get("/_cat/plugins?format=json")
    assert (plugin["component"], plugin["version"]) == ("opensearch-knn", "3.6.0.0")
    assert node.get("/")["version"]["number"] == artifacts.VERSION
    assert node_url == node.url == f"http://127.0.0.1:{node.port}"
    [itself] = node.get("/_nodes/http,transport")["nodes"].values()
    bound = [*itself["http"]["bound_address"], *itself["transport"]["bound_address"]]
    assert {address.rpartition(":")[0] for address in bound} == {"127.0.0.1"}
    assert node.alive
    assert str(node.folder) in repr(node)
    assert node.get("/no/such/path") is None


def test_a_folder_and_a_port_have_one_node(node: Node, tmp_path: Path) -> None:
    with pytest.raises(IndexFailure, match=rf"in use by a running node \(pid {node.pid}, http"):
        Node.start(node.folder)
    with pytest.raises(ConfigError, match=rf"port {node.port} .*Address already in use.*another"):
        Node.start(tmp_path / "node", port=node.port)
    assert not (tmp_path / "node" / "data").exists()


@pytest.mark.slow
def test_data_outlast_a_stop_and_a_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*_: object) -> None:
        raise AssertionError("a start asked for a download")

    monkeypatch.setattr(artifacts, "fetch", no_network)
    settings = {"search.allow_expensive_queries": "false", "node.attr.zone": "a"}
    node = Node.start(tmp_path / "node", settings=settings)
    assert node.get("/_nodes")["nodes"].popitem()[1]["attributes"]["zone"] == "a"
    put(f"{node.url}/things/_doc/1", {"colour": "red"})
    node.stop()
    node.stop()
    assert not node.alive
    assert gone(node.pid)
    assert "[node-1] closed" in node.log.read_text()  # not killed: it ended by itself

    with Node.start(tmp_path / "node", port=node.port) as again:
        assert again.url == node.url
        assert again.get("/things/_doc/1")["_source"] == {"colour": "red"}
        put(f"{again.url}/things/_doc/2", {"colour": "blue"})
        again.kill()
        assert not again.alive
        assert gone(again.pid)
        assert again.get("/") is None
        again.restart()
        assert again.get("/things/_doc/2")["_source"] == {"colour": "blue"}


@pytest.mark.slow
def test_no_server_outlives_a_parent_that_was_killed(
    child: tuple[subprocess.Popen[bytes], int, int], tmp_path: Path
) -> None:
    parent, server, watcher = child
    log = tmp_path / "node" / "logs" / "console.log"
    assert within(60, lambda: "[node-1] started" in log.read_text())
    parent.kill()
    assert within(10, lambda: gone(server) and gone(watcher))
    assert "[node-1] closed" in log.read_text()  # it was asked to end, not killed


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_no_server_outlives_its_watcher(
    child: tuple[subprocess.Popen[bytes], int, int], how: signal.Signals
) -> None:
    if how == signal.SIGKILL and sys.platform != "linux":
        pytest.skip("only the kernel of Linux ends a process with the one that started it")
    _, server, watcher = child
    os.kill(watcher, how)
    assert within(5, lambda: gone(server))


def test_ctrl_c_stops_the_server(child: tuple[subprocess.Popen[bytes], int, int]) -> None:
    parent, server, watcher = child
    os.killpg(parent.pid, signal.SIGINT)  # as a terminal does it: the whole process group
    assert parent.wait(30) != 0
    assert gone(server)
    assert gone(watcher)


def test_a_java_that_cannot_be_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_folder, "java", lambda: tmp_path / "java")
    with pytest.raises(IndexFailure, match=r"no server could be started: FileNotFound.*/java"):
        Node.start(tmp_path / "node")


@pytest.mark.slow
def test_a_server_that_dies_says_why(tmp_path: Path) -> None:
    with pytest.raises(IndexFailure, match=r"ended while .* unknown setting \[no.such\].* more in"):
        Node.start(tmp_path / "node", settings={"no.such": "1"}, heap="256m")
    with pytest.raises(IndexFailure, match="did not answer within 0 seconds: give it more time"):
        Node.start(tmp_path / "node", timeout=0)
    with pytest.raises(ConfigError, match=r"holds data of OpenSearch 2\.19\.1, expected 3\.6\.0"):
        mark = tmp_path / "node" / "node.json"
        mark.write_text(mark.read_text().replace("3.6.0", "2.19.1"))
        Node.start(tmp_path / "node")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"port": 70000}, "port is 70000, expected 1 to 65535, or 0 for any free one"),
        ({"heap": "much"}, "heap is 'much', expected a size such as 512m or 1g"),
        ({"plugins": ["faiss"]}, "'faiss' is not known, expected some of neural-search, "),
        ({"version": "1.0.0"}, "no development node of OpenSearch 1.0.0, expected 3.6.0"),
        ({"settings": {"http.port": "1"}}, "the node itself decides http.port"),
        ({"extra_plugins": [Path("nowhere")]}, "nowhere is no plugin of OpenSearch"),
    ],
)
def test_bad_arguments(tmp_path: Path, given: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Node.start(tmp_path / "node", **given)


def test_folders_that_are_not_a_nodes(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(ConfigError, match="holds other things, expected an empty folder"):
        Node.start(tmp_path)
    with pytest.raises(ConfigError, match="is a file, expected a folder"):
        Node.start(tmp_path / "thesis.txt")
    with pytest.raises(ConfigError, match="cannot be a node's folder: Not a directory"):
        Node.start(tmp_path / "thesis.txt" / "node")
    assert [one.name for one in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    folder = tmp_path / "node"
    folder.mkdir()
    (folder / "node.json").touch()
    (folder / "data").touch()  # a file in the way, since root may write anywhere
    with pytest.raises(IndexFailure, match=r"could not be written \(.*File exists.*name another"):
        Node.start(folder)


def test_free_ports_are_free_and_different() -> None:
    ports = free_ports(20)
    assert len(set(ports)) == 20
    for port in ports:
        check_free(port)
    with socket.create_server(("127.0.0.1", ports[0])):
        with pytest.raises(ConfigError, match="cannot be used"):
            check_free(ports[0])


@pytest.mark.parametrize(
    ("printed", "reason"),
    [
        ("", "it printed nothing"),
        ("Unrecognized VM option 'x'\nError: Could not create the Java VM.\n", "Error: Could not"),
        ("[INFO ] started\nOutOfMemoryError: Java heap\n\tat a.B\n", "OutOfMemoryError: Java heap"),
        (
            "a.E: one\nCaused by: b.E: two\n\t... 6 more\nCaused by: c.E: three\n\tat x\n",
            "c.E: thre",
        ),
        (f"Exception: {'x' * 999}", "Exception: xxx"),
    ],
)
def test_why_a_server_died(tmp_path: Path, printed: str, reason: str) -> None:
    log = tmp_path / "console.log"
    if printed:
        log.write_text(printed)
    found = why_it_died(log)
    assert found.startswith(reason)
    assert len(found) <= 300
