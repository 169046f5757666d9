"""What any learned code has to beat, from the same features and the same training pairs.

    sign           sign of the canonical projections, as they are
    cca + itq      the same after the rotation that fits signs best
    pca, pca + itq the same two of one modality, from its principal components
    label codeword the class posterior of each modality times a random sign matrix
    float cosine   the canonical projections uncompressed: what binary codes give up

Inputs are feature matrices (n, d_image) and (n, d_text); one row a pair.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from xmodal.linear_models import Matrix, Projections, as_float32, logistic, unit


def label_codeword(
    image: npt.NDArray[np.generic],
    text: npt.NDArray[np.generic],
    labels: npt.NDArray[np.bool_],
    bits: int,
    *,
    rng: np.random.Generator,
) -> Projections:
    """Posterior of a logistic regression a modality, times one random sign matrix (c, bits).

    Uses labelled pairs only: ``labels`` (n, c) has a row for each row of the features.
    """
    words = rng.choice(np.array([-1.0, 1.0], dtype=np.float32), size=(labels.shape[1], bits))
    by_image, by_text = logistic(image, labels), logistic(text, labels)
    return Projections(lambda x: by_image(x) @ words, lambda y: by_text(y) @ words)


def as_they_are() -> Projections:
    """No projection: for backbones whose two sides already share a space."""
    return Projections(as_float32, as_float32)


def cosine_distances(queries: Matrix, database: Matrix) -> Matrix:
    """1 - cosine, shape (q, n); a zero row is at distance 1 from everything."""
    return np.asarray(1 - unit(queries) @ unit(database).T)
