"""A perceptron of one hidden layer over rows of a constant table, as one node to autograd."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mllmrec_kernels.base.errors import KernelInputError

if TYPE_CHECKING:
    from torch import Tensor


def mlp(
    table: Tensor,
    rows: Tensor | None,
    hidden_weight: Tensor,
    hidden_bias: Tensor,
    out_weight: Tensor,
    out_bias: Tensor,
    *,
    slope: float = 0.01,
) -> Tensor:
    """Return W2 LeakyReLU(W1 e + b1) + b2 for the named rows e of a table (docs/method.md, 4).

    For float32 on the CPU, one pass looks rows up, multiplies and rectifies them, on as many threads as Numba may use.
    Another makes the gradient (cpu.py). Otherwise torch's own operations run. The same number of threads gives the same
    bits.

    Args:
        table: E, [N, d_e], constant.
        rows: int64 [R], trusted to lie within the table; None for all of it, in order.
        hidden_weight: W1, [h, d_e], differentiable.
        hidden_bias: b1, [h], differentiable.
        out_weight: W2, [d, h], differentiable.
        out_bias: b2, [d], differentiable.
        slope: of LeakyReLU below 0; above 0 itself.

    Returns:
        [R, d], the weights' dtype.

    Raises:
        KernelInputError: widths or dtypes do not match, the slope is not above 0, or the table requires a gradient.
    """
    import torch

    from mllmrec_kernels.mlp import torch_op

    weights = hidden_weight, hidden_bias, out_weight, out_bias
    _check(table, weights, slope)
    fused = table.device.type == "cpu" and table.dtype == torch.float32
    # torch.compile traces only torch's operations, and autocast changes only those.
    if fused and not torch.compiler.is_compiling() and not torch.is_autocast_enabled("cpu"):
        return torch_op.in_one_pass(table, rows, *weights, slope)
    return torch_op.by_operations(table, rows, *weights, slope)


def _check(table: Tensor, weights: tuple[Tensor, ...], slope: float) -> None:
    shapes = [tuple(tensor.shape) for tensor in (table, *weights)]
    hidden, out = weights[0], weights[2]
    matching = table.ndim == hidden.ndim == out.ndim == 2 and shapes[1:] == [
        (out.shape[1], table.shape[1]), (out.shape[1],), (len(out), hidden.shape[0]), (len(out),)
    ]  # fmt: skip
    if not matching or len({tensor.dtype for tensor in (table, *weights)}) != 1:
        raise KernelInputError(
            "table, W1, b1, W2 and b2 must be [N, e], [h, e], [h], [d, h] and [d] of one dtype; got "
            f"{', '.join(map(str, shapes))} of {', '.join(str(tensor.dtype) for tensor in (table, *weights))}"
        )
    if not slope > 0:
        raise KernelInputError(f"slope must be above 0; got {slope}")
    if table.requires_grad:
        raise KernelInputError("the table is constant and gets no gradient; pass table.detach()")
