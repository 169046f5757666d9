"""Users with document-level security: their own documents only, in the order of a local index."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from support.secured_node import SecuredNode, all_but, documents_with

from xmodal.codes import BinaryCodes
from xmodal.errors import IndexMismatch, IndexMissing, ServerFailure
from xmodal.index.contract import WordsQuery
from xmodal.index.documents import DocumentBatch
from xmodal.index.local import HammingIndex
from xmodal.index.query_codes import QueryCodes
from xmodal.retrieval.retriever import Retriever
from xmodal_opensearch.index.mapping import (
    LAYOUTS,
    SELF_TEST_ID,
    build_meta,
    code_properties,
    self_test_code,
)
from xmodal_opensearch.index.store import OpenSearchIndex, open_opensearch

if TYPE_CHECKING:
    from xmodal.encoders.encoder import Encoder

DOCUMENTS, BITS, DIM, TENANTS = 4_000, 64, 8, ("red", "blue", "teal", "grey")
FOREIGN = "grey"
STRATEGIES = {"hamming": "faiss", "script": "faiss", "knn": "faiss", "long": "long"}
GRAPH = "lucene-hnsw"
USERS = {"one": ["red"], "two": ["red", "red-or-blue"]}
"""Roles of the users: a document of tenant red is in two roles of the second one."""
SEEN = {"one": {"red"}, "two": {"red", "blue"}}


def draw(rng: np.random.Generator, count: int) -> BinaryCodes:
    """Return codes of few different bytes, so that many distances are equal."""
    rows = rng.choice(np.array([0, 3, 255], np.uint8), (count, BITS // 8))
    return BinaryCodes(rows, BITS)


def documents() -> DocumentBatch:
    """Return documents with one image code, one or two text codes, and vectors."""
    rng = np.random.default_rng(3)
    image, text = draw(rng, DOCUMENTS), draw(rng, DOCUMENTS)
    several = [text[[row, -1]] if row % 5 == 0 else text[[row]] for row in range(DOCUMENTS)]
    batch = DocumentBatch.of(
        [f"d{row:05}" for row in rng.permutation(DOCUMENTS)],
        image=image,
        text=several,
        fields=[
            {"tenant": TENANTS[row % 4], "size": row % 3, "caption": f"boat {row % 7} of wood"}
            for row in range(DOCUMENTS)
        ],
    )
    vectors = {
        modality: rng.integers(-127, 128, (len(batch.packed[modality]), DIM)).astype(np.int8)
        for modality in batch.packed
    }
    return replace(batch, vectors=vectors)


@dataclass
class World:
    """A node with an index per layout, and the local index of each user."""

    node: SecuredNode
    local: dict[str, HammingIndex]

    def open(self, user: str, strategy: str) -> OpenSearchIndex:
        name = f"secret-{STRATEGIES.get(strategy, strategy)}"
        with self.node.acting_as(user):
            return open_opensearch(self.node.address(name, strategy=strategy))


@pytest.fixture(scope="module")
def world(secured: SecuredNode) -> Iterator[World]:
    batch = documents()
    for strategy in ("script", "long", GRAPH):
        name = f"secret-{STRATEGIES.get(strategy, strategy)}"
        with secured.acting_as("admin"):
            address = secured.address(name, strategy=strategy)
            with open_opensearch(address, bits=BITS, create=True) as index:
                index.add(batch)
    either = '{"terms": {"tenant": ["red", "blue"]}}'
    secured.put_role("red", all_but(dls=documents_with(tenant="red")))
    secured.put_role("red-or-blue", all_but(dls=either))
    local = {}
    for user, roles in USERS.items():
        secured.put_user(user, roles)
        rows = [row for row in range(DOCUMENTS) if TENANTS[row % 4] in SEEN[user]]
        local[user] = HammingIndex(BITS)
        local[user].add(batch.take(rows))
    yield World(secured, local)
    secured("DELETE", "secret-*")


@pytest.fixture(params=[(user, strategy) for user in USERS for strategy in STRATEGIES], ids=str)
def opened(
    request: pytest.FixtureRequest, world: World
) -> Iterator[tuple[OpenSearchIndex, HammingIndex]]:
    """The index as a restricted user opens it, and a local index of the user's documents."""
    user, strategy = request.param
    with world.open(user, strategy) as index:
        yield index, world.local[user]


def found(hits: list[Any]) -> list[tuple[Any, ...]]:
    return [(hit.id, hit.distance, hit.nearest, hit.fields["tenant"]) for hit in hits]


def targets(index: OpenSearchIndex) -> list[Any]:
    # k-NN 3.4 returns too few documents of nested codes, to all users.
    return ["image"] if index.handle.strategy.build is None else ["image", "text"]


def test_hits_counts_and_ranks_are_those_of_the_visible_documents(
    opened: tuple[OpenSearchIndex, HammingIndex],
) -> None:
    index, local = opened
    queries = draw(np.random.default_rng(8), 2)
    handle = index.handle
    assert handle.is_restricted and handle.unchecked == [handle.name]
    assert len(index) == len(local)
    assert index.facets()["tenant"] == local.facets()["tenant"]
    for target in targets(index):
        assert index.count(target) == local.count(target)
        for options in (
            {},
            {"where": {"size": 1}},
            {"radius": 30},
            {"radius": 30, "where": {"size": [0, 2]}},
        ):
            for k in (9,) if handle.strategy.build is None else (9, 400):
                expected = local.search(queries, k, target=target, **options)
                hits = index.search(queries, k, target=target, **options)
                assert list(map(found, hits)) == list(map(found, expected)), (target, options, k)
        rank = int(found(hits[0])[-1][1] > 0) * 17
        [nearest] = local.search(queries[:1], 30, target=target)
        told = index.explain(nearest[rank].id, queries[:1], target=target)
        assert (told.distance, told.code_rank) == (nearest[rank].distance, rank + 1)
        ids = [hit.id for hit in nearest]
        measured = index.measure(queries[:1], ids, target=target)
        assert measured == local.measure(queries[:1], ids, target=target)


def test_pages_and_entries_are_those_of_the_visible_documents(
    opened: tuple[OpenSearchIndex, HammingIndex],
) -> None:
    index, local = opened
    query = draw(np.random.default_rng(9), 1)
    assert [entry.id for entry in index.entries()] == sorted(entry.id for entry in local.entries())
    if index.handle.strategy.build is not None:
        index.handle.window = 150
        [hits] = index.search(query, 500, target="text", radius=36)
        [expected] = local.search(query, 500, target="text", radius=36)
        assert len(hits) > 150 and found(hits) == found(expected)


def test_weights_and_vectors_rank_the_visible_documents(
    opened: tuple[OpenSearchIndex, HammingIndex],
) -> None:
    index, local = opened
    rng = np.random.default_rng(10)
    codes = draw(rng, 2)
    weights = rng.integers(0, 16, (2, BITS), dtype=np.uint8)
    vectors = rng.integers(-127, 128, (2, DIM)).astype(np.int8)
    # Without weights on the server all documents are in the window.
    window = 25 if index.handle.weighs else DOCUMENTS
    for target in targets(index):
        for query in (
            QueryCodes(codes, weights),
            QueryCodes(codes, vectors=vectors),
            QueryCodes(codes, weights, vectors),
        ):
            expected = local.search(query, 20, target=target, window=window)
            hits = index.search(query, 20, target=target, window=window)
            assert list(map(found, hits)) == list(map(found, expected))


def test_a_restriction_that_begins_after_opening_is_detected(world: World) -> None:
    """The queries knn and two_stage select documents before hidden ones are removed."""
    rng = np.random.default_rng(11)
    query = QueryCodes(draw(rng, 1), vectors=rng.integers(-127, 128, (1, DIM)).astype(np.int8))
    for strategy in ("hamming", "knn"):
        world.node.put_user("late", ["all_access"])
        with world.open("late", strategy) as index:
            assert not index.handle.is_restricted and index.handle.unchecked == []
            world.node.put_user("late", USERS["one"])
            hits = index.search(query, 9, target="image", window=25)
            assert index.handle.is_restricted
            assert found(hits[0]) == found(
                world.local["one"].search(query, 9, target="image", window=25)[0]
            )


def test_a_knn_query_that_may_miss_documents_is_an_error(world: World) -> None:
    with world.open("one", "knn") as index:
        index.handle.window = 500
        with pytest.raises(ServerFailure, match="document-level security"):
            index.search(draw(np.random.default_rng(12), 1), 5, target="image")


def test_a_graph_returns_visible_documents_alone(world: World) -> None:
    query = draw(np.random.default_rng(13), 1)
    with world.open("one", GRAPH) as index:
        hits, recall = index.search_approximate(query, 20, target="image")
        assert {hit.fields["tenant"] for hit in hits[0]} == {"red"}
        exact = world.local["one"].measure(query, [hit.id for hit in hits[0]], target="image")
        assert [hit.distance for hit in hits[0]] == [exact[hit.id].distance for hit in hits[0]]
        assert recall.value > 0.5


def test_words_have_the_scores_that_all_documents_give(world: World) -> None:
    with world.open("admin", "script") as index:
        [everything] = index.search_words([WordsQuery("boat 3")], DOCUMENTS, target="image")
    for user, tenants in SEEN.items():
        with world.open(user, "script") as index:
            [hits] = index.search_words([WordsQuery("boat 3")], DOCUMENTS, target="image")
            fields = {entry.id: entry.fields for entry in index.entries()}
            assert {one["tenant"] for one in fields.values()} == tenants
            # The server does not return named clauses to users with document-level security.
            expected = [hit._replace(matched=()) for hit in everything if hit.id in fields]
            assert hits == expected


def test_fused_searches_and_similar_documents_are_of_visible_ones(
    world: World, encoder: Encoder
) -> None:
    rng, count = np.random.default_rng(2), 600
    codes = BinaryCodes(rng.integers(0, 256, (count, encoder.bits // 8), np.uint8), encoder.bits)
    address = world.node.address("secret-fused")
    with (
        world.node.acting_as("admin"),
        open_opensearch(
            address, bits=encoder.bits, fingerprint=encoder.fingerprint, create=True
        ) as index,
    ):
        fields = [{"tenant": TENANTS[n % 4], "text": f"a red circle {n}"} for n in range(count)]
        index.add([f"{n:03}" for n in range(count)], image=codes, text=codes, fields=fields)
    with world.node.acting_as("one"), open_opensearch(address) as index:
        retriever = Retriever(encoder, index)
        fused = retriever.search(text="a red circle", k=60)
        alike = retriever.search(like="004", target="image", k=60)
        for hits in (fused, alike):
            assert len(hits) == 60 and {hit.fields["tenant"] for hit in hits} == {"red"}
        with pytest.raises(IndexMissing):
            retriever.search(like="005", target="image", k=60)


def test_hidden_documents_are_neither_read_nor_explained(world: World) -> None:
    with world.open("admin", "script") as index:
        [hit] = index.search(
            draw(np.random.default_rng(1), 1), 1, target="image", where={"tenant": FOREIGN}
        )[0]
    with world.open("one", "script") as index:
        assert len(index.get([hit.id])) == 0
        with pytest.raises(IndexMissing, match=hit.id):
            index.explain(hit.id, draw(np.random.default_rng(1), 1), target="image")


@pytest.mark.parametrize("hidden", ["image_code", "text_code", "xmodal.id", "xmodal.words"])
def test_hidden_fields_are_named_on_opening(world: World, hidden: str) -> None:
    world.node.put_role("partial", all_but(fls=[f"~{hidden}", f"~{hidden}.*"]))
    world.node.put_user("partial", ["partial"])
    for strategy in ("script", "long"):
        with pytest.raises(IndexMismatch, match=f"{hidden}.* field-level security"):
            world.open("partial", strategy)


def test_hidden_fields_of_the_user_change_nothing_else(world: World) -> None:
    world.node.put_role("no-captions", all_but(fls=["~caption"]))
    world.node.put_user("partial", ["no-captions"])
    query = draw(np.random.default_rng(14), 1)
    with world.open("admin", "script") as index:
        [expected] = index.search(query, 9, target="image")
    with world.open("partial", "script") as index:
        [hits] = index.search(query, 9, target="image")
        assert found(hits) == found(expected)
        assert all("caption" not in hit.fields for hit in hits)


def test_masked_codes_are_refused(world: World) -> None:
    masked = ["image_code", "image_code.*"]
    world.node.put_role("masked", all_but(masked_fields=masked))
    world.node.put_user("partial", ["masked"])
    with pytest.raises(IndexMismatch, match=r"image_code \(masked_fields"):
        world.open("partial", "long")
    flat = "secret-flat"
    mappings = {
        "_meta": build_meta(BITS, None),
        "properties": code_properties(BITS, LAYOUTS["flat"], words=True),
    }
    world.node("PUT", flat, {"mappings": mappings})
    code = draw(np.random.default_rng(15), 1).to_signed()[0]
    (own,) = LAYOUTS["flat"].values(self_test_code(BITS))
    for id_, fields in (
        (SELF_TEST_ID, {"self_test_code": own}),
        ("a", {"image_code": code, "xmodal": {"id": "a"}}),
    ):
        world.node("PUT", f"{flat}/_doc/{id_}?refresh=true", fields)
    for strategy in ("hamming", "script"):
        with (
            world.node.acting_as("partial"),
            pytest.raises(IndexMismatch, match=r"image_code \(masked_fields"),
        ):
            open_opensearch(world.node.address(flat, strategy=strategy))
    with world.node.acting_as("admin"):
        open_opensearch(world.node.address(flat)).close()
