"""Filters: parsing of mappings and of typed text, and comparison of values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from xmodal.errors import ConfigError
from xmodal.index.filters import Exists, Range, Term, canonical, parse, parse_text, values_of


def accepts(condition: Any, value: Any) -> bool:
    """Return whether a condition accepts one value."""
    [parsed] = parse({"field": condition})
    return parsed.accepts(value)


def test_parse_returns_conditions() -> None:
    assert parse(None) == parse({}) == ()
    assert parse({"a": "red", "b": ["x", 1], "c": {"lt": 3, "gte": 1}, "d": {"exists": False}}) == (
        Term("a", ("red",)),
        Term("b", ("x", 1)),
        Range("c", (("gte", 1), ("lt", 3))),
        Exists("d", False),
    )
    assert parse({"a": ("x", "y")}) == (Term("a", ("x", "y")),)
    assert set(parse({"a": {"x", "y"}})[0].values) == {"x", "y"}  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("condition", "value", "expected"),
    [
        ("red", "red", True),
        ("red", "Red", False),
        ("red", "red ", False),
        (["red", "blue"], "blue", True),
        (["red", "blue"], "green", False),
        (2011, "2011", True),
        ("2011", 2011, True),
        (10, 10.0, True),
        ("10", 10.0, True),
        (10, 11, False),
        (10.5, "10.5", True),
        (True, "true", True),
        ("true", True, True),
        (True, 1, False),
        (1, True, False),
        (False, 0, False),
        ("", "", True),
        ("é", "e\u0301", False),
    ],
)
def test_term_compares_values_as_text(condition: Any, value: Any, expected: bool) -> None:
    assert accepts(condition, value) is expected


@pytest.mark.parametrize(
    ("condition", "value", "expected"),
    [
        ({"gte": 10}, 10, True),
        ({"gt": 10}, 10, False),
        ({"lte": 10}, 10.0, True),
        ({"lt": 10}, 10, False),
        ({"lt": 10}, 9.99, True),
        ({"gte": 10, "lt": 20}, 20, False),
        ({"gt": 20, "lt": 10}, 15, False),
        ({"gte": 9}, "10", True),
        ({"gte": 9}, "1e1", True),
        ({"gte": 9}, "many", False),
        ({"lte": 9}, "nan", False),
        ({"gte": 9}, "inf", False),
        ({"gte": 9}, "9" * 400, False),
        ({"gte": 9}, " 10.5 ", True),
        ({"gte": 9}, "10d", True),
        ({"gte": 9}, "1_000", False),
        ({"gte": 9}, "10 d", False),
        ({"gte": 0}, True, False),
        ({"gte": "9"}, 10, False),
        ({"gte": "9"}, "10", False),
        ({"gte": "2011-02", "lt": "2012"}, "2011-12-31", True),
        ({"gte": "2011-02", "lt": "2012"}, "2011-01-31", False),
        ({"gte": "2011-02", "lt": "2012"}, 2011, False),
        ({"gte": "2010", "lt": "3000"}, 2011, True),
    ],
)
def test_range_compares_numbers_or_text(condition: Any, value: Any, expected: bool) -> None:
    assert accepts(condition, value) is expected


def test_values_of_splits_lists_and_drops_missing_values() -> None:
    assert values_of("red") == ["red"]
    assert values_of(["red", None, 1, float("nan")]) == ["red", 1]
    assert values_of(("a",)) == ["a"]
    assert values_of(None) == values_of(float("nan")) == values_of([]) == values_of([None]) == []
    assert values_of(0) == [0]
    assert values_of("") == [""]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (10, "10"),
        (10.0, "10"),
        (-0.0, "0"),
        (10.5, "10.5"),
        ("10.0", "10.0"),
        (True, "true"),
        (False, "false"),
        (1, "1"),
        (1e22, "1" + "0" * 22),
        (float("inf"), "inf"),
    ],
)
def test_canonical_text_of_a_value(value: Any, expected: str) -> None:
    assert canonical(value) == expected


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("colour=red", "where is 'colour=red', expected a mapping"),
        ([("a", 1)], "expected a mapping"),
        ({"": "red"}, "names the field '', expected a name"),
        ({3: "red"}, "names the field 3, expected a name"),
        ({"a": []}, "where.'a'. is an empty list"),
        ({"a": {}}, "where.'a'. has nothing, expected some of gt, gte, lt, lte"),
        ({"a": {"over": 3, "gt": 1}}, r"has \['over'\], expected some of gt, gte, lt, lte"),
        ({"a": {"exists": True, "gt": 1}}, r"has \['exists'\].* or exists alone"),
        ({"a": {"exists": "yes"}}, "exists alone with True or False"),
        ({"a": None}, "compares with None, .* use {'exists': False}"),
        ({"a": float("nan")}, "compares with nan"),
        ({"a": ["x", None]}, "compares with None"),
        ({"a": {"gt": None}}, "compares with None"),
        ({"a": {"gte": "2011", "lt": 3000}}, "expected either numbers or texts"),
        ({"a": {"gte": True}}, "expected either numbers or texts"),
        ({"a": {"gt": [1]}}, r"compares with \[1\]"),
        ({"a": [["x"]]}, r"compares with \['x'\]"),
        ({"a": np.array([1])}, "compares with array"),
    ],
)
def test_parse_rejects_invalid_filters(where: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(where)


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ([], {}),
        (["colour=red"], {"colour": ["red"]}),
        (["colour=red", "colour=blue"], {"colour": ["red", "blue"]}),
        (["  colour = dark red "], {"colour": ["dark red"]}),
        (["price>=10", "price<20"], {"price": {"gte": 10, "lt": 20}}),
        (["price>9.5", "price<=1e2"], {"price": {"gt": 9.5, "lte": 100.0}}),
        (["day>=2011-02"], {"day": {"gte": "2011-02"}}),
        (["price>inf"], {"price": {"gt": "inf"}}),
        (["sale=*"], {"sale": {"exists": True}}),
        (["year=2011", "sale=true"], {"year": ["2011"], "sale": ["true"]}),
        (["sum=1+1=2"], {"sum": ["1+1=2"]}),
        (["main colour=red"], {"main colour": ["red"]}),
    ],
)
def test_parse_text_returns_a_where_mapping(texts: list[str], expected: dict[str, Any]) -> None:
    assert parse_text(texts) == expected
    assert len(parse(parse_text(texts))) == len(expected)


@pytest.mark.parametrize(
    "text", ["red", "=red", " =red", "colour=", "colour= ", "price>", "", "<3"]
)
def test_parse_text_rejects_invalid_text(text: str) -> None:
    with pytest.raises(ConfigError, match="expected field=value"):
        parse_text([text])


@pytest.mark.parametrize(
    "texts",
    [
        ["price=10", "price>=5"],
        ["price>=5", "price=10"],
        ["price=*", "price>=5"],
        ["price>=5", "price=*"],
        ["price=*", "price=5"],
        ["price=5", "price=*"],
        ["price=*", "price=*"],
        ["price>=5", "price>=10"],
    ],
)
def test_parse_text_rejects_conflicting_filters(texts: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"cannot be combined .* 'price'"):
        parse_text(texts)
