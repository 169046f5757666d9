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
WORDS = st.sampled_from(
    ["red", "Red", "reddish", "blue", "10", "True", "true", "日本", "É", "é", ""]
)
NUMBERS = st.sampled_from([-1, 0, 9, 10, 10.0, 10.5, 11, 2011, "10", "10.50", "9.5", "many"])
DATES = st.sampled_from(
    ["2011-01-02", "2011-10-01", "2011-10-01T08:30", "2011-10", "2012-01-01", "soon"]
)
PERIODS = DATES | st.sampled_from(["2011", "2011-01", "2011-10-01T08:30", "2012"])
PREFIXES = st.sampled_from(["r", "re", "Red", "1", "日", "2011-1"]).map(lambda p: {"prefix": p})
FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "colour": WORDS | st.none() | st.lists(WORDS | st.none(), max_size=3),
        "price": NUMBERS | st.lists(NUMBERS, max_size=2),
        "day": DATES,
        "sale": st.booleans() | st.sampled_from(["True", "FALSE", "0"]),
    },
)
NAMES = ("gt", "gte", "lt", "lte")


def ranges(values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """One to three bounds, which may contradict each other."""
    return st.dictionaries(st.sampled_from(NAMES), values, min_size=1, max_size=3)


EXISTS = st.booleans().map(lambda present: {"exists": present})
SOME_NUMBERS = st.sampled_from([-1, 0, 9.5, 10, 10.0, 11, 2011])


def conditions(simple: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Simple conditions, what they exclude, and several at once."""
    one = simple | simple.map(lambda condition: {"not": condition})
    return one | st.lists(one, min_size=1, max_size=2).map(lambda several: {"all": several})


CASES = (WORDS | st.lists(WORDS, min_size=1, max_size=2) | PREFIXES).map(
    lambda condition: {"any_case": condition}
)
WHERE = st.none() | st.fixed_dictionaries(
    {},
    optional={
        "colour": conditions(
            WORDS | st.lists(WORDS, min_size=1, max_size=3) | EXISTS | PREFIXES | CASES
        ),
        "price": conditions(
            NUMBERS
            | st.lists(NUMBERS, min_size=1, max_size=2)
            | EXISTS
            | PREFIXES
            | ranges(SOME_NUMBERS | st.sampled_from(["10", "9.50"]))
            | ranges(st.sampled_from(["10", "9", "many"]))
        ),
        "day": conditions(PERIODS | EXISTS | PREFIXES | ranges(PERIODS)),
        "sale": conditions(
            st.booleans() | st.sampled_from(["true", "fALSE"]) | EXISTS | ranges(st.just(0))
        ),
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
