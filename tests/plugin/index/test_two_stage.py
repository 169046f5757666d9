"""Weights and vectors on a real node: every strategy returns what the contract defines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from support.hamming_server import Server

from xmodal.codes import BinaryCodes
from xmodal.errors import CodeError, ConfigError
from xmodal.index.contract import Hit
from xmodal.index.documents import DocumentBatch
from xmodal.index.query_codes import QueryCodes
from xmodal.vectors import to_int8
from xmodal_opensearch.index.store import OpenSearchIndex, open_opensearch

BITS, COUNT = 64, 300
ALL = 4 * COUNT
"""A window that holds all documents."""
Address = Callable[..., str]


@dataclass
class Documents:
    """Documents with 0 to 3 picture codes, many of which tie, and one text code."""

    batch: DocumentBatch

    @classmethod
    def random(cls) -> Documents:
        rng = np.random.default_rng(7)
        counts = rng.choice([0, 1, 1, 1, 2, 3], COUNT)
        outputs = rng.normal(size=(int(counts.sum()), BITS))
        outputs[::5] = outputs[0]
        outputs[1::9] *= rng.choice([-1, 1], (1, BITS))
        rows = np.split(outputs, np.cumsum(counts)[:-1])
        codes = [
            BinaryCodes.from_relaxed(own) if len(own) else BinaryCodes.empty(BITS) for own in rows
        ]
        texts = rng.normal(size=(COUNT, BITS))
        vectors = to_int8(outputs)
        vectors[3] = 0
        return cls(
            DocumentBatch.of(
                [f"d{n}" for n in rng.permutation(COUNT)],
                image=codes,
                text=BinaryCodes.from_relaxed(texts),
                fields=[{"part": n % 3} for n in range(COUNT)],
                image_vectors=vectors,
                text_vectors=to_int8(texts),
            )
        )

    def search(
        self,
        query: QueryCodes,
        k: int,
        window: int,
        radius: int | None = None,
        part: int | None = None,
    ) -> list[tuple[str, int, int, float]]:
        """Return (id, distance, nearest, similarity) of the hits, by the words of the contract."""
        first, every = [], {}
        signs = query.codes.to_bits()[0]
        weights = np.ones(BITS, int) if query.weights is None else query.weights[0].astype(int)
        for row, id_ in enumerate(self.batch.ids):
            span = slice(*self.batch.offsets["image"][row : row + 2])
            codes = BinaryCodes(self.batch.packed["image"][span], BITS).to_bits()
            every[id_] = codes, self.batch.vectors["image"][span]
            ranked = [
                (int(weights[code != signs].sum()), int((code != signs).sum()), place)
                for place, code in enumerate(codes)
            ]
            ranked = [one for one in ranked if radius is None or one[1] <= radius]
            if ranked and part in (None, row % 3):
                weighted, distance, place = min(ranked)
                first.append((weighted, distance, id_, place))
        first.sort()
        if query.vectors is None:
            total = weights.sum()
            return [(id_, h, place, 1 - 2 * d / total) for d, h, id_, place in first[:k]]
        window = max(window, k)
        last = first[:window][-1][:2] if first else ()
        second = []
        for weighted, distance, id_, _ in first:
            if (weighted, distance) <= last:
                codes, vectors = every[id_]
                cosines = [cosine_of(query.vectors[0], vector) for vector in vectors]
                place = cosines.index(max(cosines))
                second.append((-cosines[place], int((codes[place] != signs).sum()), id_, place))
        return [(id_, h, place, -negative) for negative, h, id_, place in sorted(second)[:k]]


def cosine_of(one: Any, other: Any) -> float:
    a, b = one.astype(int), other.astype(int)
    length = float(np.sqrt(float(a @ a) * float(b @ b)))
    return 0.0 if length == 0 else float(a @ b) / length


DOCUMENTS = Documents.random()


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
        opened.add(DOCUMENTS.batch)
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
            expected = DOCUMENTS.search(queries[row : row + 1], k, window, radius, part)
            assert as_tuples(hits) == expected, (k, window, radius, part)
            assert all(set(hit.fields) == {"part"} for hit in hits)


def test_codes_alone_are_searched_by_hamming_distance(index: OpenSearchIndex) -> None:
    assert index.search(FULL.codes, 20, target="image") == index.search(
        QueryCodes(FULL.codes), 20, target="image"
    )


def test_measured_documents_have_the_values_of_hits(index: OpenSearchIndex) -> None:
    everything = {hit[0]: hit for hit in DOCUMENTS.search(FULL[:1], COUNT, COUNT)}
    ids = [*DOCUMENTS.batch.ids[:30], "not stored"]
    found = index.measure(FULL[:1], ids, target="image")
    assert set(found) == set(ids) & set(everything)
    for id_, hit in found.items():
        assert as_tuples([hit]) == [everything[id_]]
        assert set(hit.fields) == {"part"}


def test_documents_are_counted_and_read_with_vectors(index: OpenSearchIndex) -> None:
    batch = DOCUMENTS.batch
    present = batch.counts("image") > 0
    assert index.count("image") == present.sum()
    assert index.count("image", {"part": 2}) == present[2::3].sum()
    assert index.count("text") == COUNT
    rows = [5, 200, 0]
    read, expected = index.get([batch.ids[row] for row in rows]), batch.take(rows)
    for modality in ("image", "text"):
        np.testing.assert_array_equal(read.vectors[modality], expected.vectors[modality])
        np.testing.assert_array_equal(read.packed[modality], expected.packed[modality])


def test_other_dimensions_and_documents_without_vectors_are_refused(
    index: OpenSearchIndex,
) -> None:
    short = QueryCodes(FULL.codes, None, FULL.vectors[:, :8])  # type: ignore[index]
    for search in (index.search, lambda query, _, target: index.measure(query, [], target=target)):
        with pytest.raises(CodeError, match=f"8 dimensions, this index holds {BITS}"):
            search(short, 1, target="image")
    with pytest.raises(ConfigError, match="window is 0"):
        index.search(FULL, 1, target="image", window=0)
    with pytest.raises(CodeError, match=f"stores vectors of {BITS} numbers.* none"):
        index.add(["new"], image=FULL.codes[:1])
    assert index.add(DocumentBatch.empty(BITS)) == 0


def test_index_without_vectors_says_so_and_leaves_them_out(address: Address) -> None:
    batch = DOCUMENTS.batch.take(range(20))
    with open_opensearch(address(), bits=BITS, create=True) as index:
        index.add(batch.without_vectors())
        index.add(DOCUMENTS.batch.take(range(20, 40)))
        assert index.dim is None and "no vectors" in repr(index)
        assert index.get(batch.ids).vectors == {}
        options = {"target": "image", "window": ALL}
        hits = index.search(FULL, 10, **options)
        assert hits == index.search(KINDS["weights"], 10, **options)


def test_other_handles_read_the_dimension(address: Address) -> None:
    uri = address()
    with open_opensearch(uri, bits=BITS, create=True) as first, open_opensearch(uri) as second:
        first.add(DOCUMENTS.batch.take(range(5)))
        # The second handle was opened before the first documents were stored.
        second.add(DOCUMENTS.batch.take(range(5, 9)))
        with open_opensearch(uri) as third:
            assert third.dim == second.dim == first.dim == BITS
            assert third.get(DOCUMENTS.batch.ids[:9]).dim == BITS
            assert first.search(FULL, 9, target="image") == third.search(FULL, 9, target="image")


def test_no_graph_of_vectors_is_built_and_source_does_not_repeat_them(
    address: Address, rest: Callable[..., Any]
) -> None:
    """A graph would need the native Faiss library, without which a node ends."""
    sizes = {}
    for with_vectors in (False, True):
        with open_opensearch(address(strategy="script"), bits=BITS, create=True) as index:
            batch = DOCUMENTS.batch if with_vectors else DOCUMENTS.batch.without_vectors()
            for part in range(10):
                ids = [f"{part}-{id_}" for id_ in batch.ids]
                index.add(
                    DocumentBatch(ids, batch.packed, batch.offsets, batch.fields, batch.vectors)
                )
            name = index.handle.name
        rest("POST", f"/{name}/_forcemerge?max_num_segments=1&flush=true")
        stats = rest("GET", f"/{name}/_stats/store")["indices"][name]["primaries"]
        sizes[with_vectors] = stats["store"]["size_in_bytes"] / 10
    codes = sum(len(column) for column in DOCUMENTS.batch.packed.values())
    assert sizes[True] - sizes[False] < 1.5 * BITS * codes
