"""Numbers of a query and of documents beside their codes: weights of bits, and int8 vectors.

Both are derived from the outputs x of a tower, whose signs are the code. An output is treated as
the log-odds of its bit:

- A query has a **weight** per bit, 0 to 15, proportional to abs(x). The weighted Hamming distance
  is the sum of the weights of the bits in which two codes differ. It orders documents as the inner
  product of the query's outputs, in 4 bits, with the signs of a code.
- Queries and documents have a **vector** of int8: the expected signs of the bits, tanh(x / 2). It
  is compared by cosine, so each vector has a scale of its own that is not stored.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Int8 = npt.NDArray[np.int8]
UInt8 = npt.NDArray[np.uint8]

MAX_WEIGHT = 15
"""Largest weight of a bit: 4 bits."""
MAX_KEY = 1 << 23
"""Different keys below this limit have different scores 1 / (1 + key) in float32."""
INT8_MAX = 127


def weight_limit(bits: int) -> int:
    """Return the largest weight with codes of ``bits`` bits; below 2 there are no weights.

    It keeps :func:`rank_keys` below ``MAX_KEY``: 15 up to 744 bits, 7 at 1024, 1 at 2048.
    """
    return min(MAX_WEIGHT, (MAX_KEY // (bits + 1) - 1) // bits)


def query_weights(outputs: npt.NDArray[np.floating]) -> UInt8 | None:
    """Return the weights of the bits of ``n`` queries, (n, bits), from outputs (n, bits).

    None for codes so wide that only one weight is left. Outputs that are all zero have equal
    weights.
    """
    limit = weight_limit(outputs.shape[1])
    if limit < 2:
        return None
    sizes = np.abs(outputs).astype(np.float64)
    largest = sizes.max(axis=1, keepdims=True, initial=0)
    scaled = np.divide(sizes, largest, out=np.ones_like(sizes), where=largest > 0)
    weights: UInt8 = np.rint(limit * scaled).astype(np.uint8)
    return weights


def rank_keys(
    weighted: npt.NDArray[np.int64], hamming: npt.NDArray[np.int64], bits: int
) -> npt.NDArray[np.int64]:
    """Return one integer per document that orders by weighted, then by Hamming distance."""
    return weighted * (bits + 1) + hamming


def expected_signs(outputs: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Return the expected signs of bits whose log-odds are ``outputs``, in (-1, 1)."""
    signs: npt.NDArray[np.float64] = np.tanh(outputs.astype(np.float64) / 2)
    return signs


def to_int8(outputs: npt.NDArray[np.floating]) -> Int8:
    """Return the int8 vectors of outputs (n, dim): each is scaled to a largest value of 127."""
    values = expected_signs(outputs)
    largest = np.abs(values).max(axis=1, keepdims=True, initial=0)
    scaled = np.divide(values, largest, out=np.zeros_like(values), where=largest > 0)
    vectors: Int8 = np.rint(INT8_MAX * scaled).astype(np.int8)
    return vectors


def cosine(query: Int8, vectors: Int8) -> npt.NDArray[np.float64]:
    """Return the cosines of a query (dim,) with vectors (m, dim); 0 where one of them is zero.

    Sums are integers, so every implementation of dot / sqrt(|q|^2 |v|^2) returns equal numbers.
    """
    wide, own = vectors.astype(np.float64), query.astype(np.float64)
    # einsum, because threads of a matrix library cost more than they save here.
    lengths = np.sqrt(np.einsum("i,i", own, own) * np.einsum("ij,ij->i", wide, wide))
    cosines: npt.NDArray[np.float64] = np.zeros(len(wide))
    np.divide(np.einsum("ij,j->i", wide, own), lengths, out=cosines, where=lengths > 0)
    return cosines
