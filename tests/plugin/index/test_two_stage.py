"""Weights and vectors on a real node: every strategy returns what the contract defines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from contract.ranking import Document, Query, search
from support.hamming_server import Server

from xmodal.codes import BinaryCodes
from xmodal.errors import CodeError, ConfigError
from xmodal.index.contract import Hit
from xmodal.index.documents import DocumentBatch
from xmodal.index.local import HammingIndex
from xmodal.index.query_codes import QueryCodes
from xmodal.modality import MODALITIES
from xmodal.vectors import to_int8
from xmodal_opensearch.index.store import OpenSearchIndex, open_opensearch

BITS, COUNT = 64, 300
ALL = 4 * COUNT
"""A window that holds all documents."""
Address = Callable[..., str]


def random_documents() -> DocumentBatch:
    """Documents with 0 to 3 picture codes, many of which tie, and one text code."""
    rng = np.random.default_rng(7)
    counts = rng.choice([0, 1, 1, 1, 2, 3], COUNT)
    outputs = rng.normal(size=(int(counts.sum()), BITS))
    outputs[::5] = outputs[0]
    rows = np.split(outputs, np.cumsum(counts)[:-1])
    texts = rng.normal(size=(COUNT, BITS))
    vectors = to_int8(outputs)
    vectors[3] = 0
    return DocumentBatch.of(
        [f"d{n}" for n in rng.permutation(COUNT)],
        image=[
            BinaryCodes.from_relaxed(own) if len(own) else BinaryCodes.empty(BITS) for own in rows
        ],
        text=BinaryCodes.from_relaxed(texts),
        fields=[{"part": n % 3} for n in range(COUNT)],
        image_vectors=vectors,
        text_vectors=to_int8(texts),
    )


BATCH = random_documents()
DOCUMENTS = [
    Document(
        id_,
        BinaryCodes(BATCH.packed["image"][start:end], BITS).to_bits(),
        BATCH.vectors["image"][start:end],
        {"part": row % 3},
    )
    for row, (id_, (start, end)) in enumerate(
        zip(BATCH.ids, pairwise(BATCH.offsets["image"]), strict=True)
    )
    if end > start
]


def reference(query: QueryCodes) -> Query:
    """Return one query for the reference."""
    weights, vectors = query.weights, query.vectors
    return Query(
        query.codes.to_bits()[0],
        None if weights is None else weights[0],
        None if vectors is None else vectors[0],
    )


def as_tuples(hits: list[Hit]) -> list[tuple[str, int | None, int | None, Any]]:
    return [
        (hit.id, hit.distance, hit.nearest, pytest.approx(hit.similarity, abs=1e-9)) for hit in hits
    ]


STRATEGIES = ("script", "knn", "long", "lucene-hnsw", "hamming")


@pytest.fixture(
    scope="module", params=[(name, shards) for name in STRATEGIES for shards in (1, 3)], ids=str
)
def index(request: pytest.FixtureRequest) -> Iterator[OpenSearchIndex]:
    """The documents in an index of each strategy, on one shard and on three."""
    strategy, shards = request.param
    fixture = "plugin_url" if strategy == "hamming" else "node_url"
    url = request.getfixturevalue(fixture).replace("http", "opensearch")
    address = f"{url}/two-stage-{strategy}-{shards}?strategy={strategy}&shards={shards}"
    with open_opensearch(address, bits=BITS, fingerprint="e1", create=True) as opened:
        assert opened.dim is None
        opened.add(BATCH)
        assert opened.dim == BITS
        yield opened
    Server(url.replace("opensearch", "http"))("DELETE", opened.handle.name)


QUERIES = np.random.default_rng(8).normal(size=(3, BITS))
FULL = QueryCodes.of(QUERIES)
assert FULL.vectors is not None
KINDS = {
    "weights and vectors": FULL,
    "vectors": QueryCodes(FULL.codes, None, FULL.vectors),
    "weights": QueryCodes(FULL.codes, FULL.weights),
    "codes": QueryCodes(FULL.codes),
    "a zero vector": QueryCodes(FULL.codes, FULL.weights, np.zeros_like(FULL.vectors)),
}


@cache
def right_hits(
    kind: str, row: int, k: int, window: int, radius: int | None, part: int | None
) -> list[Any]:
    """Return the hits of one query by the reference, the same for all strategies and shards."""
    documents = [one for one in DOCUMENTS if part in (None, one.fields["part"])]
    return search(documents, reference(KINDS[kind][row : row + 1]), k, radius, window)


@pytest.mark.parametrize("kind", KINDS)
def test_hits_equal_the_contract(index: OpenSearchIndex, kind: str) -> None:
    queries = KINDS[kind]
    # Servers without weights compute them for a window by Hamming distance only.
    exact = index.handle.weighs or queries.weights is None
    for k, window, radius, part in (
        (1, 1, None, None),
        (5, 20, None, None),
        (40, 3, None, None),
        (10, 30, BITS // 2 - 4, None),
        (7, 25, None, 1),
        (1000, 3, None, None),
    ):
        window = window if exact else ALL
        where = None if part is None else {"part": part}
        found = index.search(queries, k, target="image", where=where, radius=radius, window=window)
        for row, hits in enumerate(found):
            expected = right_hits(kind, row, k, window, radius, part)
            assert as_tuples(hits) == expected, (k, window, radius, part)
            assert all(set(hit.fields) == {"part"} for hit in hits)


def test_codes_alone_are_searched_by_hamming_distance(index: OpenSearchIndex) -> None:
    assert index.search(FULL.codes, 20, target="image") == index.search(
        QueryCodes(FULL.codes), 20, target="image"
    )


def test_hits_equal_those_of_a_local_index(index: OpenSearchIndex) -> None:
    local = HammingIndex(BITS)
    local.add(BATCH)
    window = 30 if index.handle.weighs else ALL
    for queries in KINDS.values():
        for target in MODALITIES:
            options: dict[str, Any] = {"target": target, "window": window}
            assert index.search(queries, 20, **options) == local.search(queries, 20, **options)
        ids = BATCH.ids[:40]
        assert index.measure(queries[:1], ids, target="image") == local.measure(
            queries[:1], ids, target="image"
        )


def test_measured_documents_have_the_values_of_hits(index: OpenSearchIndex) -> None:
    query = reference(FULL[:1])
    everything = {document.id: query.measured(document) for document in DOCUMENTS}
    ids = [*BATCH.ids[:30], "not stored"]
    found = index.measure(FULL[:1], ids, target="image")
    assert set(found) == set(ids) & set(everything)
    for id_, hit in found.items():
        assert as_tuples([hit]) == [everything[id_]]
        assert set(hit.fields) == {"part"}


def test_documents_are_counted_and_read_with_vectors(index: OpenSearchIndex) -> None:
    present = BATCH.counts("image") > 0
    assert index.count("image") == present.sum()
    assert index.count("image", {"part": 2}) == present[2::3].sum()
    assert index.count("text") == COUNT
    rows = [5, 200, 0]
    read, expected = index.get([BATCH.ids[row] for row in rows]), BATCH.take(rows)
    for modality in ("image", "text"):
        np.testing.assert_array_equal(read.vectors[modality], expected.vectors[modality])
        np.testing.assert_array_equal(read.packed[modality], expected.packed[modality])


def test_other_dimensions_and_documents_without_vectors_are_refused(
    index: OpenSearchIndex,
) -> None:
    short = QueryCodes(FULL.codes, None, FULL.vectors[:, :8])  # type: ignore[index]
    for compare in (index.search, lambda query, _, target: index.measure(query, [], target=target)):
        with pytest.raises(CodeError, match=f"8 dimensions, this index holds {BITS}"):
            compare(short, 1, target="image")
    with pytest.raises(ConfigError, match="window is 0"):
        index.search(FULL, 1, target="image", window=0)
    with pytest.raises(CodeError, match=f"no vectors, .* vectors of {BITS}"):
        index.add(["new"], image=FULL.codes[:1])
    assert index.add(DocumentBatch.empty(BITS)) == 0


def test_index_without_vectors_says_so_and_leaves_them_out(address: Address) -> None:
    batch = BATCH.take(range(20))
    with open_opensearch(address(), bits=BITS, create=True) as index:
        index.add(batch.without_vectors())
        index.add(BATCH.take(range(20, 40)))
        assert index.dim is None and "no vectors" in repr(index)
        assert index.get(batch.ids).vectors == {}
        hits = index.search(FULL, 10, target="image", window=ALL)
        assert hits == index.search(KINDS["weights"], 10, target="image", window=ALL)


def test_emptied_index_decides_again(address: Address) -> None:
    with open_opensearch(address(), bits=BITS, create=True) as index:
        first, second = BATCH.take(range(5)), BATCH.take(range(5, 9))
        for batch, dim in ((first, BITS), (second.without_vectors(), None), (second, BITS)):
            index.add(batch)
            assert index.dim == index.get(batch.ids).dim == dim
            hits = index.search(FULL, 9, target="text")[0]
            assert {hit.id for hit in hits} == set(batch.ids)
            assert index.delete(batch.ids) == len(batch)


def test_other_handles_read_the_dimension(address: Address) -> None:
    uri = address()
    with open_opensearch(uri, bits=BITS, create=True) as first, open_opensearch(uri) as second:
        first.add(BATCH.take(range(5)))
        # The second handle was opened before the first documents were stored.
        second.add(BATCH.take(range(5, 9)))
        with open_opensearch(uri) as third:
            assert third.dim == second.dim == first.dim == BITS
            assert third.get(BATCH.ids[:9]).dim == BITS
            assert first.search(FULL, 9, target="image") == third.search(FULL, 9, target="image")


def test_no_graph_of_vectors_is_built_and_source_does_not_repeat_them(
    address: Address, rest: Callable[..., Any]
) -> None:
    """A graph would need the native Faiss library, without which a node ends."""
    sizes = {}
    for with_vectors in (False, True):
        with open_opensearch(address(strategy="script"), bits=BITS, create=True) as index:
            batch = BATCH if with_vectors else BATCH.without_vectors()
            for part in range(10):
                ids = [f"{part}-{id_}" for id_ in batch.ids]
                index.add(
                    DocumentBatch(ids, batch.packed, batch.offsets, batch.fields, batch.vectors)
                )
            name = index.handle.name
        rest("POST", f"/{name}/_forcemerge?max_num_segments=1&flush=true")
        rest("POST", f"/{name}/_refresh")
        [shard] = rest("GET", f"/{name}/_segments")["indices"][name]["shards"]["0"]
        [segment] = shard["segments"].values()
        sizes[with_vectors] = segment["size_in_bytes"] / 10
    codes = sum(len(column) for column in BATCH.packed.values())
    assert BITS <= (sizes[True] - sizes[False]) / codes < 1.2 * BITS
