"""The server's plugin (the hamming query): compiled here, for the exact version of a server.

A plugin works in one version of the server only. So its Java sources are part of this package, and
ecj (a compiler in one jar) compiles them in a second or two against that version's own classes, on
the Java runtime that is a pip package: no JDK, no Maven.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path

from xmodal import __version__
from xmodal.errors import ConfigError, ExtraMissing, IndexFailure
from xmodal_opensearch.node.artifacts import (
    VERSION,
    Show,
    cache_folder,
    known_versions,
    unpacked,
    unzip,
)
from xmodal_opensearch.node.artifacts import java as java_of

NAME = "opensearch-hamming"
EPOCH = (1980, 1, 1, 0, 0, 0)
OLDEST = (3, 1)
RELEASE = "21"


def build(version: str, out: Path, *, show: Show | None = None) -> str:
    """Compile and pack the plugin for a server's version into the zip ``out``; return its sha256.

    The same sources and version give the same bytes. Raises ConfigError for a version that is not
    one of the 3.x line, IndexFailure if its jars cannot be had or the sources do not fit them.
    """
    say = show or (lambda message: None)
    _check_version(version)
    jars = server_jars(version, say)
    with tempfile.TemporaryDirectory(prefix="xmodal-") as folder:
        classes = Path(folder, "classes")
        say(f"compiling for OpenSearch {version}")
        _compile(jars, classes, say)
        jar = Path(folder, f"{NAME}-{__version__}.jar")
        _pack(jar, [(str(path.relative_to(classes)), path) for path in classes.rglob("*.class")])
        descriptor = Path(folder, "plugin-descriptor.properties")
        descriptor.write_text(_descriptor(version), encoding="utf-8")
        new = Path(folder, "plugin.zip")
        _pack(new, [(jar.name, jar), (descriptor.name, descriptor)])
        out.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(new, out)
    return hashlib.sha256(out.read_bytes()).hexdigest()


def plugin_folder(version: str = VERSION, show: Show | None = None) -> Path:
    """The plugin, unpacked for a development node; built when the sources are new."""
    digest = hashlib.sha256(_descriptor(version).encode())
    for path in sources():
        digest.update(path.read_bytes())
    base = cache_folder() / "opensearch" / version
    target = base / f"{NAME}-{digest.hexdigest()[:12]}"
    if not target.is_dir():
        base.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".xmodal-", dir=base) as folder:
            packed = Path(folder, "plugin.zip")
            build(version, packed, show=show)
            unzip(packed, Path(folder, "plugin"))
            try:
                Path(folder, "plugin").rename(target)
            except OSError:
                if not target.is_dir():  # else another process was first, with the same content
                    raise
    return target


def sources() -> list[Path]:
    """The Java files, in order."""
    return sorted(_home().joinpath("src", "main", "java").rglob("*.java"))


def server_jars(version: str, show: Show) -> list[Path]:
    """The classes of a server's version: of the unpacked node, or from the Maven repository."""
    if version in known_versions():
        return sorted((unpacked("server", version, show) / "lib").glob("*.jar"))
    try:
        from jgo.maven import Dependency, MavenContext
    except ImportError:
        raise ExtraMissing("compiling the plugin", "node") from None
    context = MavenContext(timeout=30)
    show(f"fetching the classes of OpenSearch {version}")
    try:
        server = context.project("org.opensearch", "opensearch").at_version(version).artifact()
        direct, others = context.resolver.resolve([Dependency(server)])
        found = []
        for one in [*direct, *others]:
            project = context.project(one.groupId, one.artifactId)
            artifact = project.at_version(one.version).artifact(packaging="jar")
            found.append(Path(artifact.resolve()))
    except (OSError, RuntimeError, AssertionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise IndexFailure(
            f"the classes of OpenSearch {version} could not be had ({reason}): is there such a "
            "version, and a network?"
        ) from None
    return found


def _compile(jars: Iterable[Path], classes: Path, show: Show) -> None:
    compiler = unpacked("ecj", VERSION, show)
    command = [
        str(java_of()),
        *("-jar", str(next(compiler.glob("*.jar")))),
        *("-source", RELEASE, "-target", RELEASE, "-encoding", "UTF-8", "-proc:none", "-nowarn"),
        *("-cp", os.pathsep.join(map(str, jars)), "-d", str(classes)),
        *map(str, sources()),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        first = next((n for n, line in enumerate(lines) if "ERROR" in line), 0)
        told = " ".join(" ".join(lines[first : first + 4]).split())[:400]
        raise IndexFailure(f"the plugin does not compile for this server: {told}")


def _pack(out: Path, members: Iterable[tuple[str, Path]]) -> None:
    """A zip that depends on its members' bytes alone: no times, no compression that may vary."""
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as packed:
        for name, path in sorted(members):
            info = zipfile.ZipInfo(name.replace(os.sep, "/"), EPOCH)
            info.external_attr = 0o644 << 16
            info.create_system = 3
            packed.writestr(info, path.read_bytes())


def _descriptor(version: str) -> str:
    text = _home().joinpath("plugin-descriptor.properties").read_text(encoding="utf-8")
    filled = text.replace("${project.version}", __version__)
    return filled.replace("${opensearch.version}", version)


def _home() -> Path:
    """The folder of the Java sources and of the descriptor."""
    return Path(str(files("xmodal_opensearch.server_plugin").joinpath("java")))


def _check_version(version: str) -> None:
    match = re.fullmatch(r"(\d+)\.(\d+)\.(\d+)", version)
    if match is None:
        raise ConfigError(f"server version is {version!r}, expected one such as {VERSION}")
    if (int(match[1]), int(match[2])) < OLDEST:
        raise ConfigError(
            f"the plugin is for OpenSearch 3.1 and later, not {version}: the stock ways work there"
        )
