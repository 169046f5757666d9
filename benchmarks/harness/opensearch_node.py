"""Indices of random codes on an OpenSearch node, and the latency of searches in them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from xmodal.codes import BinaryCodes
from xmodal.index.documents import DocumentBatch
from xmodal.index.local import HammingIndex
from xmodal.modality import Modality
from xmodal_opensearch.index.store import OpenSearchIndex, open_opensearch
from xmodal_opensearch.loading.load import load
from xmodal_opensearch.node.process import Node

SEED = 0
K = 10
BATCH = 20_000
"""Documents that are generated at a time."""
TARGET: Modality = "image"
FILTER = {"part": 1}
"""A filter that matches half of the documents."""
Search = Callable[[BinaryCodes], object]
"""Searches with one code."""


def clustered(n: int, bits: int) -> BinaryCodes:
    """n random codes around n / 10 centres; each bit of a centre is flipped with p = 1/8."""
    rng = np.random.default_rng([SEED, n, bits])
    centres = rng.integers(0, 2, (max(1, n // 10), bits), dtype=np.uint8)
    out = np.empty((n, bits // 8), dtype=np.uint8)
    for start in range(0, n, BATCH):
        count = min(BATCH, n - start)
        chosen = centres[rng.integers(len(centres), size=count)]
        flipped = chosen ^ (rng.random((count, bits)) < 0.125)
        out[start : start + count] = np.packbits(flipped, axis=1)
    return BinaryCodes(out, bits)


def to_batches(codes: BinaryCodes) -> Iterator[DocumentBatch]:
    """Documents with an image code and the field of ``FILTER``."""
    for start in range(0, len(codes), BATCH):
        part = codes[start : start + BATCH]
        rows = range(start, start + len(part))
        yield DocumentBatch.of(
            [f"{n:08d}" for n in rows], image=part, fields=[{"part": n % 2} for n in rows]
        )


def filled_index(
    node: Node, strategy: str, codes: BinaryCodes, notes: Path
) -> tuple[OpenSearchIndex, float]:
    """A new index with all codes in one segment, and the seconds of loading and merging.

    ``notes``: folder of the loader's progress files.
    """
    name = f"bench-{strategy}-{codes.bits}-{len(codes)}"
    uri = f"opensearch://127.0.0.1:{node.port}/{name}?strategy={strategy}"
    index = open_opensearch(uri, bits=codes.bits, fingerprint="benchmark", create=True)
    started = time.perf_counter()
    load(index, to_batches(codes), checkpoints=notes, total=len(codes))
    index.handle.server.request(
        "POST",
        f"/{index.handle.name}/_forcemerge",
        doing="merging",
        timeout=3600,
        max_num_segments=1,
    )
    index.handle.refresh()
    return index, time.perf_counter() - started


def drop(index: OpenSearchIndex) -> None:
    """Delete the index and close its connection."""
    index.handle.server.request("DELETE", f"/{index.handle.name}", doing="deleting")
    index.handle.server.close()


def medians(searches: dict[str, Search], queries: BinaryCodes) -> dict[str, float]:
    """Median milliseconds of each search. All run in turn; the first fifth is not counted."""
    times: dict[str, list[float]] = {name: [] for name in searches}
    for number in range(len(queries)):
        for name, search in searches.items():
            query = queries[number : number + 1]
            started = time.perf_counter()
            search(query)
            if number >= len(queries) // 5:
                times[name].append(1e3 * (time.perf_counter() - started))
    return {name: statistics.median(values) for name, values in times.items()}


def exact_search(index: OpenSearchIndex | HammingIndex, where: dict[str, Any] | None) -> Search:
    """An exact search through the Python client."""
    return lambda query: index.search(query, K, target=TARGET, where=where)


def empty_request(index: OpenSearchIndex) -> Search:
    """A request that matches nothing: the cost of the connection."""
    nothing = {"size": 0, "query": {"match_none": {}}}
    return lambda query: index.handle.search([nothing])
