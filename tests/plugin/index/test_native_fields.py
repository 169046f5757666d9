"""Filters on fields with native types (numbers, dates, booleans, text) on a real node."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from contract.oracle import Oracle, codes
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xmodal.errors import BulkFailure, ConfigError, ServerFailure
from xmodal_opensearch.client.address import parse_address
from xmodal_opensearch.client.server import Server
from xmodal_opensearch.index.creation import make_version
from xmodal_opensearch.index.mapping import LAYOUTS
from xmodal_opensearch.index.store import OpenSearchIndex, open_opensearch

KEYWORD = {"keyword": {"type": "keyword"}}
MAPPED: dict[str, Any] = {
    "count": {"type": "long"},
    "size": {"type": "byte"},
    "huge": {"type": "unsigned_long"},
    "price": {"type": "double"},
    "weight": {"type": "float"},
    "half": {"type": "half_float"},
    "cents": {"type": "scaled_float", "scaling_factor": 100},
    "day": {"type": "date"},
    "sale": {"type": "boolean"},
    "name": {"type": "keyword"},
    "caption": {"type": "text", "fields": KEYWORD},
    "story": {"type": "text"},
    "parts": {"type": "nested", "properties": {"size": {"type": "long"}}},
}
WHOLE = st.sampled_from([-3, 0, 7, 10])
PARTS = st.sampled_from([-0.5, 0, 9.5, 10])  # exact in every type of floats
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "count": WHOLE | st.just(2**53 + 1),
    "size": WHOLE,
    "huge": st.sampled_from([0, 7, 2**63]),
    "price": PARTS,
    "weight": PARTS,
    "half": PARTS,
    "cents": PARTS,
    "day": st.sampled_from(["2011-01-02", "2011-10-01", "2012-01-01"]),
    "sale": st.booleans(),
    "name": st.sampled_from(["red", "Red", "10", ""]),
    "caption": st.sampled_from(["a red boat", "red", "", "é"]),
}
ANY_NUMBER = WHOLE | PARTS | st.sampled_from([200, 70000, 2**31, -(2**63) - 1, 2**64, 1e39, -1e300])
COMPARED: dict[str, st.SearchStrategy[Any]] = {
    name: ANY_NUMBER if name not in ("day", "sale", "name", "caption") else values
    for name, values in FIELDS.items()
}
BOUNDS = ("gt", "gte", "lt", "lte")


def conditions(name: str, values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Return a strategy of terms, ranges and existence of one field."""
    exists = st.booleans().map(lambda present: {"exists": present})
    terms = values | st.lists(values, min_size=1, max_size=3)
    if name == "sale":
        return terms | exists | st.just({"gte": 0}) | st.just({"gt": "no"})
    if name == "name":  # a keyword without a numeric sub-field has no ranges of numbers
        values = values.filter(lambda value: value != "10")
    return terms | exists | st.dictionaries(st.sampled_from(BOUNDS), values, min_size=1, max_size=3)


DOCUMENTS = st.fixed_dictionaries(
    {}, optional={name: values | st.lists(values, max_size=2) for name, values in FIELDS.items()}
)
WHERE = st.sampled_from(sorted(COMPARED)).flatmap(
    lambda name: st.fixed_dictionaries({name: conditions(name, COMPARED[name])})
)


@pytest.fixture
def index(address: Callable[..., str]) -> Iterator[OpenSearchIndex]:
    """An index whose fields have native types."""
    parsed = parse_address(address())
    server = Server(parsed)
    make_version(server, parsed, 8, None, LAYOUTS["flat"], alias=parsed.index, fields=MAPPED)
    server.close()
    with open_opensearch(str(parsed)) as opened:
        yield opened


@settings(
    deadline=None,
    max_examples=30,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    documents=st.lists(DOCUMENTS, min_size=8, max_size=8),
    wheres=st.lists(WHERE, min_size=20, max_size=20),
)
def test_filters_on_native_fields_equal_the_oracle(
    index: OpenSearchIndex, documents: list[dict[str, Any]], wheres: list[dict[str, Any]]
) -> None:
    ids = [f"n{number}" for number in range(len(documents))]
    oracle = Oracle()
    oracle.add(ids, image=[0] * len(ids), fields=documents)
    index.add(ids, image=codes([0] * len(ids), 8), fields=documents)
    for where in wheres:
        [hits] = index.search(codes([0], 8), 100, target="image", where=where)
        [expected] = oracle.search([0], 100, "image", where)
        assert [hit.id for hit in hits] == [hit[0] for hit in expected], (where, documents)


def test_invalid_date_is_refused(index: OpenSearchIndex) -> None:
    index.add(["a"], image=codes([0], 8), fields=[{"day": "2011-01-02"}])
    for where in ({"day": "red"}, {"day": {"gt": "red"}}):
        with pytest.raises((ConfigError, ServerFailure), match="red") as raised:
            index.search(codes([0], 8), 1, target="image", where=where)
        assert "\n" not in str(raised.value)


def test_text_without_keyword_supports_exists_only(index: OpenSearchIndex) -> None:
    index.add(["a", "b"], image=codes([0, 0], 8), fields=[{"story": "a boat"}, {}])
    for present, id_ in ((True, "a"), (False, "b")):
        where = {"story": {"exists": present}}
        [hits] = index.search(codes([0], 8), 9, target="image", where=where)
        assert [hit.id for hit in hits] == [id_]
    with pytest.raises(ConfigError, match="analysed text without a keyword"):
        index.search(codes([0], 8), 9, target="image", where={"story": "a boat"})


def test_documents_that_do_not_fit_the_mapping_are_named(index: OpenSearchIndex) -> None:
    fields = [{"size": 1}, {"size": 300}, {"day": "some day"}, {"size": 2}]
    with pytest.raises(BulkFailure, match="2 of 4 documents") as refused:
        index.add(["a", "b", "c", "d"], image=codes([0] * 4, 8), fields=fields)
    assert set(refused.value.failed) == {"b", "c"}
    assert "out of range" in refused.value.failed["b"]
    [hits] = index.search(codes([0], 8), 9, target="image")
    assert [hit.id for hit in hits] == ["a", "d"]


@pytest.mark.parametrize(
    ("layout", "strategy"),
    [("faiss", "script"), ("faiss", "knn"), ("long", "long"), ("lucene-hnsw", "lucene-hnsw")],
)
def test_nested_documents_do_not_change_hits(
    address: Callable[..., str], layout: str, strategy: str
) -> None:
    where = parse_address(address(strategy=strategy))
    server = Server(where)
    make_version(server, where, 8, None, LAYOUTS[layout], alias=where.index, fields=MAPPED)
    server.close()
    oracle = Oracle()
    with open_opensearch(str(where)) as index:
        for number in range(40):
            # The server stores each nested part as a document without id and code.
            parts = [{"size": part} for part in range(number % 4)]
            columns = {"image": [number]} if number % 3 else {"text": [number]}
            fields = [{"parts": parts, "count": number}]
            index.add([f"{number}"], fields=fields, **{m: codes(v, 8) for m, v in columns.items()})
            oracle.add([f"{number}"], fields=fields, **columns)
        index.delete(["7", "12"])
        oracle.delete(["7", "12"])
        assert len(index) == 38
        for modality in ("image", "text"):
            for k, filters in ((5, None), (50, {"count": {"gte": 20}})):
                hits = index.search(codes([0, 9], 8), k, target=modality, where=filters)
                found = [
                    [(hit.id, hit.distance, hit.fields, hit.nearest) for hit in row] for row in hits
                ]
                assert found == oracle.search([0, 9], k, modality, filters)
        with pytest.raises(ConfigError, match="nested documents"):
            index.search(codes([0], 8), 1, target="image", where={"parts.size": 1})
