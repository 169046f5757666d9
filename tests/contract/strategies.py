"""Hypothesis strategies: ids with unusual order, codes with ties, values of mixed types."""

from __future__ import annotations

from random import Random
from typing import Any

from hypothesis import strategies as st

from xmodal.modality import MODALITIES

# "～" comes before "😀" by code point and after it in UTF-16; "10" comes before "9".
IDS = ["b", "a", "B", "10", "9", "é", "e\u0301", "ß", "😀", "～", "a/b c", "z", "_id", "日本"]

BITS = st.sampled_from([8, 16, 24, 64, 136])
TARGETS = st.sampled_from(MODALITIES)
WORDS = st.sampled_from(["red", "Red", "blue", "10", "true", "日本", ""])
NUMBERS = st.sampled_from([-1, 0, 9, 10, 10.0, 10.5, 11, 2011, "10", "9.5", "many"])
DATES = st.sampled_from(["2011-01-02", "2011-10-01", "2012-01-01"])
FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "colour": WORDS | st.none() | st.lists(WORDS | st.none(), max_size=3),
        "price": NUMBERS | st.lists(NUMBERS, max_size=2),
        "day": DATES,
        "sale": st.booleans(),
    },
)
NAMES = ("gt", "gte", "lt", "lte")


def ranges(values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """One to three bounds, which may contradict each other."""
    return st.dictionaries(st.sampled_from(NAMES), values, min_size=1, max_size=3)


EXISTS = st.booleans().map(lambda present: {"exists": present})
SOME_NUMBERS = st.sampled_from([-1, 0, 9.5, 10, 10.0, 11, 2011])
WHERE = st.none() | st.fixed_dictionaries(
    {},
    optional={
        "colour": WORDS | st.lists(WORDS, min_size=1, max_size=3) | EXISTS,
        "price": NUMBERS
        | st.lists(NUMBERS, min_size=1, max_size=2)
        | EXISTS
        | ranges(SOME_NUMBERS)
        | ranges(st.sampled_from(["10", "9", "many"])),
        "day": DATES | EXISTS | ranges(DATES),
        "sale": st.booleans() | st.just("true") | EXISTS | ranges(st.just(0)),
        "absent": st.just("red") | EXISTS | ranges(st.just(3)),
    },
)


def numbers(bits: int) -> st.SearchStrategy[int]:
    """Codes as numbers: a few that tie often, and any other."""
    ones = (1 << bits) - 1
    return st.sampled_from([0, 1, 2, 3, 1 << (bits - 1), ones, ones ^ 1]) | st.integers(0, ones)


@st.composite
def several(draw: st.DrawFn, bits: int) -> list[int]:
    """The codes of one document: none, one, two or forty."""
    size = draw(st.sampled_from([0, 1, 2, 40]))
    drawn = draw(st.lists(numbers(bits), min_size=min(size, 2), max_size=min(size, 2)))
    rest = Random(str(drawn))
    return drawn + [rest.getrandbits(bits) for _ in range(size - len(drawn))]


@st.composite
def batches(draw: st.DrawFn, bits: int) -> dict[str, Any]:
    """Arguments of one ``add``: image codes, text codes or both; ids may be repeated.

    A document has one code of each modality, or any number, at least one in total.
    """
    ids = draw(st.lists(st.sampled_from(IDS), max_size=8))
    n = len(ids)
    modalities = draw(st.sampled_from([("image",), ("text",), MODALITIES]))
    fields = draw(st.none() | st.lists(FIELDS, min_size=n, max_size=n))
    of_one = numbers(bits) if n == 0 or draw(st.booleans()) else several(bits)
    columns = {m: draw(st.lists(of_one, min_size=n, max_size=n)) for m in modalities}
    for row in range(n):
        if all(column[row] == [] for column in columns.values()):
            columns[modalities[0]][row] = [draw(numbers(bits))]
    return {"ids": ids, "fields": fields} | columns


@st.composite
def searches(draw: st.DrawFn, bits: int) -> dict[str, Any]:
    """Arguments of one ``search``."""
    return {
        "queries": draw(st.lists(numbers(bits), max_size=3)),
        "k": draw(st.sampled_from([1, 2, 3, 5, 100])),
        "target": draw(TARGETS),
        "where": draw(WHERE),
        "radius": draw(st.none() | st.integers(0, bits)),
    }
