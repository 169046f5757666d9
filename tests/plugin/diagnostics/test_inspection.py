"""Findings of doctor on a real node, each with its repair."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.filled import BITS, random_codes
from support.rest_path import curl

from xmodal.errors import IndexMissing, ServerFailure
from xmodal_opensearch.client.address import parse_address
from xmodal_opensearch.client.server import Server
from xmodal_opensearch.diagnostics import cluster_checks, inspection
from xmodal_opensearch.diagnostics.cluster_checks import required_free, to_number
from xmodal_opensearch.diagnostics.inspection import Inspection, inspect, repair
from xmodal_opensearch.index.store import OpenSearchIndex, open_opensearch
from xmodal_opensearch.loading.load import settings_for_loading
from xmodal_opensearch.loading.new_version import open_next_version

Address = Callable[..., str]
Rest = Callable[..., Any]


@pytest.fixture
def uri(address: Address) -> str:
    """The address of an index with three documents."""
    new = address()
    with open_opensearch(new, bits=BITS, fingerprint="e1", create=True) as index:
        index.add(["a", "b", "c"], image=random_codes(3))
    return new


def found(uri: str) -> Inspection:
    """Return the inspection of an address without findings about the disk of this machine."""
    address = parse_address(uri)
    server = Server(address)
    try:
        result = inspect(server, address)
    finally:
        server.close()
    result.findings = [one for one in result.findings if one.kind != "disk"]
    return result


def kinds(uri: str) -> list[str]:
    return [finding.kind for finding in found(uri).findings]


def index_of(uri: str) -> str:
    with open_opensearch(uri) as index:
        return index.handle.name


def test_nothing_is_found_in_a_new_index(uri: str) -> None:
    result = found(uri)
    assert (result.findings, result.not_checked, result.is_wrong) == ([], [], False)


def test_lost_self_test_document_and_settings_of_a_killed_load_are_repaired(
    uri: str, rest: Rest
) -> None:
    with open_opensearch(uri) as index, pytest.MonkeyPatch.context() as patch:
        name = index.handle.name
        patch.setattr("xmodal_opensearch.loading.load.restore_settings", lambda *_: False)
        with settings_for_loading(index):
            pass
    rest("DELETE", f"/{name}/_doc/xmodal-self-test?refresh=true")
    result = found(uri)
    assert [one.kind for one in result.findings] == ["self-test", "load-settings"]
    assert all(f"doctor {uri} --repair" in str(one) for one in result.findings)
    assert len(repair(result)) == 2
    assert kinds(uri) == []
    open_opensearch(uri).close()


def test_self_test_document_with_other_bits(uri: str, rest: Rest) -> None:
    other = {"self_test_code": [1] * (BITS // 8)}
    rest("PUT", f"/{index_of(uri)}/_doc/xmodal-self-test?refresh=true", other)
    (finding,) = found(uri).findings
    assert finding.kind == "self-test" and finding.fix is None


@pytest.mark.parametrize(
    ("settings", "kind", "wrong"),
    [
        ({"index.refresh_interval": "-1"}, "refresh-off", True),
        ({"index.blocks.write": True}, "block", True),
        ({"index.blocks.read_only_allow_delete": True}, "block", True),
        ({"index.default_pipeline": "absent"}, "missing-pipeline", True),
        ({"index.search.default_pipeline": "absent"}, "missing-pipeline", True),
        ({"index.max_result_window": 500}, "result-window", False),
    ],
)
def test_settings_are_found_and_their_commands_reset_them(
    uri: str, rest: Rest, settings: dict[str, Any], kind: str, wrong: bool
) -> None:
    name = index_of(uri)
    rest("PUT", f"/{name}/_settings", settings)
    (finding,) = found(uri).findings
    (setting,) = settings
    assert (finding.kind, finding.is_wrong, finding.fix) == (kind, wrong, None)
    assert setting.removeprefix("index.") in finding.found
    assert f"/{name}/_settings" in finding.repair and f'"{setting}": null' in finding.repair
    rest("PUT", f"/{name}/_settings", {setting: None})
    assert kinds(uri) == []


def test_a_closed_index(uri: str, rest: Rest) -> None:
    name = index_of(uri)
    rest("POST", f"/{name}/_close")
    assert "closed" in kinds(uri)
    rest("POST", f"/{name}/_open?wait_for_active_shards=1")
    assert kinds(uri) == []


def test_documents_of_other_encoders_and_without_id(uri: str, rest: Rest, tmp_path: Path) -> None:
    name = index_of(uri)
    code = random_codes(1).to_signed()[0]
    rest("PUT", f"/{name}/_doc/x?refresh=true", {"image_code": code})
    other = {"image_code": code, "xmodal": {"id": "y", "encoder": "e2"}}
    rest("PUT", f"/{name}/_doc/y?refresh=true", other)
    other_encoder, no_id = found(uri).findings
    assert other_encoder.kind == "other-encoder" and other_encoder.found.startswith("1 documents")
    assert no_id.kind == "no-id"
    assert curl(no_id.repair, tmp_path)["updated"] == 1
    assert kinds(uri) == ["other-encoder"]
    with open_opensearch(uri) as index:
        assert len(index) == 5


def test_versions_without_alias(uri: str, rest: Rest) -> None:
    address = parse_address(uri)
    first = index_of(uri)
    new = open_next_version(Server(address), address, BITS, "e2", "a.index")
    (finding,) = found(uri).findings
    assert finding.kind == "unfinished-version" and "a.index" in finding.found
    new.handle.write_meta({"xmodal_filled_from": None})
    assert kinds(uri) == ["half-made"]
    rest("POST", "/_aliases", {"actions": [
        {"remove": {"index": first, "alias": address.index}},
        {"add": {"index": new.handle.name, "alias": address.index}},
    ]})  # fmt: skip
    result = found(uri)
    assert [one.kind for one in result.findings] == ["old-version"] and not result.is_wrong
    assert f"delete {uri} --old-versions" in result.findings[0].repair
    rest("DELETE", f"/{new.handle.name}/_alias/{address.index}")
    assert sorted(kinds(uri)) == ["half-made", "old-version"]
    rest("DELETE", f"/{new.handle.name},{first}")
    with pytest.raises(IndexMissing):
        found(uri)


def test_a_mapping_without_meta(uri: str, rest: Rest) -> None:
    name = index_of(uri)
    rest("PUT", f"/{name}/_mapping", {"_meta": {}})
    (finding,) = found(uri).findings
    assert finding.kind == "mapping" and name in finding.found


def test_source_without_codes(address: Address, rest: Rest) -> None:
    uri = address()
    with open_opensearch(uri, bits=BITS, create=True) as index:
        mappings = rest("GET", f"/{index.handle.name}/_mapping")[index.handle.name]["mappings"]
        settings = {
            "index.knn": True,
            "index.knn.advanced.approximate_threshold": -1,
            "index.number_of_replicas": 0,
        }
    copy = parse_address(uri).index + "-copy"
    mappings["_source"] = {"excludes": ["image_code"]}
    rest("PUT", f"/{copy}", {"mappings": mappings, "settings": settings})
    other = uri.replace(parse_address(uri).index, copy)
    result = found(other)
    assert {one.kind for one in result.findings} == {"source", "self-test"}
    repair(result)
    assert kinds(other) == ["source"]


def test_shards_that_are_not_assigned(address: Address) -> None:
    uri = address(replicas="2")
    open_opensearch(uri, bits=BITS, create=True).close()
    (finding,) = found(uri).findings
    assert finding.kind == "health-yellow" and "_cluster/allocation/explain" in finding.repair


@contextmanager
def cluster_settings(rest: Rest, **values: Any) -> Iterator[None]:
    settings = {name.replace("__", "."): value for name, value in values.items()}
    rest("PUT", "/_cluster/settings", {"transient": settings})
    try:
        yield
    finally:
        rest("PUT", "/_cluster/settings", {"transient": dict.fromkeys(settings)})


@pytest.mark.parametrize(
    ("setting", "value", "wrong"),
    [
        ("search.max_buckets", 100, True),
        ("point_in_time.max_keep_alive", "6m", True),
        ("search.default_search_timeout", "20s", False),
        ("search.allow_expensive_queries", False, False),
        ("cluster.blocks.read_only_allow_delete", True, True),
        ("cluster.blocks.create_index", True, True),
    ],
)
def test_limits_of_the_cluster(uri: str, rest: Rest, setting: str, value: Any, wrong: bool) -> None:
    with cluster_settings(rest, **{setting.replace(".", "__"): value}):
        (finding,) = found(uri).findings
    assert setting in finding.found and setting in finding.repair and finding.is_wrong is wrong
    assert kinds(uri) == []


@pytest.mark.parametrize(
    ("free", "watermark"), [(3, "flood_stage"), (7, "high"), (12, "low"), (50, None)]
)
def test_disks_beyond_a_watermark(
    uri: str, monkeypatch: pytest.MonkeyPatch, free: int, watermark: str | None
) -> None:
    """The free space of the disk of the node is replaced; the settings are those of the server."""
    address = parse_address(uri)
    server = Server(address)
    real = server.request

    def request(method: str, path: str, *more: Any, **options: Any) -> Any:
        if path == "/_cluster/settings":
            settings = {"cluster.routing.allocation.disk.threshold_enabled": "true"}
            return real(method, path, *more, **options) | {"transient": settings}
        if path != "/_nodes/stats/fs":
            return real(method, path, *more, **options)
        total = {"total_in_bytes": 1000, "available_in_bytes": 10 * free}
        return {"nodes": {"n": {"name": "node-1", "fs": {"total": total}}}}

    monkeypatch.setattr(server, "request", request)
    findings = [one for one in inspect(server, address).findings if one.kind == "disk"]
    assert [f"the {watermark} watermark" in one.found for one in findings] == (
        [] if watermark is None else [True]
    )


@pytest.mark.parametrize(
    ("watermark", "free"), [("85%", 150), ("0.9", 100), ("2kb", 2048), ("0.5gb", 1 << 29)]
)
def test_watermarks_are_a_used_part_or_free_bytes(watermark: str, free: float) -> None:
    assert required_free(watermark, 1000) == pytest.approx(free)


@pytest.mark.parametrize(
    ("text", "number"), [("65535", 65535), ("-1", -1), ("90s", 90), ("2m", 120), ("x", 0)]
)
def test_settings_as_numbers(text: str, number: float) -> None:
    assert to_number(text) == number


# ---- users with few permissions, and the plugin ------------------------------------------------


def test_checks_that_the_user_may_not_run_are_listed(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(subject: Any) -> Iterator[Any]:
        permission = "cluster:monitor/state"
        raise ServerFailure("...", 403, "no permissions", permission=permission)
        yield

    def not_offered(subject: Any) -> Iterator[Any]:
        raise ServerFailure("...", 404, "")
        yield

    checks = inspection.CHECKS | {"disks": refused, "shards": not_offered}
    monkeypatch.setattr(inspection, "CHECKS", checks)
    result = found(uri)
    assert result.not_checked == [
        "shards: the server refuses this request",
        "disks: this user lacks cluster:monitor/state",
    ]
    assert not result.is_wrong


def test_columns_of_the_plugin_that_are_not_released(
    plugin_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = plugin_url.replace("http", "opensearch") + "/inspected"
    with open_opensearch(uri, bits=BITS, create=True) as index:
        index.add(["a"], image=random_codes(1))
        index.handle.refresh()
        index.search(random_codes(1), 1, target="image")
    assert "plugin-memory" not in kinds(uri)
    monkeypatch.setattr(cluster_checks, "RESERVED_FIELDS", ())
    (finding,) = [one for one in found(uri).findings if one.kind == "plugin-memory"]
    assert "columns on node" in finding.found


def test_an_index_that_cannot_be_opened_is_no_traceback(uri: str, rest: Rest) -> None:
    rest("DELETE", f"/{index_of(uri)}")
    with pytest.raises(IndexMissing, match="no index"):
        found(uri)


def test_repair_of_nothing(uri: str) -> None:
    assert repair(found(uri)) == []
    assert isinstance(open_opensearch(uri), OpenSearchIndex)
