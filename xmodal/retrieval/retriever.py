"""Questions asked of an index, several at once, by codes alone or with BM25 beside them."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, runtime_checkable

from xmodal.codes import BinaryCodes
from xmodal.encoders.calibration import Confidence
from xmodal.errors import ConfigError, IndexMissing, XmodalError
from xmodal.index.contract import Index
from xmodal.modality import Modality


class Found(NamedTuple):
    """A hit; ``distance`` and ``confidence`` are None where they are not known."""

    id: str
    distance: int | None
    confidence: float | None
    fields: Mapping[str, Any]


@dataclass(frozen=True)
class Question:
    """A code (or, for ``like``, a document) and how to look for its nearest on side ``target``.

    ``side`` is where the code comes from: confidence is known between the two sides alone.
    """

    target: Modality
    side: Modality | None = None
    code: BinaryCodes | None = None
    like: str | None = None
    k: int = 20
    where: Mapping[str, Any] | None = None
    radius: int | None = None
    min_confidence: float | None = None
    words: str | None = None
    field_of_words: str = "text"
    left_out: frozenset[str] = field(default_factory=frozenset)


@runtime_checkable
class RanksWords(Protocol):
    """An index that knows the words of its documents."""

    def search_fused(
        self,
        queries: BinaryCodes,
        words: Sequence[str],
        k: int,
        *,
        target: Modality,
        text: str = "text",
        where: Mapping[str, Any] | None = None,
    ) -> Sequence[Sequence[Any]]:
        """Hits with id, distance and fields."""


class Searching:
    """Answers to questions about one index, by the confidence of the encoder that filled it."""

    def __init__(self, index: Index, confidence: Confidence) -> None:
        self.index, self._confidence = index, confidence

    def answers(self, questions: Sequence[Question]) -> list[list[Found] | Exception]:
        """The hits of each question, or why there are none to be had.

        Questions that differ in their codes alone are one search.
        """
        told: list[list[Found] | Exception] = [[] for _ in questions]
        alike: dict[str, list[tuple[int, Question]]] = defaultdict(list)
        for place, question in enumerate(questions):
            try:
                ready = self._with_code(question)
                alike[_kind(ready)].append((place, ready))
            except XmodalError as error:
                told[place] = error
        for group in alike.values():
            places = [place for place, _ in group]
            try:
                found: Sequence[Any] = self._search([question for _, question in group])
            except XmodalError as error:
                found = [error] * len(group)
            for place, hits in zip(places, found, strict=True):
                told[place] = hits
        return told

    def _with_code(self, question: Question) -> Question:
        """A question about a document becomes one about its code: of the side that is searched,
        else of the other one."""
        if question.like is None:
            return question
        other: Modality = "text" if question.target == "image" else "image"
        for side in (question.target, other):
            ids, code = self.index.codes_of([question.like], side)
            if ids:
                told = vars(question) | {"side": side, "code": code, "like": None}
                return Question(**(told | {"left_out": frozenset(ids)}))
        raise IndexMissing(f"there is no document {question.like[:100]!r}")

    def _search(self, questions: Sequence[Question]) -> list[list[Found]]:
        """Hits of questions that differ in their codes alone."""
        one = questions[0]
        across = one.side != one.target
        codes = BinaryCodes.concatenate([q.code for q in questions if q.code is not None])
        more = max(len(question.left_out) for question in questions)
        given: dict[str, Any] = {"target": one.target, "where": one.where}
        if one.words is not None:
            if not isinstance(self.index, RanksWords):
                raise ConfigError(
                    "words need an index in OpenSearch, which knows the words of its documents"
                )
            if one.radius is not None or one.min_confidence is not None:
                raise ConfigError("words go without radius and min_confidence")
            lists = self.index.search_fused(
                codes, [str(q.words) for q in questions], one.k + more,
                text=one.field_of_words, **given,
            )  # fmt: skip
        else:
            radius = self._confidence.cut(one.radius, one.min_confidence, across)
            lists = self.index.search(codes, one.k + more, radius=radius, **given)
        return [
            [
                Found(hit.id, hit.distance, self._sure(hit.distance, across), hit.fields)
                for hit in hits
                if hit.id not in question.left_out
            ][: one.k]
            for question, hits in zip(questions, lists, strict=True)
        ]

    def _sure(self, distance: int | None, across: bool) -> float | None:
        if distance is None or not across:
            return None
        return round(self._confidence(distance), 4)


def _kind(question: Question) -> str:
    """Equal for questions that may be one search."""
    told = vars(question) | {"code": None, "left_out": None, "words": question.words is not None}
    return json.dumps(told, sort_keys=True)
