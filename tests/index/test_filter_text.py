"""Filters as text: parsing to a ``where`` mapping."""

from __future__ import annotations

from typing import Any

import pytest

from xmodal.errors import ConfigError
from xmodal.index.filter_text import parse_filters
from xmodal.index.filters import parse


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ([], {}),
        (["colour=red"], {"colour": ["red"]}),
        (["colour==red"], {"colour": ["red"]}),
        (["colour=red", "colour=blue"], {"colour": {"all": [["red"], ["blue"]]}}),
        (["  colour = dark red "], {"colour": ["dark red"]}),
        (["colour!=red"], {"colour": {"not": ["red"]}}),
        (["colour<>red|blue"], {"colour": {"not": ["red", "blue"]}}),
        (["colour~=RED"], {"colour": {"any_case": ["RED"]}}),
        (["colour=red | dark blue"], {"colour": ["red", "dark blue"]}),
        (["colour=red,blue"], {"colour": ["red,blue"]}),
        (["colour=dark*"], {"colour": {"prefix": "dark"}}),
        (["colour!=dark*"], {"colour": {"not": {"prefix": "dark"}}}),
        (["colour~=DARK*"], {"colour": {"any_case": {"prefix": "DARK"}}}),
        (["price>=10", "price<20"], {"price": {"gte": "10", "lt": "20"}}),
        (["price>9.5", "price<=1e2"], {"price": {"gt": "9.5", "lte": "1e2"}}),
        (["price>=5", "price>=10"], {"price": {"all": [{"gte": "5"}, {"gte": "10"}]}}),
        (["price=*", "price>5"], {"price": {"all": [{"exists": True}, {"gt": "5"}]}}),
        (["sale=*"], {"sale": {"exists": True}}),
        (["sale!=*"], {"sale": {"not": {"exists": True}}}),
        (["year=2011", "sale=true"], {"year": ["2011"], "sale": ["true"]}),
        (["sum=1+1=2"], {"sum": ["1+1=2"]}),
        (["main colour=red"], {"main colour": ["red"]}),
        (['"a=b">"<3"'], {"a=b": {"gt": "<3"}}),
        (['"say \\"hi\\""=x'], {'say "hi"': ["x"]}),
        (['note="10*"'], {"note": ["10*"]}),
        (['note=""'], {"note": [""]}),
        (['note="a|b"|c'], {"note": ["a|b", "c"]}),
    ],
)
def test_parse_filters_returns_a_where_mapping(texts: list[str], expected: dict[str, Any]) -> None:
    assert parse_filters(texts) == expected
    assert len(parse(parse_filters(texts))) == len(expected)


@pytest.mark.parametrize(
    "text",
    ["red", "=red", " =red", "colour=", "colour= ", "price>", "", "<3", "a=>3", "a===3", "!=x"],
)
def test_parse_filters_rejects_invalid_text(text: str) -> None:
    with pytest.raises(ConfigError, match="expected field=value"):
        parse_filters([text])


@pytest.mark.parametrize("text", ["a=red|", "a=|red", "a=red||blue", "a=red*|blue"])
def test_parse_filters_rejects_invalid_lists(text: str) -> None:
    with pytest.raises(ConfigError, match=r"empty value|either a list or one prefix"):
        parse_filters([text])
