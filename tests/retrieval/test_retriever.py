"""Retriever: encoding, search and confidence of one query and of many."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from xmodal.codes import BinaryCodes
from xmodal.data.dataset import Dataset
from xmodal.encoders.encoder import Encoder
from xmodal.errors import ConfigError, DataError, IndexMissing, XmodalError
from xmodal.index.local import HammingIndex
from xmodal.retrieval.query import Query
from xmodal.retrieval.retriever import Retriever


@pytest.fixture(scope="module")
def index(index_path: Any) -> HammingIndex:
    """The index of the synthetic test data."""
    return HammingIndex.load(index_path, bits=None, fingerprint=None)


@pytest.fixture
def retriever(encoder: Encoder, index: HammingIndex) -> Retriever:
    return Retriever(encoder, index)


def test_text_query_returns_pictures_with_confidence(
    retriever: Retriever, encoder: Encoder, index: HammingIndex
) -> None:
    hits = retriever.search(text="a red circle", k=7, where={"colour": "red"})
    codes = encoder.encode_texts(["a red circle"])
    (expected,) = index.search(codes, 7, target="image", where={"colour": "red"})
    assert [hit._replace(confidence=None) for hit in hits] == expected
    assert [hit.confidence for hit in hits] == [
        pytest.approx(encoder.confidence(hit.distance), abs=1e-4) for hit in hits
    ]


def test_picture_query_returns_texts_by_default(
    retriever: Retriever, encoder: Encoder, index: HammingIndex, dataset: Dataset
) -> None:
    image = dataset.items[0].images[0]
    assert image is not None
    hits = retriever.search(image=image, k=5)
    (expected,) = index.search(encoder.encode_images([image]), 5, target="text")
    assert [(hit.id, hit.distance) for hit in hits] == [(h.id, h.distance) for h in expected]
    same_modality = retriever.search(image=image, target="image", k=5)
    assert {hit.confidence for hit in same_modality} == {None}


def test_document_query_excludes_the_document(retriever: Retriever, index: HammingIndex) -> None:
    ids, codes = index.codes("image")
    (expected,) = index.search(codes[3:4], 200, target="image")
    hits = retriever.search(like=ids[3], k=9)
    assert [hit.id for hit in hits] == [hit.id for hit in expected if hit.id != ids[3]][:9]


def test_radius_and_min_confidence_limit_hits(retriever: Retriever, encoder: Encoder) -> None:
    every = retriever.search(text="a red circle", k=150)
    radius = every[40].distance
    within = retriever.search(text="a red circle", k=150, radius=radius)
    assert within == [hit for hit in every if hit.distance <= radius]
    between = (encoder.confidence(radius) + encoder.confidence(radius + 1)) / 2
    assert retriever.search(text="a red circle", k=150, min_confidence=between) == within


def test_search_many_returns_hits_and_errors_in_place(
    retriever: Retriever, dataset: Dataset
) -> None:
    image, ids = dataset.items[5].images[0], dataset.ids
    queries = [
        Query(text="a red circle"),
        Query(text="a blue star", k=3),
        Query(like=ids[1]),
        Query(like="unknown"),
        Query(image=image),
        Query(text="a green cross"),
        Query(),
    ]
    found = retriever.search_many(queries)
    for query, result in zip(queries, found, strict=True):
        (alone,) = retriever.search_many([query])
        assert type(result) is type(alone)
        assert isinstance(alone, XmodalError) or result == alone
    assert isinstance(found[3], IndexMissing) and isinstance(found[6], ConfigError)
    assert [len(one) for one in found if isinstance(one, list)] == [10, 3, 10, 10, 10]


def test_unusable_queries_raise(retriever: Retriever) -> None:
    with pytest.raises(DataError):
        retriever.search(text="!!!")
    with pytest.raises(ConfigError, match="expected a text"):
        retriever.search()
    with pytest.raises(ConfigError, match="'sound'"):
        retriever.search(text="a", weights={"sound": 2.0})
    with pytest.raises(ConfigError, match="'sound'"):
        retriever.search(like="b", target="sound")  # type: ignore[arg-type]


def test_where_may_have_sets_of_values(retriever: Retriever) -> None:
    hits = retriever.search(text="a red circle", k=9, where={"colour": {"red", "blue"}})
    assert hits == retriever.search(text="a red circle", k=9, where={"colour": ["red", "blue"]})


def test_document_without_the_target_modality_is_searched_by_its_other_code() -> None:
    index = HammingIndex(8)
    codes = BinaryCodes(np.arange(4, dtype=np.uint8).reshape(-1, 1), 8)
    index.add(["a", "b", "c"], image=codes[:3])
    index.add(["words"], text=codes[1:2])
    retriever = Retriever(None, index)
    assert [hit.id for hit in retriever.search(like="words", k=2)] == ["b", "a"]
    assert [hit.id for hit in retriever.search(like="b", target="text", k=2)] == ["words"]


def test_document_with_several_codes_is_searched_by_the_nearest_pair() -> None:
    rng = np.random.default_rng(0)
    sizes = [3, 1, 5, 2, 1, 4, 0, 2, 1, 3]
    ids = [f"d{row}" for row in range(len(sizes))]
    parts = [BinaryCodes(rng.integers(0, 16, (size, 1), dtype=np.uint8) * 17, 8) for size in sizes]
    index = HammingIndex(8)
    one = BinaryCodes(rng.integers(0, 256, (len(ids), 1), dtype=np.uint8), 8)
    index.add(ids, text=parts, image=one)
    retriever = Retriever(None, index)
    for k in (1, 4, 20):
        found = retriever.search_batch([Query(like=id_, target="text", k=k) for id_ in ids])
        for row, id_ in enumerate(ids):
            query = parts[row] if sizes[row] else one[row : row + 1]
            expected = []
            for other, part in zip(ids, parts, strict=True):
                if other == id_ or not len(part):
                    continue
                of_codes = query.distances(part).min(axis=0)
                expected.append((int(of_codes.min()), other, int(of_codes.argmin())))
            hits = [(hit.distance, hit.id, hit.nearest) for hit in found[row]]
            assert hits == sorted(expected)[:k]


def test_queries_by_documents_are_one_search_of_the_index(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    index = HammingIndex(8)
    codes = BinaryCodes(np.arange(6, dtype=np.uint8).reshape(-1, 1), 8)
    index.add(["a", "b", "c"], image=[codes[:3], codes[3:4], codes[4:]])
    searches = []
    search = index.search
    monkeypatch.setattr(
        index, "search", lambda *args, **options: searches.append(1) or search(*args, **options)
    )
    found = Retriever(None, index).search_batch([Query(like=id_) for id_ in "abc"])
    assert [[hit.id for hit in hits] for hits in found] == [["b", "c"], ["a", "c"], ["a", "b"]]
    assert len(searches) == 1


def test_retriever_without_encoder_searches_documents_and_codes() -> None:
    index = HammingIndex(8)
    codes = BinaryCodes(np.arange(4, dtype=np.uint8).reshape(-1, 1), 8)
    index.add(["a", "b", "c", "d"], image=codes)
    retriever = Retriever(None, index)
    assert [hit.id for hit in retriever.search(like="a", k=2)] == ["b", "c"]
    (found,) = retriever.search_many([Query(code=codes[3:], target="image", k=1)])
    assert isinstance(found, list) and (found[0].id, found[0].confidence) == ("d", None)
    with pytest.raises(ConfigError, match="no encoder"):
        retriever.search(text="a red circle")
    with pytest.raises(ConfigError, match="needs a text"):
        retriever.search(like="a", by="words")


def test_search_many_keeps_the_hits_of_queries_beside_one_that_cannot_be_encoded(
    retriever: Retriever,
) -> None:
    queries = [Query(text="a red circle"), Query(text="!!!"), Query(text="a blue star")]
    found = retriever.search_many(queries)
    assert isinstance(found[1], DataError)
    assert [found[0], found[2]] == retriever.search_many([queries[0], queries[2]])


def test_search_batch_returns_lists_of_hits_and_raises_the_first_error(
    retriever: Retriever,
) -> None:
    queries = [Query(text="a red circle", k=3), Query(text="a blue star", k=4)]
    assert retriever.search_batch(queries) == retriever.search_many(queries)
    with pytest.raises(DataError):
        retriever.search_batch([*queries, Query(text="!!!")])
