"""Filters of LangChain, LlamaIndex and Haystack: the libraries' own evaluation is the oracle."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from haystack import Document
from haystack.utils.filters import document_matches_filter
from langchain_core.structured_query import (
    Comparator,
    Comparison,
    FilterDirective,
    Operation,
    Operator,
)
from llama_index.core.vector_stores.types import MetadataFilter, MetadataFilters
from llama_index.core.vector_stores.utils import build_metadata_filter_fn

from xmodal.codes import BinaryCodes
from xmodal.errors import ConfigError
from xmodal.index.filters import parse
from xmodal.index.local import HammingIndex
from xmodal.integrations import haystack, langchain, llama_index
from xmodal.integrations.conditions import to_where
from xmodal.integrations.queries import build_query

COLOURS = ("red", "blue", "green")
FIELDS: dict[str, dict[str, Any]] = {
    f"d{n}": {
        "price": n % 10,
        "day": f"2024-05-{1 + n % 28:02d}",
        **({} if n % 4 == 0 else {"colour": COLOURS[n % 3]}),
        "tags": [f"t{n % 2}", f"u{n % 5}"],
    }
    for n in range(40)
}


@pytest.fixture(scope="module")
def index() -> HammingIndex:
    """Documents with equal codes and FIELDS."""
    index = HammingIndex(bits=8)
    codes = BinaryCodes(np.zeros((len(FIELDS), 1), np.uint8), 8)
    index.add(list(FIELDS), image=codes, fields=list(FIELDS.values()))
    return index


def found(index: HammingIndex, pairs: list[tuple[str, Any]]) -> set[str]:
    query = BinaryCodes(np.zeros((1, 1), np.uint8), 8)
    (hits,) = index.search(query, len(FIELDS), target="image", where=to_where(pairs))
    return {hit.id for hit in hits}


def is_(field: str, operator: str, value: Any) -> dict[str, Any]:
    return {"field": f"meta.{field}", "operator": operator, "value": value}


def joined(operator: str, *conditions: dict[str, Any]) -> dict[str, Any]:
    return {"operator": operator, "conditions": list(conditions)}


@pytest.mark.parametrize(
    "filters",
    [
        is_("colour", "==", "red"),
        is_("colour", "!=", "red"),
        is_("colour", "==", None),
        is_("colour", "!=", None),
        is_("colour", "in", ["red", "blue"]),
        is_("colour", "not in", ["red", "blue"]),
        is_("price", ">", 3),
        is_("price", "<=", 3),
        is_("day", ">=", "2024-05-20"),
        joined("AND", is_("price", ">=", 3), is_("price", "<", 7), is_("colour", "!=", "red")),
        joined("OR", is_("price", "==", 3), is_("price", "in", [5, 6])),
        joined("NOT", is_("price", ">=", 3)),
        joined("NOT", joined("OR", is_("price", "==", 3), is_("price", "==", 4))),
        joined("NOT", joined("NOT", is_("colour", "==", "red"))),
        joined("AND", joined("NOT", is_("colour", "==", "red")), is_("colour", "!=", None)),
    ],
    ids=str,
)
def test_haystack_finds_the_same(index: HammingIndex, filters: dict[str, Any]) -> None:
    expected = {
        id_
        for id_, meta in FIELDS.items()
        if document_matches_filter(filters, Document(id=id_, content="", meta=meta))
    }
    assert expected and len(expected) < len(FIELDS)
    assert found(index, haystack.filter_pairs(filters)) == expected


@pytest.mark.parametrize("condition", ["and", "or", "not"])
@pytest.mark.parametrize(
    "filters",
    [
        [("colour", "==", "red")],
        [("colour", "!=", "red")],
        [("colour", "nin", ["red", "blue"])],
        [("tags", "any", ["u1", "u2"])],
        [("tags", "all", ["t1", "u2"])],
        [("tags", "contains", "u3")],
        [("colour", "is_empty", None)],
        [("price", ">=", 3), ("price", "<", 7)],
        [("price", "==", 3), ("price", "==", 4)],
        [("price", "==", 3), ("colour", "==", "red")],
    ],
    ids=str,
)
def test_llama_index_finds_the_same(
    index: HammingIndex, filters: list[tuple[str, str, Any]], condition: str
) -> None:
    given = MetadataFilters(
        filters=[MetadataFilter(key=f, operator=o, value=v) for f, o, v in filters],
        condition=condition,
    )
    accepts = build_metadata_filter_fn(FIELDS.__getitem__, given)
    expected = {id_ for id_ in FIELDS if accepts(id_)}
    fields = {field for field, _, _ in filters}
    operators = {operator for _, operator, _ in filters}
    without_counterpart = (
        condition == "or" and len(filters) > 1 and (len(fields) > 1 or operators != {"=="})
    ) or (condition == "not" and operators == {"all"})
    if without_counterpart:
        with pytest.raises(ConfigError, match=f"filter {condition}: expected {condition} of"):
            llama_index.filter_pairs(given)
    else:
        assert found(index, llama_index.filter_pairs(given)) == expected


def test_langchain_filters() -> None:
    red, blue = (Comparison(Comparator.EQ, "colour", one) for one in ("red", "blue"))
    cheap = Comparison(Comparator.LT, "price", 5)
    day = Comparison(Comparator.GTE, "day", {"date": "2024-05-02", "type": "date"})
    cases: list[tuple[FilterDirective, dict[str, Any]]] = [
        (Operation(Operator.AND, [red, cheap]), {"colour": "red", "price": {"lt": 5}}),
        (Operation(Operator.OR, [red, blue]), {"colour": ["red", "blue"]}),
        (Operation(Operator.NOT, [red]), {"colour": {"not": "red"}}),
        (Comparison(Comparator.NIN, "colour", ["red"]), {"colour": {"not": ["red"]}}),
        (day, {"day": {"gte": "2024-05-02"}}),
    ]
    for directive, where in cases:
        assert to_where(langchain.filter_pairs(directive)) == where


@pytest.mark.parametrize(
    ("convert", "message"),
    [
        (
            lambda: langchain.filter_pairs(Comparison(Comparator.LIKE, "text", "red")),
            "filter operator like: expected one of eq, ne, ",
        ),
        (
            lambda: llama_index.filter_pairs(
                MetadataFilter(key="text", operator="text_match", value="red")
            ),
            "filter operator text_match: expected one of ==, !=, ",
        ),
        (
            lambda: haystack.filter_pairs(is_("text", "contains", "red")),
            "filter operator contains: expected one of ==, !=, ",
        ),
        (
            lambda: haystack.filter_pairs(is_("colour", "==", ["red"])),
            r"filter colour == \['red'\]: expected one value",
        ),
        (
            lambda: haystack.filter_pairs(is_("colour", "in", "red")),
            "filter colour in 'red': expected a list of values",
        ),
        (lambda: haystack.filter_pairs({"colour": "red"}), "filters {'colour': 'red'}: expected "),
        (
            lambda: haystack.filter_pairs(
                joined("NOT", is_("price", ">", 3), is_("colour", "==", "red"))
            ),
            "filter NOT: expected NOT of a single condition",
        ),
    ],
)
def test_filters_without_counterpart_are_refused_in_one_line(
    convert: Callable[[], object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        convert()
    assert len(str(caught.value).splitlines()) == 1


def test_a_where_that_is_no_mapping_is_refused() -> None:
    with pytest.raises(ConfigError, match="where is 'red', expected a mapping"):
        build_query({"text": "a", "where": "red"}, [("b", 2)])


def test_filters_and_where_must_both_hold() -> None:
    assert to_where(None, []) is None
    assert to_where({"a": 1}, [("b", 2)]) == {"a": 1, "b": 2}
    where = {"a": {"all": ["x", "y"], "prefix": "p"}}
    joined_ = to_where(where, [("a", {"not": "z"})])
    assert joined_ == {"a": {"all": ["x", "y", {"prefix": "p"}, {"not": "z"}]}}
    parse(joined_)  # raises for an invalid mapping
