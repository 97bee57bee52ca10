"""The rank of held-out items among all items, without a top-k and without a U x I array."""

from __future__ import annotations

from typing import Any

from mllmrec_kernels.base import arrays as inputs
from mllmrec_kernels.base import backend as backends
from mllmrec_kernels.base.csr import CSR
from mllmrec_kernels.base.errors import KernelInputError
from mllmrec_kernels.exact import score
from mllmrec_kernels.rank import reference

__all__ = ["rank_heldout"]

_CPU = ("numba",)
_GPU = ("triton",)


def rank_heldout(
    user_vectors: Any,
    item_vectors: Any,
    exclude: CSR,
    heldout: CSR,
    *,
    limit: int | None = None,
    backend: str = "auto",
    max_bytes: int | None = None,
) -> Any:
    """0-based rank of each held-out item among the items its user may be shown (full ranking; issue 3).

    The rank is the number of non-excluded items of higher score, plus those of equal score and lower id. A
    score is the inner product in float64, rounded once to float32, and a held-out item is scored by the very
    routine that decides every comparison closer than the error bound of the fast product (topk/score.py):
    items with equal vectors tie on every backend, in any block. Other held-out items of the user count as
    any item does.

    Args:
        user_vectors: floating, shape (U, d).
        item_vectors: floating, shape (I, d).
        exclude: CSR of shape (U, I), items that are not candidates (training items, say).
        heldout: CSR of shape (U, I), the items to rank.
        limit: a rank of `limit` or more may come out as any number from `limit` on, for metrics that are cut off
            there. On the CPU most of the work is then left out; a GPU counts to the end.
        backend: "auto", "numba", "triton", or "reference".
        max_bytes: working memory beyond input and output; None is 64 MiB on the CPU, a quarter of what is free on
            a GPU.

    Returns:
        int32, shape (heldout.nnz,), in the order of heldout.indices; a tensor on the device of
        `user_vectors` where that is one.

    Raises:
        KernelInputError: a wrong shape or dtype, NaN or infinite rows, products beyond float32, or an item
            that is both held out and excluded.
        BackendUnavailableError: the backend asked for cannot run here.
    """
    max_bytes = inputs.memory(max_bytes)
    chosen = backends.choose(backend, user_vectors, cpu=_CPU, gpu=_GPU)
    if chosen == "triton":
        return _on_device(user_vectors, item_vectors, exclude, heldout, max_bytes)
    x = inputs.vectors("user_vectors", user_vectors)
    y = inputs.vectors("item_vectors", item_vectors, d=x.shape[1])
    inputs.check_products(score.norms(x), score.norms(y))
    inputs.csr("exclude", exclude, (len(x), len(y)))
    inputs.csr("heldout", heldout, (len(x), len(y)))
    _check_disjoint(exclude, heldout)
    if chosen == "reference":
        ranks = reference.rank_heldout(x, y, exclude, heldout)
    else:
        from mllmrec_kernels.rank import cpu

        most = len(y) if limit is None else limit
        ranks = cpu.rank_heldout(x, y, exclude, heldout, limit=most, max_bytes=max_bytes or inputs.MAX_BYTES)
    return inputs.like(user_vectors, (ranks,))[0]


def _on_device(user_vectors: Any, item_vectors: Any, exclude: CSR, heldout: CSR, max_bytes: int | None) -> Any:
    from mllmrec_kernels.exact import gpu_score
    from mllmrec_kernels.rank import gpu

    device = backends.device_of(user_vectors)
    x = inputs.on_device("user_vectors", user_vectors, device)
    y = inputs.on_device("item_vectors", item_vectors, device, d=x.shape[1])
    inputs.csr("exclude", exclude, (len(x), len(y)))
    inputs.csr("heldout", heldout, (len(x), len(y)))
    _check_disjoint(exclude, heldout)
    with backends.on(device):
        gpu_score.check_products(x, y)
        ranks = gpu.rank_heldout(x, y, exclude, heldout, max_bytes=max_bytes)
    return inputs.back(user_vectors, (ranks,))[0]


def _check_disjoint(exclude: CSR, heldout: CSR) -> None:
    from mllmrec_kernels.rank.cpu import shared

    user, item, count = shared(exclude.indptr, exclude.indices, heldout.indptr, heldout.indices)
    if count:
        raise KernelInputError(f"{count} held-out items are also excluded, the first: user {user}, item {item}")
