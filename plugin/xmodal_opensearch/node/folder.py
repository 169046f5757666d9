"""Folder of a development node: its lock, its content, and the command that starts the server.

    node.json          server version, pid and URL of the last start; locked while the server or
                       its supervisor runs
    home/ config/      links to the unpacked server and plugins, replaced at every start
    data/ logs/ tmp/   written by the server
    security/          certificate and password of a node with security (see security.py)

Only data/, security/ and node.json are kept for the next start.
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
from xmodal.operating_system import is_root
from xmodal_opensearch.node import local_models, security
from xmodal_opensearch.node.artifacts import Show, part_folder, resolve_plugins
from xmodal_opensearch.node.java import needs_old_java, server_java

NODE_FILE = "node.json"
HOST = "127.0.0.1"
MAIN_CLASS = "org.opensearch.bootstrap.OpenSearch"
RESERVED_SETTINGS = ("http.port", "network.host", "node.name", "path.data", "path.logs")
HEAP_PATTERN = re.compile(r"[1-9][0-9]*[kmg]", re.IGNORECASE)

# The server refuses to run as root, the only user of many test containers. It reads the user id
# through JNA; these flags disable JNA.
ROOT_FLAGS = ("-Djna.nounpack=true", "-Djna.nosys=true", "-Djna.boot.library.path=/nonexistent")

OLD_FLAGS = ("-Djava.security.manager=allow",)  # OpenSearch 2.x
NEW_FLAGS = ("--enable-native-access=ALL-UNNAMED",)


@dataclass(frozen=True)
class NodeConfig:
    """Configuration of a node: its folder, port, server version, plugins and Java options."""

    folder: Path
    port: int
    version: str
    plugins: tuple[str, ...]
    extra_plugins: tuple[Path, ...]
    fast_start: bool
    heap: str
    settings: Mapping[str, str]
    name: str = "node-1"
    java: Path | None = None
    upgrade: bool = False
    local_models: bool = False

    @property
    def security(self) -> Path | None:
        """Folder of the certificate and password; None for a node without security."""
        return self.folder / security.FOLDER if security.PLUGIN in self.plugins else None

    def check(self) -> None:
        """Raise ConfigError for unknown plugins, reserved settings and other invalid values."""
        resolve_plugins(self.plugins, self.version)
        if self.local_models:
            local_models.check(self.version, self.plugins)
        if not HEAP_PATTERN.fullmatch(self.heap):
            raise ConfigError(f"heap is {self.heap!r}, expected a size such as 512m or 1g")
        if reserved := set(self.settings) & set(RESERVED_SETTINGS):
            raise ConfigError(
                f"settings contain {', '.join(sorted(reserved))}, expected none of "
                f"{', '.join(RESERVED_SETTINGS)}: the node sets these itself"
            )
        for folder in self.extra_plugins:
            if not (folder / "plugin-descriptor.properties").is_file():
                raise ConfigError(
                    f"{folder} is not a plugin of OpenSearch, expected a folder with "
                    "plugin-descriptor.properties"
                )

    def prepare(self, show: Show | None) -> list[str]:
        """Replace home/ and config/; return the command that starts the server.

        Raises ExtraMissing, IndexFailure (see ``part_folder``) and OSError.
        """
        java = server_java(self.version, self.java, show)
        server = part_folder("server", self.version, show)
        plugins = resolve_plugins(self.plugins, self.version)
        folders = {name: part_folder(name, self.version, show) for name in plugins}
        folders |= {path.name: path for path in self.extra_plugins}
        home, config = self.folder / "home", self.folder / "config"
        for old in (home, config):
            shutil.rmtree(old, ignore_errors=True)
            old.mkdir()
        for name in ("data", "logs", "tmp"):
            (self.folder / name).mkdir(exist_ok=True)
        (home / "plugins").mkdir()
        # The security manager of OpenSearch 2.x does not permit files outside the home folder.
        insert = shutil.copytree if needs_old_java(self.version) else os.symlink
        for name in ("lib", "modules"):
            insert(server / name, home / name)
        for name, path in folders.items():
            insert(path, home / "plugins" / name)
        flags = self._jvm_flags()
        if self.local_models:
            plugin = home / "plugins" / local_models.ML
            local_models.add_onnxruntime(plugin, self.version, show)
            flags.append(local_models.java_flag(self.version, show))
        shutil.copyfile(server / "config" / "log4j2.properties", config / "log4j2.properties")
        class_path = _class_path(server, part_folder("icu", self.version, show))
        (config / "opensearch.yml").touch()
        if self.security:
            plugin = folders[security.PLUGIN]
            security.prepare(self.security, config, plugin, java, class_path)
        return [
            str(java),
            *flags,
            "-cp",
            class_path,
            MAIN_CLASS,
            *self._settings(),
        ]

    def _jvm_flags(self) -> list[str]:
        return [
            f"-Xmx{self.heap}",
            *(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"] if self.fast_start else []),
            *(ROOT_FLAGS if is_root() else ()),
            *(OLD_FLAGS if needs_old_java(self.version) else NEW_FLAGS),
            # From here to java.awt.headless: flags of the official start script.
            "-Dlog4j.shutdownHookEnabled=false",  # otherwise the end of the server is not logged
            "-Dlog4j2.disable.jmx=true",
            "-Dio.netty.noUnsafe=true",
            "-Dio.netty.noKeySetOptimization=true",
            "-Dio.netty.recycler.maxCapacityPerThread=0",
            "-Dio.netty.allocator.numDirectArenas=0",
            "-XX:-OmitStackTraceInFastThrow",
            "-Xss1m",
            "-Dfile.encoding=UTF-8",
            "-Djava.awt.headless=true",
            "-Djava.locale.providers=SPI,CLDR",  # break iterators come from icu4j
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
            "path.repo": str(self.folder / "snapshots"),
            "network.host": HOST,
            "http.port": str(self.port),
            "transport.port": "0",
            "discovery.type": "single-node",
            # Otherwise no shards are allocated on a disk that is 90% full.
            "cluster.routing.allocation.disk.threshold_enabled": "false",
            **(local_models.SETTINGS if self.local_models else {}),
            **self.settings,
        }
        if "discovery.seed_hosts" in settings:
            del settings["discovery.type"]
        return [f"-E{name}={value}" for name, value in settings.items()]


def _class_path(server: Path, icu: Path) -> str:
    # Classes of OpenSearch 3 need the policy in the agent's jar, even without the agent.
    policy = (server / "agent").glob("opensearch-agent-bootstrap-*.jar")
    return os.pathsep.join((str(server / "lib" / "*"), str(icu / "*"), *map(str, policy)))


def lock_folder(folder: Path, version: str, upgrade: bool = False) -> int:
    """Make a node's folder if necessary and lock it; return the file descriptor of the lock.

    ``upgrade``: data of an older version may be opened, which that version cannot open afterwards.

    Raises ConfigError for a folder with other content or of another server version, IndexFailure
    for the folder of a running node.
    """
    if sys.platform == "win32":
        raise ConfigError("a development node runs on Linux and macOS, this is Windows: use WSL")
    import fcntl

    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file, expected a folder for a node")
    if folder.is_dir() and not (folder / NODE_FILE).exists() and any(folder.iterdir()):
        raise ConfigError(
            f"{folder} has other content, expected an empty folder or the folder of a node: "
            "pass another folder"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Not filelock: the server and its supervisor must inherit the descriptor of the lock.
        lock = os.open(folder / NODE_FILE, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    except OSError as error:
        raise ConfigError(f"{folder} cannot be a node's folder: {error.strerror}") from None
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            owner = read_node_file(lock)
            raise IndexFailure(
                f"{folder} is in use by a running node"
                + (f" (pid {owner['pid']}, {owner['url']})" if "pid" in owner else "")
                + ": stop that node, or pass another folder"
            ) from None
        data_version = read_node_file(lock).get("version", version)
        is_older = _numbers(data_version) < _numbers(version)
        if data_version != version and not (is_older and upgrade):
            raise ConfigError(
                f"{folder} has data of OpenSearch {data_version}, expected {version}: "
                + (
                    "pass another folder, or upgrade the data"
                    if is_older
                    else "pass another folder"
                )
            )
    except BaseException:
        os.close(lock)
        raise
    return lock


def _numbers(version: str | int) -> list[int]:
    return [int(number) for number in str(version).split(".")]


def write_node_file(lock: int, version: str, pid: int, url: str) -> None:
    """Write the version, process and URL of the node into the locked file."""
    text = json.dumps({"version": version, "pid": pid, "url": url}).encode()
    os.ftruncate(lock, 0)
    os.pwrite(lock, text, 0)


def read_node_file(lock: int) -> dict[str, str | int]:
    """Return the content of the locked file; empty for a new folder."""
    try:
        content = json.loads(os.pread(lock, 4096, 0))
    except ValueError:  # empty: no server was started in this folder
        return {}
    return content if isinstance(content, dict) else {}


def failure_reason(log: Path) -> str:
    """Return the line of a server's output with the innermost cause of its failure.

    At most 300 characters; the first error or the last line if there is no cause.
    """
    lines = log.read_text("utf-8", "replace").splitlines() if log.exists() else []
    output = [line.strip() for line in lines if line.strip() and not line.startswith("\t")]
    causes = [line.removeprefix("Caused by: ") for line in output if line.startswith("Caused by: ")]
    errors = [line for line in output if "Exception: " in line or re.match(r"\S*Error\b", line)]
    reason = (causes[-1:] or errors[:1] or output[-1:] or ["no output"])[0]
    return reason if len(reason) <= 300 else reason[:297] + "..."
