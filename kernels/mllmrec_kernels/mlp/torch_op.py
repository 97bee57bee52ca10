"""The perceptron under autograd: one node on the CPU, torch's operations elsewhere."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class _OnePass(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table: Tensor, rows: Tensor | None, slope: float, *weights: Tensor) -> Tensor:
        """Return h [R, d], and keep for backward what it needs.

        Args:
            ctx: torch's, for backward.
            table: float32 [N, d_e].
            rows: int64 [R]; None for all.
            slope: of LeakyReLU below 0.
            weights: W1, b1, W2 and b2.
        """
        from mllmrec_kernels.mlp import cpu

        W1, b1, W2, b2 = (weight.detach().contiguous().numpy() for weight in weights)
        net = cpu.Perceptron(W1, b1, W2, b2, slope)
        ids = None if rows is None else rows.contiguous().numpy()
        out, activations = cpu.forward(table.contiguous().numpy(), ids, net, keep=any(ctx.needs_input_grad))
        ctx.net, ctx.activations = net, activations
        ctx.save_for_backward(*weights)  # so that torch refuses weights changed in place before backward
        return torch.from_numpy(out)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradient: Tensor) -> Any:
        from mllmrec_kernels.mlp import cpu

        _ = ctx.saved_tensors
        gradients = cpu.backward(gradient[0].contiguous().numpy(), ctx.activations, ctx.net)
        return None, None, None, *map(torch.from_numpy, gradients)


def in_one_pass(table: Tensor, rows: Tensor | None, *weights_and_slope: Any) -> Tensor:
    """Return h [R, d] of float32 tensors on the CPU; W1, b1, W2, b2 and the slope follow the rows."""
    *weights, slope = weights_and_slope
    out: Tensor = _OnePass.apply(table, rows, slope, *weights)  # type: ignore[no-untyped-call]
    return out


def by_operations(
    table: Tensor, rows: Tensor | None, hidden_weight: Tensor, hidden_bias: Tensor, out_weight: Tensor,
    out_bias: Tensor, slope: float,
) -> Tensor:  # fmt: skip
    """Return h [R, d] of any tensors, by torch's operations.

    Args:
        table: [N, d_e].
        rows: int64 [R]; None for all.
        hidden_weight: W1, [h, d_e].
        hidden_bias: b1, [h].
        out_weight: W2, [d, h].
        out_bias: b2, [d].
        slope: of LeakyReLU below 0.
    """
    e = table if rows is None else table.index_select(0, rows)
    hidden = torch.nn.functional.linear(e, hidden_weight, hidden_bias)
    hidden = torch.nn.functional.leaky_relu(hidden, negative_slope=slope, inplace=True)
    return torch.nn.functional.linear(hidden, out_weight, out_bias)
