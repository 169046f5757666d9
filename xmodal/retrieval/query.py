"""Query: what is searched, and by which options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

from xmodal.codes import BinaryCodes
from xmodal.data.readers.values import valid_unicode
from xmodal.encoders.calibration import Stage
from xmodal.errors import ConfigError
from xmodal.index.query_codes import QueryCodes
from xmodal.modality import MODALITIES, Modality, other_modality

if TYPE_CHECKING:
    from xmodal.data.images import Source

By = Literal["both", "codes", "words"]

WEIGHTS: Mapping[str, float] = {"text": 1.0, "image": 1.0, "like": 1.0, "not": 0.5}
"""Default weights of the parts of a query."""
MAX_NOT_TEXTS = 64
"""Texts that one query may subtract: each is encoded, and compared with every document found."""


@dataclass(frozen=True)
class Query:
    """One query, of one or several parts: ``text``, ``image``, ``like`` (a document id).

    Parts are combined as the weighted sum of their outputs, each scaled to length 1; ``weights``
    overrides :data:`WEIGHTS`. ``not_text``: texts that are subtracted, at most MAX_NOT_TEXTS; a
    document whose words contain all words of one of them is no hit. ``code``: codes instead of
    parts; with several codes, or several codes of the document ``like``, each document counts by
    its best hit. ``modality``: of ``code``, required for a confidence.

    ``target``: modality of the documents' codes; default: texts for a picture alone, else pictures.
    ``offset``: number of hits before the first of the ``k`` returned. ``radius``: largest Hamming
    distance. ``min_confidence``: hits below it are left out. ``by``: ranking by codes, by BM25 of
    the words of ``text``, or both fused by reciprocal rank, in which the words weigh
    ``word_weight``; a query without text is ranked by codes. ``stage``: last stage of the ranking
    by codes, see :mod:`xmodal.index.contract`.

    >>> query = xmodal.Query(text="a red circle", not_text=("left",), k=3)
    >>> query.searched
    'image'
    """

    text: str | None = None
    image: Source | None = None
    like: str | None = None
    code: BinaryCodes | QueryCodes | None = None
    not_text: tuple[str, ...] = ()
    weights: Mapping[str, float] = field(default_factory=dict)
    modality: Modality | None = None
    target: Modality | None = None
    k: int = 10
    offset: int = 0
    where: Mapping[str, Any] | None = None
    radius: int | None = None
    min_confidence: float | None = None
    by: By = "both"
    stage: Stage = "vectors"
    word_weight: float = 1.0

    def check(self) -> None:
        """Raise ConfigError for parts or options that do not fit together."""
        if len(self.not_text) > MAX_NOT_TEXTS:
            raise ConfigError(
                f"the query excludes {len(self.not_text):,} texts, expected at most {MAX_NOT_TEXTS}"
            )
        for text in (self.text, *self.not_text):
            check_unicode(text or "")
        parts = [self.text, self.image, self.like]
        if all(part is None for part in parts) == (self.code is None):
            raise ConfigError("expected a text, a picture or a document to search by, or a code")
        if self.code is not None and self.not_text:
            raise ConfigError("not_text needs a text, a picture or a document, found a code")
        for name, value, expected in (
            ("target", self.target, MODALITIES),
            ("modality", self.modality, MODALITIES),
            ("by", self.by, get_args(By)),
            ("stage", self.stage, get_args(Stage)),
        ):
            if value not in expected and not (value is None and expected == MODALITIES):
                known = " or ".join(map(repr, expected))
                raise ConfigError(f"{name} is {value!r}, expected {known}")
        if self.code is not None and self.target is None and self.modality is None:
            raise ConfigError("a query by code needs a target: 'image' or 'text'")
        if self.by == "words" and self.text is None:
            raise ConfigError("a ranking by words needs a text")
        if self.k < 1:
            raise ConfigError(f"k is {self.k}, expected at least 1")
        if self.offset < 0:
            raise ConfigError(f"offset is {self.offset}, expected 0 or more")
        if unknown := set(self.weights) - set(WEIGHTS):
            raise ConfigError(
                f"weights has {min(unknown)!r}, expected parts of {', '.join(WEIGHTS)}"
            )

    @property
    def searched(self) -> Modality:
        """The modality of the documents' codes."""
        if self.target is not None:
            return self.target
        if self.modality is not None:
            return other_modality(self.modality)
        image_alone = self.image is not None and self.text is None and self.like is None
        return "text" if image_alone else "image"

    @property
    def cross_modal(self) -> bool:
        """Whether the query is of the other modality than the searched one, alone and whole.

        Confidence is calibrated for such queries only.
        """
        if self.code is not None:
            return self.modality is not None and self.modality != self.searched
        if self.like is not None or self.not_text:
            return False
        other = self.image if self.searched == "text" else self.text
        same = self.text if self.searched == "text" else self.image
        return other is not None and same is None

    @property
    def has_words(self) -> bool:
        """Whether documents are also ranked by words."""
        return self.text is not None and self.by != "codes"

    def weight(self, part: str) -> float:
        """Return the weight of a part."""
        return self.weights.get(part, WEIGHTS[part])


def check_unicode(text: str) -> None:
    """Raise ConfigError for a text with bytes of a command line that are not UTF-8."""
    valid = valid_unicode(text)
    if text != valid:
        raise ConfigError(
            f"the text {valid!r} is not valid UTF-8: check the encoding of the terminal"
        )
