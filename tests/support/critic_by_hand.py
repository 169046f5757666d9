"""Scores and gradients of a critic in numpy, without autograd.

For a row x with a = W1 x + b1, h = l(a), a' = W2 h + b2, h' = l(a'), score w.h' + b, where l keeps
positive values and multiplies others by 1/5, the slope is W1' D (W2' D' w): D and D' hold the
slopes of l.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from xmodal.training.critics import Critic

Array = npt.NDArray[np.float64]


class CriticValues(NamedTuple):
    """Activations of rows (n, width) in a critic; ``d1``, ``d2``: derivatives of LeakyReLU."""

    rows: Array
    d1: Array
    h1: Array
    d2: Array
    h2: Array
    score: Array


def numbers(tensor: torch.Tensor) -> Array:
    return np.asarray(tensor.detach().numpy(), dtype=np.float64)


def weights(critic: Critic) -> list[Array]:
    """W1, b1, W2, b2, w, b."""
    return [numbers(one) for one in critic.layers.parameters()]


def critic_values(critic: Critic, rows: Array) -> CriticValues:
    w1, b1, w2, b2, w, b = weights(critic)
    a1 = rows @ w1.T + b1
    d1 = np.where(a1 > 0, 1.0, 0.2)
    a2 = (a1 * d1) @ w2.T + b2
    d2 = np.where(a2 > 0, 1.0, 0.2)
    return CriticValues(rows, d1, a1 * d1, d2, a2 * d2, (a2 * d2) @ w[0] + b[0])


def slopes(critic: Critic, rows: Array) -> Array:
    """d score / d row, (n, width)."""
    w1, _, w2, _, w, _ = weights(critic)
    found = critic_values(critic, rows)
    return np.asarray(((w[0] * found.d2) @ w2 * found.d1) @ w1)


def score_gradients(critic: Critic, rows: Array) -> list[Array]:
    """d mean score / d each of the weights."""
    _, _, w2, _, w, _ = weights(critic)
    found, n = critic_values(critic, rows), len(rows)
    back2 = w[0] * found.d2 / n
    back1 = back2 @ w2 * found.d1
    top = found.h2.mean(0, keepdims=True)
    return [
        back1.T @ rows,
        back1.sum(0),
        back2.T @ found.h1,
        back2.sum(0),
        top,
        np.ones(1),
    ]


def penalty_gradients(critic: Critic, rows: Array) -> list[Array]:
    """d mean (|slope| - 1)^2 / d each of the weights; 0 for biases.

    With p = (|s| - 1)^2, dp/ds = 2 (1 - 1/|s|) s; s = W1' t1, t1 = D W2' t2, t2 = D' w.
    """
    w1, b1, w2, b2, w, b = weights(critic)
    found = critic_values(critic, rows)
    t2 = w[0] * found.d2
    t1 = t2 @ w2 * found.d1
    s = t1 @ w1
    size = np.linalg.norm(s, axis=1, keepdims=True)
    ds = 2 * (1 - 1 / size) * s / len(rows)
    inner = (ds @ w1.T) * found.d1
    outer = (inner @ w2.T) * found.d2
    return [
        t1.T @ ds,
        np.zeros_like(b1),
        t2.T @ inner,
        np.zeros_like(b2),
        outer.sum(0, keepdims=True),
        np.zeros_like(b),
    ]
