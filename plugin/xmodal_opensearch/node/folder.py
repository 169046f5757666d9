"""The folder of a development node: whose it is, what lies in it, the command that starts a server.

    node.json          this folder belongs to a node: its server version, its last pid and address;
                       locked as long as the server or its watcher lives
    home/ config/      links to the unpacked server and plugins, written anew at every start
    data/ logs/ tmp/   the server's own

Only data/ and node.json matter to the next start.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from xmodal.errors import ConfigError, IndexFailure
from xmodal_opensearch.node.artifacts import Show, java, unpacked, with_needs

MARK = "node.json"
HOST = "127.0.0.1"
MAIN = "org.opensearch.bootstrap.OpenSearch"
OURS = ("http.port", "network.host", "node.name", "path.data", "path.logs")
HEAP = re.compile(r"[1-9][0-9]*[kmg]", re.IGNORECASE)

# The server refuses to run as root, which it learns through JNA; a container of a test job has no
# other user. Without JNA it does not learn it: for development only, and only where it is needed.
AS_ROOT = ("-Djna.nounpack=true", "-Djna.nosys=true", "-Djna.boot.library.path=/nonexistent")


@dataclass(frozen=True)
class Plan:
    """Everything that decides how a node is started, so that it can be started again."""

    folder: Path
    port: int
    version: str
    plugins: tuple[str, ...]
    extra_plugins: tuple[Path, ...]
    quick: bool
    heap: str
    settings: Mapping[str, str]
    name: str = "node-1"

    def check(self) -> None:
        """Find what cannot work before a process is started. Raises ConfigError."""
        with_needs(self.plugins, self.version)
        if not HEAP.fullmatch(self.heap):
            raise ConfigError(f"heap is {self.heap!r}, expected a size such as 512m or 1g")
        if taken := set(self.settings) & set(OURS):
            raise ConfigError(
                f"the node itself decides {', '.join(sorted(taken))}: leave it out of settings"
            )
        for folder in self.extra_plugins:
            if not (folder / "plugin-descriptor.properties").is_file():
                raise ConfigError(
                    f"{folder} is no plugin of OpenSearch, expected an unpacked one, "
                    "with plugin-descriptor.properties in it"
                )

    def write(self, show: Show | None) -> list[str]:
        """Lay out home and config, which a start makes anew; return the command of the server."""
        runtime = java()
        server = unpacked("server", self.version, show)
        plugins = with_needs(self.plugins, self.version)
        folders = {name: unpacked(name, self.version, show) for name in plugins}
        folders |= {path.name: path for path in self.extra_plugins}
        home, config = self.folder / "home", self.folder / "config"
        for old in (home, config):
            shutil.rmtree(old, ignore_errors=True)
            old.mkdir()
        for name in ("data", "logs", "tmp"):
            (self.folder / name).mkdir(exist_ok=True)
        (home / "plugins").mkdir()
        for name in ("lib", "modules"):
            (home / name).symlink_to(server / name)
        for name, path in folders.items():
            (home / "plugins" / name).symlink_to(path)
        shutil.copyfile(server / "config" / "log4j2.properties", config / "log4j2.properties")
        (config / "opensearch.yml").touch()
        return [str(runtime), *self._flags(), "-cp", _class_path(server), MAIN, *self._settings()]

    def _flags(self) -> list[str]:
        return [
            f"-Xmx{self.heap}",
            *(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"] if self.quick else []),
            *(AS_ROOT if os.geteuid() == 0 else ()),
            "--enable-native-access=ALL-UNNAMED",
            # From here to headless: what the official start script sets in its Java code.
            "-Dlog4j.shutdownHookEnabled=false",  # else logging ends before the server's own end
            "-Dlog4j2.disable.jmx=true",
            "-Dio.netty.noUnsafe=true",
            "-Dio.netty.noKeySetOptimization=true",
            "-Dio.netty.recycler.maxCapacityPerThread=0",
            "-Dio.netty.allocator.numDirectArenas=0",
            "-XX:-OmitStackTraceInFastThrow",
            "-Xss1m",
            "-Dfile.encoding=UTF-8",
            "-Djava.awt.headless=true",
            "-Djava.locale.providers=SPI,CLDR",  # word breaks come from icu4j, not from this Java
            f"-Djava.io.tmpdir={self.folder / 'tmp'}",
            f"-XX:ErrorFile={self.folder / 'logs' / 'crash.log'}",
            f"-Dopensearch.path.home={self.folder / 'home'}",
            f"-Dopensearch.path.conf={self.folder / 'config'}",
            "-Dopensearch.distribution.type=zip",
            "-Dopensearch.bundled_jdk=false",
        ]

    def _settings(self) -> list[str]:
        settings = {
            "cluster.name": "xmodal",
            "node.name": self.name,
            "path.data": str(self.folder / "data"),
            "path.logs": str(self.folder / "logs"),
            "network.host": HOST,
            "http.port": str(self.port),
            "transport.port": "0",
            "discovery.type": "single-node",
            # A laptop's disk is often nine tenths full, at which an index would get no shards.
            "cluster.routing.allocation.disk.threshold_enabled": "false",
            **self.settings,
        }
        if "discovery.seed_hosts" in settings:
            del settings["discovery.type"]
        return [f"-E{name}={value}" for name, value in settings.items()]


def _class_path(server: Path) -> str:
    # The server's own classes ask for the policy that the agent's first jar holds, agent or not.
    (policy,) = (server / "agent").glob("opensearch-agent-bootstrap-*.jar")
    return os.pathsep.join((str(server / "lib" / "*"), str(server / "icu" / "*"), str(policy)))


def claim(folder: Path, version: str) -> int:
    """Make or enter a node's folder and lock it; return the lock's file descriptor.

    Raises ConfigError for a folder that is not a node's or of another version, IndexFailure for one
    whose node runs.
    """
    if sys.platform == "win32":
        raise ConfigError("a development node runs on Linux and macOS, this is Windows: use WSL")
    import fcntl

    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file, expected a folder for a node")
    if folder.is_dir() and not (folder / MARK).exists() and any(folder.iterdir()):
        raise ConfigError(
            f"{folder} holds other things, expected an empty folder or one of a node: "
            "name another folder"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Not filelock: the server and its watcher inherit this descriptor, and with it the lock.
        lock = os.open(folder / MARK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    except OSError as error:
        raise ConfigError(f"{folder} cannot be a node's folder: {error.strerror}") from None
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            user = _noted(lock)
            raise IndexFailure(
                f"{folder} is in use by a running node"
                + (f" (pid {user['pid']}, {user['url']})" if "pid" in user else "")
                + ": stop that one, or name another folder"
            ) from None
        made_by = _noted(lock).get("version", version)
        if made_by != version:
            raise ConfigError(
                f"{folder} holds data of OpenSearch {made_by}, expected {version}: "
                "name another folder, or delete this one"
            )
    except BaseException:
        os.close(lock)
        raise
    return lock


def note(lock: int, version: str, pid: int, url: str) -> None:
    """Write into the locked file who uses the folder."""
    text = json.dumps({"version": version, "pid": pid, "url": url}).encode()
    os.ftruncate(lock, 0)
    os.pwrite(lock, text, 0)


def _noted(lock: int) -> dict[str, str | int]:
    try:
        noted = json.loads(os.pread(lock, 4096, 0))
    except ValueError:  # empty: the folder is new, or its first start was killed
        return {}
    return noted if isinstance(noted, dict) else {}


def why_it_died(log: Path) -> str:
    """The line of a server's output that says best why it ended: the innermost cause."""
    lines = log.read_text("utf-8", "replace").splitlines() if log.exists() else []
    said = [line.strip() for line in lines if line.strip() and not line.startswith("\t")]
    causes = [line.removeprefix("Caused by: ") for line in said if line.startswith("Caused by: ")]
    errors = [line for line in said if "Exception: " in line or re.match(r"\S*Error\b", line)]
    best = (causes[-1:] or errors[:1] or said[-1:] or ["it printed nothing"])[0]
    return best if len(best) <= 300 else best[:297] + "..."
