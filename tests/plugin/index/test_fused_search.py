"""Fused search on a real node: ranks and reciprocal-rank sums computed by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from xmodal.codes import BinaryCodes
from xmodal.errors import CodeError, ConfigError
from xmodal.index.contract import Hit
from xmodal_opensearch.client.address import parse_address
from xmodal_opensearch.client.server import Server
from xmodal_opensearch.index.aliases import make_version
from xmodal_opensearch.index.mapping import LAYOUTS, user_field
from xmodal_opensearch.index.store import OpenSearchIndex, open_opensearch

STRATEGIES = ("script", "knn", "long", "lucene-hnsw")
ZEROS = BinaryCodes.from_hex(["00"])
Address = Callable[..., str]

# id -> code, whose ones are its distance from 00; and words
DOCUMENTS = {
    "a": ("00", "nothing of it"),
    "b": ("01", "a red boat"),
    "c": ("03", "a boat"),
    "d": ("07", "a red red red boat"),
    "e": ("07", "nothing at all"),
}


@pytest.fixture(params=STRATEGIES, scope="module")
def index(request: pytest.FixtureRequest, module_address: Address) -> Iterator[OpenSearchIndex]:
    """Five documents with image codes, and one with a text code only."""
    with open_opensearch(module_address(strategy=request.param), bits=8, create=True) as opened:
        fields = [{"caption": words, "n": n} for n, (_, words) in enumerate(DOCUMENTS.values())]
        images = BinaryCodes.from_hex([code for code, _ in DOCUMENTS.values()])
        opened.add(list(DOCUMENTS), image=images, fields=fields)
        opened.add(["only-text"], text=ZEROS, fields=[{"caption": "red red red red boat"}])
        yield opened


def ranks(hit: Hit) -> tuple[int | None, int | None]:
    """Return rank by code and rank by words."""
    assert hit.ranks is not None
    return hit.ranks["codes"], hit.ranks["words"]


def fused(index: OpenSearchIndex, words: str, k: int = 9, **rest: Any) -> list[Hit]:
    [hits] = index.search_fused(ZEROS, [words], k, target="image", text_field="caption", **rest)
    return hits


def test_fusion_of_both_rankings_by_hand(index: OpenSearchIndex) -> None:
    # Codes: a 0, b 1, c 2, d 3, e 3. Words "red": three times in d, once in b.
    hits = fused(index, "red")
    assert [(hit.id, hit.distance, *ranks(hit)) for hit in hits] == [
        ("b", 1, 2, 2),
        ("d", 3, 4, 1),
        ("a", 0, 1, None),
        ("c", 2, 3, None),
        ("e", 3, 5, None),
    ]
    assert [hit.score for hit in hits] == [
        pytest.approx(1 / (60 + 2) + 1 / (60 + 2)),
        pytest.approx(1 / (60 + 4) + 1 / (60 + 1)),
        pytest.approx(1 / (60 + 1)),
        pytest.approx(1 / (60 + 3)),
        pytest.approx(1 / (60 + 5)),
    ]
    assert hits[0].fields == {"caption": "a red boat", "n": 1}


def test_constant_and_k_are_applied(index: OpenSearchIndex) -> None:
    # 1/(0+1) = 1 for a; d 1/4 + 1/1 = 1.25; b 1/2 + 1/2 = 1
    assert [hit.id for hit in fused(index, "red", 3, constant=0)] == ["d", "a", "b"]
    assert [hit.id for hit in fused(index, "red", 1)] == ["b"]


def test_document_beyond_the_depth_of_one_ranking_has_its_distance(
    index: OpenSearchIndex,
) -> None:
    # The first three of each list: a, b, c and d, b. a 1/1; b 1/2 + 1/2; d 1/1, all the same.
    hits = fused(index, "red", 3, depth=3, constant=0)
    assert [(hit.id, hit.distance, *ranks(hit)) for hit in hits] == [
        ("a", 0, 1, None),
        ("b", 1, 2, 2),
        ("d", 3, None, 1),
    ]
    assert hits == fused(index, "red", 3, depth=1, constant=0)  # depth is at least k


def test_ranks_are_among_filtered_documents(index: OpenSearchIndex) -> None:
    hits = fused(index, "red", 1, where={"n": {"gte": 3}})
    assert [(hit.id, hit.distance, *ranks(hit)) for hit in hits] == [("d", 3, 1, 1)]
    [first] = index.search_fused(
        BinaryCodes.from_hex(["ff"]), ["red"], 1, target="image", text_field="caption", constant=0
    )[0]
    # From ff: d 5, e 5, c 6, b 7, a 8. d: 1/1 + 1/1 = 2.
    assert (first.id, first.distance, first.score) == ("d", 5, 2.0)


def test_filter_applies_to_both_rankings(index: OpenSearchIndex) -> None:
    assert {hit.id for hit in fused(index, "red", where={"n": {"lt": 3}})} == {"a", "b", "c"}
    assert fused(index, "red", where={"n": 99}) == []


def test_document_without_the_target_modality_is_no_hit(index: OpenSearchIndex) -> None:
    assert "only-text" not in {hit.id for hit in fused(index, "red")}
    [hits] = index.search_fused(ZEROS, ["red"], 9, target="text", text_field="caption")
    assert [(hit.id, hit.distance, *ranks(hit)) for hit in hits] == [("only-text", 0, 1, 1)]


def test_words_without_matches_leave_the_ranking_by_code(index: OpenSearchIndex) -> None:
    assert [hit.id for hit in fused(index, "zebra")] == list("abcde")
    assert [ranks(hit)[1] for hit in fused(index, "")] == [None] * 5


def test_equal_texts_are_ordered_by_id(address: Address) -> None:
    with open_opensearch(address(), bits=8, create=True) as index:
        ids = ["z", "b", "y", "a"]
        fields = [{"caption": "boat"}] * 4
        index.add(ids, image=BinaryCodes.from_hex(["00"] * 4), fields=fields)
        assert [(hit.id, *ranks(hit)) for hit in fused(index, "boat")] == [
            (id_, rank, rank) for rank, id_ in enumerate(sorted(ids), start=1)
        ]


def test_queries_of_a_batch_are_independent(index: OpenSearchIndex) -> None:
    queries = BinaryCodes.from_hex(["00", "07", "00"])
    words = ["red", "boat", "nothing"]
    batched = index.search_fused(queries, words, 3, target="image", text_field="caption")
    alone = [
        index.search_fused(queries[[row]], [words[row]], 3, target="image", text_field="caption")[0]
        for row in range(3)
    ]
    assert batched == alone
    assert len({tuple(hit.id for hit in hits) for hits in batched}) == 3
    empty = index.search_fused(BinaryCodes.empty(8), [], 3, target="image", text_field="caption")
    assert empty == []


def test_explain_returns_the_rank_by_words(index: OpenSearchIndex) -> None:
    for id_, rank in (("d", 1), ("b", 2), ("a", None)):
        explanation = index.explain(id_, ZEROS, target="image", words="red", text_field="caption")
        assert explanation.text_rank == rank
    explanation = index.explain(
        "b", ZEROS, target="image", words="red", text_field="caption", where={"n": {"lt": 3}}
    )
    assert (explanation.text_rank, explanation.code_rank) == (1, 2)


def test_invalid_arguments_raise(index: OpenSearchIndex) -> None:
    with pytest.raises(ConfigError, match="2 texts for 1 codes"):
        index.search_fused(ZEROS, ["a", "b"], 1, target="image", text_field="caption")
    with pytest.raises(ConfigError, match=r"'title' is no text .* caption"):
        index.search_fused(ZEROS, ["a"], 1, target="image", text_field="title")
    with pytest.raises(CodeError, match="query has 16 bits"):
        index.search_fused(
            BinaryCodes.from_hex(["0000"]), ["a"], 1, target="image", text_field="caption"
        )
    with pytest.raises(ConfigError, match="no neural-search plugin"):
        fused(index, "red", on_server=True)


def test_field_mapped_as_text_is_searched(address: Address) -> None:
    where = parse_address(address())
    server = Server(where)
    fields = {"caption": user_field("caption", "text")}
    make_version(server, where, 8, None, LAYOUTS["faiss"], alias=where.index, fields=fields)
    server.close()
    with open_opensearch(str(where)) as index:
        index.add(["a", "b"], image=BinaryCodes.from_hex(["00", "01"]),
                  fields=[{"caption": "a dog"}, {"caption": "a boat"}])  # fmt: skip
        assert [(hit.id, ranks(hit)[1]) for hit in fused(index, "boat")] == [("b", 1), ("a", None)]
        [hits] = index.search(ZEROS, 9, target="image", where={"caption": "a dog"})
        assert [hit.id for hit in hits] == ["a"]
