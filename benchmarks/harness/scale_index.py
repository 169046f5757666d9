"""Indexes of millions of random codes on one OpenSearch node, loaded once and kept in a folder.

Documents are deterministic: number, code by block, and a field that a tenth of them share. One
index is filled; at each size of the list it is cloned (by hard links, so that no document is loaded
twice) and the clone is merged to one segment. A complete clone is never loaded again.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np

from xmodal.codes import BinaryCodes
from xmodal_opensearch.client import bulk
from xmodal_opensearch.client.address import parse_address
from xmodal_opensearch.client.server import Server, is_retryable
from xmodal_opensearch.index.codec import to_json_arrays
from xmodal_opensearch.index.creation import make_version
from xmodal_opensearch.index.mapping import LAYOUTS
from xmodal_opensearch.node.process import Node

SEED = 23
BLOCK = 100_000
"""Documents that one process loads at a time."""
LINES = 5_000
"""Documents of one bulk request."""
FILTER = {"part": 1}
"""A filter that matches a tenth of the documents."""
FAST = {
    "index.refresh_interval": "-1",
    "index.translog.durability": "async",
    "index.translog.flush_threshold_size": "1gb",
}
"""Settings of the index that is filled. A crash loses documents of the last seconds: the fixture
checks the number of documents."""


@dataclass(frozen=True)
class Loaded:
    """One complete index. ``rate``: documents a second of the part that this size added."""

    name: str
    bits: int
    codes: int
    rate: float
    merge_seconds: float


def random_codes(bits: int, start: int, count: int) -> BinaryCodes:
    """Codes of the documents ``start`` to ``start + count``, inside one block."""
    rng = np.random.default_rng([SEED, bits, start // BLOCK])
    packed = rng.integers(0, 256, (BLOCK, bits // 8), dtype=np.uint8)
    return BinaryCodes(packed[start % BLOCK : start % BLOCK + count], bits)


def lines(bits: int, start: int, count: int) -> Iterator[bulk.Line]:
    """Bulk lines of these documents: id, code and the field of ``FILTER``."""
    signed = random_codes(bits, start, count).packed.view(np.int8)
    for number, code in zip(range(start, start + count), to_json_arrays(signed), strict=True):
        id_ = f"{number:08d}"
        source = f'{{"part":{number % 10},"xmodal":{{"id":"{id_}"}},"image_code":{code}}}'
        yield bulk.Line(id_, f'{{"index":{{"_id":"{id_}"}}}}\n{source}\n'.encode())


def load_block(uri: str, alias: str, bits: int, start: int, count: int) -> int:
    """Load documents of one block; return the start. Runs in a process of the pool."""
    server = Server(parse_address(uri))
    report = bulk.send(
        bulk.batches(lines(bits, start, count), max_lines=LINES),
        partial(server.bulk, alias, is_alias=True),
        is_retryable,
        workers=1,
        retry_timeout=600,
    )
    server.close()
    if report.stored != count:
        raise RuntimeError(f"{report.stored} of {count} documents stored: {report.failed}")
    return start


class Fixture:
    """The indexes of one width. ``folder`` has the progress; the documents are on the node.

    ``kind``: name of the filled index. Sizes that are added later to a kind must be larger.
    """

    def __init__(
        self, node: Node, folder: Path, bits: int, processes: int, kind: str = "filling"
    ) -> None:
        self.node, self.folder, self.bits, self.processes = node, folder, bits, processes
        self.base = f"{kind}-{bits}"
        self.uri = f"opensearch://127.0.0.1:{node.port}/{self.base}"
        self.server = Server(parse_address(self.uri))
        self.log = folder / f"{self.base}.txt"
        self.complete = folder / f"complete-{self.base}.json"

    def ensure(self, sizes: Sequence[int]) -> list[Loaded]:
        """Load what is missing and return all indexes, in the order of their sizes."""
        found = self.read()
        for before, size in pairwise([0, *sorted(sizes)]):
            if size not in found:
                rate = self.fill(before, size)
                found[size] = self.clone(size, rate)
                records = {str(key): vars(one) for key, one in found.items()}
                self.complete.write_text(json.dumps(records, indent=1))
        return [found[size] for size in sorted(sizes)]

    def read(self) -> dict[int, Loaded]:
        """The indexes that are complete."""
        if not self.complete.exists():
            return {}
        records = json.loads(self.complete.read_text())
        return {int(size): Loaded(**record) for size, record in records.items()}

    def fill(self, before: int, size: int) -> float:
        """Load documents ``before`` to ``size`` that are missing; return documents a second."""
        if not self.exists(self.base):
            self.log.unlink(missing_ok=True)
            self.create()
        self.request("PUT", f"/{self.base}/_settings", {"index.blocks.write": None})
        done = set(map(int, self.log.read_text().split())) if self.log.exists() else set()
        # Blocks in front of a clone that was loaded before this index was lost count, too.
        missing = [start for start in range(0, size, BLOCK) if start not in done]
        started, loaded = time.perf_counter(), 0
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(self.processes, mp_context=spawn) as pool:
            jobs = [
                pool.submit(
                    load_block, self.uri, self.base, self.bits, start, min(BLOCK, size - start)
                )
                for start in missing
            ]
            for job in as_completed(jobs):
                start = job.result()
                loaded += min(BLOCK, size - start)
                if size - start >= BLOCK:
                    with self.log.open("a") as file:
                        file.write(f"{start}\n")
                rate = loaded / (time.perf_counter() - started)
                print(
                    f"{self.bits} bits: {loaded:,} of {size - before:,}, {rate:,.0f}/s", flush=True
                )
        return loaded / (time.perf_counter() - started)

    def create(self) -> None:
        """Create the index that is filled."""
        fields = {"part": {"type": "keyword"}}
        address = parse_address(f"{self.uri}-index")
        name = make_version(
            self.server,
            address,
            self.bits,
            "benchmark",
            LAYOUTS["faiss"],
            alias=self.base,
            fields=fields,
        )
        self.request("PUT", f"/{name}/_settings", FAST)

    def clone(self, size: int, rate: float) -> Loaded:
        """Copy the filled index by hard links, and merge the copy to one segment."""
        (source,) = self.server.request("GET", f"/_alias/{self.base}", doing="reading an alias")
        name = f"codes-{self.bits}-{size}"
        if self.exists(name):
            self.request("DELETE", f"/{name}")
        self.request("POST", f"/{source}/_refresh")
        self.request("POST", f"/{source}/_flush")
        self.request("PUT", f"/{source}/_settings", {"index.blocks.write": True})
        settings = {"index.blocks.write": None, "index.refresh_interval": None}
        settings["index.number_of_replicas"] = "0"
        settings["index.auto_expand_replicas"] = "false"
        started = time.perf_counter()
        self.request("POST", f"/{source}/_clone/{name}", {"settings": settings})
        self.wait(name)
        self.request("POST", f"/{name}/_forcemerge", max_num_segments=1)
        self.request("POST", f"/{name}/_refresh")
        seconds = time.perf_counter() - started
        self.request("PUT", f"/{source}/_settings", {"index.blocks.write": None})
        count = self.server.count(name, {"exists": {"field": "image_code"}})
        if count != size:
            raise RuntimeError(
                f"{name} has {count:,} documents, expected {size:,}: delete {self.log}"
            )
        return Loaded(name, self.bits, size, rate, seconds)

    def wait(self, name: str) -> None:
        """Wait until the shards of an index are started."""
        while True:
            health = self.node.get(f"/_cluster/health/{name}?wait_for_status=yellow&timeout=5s")
            if health and not health["timed_out"]:
                return

    def exists(self, name: str) -> bool:
        """Whether an index or alias exists."""
        return self.node.get(f"/{name}/_settings") is not None

    def request(self, method: str, path: str, body: object = None, **params: object) -> object:
        """One request that may take an hour."""
        return self.server.request(method, path, body, doing=path, timeout=3600, **params)


def available_processors() -> int:
    """Processes for loading: all cores but one, at least one."""
    return max(1, (os.cpu_count() or 2) - 1)
