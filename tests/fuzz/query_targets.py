"""Targets: filters, queries and settings as typed."""

from __future__ import annotations

import json
from typing import Any

from fuzz.registry import target

from xmodal.codes import BinaryCodes
from xmodal.config import Options, configure, parse_settings
from xmodal.index.contract import WordsQuery
from xmodal.index.filter_text import parse_filters
from xmodal.index.filters import All, Condition, Not, parse
from xmodal.index.local import HammingIndex
from xmodal.index.words import as_typed, tokens
from xmodal.retrieval.query_text import describe, parse_weights, split_query_text

VALUES = [
    *("red", "Dark-blue", "10", "1.50", "2024-05-01", "2024", "true", "", "1e400", "NaN", " 7d "),
    *(10, 1.5, True, -0.0, 2**60, 10**400),
]
INDEX = HammingIndex(8)
INDEX.add(
    [str(n) for n in range(len(VALUES))],
    text=BinaryCodes.from_hex(["00"] * len(VALUES)),
    fields=[{"colour": value, "text": "a red shoe"} for value in VALUES],
)


def _filter_seeds() -> list[bytes]:
    texts = "colour=red colour!=red colour~=RED colour<20 colour>=2024-05 colour=red|blue".split()
    texts += ["colour=dark*", "colour=*", "colour!=*", '"colour"="1|\\"0*"', "colour>1\ncolour<9"]
    return [text.encode() for text in texts]


@target(_filter_seeds)
def filters(data: bytes) -> None:
    """Filters of the command line, one a line."""
    _select(parse_filters(_text(data).split("\n")))


def _where_seeds() -> list[bytes]:
    conditions: list[Any] = ["red", ["red", 1.5], {"prefix": "d"}, {"any_case": "RED"}]
    conditions += [{"gte": 10, "lt": 20}, {"exists": True}, {"not": {"prefix": "d"}}]
    conditions += [{"all": [{"gt": "2023-01"}, {"not": "red"}]}, {"any_case": {"prefix": "D"}}]
    return [json.dumps({"colour": one}).encode() for one in conditions]


@target(_where_seeds)
def where(data: bytes) -> None:
    """Filters of the service: JSON."""
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        return
    _select(content)


def _select(where: Any) -> None:
    for condition in parse(where):
        _evaluate(condition)
    INDEX.count("text", where)


def _evaluate(condition: Condition) -> None:
    if isinstance(condition, Not):
        _evaluate(condition.condition)
    elif isinstance(condition, All):
        for one in condition.conditions:
            _evaluate(one)
    else:
        for value in VALUES:
            condition.accepts(value)


@target(lambda: [b'red shoes -leather -"dark blue"', "Zürich 赤い円 -t-shirt".encode(), b"text=2"])
def query_text(data: bytes) -> None:
    """The text of a query: words, excluded words, weights."""
    text = _text(data)
    query = split_query_text(text)
    describe([query.text], query.not_text)
    as_typed(text, tokens(text))
    words = WordsQuery(query.text or "", " ".join(query.not_text))
    INDEX.search_words([words], 3, target="text")
    parse_weights(text.split("\n"))


def _text(data: bytes) -> str:
    """Return the text of an argument of the command line, in which any byte can occur."""
    return data.decode("utf-8", "surrogateescape")


@target(lambda: [b"bits=64\nseed=1\nmethod=schgan", b'split_map={"a": "train"}\nlabel_share=0.5'])
def settings(data: bytes) -> None:
    """Settings of the command line, one a line."""
    lines = _text(data).split("\n")
    configure(Options, parse_settings(lines))
