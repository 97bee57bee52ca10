"""The BPR loss of rows that are looked up, as one node to autograd."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mllmrec_kernels.base.errors import KernelInputError

if TYPE_CHECKING:
    from torch import Tensor


def bpr_loss(users: Tensor, items: Tensor, of_user: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
    """The mean over b of -log sigma(x_b), x_b = u . (p - n) (method 2.8; Rendle et al., BPR, UAI 2009).

    u, p and n are the rows users[of_user[b]], items[positives[b]], items[negatives[b]]. Of float32 on the CPU
    the loss and its gradient come of one pass over the triples (cpu.py), otherwise of torch's own operations.

    Args:
        users: [U, d], torch, differentiable.
        items: [I, d], likewise.
        of_user, positives, negatives: int64 [B] row numbers, B > 0; they are trusted to lie within the tables.

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
    plain = users.device.type == "cpu" and users.dtype == torch.float32
    if plain and not torch.compiler.is_compiling():  # which sees through torch's operations alone
        return torch_op.in_one_pass(users, items, of_user, positives, negatives)
    return torch_op.by_operations(users, items, of_user, positives, negatives)
