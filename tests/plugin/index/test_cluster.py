"""Cluster of three nodes: the loss of a node loses no documents and gives no wrong hits."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import cycle
from pathlib import Path
from typing import Any
from urllib.parse import quote
from urllib.request import Request, urlopen

import numpy as np
import pytest
from support.filled import BITS, batch, random_codes

from xmodal.errors import IndexFailure
from xmodal.index.contract import WordsQuery
from xmodal.index.documents import DocumentBatch
from xmodal.modality import MODALITIES
from xmodal_opensearch.client.server import Server
from xmodal_opensearch.index.store import OpenSearchIndex, open_opensearch
from xmodal_opensearch.loading.load import load
from xmodal_opensearch.node.process import Node, start_cluster
from xmodal_opensearch.server_plugin.build import plugin_folder

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("node_parts")]


@pytest.fixture(scope="module")
def cluster(node_parts: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Node]]:
    """Three nodes; a test that stops one restarts it."""
    plugin = plugin_folder()
    nodes = start_cluster(
        tmp_path_factory.mktemp("cluster"), 3, heap="384m", extra_plugins=[plugin]
    )
    try:
        yield nodes
    finally:
        for node in nodes:
            node.stop()


def put(url: str, body: dict[str, Any]) -> Any:
    """Send PUT and return the decoded answer."""
    head = {"Content-Type": "application/json"}
    request = Request(url, json.dumps(body).encode(), headers=head, method="PUT")
    with urlopen(request, timeout=30) as answer:
        return json.load(answer)


def wait_for_green(nodes: list[Node], index: str) -> None:
    for node in nodes:
        health = node.get(f"/_cluster/health/{index}?wait_for_status=green&timeout=50s", 60)
        assert health is not None and health["timed_out"] is False, health


def test_cluster_survives_the_loss_of_a_node(cluster: list[Node]) -> None:
    lost, *others = cluster
    assert lost.get("/_cluster/health")["number_of_nodes"] == 3
    put(f"{lost.url}/things", {"settings": {"number_of_shards": 3, "number_of_replicas": 1}})
    put(f"{lost.url}/things/_doc/1?refresh=true", {"colour": "red"})
    wait_for_green(cluster, "things")

    lost.kill()
    for node in others:
        node.wait(30, nodes=2)
        found = node.get("/things/_search?q=red")
        assert found["hits"]["total"]["value"] == 1
        assert found["_shards"]["failed"] == 0

    lost.restart()
    lost.wait(30, nodes=3)


def test_search_over_shards_equals_numpy(cluster: list[Node], tmp_path: Path) -> None:
    hosts = ",".join(f"127.0.0.1:{node.port}" for node in cluster)
    stored = batch(1500, seed=5, name="spread")
    queries = random_codes(3, 78)
    ids, distances = np.array(stored.ids), queries.distances(stored.codes("image")[1])
    uri = f"opensearch://{hosts}/spread?shards=3&replicas=1"
    with open_opensearch(uri, bits=BITS, create=True) as index:
        assert index.handle.strategy.name == "hamming"
        load(index, [stored], checkpoints=tmp_path)
        wait_for_green(cluster, "spread")
        for radius in (None, 20):
            found = index.search(queries, 400, target="image", radius=radius)
            for hits, line in zip(found, distances, strict=True):
                order = [
                    row for row in np.lexsort((ids, line))[:400] if line[row] <= (radius or BITS)
                ]
                assert [(hit.id, hit.distance) for hit in hits] == [
                    (ids[row], line[row]) for row in order
                ]
    nodes = cluster[0].get("/_plugins/_hamming/stats")["nodes"]
    assert len(nodes) == 3
    assert sum(node["cache_entries"] for node in nodes.values()) >= 3


@pytest.fixture
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server waits two seconds for the shard of a write, in place of a minute."""
    send = Server._send

    def send_with_limit(
        self: Server, method: str, path: str, body: Any, timeout: float, params: Any = None
    ) -> Any:
        limit = {"timeout": "2s"} if path.endswith("/_bulk") else {}
        return send(self, method, path, body, timeout, {**(params or {}), **limit})

    monkeypatch.setattr(Server, "_send", send_with_limit)


@pytest.mark.usefixtures("short_waits")
def test_index_without_one_of_its_shards_answers_nothing(
    cluster: list[Node], tmp_path: Path
) -> None:
    """No replica: with a lost node, every operation that needs its shard is an error."""
    stored, query = batch(300, seed=3, name="half"), random_codes(1, 70)
    ids = stored.ids
    hosts = ",".join(f"127.0.0.1:{node.port}" for node in cluster[:2])
    uri = f"opensearch://{hosts}/halved?shards=3&replicas=0"
    operations: list[Callable[[OpenSearchIndex], Any]] = [
        lambda index: index.search(query, 10, target="image"),
        lambda index: index.search(random_codes(3), 10, target="text"),
        lambda index: index.search(query, 300, target="image", radius=60),
        lambda index: index.search_words([WordsQuery("red")], 5, target="text"),
        lambda index: index.count("image"),
        len,
        lambda index: index.facets(),
        lambda index: index.count_codes(),
        lambda index: list(index.entries()),
        lambda index: index.explain(ids[0], query, target="image"),
        lambda index: index.get(ids).ids,
    ]
    with ExitStack() as stack:
        opened = [
            stack.enter_context(
                open_opensearch(f"{uri}&strategy={name}", bits=BITS, create=name == "hamming")
            )
            for name in ("hamming", "script", "knn")
        ]
        load(opened[0], [stored], checkpoints=tmp_path)
        expected = [operation(opened[0]) for operation in operations]
        for index in opened:
            assert [operation(index) for operation in operations] == expected
            index.handle.server.retry_timeout = 0.3
        cluster[2].kill()
        try:
            end = time.monotonic() + 60
            while cluster[0].get("/_cluster/health")["number_of_nodes"] > 2:
                assert time.monotonic() < end
                time.sleep(0.2)
            for index in opened:
                for operation in operations:
                    with pytest.raises(IndexFailure) as failed:
                        operation(index)
                    assert "\n" not in str(failed.value)
            with pytest.raises(IndexFailure):
                opened[0].delete(ids)
            opened[0].handle._unrefreshed = False
        finally:
            cluster[2].restart()
            cluster[2].wait(120, nodes=3)


def test_codes_are_released_on_the_node_that_a_shard_leaves(cluster: list[Node]) -> None:
    first = cluster[0]
    code = {"type": "knn_vector", "dimension": 16, "data_type": "binary", "space_type": "hamming"}
    settings = {"number_of_shards": 1, "number_of_replicas": 0}
    body = {"settings": settings, "mappings": {"properties": {"moving_code": code}}}
    put(f"{first.url}/moving", body)
    put(f"{first.url}/moving/_doc/a?refresh=true", {"moving_code": [1, 0]})

    def node_and_hits() -> tuple[str, int]:
        """Search the shard; return the name of its node and the number of hits."""
        query = '{"query":{"hamming":{"field":"moving_code","code":"0000"}}}'
        path = f"/moving/_search?source={quote(query)}&source_content_type=application/json"
        hits = first.get(path)["hits"]["total"]["value"]
        (shard,) = first.get("/_cat/shards/moving?format=json")
        return shard["node"], hits

    def entries() -> dict[str, int]:
        nodes = first.get("/_plugins/_hamming/stats")["nodes"].values()
        return {node["name"]: node["cache_entries"] for node in nodes}

    # Codes of indexes of earlier tests are released in the background.
    before, earlier, end = entries(), None, time.monotonic() + 60
    while before != earlier and time.monotonic() < end:
        time.sleep(2)
        before, earlier = entries(), before
    left, hits = node_and_hits()
    assert (hits, entries()[left]) == (1, before[left] + 1)
    exclude = {"index.routing.allocation.exclude._name": left}
    put(f"{first.url}/moving/_settings", exclude)
    end = time.monotonic() + 60
    while (node_and_hits()[0] == left or entries()[left] > before[left]) and time.monotonic() < end:
        time.sleep(0.3)
    node, hits = node_and_hits()
    assert node != left and hits == 1
    assert entries()[left] == before[left]


class Searching(threading.Thread):
    """Searches repeatedly, and compares the hits with those of numpy."""

    def __init__(self, uri: str, before: DocumentBatch) -> None:
        super().__init__(daemon=True)
        self._uri = uri
        self._queries = random_codes(4, 77)
        ids_with_image, images = before.codes("image")
        distances = self._queries.distances(images)
        ids = np.array(ids_with_image)
        self._expected = [
            [(str(ids[row]), int(line[row])) for row in np.lexsort((ids, line))[:10]]
            for line in distances
        ]
        self.done = threading.Event()
        self.answers: list[float] = []
        self.wrong: list[Any] = []

    def run(self) -> None:
        try:
            with (
                open_opensearch(f"{self._uri}&strategy=script") as by_script,
                open_opensearch(f"{self._uri}&strategy=hamming") as by_hamming,
            ):
                for index in cycle((by_script, by_hamming)):
                    if self.done.is_set():
                        return
                    found = index.search(self._queries, 10, target="image", where={"seed": 1})
                    self.answers.append(time.monotonic())
                    got = [[(hit.id, hit.distance) for hit in hits] for hits in found]
                    if got != self._expected:
                        self.wrong.append((index, got))
        except BaseException as error:
            self.wrong.append(error)


def test_node_is_lost_during_loading_and_searching(cluster: list[Node], tmp_path: Path) -> None:
    hosts = ",".join(f"127.0.0.1:{node.port}" for node in cluster)
    uri = f"opensearch://{hosts}/photos?shards=3&replicas=1"
    index = open_opensearch(uri, bits=BITS, create=True)
    before = batch(3000, seed=1, name="before")
    load(index, [before], checkpoints=tmp_path)
    wait_for_green(cluster, "photos")

    shards = cluster[0].get(f"/_cat/shards/{index.handle.name}?format=json")
    primaries = [one["node"] for one in shards if one["prirep"] == "p"]
    place = max(range(3), key=lambda place: primaries.count(f"node-{place + 1}"))
    assert f"node-{place + 1}" in primaries

    meanwhile = [batch(2000, start=2000 * part, seed=2) for part in range(10)]
    acknowledged: list[int] = []
    lost_at: list[float] = []

    def progress(what: str, done: int, total: int) -> None:
        acknowledged.append(done)
        if done == 6000:
            cluster[place].kill()
            lost_at.append(time.monotonic())
        time.sleep(0.2)

    searching = Searching(uri, before)
    searching.start()
    while len(searching.answers) < 3 and not searching.wrong:
        time.sleep(0.05)
    report = load(index, meanwhile, checkpoints=tmp_path, progress=progress)
    answers_after_load = len(searching.answers)
    end = time.monotonic() + 60
    while len(searching.answers) < answers_after_load + 3 and time.monotonic() < end:
        time.sleep(0.05)
    searching.done.set()
    searching.join(100)

    assert searching.wrong == []
    assert searching.answers[0] < lost_at[0] < searching.answers[-3]
    assert acknowledged[-1] == 20_000 and report.failed == {} and report.stored >= 20_000
    assert len(index) == 23_000
    for one in [before, *meanwhile]:
        for modality in MODALITIES:
            assert index.get(one.ids).codes(modality) == one.codes(modality)
    index.close()
