"""Documents with several codes of a modality on a real node, beyond the contract suite."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from support.hamming_server import Server

from xmodal.codes import BinaryCodes
from xmodal.errors import BulkFailure, ConfigError, ServerFailure
from xmodal.index.contract import Hits, Index, WordsQuery, open_index
from xmodal.index.documents import DocumentBatch
from xmodal.index.query_codes import QueryCodes
from xmodal.modality import MODALITIES
from xmodal_opensearch.diagnostics.measurements import diagnose
from xmodal_opensearch.index import queries
from xmodal_opensearch.index.bulk_lines import index_lines
from xmodal_opensearch.index.exact_search import count_within, hit_source, pages_of_hits
from xmodal_opensearch.index.mapping import LAYOUTS, nested_path
from xmodal_opensearch.index.store import OpenSearchIndex, open_opensearch
from xmodal_opensearch.loading.load import load

Address = Callable[..., str]
Rest = Callable[..., Any]
BITS, DOCUMENTS = 72, 5000
STRATEGIES = ("script", "knn", "long", "lucene-hnsw")


def some_codes(rng: np.random.Generator, count: int, bits: int = BITS) -> BinaryCodes:
    """Return codes of few distinct bytes, so that distances tie."""
    values = np.array([0, 1, 3, 255], np.uint8)
    return BinaryCodes(rng.choice(values, size=(count, bits // 8)), bits)


def random_documents(count: int, most: int = 7) -> DocumentBatch:
    """Return documents with 1 to ``most`` codes of each modality, and fields to filter by."""
    rng = np.random.default_rng(count)
    ids = [f"{number:05d}" for number in rng.permutation(count)]
    columns = {
        modality: [some_codes(rng, int(rng.integers(1, most + 1))) for _ in ids]
        for modality in MODALITIES
    }
    fields = [{"colour": ["red", "blue"][n % 2], "price": n % 100} for n in range(count)]
    return DocumentBatch.of(ids, image=columns["image"], text=columns["text"], fields=fields)


def as_tuples(hits: Hits) -> list[list[tuple[Any, ...]]]:
    return [[(hit.id, hit.distance, hit.nearest, hit.fields) for hit in row] for row in hits]


@pytest.fixture(scope="module")
def documents() -> DocumentBatch:
    return random_documents(DOCUMENTS)


@pytest.fixture(scope="module")
def local(documents: DocumentBatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Index]:
    folder = tmp_path_factory.mktemp("indexes") / "local.index"
    with open_index(folder, bits=BITS, create=True) as index:  # type: ignore[attr-defined]
        index.add(documents)
        yield index


@pytest.mark.parametrize("strategies", [("hamming", "script", "knn"), ("long",)])
def test_5000_documents_with_1_to_7_codes_equal_the_local_index(
    plugin_url: str,
    documents: DocumentBatch,
    local: Index,
    strategies: tuple[str, ...],
    tmp_path: Path,
) -> None:
    name = f"several-{uuid4().hex[:8]}"
    where = f"{plugin_url.replace('http', 'opensearch')}/{name}?strategy="
    rng = np.random.default_rng(1)
    queries = some_codes(rng, 4)
    cases: list[tuple[int, dict[str, Any]]] = [
        *((k, {}) for k in (1, 10, 300)),
        *((k, {"where": {"colour": "red"}}) for k in (10, 300)),
        *((k, {"where": {"price": {"gte": 90}}, "radius": 20}) for k in (10, 300)),
        *((k, {"radius": 12}) for k in (10, 300)),
        (10, {"where": {"colour": "none"}}),
    ]
    expected = {
        (target, number): as_tuples(local.search(queries, k, target=target, **case))
        for target in MODALITIES
        for number, (k, case) in enumerate(cases)
    }
    try:
        with open_opensearch(where + strategies[0], bits=BITS, create=True) as index:
            parts = [documents.take(range(at, at + 1000)) for at in range(0, DOCUMENTS, 1000)]
            assert load(index, parts, checkpoints=tmp_path).failed == {}
            assert len(index) == DOCUMENTS
            some = documents.ids[:50]
            assert index.get(some).codes("text") == local.get(some).codes("text")
        for strategy in strategies:
            with open_opensearch(where + strategy, bits=BITS) as index:
                for (target, number), right in expected.items():
                    k, case = cases[number]
                    found = index.search(queries, k, target=target, **case)
                    assert as_tuples(found) == right, (strategy, target, k, case)
    finally:
        Server(plugin_url)("DELETE", f"{name}-*")


@pytest.fixture(params=STRATEGIES)
def index(request: pytest.FixtureRequest, address: Address) -> Iterator[OpenSearchIndex]:
    """An index of 300 documents with 1 to 7 codes, of every strategy."""
    where = address(strategy=request.param)
    with open_opensearch(where, bits=BITS, create=True) as opened:
        opened.add(random_documents(300))
        opened.handle.refresh()
        yield opened


def ranked(batch: DocumentBatch, query: BinaryCodes) -> list[tuple[int, str, int]]:
    """Return distance, id and position of the nearest text code of all documents, best first."""
    found = []
    for row, id_ in enumerate(batch.ids):
        start, end = batch.offsets["text"][row : row + 2]
        distances = query.distances(BinaryCodes(batch.packed["text"][start:end], BITS))[0].tolist()
        found.append((min(distances), id_, distances.index(min(distances))))
    return sorted(found)


def test_pages_counts_explanations_and_fused_search(index: OpenSearchIndex) -> None:
    batch = random_documents(300)
    query = some_codes(np.random.default_rng(5), 1)
    expected = ranked(batch, query)
    if index.handle.strategy.build is not None:
        pages = pages_of_hits(index.handle, query, 70, target="text")
        found = [(hit.distance, hit.id, hit.nearest) for page in pages for hit in page]
        assert found == expected
    for radius in (5, 20, BITS):
        within = sum(distance <= radius for distance, _, _ in expected)
        assert count_within(index.handle, query, "text", [], radius) == within
    for rank in (1, 40, 300):
        distance, id_, nearest = expected[rank - 1]
        explained = index.explain(id_, query, target="text")
        assert (explained.distance, explained.nearest) == (distance, nearest)
        assert (explained.code_rank, len(explained.differing)) == (rank, distance)
    hits = index.measure(query, batch.ids, target="text").values()
    assert sorted((hit.distance, hit.id, hit.nearest) for hit in hits) == expected
    [words] = index.search_words([WordsQuery("red")], 300, target="text")
    assert len(words) == 150
    assert index.facets()["colour"] == [("blue", 150), ("red", 150)]
    assert all(nested_path(m) not in hit.fields for hit in hits for m in MODALITIES)
    stats = {one.modality: one for one in diagnose(index).modalities}
    assert stats["text"].codes == stats["text"].read == int(batch.counts("text").sum())


def test_graph_of_nested_codes(address: Address) -> None:
    with open_opensearch(address(strategy="lucene-hnsw"), bits=BITS, create=True) as index:
        rng = np.random.default_rng(3)
        rows = rng.integers(256, size=(1200, BITS // 8), dtype=np.uint8)
        codes = [BinaryCodes(rows[4 * n : 4 * n + 4], BITS) for n in range(300)]
        index.add([f"{n:03d}" for n in range(300)], image=codes)
        found = index.search_approximate(codes[7][2:3], 5, target="image")
        assert len(found.hits[0]) == len({hit.id for hit in found.hits[0]}) == 5
        assert (found.hits[0][0].id, found.hits[0][0].nearest) == ("007", 2)
        assert found.recall.value > 0.5


@pytest.mark.parametrize("strategy", ["script", "long"])
def test_number_of_codes_of_a_document_changes(address: Address, strategy: str) -> None:
    where = address(strategy=strategy)
    one, three = some_codes(np.random.default_rng(1), 1), some_codes(np.random.default_rng(2), 3)
    with (
        open_opensearch(where, bits=BITS, create=True) as index,
        open_opensearch(where) as reader,  # reads the mapping before it has nested codes
    ):
        for codes in (one, three, one):
            index.add(["a"], text=[codes])
            distances = one.distances(codes)[0].tolist()
            assert len(index) == 1
            for opened in (index, reader):
                [[hit]] = opened.search(one, 9, target="text")
                assert hit.distance == min(distances)
                assert hit.nearest == distances.index(min(distances))
            assert reader.get(["a"]).codes("text")[1] == codes
        index.add(["a"], image=[one], text=[BinaryCodes.empty(BITS)])
        assert index.search(one, 9, target="text") == [[]]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_partial_update_keeps_the_codes(address: Address, rest: Rest, strategy: str) -> None:
    with open_opensearch(address(strategy=strategy), bits=BITS, create=True) as index:
        codes = some_codes(np.random.default_rng(2), 4)
        index.add(["a"], image=codes[:1], text=[codes])
        change = {"doc": {"colour": "red"}}
        rest("POST", f"/{index.handle.name}/_update/a?refresh=true", change)
        assert index.get(["a"]).codes("text")[1] == codes
        [[hit]] = index.search(codes[2:3], 9, target="text")
        assert (hit.distance, hit.nearest, hit.fields) == (0, 2, {"colour": "red"})


def test_two_handles_add_the_first_documents_with_several_codes(address: Address) -> None:
    where = address()
    with open_opensearch(where, bits=BITS, create=True) as first, open_opensearch(where) as second:
        codes = some_codes(np.random.default_rng(1), 2)
        first.add(["a"], image=[codes])
        second.add(["b"], image=[codes])
        second.handle.refresh()
        [hits] = first.search(codes[:1], 9, target="image")
        assert [(hit.id, hit.distance, hit.nearest) for hit in hits] == [("a", 0, 0), ("b", 0, 0)]


def test_fields_of_nested_codes_are_added_with_the_first_document(
    address: Address, rest: Rest
) -> None:
    with open_opensearch(address(), bits=BITS, create=True) as index:
        codes = some_codes(np.random.default_rng(1), 2)
        index.add(["a", "b"], image=codes)
        properties = rest("GET", f"/{index.handle.name}/_mapping")[index.handle.name]["mappings"]
        assert "image_codes" not in properties["properties"]
        index.add(["c"], image=[codes], text=codes[:1])
        properties = rest("GET", f"/{index.handle.name}/_mapping")[index.handle.name]["mappings"]
        assert properties["properties"]["image_codes"]["type"] == "nested"
        assert "text_codes" not in properties["properties"]
        stored = rest("GET", f"/{index.handle.name}/_doc/c")["_source"]
        assert stored["image_codes"] == [{"code": code} for code in codes.to_signed()]
        assert "image_code" not in stored and "text_code" in stored
        with pytest.raises(ConfigError, match="'text_codes', which is reserved"):
            index.add(["d"], text=codes[:1], fields=[{"text_codes": "x"}])


def test_more_codes_than_the_limit_of_the_index_are_refused(address: Address, rest: Rest) -> None:
    with open_opensearch(address(), bits=BITS, create=True) as index:
        limit = {"index.mapping.nested_objects.limit": 5}
        rest("PUT", f"/{index.handle.name}/_settings", limit)
        codes = some_codes(np.random.default_rng(1), 6)
        with pytest.raises(BulkFailure, match=r"index\.mapping\.nested_objects\.limit") as failure:
            index.add(["fits", "too many"], image=[codes[:5], codes])
        assert list(failure.value.failed) == ["too many"] and "\n" not in str(failure.value)
        assert len(index) == 1


def test_field_of_the_user_with_a_reserved_name_is_reported(address: Address, rest: Rest) -> None:
    """An index of an earlier version may have such a field: it stays searchable."""
    with open_opensearch(address(), bits=BITS, create=True) as index:
        mapping = {"properties": {"image_codes": {"type": "keyword"}}}
        rest("PUT", f"/{index.handle.name}/_mapping", mapping)
        codes = some_codes(np.random.default_rng(1), 2)
        index.add(["a"], image=codes[:1])
        [[hit]] = index.search(codes[:1], 9, target="image")
        assert hit.id == "a"
        with pytest.raises(ServerFailure, match="image_codes"):
            index.add(["b"], image=[codes])


def test_request_in_the_documentation_is_that_of_the_client() -> None:
    page = Path(__file__).parents[3] / "docs" / "opensearch.md"
    [documented] = re.findall(r"```json\n(.*?)```", page.read_text(), re.DOTALL)
    code = QueryCodes(BinaryCodes.from_hex(["9f3c00a1"]))
    large = [{"terms": {"size": ["large"]}}]
    query = queries.by_all(queries.by_script, "text", code, LAYOUTS["faiss"], large)
    assert json.loads(documented) == queries.search_body(query, 10, hit_source("text"))


def test_code_lines_are_json() -> None:
    batch = random_documents(20)
    for layout in LAYOUTS.values():
        for line in index_lines(batch, layout):
            stored = json.loads(line.body.splitlines()[1])
            row = batch.ids.index(line.id)
            start, end = batch.offsets["image"][row : row + 2]
            codes = BinaryCodes(batch.packed["image"][start:end], BITS)
            objects = stored.get("image_codes") or layout.objects([stored["image_code"]])
            assert layout.object_codes(objects, BITS) == codes
            assert ("image_codes" in stored) == (len(codes) > 1)
