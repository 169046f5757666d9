"""Filters: parsing of mappings and of typed text, and comparison of values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from xmodal.errors import ConfigError
from xmodal.index.filters import (
    All,
    Exists,
    Not,
    Prefix,
    Range,
    Term,
    canonical,
    parse,
    unknown_field,
    values_of,
)


def accepts(condition: Any, value: Any) -> bool:
    """Return whether a condition accepts one value."""
    [parsed] = parse({"field": condition})
    assert not isinstance(parsed, Not | All)
    return parsed.accepts(value)


def test_parse_returns_conditions() -> None:
    assert parse(None) == parse({}) == ()
    assert parse({"a": "red", "b": ["x", 1], "c": {"lt": 3, "gte": 1}, "d": {"exists": False}}) == (
        Term("a", ("red",)),
        Term("b", ("x", 1)),
        Range("c", (("gte", 1), ("lt", 3))),
        Not(Exists("d")),
    )
    assert parse({"a": {"not": ["x", "y"]}}) == (Not(Term("a", ("x", "y"))),)
    assert parse({"a": {"any_case": {"prefix": "x"}}}) == (Prefix("a", "x", any_case=True),)
    assert parse({"a": {"prefix": "x", "gt": 3, "lt": 9, "not": {"exists": False}}}) == (
        All((Range("a", (("gt", 3), ("lt", 9))), Prefix("a", "x"), Exists("a"))),
    )
    assert parse({"a": {"all": ["x", {"not": "y"}]}}) == (
        All((Term("a", ("x",)), Not(Term("a", ("y",))))),
    )
    assert parse({"a": {"all": ["x", {"not": "y"}]}})[0].field == "a"
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
        ("1.50", 1.5, True),
        (1.5, "1.50", True),
        ("1e1", 10, True),
        ("007", "7", True),
        ("1_0", 10, False),
        (2**53 + 1, 2**53, False),
        ("TRUE", True, True),
        (False, "False", True),
        ("true", "truE ", False),
        ("2024-05", "2024-05-17", True),
        ("2024-05", "2024-05-17T10:30:05Z", True),
        ("2024", "2024-05", True),
        (2024, "2024-05-17", True),
        ("2024-05-17", "2024-05-17 10:30", True),
        ("2024-05-17", "2024-05", False),
        ("2024-0", "2024-05", False),
        ("2024", "2024-55", False),  # no month
        ("2024", "2024-05 edition", False),
        ({"prefix": "re"}, "red", True),
        ({"prefix": "Re"}, "red", False),
        ({"prefix": "20"}, 2011, True),
        ({"prefix": "t"}, True, True),
        ({"any_case": "RED"}, "Red", True),
        ({"any_case": ["blue", "É"]}, "é", False),  # A to Z only
        ({"any_case": {"prefix": "RE"}}, "Redder", True),
        ({"any_case": "1.50"}, 1.5, True),
    ],
)
def test_term_compares_values_by_kind(condition: Any, value: Any, expected: bool) -> None:
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
        ({"gte": "9"}, 10, True),
        ({"gte": "9"}, "10", True),
        ({"gte": "9", "lt": "many"}, "10", False),  # compared as text
        ({"gte": "b"}, "many", True),
        ({"gte": "b"}, 10, False),
        ({"gte": "9"}, "many", False),
        ({"gte": 2024}, "2024-05-17", True),
        ({"gte": "2024"}, "many", False),
        ({"gte": "2024"}, "2023-12-31T23:59", False),
        ({"gt": "2024"}, "2024-12-31", False),
        ({"gt": "2024"}, "2025-01-01", True),
        ({"gt": "2024"}, 2025, True),
        ({"lte": "2024-05"}, "2024-05-31T23:59", True),
        ({"lt": "2024-05"}, "2024-05-01", False),
        ({"gte": "2024-05", "lt": "2024-06"}, "2024-05-31", True),
        ({"gte": "2024-05"}, "July", False),
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
        ({"a": {"exists": "yes"}}, "expected True or False"),
        ({"a": {"prefix": 3}}, "has the prefix 3, expected a text"),
        ({"a": {"prefix": ""}}, "has the prefix '', expected a text"),
        ({"a": {"any_case": {"gt": 3}}}, "compares with {'gt': 3}"),
        ({"a": {"not": {"not": "x"}}}, r"has \['not'\]"),
        ({"a": {"all": []}}, "expected a list of conditions"),
        ({"a": {"all": [{"all": ["x"]}]}}, r"has \['all'\]"),
        ({"a": {"not": None}}, "compares with None"),
        ({"a": None}, "compares with None, .* use {'exists': False}"),
        ({"a": float("nan")}, "compares with nan"),
        ({"a": ["x", None]}, "compares with None"),
        ({"a": {"gt": None}}, "compares with None"),
        ({"a": {"gte": "2011-02", "lt": 3}}, "all of one kind"),
        ({"a": {"gte": True}}, "all of one kind"),
        ({"a": {"gte": 3, "lt": "many"}}, "all of one kind"),
        ({"a": {"gt": [1]}}, r"compares with \[1\]"),
        ({"a": [["x"]]}, r"compares with \['x'\]"),
        ({"a": np.array([1])}, "compares with array"),
    ],
)
def test_parse_rejects_invalid_filters(where: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(where)


def test_unknown_field_lists_the_fields() -> None:
    assert "'color', expected one of colour, day" in str(unknown_field("color", {"day", "colour"}))
    many = str(unknown_field("x", [f"f{n:03}" for n in range(100)]))
    assert "and 70 more" in many
    assert "f030" not in many
