"""Code health: how well binary codes use their bits."""

from __future__ import annotations

import numpy as np

from xmodal.codes import BinaryCodes

BLOCK_ROWS = 1 << 16
"""Codes whose bits are unpacked at once."""


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
    ones, both = np.zeros(codes.bits), np.zeros((codes.bits, codes.bits))
    for start in range(0, n, BLOCK_ROWS):
        bits = codes[start : start + BLOCK_ROWS].to_bits().astype(np.float32)
        ones += bits.sum(axis=0)
        both += bits.T @ bits  # sums of a block are exact in float32
    p = ones / n
    clipped = np.clip(p, 1e-12, 1 - 1e-12)
    entropy = -(clipped * np.log2(clipped) + (1 - clipped) * np.log2(1 - clipped))
    deviation = np.sqrt(np.maximum(p * (1 - p), 1e-12))
    correlation = np.abs((both / n - np.outer(p, p)) / np.outer(deviation, deviation))
    off_diagonal = correlation[~np.eye(codes.bits, dtype=np.bool_)]
    return {
        "distinct": len(counts) / n,
        "largest_bucket": float(counts.max()) / n,
        "entropy": float(entropy.mean()),
        "correlation": float(off_diagonal.mean()),
    }
