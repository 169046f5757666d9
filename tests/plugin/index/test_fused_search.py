"""Codes and BM25 together on the real node: ranks by numpy and by the server, sums by hand."""

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
WORLD = {
    "a": ("00", "nothing of it"),
    "b": ("01", "a red boat"),
    "c": ("03", "a boat"),
    "d": ("07", "a red red red boat"),
    "e": ("07", "nothing at all"),
}


@pytest.fixture(params=STRATEGIES, scope="module")
def world(request: pytest.FixtureRequest, module_address: Address) -> Iterator[OpenSearchIndex]:
    """Five pictures, and a sixth of which there are words alone."""
    with open_opensearch(module_address(strategy=request.param), bits=8, create=True) as index:
        fields = [{"caption": words, "n": n} for n, (_, words) in enumerate(WORLD.values())]
        images = BinaryCodes.from_hex([code for code, _ in WORLD.values()])
        index.add(list(WORLD), image=images, fields=fields)
        index.add(["only-text"], text=ZEROS, fields=[{"caption": "red red red red boat"}])
        yield index


def ranks(hit: Hit) -> tuple[int | None, int | None]:
    """Rank by code and rank by words."""
    assert hit.ranks is not None
    return hit.ranks["codes"], hit.ranks["words"]


def fused(index: OpenSearchIndex, words: str, k: int = 9, **rest: Any) -> list[Hit]:
    [hits] = index.search_fused(ZEROS, [words], k, target="image", text_field="caption", **rest)
    return hits


def test_both_lists_by_hand(world: OpenSearchIndex) -> None:
    # Codes: a 0, b 1, c 2, d 3, e 3. Words "red": d says it three times, b once, nobody else.
    hits = fused(world, "red")
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


def test_the_constant_and_k_are_those_that_are_asked_for(world: OpenSearchIndex) -> None:
    # 1/(0+1) = 1 for a; d 1/4 + 1/1 = 1.25; b 1/2 + 1/2 = 1
    assert [hit.id for hit in fused(world, "red", 3, constant=0)] == ["d", "a", "b"]
    assert [hit.id for hit in fused(world, "red", 1)] == ["b"]


def test_a_document_beyond_the_depth_of_one_list_keeps_its_distance(
    world: OpenSearchIndex,
) -> None:
    # The first three of each list: a, b, c and d, b. a 1/1; b 1/2 + 1/2; d 1/1, all the same.
    hits = fused(world, "red", 3, depth=3, constant=0)
    assert [(hit.id, hit.distance, *ranks(hit)) for hit in hits] == [
        ("a", 0, 1, None),
        ("b", 1, 2, 2),
        ("d", 3, None, 1),
    ]
    assert hits == fused(world, "red", 3, depth=1, constant=0)  # k of each list at least


def test_ranks_are_those_among_what_the_filter_leaves(world: OpenSearchIndex) -> None:
    hits = fused(world, "red", 1, where={"n": {"gte": 3}})
    assert [(hit.id, hit.distance, *ranks(hit)) for hit in hits] == [("d", 3, 1, 1)]
    [first] = world.search_fused(
        BinaryCodes.from_hex(["ff"]), ["red"], 1, target="image", text_field="caption", constant=0
    )[0]
    # From ff: d 5, e 5, c 6, b 7, a 8. d: 1/1 + 1/1 = 2.
    assert (first.id, first.distance, first.score) == ("d", 5, 2.0)


def test_a_filter_holds_for_both_lists(world: OpenSearchIndex) -> None:
    assert {hit.id for hit in fused(world, "red", where={"n": {"lt": 3}})} == {"a", "b", "c"}
    assert fused(world, "red", where={"n": 99}) == []


def test_a_document_without_that_side_is_no_hit_whatever_its_words(world: OpenSearchIndex) -> None:
    assert "only-text" not in {hit.id for hit in fused(world, "red")}
    [hits] = world.search_fused(ZEROS, ["red"], 9, target="text", text_field="caption")
    assert [(hit.id, hit.distance, *ranks(hit)) for hit in hits] == [("only-text", 0, 1, 1)]


def test_words_that_nobody_says_leave_the_codes(world: OpenSearchIndex) -> None:
    assert [hit.id for hit in fused(world, "zebra")] == list("abcde")
    assert [ranks(hit)[1] for hit in fused(world, "")] == [None] * 5


def test_equal_words_come_in_order_of_id(address: Address) -> None:
    with open_opensearch(address(), bits=8, create=True) as index:
        ids = ["z", "b", "y", "a"]
        fields = [{"caption": "boat"}] * 4
        index.add(ids, image=BinaryCodes.from_hex(["00"] * 4), fields=fields)
        assert [(hit.id, *ranks(hit)) for hit in fused(index, "boat")] == [
            (id_, rank, rank) for rank, id_ in enumerate(sorted(ids), start=1)
        ]


def test_several_queries_are_answered_each_for_itself(world: OpenSearchIndex) -> None:
    queries = BinaryCodes.from_hex(["00", "07", "00"])
    words = ["red", "boat", "nothing"]
    together = world.search_fused(queries, words, 3, target="image", text_field="caption")
    alone = [
        world.search_fused(queries[[row]], [words[row]], 3, target="image", text_field="caption")[0]
        for row in range(3)
    ]
    assert together == alone
    assert len({tuple(hit.id for hit in hits) for hits in together}) == 3
    none = world.search_fused(BinaryCodes.empty(8), [], 3, target="image", text_field="caption")
    assert none == []


def test_a_rank_in_the_words_is_explained(world: OpenSearchIndex) -> None:
    for id_, rank in (("d", 1), ("b", 2), ("a", None)):
        told = world.explain(id_, ZEROS, target="image", words="red", text_field="caption")
        assert told.text_rank == rank
    told = world.explain(
        "b", ZEROS, target="image", words="red", text_field="caption", where={"n": {"lt": 3}}
    )
    assert (told.text_rank, told.code_rank) == (1, 2)


def test_questions_that_cannot_be_asked_are_refused(world: OpenSearchIndex) -> None:
    with pytest.raises(ConfigError, match="2 texts for 1 codes, expected one a code"):
        world.search_fused(ZEROS, ["a", "b"], 1, target="image", text_field="caption")
    with pytest.raises(ConfigError, match=r"'title' is no text .* this index has caption"):
        world.search_fused(ZEROS, ["a"], 1, target="image", text_field="title")
    with pytest.raises(CodeError, match="query has 16 bits"):
        world.search_fused(
            BinaryCodes.from_hex(["0000"]), ["a"], 1, target="image", text_field="caption"
        )
    with pytest.raises(ConfigError, match=r"has no neural-search plugin.* leave on_server out"):
        fused(world, "red", on_server=True)


def test_a_field_that_is_mapped_as_text_is_searched_itself(address: Address) -> None:
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
