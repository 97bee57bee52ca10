"""BPR loss under autograd: the forward makes the gradient with the loss, so backward only scales it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _OnePass(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *tensors: Tensor) -> Tensor:
        from mllmrec_kernels.bpr import cpu

        tables = [table.detach().contiguous() for table in tensors[:2]]
        gradients = [torch.empty_like(table) for table in tables]
        arrays = [array.numpy() for array in (*tables, *tensors[2:], *gradients)]
        loss = cpu.bpr_loss(*arrays)
        ctx.save_for_backward(*gradients)
        return torch.tensor(loss, dtype=torch.float32)

    @staticmethod
    def backward(ctx: Any, *slope: Tensor) -> Any:
        by_users, by_items = ctx.saved_tensors
        return by_users * slope[0], by_items * slope[0], None, None, None


def in_one_pass(users: Tensor, items: Tensor, of_user: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
    """Return the loss of float32 tables on the CPU, by one pass of compiled code.

    Args:
        users: [U, d].
        items: [I, d].
        of_user: int64 [B], rows of `users`.
        positives: int64 [B], rows of `items`.
        negatives: int64 [B], likewise.
    """
    loss: Tensor = _OnePass.apply(users, items, of_user, positives, negatives)  # type: ignore[no-untyped-call]
    return loss


def by_operations(users: Tensor, items: Tensor, of_user: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
    """Return the loss of any tables, by torch's operations.

    Args:
        users: [U, d].
        items: [I, d].
        of_user: int64 [B], rows of `users`.
        positives: int64 [B], rows of `items`.
        negatives: int64 [B], likewise.
    """
    # embedding, not indexing: its gradient is summed row by row, on all cores.
    u, p, n = (
        torch.nn.functional.embedding(rows, table)
        for rows, table in ((of_user, users), (positives, items), (negatives, items))
    )
    return bpr_of_rows(u, p, n)


def bpr_of_rows(users: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
    """Return the loss of rows that are looked up already, a scalar, float32.

    Args:
        users: [B, d].
        positives: [B, d].
        negatives: [B, d].
    """
    difference = (users * (positives - negatives)).sum(dim=1)
    return torch.nn.functional.softplus(-difference.float()).mean()
