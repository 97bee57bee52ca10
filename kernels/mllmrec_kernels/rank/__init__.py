"""The rank of held-out items among all items, without a top-k and without a U x I array."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from mllmrec_kernels.base import arrays
from mllmrec_kernels.base import backend as backends
from mllmrec_kernels.base.csr import CSR, as_csr
from mllmrec_kernels.base.errors import KernelInputError
from mllmrec_kernels.exact import score
from mllmrec_kernels.rank import reference

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from mllmrec_kernels.base.arrays import ArrayLike
    from mllmrec_kernels.base.csr import SparseLike

__all__ = ["as_disjoint", "rank_heldout"]


@overload
def rank_heldout(
    user_vectors: NDArray[Any],
    item_vectors: ArrayLike,
    exclude: SparseLike,
    heldout: SparseLike,
    *,
    limit: int | None = None,
    backend: str = "auto",
    max_bytes: int | None = None,
) -> NDArray[np.int32]: ...


@overload
def rank_heldout(
    user_vectors: Tensor,
    item_vectors: ArrayLike,
    exclude: SparseLike,
    heldout: SparseLike,
    *,
    limit: int | None = None,
    backend: str = "auto",
    max_bytes: int | None = None,
) -> Tensor: ...


def rank_heldout(
    user_vectors: ArrayLike,
    item_vectors: ArrayLike,
    exclude: SparseLike,
    heldout: SparseLike,
    *,
    limit: int | None = None,
    backend: str = "auto",
    max_bytes: int | None = None,
) -> ArrayLike:
    """Return the 0-based rank of each held-out item among the items its user may be shown (full ranking).

    The rank is the number of non-excluded items of higher score, plus those of equal score and lower id. A
    score is the inner product in float64, rounded once to float32. Every comparison closer than the error bound of
    the fast product is decided by these scores (exact/score.py), so items with equal vectors tie on every backend.
    Other held-out items of the user count as any item does.

    Args:
        user_vectors: floating [U, d].
        item_vectors: floating [I, d].
        exclude: sparse [U, I], items that are not candidates (training items, say).
        heldout: sparse [U, I], the items to rank.
        limit: ranks of `limit` or more may come out as any number from `limit` on, for metrics that are cut off
            there. On the CPU most of the work is then left out; a GPU counts to the end.
        backend: "auto", "numba", "triton", or "reference".
        max_bytes: working memory beyond input and output. None is 64 MiB on the CPU, a quarter of the free memory
            on a GPU.

    Returns:
        int32 [entries of heldout], user by user, a user's items in rising order of their ids. A tensor on the device
        of `user_vectors` where that is one.

    Raises:
        KernelInputError: a wrong type, shape or dtype, NaN or infinite rows, products beyond float32, or an item
            that is both held out and excluded.
        BackendUnavailableError: the named backend cannot run here.
    """
    max_bytes = arrays.as_bytes(max_bytes)
    chosen = backends.choose(backend, user_vectors, cpu=("numba",), gpu=("triton",))
    if chosen == "triton":
        return _on_device(user_vectors, item_vectors, exclude, heldout, max_bytes)
    x = arrays.float32_rows("user_vectors", user_vectors)
    y = arrays.float32_rows("item_vectors", item_vectors, d=x.shape[1])
    arrays.check_products(score.norms(x), score.norms(y))
    excluded, held = as_disjoint(exclude, heldout, (len(x), len(y)))
    if chosen == "reference":
        ranks = reference.rank_heldout(x, y, excluded, held)
    else:
        from mllmrec_kernels.rank import cpu

        largest = len(y) if limit is None else limit
        ranks = cpu.rank_heldout(x, y, excluded, held, limit=largest, max_bytes=max_bytes or arrays.MAX_BYTES)
    return arrays.like(user_vectors, ranks)


def _on_device(
    user_vectors: ArrayLike, item_vectors: ArrayLike, exclude: SparseLike, heldout: SparseLike, max_bytes: int | None
) -> ArrayLike:
    from mllmrec_kernels.exact import gpu_score
    from mllmrec_kernels.rank import gpu

    device = backends.device_of(user_vectors)
    x = arrays.rows_on_device("user_vectors", user_vectors, device)
    y = arrays.rows_on_device("item_vectors", item_vectors, device, d=x.shape[1])
    with backends.on(device):
        excluded, held = as_disjoint(exclude, heldout, (len(x), len(y)), device)
        gpu_score.check_products(x, y)
        ranks = gpu.rank_heldout(x, y, excluded, held, max_bytes=max_bytes)
    return arrays.tensor_like(user_vectors, ranks)


def as_disjoint(
    exclude: SparseLike, heldout: SparseLike, shape: tuple[int, int], device: torch.device | None = None
) -> tuple[CSR, CSR]:
    """Convert both matrices, and refuse an item that is in both.

    Args:
        exclude: sparse, of the shape.
        heldout: sparse, of the shape.
        shape: (U, I).
        device: where to look for shared items first; the host takes some milliseconds for some million entries.
    """
    excluded = as_csr("exclude", exclude, shape=shape, binary=True)
    held = as_csr("heldout", heldout, shape=shape, binary=True)
    if device is not None:
        from mllmrec_kernels.rank import gpu

        if not gpu.share_entries(excluded, held, device):
            return excluded, held
    from mllmrec_kernels.rank.cpu import shared_entries

    user, item, count = shared_entries(excluded.indptr, excluded.indices, held.indptr, held.indices)
    if count:
        raise KernelInputError(f"{count} held-out items are also excluded, the first: user {user}, item {item}")
    return excluded, held
