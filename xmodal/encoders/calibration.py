"""Calibration: the probability that a hit is right, in the index that was searched.

The evidence for a hit is how far it stands out of the other hits of its query. With the scores
x_j of the hits (similarities of codes, or BM25 scores of words), the lead of hit i is

    lead_i = scale * x_i - log(floor + sum over j != i of exp(scale * x_j)),

the logit of a softmax over the hits; ``floor`` is 1 for words, the term of a document without a
matching word, and 0 for codes. The log-odds that the hit is right are linear in the leads and in
the logarithm of the number of documents that were searched; the coefficients are fitted to held-out
groups in indexes of several sizes, see :mod:`xmodal.training.calibrate`. So confidence falls as an
index grows, and where many documents are as near as the hit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from xmodal.modality import MODALITIES, Modality

Stage = Literal["vectors", "weighted", "hamming"]
"""Origin of similarities: cosine of int8 vectors, weighted Hamming distance, Hamming distance."""
STAGES: tuple[Stage, ...] = get_args(Stage)
COMPETITORS = 100
"""Hits of a query whose scores decide a lead; a caller passes at least so many, if there are."""
DEFAULT_MIN_CONFIDENCE = 0.05
"""Confidence below which a best hit means that nothing found is likely right."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """Log-odds of a hit: offset + documents * log(N) + sum of weight * lead, of each evidence.

    ``weights`` and ``scales``: by the name of the evidence, "codes" or "words".
    """

    offset: float
    documents: float
    weights: Mapping[str, float]
    scales: Mapping[str, float]

    def log_odds(self, scores: Mapping[str, Floats], n_documents: int) -> Floats:
        """Return the log-odds (n,) of n hits; ``scores``: (n,) for each evidence."""
        total = np.full(len(next(iter(scores.values()))), self.offset)
        total += self.documents * math.log(max(n_documents, 1))
        for name, weight in self.weights.items():
            total += weight * leads(scores[name], self.scales[name], floor=name == "words")
        return total

    def to_config(self) -> dict[str, Any]:
        """Return the curve as ``config.json`` stores it."""
        return {
            "offset": self.offset,
            "documents": self.documents,
            "weights": dict(self.weights),
            "scales": dict(self.scales),
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Curve:
        """Return the curve that ``config.json`` stores."""
        weights, scales = (
            {str(name): float(value) for name, value in config[key].items()}
            for key in ("weights", "scales")
        )
        return cls(float(config["offset"]), float(config["documents"]), weights, scales)


@dataclass(frozen=True)
class Confidence:
    """Curves of an encoder, by the modality of the query and the evidence.

    ``curves[modality]`` maps the name of an evidence to its curve: a stage for codes alone, "words"
    for words alone, "STAGE+words" for both. ``match_share``: share of an index that is right for a
    query, for an encoder whose matches share a label; None: one document is right.
    ``min_confidence``: the default threshold, see DEFAULT_MIN_CONFIDENCE. ``legacy``: slope, offset
    and bits of the curve of an encoder of an earlier version, which has no other curves.
    """

    curves: Mapping[Modality, Mapping[str, Curve]] = field(default_factory=dict)
    match_share: float | None = None
    min_confidence: float = DEFAULT_MIN_CONFIDENCE
    legacy: tuple[float, float] | None = None

    def hits_confidence(
        self,
        stage: Stage,
        similarities: Sequence[float | None] | None,
        n_documents: int,
        *,
        word_scores: Sequence[float | None] | None = None,
        source: Modality = "text",
        has_known_token: bool = True,
    ) -> list[float | None]:
        """Return the probability that each hit of one query is right, in the order of the hits.

        ``similarities`` (n,): ``Hit.similarity``, all of one ``stage``; None where it is unknown,
        and instead of the list for a search by words alone. ``n_documents``: documents that were
        searched, those that pass the filter and have a code of the target. ``word_scores`` (n,):
        BM25 scores ``WordsHit.score``, None for a hit that no word found; None instead of the list
        for a search by codes alone. ``source``: modality of the query; pictures and texts are
        calibrated as queries for documents of the other modality, so a search within one modality
        has no confidence. ``has_known_token``: see ``Encoder.has_known_token``; if false, the codes
        are no evidence and the confidence is the prior.

        Hits are passed in any order, and all that were found: at least the first COMPETITORS by
        codes and by words (fewer than ``k`` hits to show do not matter here). A value is None where
        nothing was calibrated.
        """
        raise NotImplementedError
