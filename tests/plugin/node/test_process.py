"""Development nodes: start, stop, kill, restart, and the end of the parent process."""

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
from xmodal_opensearch.node.folder import failure_reason
from xmodal_opensearch.node.process import Node, check_port, free_ports

pytestmark = pytest.mark.usefixtures("node_parts")

SOURCES = [str(Path(xmodal_opensearch.__file__).parents[1]), str(Path(__file__).parents[3])]

PARENT = """
import signal, sys, time
from pathlib import Path
from xmodal_opensearch.node.artifacts import VERSION
from xmodal_opensearch.node.process import Node
from xmodal_opensearch.node.folder import NodeConfig
signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of shells ignore SIGINT
config = NodeConfig(Path(sys.argv[1]), int(sys.argv[2]), VERSION, (), (), True, "256m", {})
with Node(config) as node:  # without waiting until the server answers
    print(node.pid, node._supervisor.pid, flush=True)
    time.sleep(600)
"""


def put(url: str, body: dict[str, Any]) -> Any:
    """Return the answer to PUT."""
    head = {"Content-Type": "application/json"}
    request = Request(url, json.dumps(body).encode(), headers=head, method="PUT")
    with urlopen(request, timeout=30) as answer:
        return json.load(answer)


def within(seconds: float, condition: Callable[[], bool]) -> bool:
    """Whether the condition becomes true within a number of seconds."""
    end = time.monotonic() + seconds
    while not (met := condition()) and time.monotonic() < end:
        time.sleep(0.05)
    return met


def has_ended(pid: int) -> bool:
    """Whether a process has ended; its exit status may still be unread (zombie)."""
    try:
        os.kill(pid, 0)
        # "pid (name) state ...", where the name can contain any character
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except ProcessLookupError:
        return True
    except FileNotFoundError:  # macOS, or ended between the two lines
        return sys.platform == "linux"


@pytest.fixture
def child(tmp_path: Path) -> Any:
    """A process that has started a node in ``tmp_path``, the server's pid, the supervisor's pid."""
    command = [sys.executable, "-c", PARENT, str(tmp_path / "node"), str(free_ports(1)[0])]
    path = os.pathsep.join(SOURCES)
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path},
        start_new_session=True,
    ) as parent:
        assert parent.stdout is not None
        server, supervisor = map(int, parent.stdout.readline().split())
        assert not has_ended(server)
        assert not has_ended(supervisor)
        yield parent, server, supervisor
        parent.kill()
    assert within(30, lambda: has_ended(server) and has_ended(supervisor))


def test_node_listens_on_127_0_0_1_and_has_k_nn(node: Node, node_url: str) -> None:
    [plugin] = node.get("/_cat/plugins?format=json")
    assert (plugin["component"], plugin["version"]) == ("opensearch-knn", "3.6.0.0")
    assert node.get("/")["version"]["number"] == artifacts.VERSION
    assert node_url == node.url == f"http://127.0.0.1:{node.port}"
    [info] = node.get("/_nodes/http,transport")["nodes"].values()
    bound = [*info["http"]["bound_address"], *info["transport"]["bound_address"]]
    assert {address.rpartition(":")[0] for address in bound} == {"127.0.0.1"}
    assert node.alive
    assert str(node.folder) in repr(node)
    assert node.get("/no/such/path") is None


def test_start_refuses_a_folder_and_a_port_in_use(node: Node, tmp_path: Path) -> None:
    with pytest.raises(IndexFailure, match=rf"pid {node.pid}, http"):
        Node.start(node.folder)
    with pytest.raises(ConfigError, match=rf"port {node.port} .*Address already in use"):
        Node.start(tmp_path / "node", port=node.port)
    assert not (tmp_path / "node" / "data").exists()


@pytest.mark.slow
def test_data_is_kept_after_stop_and_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*_: object) -> None:
        raise AssertionError("a start needs a download")

    monkeypatch.setattr(artifacts, "fetch", no_network)
    settings = {"search.allow_expensive_queries": "false", "node.attr.zone": "a"}
    node = Node.start(tmp_path / "node", settings=settings)
    assert node.get("/_nodes")["nodes"].popitem()[1]["attributes"]["zone"] == "a"
    put(f"{node.url}/things/_doc/1", {"colour": "red"})
    node.stop()
    node.stop()
    assert not node.alive
    assert has_ended(node.pid)
    assert "[node-1] closed" in node.log.read_text()  # ended by SIGTERM, not killed

    with Node.start(tmp_path / "node", port=node.port) as restarted:
        assert restarted.url == node.url
        assert restarted.get("/things/_doc/1")["_source"] == {"colour": "red"}
        put(f"{restarted.url}/things/_doc/2", {"colour": "blue"})
        restarted.kill()
        assert not restarted.alive
        assert has_ended(restarted.pid)
        assert restarted.get("/") is None
        restarted.restart()
        assert restarted.get("/things/_doc/2")["_source"] == {"colour": "blue"}


@pytest.mark.slow
def test_server_ends_when_the_parent_is_killed(
    child: tuple[subprocess.Popen[bytes], int, int], tmp_path: Path
) -> None:
    parent, server, supervisor = child
    log = tmp_path / "node" / "logs" / "console.log"
    assert within(60, lambda: "[node-1] started" in log.read_text())
    parent.kill()
    assert within(10, lambda: has_ended(server) and has_ended(supervisor))
    assert "[node-1] closed" in log.read_text()  # ended by SIGTERM, not killed


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_server_ends_with_its_supervisor(
    child: tuple[subprocess.Popen[bytes], int, int], number: signal.Signals
) -> None:
    if number == signal.SIGKILL and sys.platform != "linux":
        pytest.skip("only Linux kills a child process with its parent")
    _, server, supervisor = child
    os.kill(supervisor, number)
    assert within(5, lambda: has_ended(server))


def test_ctrl_c_of_the_parent_stops_the_server(
    child: tuple[subprocess.Popen[bytes], int, int],
) -> None:
    parent, server, supervisor = child
    os.killpg(parent.pid, signal.SIGINT)  # as a terminal: the whole process group
    assert parent.wait(30) != 0
    assert has_ended(server)
    assert has_ended(supervisor)


def test_start_without_a_java_executable_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_folder, "server_java", lambda *_: tmp_path / "java")
    with pytest.raises(IndexFailure, match=r"FileNotFound.*/java"):
        Node.start(tmp_path / "node")


@pytest.mark.slow
def test_failed_start_has_a_reason(tmp_path: Path) -> None:
    with pytest.raises(IndexFailure, match=r"unknown setting \[no.such\]"):
        Node.start(tmp_path / "node", settings={"no.such": "1"}, heap="256m")
    with pytest.raises(IndexFailure, match="within 0 seconds"):
        Node.start(tmp_path / "node", timeout=0)
    with pytest.raises(ConfigError, match=r"2\.19\.1, expected 3\.6\.0"):
        node_file = tmp_path / "node" / "node.json"
        node_file.write_text(node_file.read_text().replace("3.6.0", "2.19.1"))
        Node.start(tmp_path / "node")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"port": 70000}, "port is 70000"),
        ({"heap": "much"}, "heap is 'much'"),
        ({"plugins": ["faiss"]}, "'faiss' is not known for OpenSearch"),
        ({"version": "1.0.0"}, "1.0.0, expected 2.19"),
        ({"settings": {"http.port": "1"}}, "settings contain http.port"),
        ({"extra_plugins": [Path("nowhere")]}, "nowhere is not a plugin"),
    ],
)
def test_start_refuses_invalid_arguments(
    tmp_path: Path, arguments: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        Node.start(tmp_path / "node", **arguments)


def test_start_refuses_folders_with_other_content(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(ConfigError, match="expected an empty folder"):
        Node.start(tmp_path)
    with pytest.raises(ConfigError, match="is a file"):
        Node.start(tmp_path / "thesis.txt")
    with pytest.raises(ConfigError, match="Not a directory"):
        Node.start(tmp_path / "thesis.txt" / "node")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_start_in_a_folder_that_cannot_be_written_fails(tmp_path: Path) -> None:
    folder = tmp_path / "node"
    folder.mkdir()
    (folder / "node.json").touch()
    (folder / "data").touch()  # a file in place of a folder; root ignores permissions
    with pytest.raises(IndexFailure, match="File exists"):
        Node.start(folder)


def test_free_ports_are_different_and_not_in_use() -> None:
    ports = free_ports(20)
    assert len(set(ports)) == 20
    for port in ports:
        check_port(port)
    with socket.create_server(("127.0.0.1", ports[0])):
        with pytest.raises(ConfigError, match="cannot be used"):
            check_port(ports[0])


@pytest.mark.parametrize(
    ("printed", "reason"),
    [
        ("", "no output"),
        ("Unrecognized VM option 'x'\nError: Could not create the Java VM.\n", "Error: Could not"),
        ("[INFO ] started\nOutOfMemoryError: Java heap\n\tat a.B\n", "OutOfMemoryError: Java heap"),
        (
            "a.E: one\nCaused by: b.E: two\n\t... 6 more\nCaused by: c.E: three\n\tat x\n",
            "c.E: thre",
        ),
        (f"Exception: {'x' * 999}", "Exception: xxx"),
    ],
)
def test_failure_reason_is_the_innermost_cause(tmp_path: Path, printed: str, reason: str) -> None:
    log = tmp_path / "console.log"
    if printed:
        log.write_text(printed)
    result = failure_reason(log)
    assert result.startswith(reason)
    assert len(result) <= 300
