"""The contract of an index said again, as naively as possible: what every backend must agree with.

Codes are Python integers, documents lie in a dict, an answer is a sorted list.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from xmodal.codes import BinaryCodes

Answer = list[list[tuple[str, int, dict[str, Any]]]]
"""(id, distance, fields) of each hit, for each query: ``Hits`` as plain tuples."""


def codes(numbers: Sequence[int], bits: int) -> BinaryCodes:
    """Numbers as codes: the highest bit of a number is the first bit of its code."""
    return BinaryCodes.from_hex([f"{one:0{bits // 4}x}" for one in numbers], bits)


@dataclass
class Oracle:
    """Documents as id -> {"image": number, "text": number, "fields": {...}}."""

    documents: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(
        self,
        ids: Sequence[str],
        image: Sequence[int] | None = None,
        text: Sequence[int] | None = None,
        fields: Sequence[Mapping[str, Any]] | None = None,
    ) -> None:
        for at, id_ in enumerate(ids):
            document: dict[str, Any] = {"fields": dict(fields[at]) if fields else {}}
            if image is not None:
                document["image"] = image[at]
            if text is not None:
                document["text"] = text[at]
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
                if target not in document or not fits(document["fields"], where or {}):
                    continue
                distance = (query ^ document[target]).bit_count()
                if radius is None or distance <= radius:
                    found.append((id_, distance, document["fields"]))
            answers.append(sorted(found, key=lambda one: (one[1], one[0]))[:k])
        return answers


def fits(fields: Mapping[str, Any], where: Mapping[str, Any]) -> bool:
    """Whether all conditions hold."""
    for name, wanted in where.items():
        value = fields.get(name)
        values = [v for v in (value if isinstance(value, list) else [value]) if v is not None]
        if isinstance(wanted, dict) and "exists" in wanted:
            holds = bool(values) == wanted["exists"]
        elif isinstance(wanted, dict):
            holds = any(within(v, wanted) for v in values)
        else:
            some = wanted if isinstance(wanted, list) else [wanted]
            holds = any(same(v, one) for v in values for one in some)
        if not holds:
            return False
    return True


def same(value: Any, wanted: Any) -> bool:
    """10, 10.0 and "10" say the same, and so do True and "true"."""
    return said(value) == said(wanted)


def said(value: Any) -> str:
    """What a value says."""
    if isinstance(value, bool):
        return repr(value).lower()
    return value if isinstance(value, str) else repr(float(value)).removesuffix(".0")


def within(value: Any, bounds: Mapping[str, Any]) -> bool:
    """Whether one value lies within all bounds: text in text, numbers in numbers."""
    return all(beside(value, name, bound) for name, bound in bounds.items())


def beside(value: Any, name: str, bound: Any) -> bool:
    """Whether a value lies on the right side of one bound; true and false are no numbers."""
    if isinstance(bound, str):
        value = said(value)
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
