"""Oracle: the contract of an index in naive Python, with which every backend is compared.

Codes are integers, documents are a dict, an answer is a sorted list. A column has one code for each
document, or a list of codes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from typing import Any

from xmodal.codes import BinaryCodes

Answer = list[list[tuple[str, int, dict[str, Any], int]]]
"""(id, distance, fields, nearest) of each hit, for each query: ``Hits`` as plain tuples."""

Column = Sequence[int] | Sequence[Sequence[int]]
"""Codes of documents as numbers: one for each document, or a list for each document."""


def codes(numbers: Sequence[int], bits: int) -> BinaryCodes:
    """Return numbers as codes: the highest bit of a number is the first bit of its code."""
    return BinaryCodes.from_hex([f"{number:0{bits // 4}x}" for number in numbers], bits)


def code_column(column: Column, bits: int) -> BinaryCodes | list[BinaryCodes]:
    """Return the codes of a column as the argument of ``Index.add``."""
    if any(isinstance(entry, Sequence) for entry in column):
        return [codes(as_list(entry), bits) for entry in column]
    return codes(column, bits)  # type: ignore[arg-type]


def as_list(entry: int | Sequence[int]) -> list[int]:
    """Return the codes of one document."""
    return list(entry) if isinstance(entry, Sequence) else [entry]


@dataclass
class Oracle:
    """Documents as id -> {"image": [numbers], "text": [numbers], "fields": {...}}."""

    documents: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(
        self,
        ids: Sequence[str],
        image: Column | None = None,
        text: Column | None = None,
        fields: Sequence[Mapping[str, Any]] | None = None,
    ) -> None:
        for row, id_ in enumerate(ids):
            document: dict[str, Any] = {"fields": dict(fields[row]) if fields else {}}
            if image is not None:
                document["image"] = as_list(image[row])
            if text is not None:
                document["text"] = as_list(text[row])
            self.documents[id_] = document

    def delete(self, ids: Sequence[str]) -> int:
        return sum(self.documents.pop(id_, None) is not None for id_ in ids)

    def lacks_a_field_of(self, where: Mapping[str, Any] | None) -> bool:
        """Return whether no document has a value of some field of ``where``."""
        known = {
            name
            for document in self.documents.values()
            for name, value in document["fields"].items()
            if values_of(value)
        }
        return not known.issuperset(where or {})

    def search(
        self,
        queries: Sequence[int],
        k: int,
        target: str,
        where: Mapping[str, Any] | None = None,
        radius: int | None = None,
    ) -> Answer:
        passing = [
            (id_, document)
            for id_, document in self.documents.items()
            if document.get(target) and matches(document["fields"], where or {})
        ]
        answers = []
        for query in queries:
            found = []
            for id_, document in passing:
                distances = [(query ^ code).bit_count() for code in document[target]]
                distance = min(distances)
                if radius is None or distance <= radius:
                    nearest = distances.index(distance)
                    found.append((id_, distance, document["fields"], nearest))
            answers.append(sorted(found, key=lambda hit: (hit[1], hit[0]))[:k])
        return answers


def matches(fields: Mapping[str, Any], where: Mapping[str, Any]) -> bool:
    """Return whether all conditions hold."""
    return all(holds(values_of(fields.get(name)), expected) for name, expected in where.items())


def values_of(value: Any) -> list[Any]:
    """Return the values of a field."""
    return [v for v in (value if isinstance(value, list) else [value]) if v is not None]


def holds(values: Sequence[Any], expected: Any, any_case: bool = False) -> bool:
    """Return whether the values of a field fulfil its condition."""
    if not isinstance(expected, dict):
        terms = expected if isinstance(expected, list) else [expected]
        return any(equal(value, term, any_case) for value in values for term in terms)
    rest = dict(expected)
    bounds = {name: rest.pop(name) for name in ("gt", "gte", "lt", "lte") if name in rest}
    found = [any(within(value, bounds) for value in values)] if bounds else []
    for name, content in rest.items():
        if name == "exists":
            found.append(bool(values) == content)
        elif name == "not":
            found.append(not holds(values, content))
        elif name == "all":
            found += [holds(values, one) for one in content]
        elif name == "any_case":
            found.append(holds(values, content, any_case=True))
        else:
            beginning = folded(content, any_case)
            found.append(any(folded(as_text(v), any_case).startswith(beginning) for v in values))
    return all(found)


def equal(value: Any, term: Any, any_case: bool) -> bool:
    """Return whether a value equals a term, by kind."""
    texts = as_text(value), as_text(term)
    if folded(texts[0], any_case) == folded(texts[1], any_case):
        return True
    if texts[1].lower() in ("true", "false"):
        return texts[0].lower() == texts[1].lower()
    numbers = as_number(value), as_number(term)
    if None not in numbers and numbers[0] == numbers[1]:
        return True
    dates = as_date(value), as_date(term)
    return len(dates[0]) > 1 and bool(dates[1]) and dates[0][: len(dates[1])] == dates[1]


def folded(text: str, any_case: bool) -> str:
    """Return the text with ASCII letters in lower case."""
    return "".join(c.lower() if c.isascii() else c for c in text) if any_case else text


def as_text(value: Any) -> str:
    """Return the text of a value: "10" for 10 and 10.0, "true" for True."""
    if isinstance(value, bool):
        return repr(value).lower()
    return value if isinstance(value, str) else repr(float(value)).removesuffix(".0")


def as_number(value: Any) -> float | None:
    """Return a number or the number that a text is; booleans are no numbers."""
    try:
        return None if isinstance(value, bool) else float(value)
    except ValueError:
        return None


def as_date(value: Any) -> tuple[int, ...]:
    """Return year, month, day, hour and minute, as far as given; () if it is no date."""
    return date_of_text(as_text(value))


@cache
def date_of_text(text: str) -> tuple[int, ...]:
    """Return the parts of a date that a text is, or ()."""
    for form in ("%Y", "%Y-%m", "%Y-%m-%d", "%Y-%m-%dT%H:%M"):
        try:
            datetime.strptime(text, form)
        except ValueError:
            continue
        return tuple(map(int, re.findall("[0-9]+", text)))
    return ()


def within(value: Any, bounds: Mapping[str, Any]) -> bool:
    """Return whether one value is within all bounds, in the kind that all bounds share."""
    numbers = [as_number(bound) for bound in bounds.values()]
    dates = [as_date(bound) for bound in bounds.values()]
    if any(n is None and not d for n, d in zip(numbers, dates, strict=True)):
        return all(fulfils(as_text(value), name, as_text(b)) for name, b in bounds.items())
    date = as_date(value)
    if all(dates) and len(date) > 1:
        return all(
            fulfils(date if name in ("gte", "lt") else date[: len(bound)], name, bound)
            for name, bound in zip(bounds, dates, strict=True)
        )
    number = as_number(value)
    if number is None or None in numbers:
        return False
    return all(fulfils(number, name, bound) for name, bound in zip(bounds, numbers, strict=True))


def fulfils(value: Any, name: str, bound: Any) -> bool:
    """Return whether a value fulfils one bound of its own kind."""
    if value == bound:
        return name in ("gte", "lte")
    return name in (("gt", "gte") if value > bound else ("lt", "lte"))
