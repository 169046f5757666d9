"""Server plugin: reproducible builds, the check, and its use by an index."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xmodal.codes import BinaryCodes
from xmodal.errors import ConfigError, IndexFailure, IndexMissing
from xmodal_opensearch.client.address import parse_address
from xmodal_opensearch.client.server import Server
from xmodal_opensearch.diagnostics.measurements import diagnose
from xmodal_opensearch.index.store import open_opensearch
from xmodal_opensearch.loading.settling import settle
from xmodal_opensearch.server_plugin import build
from xmodal_opensearch.server_plugin.check import check

Cli = Callable[..., Any]


def opensearch(url: str) -> str:
    return url.replace("http://", "opensearch://")


def server_at(url: str) -> Server:
    return Server(parse_address(opensearch(url), index_needed=False))


def test_build_is_reproducible(node_parts: None, tmp_path: Path) -> None:
    first, second = tmp_path / "a.zip", tmp_path / "b" / "b.zip"
    digest = build.build("3.6.0", first)
    assert build.build("3.6.0", second) == digest
    assert first.read_bytes() == second.read_bytes()
    assert hashlib.sha256(first.read_bytes()).hexdigest() == digest
    with zipfile.ZipFile(first) as packed:
        jar, descriptor = sorted(packed.namelist())
        assert (jar, descriptor) == (
            f"opensearch-hamming-{build.plugin_version()}.jar",
            "plugin-descriptor.properties",
        )
        text = packed.read(descriptor).decode()
        classes = zipfile.ZipFile(packed.open(jar)).namelist()
    assert "opensearch.version=3.6.0" in text
    assert f"version={build.plugin_version()}" in text
    assert "${" not in text
    assert "org/xmodal/hamming/HammingPlugin.class" in classes
    assert all(name.startswith("org/xmodal/hamming/") for name in classes)


def test_maven_project_has_the_version_of_the_descriptor() -> None:
    project = Path(build.__file__).with_name("java") / "pom.xml"
    assert f"<version>{build.plugin_version()}</version>" in project.read_text().split("<name>")[0]


@pytest.mark.parametrize(
    ("version", "words"),
    [
        ("2.18.0", r"2\.18\.0, expected 2\.19"),
        ("3.0.0", r"3\.0\.0, expected 2\.19"),
        ("latest", "server version is 'latest'"),
    ],
)
def test_build_refuses_other_versions(version: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=words):
        build.build(version, tmp_path / "x.zip")
    assert not (tmp_path / "x.zip").exists()


@pytest.mark.parametrize(
    ("version", "release", "lucene"),
    [("2.19.4", "17", 9), ("3.1.0", "21", 10), ("4.0.0", "21", 10)],
)
def test_build_selects_sources_and_java_of_a_version(
    version: str, release: str, lucene: int
) -> None:
    target = build.build_target(version)
    assert target.java_release == release
    versioned = [path for path in build.sources(target) if path.name == "Versioned.java"]
    assert [path.parts[-5] for path in versioned] == [f"lucene{lucene}"]


def test_build_of_invalid_sources_fails_in_one_line(
    node_parts: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "Broken.java"
    broken.write_text("package org.xmodal.hamming; class Broken extends NoSuchClass {}")
    monkeypatch.setattr(build, "sources", lambda target: [broken])
    with pytest.raises(IndexFailure, match="NoSuchClass") as failed:
        build.build("3.6.0", tmp_path / "x.zip")
    assert "\n" not in str(failed.value)
    assert not (tmp_path / "x.zip").exists()


def test_check_compares_with_numpy(plugin_url: str) -> None:
    lines = check(server_at(plugin_url))
    assert f"opensearch-hamming {build.plugin_version()} for OpenSearch 3.6.0" in lines[0]
    assert [line.split(":")[0] for line in lines[1:]] == ["64 bits", "72 bits", "256 bits"]


def test_check_without_the_plugin_names_the_build_command(node_url: str) -> None:
    with pytest.raises(IndexMissing, match=r"plugin build --server 3\.6\.0"):
        check(server_at(node_url))


def test_plugin_commands_build_and_check(
    opensearch_cli: Cli, plugin_url: str, node_url: str, tmp_path: Path
) -> None:
    out = tmp_path / "hamming.zip"
    built = opensearch_cli("plugin", "build", "--out", out)
    assert built.status == 0
    assert built.out.split() == [str(out), "sha256", hashlib.sha256(out.read_bytes()).hexdigest()]
    assert "opensearch-plugin install" in built.err
    checked = opensearch_cli("plugin", "check", opensearch(plugin_url))
    assert (checked.status, len(checked.out.splitlines())) == (0, 4)
    missing = opensearch_cli("plugin", "check", opensearch(node_url))
    assert missing.status == 2
    assert len(missing.err.splitlines()) == 1


def test_new_index_uses_the_plugin_and_doctor_compares_strategies(
    plugin_url: str, node_url: str
) -> None:
    rng = np.random.default_rng(5)
    codes = BinaryCodes(rng.integers(0, 256, (200, 8), dtype=np.uint8), 64)
    uri = f"{opensearch(plugin_url)}/default-strategy"
    with open_opensearch(uri, bits=64, create=True) as index:
        assert index.handle.strategy.name == "hamming"
        index.add([f"d{n:03d}" for n in range(200)], image=codes)
        assert settle(index) == 0
        report = diagnose(index)
        assert {latency.strategy for latency in report.latencies} == {"hamming", "script", "knn"}
    with open_opensearch(f"{uri}?strategy=script") as index:
        assert index.handle.strategy.name == "script"
    with (
        pytest.raises(ConfigError, match="plugin is not on every node"),
        open_opensearch(f"{opensearch(node_url)}/never?strategy=hamming", bits=64, create=True),
    ):
        pass


def test_plugin_searches_a_graph_field_exactly(plugin_url: str) -> None:
    rng = np.random.default_rng(6)
    codes = BinaryCodes(rng.integers(0, 256, (300, 8), dtype=np.uint8), 64)
    uri = f"{opensearch(plugin_url)}/graph"
    with open_opensearch(f"{uri}?strategy=lucene-hnsw", bits=64, create=True) as index:
        index.add([f"d{n:03d}" for n in range(300)], image=codes)
    with open_opensearch(uri) as index:
        assert (index.handle.strategy.name, index.handle.layout.name) == ("hamming", "lucene-hnsw")
        exact = index.search(codes[:3], 20, target="image")
        assert [hits[0].distance for hits in exact] == [0, 0, 0]
        assert index.search_approximate(codes[:3], 20, target="image").recall.value > 0.5
