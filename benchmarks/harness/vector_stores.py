"""Ways to store and to search pictures on an OpenSearch node: those of xmodal, and stock k-NN.

Stock fields are those of the engine Lucene: Faiss needs a native library that the development node
lacks. Also without that library, k-NN 3.6 searches 1-bit vectors only in files that are not mapped
to memory, hence ``niofs``.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from harness.picture_search import BITS, HAMMING, TWO_STAGES, WEIGHTED, Collection, K, Part
from xmodal_opensearch.client import bulk
from xmodal_opensearch.client.address import parse_address
from xmodal_opensearch.client.server import Server
from xmodal_opensearch.index.store import open_opensearch
from xmodal_opensearch.loading.load import load
from xmodal_opensearch.node.process import Node

WINDOW = 300
BATCH = 50
"""Searches of one request, except where time is measured."""
COSINE = {"space_type": "cosinesimil"}
ON_DISK = {"mode": "on_disk", "compression_level": "32x"}
WITHOUT_RESCORING = {"rescore": False}
NIO = {"index.store.type": "niofs"}
Ids = list[list[str]]
Body = dict[str, Any]


@dataclass(frozen=True)
class Files:
    """Size of an index, in bytes a document, and documents that are loaded in a CPU second.

    ``hot``: what every search reads: the cache of the hamming plugin, or the files of the graph and
    of the vectors that it compares. ``disk``: the whole index after the merge.
    """

    hot: float
    disk: float
    load: float


class Store:
    """One index on a node. ``searches``: request body of a query by number, by name of the row."""

    name: str
    searches: Mapping[str, Callable[[int], Body]]

    def __init__(self, node: Node, given: Collection, name: str) -> None:
        self.node, self.given, self.index = node, given, name
        self.server = Server(parse_address(f"opensearch://127.0.0.1:{node.port}/{name}"))

    def fill(self, parts: Iterable[Part]) -> None:
        """Store documents; each part becomes one segment or more."""
        raise NotImplementedError

    def ids(self, row: str) -> Ids:
        """Return the ids of the best ``K`` documents of every query."""
        raise NotImplementedError

    def hot(self) -> float:
        """Return the bytes that every search reads."""
        raise NotImplementedError

    def merge(self) -> None:
        """Merge all segments of a shard to one."""
        path = f"/{self.index}/_forcemerge"
        self.server.request("POST", path, doing="merging", timeout=3600, max_num_segments=1)
        self.server.request("POST", f"/{self.index}/_refresh", doing="refreshing")

    def measured(self, parts: Iterable[Part], count: int) -> Files:
        """Store and merge ``count`` documents; return the sizes."""
        started = processor_seconds(self.node)
        self.fill(parts)
        self.merge()
        seconds = processor_seconds(self.node) - started
        stats = self.server.request("GET", f"/{self.index}/_stats/store", doing="reading sizes")
        disk = stats["_all"]["primaries"]["store"]["size_in_bytes"]
        return Files(self.hot() / count, disk / count, count / seconds)

    def search(self, row: str, number: int) -> Any:
        """Send one query."""
        body = self.searches[row](number)
        return self.server.search(f"/{self.index}/_search", body, doing="searching")

    def drop(self) -> None:
        """Delete the index and close the connection."""
        self.server.request("DELETE", f"/{self.index}", doing="deleting")
        self.server.close()


class Own(Store):
    """Codes, with or without int8 vectors; searched through the Python index, timed as requests."""

    def __init__(
        self, node: Node, given: Collection, *, vectors: bool, shards: int = 1, notes: Path
    ) -> None:
        self.vectors, self.notes = vectors, notes
        self.name = "codes and int8 vectors" if vectors else "codes"
        name = f"own-{'vectors' if vectors else 'codes'}-{shards}"
        super().__init__(node, given, name)
        uri = f"opensearch://127.0.0.1:{node.port}/{name}?strategy=hamming&shards={shards}"
        self.opened = open_opensearch(uri, bits=BITS, fingerprint="benchmark", create=True)
        self.index = self.opened.handle.name
        self.searches = {
            HAMMING: lambda row: ranked(self._hamming(row, weights=False)),
            WEIGHTED: lambda row: ranked(self._hamming(row, weights=True)),
        }
        if vectors:
            self.searches = {**self.searches, TWO_STAGES: self._two_stage}

    def fill(self, parts: Iterable[Part]) -> None:
        """Store documents by the loader."""
        for part in parts:
            load(self.opened, [part.batch(vectors=self.vectors)], checkpoints=self.notes)

    def ids(self, row: str) -> Ids:
        """Return the ids of the best ``K`` documents of every query."""
        queries = self.given.queries_of(row)
        found: Ids = []
        for start in range(0, len(queries), BATCH):
            part = queries[start : start + BATCH]
            found += [[h.id for h in hits] for hits in self.opened.search(part, K, target="image")]
        return found

    def call(self, row: str, number: int) -> object:
        """Search one query by the Python index."""
        query = self.given.queries_of(row)[number : number + 1]
        return self.opened.search(query, K, target="image")

    def hot(self) -> float:
        """Return the bytes of the codes in the cache of the plugin."""
        before = cache_bytes(self.node)
        path = f"/_plugins/_hamming/warmup/{self.index}"
        self.server.request("POST", path, doing="warming up", fields="image_code")
        return cache_bytes(self.node) - before

    def drop(self) -> None:
        """Delete the index and close the connections."""
        super().drop()
        self.opened.handle.server.close()

    def _hamming(self, number: int, *, weights: bool) -> Body:
        queries = self.given.queries
        body: Body = {"field": "image_code", "code": queries.codes[number : number + 1].to_hex()[0]}
        if weights:
            assert queries.weights is not None
            body["weights"] = "".join(f"{weight:x}" for weight in queries.weights[number])
        return {"hamming": body}

    def _two_stage(self, number: int) -> Body:
        assert self.given.queries.vectors is not None
        vector = b64encode(self.given.queries.vectors[number].tobytes()).decode()
        return ranked(
            {
                "two_stage": {
                    "first": self._hamming(number, weights=True),
                    "second": {"vector_cosine": {"field": "image_vector", "vector": vector}},
                    "window": WINDOW,
                }
            }
        )


@dataclass(frozen=True)
class Field:
    """A stock field of float vectors.

    ``files``: endings of the files that every search reads. ``rows``: options of the query by name
    of the row.
    """

    mapping: Body
    files: tuple[str, ...]
    rows: Mapping[str, Body]
    settings: Body = field(default_factory=dict)


def hnsw(**options: Any) -> Body:
    """Return the mapping of a graph of the engine Lucene, with its default parameters."""
    return {**options, "method": {"name": "hnsw", "engine": "lucene", **COSINE}}


FIELDS = {
    "float": Field(hnsw(), (".vec", ".vex"), {"float, HNSW": {}}),
    "on-disk": Field(
        hnsw(**ON_DISK),
        (".veq", ".vex"),
        {"on_disk 32x, HNSW": {}, "on_disk 32x, without rescoring": WITHOUT_RESCORING},
        NIO,
    ),
    "flat": Field(
        {"method": {"name": "flat", **COSINE}},
        (".veq",),
        {"flat, 1 bit": {}, "flat, without rescoring": WITHOUT_RESCORING},
        NIO,
    ),
}
"""The stock fields; all have the same float vectors."""


class Stock(Store):
    """Float vectors in a ``knn_vector`` field."""

    def __init__(self, node: Node, given: Collection, name: str, shards: int = 1) -> None:
        self.field, self.name = FIELDS[name], name
        super().__init__(node, given, f"stock-{name}-{shards}")
        vector = {"type": "knn_vector", "dimension": BITS, **self.field.mapping}
        settings = {
            "index.knn": True,
            "index.number_of_shards": shards,
            "index.number_of_replicas": 0,
            "index.refresh_interval": "-1",
            **self.field.settings,
        }
        body = {"settings": settings, "mappings": {"properties": {"vector": vector}}}
        self.server.request("PUT", f"/{self.index}", body, doing="creating")
        self.searches = {
            row: lambda number, options=options: self._nearest(number, options)
            for row, options in self.field.rows.items()
        }

    def fill(self, parts: Iterable[Part]) -> None:
        """Store documents by bulk requests."""
        for part in parts:
            for batch in bulk.batches(vector_lines(part)):
                body = b"".join(line.body for line in batch)
                answer = self.server.bulk(self.index, body, timeout=600)
                assert not answer["errors"], answer
            self.server.request("POST", f"/{self.index}/_refresh", doing="refreshing")

    def ids(self, row: str) -> Ids:
        """Return the ids of the best ``K`` documents of every query."""
        found: Ids = []
        for start in range(0, len(self.given.floats), BATCH):
            numbers = range(start, min(start + BATCH, len(self.given.floats)))
            bodies = [self.searches[row](number) for number in numbers]
            answers = self.server.search_many(self.index, bodies, doing="searching")
            found += [[hit["_id"] for hit in answer["hits"]["hits"]] for answer in answers]
        return found

    def hot(self) -> float:
        """Return the bytes of the files that every search reads."""
        (settings,) = self.server.request(
            "GET", f"/{self.index}/_settings", doing="reading settings"
        ).values()
        uuid = settings["settings"]["index"]["uuid"]
        files = self.node.folder.glob(f"data/**/{uuid}/*/index/*")
        return sum(path.stat().st_size for path in files if path.suffix in self.field.files)

    def _nearest(self, number: int, options: Body) -> Body:
        vector = self.given.floats[number].tolist()
        query = {"knn": {"vector": {"vector": vector, "k": K, **options}}}
        return {"size": K, "_source": False, "query": query}


def ranked(query: Body) -> Body:
    """Return the search of a query with the tie rule of xmodal."""
    sort = [{"_score": "desc"}, {"xmodal.id": "asc"}]
    return {"size": K, "_source": False, "track_total_hits": False, "query": query, "sort": sort}


def vector_lines(part: Part) -> Iterator[bulk.Line]:
    """Yield the bulk lines of documents with float vectors of six decimals."""
    values = np.round(part.floats.astype(np.float64), 6)
    for id_, vector in zip(part.ids, values, strict=True):
        head = json.dumps({"index": {"_id": id_}})
        source = json.dumps({"vector": vector.tolist()}, separators=(",", ":"))
        yield bulk.Line(id_, f"{head}\n{source}\n".encode())


def cache_bytes(node: Node) -> int:
    """Return the size of the plugin's cache of codes."""
    (stats,) = node.get("/_plugins/_hamming/stats")["nodes"].values()
    return int(stats["size_in_bytes"])


def processor_seconds(node: Node) -> float:
    """Return the CPU seconds that the server has used."""
    times = Path(f"/proc/{node.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(times[11]) + int(times[12])) / os.sysconf("SC_CLK_TCK")


Times = dict[str, list[float]]


def timed(searches: Mapping[str, Callable[[int], object]], rounds: int) -> Times:
    """Return the milliseconds of single searches, all in turn; the first fifth is not counted."""
    times: Times = {name: [] for name in searches}
    for number in range(rounds):
        for name, search in searches.items():
            started = time.perf_counter()
            search(number)
            if number >= rounds // 5:
                times[name].append(1e3 * (time.perf_counter() - started))
    return times


def middle(times: Sequence[float]) -> float:
    """Return the median."""
    return statistics.median(times)


def slow(times: Sequence[float]) -> float:
    """Return the 95th percentile."""
    return float(np.percentile(times, 95))
