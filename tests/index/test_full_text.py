"""Full text of the local index: BM25 as in Lucene, filters, changes, damaged files, readers."""

from __future__ import annotations

import math
import random
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xmodal.codes import BinaryCodes
from xmodal.errors import ConfigError
from xmodal.index.bm25 import BLOCK, best
from xmodal.index.contract import FullTextIndex, WordsHit, WordsQuery
from xmodal.index.local import HammingIndex, open_folder
from xmodal.index.segments.columns import MemoryColumns
from xmodal.index.segments.word_columns import (
    LENGTHS,
    WordColumns,
    merge_word_columns,
    word_columns,
)
from xmodal.index.words import document_words, tokens

WORDS = "dog cat red blue running jumping in on the a of sea 犬が走る 猫 หมา x9 BigCar".split()


def codes(n: int) -> BinaryCodes:
    return BinaryCodes(np.zeros((n, 1), np.uint8), 8)


def add(index: HammingIndex, texts: dict[str, Any], **more: Any) -> None:
    """Add documents with an image code: id to captions."""
    fields = [{"text": text, **more} for text in texts.values()]
    index.add(list(texts), image=codes(len(texts)), fields=fields)


def filled(texts: dict[str, Any], folder: Path | None = None) -> HammingIndex:
    index = HammingIndex(8, folder=folder)
    add(index, texts)
    index.close()
    return index


def search(index: HammingIndex, text: str, excluded: str = "", k: int = 1000) -> list[WordsHit]:
    [hits] = index.search_words([WordsQuery(text, excluded)], k, target="image")
    return hits


def found(index: HammingIndex, text: str, excluded: str = "", k: int = 1000) -> list[str]:
    return [hit.id for hit in search(index, text, excluded, k)]


# ---- reference -------------------------------------------------------------------------------


def rounded(length: int) -> int:
    """Return a length as Lucene stores it: SmallFloat.byte4ToInt(SmallFloat.intToByte4(length))."""
    rest = length - 24
    shift = max(0, rest.bit_length() - 4)
    return length if rest < 8 else 24 + (rest >> shift << shift)


def reference(
    documents: dict[str, Any], text: str, excluded: str = "", accepted: set[str] | None = None
) -> list[WordsHit]:
    """Return the ranking of all documents, by the formulas of Lucene's BM25Similarity."""
    f = np.float32
    words = {id_: document_words({"text": texts}, id_) for id_, texts in documents.items()}
    queries, unwanted = list(dict.fromkeys(tokens(text))), set(tokens(excluded))
    counts = {id_: Counter(own) for id_, own in words.items()}
    n = len(documents)
    mean = f(sum(map(len, words.values())) / n)
    having = {word: sum(word in count for count in counts.values()) for word in queries}
    hits = []
    for id_, count in counts.items():
        matched = tuple(word for word in queries if count[word])
        if not matched or unwanted & set(count) or not (accepted is None or id_ in accepted):
            continue
        score = 0.0
        for word in matched:
            idf = f(math.log(1 + (n - having[word] + 0.5) / (having[word] + 0.5)))
            length = f(rounded(len(words[id_])))
            inverse = f(1) / (f(1.2) * ((f(1) - f(0.75)) + f(0.75) * length / mean))
            score += float(idf - idf / (f(1) + f(count[word]) * inverse))
        hits.append(WordsHit(id_, float(f(score)), matched))
    return sorted(hits, key=lambda hit: (-hit.score, hit.id))


def random_text(rng: random.Random, longest: int) -> str:
    return " ".join(rng.choices(WORDS, k=rng.randint(1, longest)))


def random_documents(rng: random.Random, n: int, longest: int = 12) -> dict[str, Any]:
    return {f"{rng.random():.12f}": random_text(rng, longest) for _ in range(n)}


def test_lengths_are_those_of_lucene() -> None:
    assert sorted({rounded(length) for length in range(10**6)}) == [
        length for length in LENGTHS.tolist() if length < 10**6
    ]
    assert LENGTHS[:44].tolist() == [*range(40), 40, 42, 44, 46]
    assert LENGTHS[-1] == 2013265944  # SmallFloat.byte4ToInt((byte) 255)


@pytest.mark.parametrize("seed", range(3))
def test_scores_and_ranks_equal_the_reference(seed: int) -> None:
    rng = random.Random(seed)
    documents = random_documents(rng, (700, 700, 100)[seed], longest=(4, 12, 300)[seed])
    index = filled(documents)
    for _ in range(10):
        query = (random_text(rng, 6), random_text(rng, 1) if rng.random() < 0.3 else "")
        expected = reference(documents, *query)
        assert search(index, *query) == expected
        for k in (1, 7, 100):
            assert search(index, *query, k=k) == expected[:k]


def test_filters_and_the_target_apply_before_the_best_are_selected() -> None:
    rng = random.Random(5)
    documents = random_documents(rng, 600)
    index = HammingIndex(8)
    for number, (id_, text) in enumerate(documents.items()):
        fields = [{"text": text, "n": number}]
        index.add([id_], **{("image", "text")[number % 5 == 0]: codes(1)}, fields=fields)  # type: ignore[arg-type]
    every = {id_: number for number, id_ in enumerate(documents)}
    for limit in (2, 20, 599):
        text = random_text(rng, 4)
        for target, odd in (("image", False), ("text", True)):
            accepted = {i for i, n in every.items() if (n % 5 == 0) == odd and n < limit}
            # "n" is a number, so the words of a document are those of its caption.
            [hits] = index.search_words(
                [WordsQuery(text)],
                9,
                target=target,  # type: ignore[arg-type]
                where={"n": {"lt": limit}},
            )
            assert hits == reference(documents, text, accepted=accepted)[:9]


# ---- words -----------------------------------------------------------------------------------


def test_words_inside_sentences_of_unspaced_scripts_are_found() -> None:
    index = filled(
        {
            "ja": "赤い自転車に乗る犬がいます",
            "zh": "一只猫坐在红色沙发上",
            "th": "หมาสีน้ำตาลวิ่งบนหญ้า",
            "en": ["a brown dog", "Dogs, running 🐕"],
        }
    )
    for word, id_ in {"自転車": "ja", "犬": "ja", "沙发": "zh", "猫": "zh", "น้ำตาล": "th"}.items():
        assert found(index, word) == [id_]
    assert set(found(index, "犬 DOG's")) == {"ja", "en"}
    assert found(index, "🐕") == ["en"]
    assert search(index, "the DOGS brown")[0].matched == ("dog", "brown")


def test_other_fields_and_names_are_searched() -> None:
    index = HammingIndex(8)
    fields = [{"text": "cat", "colour": "Navy Blue"}, {"image": "/d/RedCars/van_7.png"}]
    index.add(["a", "b"], image=codes(2), fields=fields)
    assert [found(index, text) for text in ("navy", "red car", "van")] == [["a"], ["b"], ["b"]]


def test_queries_without_known_words_find_nothing() -> None:
    index = filled({"a": "cat"})
    assert [found(index, text) for text in ("", "?!", "dog", "a")] == [[], [], [], []]
    assert found(HammingIndex(8), "cat") == []
    assert found(index, "cat", excluded="cat") == []
    assert found(index, "cat", excluded="dog ?") == ["a"]
    assert found(index, "cat " * 100 + " ".join(map(str, range(2000)))) == ["a"]


def test_equal_scores_are_ordered_by_id_and_complete_at_the_border() -> None:
    n = 5 * BLOCK + 3
    index = filled({f"{at:05d}": "cat" if at % 3 else "dog" for at in reversed(range(n))})
    expected = [f"{at:05d}" for at in range(n) if at % 3]
    for k in (1, 2, 4, 5, 6, BLOCK, n):
        assert found(index, "cat", k=k) == expected[:k]


def test_best_equals_a_sort() -> None:
    rng = np.random.default_rng(0)
    for density in (0, 0.001, 0.1, 1):
        scores = (rng.integers(1, 9, 8 * BLOCK) * (rng.random(8 * BLOCK) < density)).astype("f4")
        order = sorted(np.flatnonzero(scores), key=lambda row: (-scores[row], row))
        for k in (1, 7, 8, 9, 300, 5000):
            assert best(scores, k)[0].tolist() == order[:k]
    assert best(np.zeros(0, np.float32), 3)[0].tolist() == []


def test_bad_arguments_are_refused() -> None:
    index = filled({"a": "cat"})
    assert isinstance(index, FullTextIndex)
    for options in ({"k": 0, "target": "image"}, {"k": 1, "target": "sound"}):
        with pytest.raises(ConfigError):
            index.search_words([WordsQuery("cat")], **options)


# ---- changes ---------------------------------------------------------------------------------


@pytest.mark.parametrize("in_folder", [False, True])
def test_changes_leave_the_scores_of_a_new_index(tmp_path: Path, in_folder: bool) -> None:
    rng = random.Random(7)
    documents: dict[str, Any] = {}
    index = HammingIndex(8, folder=tmp_path / "a" if in_folder else None)
    for _ in range(12):
        new = {str(rng.randrange(150)): random_text(rng, 9) for _ in range(rng.randrange(30))}
        gone = [str(rng.randrange(150)) for _ in range(rng.randrange(20))]
        add(index, new)
        index.delete(gone)
        documents |= new
        documents = {id_: text for id_, text in documents.items() if id_ not in gone}
        if rng.random() < 0.7:
            for text in (random_text(rng, 3), "cat", "x9"):
                assert search(index, text) == (reference(documents, text) if documents else [])
        if in_folder:
            index.save()
            if rng.random() < 0.5:
                index = open_folder(tmp_path / "a")


def test_replaced_and_deleted_documents_are_gone() -> None:
    index = filled({"a": "cat", "b": "cat dog", "c": "horse"})
    assert found(index, "cat") == ["a", "b"]
    add(index, {"a": "horse"})
    index.delete(["b"])
    assert (found(index, "cat"), found(index, "dog"), found(index, "horse")) == ([], [], ["a", "c"])
    index.delete(["a", "c"])
    assert found(index, "horse") == []


@pytest.mark.parametrize("seed", range(3))
def test_merged_words_are_those_of_the_documents_that_remain(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xmodal.index.segments.word_columns.MERGED_AT_ONCE", 40)
    rng = random.Random(seed)
    texts = [[random_text(rng, 9).split() for _ in range(n)] for n in (40, 1, 0, 25)]
    kept = [[row for row in range(len(part)) if rng.random() < 0.7] for part in texts]
    remaining = [part[row] for part, rows in zip(texts, kept, strict=True) for row in rows]
    order = rng.sample(range(len(remaining)), len(remaining))
    parts = [
        (MemoryColumns(word_columns(part)), len(part), np.array(rows, np.int64))
        for part, rows in zip(texts, kept, strict=True)
    ]
    merged = merge_word_columns(parts, np.array(order, np.int64))
    expected = word_columns([remaining[row] for row in order])
    assert merged.keys() == expected.keys()
    for name, array in expected.items():
        assert merged[name].dtype == array.dtype and np.array_equal(merged[name], array), name


def test_postings_have_rows_counts_and_lengths() -> None:
    words = WordColumns(MemoryColumns(word_columns([["x", "y"], [], ["y", "y", "z"], ["y"] * 300])))
    [(rows, found), none] = words.postings(["y", "unknown"])
    assert rows.tolist() == [0, 2, 3]
    assert [divmod(code, 256) for code in found.tolist()] == [
        (count, np.searchsorted(LENGTHS, length, side="right") - 1)
        for count, length in ((1, 2), (2, 3), (255, 300))
    ]
    assert none.rows.tolist() == []
    assert words.totals(None) == (3, 305)
    assert words.totals(np.array([False, True, True, True])) == (2, 303)


def test_words_of_another_version_are_computed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as earlier:
        earlier.setattr("xmodal.index.segments.segment.VERSION", "0")
        earlier.setattr("xmodal.index.segments.segment.document_words", lambda *_: ["old"])
        filled({"a": "cat"}, tmp_path)
    index = open_folder(tmp_path)
    assert not caplog.records
    assert (found(index, "cat"), found(index, "old")) == (["a"], [])
    assert "words of another version" in caplog.text
    add(index, {"b": "dog"})
    index.save()
    caplog.clear()
    assert found(open_folder(tmp_path), "cat") == ["a"] and not caplog.records


# ---- readers while a writer saves ------------------------------------------------------------

WRITER = """
import sys
import numpy as np
from xmodal.codes import BinaryCodes
from xmodal.index.local import open_folder

for turn in range(12):
    index = open_folder(sys.argv[1])
    n = 300 + turn
    packed = np.zeros((n, 1), np.uint8)
    fields = [{"text": f"turn{turn} cat"}] * n
    index.add([str(at) for at in range(n)], image=BinaryCodes(packed, 8), fields=fields)
    index.save()
"""


def test_readers_find_complete_words_while_another_process_saves(tmp_path: Path) -> None:
    filled({str(at): "turn99 cat" for at in range(300)}, tmp_path)
    problems: list[str] = []
    finished = threading.Event()

    def read() -> None:
        while not finished.is_set():
            index = open_folder(tmp_path)
            hits = search(index, "cat turn")
            if len(hits) != len(index) or any(hit.matched != ("cat", "turn") for hit in hits):
                problems.append(f"{len(hits)} hits of {len(index)} documents")

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    try:
        subprocess.run([sys.executable, "-c", WRITER, str(tmp_path)], check=True)
    finally:
        finished.set()
        for reader in readers:
            reader.join()
    assert problems == []
    assert len(found(open_folder(tmp_path), "11")) == 311


def test_threads_that_search_first_find_all_documents() -> None:
    index = filled({f"{at:04d}": "cat" for at in range(2000)})
    results: list[int] = []
    threads = [
        threading.Thread(target=lambda: results.append(len(found(index, "cat", k=5000))))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [2000] * 4
