"""Typed queries: words to exclude, weights of parts, description."""

from __future__ import annotations

import pytest

from xmodal.errors import ConfigError
from xmodal.retrieval.query_text import describe, parse_weights, split_query_text


@pytest.mark.parametrize(
    ("text", "found", "excluded"),
    [
        ("red shoes", "red shoes", ()),
        ("red shoes -leather", "red shoes", ("leather",)),
        ("-leather red -laces shoes", "red shoes", ("leather", "laces")),
        ('shoes -"dark  blue" red', "shoes red", ("dark blue",)),
        ("a t-shirt - blue", "a t-shirt - blue", ()),
        ("shoes -5 -日本", "shoes", ("5", "日本")),
        ("-leather", None, ("leather",)),
        ("shoes -- red", "shoes -- red", ()),
        ('shoes -""', 'shoes -""', ()),
        ("  two  spaces ", "two  spaces", ()),
        ("", None, ()),
    ],
)
def test_words_after_a_minus_sign_are_excluded(
    text: str, found: str | None, excluded: tuple[str, ...]
) -> None:
    assert split_query_text(text) == (found, excluded)


def test_weights_are_of_parts_and_of_words() -> None:
    assert parse_weights([]) == ({}, 1.0)
    assert parse_weights(["image=2", "not=0.25", "words=0"]) == ({"image": 2.0, "not": 0.25}, 0.0)
    assert parse_weights(["text=1", "text=3"]) == ({"text": 3.0}, 1.0)


@pytest.mark.parametrize("text", ["image", "image=", "image=x", "colour=1", "text=-1", "text=nan"])
def test_other_weights_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="text, image, like, not, words"):
        parse_weights([text])


def test_description_of_a_query() -> None:
    assert describe(["red", None, "7"], []) == "red + 7"
    assert describe([None, "a.jpg", None], ["blue", "dark red"]) == 'a.jpg -blue -"dark red"'
