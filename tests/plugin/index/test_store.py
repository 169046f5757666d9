"""OpenSearchIndex on a real node: opening, fields, and operations beyond the contract."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from xmodal.codes import BinaryCodes
from xmodal.errors import BulkFailure, ConfigError, IndexMismatch, IndexMissing, ServerFailure
from xmodal.index.contract import open_index
from xmodal.index.documents import DocumentBatch
from xmodal.modality import MODALITIES, Modality
from xmodal.retrieval.retriever import Retriever
from xmodal_opensearch.index import mapping
from xmodal_opensearch.index.approximate import Recall
from xmodal_opensearch.index.exact_search import pages_of_hits
from xmodal_opensearch.index.mapping import SELF_TEST_FIELD, SELF_TEST_ID
from xmodal_opensearch.index.reading import sample_codes
from xmodal_opensearch.index.store import OpenSearchIndex, open_opensearch

STRATEGIES = ("script", "knn", "long", "lucene-hnsw")
Address = Callable[..., str]
Rest = Callable[..., Any]


def random_codes(count: int, bits: int = 64, seed: int = 0) -> BinaryCodes:
    rows = np.random.default_rng(seed).integers(256, size=(count, bits // 8), dtype=np.uint8)
    return BinaryCodes(rows, bits)


def tied_codes(count: int, different: int, bits: int = 64) -> BinaryCodes:
    """Return random codes of a few values, so that distances tie."""
    return random_codes(different, bits)[np.random.default_rng(1).integers(different, size=count)]


def ranked(query: BinaryCodes, ids: list[str], codes: BinaryCodes) -> list[tuple[int, str]]:
    """Return all documents by distance, then id, computed by numpy."""
    return sorted(zip(map(int, query.distances(codes)[0]), ids, strict=True))


@pytest.fixture(params=STRATEGIES)
def index(request: pytest.FixtureRequest, address: Address) -> Iterator[OpenSearchIndex]:
    """An empty index of 64 bits, of every strategy."""
    with open_opensearch(address(strategy=request.param), bits=64, create=True) as opened:
        yield opened


# ---- opening ---------------------------------------------------------------------------------


def test_repr_describes_the_index(index: OpenSearchIndex) -> None:
    assert repr(index).startswith(f"{index.handle.name} on OpenSearch 3.")
    assert f", 64 bits, {index.handle.strategy.title}, no vectors" in repr(index)
    assert ("Hamming" in repr(index)) == (index.handle.strategy.name != "long")
    assert index.handle.name == f"{index.handle.address.index}-000001"


def test_missing_index_raises(address: Address) -> None:
    where = address()
    with pytest.raises(IndexMissing, match="--index opensearch://"):
        open_index(where, bits=64)


def test_index_without_codes_is_rejected(address: Address, rest: Rest) -> None:
    where = address()
    rest("PUT", "/" + where.rpartition("/")[2], {"mappings": {"properties": {}}})
    for create in (False, True):
        with pytest.raises(IndexMismatch, match="has no codes"):
            open_index(where, bits=64, create=create)


def test_unknown_mapping_version_is_rejected(address: Address, rest: Rest) -> None:
    where = address()
    with open_opensearch(where, bits=64, create=True) as index:
        meta = index.handle.read_meta()
    meta["xmodal"]["mapping_version"] = 2
    rest("PUT", f"/{index.handle.name}/_mapping", {"_meta": meta})
    with pytest.raises(IndexMismatch, match="has mapping version 2"):
        open_index(where)


@pytest.mark.parametrize("order", ["last bit first", "last byte first"])
@pytest.mark.parametrize("strategy", ["script", "knn", "long"])
def test_another_bit_order_is_detected(
    address: Address, rest: Rest, strategy: str, order: str
) -> None:
    where = address(strategy=strategy)
    with open_opensearch(where, bits=64, create=True) as index:
        expected = mapping.self_test_code(64)
        little = np.packbits(expected.to_bits(), axis=1, bitorder="little")
        wrong = little if order == "last bit first" else expected.packed[:, ::-1]
        [value] = index.handle.layout.values(BinaryCodes(wrong, 64))
    path = f"/{index.handle.name}/_doc/{SELF_TEST_ID}?refresh=true"
    rest("PUT", path, {SELF_TEST_FIELD: value})
    with pytest.raises(IndexMismatch, match="bit order"):
        open_index(where)


def test_missing_self_test_document_raises(
    address: Address, rest: Rest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xmodal_opensearch.index.bit_order_check.CREATION_TIMEOUT", 0.3)
    where = address()
    with open_opensearch(where, bits=64, create=True) as index:
        pass
    rest("DELETE", f"/{index.handle.name}/_doc/{SELF_TEST_ID}?refresh=true")
    with pytest.raises(IndexMismatch, match="has lost its self-test document"):
        open_index(where)


def test_self_test_document_is_hidden(index: OpenSearchIndex) -> None:
    with pytest.raises(ConfigError, match="self-test"):
        index.add([SELF_TEST_ID], image=random_codes(1))
    index.add(["a"], image=random_codes(1))
    assert index.delete([SELF_TEST_ID]) == 0
    assert len(index) == 1
    for modality in MODALITIES:
        assert index.get([SELF_TEST_ID]).codes(modality) == ([], BinaryCodes.empty(64))
    open_opensearch(str(index.handle.address)).close()


def test_two_handles_agree_on_the_fingerprint(address: Address) -> None:
    where = address()
    open_opensearch(where, bits=64, create=True).close()
    first, second = (open_opensearch(where, fingerprint=name) for name in ("e1", "e2"))
    with first, second:
        first.add(["a"], image=random_codes(1))
        with pytest.raises(IndexMismatch, match=r"encoder e1, .* e2"):
            second.add(["a"], image=random_codes(1, seed=1))
    with open_opensearch(where) as index:
        assert index.fingerprint == "e1"
        assert index.get(["a"]).codes("image")[1] == random_codes(1)


def test_handles_see_refreshed_changes_of_each_other(address: Address) -> None:
    where = address()
    with open_opensearch(where, bits=64, create=True) as writer:
        writer.add(["a"], image=random_codes(1))
        with open_opensearch(where) as reader:
            writer.add(["b"], image=random_codes(1))
            assert len(writer) == 2  # refreshes the index
            [hits] = reader.search(random_codes(1), 9, target="image")
            assert [hit.id for hit in hits] == ["a", "b"]


# ---- documents -------------------------------------------------------------------------------


def test_fields_round_trip(index: OpenSearchIndex) -> None:
    fields: list[dict[str, Any]] = [
        {"maker": {"name": "é", "city": {"zip": "01"}}, "a.b": 1, "list": [1, [2, 3]], "e": ""},
        {"float": 0.1, "small": 1e-7, "large": 1e300, "int": 2**63, "neg": -(2**63), "pi": 3.25},
        {"none": None, "empty": [], "nothing": {}, "yes": True, "text": 'a\n"b"\\ </x> \u2028'},
        {},
        {"name with space": "x", "日本": "語", "x" * 200: "y" * 40_000},
    ]
    ids = [str(number) for number in range(len(fields))]
    index.add(ids, image=tied_codes(len(ids), 1), fields=fields)
    [hits] = index.search(tied_codes(1, 1), 9, target="image")
    assert [(hit.id, hit.fields) for hit in hits] == list(zip(ids, fields, strict=True))


def test_filters_use_paths_of_objects_and_dotted_names(index: OpenSearchIndex) -> None:
    fields: list[dict[str, Any]] = [
        {"maker": {"name": "Ann", "age": 30}},
        {"maker.name": "Ben", "maker.age": 40},
        {"maker": [{"name": "Cid"}, {"name": "Ann"}]},
    ]
    index.add(["a", "b", "c"], text=tied_codes(3, 1), fields=fields)
    for where, found in (
        ({"maker.name": "Ann"}, ["a", "c"]),
        ({"maker.name": "Ben"}, ["b"]),
        ({"maker.age": {"gte": 35}}, ["b"]),
        ({"maker.age": {"exists": False}}, ["c"]),
    ):
        [hits] = index.search(tied_codes(1, 1), 9, target="text", where=where)
        assert [hit.id for hit in hits] == found, where


def test_refused_documents_are_named_and_others_stored(index: OpenSearchIndex) -> None:
    index.add(["a"], image=random_codes(1), fields=[{"maker": "Ann"}])
    fields = [{"maker": "Ben"}, {"maker": {"name": "Cid"}}, {"x..y": 1}]
    with pytest.raises(BulkFailure, match="2 of 3 documents") as refused:
        index.add(["b", "c", "d"], image=random_codes(3), fields=fields)
    assert set(refused.value.failed) == {"c", "d"}
    assert "maker" in refused.value.failed["c"]
    assert "\n" not in str(refused.value)
    assert len(index) == 2
    assert index.get(["d", "b", "c"]).codes("image")[0] == ["b"]


def test_refused_deletions_are_named(index: OpenSearchIndex, rest: Rest) -> None:
    index.add(["a", "b"], image=random_codes(2))
    rest("PUT", f"/{index.handle.name}/_settings", {"index.blocks.write": True})
    try:
        with pytest.raises(BulkFailure, match="2 of 2 documents") as refused:
            index.delete(["a", "b"])
    finally:
        rest("PUT", f"/{index.handle.name}/_settings", {"index.blocks.write": None})
    assert set(refused.value.failed) == {"a", "b"}
    assert "blocked by" in refused.value.failed["a"]
    assert index.delete(["a", "not there"]) == 1
    assert len(index) == 1


def test_ids_of_up_to_512_bytes_and_any_characters(index: OpenSearchIndex) -> None:
    ids = sorted(["a" * 512, "é" * 256, "a/b?c#d%20", "_x", "\u2028", "a\tb\n", "..", " ", "*"])
    index.add(ids, image=tied_codes(len(ids), 1), text=tied_codes(len(ids), 2))
    [hits] = index.search(tied_codes(1, 1), 99, target="image")
    assert [hit.id for hit in hits] == ids
    assert index.get(ids).codes("text") == (ids, tied_codes(len(ids), 2))
    assert [index.explain(i, tied_codes(1, 1), target="image").code_rank for i in ids] == [
        rank + 1 for rank in range(len(ids))
    ]
    assert index.delete([*ids, *ids, "b" * 513, "unknown"]) == len(ids)
    assert len(index) == 0


def test_get_and_sample_codes(index: OpenSearchIndex) -> None:
    index.add(["a", "b"], image=random_codes(2))
    index.add(["c"], text=random_codes(1))
    ids = ["c", "b", "unknown", "", "a", "b", "x" * 600]
    assert index.get(ids).codes("image") == (["b", "a"], random_codes(2)[[1, 0]])
    assert index.get(ids).codes("text") == (["c"], random_codes(1))
    assert index.get([]).codes("text") == ([], BinaryCodes.empty(64))
    sample, codes = sample_codes(index.handle, "image", 9)
    assert (sorted(sample), index.get(sample).codes("image")[1]) == (["a", "b"], codes)
    assert len(sample_codes(index.handle, "image", 1)[0]) == 1


# ---- more than 10,000 hits ----------------------------------------------------------------

MANY = 10_500


@pytest.fixture(scope="module")
def many(module_address: Address) -> Iterator[OpenSearchIndex]:
    """More documents than one request returns, on two shards, with five different codes."""
    with open_opensearch(module_address(shards="2"), bits=64, create=True) as index:
        index.add([f"{n:05d}" for n in range(MANY)], image=tied_codes(MANY, 5))
        yield index


@pytest.mark.parametrize("k", [9_999, 10_000, 10_001, 10_400, 20_000])
def test_search_returns_more_hits_than_one_request(many: OpenSearchIndex, k: int) -> None:
    expected = ranked(random_codes(1), [f"{n:05d}" for n in range(MANY)], tied_codes(MANY, 5))
    [hits] = many.search(random_codes(1), k, target="image")
    assert [(hit.distance, hit.id) for hit in hits] == expected[:k]


def test_knn_strategy_raises_for_too_many_hits(many: OpenSearchIndex) -> None:
    with open_opensearch(f"{many.handle.address}&strategy=knn") as index:
        expected = ranked(random_codes(1), [f"{n:05d}" for n in range(MANY)], tied_codes(MANY, 5))
        [hits] = index.search(random_codes(1), 30, target="image")
        assert [(hit.distance, hit.id) for hit in hits] == expected[:30]
        with pytest.raises(ServerFailure, match="more than 10,000"):
            index.search(random_codes(1), 9_999, target="image")
        with pytest.raises(ConfigError, match="strategy=script"):
            next(pages_of_hits(index.handle, random_codes(1), 10, target="image"))


def test_pages_are_consistent_while_documents_are_added(many: OpenSearchIndex) -> None:
    ids = [f"{n:05d}" for n in range(MANY)]
    nearest = tied_codes(MANY, 5)[:1]
    expected = ranked(nearest, ids, tied_codes(MANY, 5))
    found: list[tuple[int, str]] = []
    added = [f"~{n}" for n in range(50)]
    last = tied_codes(MANY, 5)[[int(expected[-1][1])] * 50]
    try:
        for page in pages_of_hits(many.handle, nearest, 3000, target="image"):
            many.add(added, image=last)  # would be on the last page
            many.handle.refresh()
            found += [(hit.distance, hit.id) for hit in page]
        assert found == expected
        assert len(many) == MANY + 50
    finally:
        assert many.delete(added) == 50


def test_pages_with_a_radius_or_a_filter(many: OpenSearchIndex) -> None:
    expected = ranked(random_codes(1), [f"{n:05d}" for n in range(MANY)], tied_codes(MANY, 5))
    radius = expected[0][0]
    within = [one for one in expected if one[0] <= radius]
    pages = list(pages_of_hits(many.handle, random_codes(1), 700, target="image", radius=radius))
    assert [(hit.distance, hit.id) for page in pages for hit in page] == within
    assert [len(page) for page in pages[:-1]] == [700] * (len(pages) - 1)
    where = {"x": 1}
    assert not list(pages_of_hits(many.handle, random_codes(1), 700, target="image", where=where))


# ---- graphs ----------------------------------------------------------------------------------


def test_search_approximate_returns_hits_and_recall(address: Address) -> None:
    with open_opensearch(address(strategy="lucene-hnsw"), bits=64, create=True) as index:
        ids = [f"{n:03d}" for n in range(400)]
        codes, fields = random_codes(400), [{"part": n % 4} for n in range(400)]
        index.add(ids, image=codes, fields=fields)
        queries = random_codes(3, seed=5)
        found = index.search_approximate(queries, 10, target="image")
        assert [len(hits) for hits in found.hits] == [10, 10, 10]
        for row, hits in enumerate(found.hits):
            pairs = [(hit.id, hit.distance) for hit in hits]
            distances = queries[row : row + 1].distances(codes)[0]
            assert pairs == [(id_, int(distances[int(id_)])) for id_, _ in pairs]
            assert pairs == sorted(pairs, key=lambda pair: (pair[1], pair[0]))
        assert found.recall == index.measure_recall(10, target="image")
        assert found.recall[1:] == (10, 32) and 0.5 < found.recall.value <= 1
        everything = index.search_approximate(queries, 400, target="image")
        assert everything.recall == Recall(1.0, 400, 32)
        part = index.search_approximate(queries, 5, target="image", where={"part": 2})
        assert {int(hit.id) % 4 for hits in part.hits for hit in hits} == {2}
        # Recall is measured with codes of the other modality, if there are any.
        index.add(["t"], text=random_codes(1))
        assert index.measure_recall(10, target="image").queries == 1


def test_recall_is_measured_once_per_target_and_k(
    address: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_opensearch(address(strategy="lucene-hnsw"), bits=64, create=True) as index:
        index.add(["a", "b"], image=random_codes(2))
        measured: list[int] = []
        measure = index.measure_recall

        def counted(k: int, *, target: Modality) -> Recall:
            measured.append(k)
            return measure(k, target=target)

        monkeypatch.setattr(index, "measure_recall", counted)
        for k in (1, 2, 1, 2):
            index.search_approximate(random_codes(1), k, target="image")
        assert measured == [1, 2]
        index.delete(["b"])
        index.search_approximate(random_codes(1), 1, target="image")
        assert measured == [1, 2, 1]


def test_mixed_batch_round_trip(index: OpenSearchIndex) -> None:
    codes = random_codes(4)
    batch = DocumentBatch.join(
        [
            DocumentBatch.of(["both"], image=codes[:1], text=codes[1:2], fields=[{"n": 1}]),
            DocumentBatch.of(["image"], image=codes[2:3]),
            DocumentBatch.of(["text"], text=codes[3:]),
        ]
    )
    assert index.add(batch) == 3
    stored = index.get(["text", "unknown", "both", "image", "both"])
    assert stored.ids == ["text", "both", "image"]
    assert stored.fields_by_id() == {"text": {}, "both": {"n": 1}, "image": {}}
    assert stored.codes("image") == (["both", "image"], codes[[0, 2]])
    assert stored.codes("text") == (["text", "both"], codes[[3, 1]])
    for modality in MODALITIES:
        [hits] = index.search(codes[:1], 9, target=modality)
        assert {hit.id for hit in hits} == {"both", modality}


def test_search_approximate_needs_a_graph(address: Address) -> None:
    for strategy in ("script", "knn", "long"):
        with open_opensearch(address(strategy=strategy), bits=64, create=True) as index:
            with pytest.raises(ConfigError, match=f"has no graph .its strategy is {strategy}"):
                index.search_approximate(random_codes(1), 1, target="image")
            assert index.measure_recall(5, target="image") == Recall(1.0, 5, 0)


def test_search_approximate_of_an_empty_graph(address: Address) -> None:
    with open_opensearch(address(strategy="lucene-hnsw"), bits=64, create=True) as index:
        found = index.search_approximate(random_codes(1), 3, target="text")
        assert found == ([[]], Recall(1.0, 3, 0))
        with pytest.raises(ConfigError, match="k is 10001"):
            index.search_approximate(random_codes(1), 10_001, target="text")


# ---- search by a document, and explanations -------------------------------------------------


def test_retriever_searches_by_a_stored_document(index: OpenSearchIndex) -> None:
    ids = [f"{n:02d}" for n in range(30)]
    codes = tied_codes(30, 4)
    index.add(ids, image=codes, fields=[{"n": n} for n in range(30)])
    index.add(["words"], text=codes[3:4])
    others = [one for one in ranked(codes[7:8], ids, codes) if one[1] != "07"]
    retriever = Retriever(None, index)
    found = retriever.search(like="07", k=12, where={"n": {"gte": 0}})
    assert [(hit.distance, hit.id) for hit in found] == others[:12]
    by_words = retriever.search(like="words", k=5)
    assert [(hit.distance, hit.id) for hit in by_words] == ranked(codes[3:4], ids, codes)[:5]
    with pytest.raises(IndexMissing, match="no document 'unknown'"):
        retriever.search(like="unknown", k=3)


@pytest.mark.parametrize("target", MODALITIES)
def test_explain_returns_the_rank_among_all_documents(
    index: OpenSearchIndex, target: Modality
) -> None:
    ids = [f"{n * 7919 % 1000:03d}" for n in range(80)]
    codes = tied_codes(80, 6)
    fields = [{"part": n % 2} for n in range(80)]
    index.add(ids, fields=fields, **{target: codes})
    query = random_codes(1, seed=9)
    for where in (None, {"part": 1}):
        rows = [n for n in range(80) if where is None or n % 2]
        expected = ranked(query, [ids[n] for n in rows], codes[rows])
        for position in (0, 1, 7, len(expected) // 2, len(expected) - 1):
            distance, id_ = expected[position]
            found = index.explain(id_, query, target=target, where=where)
            assert (found.id, found.distance, found.code_rank) == (id_, distance, position + 1)
            differs = codes[[ids.index(id_)]].to_bits()[0] != query.to_bits()[0]
            assert found.differing == tuple(np.flatnonzero(differs))
            assert found.agreeing == 64 - distance
            assert found.text_rank is None


def test_explain_returns_the_differing_bits(index: OpenSearchIndex) -> None:
    index.add(["a"], image=BinaryCodes.from_hex(["00" * 7 + "07"]))
    query = BinaryCodes.from_hex(["00" * 8])
    found = index.explain("a", query, target="image")
    assert (found.distance, found.differing) == (3, (61, 62, 63))
    for id_, target in (("unknown", "image"), ("a", "text")):
        with pytest.raises(IndexMissing, match=f"'{id_}' .* {target}"):
            index.explain(id_, query, target=target)  # type: ignore[arg-type]
