"""Oracle: the contract of an index in naive Python, with which every backend is compared.

Codes are integers, documents are a dict, an answer is a sorted list. A column has one code for each
document, or a list of codes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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

    def search(
        self,
        queries: Sequence[int],
        k: int,
        target: str,
        where: Mapping[str, Any] | None = None,
        radius: int | None = None,
    ) -> Answer:
        answers = []
        for query in queries:
            found = []
            for id_, document in self.documents.items():
                distances = [(query ^ code).bit_count() for code in document.get(target, [])]
                if not distances or not matches(document["fields"], where or {}):
                    continue
                distance = min(distances)
                if radius is None or distance <= radius:
                    nearest = distances.index(distance)
                    found.append((id_, distance, document["fields"], nearest))
            answers.append(sorted(found, key=lambda hit: (hit[1], hit[0]))[:k])
        return answers


def matches(fields: Mapping[str, Any], where: Mapping[str, Any]) -> bool:
    """Return whether all conditions hold."""
    for name, expected in where.items():
        value = fields.get(name)
        values = [v for v in (value if isinstance(value, list) else [value]) if v is not None]
        if isinstance(expected, dict) and "exists" in expected:
            holds = bool(values) == expected["exists"]
        elif isinstance(expected, dict):
            holds = any(within(v, expected) for v in values)
        else:
            terms = expected if isinstance(expected, list) else [expected]
            holds = any(as_text(v) == as_text(term) for v in values for term in terms)
        if not holds:
            return False
    return True


def as_text(value: Any) -> str:
    """Return the text by which a value is compared: "10" for 10 and 10.0, "true" for True."""
    if isinstance(value, bool):
        return repr(value).lower()
    return value if isinstance(value, str) else repr(float(value)).removesuffix(".0")


def within(value: Any, bounds: Mapping[str, Any]) -> bool:
    """Return whether one value is within all bounds: text in text, numbers in numbers."""
    return all(fulfils(value, name, bound) for name, bound in bounds.items())


def fulfils(value: Any, name: str, bound: Any) -> bool:
    """Return whether a value fulfils one bound; booleans are no numbers."""
    if isinstance(bound, str):
        value = as_text(value)
    elif isinstance(value, bool):
        return False
    else:
        try:
            value = float(value)
        except ValueError:
            return False
    if value == bound:
        return name in ("gte", "lte")
    return name in (("gt", "gte") if value > bound else ("lt", "lte"))
