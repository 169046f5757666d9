"""Baselines: codes and projections fitted to the same features and training pairs as an encoder.

    sign                     sign of the CCA projections
    cca + itq                sign of the CCA projections after the ITQ rotation
    label codeword           sign of the class posterior times a random sign matrix
    float cosine (cca)       cosine of the CCA projections, without binarisation
    float cosine (backbone)  cosine of the features, for backbones with a shared space

The linear models are in :mod:`xmodal.linear_models`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from xmodal.linear_models import Projections, as_float32, cca, itq, logistic
from xmodal.modality import Modality


class Baseline(NamedTuple):
    """A fitted baseline: projections that are compared by cosine, or by Hamming after sign."""

    name: str
    projections: Projections
    by_cosine: bool = False


def fit_baselines(
    features: Mapping[Modality, npt.NDArray[Any]],
    labels: npt.NDArray[np.bool_],
    labelled: npt.NDArray[np.bool_],
    bits: int,
    *,
    seed: int,
    shared_space: bool = False,
) -> Iterator[Baseline]:
    """Yield the baselines of training pairs: ``features`` (n, d) of both modalities.

    ``labels`` (n, c) multi-hot and ``labelled`` (n,): without labelled pairs there is no
    "label codeword". ``shared_space``: the features of both modalities are comparable.
    """
    image, text = features["image"], features["text"]
    projections = cca(image, text, bits)
    yield Baseline("sign", projections)
    rng = np.random.default_rng(seed)
    yield Baseline("cca + itq", itq(image, text, projections, rng=rng))
    if labelled.any() and labels.shape[1]:
        codewords = label_codeword(image[labelled], text[labelled], labels[labelled], bits, rng=rng)
        yield Baseline("label codeword", codewords)
    yield Baseline("float cosine (cca)", projections, by_cosine=True)
    if shared_space:
        yield Baseline("float cosine (backbone)", identity(), by_cosine=True)


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


def identity() -> Projections:
    """Return projections that leave the features unchanged, as float32."""
    return Projections(as_float32, as_float32)
