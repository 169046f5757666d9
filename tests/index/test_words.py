"""The words of queries and documents: splitting, folding, unspaced scripts, plurals, fields."""

from __future__ import annotations

from typing import Any

import pytest

from xmodal.index.words import as_typed, document_words, stem, tokens


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a red-hot chili_pepper, now!", "a red hot chili pepper now"),
        ("", ""),
        (" .,;- ", ""),
        ("mp3 2x4 B52", "mp 3 2 x 4 b 52"),
        ("RedShoes", "red shoe redsho"),
        ("iPhone HTTPServer", "i phone iphon http server httpserver"),
        ("NASA Apple", "nasa appl"),
        ("the dog's bone, the dogs’ bones", "the dog bone the dog bone"),
        ("Café NAÏVE Ångström İZMİR", "cafe naiv angstrom izmir"),
        ("cafe\u0301", "cafe"),
        ("Straße STRASSE", "strass strass"),
        ("ΑΘΗΝΑ Москва", "αθηνα москва"),
        ("ＦＵＬＬ ﬁne №5", "full fine no 5"),
        ("soft\u00adhyphen", "softhyphen"),
        ("🍕pizza ❤️", "🍕 pizza ❤"),
        ("हिन्दी में", "हिन्दी में"),
    ],
)
def test_words_of_spaced_scripts(text: str, expected: str) -> None:
    assert tokens(text) == expected.split()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("犬", "犬"),
        ("自転車", "自転 転車"),
        ("赤い犬。走る", "赤い い犬 走る"),
        ("中文ABC字2", "中文 abc 字 2"),
        ("ｶﾒﾗ", "カメ メラ"),
        ("หมา", "หม มา"),
        ("น้ำ", "น้ํา"),  # marks belong to the character before them
        ("자전거", "자전 전거"),
    ],
)
def test_unspaced_runs_become_pairs_of_characters(text: str, expected: str) -> None:
    assert tokens(text) == expected.split()


@pytest.mark.parametrize(
    ("sentence", "word"),
    [
        ("赤い自転車に乗る犬がいます", "自転車"),
        ("赤い自転車に乗る犬がいます", "犬"),
        ("一只猫坐在红色沙发上", "沙发"),
        ("一只猫坐在红色沙发上", "猫"),
        ("หมาสีน้ำตาลวิ่งบนหญ้า", "สีน้ำตาล"),
        ("ໝານ້ອຍແລ່ນ", "ແລ່ນ"),
        ("소년이 자전거를 탄다", "자전거"),
        ("👍🏽 good 🍕", "🍕"),
        ("the iPhone", "iphone"),
    ],
)
def test_a_document_has_all_words_of_a_word_inside_its_caption(sentence: str, word: str) -> None:
    assert tokens(word)
    assert set(tokens(word)) <= set(document_words({"text": sentence}, "1"))


@pytest.mark.parametrize(
    "forms",
    [
        *("dog dogs", "shoe shoes", "dress dresses", "watch watches", "brush brushes", "box boxes"),
        *("puppy puppies", "movie movies", "tie ties", "glass glasses", "hero heroes"),
        *("heel heels heeled", "run runs running", "lock locked locking", "smile smiling smiles"),
    ],
)
def test_forms_of_a_word_have_one_stem(forms: str) -> None:
    assert len({stem(word) for word in forms.split()}) == 1


@pytest.mark.parametrize("word", ["a", "is", "his", "was", "bus", "grass", "cactus", "she", "the"])
def test_words_without_an_ending_remain(word: str) -> None:
    assert stem(word) == word


def test_ascii_and_other_texts_are_cut_alike() -> None:
    text = "TheRedShoes of 2 dogs' owner42, NASA's iPod (x_y-z) THEs"
    assert tokens(text) == tokens(text + " é")[:-1]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"text": "two dogs"}, "two dog"),
        ({"text": ["two dogs", ["a cat", None]], "image": "/photos/x.jpg"}, "two dog a cat"),
        ({"text": "cat", "colour": "Navy Blue", "labels": ["Pet"]}, "cat navi blue pet"),
        ({"text": "cat", "year": 2011, "sale": True, "note": None}, "cat"),
        ({"text": "犬と猫"}, "犬と と猫 犬 と 猫"),
        ({}, "old car 7"),
        ({"text": None, "image": None}, "old car 7"),
        ({"text": " ", "kind": "Van"}, "van old car 7"),
        ({"image": "/home/u/MyCars/red_van1.jpeg"}, "old car 7 my car mycar red van 1"),
        ({"image": ["/d/cars/a.png", r"C:\d\cars\b.png"]}, "old car 7 car a b"),
    ],
)
def test_words_of_documents(fields: dict[str, Any], expected: str) -> None:
    assert document_words(fields, "old_cars/7.png") == expected.split()


def test_long_words_are_cut_alike_in_queries_and_documents() -> None:
    for text in ("x" * 1000, "7" * 1000, "ก" + "\u0e31" * 1000 + "ก"):
        assert max(map(len, tokens(text))) <= 64
        assert set(tokens(text)) <= set(document_words({"text": text}, "1"))


def test_words_are_shown_as_they_were_typed() -> None:
    assert as_typed("Red shoes, RED heels", ["shoe", "red"]) == ("Red", "shoes")
    assert as_typed("红色沙发", ["沙发"]) == ("沙发",)
    assert as_typed("RedShoes", ["redsho", "red"]) == ("RedShoes",)
