"""BPR loss of looked-up rows, as one node to autograd."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mllmrec_kernels.base.errors import KernelInputError

if TYPE_CHECKING:
    from torch import Tensor


def bpr_loss(users: Tensor, items: Tensor, of_user: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
    """Return the mean over b of -log sigma(x_b), x_b = u . (p - n) (Rendle et al., BPR, UAI 2009).

    u, p and n are the rows users[of_user[b]], items[positives[b]], items[negatives[b]]. For float32
    on the CPU, one pass over the triples makes the loss and its gradient (cpu.py). Otherwise torch's own operations do.

    Args:
        users: [U, d], torch, differentiable.
        items: [I, d], likewise.
        of_user: int64 [B], B > 0, rows of `users`; trusted to lie within the table.
        positives: int64 [B], rows of `items`, likewise.
        negatives: int64 [B], rows of `items`, likewise.

    Returns:
        A scalar, float32.

    Raises:
        KernelInputError: the tables differ in width or dtype, or the triples in length.
    """
    import torch

    from mllmrec_kernels.bpr import torch_op

    if users.ndim != 2 or items.ndim != 2 or users.shape[1] != items.shape[1] or users.dtype != items.dtype:
        raise KernelInputError(
            f"users and items must be [U, d] and [I, d] of one dtype; got {users.dtype} {tuple(users.shape)} "
            f"and {items.dtype} {tuple(items.shape)}"
        )
    if not len(of_user) == len(positives) == len(negatives) > 0:
        raise KernelInputError(
            f"there must be as many users as items in the triples, and one at least; got {len(of_user)}, "
            f"{len(positives)} and {len(negatives)}"
        )
    fused = users.device.type == "cpu" and users.dtype == torch.float32
    if fused and not torch.compiler.is_compiling():  # torch.compile traces only torch's operations
        return torch_op.in_one_pass(users, items, of_user, positives, negatives)
    return torch_op.by_operations(users, items, of_user, positives, negatives)
