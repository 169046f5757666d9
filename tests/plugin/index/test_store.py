"""One index on the real node: opened or refused, its fields, and what goes beyond the contract."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from xmodal.codes import BinaryCodes
from xmodal.errors import BulkFailure, ConfigError, IndexMismatch, IndexMissing, ServerFailure
from xmodal.index.contract import open_index
from xmodal.modality import MODALITIES, Modality
from xmodal.retrieval.retriever import Retriever
from xmodal_opensearch.index import mapping
from xmodal_opensearch.index.mapping import SELF_TEST_FIELD, SELF_TEST_ID
from xmodal_opensearch.index.store import OpenSearchIndex, Recall, open_opensearch

STRATEGIES = ("script", "knn", "long", "lucene-hnsw")
Address = Callable[..., str]
Rest = Callable[..., Any]


def random_codes(count: int, bits: int = 64, seed: int = 0) -> BinaryCodes:
    rows = np.random.default_rng(seed).integers(256, size=(count, bits // 8), dtype=np.uint8)
    return BinaryCodes(rows, bits)


def tied_codes(count: int, different: int, bits: int = 64) -> BinaryCodes:
    """Codes of which only a few differ, so that distances tie."""
    return random_codes(different, bits)[np.random.default_rng(1).integers(different, size=count)]


def ranked(query: BinaryCodes, ids: list[str], codes: BinaryCodes) -> list[tuple[int, str]]:
    """The whole answer by numpy: distance, then id."""
    return sorted(zip(map(int, query.distances(codes)[0]), ids, strict=True))


@pytest.fixture(params=STRATEGIES)
def made(request: pytest.FixtureRequest, address: Address) -> Iterator[OpenSearchIndex]:
    """An empty index of 64 bits, of every way."""
    with open_opensearch(address(strategy=request.param), bits=64, create=True) as index:
        yield index


# ---- opened, or refused ----------------------------------------------------------------------


def test_an_index_says_what_it_is(made: OpenSearchIndex) -> None:
    assert repr(made).startswith(f"{made.handle.name} on OpenSearch 3.")
    assert repr(made).endswith(f", 64 bits, {made.handle.strategy.title}")
    assert made.handle.name == f"{made.handle.address.index}-000001"


def test_a_missing_index_is_told_with_what_to_do(address: Address) -> None:
    where = address()
    with pytest.raises(IndexMissing, match="make one with xmodal index DATA --index opensearch://"):
        open_index(where, bits=64)


def test_an_index_of_somebody_else_is_refused(address: Address, rest: Rest) -> None:
    where = address()
    rest("PUT", "/" + where.rpartition("/")[2], {"mappings": {"properties": {}}})
    for create in (False, True):
        with pytest.raises(IndexMismatch, match=r"holds no codes of ours .* enrich, or name a new"):
            open_index(where, bits=64, create=create)


def test_a_version_of_mappings_that_we_do_not_know_is_refused(address: Address, rest: Rest) -> None:
    where = address()
    with open_opensearch(where, bits=64, create=True) as index:
        meta = index.handle.read_meta()
    meta["xmodal"]["mapping_version"] = 2
    rest("PUT", f"/{index.handle.name}/_mapping", {"_meta": meta})
    with pytest.raises(IndexMismatch, match="has mapping version 2"):
        open_index(where)


@pytest.mark.parametrize("order", ["last bit first", "last byte first"])
@pytest.mark.parametrize("way", ["script", "knn", "long"])
def test_codes_that_were_packed_in_another_order_are_found_out(
    address: Address, rest: Rest, way: str, order: str
) -> None:
    where = address(strategy=way)
    with open_opensearch(where, bits=64, create=True) as index:
        ours = mapping.self_test_code(64)
        little = np.packbits(ours.to_bits(), axis=1, bitorder="little")
        wrong = little if order == "last bit first" else ours.packed[:, ::-1]
        [value] = index.handle.layout.values(BinaryCodes(wrong, 64))
    path = f"/{index.handle.name}/_doc/{SELF_TEST_ID}?refresh=true"
    rest("PUT", path, {SELF_TEST_FIELD: value})
    with pytest.raises(IndexMismatch, match="packs bits in another way"):
        open_index(where)


def test_a_lost_self_test_is_told(
    address: Address, rest: Rest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xmodal_opensearch.index.bit_order_check.SETTLING", 0.3)
    where = address()
    with open_opensearch(where, bits=64, create=True) as index:
        pass
    rest("DELETE", f"/{index.handle.name}/_doc/{SELF_TEST_ID}?refresh=true")
    with pytest.raises(IndexMismatch, match="has lost its self-test document"):
        open_index(where)


def test_the_self_test_is_no_document_of_the_user(made: OpenSearchIndex) -> None:
    with pytest.raises(ConfigError, match="that of the index' own self-test"):
        made.add([SELF_TEST_ID], image=random_codes(1))
    made.add(["a"], image=random_codes(1))
    assert made.delete([SELF_TEST_ID]) == 0
    assert len(made) == 1
    for side in MODALITIES:
        assert made.get([SELF_TEST_ID]).codes(side) == ([], BinaryCodes.empty(64))
    open_opensearch(str(made.handle.address)).close()


def test_two_handles_agree_on_the_encoder(address: Address) -> None:
    where = address()
    open_opensearch(where, bits=64, create=True).close()
    first, second = (open_opensearch(where, fingerprint=encoder) for encoder in ("e1", "e2"))
    with first, second:
        first.add(["a"], image=random_codes(1))
        with pytest.raises(IndexMismatch, match="filled by encoder e1, this is encoder e2"):
            second.add(["a"], image=random_codes(1, seed=1))
    with open_opensearch(where) as index:
        assert index.fingerprint == "e1"
        assert index.get(["a"]).codes("image")[1] == random_codes(1)


def test_two_handles_see_what_the_other_finished(address: Address) -> None:
    where = address()
    with open_opensearch(where, bits=64, create=True) as writer:
        writer.add(["a"], image=random_codes(1))
        with open_opensearch(where) as reader:
            writer.add(["b"], image=random_codes(1))
            assert len(writer) == 2  # which makes it visible to everybody
            [hits] = reader.search(random_codes(1), 9, target="image")
            assert [hit.id for hit in hits] == ["a", "b"]


# ---- documents -------------------------------------------------------------------------------


def test_fields_come_back_as_they_were_given(made: OpenSearchIndex) -> None:
    fields: list[dict[str, Any]] = [
        {"maker": {"name": "é", "city": {"zip": "01"}}, "a.b": 1, "list": [1, [2, 3]], "e": ""},
        {"float": 0.1, "small": 1e-7, "large": 1e300, "int": 2**63, "neg": -(2**63), "pi": 3.25},
        {"none": None, "empty": [], "nothing": {}, "yes": True, "text": 'a\n"b"\\ </x> \u2028'},
        {},
        {"name with space": "x", "日本": "語", "x" * 200: "y" * 40_000},
    ]
    ids = [str(number) for number in range(len(fields))]
    made.add(ids, image=tied_codes(len(ids), 1), fields=fields)
    [hits] = made.search(tied_codes(1, 1), 9, target="image")
    assert [(hit.id, hit.fields) for hit in hits] == list(zip(ids, fields, strict=True))


def test_objects_and_names_with_dots_can_be_filtered_by_their_path(made: OpenSearchIndex) -> None:
    fields: list[dict[str, Any]] = [
        {"maker": {"name": "Ann", "age": 30}},
        {"maker.name": "Ben", "maker.age": 40},
        {"maker": [{"name": "Cid"}, {"name": "Ann"}]},
    ]
    made.add(["a", "b", "c"], text=tied_codes(3, 1), fields=fields)
    for where, found in (
        ({"maker.name": "Ann"}, ["a", "c"]),
        ({"maker.name": "Ben"}, ["b"]),
        ({"maker.age": {"gte": 35}}, ["b"]),
        ({"maker.age": {"exists": False}}, ["c"]),
    ):
        [hits] = made.search(tied_codes(1, 1), 9, target="text", where=where)
        assert [hit.id for hit in hits] == found, where


def test_refused_documents_are_named_and_the_others_stored(made: OpenSearchIndex) -> None:
    made.add(["a"], image=random_codes(1), fields=[{"maker": "Ann"}])
    fields = [{"maker": "Ben"}, {"maker": {"name": "Cid"}}, {"x..y": 1}]
    with pytest.raises(BulkFailure, match="2 of 3 documents were refused, 'c' first") as refused:
        made.add(["b", "c", "d"], image=random_codes(3), fields=fields)
    assert set(refused.value.failed) == {"c", "d"}
    assert "maker" in refused.value.failed["c"]
    assert "\n" not in str(refused.value)
    assert len(made) == 2
    assert made.get(["d", "b", "c"]).codes("image")[0] == ["b"]


def test_a_refused_delete_names_the_documents(made: OpenSearchIndex, rest: Rest) -> None:
    made.add(["a", "b"], image=random_codes(2))
    rest("PUT", f"/{made.handle.name}/_settings", {"index.blocks.write": True})
    try:
        with pytest.raises(BulkFailure, match="2 of 2 documents were refused") as refused:
            made.delete(["a", "b"])
    finally:
        rest("PUT", f"/{made.handle.name}/_settings", {"index.blocks.write": None})
    assert set(refused.value.failed) == {"a", "b"}
    assert "blocked by" in refused.value.failed["a"]
    assert made.delete(["a", "not there"]) == 1
    assert len(made) == 1


def test_ids_of_up_to_512_bytes_and_of_any_signs(made: OpenSearchIndex) -> None:
    ids = sorted(["a" * 512, "é" * 256, "a/b?c#d%20", "_x", "\u2028", "a\tb\n", "..", " ", "*"])
    made.add(ids, image=tied_codes(len(ids), 1), text=tied_codes(len(ids), 2))
    [hits] = made.search(tied_codes(1, 1), 99, target="image")
    assert [hit.id for hit in hits] == ids
    assert made.get(ids).codes("text") == (ids, tied_codes(len(ids), 2))
    assert [made.explain(i, tied_codes(1, 1), target="image").code_rank for i in ids] == [
        place + 1 for place in range(len(ids))
    ]
    assert made.delete([*ids, *ids, "b" * 513, "unknown"]) == len(ids)
    assert len(made) == 0


def test_codes_are_told_in_the_order_in_which_they_are_asked_for(made: OpenSearchIndex) -> None:
    made.add(["a", "b"], image=random_codes(2))
    made.add(["c"], text=random_codes(1))
    asked = ["c", "b", "unknown", "a", "b", "x" * 600]
    assert made.get(asked).codes("image") == (["b", "a"], random_codes(2)[[1, 0]])
    assert made.get(asked).codes("text") == (["c"], random_codes(1))
    assert made.get([]).codes("text") == ([], BinaryCodes.empty(64))
    ids, codes = made.sample("image", 9)
    assert (sorted(ids), made.get(ids).codes("image")[1]) == (["a", "b"], codes)
    assert len(made.sample("image", 1)[0]) == 1


# ---- large answers ---------------------------------------------------------------------------

MANY = 10_500


@pytest.fixture(scope="module")
def many(lasting_address: Address) -> Iterator[OpenSearchIndex]:
    """More documents than one request returns, on two shards; their codes are few."""
    with open_opensearch(lasting_address(shards="2"), bits=64, create=True) as index:
        index.add([f"{n:05d}" for n in range(MANY)], image=tied_codes(MANY, 5))
        yield index


@pytest.mark.parametrize("k", [9_999, 10_000, 10_001, 10_400, 20_000])
def test_more_hits_than_one_request_returns(many: OpenSearchIndex, k: int) -> None:
    want = ranked(random_codes(1), [f"{n:05d}" for n in range(MANY)], tied_codes(MANY, 5))
    [hits] = many.search(random_codes(1), k, target="image")
    assert [(hit.distance, hit.id) for hit in hits] == want[:k]


def test_a_knn_query_refuses_what_it_cannot_answer(many: OpenSearchIndex) -> None:
    with open_opensearch(f"{many.handle.address}&strategy=knn") as index:
        want = ranked(random_codes(1), [f"{n:05d}" for n in range(MANY)], tied_codes(MANY, 5))
        [hits] = index.search(random_codes(1), 30, target="image")
        assert [(hit.distance, hit.id) for hit in hits] == want[:30]
        with pytest.raises(
            ServerFailure, match=r"more than 10,000 .* use strategy=script, or filter"
        ):
            index.search(random_codes(1), 9_999, target="image")
        with pytest.raises(ConfigError, match="page with strategy=script"):
            next(index.handle.pages(random_codes(1), 10, target="image"))


def test_pages_fit_together_while_documents_are_added(many: OpenSearchIndex) -> None:
    ids = [f"{n:05d}" for n in range(MANY)]
    nearest = tied_codes(MANY, 5)[:1]
    want = ranked(nearest, ids, tied_codes(MANY, 5))
    found: list[tuple[int, str]] = []
    added = [f"~{n}" for n in range(50)]
    last = tied_codes(MANY, 5)[[int(want[-1][1])] * 50]
    try:
        for page in many.handle.pages(nearest, 3000, target="image"):
            many.add(added, image=last)  # which would come on the last page
            many.handle.refresh()
            found += [(hit.distance, hit.id) for hit in page]
        assert found == want
        assert len(many) == MANY + 50
    finally:
        assert many.delete(added) == 50


def test_pages_end_with_a_radius_or_a_filter(many: OpenSearchIndex) -> None:
    want = ranked(random_codes(1), [f"{n:05d}" for n in range(MANY)], tied_codes(MANY, 5))
    radius = want[0][0]
    within = [one for one in want if one[0] <= radius]
    pages = list(many.handle.pages(random_codes(1), 700, target="image", radius=radius))
    assert [(hit.distance, hit.id) for page in pages for hit in page] == within
    assert [len(page) for page in pages[:-1]] == [700] * (len(pages) - 1)
    assert list(many.handle.pages(random_codes(1), 700, target="image", where={"x": 1})) == []


# ---- graphs ----------------------------------------------------------------------------------


def test_a_graph_answers_and_tells_how_much_it_finds(address: Address) -> None:
    with open_opensearch(address(strategy="lucene-hnsw"), bits=64, create=True) as index:
        ids = [f"{n:03d}" for n in range(400)]
        codes, fields = random_codes(400), [{"part": n % 4} for n in range(400)]
        index.add(ids, image=codes, fields=fields)
        asked = random_codes(3, seed=5)
        found = index.search_approximate(asked, 10, target="image")
        assert [len(hits) for hits in found.hits] == [10, 10, 10]
        for row, hits in enumerate(found.hits):
            told = [(hit.id, hit.distance) for hit in hits]
            by_hand = asked[row : row + 1].distances(codes)[0]
            assert told == [(id_, int(by_hand[int(id_)])) for id_, _ in told]
            assert told == sorted(told, key=lambda one: (one[1], one[0]))
        assert found.recall == index.measure_recall(10, target="image")
        assert found.recall[1:] == (10, 32) and 0.5 < found.recall.value <= 1
        everything = index.search_approximate(asked, 400, target="image")
        assert everything.recall == Recall(1.0, 400, 32)
        part = index.search_approximate(asked, 5, target="image", where={"part": 2})
        assert {int(hit.id) % 4 for hits in part.hits for hit in hits} == {2}
        # Codes of the other side ask for this one, as real queries do.
        index.add(["t"], text=random_codes(1))
        assert index.measure_recall(10, target="image").queries == 1


def test_an_index_without_a_graph_has_nothing_approximate(address: Address) -> None:
    for way in ("script", "knn", "long"):
        with open_opensearch(address(strategy=way), bits=64, create=True) as index:
            with pytest.raises(ConfigError, match=f"has no graph .its strategy is {way}.: load"):
                index.search_approximate(random_codes(1), 1, target="image")
            assert index.measure_recall(5, target="image") == Recall(1.0, 5, 0)


def test_a_graph_of_nothing_is_asked_in_vain(address: Address) -> None:
    with open_opensearch(address(strategy="lucene-hnsw"), bits=64, create=True) as index:
        found = index.search_approximate(random_codes(1), 3, target="text")
        assert found == ([[]], Recall(1.0, 3, 0))
        with pytest.raises(ConfigError, match="k is 10001, expected at most 10,000"):
            index.search_approximate(random_codes(1), 10_001, target="text")


# ---- search by a document, and explanations -------------------------------------------------


def test_search_by_a_stored_document(made: OpenSearchIndex) -> None:
    ids = [f"{n:02d}" for n in range(30)]
    codes = tied_codes(30, 4)
    made.add(ids, image=codes, fields=[{"n": n} for n in range(30)])
    made.add(["words"], text=codes[3:4])
    others = [one for one in ranked(codes[7:8], ids, codes) if one[1] != "07"]
    retriever = Retriever(None, made)
    found = retriever.search(like="07", k=12, where={"n": {"gte": 0}})
    assert [(hit.distance, hit.id) for hit in found] == others[:12]
    by_words = retriever.search(like="words", k=5)
    assert [(hit.distance, hit.id) for hit in by_words] == ranked(codes[3:4], ids, codes)[:5]
    with pytest.raises(IndexMissing, match="no document 'unknown'"):
        retriever.search(like="unknown", k=3)


@pytest.mark.parametrize("target", MODALITIES)
def test_a_rank_is_the_place_in_the_whole_answer(made: OpenSearchIndex, target: Modality) -> None:
    ids = [f"{n * 7919 % 1000:03d}" for n in range(80)]
    codes = tied_codes(80, 6)
    fields = [{"part": n % 2} for n in range(80)]
    made.add(ids, fields=fields, **{target: codes})
    query = random_codes(1, seed=9)
    for where in (None, {"part": 1}):
        kept = [n for n in range(80) if where is None or n % 2]
        want = ranked(query, [ids[n] for n in kept], codes[kept])
        for place in (0, 1, 7, len(want) // 2, len(want) - 1):
            distance, id_ = want[place]
            told = made.explain(id_, query, target=target, where=where)
            assert (told.id, told.distance, told.code_rank) == (id_, distance, place + 1)
            own = codes[[ids.index(id_)]].to_bits()[0] != query.to_bits()[0]
            assert told.differing == tuple(np.flatnonzero(own))
            assert (told.agreeing, told.text_rank, told.confidence) == (64 - distance, None, None)


def test_confidence_is_asked_of_the_encoder(made: OpenSearchIndex) -> None:
    made.add(["a"], image=BinaryCodes.from_hex(["00" * 7 + "07"]))
    query = BinaryCodes.from_hex(["00" * 8])
    told = made.explain("a", query, target="image", confidence=lambda distance: distance / 64)
    assert (told.distance, told.differing, told.confidence) == (3, (61, 62, 63), 3 / 64)
    for id_, target in (("unknown", "image"), ("a", "text")):
        with pytest.raises(IndexMissing, match=f"no document '{id_}' with a code for its {target}"):
            made.explain(id_, query, target=target)  # type: ignore[arg-type]
