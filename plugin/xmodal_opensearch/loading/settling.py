"""Preparation of a loaded index for searches: segments are merged, codes are loaded into memory."""

from __future__ import annotations

from typing import Any

from xmodal.errors import IndexFailure
from xmodal_opensearch.client.errors import reason_of
from xmodal_opensearch.client.retry import poll
from xmodal_opensearch.index.store import OpenSearchIndex

POLL_INTERVAL = 0.5  # seconds between two requests while a merge runs
MERGE_TIMEOUT = 24 * 3600.0  # seconds
WARMUP_TIMEOUT = 3600.0  # seconds


def settle(index: OpenSearchIndex) -> int:
    """Merge each shard to one segment, and load its codes if the hamming plugin is there.

    Return the number of fields and segments whose codes do not fit into the plugin's cache. The
    merge is a task of the server, which goes on if this process ends. Raises ServerFailure, for
    example if the user may not merge or read tasks, and IndexFailure for a merge that failed.
    """
    _merge(index)
    index.handle.refresh_always()
    if not index.handle.capabilities.hamming:
        return 0
    answer = index.handle.server.request(
        "POST",
        f"/_plugins/_hamming/warmup/{index.handle.name}",
        doing="loading the codes into memory",
        timeout=WARMUP_TIMEOUT,
    )
    return int(answer["refused_by_breaker"])


def _merge(index: OpenSearchIndex) -> None:
    """Run a merge on the server and wait for its end."""
    server, doing = index.handle.server, "merging segments"
    task = server.request(
        "POST",
        f"/{index.handle.name}/_forcemerge",
        doing=doing,
        max_num_segments=1,
        wait_for_completion="false",
    )["task"]
    retry = poll(MERGE_TIMEOUT, POLL_INTERVAL)
    while not (found := server.request("GET", f"/_tasks/{task}", doing=doing))["completed"]:
        if not retry.wait():
            raise IndexFailure(
                f"{index.handle.address}: task {task} still merges segments after "
                f"{MERGE_TIMEOUT / 3600:g} hours: wait for it with GET /_tasks/{task}"
            )
    failed = _failure(found)
    if failed:
        raise IndexFailure(
            f"{index.handle.address}: merging segments failed ({failed}): the documents are "
            "stored; free disk space, and run the same command again"
        )


def _failure(task: dict[str, Any]) -> str:
    """Return the reason of a task that failed, or ""."""
    failures = task.get("response", {}).get("_shards", {}).get("failures", [])
    for one in [task, *failures]:
        if "error" in one or "reason" in one:
            return reason_of(one) or str(one.get("error", one.get("reason")))[:200]
    return ""
