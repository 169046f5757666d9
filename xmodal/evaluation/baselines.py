"""Baselines: codes and projections fitted to the same features and training pairs as an encoder.

    sign                     sign of the CCA projections
    cca + itq                sign of the CCA projections after the ITQ rotation
    label codeword           sign of the class posterior times a random sign matrix
    float cosine (cca)       cosine of the CCA projections, without binarisation
    float cosine (backbone)  cosine of the features, for backbones with a shared space
    pca + itq (backbone)     sign of the principal components of these features after ITQ

The linear models are in :mod:`xmodal.linear_models`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from xmodal.codes import BinaryCodes
from xmodal.data.spill import zeros
from xmodal.features.rows import FeatureRows, Features
from xmodal.linear_models import (
    BLOCK_ROWS,
    Pairing,
    Project,
    Projections,
    as_float32,
    cca,
    itq,
    logistic,
    pca,
)
from xmodal.modality import MODALITIES, Modality

Ranked = Mapping[Modality, BinaryCodes | npt.NDArray[Any]]
"""What is ranked, by modality: codes, or vectors that are compared by cosine."""

MAX_LOGISTIC_PAIRS = 50_000
"""Labelled pairs, evenly chosen, to which class posteriors are fitted."""
MAX_ITQ_PAIRS = 10_000
"""Pairs to which the rotation of ITQ is fitted; more pairs do not improve it."""


class Baseline(NamedTuple):
    """A fitted baseline: projections that are compared by cosine, or by Hamming after sign."""

    name: str
    projections: Projections
    by_cosine: bool = False

    def ranked(self, features: Mapping[Modality, Features]) -> Ranked:
        """Return the projections of features (n, d) of both modalities, or their codes.

        Features are read block by block; large matrices are in a file, see
        :mod:`xmodal.data.spill`.
        """
        return {modality: self._of(modality, features[modality]) for modality in MODALITIES}

    def _of(self, modality: Modality, features: Features) -> BinaryCodes | npt.NDArray[Any]:
        project: Project = getattr(self.projections, modality)
        if not len(features):
            values = project(features[:])
            return values if self.by_cosine else BinaryCodes.from_relaxed(values)
        blocks = FeatureRows.of(features).blocks(BLOCK_ROWS)
        if not self.by_cosine:
            return BinaryCodes.concatenate(
                [BinaryCodes.from_relaxed(project(rows)) for _, rows in blocks]
            )
        place, rows = next(blocks)
        first = project(rows)
        found = zeros((len(features), first.shape[1]), first.dtype)
        found[place] = first
        for place, rows in blocks:
            found[place] = project(rows)
        return found


def fit_baselines(
    features: Mapping[Modality, Features],
    labels: npt.NDArray[np.bool_],
    labelled: npt.NDArray[np.bool_],
    bits: int,
    *,
    seed: int,
    shared_space: bool = False,
    pairs: Pairing | None = None,
) -> Iterator[Baseline]:
    """Yield the baselines of ``n`` training pairs: ``features`` of both modalities.

    ``pairs``: a row of the features of pictures and one of texts for each pair, (n,) each; by
    default row i of both is one pair. ``labels`` (n, c) multi-hot and ``labelled`` (n,): without
    labelled pairs there is no "label codeword". ``shared_space``: the features of both modalities
    are comparable.
    """
    image, text = features["image"], features["text"]
    rows = pairs or (np.arange(len(image)), np.arange(len(text)))
    projections = cca(image, text, bits, pairs=pairs)
    yield Baseline("sign", projections)
    rng = np.random.default_rng(seed)
    chosen = np.linspace(0, len(rows[0]) - 1, min(len(rows[0]), MAX_ITQ_PAIRS)).astype(np.int64)
    sample = image[rows[0][chosen]], text[rows[1][chosen]]
    yield Baseline("cca + itq", itq(*sample, projections, rng=rng))
    if labelled.any() and labels.shape[1]:
        known = np.flatnonzero(labelled)
        few = np.linspace(0, len(known) - 1, min(len(known), MAX_LOGISTIC_PAIRS)).astype(np.int64)
        known = known[few]
        codewords = label_codeword(
            image[rows[0][known]], text[rows[1][known]], labels[known], bits, rng=rng
        )
        yield Baseline("label codeword", codewords)
    yield Baseline("float cosine (cca)", projections, by_cosine=True)
    if shared_space:
        yield Baseline("float cosine (backbone)", identity(), by_cosine=True)
        components = shared_components(*sample, bits)
        yield Baseline("pca + itq (backbone)", itq(*sample, components, rng=rng))


def label_codeword(
    image: npt.NDArray[np.generic],
    text: npt.NDArray[np.generic],
    labels: npt.NDArray[np.bool_],
    bits: int,
    *,
    rng: np.random.Generator,
) -> Projections:
    """Return class posteriors (logistic regression per modality) times one random sign matrix.

    ``image`` (n, d_image), ``text`` (n, d_text), ``labels`` (n, c); all pairs are labelled.
    """
    codewords = rng.choice(np.array([-1.0, 1.0], dtype=np.float32), size=(labels.shape[1], bits))
    image_posterior, text_posterior = logistic(image, labels), logistic(text, labels)
    return Projections(
        lambda x: image_posterior(x) @ codewords, lambda y: text_posterior(y) @ codewords
    )


def shared_components(
    image: npt.NDArray[np.generic], text: npt.NDArray[np.generic], bits: int
) -> Projections:
    """Return ``bits`` principal components of features (n, d) of a shared space.

    Each modality is centred by its own mean: the means of pictures and texts differ in models such
    as CLIP.
    """
    image_mean, text_mean = as_float32(image).mean(axis=0), as_float32(text).mean(axis=0)
    joint = np.concatenate([as_float32(image) - image_mean, as_float32(text) - text_mean])
    project = pca(joint, bits)
    return Projections(
        lambda x: project(as_float32(x) - image_mean), lambda y: project(as_float32(y) - text_mean)
    )


def identity() -> Projections:
    """Return projections that leave the features unchanged, as float32."""
    return Projections(as_float32, as_float32)
