"""Calibration: the probability that a hit is right, in the index that was searched.

A hit has a score, ``codes * similarity + words * BM25``, and its evidence is how far this score
stands out of the scores z_j of the other hits of the query. The lead of hit i is

    lead_i = z_i - log(1 + sum over j != i of exp(z_j)),

the logit of a softmax over the hits and one document of similarity 0 without a matching word. The
log-odds that the hit is right are linear in lead, score and the logarithm of the number of
documents that were searched; all coefficients are fitted to held-out groups in indexes of several
sizes, by :mod:`xmodal.training.calibrate`. So confidence falls as an index grows, and where many
documents are as near as the hit.

Held-out queries are meaningful; random letters are not, and their best hit can still have a lead.
Therefore the best similarity of a query is compared with those of the held-out queries: if fewer
than ATYPICAL of them have a best hit that is as far away, the codes count less, down to the prior.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args
from zlib import crc32

import numpy as np
import numpy.typing as npt

from xmodal.index.words import document_words, tokens
from xmodal.modality import MODALITIES, Modality

Stage = Literal["vectors", "weighted", "hamming"]
"""Last stage of a ranking by codes: cosine of vectors, weighted or plain Hamming distance."""
STAGES: tuple[Stage, ...] = get_args(Stage)
"""Stages; the similarities of each have curves of their own."""
ATYPICAL = 0.1
"""Share of held-out queries with a farther best hit, below which a query's codes count less."""
LOW_SHARES = (0.0, 0.01, 0.02, 0.05, ATYPICAL)
DEFAULT_MIN_CONFIDENCE = 0.02
"""Default threshold of an encoder without a fitted one."""
COMPETITORS = 100
"""Hits of each ranking, by codes and by words, that compete with each other."""
MAX_KNOWN_WORDS = 50_000
MAX_COSINE = 0.999
MAX_LOG_ODDS = 30.0

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """Log-odds that a hit is right; see the docstring of the module.

    ``codes`` and ``words``: weights of a similarity and of a BM25 score in the score of a hit.
    ``lead``, ``score``, ``documents`` and ``offset``: coefficients of the log-odds; ``relative``:
    of the score as a share of the query's best one, for words alone. ``largest``:
    number of documents of the largest collection of the fit; if confidence rises with the number,
    which happens where right is a label, larger indexes count as this one. ``arctanh``: this
    function of a similarity counts, because similarities to many right documents are close to 1.
    """

    codes: float
    words: float
    lead: float
    score: float
    documents: float
    offset: float
    relative: float = 0.0
    largest: int = 0
    arctanh: bool = False

    def scores(self, similarities: Floats | None, words: Floats | None) -> Floats:
        """Return the scores (..., n) of hits; an evidence that is None counts as 0."""
        if self.arctanh and similarities is not None:
            limited = np.clip(similarities, -MAX_COSINE, MAX_COSINE)
            similarities = np.where(np.isfinite(similarities), np.arctanh(limited), -np.inf)
        parts = [
            weight * values
            for weight, values in ((self.codes, similarities), (self.words, words))
            if weight and values is not None
        ]
        known = similarities if similarities is not None else words
        assert known is not None
        return np.sum(parts, axis=0) if parts else np.zeros(known.shape)

    def probability(
        self, scores: Floats, n_documents: int, competing: npt.NDArray[np.bool_] | None = None
    ) -> Floats:
        """Return the probabilities (..., n) of the hits of one query in each row.

        ``competing`` (..., n): the hits in the sums of the leads; default: all.
        """
        counted = n_documents if self.documents <= 0 else min(n_documents, self.largest)
        size = math.log(max(counted, 1))
        log_odds = self.lead * leads(scores, competing) + self.score * scores
        log_odds += self.documents * size + self.offset
        if self.relative:
            log_odds += self.relative * relative(scores)
        clipped = np.clip(log_odds, -MAX_LOG_ODDS, MAX_LOG_ODDS)
        probability: Floats = 1 / (1 + np.exp(-clipped))
        return probability


WORDS_ALONE = Curve(codes=0.0, words=1.0, lead=1.0, score=0.0, documents=0.0, offset=0.0)
"""Curve of words where the data cannot calibrate them: a softmax over the documents found.

A BM25 score is an estimated logarithm of a likelihood ratio (Robertson, Zaragoza, "The
probabilistic relevance framework", 2009), so its weight is 1.
"""


@dataclass(frozen=True)
class Typical:
    """Lower end of the distribution of the best similarity of a held-out query.

    ``mean`` and ``documents``: the mean is linear in the logarithm of the number of documents.
    ``quantiles``: of the differences from it, at the shares LOW_SHARES.
    """

    mean: float
    documents: float
    quantiles: tuple[float, ...]

    def weight(self, best: float, n_documents: int) -> float:
        """Return the weight of the codes of a query, 0 to 1, from its best similarity."""
        expected = self.mean + self.documents * math.log(max(n_documents, 1))
        share = np.interp(best - expected, self.quantiles, LOW_SHARES)
        return float(share) / ATYPICAL


@dataclass(frozen=True)
class StageCurves:
    """Curves for the similarities of one stage: of codes alone, and of codes and words.

    ``matched``: of the hits that the ranking by words has, ``unmatched``: of the others; None where
    they could not be fitted.
    """

    alone: Curve
    typical: Typical
    matched: Curve | None = None
    unmatched: Curve | None = None

    def probability(
        self, similarities: Floats, words: Floats | None, n_documents: int, among: int
    ) -> Floats:
        """Return the probabilities (n,) of the hits of one query; ``words``: 0 is unmatched.

        Competitors are among the first ``among`` hits.
        """
        competing = np.zeros(len(similarities), np.bool_)
        competing[:among] = _first(similarities[:among])
        if words is None:
            scores = self.alone.scores(similarities, None)
            return self.alone.probability(scores, n_documents, competing)
        competing[:among] |= _first(words[:among])
        matched = self.matched or self._with_words()
        found = []
        for curve in (matched, self.unmatched or matched):
            scores = curve.scores(similarities, words)
            found.append(curve.probability(scores, n_documents, competing))
        return np.where(words > 0, *found)

    def _with_words(self) -> Curve:
        """Return the curve of codes with words added, whose scores have the weight 1."""
        strength = self.alone.lead + self.alone.score
        words = WORDS_ALONE.words / strength if strength > 0 else 0.0
        return Curve(**(asdict(self.alone) | {"words": words}))


@dataclass(frozen=True)
class SourceCurves:
    """Curves for the queries of one modality: those of each stage, and of words alone."""

    stages: Mapping[Stage, StageCurves] = field(default_factory=dict)
    words: Curve | None = None


@dataclass(frozen=True)
class EvenCurve:
    """Curve of an encoder of an earlier version: probability in an even mix of both kinds of pairs.

    The odds of a match at the distance ``d`` are exp(-(slope * d / bits + offset)).
    """

    slope: float
    offset: float
    bits: int

    def probability(self, distance: int, n_documents: int) -> float:
        """Return the probability in an index of which one document is right."""
        log_odds = -(self.slope * distance / self.bits + self.offset)
        log_odds -= math.log(max(n_documents - 1, 1))
        return 1 / (1 + math.exp(-min(MAX_LOG_ODDS, max(-MAX_LOG_ODDS, log_odds))))


@dataclass(frozen=True)
class Confidence:
    """Calibration of an encoder, by the modality of the query.

    ``match_share``: share of the documents that is right for a query, for an encoder whose matches
    share a label; None: one document is right. ``min_confidence``: default threshold; below it, the
    best hit of a query means that nothing found is likely right. ``even``: the curve of an encoder
    of an earlier version, which has no other. ``known_words``: CRC-32 of the words of the training,
    for the backbone ``words``, which has no vocabulary of its own; None: any word is known. Without
    any curve no hit has a confidence.
    """

    sources: Mapping[Modality, SourceCurves] = field(default_factory=dict)
    match_share: float | None = None
    min_confidence: float = DEFAULT_MIN_CONFIDENCE
    even: EvenCurve | None = None
    known_words: frozenset[int] | None = None

    def has_known_word(self, text: str) -> bool:
        """Return whether a word of the text occurred in the training, or cannot be told."""
        known = self.known_words
        return known is None or any(crc32(word.encode()) in known for word in tokens(text))

    def hits_confidence(
        self,
        stage: Stage,
        similarities: Sequence[float | None] | None,
        n_documents: int,
        *,
        word_scores: Sequence[float | None] | None = None,
        distances: Sequence[int] | None = None,
        source: Modality = "text",
        has_known_token: bool = True,
        among: int | None = None,
    ) -> list[float | None]:
        """Return the probability that each hit of one query is right, in the order of the hits.

        ``similarities`` (n,): ``Hit.similarity``, all of one ``stage``; None where it is unknown,
        and instead of the list for a search by words alone. ``n_documents``: documents that were
        searched: those that pass the filter and have a code of the target. ``word_scores`` (n,):
        ``WordsHit.score``, None for a hit that no word found; None instead of the list for a search
        by codes alone. ``distances`` (n,): Hamming distances, used for encoders of earlier versions
        alone. ``source``: modality of the query, which searches documents of the other one; a
        search within one modality has no confidence. ``has_known_token``: see
        :meth:`xmodal.Encoder.has_known_token`; if false, codes are no evidence.

        Hits are passed in any order: all that were found, and of each ranking at least the first
        COMPETITORS if there are so many. ``among``: number of the first hits passed, of which some
        compete with each other and with the further hits; default: all. None where nothing is
        calibrated.
        """
        known = _known(similarities)
        words = _words(word_scores)
        count = len(similarities if similarities is not None else word_scores or ())
        if self.even is not None and distances is not None:
            return [self.even.probability(d, n_documents) for d in distances]
        curves = self.sources.get(source)
        if curves is None or not count:
            return [None] * count
        of_stage = curves.stages.get(stage) if known is not None else None
        by_words = None
        if words is not None:
            curve = curves.words or WORDS_ALONE
            by_words = curve.probability(curve.scores(None, words), n_documents, _first(words))
        if known is None or of_stage is None:
            return [None] * count if by_words is None else _rounded(by_words)
        among = count if among is None else among
        typical = of_stage.typical.weight(float(known[:among].max()), n_documents)
        weight = typical if has_known_token else 0.0
        found = of_stage.probability(known, words, n_documents, among)
        other = self.prior(n_documents) if by_words is None else by_words
        return _rounded(weight * found + (1 - weight) * other)

    def prior(self, n_documents: int) -> float:
        """Return the probability that a document is right which nothing is known of."""
        return self.match_share if self.match_share is not None else 1 / max(n_documents, 1)

    def to_config(self) -> dict[str, Any]:
        """Return the calibration as ``config.json`` stores it."""
        if self.even is not None:
            return {"slope": self.even.slope, "offset": self.even.offset}
        return {
            "sources": {source: _source_to_config(one) for source, one in self.sources.items()},
            "match_share": self.match_share,
            "min_confidence": self.min_confidence,
            **({} if self.known_words is None else {"known_words": sorted(self.known_words)}),
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any], bits: int) -> Confidence:
        """Return the calibration that ``config.json`` stores, also that of an earlier version."""
        if "sources" not in config:
            return cls(even=EvenCurve(float(config["slope"]), float(config["offset"]), bits))
        share = config["match_share"]
        return cls(
            {
                m: _source_from_config(config["sources"][m])
                for m in MODALITIES
                if m in config["sources"]
            },
            None if share is None else float(share),
            float(config["min_confidence"]),
            known_words=frozenset(map(int, config["known_words"]))
            if "known_words" in config
            else None,
        )


def known_words(captions: Iterable[str]) -> frozenset[int]:
    """Return the CRC-32 of the MAX_KNOWN_WORDS most frequent words of captions."""
    counts = Counter(word for text in captions for word in document_words({"text": text}, ""))
    frequent = sorted(counts, key=lambda word: (-counts[word], word))[:MAX_KNOWN_WORDS]
    return frozenset(crc32(word.encode()) for word in frequent)


def relative(scores: Floats) -> Floats:
    """Return scores (..., n) as shares of the largest of their row."""
    share: Floats = scores / np.maximum(scores.max(axis=-1, keepdims=True, initial=0.0), 1e-9)
    return share


def leads(scores: Floats, competing: npt.NDArray[np.bool_] | None = None) -> Floats:
    """Return the lead (..., n) of each hit of a row of scores; -inf is no hit.

    ``competing`` (..., n): the hits in the sums; default: all.
    """
    top = scores.max(axis=-1, keepdims=True, initial=0.0)
    share = np.exp(scores - top)
    counted = share if competing is None else np.where(competing, share, 0.0)
    others = np.maximum(counted.sum(axis=-1, keepdims=True) - counted, 0.0)
    lead: Floats = scores - top - np.log(others + np.exp(-top))
    return lead


def _first(values: Floats) -> npt.NDArray[np.bool_]:
    """Return which of the values are among the COMPETITORS largest; equal ones are all."""
    if len(values) <= COMPETITORS:
        return np.ones(len(values), np.bool_)
    first: npt.NDArray[np.bool_] = values >= np.partition(values, -COMPETITORS)[-COMPETITORS]
    return first


def _known(similarities: Sequence[float | None] | None) -> Floats | None:
    """Return the similarities (n,); an unknown one is the smallest known one."""
    if similarities is None:
        return None
    values = [value for value in similarities if value is not None]
    if not values:
        return None
    least = min(values)
    return np.array([least if value is None else value for value in similarities])


def _words(word_scores: Sequence[float | None] | None) -> Floats | None:
    """Return BM25 scores (n,), 0 for a hit that no word found; None if no hit has a score."""
    if word_scores is None:
        return None
    values = np.array([0.0 if score is None else score for score in word_scores])
    return values if values.any() else None


def _rounded(values: Floats) -> list[float | None]:
    return [round(float(value), 4) for value in values]


def _source_to_config(curves: SourceCurves) -> dict[str, Any]:
    return {
        "stages": {stage: asdict(one) for stage, one in curves.stages.items()},
        "words": None if curves.words is None else asdict(curves.words),
    }


def _source_from_config(config: Mapping[str, Any]) -> SourceCurves:
    stages = {
        stage: StageCurves(
            _curve(one["alone"]),
            _typical(one["typical"]),
            *(
                None if one[name] is None else _curve(one[name])
                for name in ("matched", "unmatched")
            ),
        )
        for stage, one in config["stages"].items()
        if stage in STAGES
    }
    return SourceCurves(stages, None if config["words"] is None else _curve(config["words"]))


def _typical(config: Mapping[str, Any]) -> Typical:
    quantiles = tuple(map(float, config["quantiles"]))
    if len(quantiles) != len(LOW_SHARES):
        raise ValueError(f"quantiles has {len(quantiles)} values")
    return Typical(float(config["mean"]), float(config["documents"]), quantiles)


def _curve(config: Mapping[str, Any]) -> Curve:
    values = {name: float(value) for name, value in config.items()}
    exact = {"largest": int(values["largest"]), "arctanh": bool(values["arctanh"])}
    return Curve(**values | exact)  # type: ignore[arg-type]
