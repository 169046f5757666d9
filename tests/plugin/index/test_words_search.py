"""Full-text search on a real node: ranks by BM25 computed by hand, on any number of shards."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import pytest

from xmodal.codes import BinaryCodes
from xmodal.errors import ConfigError
from xmodal.index.contract import FullTextIndex, Index, WordsHit, WordsQuery
from xmodal.index.local import HammingIndex
from xmodal.index.words import document_words, tokens
from xmodal_opensearch.client.address import parse_address
from xmodal_opensearch.client.server import Server
from xmodal_opensearch.index.creation import make_version
from xmodal_opensearch.index.mapping import LAYOUTS, user_field
from xmodal_opensearch.index.store import OpenSearchIndex, open_opensearch

ZERO = BinaryCodes.from_hex(["00"])
Address = Callable[..., str]
Rest = Callable[..., Any]

FIELDS: dict[str, dict[str, Any]] = {
    "a": {"text": "nothing of it"},
    "b": {"text": "A red boat", "n": 1},
    "c": {"text": ["two boats", "RedShoes in a shop"], "n": 2},
    "d": {"text": "red, red, red boat", "colour": "blue"},
    "e": {"text": "東京タワーの夜景"},
    "f": {"image": "holiday/IMG_Beach-12.jpg"},
    "g": {"text": "a red boat"},
}


def bm25(fields: dict[str, dict[str, Any]], text: str) -> list[tuple[str, float]]:
    """Return ids and scores, best first; lengths below 40 are exact in Lucene's 8 bits."""
    words = {id_: Counter(document_words(own, id_)) for id_, own in fields.items()}
    mean = sum(sum(own.values()) for own in words.values()) / len(words)
    scores: dict[str, float] = {}
    for word in dict.fromkeys(tokens(text)):
        found = {id_: own[word] for id_, own in words.items() if own[word]}
        idf = math.log(1 + (len(words) - len(found) + 0.5) / (len(found) + 0.5))
        for id_, count in found.items():
            length = sum(words[id_].values())
            part = idf * count / (count + 1.2 * (0.25 + 0.75 * length / mean))
            scores[id_] = scores.get(id_, 0) + part
    return sorted(scores.items(), key=lambda pair: (-round(pair[1], 5), pair[0]))


def fill(index: Index, fields: dict[str, dict[str, Any]] = FIELDS) -> None:
    codes = BinaryCodes.from_hex(["00"] * len(fields))
    index.add(list(fields), image=codes, fields=list(fields.values()))


@pytest.fixture(scope="module", params=[("script", 1), ("script", 3), ("long", 1)], ids=str)
def index(request: pytest.FixtureRequest, module_address: Address) -> Iterator[OpenSearchIndex]:
    """The documents, and one with a text code only."""
    strategy, shards = request.param
    address = module_address(strategy=strategy, shards=str(shards))
    with open_opensearch(address, bits=8, create=True) as opened:
        fill(opened)
        yield opened


def found(index: OpenSearchIndex, text: str, excluded: str = "", **rest: Any) -> list[WordsHit]:
    [hits] = index.search_words([WordsQuery(text, excluded)], 9, **({"target": "image"} | rest))
    return hits


@pytest.mark.parametrize(
    "text",
    ["red", "boat", "red boats", "RED shoe", "東京", "夜", "beach", "holiday 12", "blue", "it"],
)
def test_ranks_and_scores_are_those_of_bm25(index: OpenSearchIndex, text: str) -> None:
    assert isinstance(index, FullTextIndex)
    hits, expected = found(index, text), bm25(FIELDS, text)
    assert expected
    assert [(hit.id, hit.score) for hit in hits] == [
        (id_, pytest.approx(score, rel=1e-5)) for id_, score in expected
    ]
    for hit in hits:
        own = document_words(FIELDS[hit.id], hit.id)
        assert hit.matched == tuple(w for w in dict.fromkeys(tokens(text)) if w in own)


def test_ranks_of_many_documents_equal_those_of_a_local_index(address: Address) -> None:
    rng = Random(3)
    words = "a red blue boat dog cat two cats tree house car 12 東京 夜景 RedShoes".split()
    fields = {
        f"d{n}": {"text": " ".join(rng.choices(words, k=rng.randint(1, 60))), "n": n % 3}
        for n in range(400)
    }
    local = HammingIndex(8)
    with open_opensearch(address(shards="3"), bits=8, create=True) as index:
        for each in (local, index):
            fill(each, fields)
        queries = [WordsQuery("red boats"), WordsQuery("東京 cat", "dog"), WordsQuery("shoe 12 a")]
        for where in (None, {"n": 1}):
            found, expected = (
                each.search_words(queries, 50, target="image", where=where)
                for each in (index, local)
            )
            assert found == expected and all(found)


def test_documents_with_excluded_words_are_no_hits(index: OpenSearchIndex) -> None:
    assert [hit.id for hit in found(index, "boat", "shoes blue")] == ["b", "g"]
    assert found(index, "boat", "boats") == []


def test_filters_and_k(index: OpenSearchIndex) -> None:
    assert [hit.id for hit in found(index, "boat red", where={"n": {"lte": 2}})] == ["b", "c"]
    [hits] = index.search_words([WordsQuery("boat red")], 2, target="image")
    assert hits == found(index, "boat red")[:2]
    with pytest.raises(ConfigError, match="k is 0"):
        index.search_words([WordsQuery("boat")], 0, target="image")


def test_queries_are_independent_and_may_be_empty(index: OpenSearchIndex) -> None:
    texts = ["red", "", "zebra", "boat", "?!"]
    batched = index.search_words([WordsQuery(text) for text in texts], 9, target="image")
    assert batched == [found(index, text) for text in texts]
    assert [len(hits) for hits in batched] == [4, 0, 0, 4, 0]
    assert index.search_words([], 9, target="image") == []


def test_document_without_the_target_modality_is_no_hit(address: Address) -> None:
    with open_opensearch(address(), bits=8, create=True) as index:
        fill(index)
        index.add(["only-text"], text=ZERO, fields=[{"text": "red red red red boat"}])
        assert "only-text" not in {hit.id for hit in found(index, "red")}
        assert [hit.id for hit in found(index, "red", target="text")] == ["only-text"]


def test_replaced_and_deleted_documents_are_no_hits(address: Address) -> None:
    with open_opensearch(address(), bits=8, create=True) as index:
        fill(index)
        fill(index, {"b": {"text": "a green tree"}})
        index.delete(["d"])
        assert {hit.id for hit in found(index, "red")} == {"c", "g"}
        # Their words count in the statistics until the server merges segments, so scores differ.
        left = {id_: own for id_, own in FIELDS.items() if id_ != "d"}
        expected = bm25(left | {"b": {"text": "a green tree"}}, "red tree")
        assert [hit.id for hit in found(index, "red tree")] == [id_ for id_, _ in expected]


def test_explain_returns_the_rank_by_words(index: OpenSearchIndex) -> None:
    ranked = [id_ for id_, _ in bm25(FIELDS, "red")]
    for id_ in FIELDS:
        rank = ranked.index(id_) + 1 if id_ in ranked else None
        assert index.explain(id_, ZERO, target="image", words="red").text_rank == rank


def test_index_of_an_earlier_version_is_searched_by_its_text_fields(
    address: Address, rest: Rest
) -> None:
    where = parse_address(address())
    server = Server(where)
    fields = {"caption": user_field("caption", "text"), "story": user_field("story", "text")}
    name = make_version(server, where, 8, None, LAYOUTS["faiss"], alias=where.index, fields=fields)
    server.close()
    # The mapping of an earlier version has no words.
    mappings = rest("GET", f"/{name}/_mapping")[name]["mappings"]
    assert mappings["_meta"]["xmodal"].pop("words")
    rest("PUT", f"/{name}/_mapping", {"_meta": mappings["_meta"]})
    with open_opensearch(str(where)) as index:
        assert "no words" in repr(index)
        fill(index, {"a": {"caption": "Two dogs"}, "b": {"caption": "a boat", "story": "dogs"}})
        assert {hit.id for hit in found(index, "dogs")} == {"a", "b"}
        [hit] = found(index, "dogs boat", text_field="caption", excluded="two")
        assert (hit.id, hit.matched) == ("b", ("boat",))
        assert "words" not in json.dumps(rest("GET", f"/{name}/_doc/a")["_source"])
        with pytest.raises(ConfigError, match=r"'title' is no text .* caption"):
            found(index, "dogs", text_field="title")
