"""Code health: how well binary codes use their bits."""

from __future__ import annotations

import numpy as np

from xmodal.codes import BinaryCodes


def code_health(codes: BinaryCodes) -> dict[str, float]:
    """Return statistics of codes; all are NaN if there is no code.

    ``distinct``: number of distinct codes / number of items. ``largest_bucket``: share of items
    with the most frequent code. ``entropy``: mean entropy of a bit, in bits (1 if balanced).
    ``correlation``: mean absolute Pearson correlation of two bits (0 for constant bits).
    """
    n = len(codes)
    if n == 0:
        return dict.fromkeys(("distinct", "largest_bucket", "entropy", "correlation"), float("nan"))
    _, counts = np.unique(codes.packed, axis=0, return_counts=True)
    bits = codes.to_bits().astype(np.float64)
    p = bits.mean(axis=0)
    clipped = np.clip(p, 1e-12, 1 - 1e-12)
    entropy = -(clipped * np.log2(clipped) + (1 - clipped) * np.log2(1 - clipped))
    standardised = (bits - p) / np.sqrt(np.maximum(p * (1 - p), 1e-12))
    correlation = np.abs(standardised.T @ standardised / n)
    off_diagonal = correlation[~np.eye(codes.bits, dtype=np.bool_)]
    return {
        "distinct": len(counts) / n,
        "largest_bucket": float(counts.max()) / n,
        "entropy": float(entropy.mean()),
        "correlation": float(off_diagonal.mean()),
    }
