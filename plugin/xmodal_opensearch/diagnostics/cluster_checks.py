"""Checks of the cluster: shards, disks, limits, and the memory of the hamming plugin."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from xmodal_opensearch.diagnostics.findings import Finding, Subject
from xmodal_opensearch.index.capabilities import HAMMING, probe
from xmodal_opensearch.index.mapping import RESERVED_FIELDS
from xmodal_opensearch.index.templates import is_true
from xmodal_opensearch.rest.cluster_settings import effective_settings

DISK = "cluster.routing.allocation.disk"
WATERMARKS = {
    "flood_stage": "the server blocks writing to every index that has a shard there",
    "high": "the server moves shards away",
    "low": "no new shards are placed there",
}
"""Watermarks of disks from the fullest, and their effects."""
UNITS = {"b": 1, "kb": 1 << 10, "mb": 1 << 20, "gb": 1 << 30, "tb": 1 << 40, "pb": 1 << 50}
MIN_BUCKETS = 2_200
"""Buckets of the facets of an index: 100 fields with 21 values, and some more."""
MIN_KEEP_ALIVE = 600
"""Seconds for which paging keeps a point in time."""
SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}


def check_health(subject: Subject) -> Iterator[Finding]:
    """Shards without an active copy, or with fewer copies than wanted."""
    names = ",".join(subject.indexes)
    health = subject.server.request("GET", f"/_cluster/health/{names}", doing="reading the health")
    status, count = health["status"], health["unassigned_shards"]
    if status in ("red", "yellow"):
        yield Finding(
            f"health-{status}",
            f"{names} is {status}, {count} shards are not assigned",
            "searches fail" if status == "red" else "a lost node loses documents",
            subject.curl.command("GET", "/_cluster/allocation/explain"),
        )
    for name, content in subject.indexes.items():
        replicas = content["settings"].get("index.number_of_replicas")
        if replicas == "0" and health["number_of_data_nodes"] > 1:
            expand = {"index.auto_expand_replicas": "0-1"}
            yield Finding(
                "no-replicas",
                f"{name} has no replicas on {health['number_of_data_nodes']} nodes",
                "a lost node loses documents",
                f"if this is not wanted: {subject.set_command(name, expand)}",
                is_wrong=False,
            )


def check_disk(subject: Subject) -> Iterator[Finding]:
    """Nodes whose disks are filled beyond a watermark."""
    settings = _settings(subject)
    if not is_true(settings.get(f"{DISK}.threshold_enabled", "true")):
        return
    shown = "nodes.*.name,nodes.*.fs.total"
    answer = subject.server.request(
        "GET", "/_nodes/stats/fs", doing="reading the free space", filter_path=shown
    )
    for node in answer.get("nodes", {}).values():
        total = node["fs"]["total"]["total_in_bytes"]
        free = node["fs"]["total"]["available_in_bytes"]
        for name, effect in WATERMARKS.items():
            limit = settings.get(f"{DISK}.watermark.{name}")
            if limit is not None and free < required_free(str(limit), total):
                yield Finding(
                    "disk",
                    f"{free / total:.0%} of the disk of node {node['name']} are free, beyond the "
                    f"{name} watermark ({limit})",
                    effect,
                    "free disk space, or add a node",
                )
                break


def check_limits(subject: Subject) -> Iterator[Finding]:
    """Cluster settings that refuse requests of this program, or cut them short."""
    settings = _settings(subject)

    def reset(name: str) -> str:
        body = {"persistent": {name: None}, "transient": {name: None}}
        return subject.curl.command("PUT", "/_cluster/settings", body)

    for name in ("cluster.blocks.read_only", "cluster.blocks.read_only_allow_delete"):
        if is_true(settings.get(name)):
            meaning = "no index accepts documents"
            yield Finding("cluster-block", f"the cluster has {name}", meaning, reset(name))
    name = "cluster.blocks.create_index"
    if is_true(settings.get(name)):
        meaning = "no index can be created, as when the disks are full"
        yield Finding("cluster-block", f"the cluster has {name}", meaning, reset(name))
    for name, wanted, meaning in (
        ("search.max_buckets", MIN_BUCKETS, "the filters of the search page may be refused"),
        ("point_in_time.max_keep_alive", MIN_KEEP_ALIVE, "paging is refused"),
    ):
        value = settings.get(name)
        if value is not None and to_number(str(value)) < wanted:
            yield Finding("limit", f"{name} is {value}", meaning, reset(name))
    name = "search.default_search_timeout"
    value = settings.get(name, "-1")
    if to_number(str(value)) > 0:
        meaning = "a search that takes longer is an error"
        yield Finding("limit", f"{name} is {value}", meaning, reset(name), is_wrong=False)
    name = "search.allow_expensive_queries"
    if str(settings.get(name)).lower() == "false":
        meaning = "only the strategies hamming and knn work, without several codes a document"
        yield Finding("limit", f"{name} is false", meaning, reset(name), is_wrong=False)


def check_plugin(subject: Subject) -> Iterator[Finding]:
    """Codes in the memory of the hamming plugin whose segments do not exist any more."""
    if HAMMING not in (probe(subject.server).plugins or ()):
        return
    request = subject.server.request
    stats = request("GET", "/_plugins/_hamming/stats", doing="reading the plugin's memory")["nodes"]
    nodes = request(
        "GET",
        "/_nodes/stats/indices/segments",
        doing="counting segments",
        filter_path="nodes.*.indices.segments.count",
    )["nodes"]
    for id_, node in stats.items():
        segments = nodes.get(id_, {}).get("indices", {}).get("segments", {}).get("count")
        entries = node["cache_entries"]
        # Searches that run, and merges, keep segments open for a while.
        if segments is not None and entries > 2 * len(RESERVED_FIELDS) * (segments + 10):
            yield Finding(
                "plugin-memory",
                f"the hamming plugin holds {entries:,} columns on node {node['name']}, which has "
                f"{segments:,} segments",
                f"{node['size_in_bytes']:,} bytes are not released",
                "install the current plugin (xmodal-opensearch plugin build) and restart the node",
            )


def required_free(watermark: str, total: int) -> float:
    """Return the free bytes that a watermark requires: ``85%``, ``0.85`` used, or ``10gb`` free."""
    if watermark.endswith("%"):
        return total * (1 - float(watermark[:-1]) / 100)
    try:
        return total * (1 - float(watermark))
    except ValueError:
        return to_number(watermark)


def to_number(value: str) -> float:
    """Return a setting as a number: of bytes for ``10gb``, of seconds for ``5m``."""
    match = re.fullmatch(r"(-?[0-9.]+)\s*([a-z]*)", value.strip().lower())
    if match is None:
        return 0.0
    number, unit = float(match[1]), match[2]
    return number * (SECONDS | UNITS | {"": 1}).get(unit, 0)


def _settings(subject: Subject) -> Mapping[str, Any]:
    answer = subject.server.request(
        "GET",
        "/_cluster/settings",
        doing="reading cluster settings",
        include_defaults="true",
        flat_settings="true",
    )
    return effective_settings(answer)
