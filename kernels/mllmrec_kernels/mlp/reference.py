"""The contract of mlp: the perceptron and its gradients as a textbook writes them, in float64."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]


def mlp(
    rows: Floats, hidden_weight: Floats, hidden_bias: Floats, out_weight: Floats, out_bias: Floats,
    gradient: Floats, slope: float,
) -> tuple[NDArray[np.float64], ...]:  # fmt: skip
    """Return the outputs h [R, d], and the gradients of sum(gradient h) by W1, b1, W2 and b2.

    Args:
        rows: [R, d_e].
        hidden_weight: W1, [h, d_e].
        hidden_bias: b1, [h].
        out_weight: W2, [d, h].
        out_bias: b2, [d].
        gradient: [R, d].
        slope: of LeakyReLU below 0.
    """
    e, W1, b1, W2, b2, g = (
        np.asarray(array, np.float64) for array in (rows, hidden_weight, hidden_bias, out_weight, out_bias, gradient)
    )
    before = e @ W1.T + b1
    hidden = np.where(before > 0, before, slope * before)
    behind = (g @ W2) * np.where(before > 0, 1.0, slope)
    return hidden @ W2.T + b2, behind.T @ e, behind.sum(axis=0), g.T @ hidden, g.sum(axis=0)
