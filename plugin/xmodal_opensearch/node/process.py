"""A real OpenSearch on this machine, for development and tests: no container, no Maven, no JDK.

    with Node.start("node") as node:
        open_index(f"opensearch://127.0.0.1:{node.port}/photos", bits=64, create=True)

The server and its Java come from Python packages (the extra ``node``) and are kept, so that a
second start needs no network. It listens on 127.0.0.1 alone, without passwords, and never outlives
the process that started it, see supervisor.py. For anything else take the official distribution:
``assets/compose.yaml``.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from xmodal.errors import ConfigError, IndexFailure
from xmodal_opensearch.client.http import RequestFailed, request
from xmodal_opensearch.client.retry import poll
from xmodal_opensearch.node.artifacts import VERSION, Show
from xmodal_opensearch.node.folder import HOST, Plan, claim, note, why_it_died

PORTS = range(20000, 32000)
"""Where a free port is looked for: below those that kernels give to outgoing connections."""

GRACE = 20.0  # seconds from SIGTERM to SIGKILL
PAUSE = 0.1  # seconds between two looks at a node that starts
MAX_ANSWER = 64 << 20  # bytes


class Node:
    """A running OpenSearch on 127.0.0.1. It stops when this object or its process goes away."""

    def __init__(self, plan: Plan, show: Show | None = None) -> None:
        """Start the server's process and do not wait for it: :meth:`start` is the way in."""
        self._plan = plan
        self._show = show
        self._launch()

    @classmethod
    def start(
        cls,
        folder: str | Path,
        *,
        port: int = 0,
        plugins: Sequence[str] = ("opensearch-knn",),
        extra_plugins: Sequence[Path] = (),
        quick: bool = True,
        heap: str = "1g",
        settings: Mapping[str, str] | None = None,
        show: Show | None = None,
        timeout: float = 120,
        version: str = VERSION,
    ) -> Self:
        """Start a node that keeps its data in ``folder`` and wait until it answers.

        ``port`` 0 takes any free one. ``plugins`` are those of ``assets/artifacts.json``, fetched
        with what they need; ``extra_plugins`` are folders of unpacked ones. ``quick`` halves the
        start and slows long work down: leave it off to measure. ``settings`` go into the server's
        configuration. ``show`` gets one line for each thing that takes long.

        Raises ExtraMissing without the extra ``node``; ConfigError for a port that is taken, a
        folder that is not a node's, or other bad arguments; IndexFailure for a folder in use, and
        for a server that dies or does not answer within ``timeout`` seconds, with its reason.
        """
        plan = Plan(
            folder=Path(folder).absolute(),
            port=port or free_ports(1)[0],
            version=version,
            plugins=tuple(plugins),
            extra_plugins=tuple(Path(one).absolute() for one in extra_plugins),
            quick=quick,
            heap=heap,
            settings=dict(settings or {}),
        )
        node = cls(plan, show)
        node.wait(timeout)
        return node

    @property
    def folder(self) -> Path:
        """Where its data, logs and configuration are."""
        return self._plan.folder

    @property
    def port(self) -> int:
        """The port of HTTP."""
        return self._plan.port

    @property
    def url(self) -> str:
        """The address of HTTP."""
        return f"http://{HOST}:{self.port}"

    @property
    def log(self) -> Path:
        """What the server printed since its last start."""
        return self.folder / "logs" / "console.log"

    @property
    def alive(self) -> bool:
        """Whether the server's process runs."""
        return self._watcher.poll() is None

    def get(self, path: str, timeout: float = 10) -> Any:
        """The JSON that the node answers to GET ``path``; None if it does not (yet) answer so."""
        try:
            answer = request("GET", f"{self.url}{path}", timeout=timeout, max_bytes=MAX_ANSWER)
            return json.loads(answer.body) if answer.status == 200 else None
        except (RequestFailed, ValueError):  # refused while it starts, cut off while it stops
            return None

    def wait(self, timeout: float = 120, nodes: int = 1) -> None:
        """Wait until a cluster of at least ``nodes`` nodes answers and its indices can be searched.

        A node that died or did not answer in time is stopped. Raises IndexFailure.
        """
        health = f"/_cluster/health?wait_for_status=yellow&wait_for_nodes=ge({nodes})&timeout=1s"
        starting = poll(timeout, PAUSE)
        try:
            while not (answer := self.get(health)) or answer.get("timed_out"):
                if not self.alive:
                    raise IndexFailure(
                        f"the node in {self.folder} ended while it started: "
                        f"{why_it_died(self.log)}; more in {self.log}"
                    )
                if not starting.wait():
                    raise IndexFailure(
                        f"the node in {self.folder} did not answer within {timeout:g} seconds: "
                        f"give it more time, or see {self.log}"
                    )
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the server and wait until it has gone; its data stay. Nothing happens twice."""
        if self._watcher.stdin:
            self._watcher.stdin.close()  # what the watcher waits for
        try:
            self._watcher.wait(GRACE + 5)
        except subprocess.TimeoutExpired:  # the watcher itself hangs
            self._watcher.kill()
            _kill(self.pid)
            self._watcher.wait()

    def kill(self) -> None:
        """End the server at once, as a machine that fails would (SIGKILL)."""
        if self.alive:
            _kill(self.pid)
        self.stop()

    def restart(self, timeout: float = 120) -> None:
        """Start it again as it was first started: same folder, same port, same settings."""
        self.stop()
        self._launch()
        self.wait(timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"Node({self.url}, folder={str(self.folder)!r}, pid={self.pid})"

    def _launch(self) -> None:
        plan = self._plan
        plan.check()
        with ExitStack() as undo:
            lock = claim(plan.folder, plan.version)
            undo.callback(os.close, lock)  # the children hold it from here on
            check_free(plan.port)
            try:
                command = plan.write(self._show)
            except OSError as error:
                raise IndexFailure(
                    f"{plan.folder} could not be written ({error}): make room, or name another"
                ) from None
            self.pid = 0
            with self.log.open("wb") as log:
                self._watcher = subprocess.Popen(
                    [*_supervisor(), str(os.getpid()), str(GRACE), *command],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    pass_fds=[lock],
                    env=_environment(),
                    start_new_session=True,  # Ctrl-C is for whoever started the node
                )
            try:
                assert self._watcher.stdout is not None
                with self._watcher.stdout as said:
                    self.pid = int(said.readline() or 0)
                if not self.pid:
                    raise IndexFailure(f"no server could be started: {why_it_died(self.log)}")
                note(lock, plan.version, self.pid, self.url)
            except BaseException:
                self.stop()
                raise


def start_cluster(
    folder: str | Path,
    nodes: int = 3,
    *,
    plugins: Sequence[str] = ("opensearch-knn",),
    extra_plugins: Sequence[Path] = (),
    quick: bool = True,
    heap: str = "512m",
    settings: Mapping[str, str] | None = None,
    show: Show | None = None,
    timeout: float = 240,
    version: str = VERSION,
) -> list[Node]:
    """Start several nodes as one cluster, in ``folder``/node-1 and so on; wait until it has formed.

    The arguments are those of :meth:`Node.start`, which also says what raises.
    """
    ports = free_ports(2 * nodes)
    names = [f"node-{number + 1}" for number in range(nodes)]
    seeds = ",".join(f"{HOST}:{port}" for port in ports[nodes:])
    started: list[Node] = []
    try:
        for place, name in enumerate(names):
            together = {
                "transport.port": str(ports[nodes + place]),
                "discovery.seed_hosts": seeds,
                "cluster.initial_cluster_manager_nodes": ",".join(names),
            }
            plan = Plan(
                folder=Path(folder).absolute() / name,
                port=ports[place],
                version=version,
                plugins=tuple(plugins),
                extra_plugins=tuple(Path(one).absolute() for one in extra_plugins),
                quick=quick,
                heap=heap,
                settings={**together, **(settings or {})},
                name=name,
            )
            started.append(Node(plan, show))
        for node in started:
            node.wait(timeout, nodes)
    except BaseException:
        for node in started:
            node.stop()
        raise
    return started


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on now, all different."""
    shuffled = random.SystemRandom().sample(PORTS, len(PORTS))
    return list(islice((port for port in shuffled if not _hindrance(port)), count))


def check_free(port: int) -> None:
    """Raises ConfigError for a port that cannot be had."""
    if not 0 < port < 65536:
        raise ConfigError(f"port is {port}, expected 1 to 65535, or 0 for any free one")
    if hindrance := _hindrance(port):
        raise ConfigError(
            f"port {port} of {HOST} cannot be used ({hindrance}): "
            "give another port, or 0 for any free one"
        )


def _hindrance(port: int) -> str:
    """Why nothing can listen on a port of this machine; empty if it is free."""
    with socket.socket() as attempt:
        # As the server will do it: a connection that closed a moment ago is not in the way.
        attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            attempt.bind((HOST, port))
        except OSError as error:
            return error.strerror or str(error)
    return ""


def _kill(pid: int) -> None:
    if pid > 0:  # 0 would be this process and its group
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _supervisor() -> list[str]:
    """The command of the watcher: without site packages it starts in a few hundredths."""
    return [sys.executable, "-I", "-S", str(Path(__file__).with_name("supervisor.py"))]


def _environment() -> dict[str, str]:
    """This environment without what would change how Java starts."""
    java_reads = ("JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS", "CLASSPATH")
    return {name: value for name, value in os.environ.items() if name not in java_reads}
