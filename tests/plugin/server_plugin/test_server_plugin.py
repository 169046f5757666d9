"""The plugin is built from sources for an exact version, is found, and is taken by itself."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xmodal import __version__
from xmodal.codes import BinaryCodes
from xmodal.errors import ConfigError, IndexFailure, IndexMissing
from xmodal_opensearch.client.address import parse_address
from xmodal_opensearch.client.server import Server
from xmodal_opensearch.diagnostics import examine
from xmodal_opensearch.index.store import open_opensearch
from xmodal_opensearch.server_plugin import build
from xmodal_opensearch.server_plugin.check import check

Cli = Callable[..., Any]


def opensearch(url: str) -> str:
    return url.replace("http://", "opensearch://")


def server_at(url: str) -> Server:
    return Server(parse_address(opensearch(url), index_needed=False))


def test_two_builds_have_the_same_bytes(node_parts: None, tmp_path: Path) -> None:
    first, second = tmp_path / "a.zip", tmp_path / "b" / "b.zip"
    digest = build.build("3.6.0", first)
    assert build.build("3.6.0", second) == digest
    assert first.read_bytes() == second.read_bytes()
    assert hashlib.sha256(first.read_bytes()).hexdigest() == digest
    with zipfile.ZipFile(first) as packed:
        jar, descriptor = sorted(packed.namelist())
        assert (jar, descriptor) == (
            f"opensearch-hamming-{__version__}.jar",
            "plugin-descriptor.properties",
        )
        told = packed.read(descriptor).decode()
        classes = zipfile.ZipFile(packed.open(jar)).namelist()
    assert "opensearch.version=3.6.0" in told
    assert f"version={__version__}" in told
    assert "${" not in told
    assert "org/xmodal/hamming/HammingPlugin.class" in classes
    assert all(name.startswith("org/xmodal/hamming/") for name in classes)


@pytest.mark.parametrize(
    ("version", "words"),
    [
        ("2.19.1", "for OpenSearch 3.1 and later, not 2.19.1"),
        ("3.0.0", "for OpenSearch 3.1 and later, not 3.0.0"),
        ("latest", "server version is 'latest', expected one such as 3.6.0"),
    ],
)
def test_other_versions_are_refused(version: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=words):
        build.build(version, tmp_path / "x.zip")
    assert not (tmp_path / "x.zip").exists()


def test_sources_that_do_not_fit_are_one_line(
    node_parts: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "Broken.java"
    broken.write_text("package org.xmodal.hamming; class Broken extends NoSuchClass {}")
    monkeypatch.setattr(build, "sources", lambda: [broken])
    with pytest.raises(
        IndexFailure, match=r"does not compile for this server: .*NoSuchClass"
    ) as no:
        build.build("3.6.0", tmp_path / "x.zip")
    assert "\n" not in str(no.value)
    assert not (tmp_path / "x.zip").exists()


def test_the_check_compares_with_numpy(plugin_url: str) -> None:
    lines = check(server_at(plugin_url))
    assert f"opensearch-hamming {__version__} for OpenSearch 3.6.0" in lines[0]
    assert lines[1:] == [
        f"{bits} bits: 100 distances as numpy counts them" for bits in (64, 72, 256)
    ]


def test_without_the_plugin_the_check_says_how_to_get_it(node_url: str) -> None:
    with pytest.raises(IndexMissing, match=r"plugin build --server 3\.6\.0 --out"):
        check(server_at(node_url))


def test_the_commands_build_and_check(
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


def test_an_index_takes_the_plugin_by_itself_and_doctor_compares(
    plugin_url: str, node_url: str
) -> None:
    rng = np.random.default_rng(5)
    codes = BinaryCodes(rng.integers(0, 256, (200, 8), dtype=np.uint8), 64)
    uri = f"{opensearch(plugin_url)}/by-itself"
    with open_opensearch(uri, bits=64, create=True) as index:
        assert index.handle.strategy.name == "hamming"
        index.add([f"d{n:03d}" for n in range(200)], image=codes)
        found = examine(index)
        assert {one.way for one in found.latencies} == {"hamming", "script", "knn"}
    with open_opensearch(f"{uri}?strategy=script") as index:
        assert index.handle.strategy.name == "script"
    with (
        pytest.raises(ConfigError, match="hamming plugin is not on every node"),
        open_opensearch(f"{opensearch(node_url)}/never?strategy=hamming", bits=64, create=True),
    ):
        pass


def test_a_graph_is_searched_exactly_by_the_plugin(plugin_url: str) -> None:
    rng = np.random.default_rng(6)
    codes = BinaryCodes(rng.integers(0, 256, (300, 8), dtype=np.uint8), 64)
    made = f"{opensearch(plugin_url)}/graph"
    with open_opensearch(f"{made}?strategy=lucene-hnsw", bits=64, create=True) as index:
        index.add([f"d{n:03d}" for n in range(300)], image=codes)
    with open_opensearch(made) as index:
        assert (index.handle.strategy.name, index.handle.layout.name) == ("hamming", "lucene-hnsw")
        exact = index.search(codes[:3], 20, target="image")
        assert [hits[0].distance for hits in exact] == [0, 0, 0]
        assert index.search_approximate(codes[:3], 20, target="image").recall.value > 0.5
