"""Confidence of the hits of a ranking: the calibrated probability that a hit is right."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from xmodal.errors import ConfigError
from xmodal.index.contract import WINDOW, Index
from xmodal.retrieval.query import Query
from xmodal.retrieval.ranking import Ranking

if TYPE_CHECKING:
    from xmodal.encoders.calibration import Stage
    from xmodal.encoders.encoder import Encoder

COUNT_SECONDS = 10.0
"""Seconds for which the number of searched documents is cached."""


class HitConfidence:
    """Confidence by the calibration of ``encoder``; without an encoder no hit has one."""

    def __init__(self, encoder: Encoder | None) -> None:
        self.encoder = encoder
        self._counts: dict[str, tuple[float, int]] = {}

    def check(self, query: Query) -> None:
        """Raise ConfigError for a minimum confidence of a query that has none."""
        if query.min_confidence is None:
            return
        if self.encoder is None:
            raise ConfigError("this retriever has no encoder, so hits have no confidence")
        if not query.cross_modal:
            raise ConfigError(
                "confidence is calibrated for a text that searches pictures and for a picture that "
                "searches texts: leave min_confidence out, or limit the distance by radius"
            )

    def of(self, ranking: Ranking, stage: Stage, index: Index) -> list[float | None]:
        """Return the confidence of each hit; None where none is calibrated.

        ``stage``: of the similarities, see :class:`xmodal.encoders.calibration.Confidence`. Hits
        after the window without a similarity have none.
        """
        query, matched = ranking.query, ranking.matched
        if self.encoder is None or not query.cross_modal or not ranking.hits:
            return [None] * len(ranking.hits)
        # Documents after the window compete with none, so that no confidence depends on the depth.
        first, others = ranking.split(WINDOW)
        places = first + [n for n in others if ranking.hits[n].similarity is not None]
        hits = [ranking.hits[place] for place in places]
        word_scores = None
        if matched is not None:
            scores = {key: hit.score for key, hit in matched.items()}
            word_scores = [scores.get(hit.key) for hit in hits]
        found = self.encoder.confidence.hits_confidence(
            stage,
            None if query.by == "words" else [hit.similarity for hit in hits],
            self._documents(query, index),
            word_scores=word_scores,
            distances=[hit.distance for hit in hits],
            source="text" if query.searched == "image" else "image",
            has_known_token=query.text is None or self.encoder.has_known_token(query.text),
            among=len(first),
        )
        confidence: list[float | None] = [None] * len(ranking.hits)
        for place, value in zip(places, found, strict=True):
            confidence[place] = value
        return confidence

    def _documents(self, query: Query, index: Index) -> int:
        """Return the number of documents that a query searches, cached for COUNT_SECONDS."""
        key, now = repr((query.searched, query.where)), time.monotonic()
        counted_at, count = self._counts.get(key, (-COUNT_SECONDS, 0))
        if now - counted_at >= COUNT_SECONDS:
            count = index.count(query.searched, query.where)
            self._counts = {key: (now, count)} if len(self._counts) > 1000 else self._counts
            self._counts[key] = now, count
        return count
