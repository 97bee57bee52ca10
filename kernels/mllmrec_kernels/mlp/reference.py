"""The contract of project: the perceptron and its gradients as a textbook writes them, in float64."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]


def project(
    rows: Floats, hidden_weight: Floats, hidden_bias: Floats, out_weight: Floats, out_bias: Floats,
    gradient: Floats, slope: float,
) -> tuple[NDArray[np.float64], ...]:  # fmt: skip
    """(h [R, d], and of sum(gradient h) the gradients by W1, b1, W2, b2); rows [R, d_e], gradient [R, d]."""
    e, W1, b1, W2, b2, g = (
        np.asarray(array, np.float64) for array in (rows, hidden_weight, hidden_bias, out_weight, out_bias, gradient)
    )
    before = e @ W1.T + b1
    hidden = np.where(before > 0, before, slope * before)
    behind = (g @ W2) * np.where(before > 0, 1.0, slope)
    return hidden @ W2.T + b2, behind.T @ e, behind.sum(axis=0), g.T @ hidden, g.sum(axis=0)
