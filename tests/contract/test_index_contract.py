"""Contract of an index: every backend returns the same hits as the oracle, id by id."""

from __future__ import annotations

from dataclasses import replace
from itertools import cycle, product
from typing import Any

import numpy as np
import pytest
from contract.index_backend import Backend
from contract.oracle import Answer, Oracle, code_column, codes
from contract.strategies import BITS, FIELDS, IDS, WHERE, batches, searches
from hypothesis import given, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from xmodal.codes import BinaryCodes
from xmodal.errors import CodeError, ConfigError, IndexMismatch, IndexMissing
from xmodal.index.contract import Hit, Hits, Index, open_index
from xmodal.index.documents import DocumentBatch
from xmodal.index.origins import ListedIndex, Origin, read_origin
from xmodal.modality import MODALITIES, Modality


def add(index: Index, ids: list[str], bits: int, **columns: Any) -> int:
    """Add documents whose codes are numbers."""
    packed = {m: code_column(columns[m], bits) for m in MODALITIES if columns.get(m) is not None}
    return index.add(ids, fields=columns.get("fields"), **packed)


def search(index: Index, queries: list[int], k: int, target: Modality, **rest: Any) -> Answer:
    """Search for codes that are numbers; return hits as tuples."""
    return as_tuples(index.search(codes(queries, index.bits), k, target=target, **rest))


def check_search(index: Index, oracle: Oracle, options: dict[str, Any]) -> None:
    """Compare a search with the oracle; an unknown field may be refused.

    OpenSearch keeps the fields of removed documents, which the oracle does not.
    """
    try:
        answer = search(index, **options)
    except ConfigError as error:
        assert "no document has the field" in str(error)
        assert oracle.lacks_a_field_of(options["where"]), (options, error)
    else:
        assert answer == oracle.search(**options), options


def as_tuples(hits: Hits) -> Answer:
    return [
        [
            (hit.id, hit.distance, dict(hit.fields), -1 if hit.nearest is None else hit.nearest)
            for hit in row
        ]
        for row in hits
    ]


def found(index: Index, query: int, target: Modality, k: int = 100, **rest: Any) -> list[str]:
    """Return the ids of the hits of one query."""
    return [hit[0] for hit in search(index, [query], k, target, **rest)[0]]


def test_documents_are_listed_with_their_origins(backend: Backend) -> None:
    index = backend.make(16, fingerprint="e1")
    columns = {"image": [[1], [2]], "text": [[3], [4, 5]], "fields": [{"n": 1}, {"n": 2}]}
    add(index, ["plain", "both"], 16, **columns)
    batch = DocumentBatch.of(["é", "b/a.jpg"], image=codes([6, 7], 16), fields=[{"n": 2}, {}])
    origins = [Origin("/data/é", "é", "hash", "stamp"), Origin("other", "a.jpg")]
    index.add(replace(batch, origins=[origin.to_text() for origin in origins]))
    index = backend.reopen(index)
    assert isinstance(index, ListedIndex)
    listed = [("b/a.jpg", {}, origins[1]), ("both", {"n": 2}, None), ("plain", {"n": 1}, None)]
    assert list(index.entries()) == [*listed, ("é", {"n": 2}, origins[0])]
    assert [entry.id for entry in index.entries(where={"n": 2})] == ["both", "é"]
    assert [entry.id for entry in index.entries(source="/data/é")] == ["é"]
    assert index.count_codes() == {"image": 4, "text": 3}
    assert sum(index.disk_usage().values()) > 0
    stored = index.get(["é", "both", "b/a.jpg"])
    assert [read_origin(text) for text in stored.origin_texts()] == [origins[0], None, origins[1]]
    index.add(stored)  # documents that are read and stored again keep their origins
    assert index.get(["é"]).origins == [origins[0].to_text()]
    add(index, ["é"], 16, image=[1])
    assert index.get(["é"]).origin_texts() == [""]


def test_search_equals_the_oracle(backend: Backend) -> None:
    @settings(backend.settings)
    @given(data=st.data())
    def check(data: st.DataObject) -> None:
        bits = data.draw(BITS, "bits")
        index, oracle = backend.make(bits), Oracle()
        for batch in data.draw(st.lists(batches(bits), max_size=3), "batches"):
            assert add(index, bits=bits, **batch) == len(batch["ids"])
            oracle.add(**batch)
        for options in data.draw(st.lists(searches(bits), min_size=1, max_size=6), "searches"):
            check_search(index, oracle, options)
        assert len(index) == len(oracle.documents)
        backend.close(index)

    check()


def test_adding_deleting_and_reopening_equals_the_oracle(backend: Backend) -> None:
    class Lifecycle(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.index, self.oracle = backend.make(8, fingerprint="e1"), Oracle()

        @rule(batch=batches(8))
        def add(self, batch: dict[str, Any]) -> None:
            add(self.index, bits=8, **batch)
            self.oracle.add(**batch)

        @rule(ids=st.lists(st.sampled_from([*IDS, "never added"]), max_size=4))
        def delete(self, ids: list[str]) -> None:
            assert self.index.delete(ids) == self.oracle.delete(ids)

        @rule(options=searches(8))
        def search(self, options: dict[str, Any]) -> None:
            check_search(self.index, self.oracle, options)

        @rule()
        def reopen(self) -> None:
            self.index = backend.reopen(self.index, bits=8, fingerprint="e1")

        @invariant()
        def number_of_documents_is_equal(self) -> None:
            assert len(self.index) == len(self.oracle.documents)

        def teardown(self) -> None:
            for target in MODALITIES:
                assert search(self.index, [5], 100, target) == self.oracle.search([5], 100, target)
            backend.close(self.index)

    limited = settings(backend.settings, stateful_step_count=12)
    run_state_machine_as_test(Lifecycle, settings=limited)


@pytest.mark.parametrize("bits", [8, 40, 64, 512])
def test_ties_are_ordered_by_id_at_every_k_and_radius(backend: Backend, bits: int) -> None:
    rng = np.random.default_rng(bits)
    few = [int.from_bytes(rng.bytes(bits // 8)) for _ in range(4)]
    ids = [f"{rng.integers(1 << 40):x}" for _ in range(300)]
    share = (0.5, 0.3, 0.1, 0.1)  # the first code has more ties than the second request returns
    columns = {m: [few[n] for n in rng.choice(4, len(ids), p=share)] for m in MODALITIES}
    fields = [{"part": int(part)} for part in rng.integers(3, size=len(ids))]
    index, oracle = backend.make(bits), Oracle()
    for part, modalities in ((slice(200), MODALITIES), (slice(200, 300), ("image",))):
        batch = {m: columns[m][part] for m in modalities} | {"fields": fields[part]}
        add(index, ids[part], bits, **batch)
        oracle.add(ids[part], **batch)
    queries = few + [int.from_bytes(rng.bytes(bits // 8)) for _ in range(2)]
    for k in (1, 7, 101, 5000):
        for where in (None, {"part": 1}, {"part": {"gte": 1}}):
            expected = oracle.search(queries, k, "text", where)
            assert search(index, queries, k, "text", where=where) == expected, (k, where)
    radii = range(bits + 1) if bits == 8 else (0, 1, bits // 2, bits)
    for radius in radii:
        expected = oracle.search(queries, 200, "image", radius=radius)
        assert search(index, queries, 200, "image", radius=radius) == expected, radius


def test_filters_equal_the_oracle(backend: Backend) -> None:
    @settings(backend.settings)
    @given(
        fields=st.lists(FIELDS, min_size=1, max_size=10),
        wheres=st.lists(WHERE, min_size=4, max_size=12),
    )
    def check(fields: list[dict[str, Any]], wheres: list[dict[str, Any] | None]) -> None:
        ids = IDS[: len(fields)]
        index, oracle = backend.make(8), Oracle()
        add(index, ids, 8, image=[7] * len(ids), fields=fields)
        oracle.add(ids, image=[7] * len(ids), fields=fields)
        for where in wheres:
            note(f"where {where}")
            note(f"documents {dict(zip(ids, fields, strict=True))}")
            options = {"queries": [7], "k": 100, "target": "image", "where": where}
            check_search(index, oracle, options)
        backend.close(index)

    check()


@pytest.fixture(scope="module")
def five(module_backend: Backend) -> Index:
    """Five documents with values of several kinds; no test changes them."""
    documents = {
        "text": {"price": "10"},
        "none": {"colour": None},
        "list": {"colour": ["blue", "red"], "price": [], "day": "2011-01-31"},
        "b": {"colour": "green", "price": 20.0, "day": "2011-12-31"},
        "a": {"colour": "red", "price": 10, "day": "2012-01-01"},
    }
    index = module_backend.make(8)
    add(index, list(documents), 8, text=[1] * 5, fields=list(documents.values()))
    return index


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({"colour": "red"}, ["a", "list"]),
        ({"colour": ["red", "green"]}, ["a", "b", "list"]),
        ({"price": {"gte": 10, "lt": 20}}, ["a", "text"]),
        ({"price": {"gt": 10}}, ["b"]),
        ({"price": 10}, ["a", "text"]),
        ({"price": 20}, ["b"]),
        ({"price": ["20", "30"]}, ["b"]),
        ({"price": {"exists": True}}, ["a", "b", "text"]),
        ({"price": {"exists": False}}, ["list", "none"]),
        ({"colour": {"exists": False}}, ["none", "text"]),
        ({"colour": "red", "price": {"lte": 10}}, ["a"]),
        ({"day": {"gte": "2011-02", "lt": "2012"}}, ["b"]),
        ({}, ["a", "b", "list", "none", "text"]),
        ({"colour": {"not": "red"}}, ["b", "none", "text"]),
        ({"colour": {"not": ["red", "green"]}}, ["none", "text"]),
        ({"colour": {"not": "red", "exists": True}}, ["b"]),
        ({"colour": {"all": ["red", "blue"]}}, ["list"]),
        ({"colour": {"prefix": "gr"}}, ["b"]),
        ({"colour": {"any_case": "RED"}}, ["a", "list"]),
        ({"colour": {"any_case": {"prefix": "GRe"}}}, ["b"]),
        ({"price": "10.00"}, ["a", "text"]),
        ({"price": {"gte": "9.5", "not": 20}}, ["a", "text"]),
        ({"day": "2011"}, ["b", "list"]),
        ({"day": "2011-12"}, ["b"]),
        ({"day": {"lte": "2011"}}, ["b", "list"]),
        ({"day": {"gt": 2011}}, ["a"]),
        ({"day": {"gte": "2011-01-31", "lte": "2011-12"}}, ["b", "list"]),
    ],
)
def test_filters_by_hand(five: Index, where: dict[str, Any], expected: list[str]) -> None:
    assert found(five, 1, "text", where=where) == expected


def test_field_that_no_document_has_is_refused(backend: Backend) -> None:
    index = backend.make(8)
    conditions: list[Any] = ["red", {"exists": False}, {"not": "red"}, {"gte": 3}]
    for condition in conditions:
        assert search(index, [1], 9, "text", where={"color": condition}) == [[]]
    fields = [{"colour": "red", "none": None, "empty": []}, {"price": 3}]
    add(index, ["a", "b"], 8, text=[1, 2], fields=fields)
    for condition, name in product(conditions, ("color", "none", "empty")):
        with pytest.raises(ConfigError, match=f"'{name}', expected one of colour, price"):
            search(index, [1], 9, "text", where={name: condition})


def test_filter_applies_before_the_best_k_are_selected(backend: Backend) -> None:
    index = backend.make(8)
    fields = [{"keep": n == 9} for n in range(10)]
    add(index, [f"n{n}" for n in range(10)], 8, image=[0] * 9 + [255], fields=fields)
    assert search(index, [0], 1, "image", where={"keep": True}) == [[("n9", 8, {"keep": True}, 0)]]


def test_add_replaces_the_whole_document(backend: Backend) -> None:
    index = backend.make(8)
    add(index, ["a", "b"], 8, image=[1, 2], text=[3, 4], fields=[{"x": 1}, {"x": 2}])
    assert add(index, ["a"], 8, text=[5]) == 1
    assert len(index) == 2
    assert found(index, 1, "image") == ["b"]
    assert search(index, [5], 1, "text") == [[("a", 0, {}, 0)]]
    assert found(index, 5, "text", where={"x": {"exists": True}}) == ["b"]


def test_last_of_equal_ids_in_one_call_is_stored(backend: Backend) -> None:
    index = backend.make(8)
    fields = [{"turn": turn} for turn in range(3)]
    assert add(index, ["a", "b", "a"], 8, image=[1, 2, 4], fields=fields) == 3
    assert len(index) == 2
    assert search(index, [4], 9, "image") == [[("a", 0, {"turn": 2}, 0), ("b", 2, {"turn": 1}, 0)]]


def test_delete_returns_the_number_of_removed_documents(backend: Backend) -> None:
    index = backend.make(8)
    add(index, ["a", "b", "c"], 8, image=[0, 0, 0])
    assert index.delete(["unknown"]) == 0
    assert index.delete([]) == 0
    assert index.delete(["a", "unknown", "a", "c"]) == 2
    assert (len(index), found(index, 0, "image")) == (1, ["b"])
    add(index, ["a"], 8, image=[0])
    assert found(index, 0, "image") == ["a", "b"]


def test_document_without_a_code_of_the_target_is_no_hit(backend: Backend) -> None:
    index = backend.make(8)
    add(index, ["i1", "i2"], 8, image=[0, 1])
    add(index, ["t1", "t2"], 8, text=[0, 1])
    add(index, ["both"], 8, image=[0], text=[0])
    assert found(index, 0, "image", k=100, radius=8) == ["both", "i1", "i2"]
    assert found(index, 0, "text", k=100, radius=8) == ["both", "t1", "t2"]


@pytest.mark.parametrize("bits", [8, 136])
def test_documents_of_no_one_two_and_many_codes_equal_the_oracle(
    backend: Backend, bits: int
) -> None:
    rng = np.random.default_rng(bits)
    few = [int.from_bytes(rng.bytes(bits // 8)) for _ in range(5)]

    def column(sizes: list[int]) -> list[list[int]]:
        """Codes that often tie: one of few, with at most two bits flipped."""
        return [
            [few[rng.integers(5)] ^ 1 << int(rng.integers(bits)) for _ in range(size)]
            for size in sizes
        ]

    n = 120
    ids = [f"{rng.integers(1 << 40):x}" for _ in range(n)]
    image = column([(0, 1, 2, 40)[row % 4] for row in range(n)])
    text = column([(40, 2, 1, 0, 1)[row % 5] for row in range(n)])
    for row in range(n):
        image[row] = image[row] or [few[0]] * (not text[row])
    fields = [{"part": row % 3} for row in range(n)]
    index, oracle = backend.make(bits), Oracle()

    def check() -> None:
        queries = [*few[:2], *(few[n] ^ 3 for n in range(2, 5))]
        wheres = cycle((None, {"part": 1}))  # with 9 searches, each pair of options occurs
        for target, k, radius in product(MODALITIES, (1, 20, 200), (None, 2, bits // 2)):
            options = {"where": next(wheres), "radius": radius}
            expected = oracle.search(queries, k, target, **options)
            assert search(index, queries, k, target, **options) == expected, options
        assert len(index) == len(oracle.documents)

    add(index, ids, bits, image=image, text=text, fields=fields)
    oracle.add(ids, image, text, fields)
    check()
    many, one = [ids[3], ids[7], ids[0]], [ids[1], ids[5], ids[9]]
    for changed, size in ((many, 1), (one, 40), (many, 40), (one, 1)):
        new = {"image": column([size] * 3), "text": column([0, size, 2])}
        add(index, changed, bits, **new)
        oracle.add(changed, **new)
    assert index.delete(ids[20:30]) == oracle.delete(ids[20:30])
    check()
    index = backend.reopen(index, bits=bits)
    check()
    stored = index.get([ids[7], ids[2]])
    for modality in MODALITIES:
        documents = [(id_, oracle.documents[id_].get(modality, [])) for id_ in (ids[7], ids[2])]
        names = [id_ for id_, numbers in documents for _ in numbers]
        numbers = [number for _, numbers in documents for number in numbers]
        assert stored.codes(modality) == (names, codes(numbers, bits))


def test_nearest_is_the_lowest_position_of_equal_distances(backend: Backend) -> None:
    index = backend.make(8)
    add(index, ["a", "b"], 8, image=[[7, 3, 5, 3], [15, 1]], text=[[], [9]])
    assert search(index, [3], 2, "image") == [[("a", 0, {}, 1), ("b", 1, {}, 1)]]
    assert search(index, [1], 1, "image") == [[("b", 0, {}, 1)]]
    assert search(index, [4], 2, "image") == [[("a", 1, {}, 2), ("b", 2, {}, 1)]]
    assert search(index, [9], 2, "text") == [[("b", 0, {}, 0)]]


def test_counts_are_of_documents(backend: Backend) -> None:
    index = backend.make(8)
    fields = [{"colour": "red"}, {"colour": "blue"}]
    columns = {"image": [list(range(40)), [41]], "text": [[1, 2], [3, 4, 5]]}
    assert add(index, ["a", "b"], 8, **columns, fields=fields) == 2
    assert len(index) == 2
    assert index.facets() == {"colour": [("blue", 1), ("red", 1)]}
    assert found(index, 0, "image", k=2) == ["a", "b"]
    assert index.delete(["a"]) == 1
    assert found(index, 0, "image") == ["b"]


def test_document_without_any_code_is_rejected(backend: Backend) -> None:
    index = backend.make(8)
    with pytest.raises(CodeError, match="'b' has no code"):
        add(index, ["a", "b"], 8, image=[[1], []])
    assert len(index) == 0


def test_empty_indexes_batches_and_queries(backend: Backend) -> None:
    index = backend.make(16)
    empty = BinaryCodes.empty(16)
    assert len(index) == 0
    assert search(index, [1, 2], 3, "image", where={"x": 1}, radius=4) == [[], []]
    assert index.search(empty, 3, target="text") == []
    assert index.add([], image=empty) == 0
    add(index, ["a"], 16, image=[1])
    assert index.search(empty, 3, target="image") == []
    assert search(index, [1], 3, "text") == [[]]
    assert index.delete(["a"]) == 1
    assert search(index, [1], 3, "image") == [[]]


def test_hits_are_plain_values(backend: Backend) -> None:
    index = backend.make(8)
    assert isinstance(index, Index)
    add(index, ["a"], 8, image=[7], fields=[{"words": ["x", "y"], "n": 1.5, "yes": True}])
    [[hit]] = index.search(codes([0], 8), 1, target="image")
    assert isinstance(hit, Hit)
    assert (type(hit.id), type(hit.distance)) == (str, int)
    fields = {"words": ["x", "y"], "n": 1.5, "yes": True}
    assert hit == Hit("a", 3, fields, nearest=0, similarity=1 - 2 * 3 / 8)


def test_later_changes_of_arguments_do_not_change_the_index(backend: Backend) -> None:
    index = backend.make(8)
    packed, fields = np.array([[7]], dtype=np.uint8), {"words": ["x"]}
    index.add(["a"], image=BinaryCodes(packed, 8), fields=[fields])
    packed[:] = 0
    fields["words"].append("y")
    [[hit]] = index.search(codes([7], 8), 1, target="image")
    assert hit == Hit("a", 0, {"words": ["x"]}, nearest=0, similarity=1.0)


def test_reopened_index_is_equal(backend: Backend) -> None:
    index = backend.make(24, fingerprint="e1")
    add(index, ["b", "日本"], 24, image=[1, 2], fields=[{"x": [1, "é", None]}, {"y": False}])
    add(index, ["a"], 24, text=[3])
    before = [search(index, [1, 3], 9, target) for target in MODALITIES]
    again = backend.reopen(index)
    assert (again.bits, again.fingerprint, len(again)) == (24, "e1", 3)
    assert [search(again, [1, 3], 9, target) for target in MODALITIES] == before
    again = backend.reopen(again, bits=24, fingerprint="e1")
    assert [search(again, [1, 3], 9, target) for target in MODALITIES] == before


def test_empty_index_exists_after_creation(backend: Backend) -> None:
    again = backend.reopen(backend.make(8, fingerprint="e1"))
    assert (again.bits, again.fingerprint, len(again)) == (8, "e1", 0)


def test_create_opens_an_existing_index(backend: Backend) -> None:
    index = backend.make(8)
    add(index, ["a"], 8, image=[1])
    address = backend.address(index)
    backend.release(index)
    again = open_index(address, bits=8, create=True)
    assert len(again) == 1
    again.close()
    with pytest.raises(IndexMismatch, match=r"8 bits, expected 16"):
        open_index(address, bits=16, create=True)


def test_other_bits_and_fingerprints_are_rejected(backend: Backend) -> None:
    with pytest.raises(IndexMismatch, match=r"8 bits, expected 16"):
        backend.reopen(backend.make(8, fingerprint="e1"), bits=16)
    with pytest.raises(IndexMismatch, match=r"encoder e1, .* e2"):
        backend.reopen(backend.make(8, fingerprint="e1"), fingerprint="e2")


def test_missing_index_raises(backend: Backend) -> None:
    with pytest.raises(IndexMissing, match="no index"):
        open_index(backend.new_address(), bits=8)
    with pytest.raises(ConfigError, match="bits is None"):
        open_index(backend.new_address(), create=True)


@pytest.fixture(scope="module")
def one_document(module_backend: Backend) -> Index:
    """One document; no test changes it."""
    index = module_backend.make(8)
    add(index, ["a"], 8, image=[1], fields=[{"x": 1}])
    return index


@pytest.mark.parametrize(
    ("error", "message", "ids", "columns"),
    [
        (CodeError, "without any code", ["a"], {}),
        (CodeError, "16 bits, this index holds 8", ["a"], {"image": [[0, 0]]}),
        (CodeError, "2 text codes for 1 ids", ["a"], {"text": [[0], [1]]}),
        (CodeError, "1 image codes for 2 ids", ["a", "b"], {"image": [[0]], "text": [[0], [1]]}),
        (ConfigError, "2 sets of fields for 1 ids", ["a"], {"image": [[0]], "fields": [{}, {}]}),
        (ConfigError, "ids is the text 'a'", "a", {"image": [[0]]}),
        (ConfigError, "id '' is not usable", [""], {"image": [[0]]}),
        (ConfigError, "id 3 is not usable", [3], {"image": [[0]]}),
        (ConfigError, "not usable, .* valid Unicode", ["\udcff"], {"image": [[0]]}),
        (ConfigError, "fields of 'a' cannot", ["a"], {"image": [[0]], "fields": [{"x": np.nan}]}),
        (ConfigError, "fields of 'a' cannot", ["a"], {"image": [[0]], "fields": [{"x": object()}]}),
        (ConfigError, "fields of 'a' cannot", ["a"], {"image": [[0]], "fields": [{"x": "\udcff"}]}),
    ],
)
def test_invalid_documents_raise_and_change_nothing(
    one_document: Index, error: type[Exception], message: str, ids: Any, columns: dict[str, Any]
) -> None:
    packed = {
        m: BinaryCodes(np.array(columns[m], np.uint8), 8 * len(columns[m][0]))
        for m in MODALITIES
        if m in columns
    }
    with pytest.raises(error, match=message):
        one_document.add(ids, fields=columns.get("fields"), **packed)
    assert search(one_document, [1], 9, "image") == [[("a", 0, {"x": 1}, 0)]]
    assert len(one_document) == 1


@pytest.mark.parametrize(
    ("error", "message", "change"),
    [
        (CodeError, "query has 16 bits, this index holds 8", {"queries": codes([1], 16)}),
        (ConfigError, "k is 0", {"k": 0}),
        (ConfigError, "target is 'sound'", {"target": "sound"}),
        (ConfigError, "radius is -1", {"radius": -1}),
        (ConfigError, "is an empty list", {"where": {"x": []}}),
        (ConfigError, "expected some of gt, gte, lt, lte", {"where": {"x": {"over": 3}}}),
        (ConfigError, "all of one kind", {"where": {"x": {"gt": 3, "lt": "2011-04"}}}),
    ],
)
def test_invalid_search_raises(
    one_document: Index, error: type[Exception], message: str, change: dict[str, Any]
) -> None:
    arguments: dict[str, Any] = {"queries": codes([1], 8), "k": 3, "target": "image"}
    with pytest.raises(error, match=message):
        one_document.search(**arguments | change)


def test_delete_rejects_one_text_as_ids(backend: Backend) -> None:
    index = backend.make(8)
    add(index, ["a", "b"], 8, image=[1, 2])
    with pytest.raises(ConfigError, match="ids is the text 'ab'"):
        index.delete("ab")
    assert len(index) == 2


FIELDS_OF_FOUR: list[dict[str, Any]] = [
    {"colour": "red", "size": 10, "text": "one", "tags": ["new", "sale"], "sold": True},
    {"colour": "red", "size": 12, "text": "two", "tags": ["new", "new"], "sold": False},
    {"colour": "blue", "size": 10.0, "text": "three", "note": "x" * 81, "image": "a.jpg"},
    {},
]


def filled(backend: Backend) -> Index:
    """Return an index of four documents: two with both codes, one with text, one with image."""
    index = backend.make(16)
    add(index, ["b", "a"], 16, image=[1, 2], text=[3, 4], fields=FIELDS_OF_FOUR[:2])
    add(index, ["c"], 16, text=[5], fields=FIELDS_OF_FOUR[2:3])
    add(index, ["d"], 16, image=[6], fields=FIELDS_OF_FOUR[3:])
    return index


def test_mixed_batch_round_trip(backend: Backend) -> None:
    index = backend.make(16)
    batch = DocumentBatch.join(
        [
            DocumentBatch.of(["b", "a"], image=codes([1, 2], 16), text=codes([3, 4], 16)),
            DocumentBatch.of(["c"], text=codes([5], 16), fields=[{"colour": "red"}]),
            DocumentBatch.of(["d"], image=codes([6], 16)),
        ]
    )
    assert index.add(batch) == 4
    stored = index.get(["d", "c", "unknown", "b", "a", "d"])
    assert stored.ids == ["d", "c", "b", "a"]
    assert stored.codes("image") == (["d", "b", "a"], codes([6, 1, 2], 16))
    assert stored.codes("text") == (["c", "b", "a"], codes([5, 3, 4], 16))
    assert stored.fields_by_id() == {"d": {}, "c": {"colour": "red"}, "b": {}, "a": {}}
    assert found(index, 0, "image") == ["a", "b", "d"]
    assert found(index, 0, "text") == ["a", "b", "c"]
    with pytest.raises(ConfigError):
        index.add(batch, text=codes([1, 2, 3, 4], 16))
    assert index.add(stored.take([0])) == 1
    assert len(index) == 4


def test_get_returns_codes_and_fields_in_the_order_of_ids(backend: Backend) -> None:
    index = filled(backend)
    ids, packed = index.get(["c", "d", "a", "unknown", ""]).codes("image")
    assert (ids, packed) == (["d", "a"], codes([6, 2], 16))
    assert index.get([]).codes("text")[0] == []
    assert index.get(["unknown", "c", "d", "x" * 600]).fields_by_id() == {
        "c": FIELDS_OF_FOUR[2],
        "d": {},
    }
    index.delete(["c"])
    add(index, ["d"], 16, text=[7], fields=[{"colour": "green"}])
    assert index.get(["c", "d"]).fields_by_id() == {"d": {"colour": "green"}}
    assert index.get(["c", "d"]).codes("image")[0] == []


def test_facets_are_fields_with_few_values(backend: Backend) -> None:
    index = filled(backend)
    assert index.facets() == {
        "colour": [("red", 2), ("blue", 1)],
        "size": [("10", 2), ("12", 1)],
        "sold": [("false", 1), ("true", 1)],
        "tags": [("new", 2), ("sale", 1)],
    }
    assert set(index.facets(1)) == set()
    index.delete(["c"])
    assert index.facets(1) == {"colour": [("red", 2)]}
    assert backend.make(8).facets() == {}
