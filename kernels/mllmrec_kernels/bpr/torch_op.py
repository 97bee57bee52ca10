"""bpr_loss to autograd: the gradient is there with the loss, so that backward only scales it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _OnePass(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *given: Tensor) -> Tensor:
        from mllmrec_kernels.bpr import cpu

        tables = [table.detach().contiguous() for table in given[:2]]
        gradients = [torch.empty_like(table) for table in tables]
        arrays = [array.numpy() for array in (*tables, *given[2:], *gradients)]
        loss = cpu.bpr_loss(*arrays)
        ctx.save_for_backward(*gradients)
        return torch.tensor(loss, dtype=torch.float32)

    @staticmethod
    def backward(ctx: Any, *slope: Tensor) -> Any:
        by_users, by_items = ctx.saved_tensors
        return by_users * slope[0], by_items * slope[0], None, None, None


def in_one_pass(users: Tensor, items: Tensor, of_user: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
    """Float32 on the CPU."""
    loss: Tensor = _OnePass.apply(users, items, of_user, positives, negatives)  # type: ignore[no-untyped-call]
    return loss


def by_operations(users: Tensor, items: Tensor, of_user: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
    """Anything that torch computes with."""
    # Looked up as in a table: its gradient is summed row by row, on all cores; that of indexing is not.
    u, p, n = (
        torch.nn.functional.embedding(which, table)
        for which, table in ((of_user, users), (positives, items), (negatives, items))
    )
    return bpr_of_rows(u, p, n)


def bpr_of_rows(users: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
    """bpr_loss of rows that are looked up already, [B, d] each; a scalar, float32."""
    difference = (users * (positives - negatives)).sum(dim=1)
    return torch.nn.functional.softplus(-difference.float()).mean()
