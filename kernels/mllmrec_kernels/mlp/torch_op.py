"""project to autograd: one node on the CPU, torch's operations elsewhere."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class _OnePass(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table: Tensor, rows: Tensor | None, slope: float, *weights: Tensor) -> Tensor:
        from mllmrec_kernels.mlp import cpu

        W1, b1, W2, b2 = (weight.detach().contiguous().numpy() for weight in weights)
        net = cpu.Perceptron(W1, b1, W2, b2, slope)
        asked = None if rows is None else rows.contiguous().numpy()
        made, passed = cpu.forward(table.contiguous().numpy(), asked, net, keep=any(ctx.needs_input_grad))
        ctx.net, ctx.passed = net, passed
        ctx.save_for_backward(*weights)  # so that a weight changed in place before backward is noticed
        return torch.from_numpy(made)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradient: Tensor) -> Any:
        from mllmrec_kernels.mlp import cpu

        _ = ctx.saved_tensors
        found = cpu.backward(gradient[0].contiguous().numpy(), ctx.passed, ctx.net)
        return None, None, None, *map(torch.from_numpy, found)


def in_one_pass(table: Tensor, rows: Tensor | None, *weights_and_slope: Any) -> Tensor:
    """Float32 on the CPU."""
    *weights, slope = weights_and_slope
    made: Tensor = _OnePass.apply(table, rows, slope, *weights)  # type: ignore[no-untyped-call]
    return made


def by_operations(
    table: Tensor, rows: Tensor | None, hidden_weight: Tensor, hidden_bias: Tensor, out_weight: Tensor,
    out_bias: Tensor, slope: float,
) -> Tensor:  # fmt: skip
    """Anything that torch computes with."""
    e = table if rows is None else table.index_select(0, rows)
    hidden = torch.nn.functional.linear(e, hidden_weight, hidden_bias)
    hidden = torch.nn.functional.leaky_relu(hidden, negative_slope=slope, inplace=True)
    return torch.nn.functional.linear(hidden, out_weight, out_bias)
