"""Columns of fields: filters, counts and merging equal those of the fields' JSON."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from xmodal.errors import ConfigError
from xmodal.index.filters import All, Condition, Not, Scalar, canonical, parse, values_of
from xmodal.index.segments.columns import Columns, MemoryColumns
from xmodal.index.segments.field_building import field_columns
from xmodal.index.segments.field_columns import FieldColumns, check_fields, facets
from xmodal.index.segments.field_merging import merge_field_columns

TEXTS = [
    *("", " 5 ", "5", "05", "1e3", "01", "1.50f", "1_0", "1e400", "-0.0", "-1", "+7d", ".5", "5."),
    *("TRUE", "true", "fAlse", "true ", "t", "nan", "inf", "2024", "2024-02", "2024-02-30"),
    *("2024-02-03T10:30", "2024-02-03 10", "2024-13", "2024-02x", "2025-01-01", "red", "RED"),
    *("Red", "redder", "re", "é", "É", "e\u0301", "\ud7ff", "\ue000", "\U0010ffff", "a\U0010ffff"),
    *("a\x00", "a", "a\x00b", "/path", ":", "9", "９", str(2**53 + 1), str(2**53), "9" * 30),
]
NUMBERS = [0, 1, -1, 5, 5.0, 0.5, -0.0, 1e3, 1.5, 2024, 2**53, 2**53 + 1, 1e22, 1e300, 10**400]
scalars = st.one_of(
    st.sampled_from([*TEXTS, *NUMBERS, True, False]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=4),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
)
nothing = st.sampled_from([None, {"a": 1}, [], [None], [[1]]])
values = st.one_of(scalars, scalars, st.lists(scalars | nothing, max_size=4), nothing)
NAMES = ["a", "a.b", "", "é.codes", "0"]
documents = st.lists(st.dictionaries(st.sampled_from(NAMES), values), max_size=12)
prefixes = st.one_of(scalars.map(canonical), st.text(max_size=2), st.just("\udc80x")).filter(bool)
bounds = st.one_of(st.sampled_from(TEXTS), scalars, st.just("\udc80"))
single = st.one_of(
    scalars,
    st.lists(scalars, min_size=1, max_size=4),
    st.just("a\udc80"),
    st.fixed_dictionaries({"prefix": prefixes}),
    st.fixed_dictionaries({"any_case": scalars | st.fixed_dictionaries({"prefix": prefixes})}),
    st.dictionaries(st.sampled_from(["gt", "gte", "lt", "lte"]), bounds, min_size=1, max_size=3),
    st.fixed_dictionaries({"exists": st.booleans()}),
)
negated = single | single.map(lambda one: {"not": one})
conditions = negated | st.lists(negated, min_size=1, max_size=3).map(lambda many: {"all": many})


def fulfils(fields: dict[str, Any], condition: Condition) -> bool:
    """Return whether a document fulfils a condition, from its values one by one."""
    if isinstance(condition, Not):
        return not fulfils(fields, condition.condition)
    if isinstance(condition, All):
        return all(fulfils(fields, one) for one in condition.conditions)
    return any(map(condition.accepts, own_scalars(fields, condition.field)))


def own_scalars(fields: dict[str, Any], name: str) -> list[Any]:
    return [value for value in values_of(fields.get(name)) if isinstance(value, Scalar)]


def counted(fields: list[dict[str, Any]], name: str) -> Counter[str]:
    """Return the number of documents that have each value of a field."""
    return Counter(text for one in fields for text in set(map(canonical, own_scalars(one, name))))


def columns_of(fields: list[dict[str, Any]]) -> Columns:
    return MemoryColumns(field_columns([json.dumps(one, ensure_ascii=False) for one in fields]))


def parsed(where: dict[str, Any]) -> tuple[Condition, ...]:
    """Return the conditions of a filter; none for a range of several kinds."""
    try:
        return parse(where)
    except ConfigError:
        return ()


@settings(max_examples=100, deadline=None)
@given(documents, st.dictionaries(st.sampled_from(["a", "a.b", "0"]), conditions, max_size=3))
@example([{"a": value} for value in [*TEXTS, *NUMBERS, True]], {"a": {"any_case": "TRUE"}})
def test_masks_equal_the_comparison_of_each_value(
    fields: list[dict[str, Any]], where: dict[str, Any]
) -> None:
    own = parsed(where)
    mask = FieldColumns(columns_of(fields), len(fields)).mask(own)
    assert mask.tolist() == [all(fulfils(one, c) for c in own) for one in fields]


@pytest.mark.parametrize(
    "keys",
    [(), ("prefix",), ("any_case",), ("any_case", "prefix"), ("gt",), ("gte",), ("lt",), ("lte",)],
)
def test_every_value_is_compared_with_every_value(keys: tuple[str, ...]) -> None:
    every = [*TEXTS, *NUMBERS, True, False]
    fields = FieldColumns(columns_of([{"a": value} for value in every]), len(every))
    for value in every:
        condition: Any = canonical(value) if "prefix" in keys else value
        for key in reversed(keys):
            condition = {key: condition}
        for own in parsed({"a": condition}):
            expected = [own.accepts(other) for other in every]  # type: ignore[union-attr]
            assert fields.mask([own]).tolist() == expected, own


@settings(max_examples=50, deadline=None)
@given(documents, st.data())
def test_counts_equal_those_of_live_documents(
    fields: list[dict[str, Any]], data: st.DataObject
) -> None:
    live = np.array(
        data.draw(st.lists(st.booleans(), min_size=len(fields), max_size=len(fields))), np.bool_
    )
    read = FieldColumns(columns_of(fields), len(fields))
    for own, mask in (
        (fields, None),
        ([f for f, one in zip(fields, live, strict=True) if one], live),
    ):
        for name in NAMES:
            expected = counted(own, name)
            assert read.counts(name, mask, 99) == expected
            assert read.has(name, mask) == bool(expected)
            if expected:
                assert read.counts(name, mask, len(expected) - 1) is None


@settings(max_examples=20, deadline=None)
@given(st.lists(documents, max_size=3), st.data())
def test_merged_columns_are_those_of_the_joined_documents(
    parts: list[list[dict[str, Any]]], data: st.DataObject
) -> None:
    rows = [
        np.flatnonzero(data.draw(st.lists(st.booleans(), min_size=len(p), max_size=len(p))) or [])
        for p in parts
    ]
    kept = [part[row] for part, own in zip(parts, rows, strict=True) for row in own]
    order = np.array(data.draw(st.permutations(range(len(kept)))), np.int64)
    joined = [kept[row] for row in order]
    columns = [(columns_of(p), len(p), own) for p, own in zip(parts, rows, strict=True)]
    merged, expected = merge_field_columns(columns, order), columns_of(joined)
    assert set(merged) == expected.names
    for name in expected.names - {n for n in expected.names if "sets" in n or "codes" in n}:
        np.testing.assert_array_equal(merged[name], expected.whole(name))
    for name in expected.names:
        assert merged[name].dtype == expected.whole(name).dtype
    read = FieldColumns(MemoryColumns(merged), len(joined))
    for name in NAMES:
        assert read.counts(name, None, 99) == counted(joined, name)
        for value in counted(joined, name):
            [own] = parse({name or "a": value})
            assert read.mask([own]).tolist() == [fulfils(one, own) for one in joined]


def test_fields_and_facets_of_several_segments_are_those_of_live_documents() -> None:
    first = [{"colour": "red", "tags": ["new", "old"]}, {"colour": "blue", "size": 1}]
    second = [{"colour": "red", "text": "a"}, {"tags": "old", "colour": ["red", "red", "green"]}]
    live = np.array([True, False])
    parts = [
        (FieldColumns(columns_of(own), 2), mask) for own, mask in ((first, live), (second, None))
    ]
    assert facets(parts, 2) == {
        "colour": [("red", 3), ("green", 1)],
        "tags": [("old", 2), ("new", 1)],
    }
    assert list(facets(parts, 1)) == []
    check_fields(parts, parse({"colour": "x", "tags": "x"}))
    with pytest.raises(ConfigError, match=r"'size', expected one of colour, tags, text"):
        check_fields(parts, parse({"size": 1}))
    check_fields([(FieldColumns(columns_of([{}]), 1), None)], parse({"size": 1}))


def test_types_are_the_smallest_for_the_numbers() -> None:
    for n, kind in ((255, np.uint8), (256, np.uint16), (65536, np.uint32)):
        columns = columns_of([{"a": value} for value in range(n)])
        assert columns.whole("field.0.codes").dtype == kind
        assert FieldColumns(columns, n).mask(parse({"a": {"lt": 7}})).sum() == 7
    sets = [{"a": [value, value + 1]} for value in range(0, 254, 2)]  # 254 values, 127 sets
    assert columns_of(sets).whole("field.0.codes").dtype == np.uint16
