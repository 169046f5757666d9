"""Retriever: encoding, search and confidence of one query and of many."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.ranked_documents import ranked_documents

from xmodal.codes import BinaryCodes
from xmodal.data.dataset import Dataset
from xmodal.encoders.encoder import Encoder
from xmodal.errors import ConfigError, DataError, IndexMissing, XmodalError
from xmodal.index.contract import WINDOW, Hit
from xmodal.index.local import HammingIndex
from xmodal.index.query_codes import QueryCodes
from xmodal.retrieval.query import Query
from xmodal.retrieval.retriever import Retriever


@pytest.fixture(scope="module")
def index(index_path: Any) -> HammingIndex:
    """The index of the synthetic test data."""
    return HammingIndex.load(index_path, bits=None, fingerprint=None)


@pytest.fixture
def retriever(encoder: Encoder, index: HammingIndex) -> Retriever:
    return Retriever(encoder, index)


def query_codes(encoder: Encoder, modality: Any, source: Any) -> QueryCodes:
    outputs = encoder.encode(modality, [source]).outputs
    assert outputs is not None
    return QueryCodes.of(outputs)


def test_text_query_returns_pictures_with_confidence(
    retriever: Retriever, encoder: Encoder, index: HammingIndex
) -> None:
    hits = retriever.search(text="a red circle", k=7, where={"colour": "red"}, by="codes")
    query = query_codes(encoder, "text", "a red circle")
    (expected,) = index.search(query, 7, target="image", where={"colour": "red"})
    assert [hit._replace(confidence=None) for hit in hits] == expected
    assert all(hit.confidence is not None for hit in hits)


def test_picture_query_returns_texts_by_default(
    retriever: Retriever, encoder: Encoder, index: HammingIndex, dataset: Dataset
) -> None:
    image = dataset.items[0].images[0]
    assert image is not None
    hits = retriever.search(image=image, k=5)
    (expected,) = index.search(query_codes(encoder, "image", image), 5, target="text")
    assert [(hit.id, hit.distance) for hit in hits] == [(h.id, h.distance) for h in expected]
    same_modality = retriever.search(image=image, target="image", k=5)
    assert {hit.confidence for hit in same_modality} == {None}


@pytest.mark.parametrize("stage", ["vectors", "weighted", "hamming"])
def test_stage_decides_what_ranks(
    retriever: Retriever, encoder: Encoder, index: HammingIndex, stage: Any
) -> None:
    query = query_codes(encoder, "text", "a blue star")
    expected = {
        "vectors": query,
        "weighted": QueryCodes(query.codes, query.weights),
        "hamming": query.codes,
    }[stage]
    hits = retriever.search(text="a blue star", k=30, by="codes", stage=stage)
    (found,) = index.search(expected, 30, target="image")
    assert [(h.id, h.similarity) for h in hits] == [(h.id, h.similarity) for h in found]


def test_offset_leaves_out_the_first_hits(retriever: Retriever) -> None:
    every = retriever.search(text="a red circle", k=140, by="codes")
    page = retriever.search(text="a red circle", k=20, offset=110, by="codes")
    assert page == every[110:130]


@pytest.fixture(scope="module")
def many_documents(encoder: Encoder) -> HammingIndex:
    """More documents with vectors and captions than vectors order again."""
    index = HammingIndex(encoder.bits)
    index.add(ranked_documents(encoder.bits))
    return index


def test_only_documents_of_a_deep_page_are_measured(
    encoder: Encoder, many_documents: HammingIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[str] = []
    measure = many_documents.measure

    def counted(query: QueryCodes, ids: list[str], **options: Any) -> dict[str, Hit]:
        measured.extend(ids)
        return measure(query, ids, **options)

    monkeypatch.setattr(many_documents, "measure", counted)
    retriever = Retriever(encoder, many_documents)
    page = retriever.search(text="a red star", target="image", k=20, offset=400, by="codes")
    assert measured == [hit.id for hit in page] and len(page) == 20
    assert all(hit.similarity is not None for hit in page)


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({}, 600),
        ({"by": "codes"}, 600),
        ({"by": "words"}, 400),
        ({"by": "codes", "stage": "weighted"}, 600),
        ({"word_weight": 0.1}, 600),
        ({"not_text": ["star"]}, 300),
        ({"not_text": ["star", "blue box"], "by": "codes"}, 200),
        ({"like": "0007"}, 599),
        ({"radius": "median"}, None),
        ({"min_confidence": "least"}, 600),
        ({"min_confidence": "some of the window"}, None),
        ({"min_confidence": "the window"}, None),
        ({"min_confidence": "the window", "by": "codes"}, None),
        ({"min_confidence": "some of the window", "by": "codes", "stage": "hamming"}, None),
        ({"not_text": ["red star"], "by": "words"}, 300),
        ({"radius": "median", "by": "words"}, None),
    ],
    ids=repr,
)
def test_pages_are_parts_of_one_ranking(
    encoder: Encoder, many_documents: HammingIndex, options: dict[str, Any], count: int | None
) -> None:
    retriever = Retriever(encoder, many_documents)
    query = {"text": "a red star", "target": "image", **options}
    hits = retriever.search(text="a red star", target="image", k=1000)
    if "radius" in options:  # half of the documents are within it
        query["radius"] = sorted(hit.distance for hit in hits)[len(hits) // 2]
    if "min_confidence" in options:
        hits = retriever.search(**query | {"min_confidence": None}, k=1000)
        few = {"least": len(hits), "the window": WINDOW + 50}.get(options["min_confidence"], 250)
        first = [
            hit
            for place, hit in enumerate(hits, start=1)
            if ((hit.ranks or {}).get("codes", place) or 0) <= few
        ]
        query["min_confidence"] = min(hit.confidence or 0 for hit in first)
    every = [hit.id for hit in retriever.search(**query, k=1000)]
    assert len(set(every)) == len(every) and (len(every) == count if count else len(every) > 150)
    pages = [
        [hit.id for hit in retriever.search(**query, k=70, offset=offset)]
        for offset in range(0, len(every), 70)
    ]
    assert [id_ for page in pages for id_ in page] == every
    if options.get("min_confidence") == "the window":
        passing = {hit.id for hit in hits if (hit.confidence or 0) >= query["min_confidence"]}
        assert set(every) == passing


def combined(parts: list[tuple[Any, float]]) -> QueryCodes:
    """The weighted sum of outputs, each scaled to the mean length."""
    lengths = [np.linalg.norm(outputs) for outputs, _ in parts]
    return QueryCodes.of(
        sum(
            weight * np.mean(lengths) * outputs.astype(np.float64) / length
            for (outputs, weight), length in zip(parts, lengths, strict=True)
        )
    )


def test_text_and_picture_are_combined(
    retriever: Retriever, encoder: Encoder, index: HammingIndex, dataset: Dataset
) -> None:
    image = dataset.items[0].images[0]
    text, picture = encoder.encode("text", ["a blue star"]), encoder.encode("image", [image])
    query = combined([(text.outputs, 1.0), (picture.outputs, 3.0)])
    (expected,) = index.search(query, 9, target="image")
    hits = retriever.search(
        text="a blue star", image=image, k=9, weights={"image": 3.0}, by="codes"
    )
    assert [(h.id, h.distance) for h in hits] == [(h.id, h.distance) for h in expected]
    assert {hit.confidence for hit in hits} == {None}


def test_text_is_subtracted(retriever: Retriever, encoder: Encoder, index: HammingIndex) -> None:
    outputs = encoder.encode("text", ["a star", "a blue circle"]).outputs
    assert outputs is not None
    query = combined([(outputs[:1], 1.0), (outputs[1:], -0.25)])
    (expected,) = index.search(query, 200, target="image")
    hits = retriever.search(
        text="a star", not_text=["a blue circle"], weights={"not": 0.25}, k=40, by="codes"
    )
    assert [hit.id for hit in hits] == [
        hit.id
        for hit in expected
        if (hit.fields["colour"], hit.fields["shape"]) != ("blue", "circle")
    ][:40]


def test_documents_with_all_words_of_a_subtracted_text_are_no_hits(retriever: Retriever) -> None:
    blue = retriever.search(text="a star", not_text=["blue"], k=150)
    assert blue and all(hit.fields["colour"] != "blue" for hit in blue)
    circles = retriever.search(text="a star", not_text=["blue circle"], k=150)
    shown = {(hit.fields["colour"], hit.fields["shape"]) for hit in circles}
    assert ("blue", "circle") not in shown and ("blue", "star") in shown


def test_document_query_excludes_the_document(retriever: Retriever, index: HammingIndex) -> None:
    ids, codes = index.codes("image")
    (expected,) = index.search(codes[3:4], 200, target="image")
    hits = retriever.search(like=ids[3], k=9, stage="hamming")
    assert [hit.id for hit in hits] == [hit.id for hit in expected if hit.id != ids[3]][:9]
    vectors = index.get([ids[3]]).vectors["image"].astype(float)
    cosines = sorted(hit.similarity or 0.0 for hit in retriever.search(like=ids[3], k=9))
    others = [index.get([id_]).vectors["image"].astype(float)[0] for id_ in ids if id_ != ids[3]]
    exact = sorted(v @ vectors[0] / np.linalg.norm(v) / np.linalg.norm(vectors[0]) for v in others)[
        -9:
    ]
    assert cosines == pytest.approx(exact, abs=1e-3)


def test_radius_and_min_confidence_limit_hits(retriever: Retriever) -> None:
    every = retriever.search(text="a red circle", k=150)
    radius = sorted(hit.distance for hit in every)[40]
    within = retriever.search(text="a red circle", k=150, radius=radius)
    assert {hit.id for hit in within} == {hit.id for hit in every if hit.distance <= radius}
    least = sorted(hit.confidence or 0.0 for hit in every)[100]
    confident = retriever.search(text="a red circle", k=150, min_confidence=least)
    assert confident == [hit for hit in every if (hit.confidence or 0.0) >= least]


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
    with pytest.raises(ConfigError, match="65 texts, expected at most 64"):
        retriever.search(text="a", not_text=["b"] * 65)
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
