"""Sums of item weights for chosen pairs of users and items, without the rest of the users' rows.

    x(u, i) = (R_u W)_i = sum over the user's items j of R_uj W_ji

Each W_ji is found in row j by binary search. So few pairs cost the entries of R times the logarithm of a row of W, and
the bits are those of the sums that the kernels of mixed scores make: float32, in rising order of j.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from mllmrec_kernels.base.csr import CSR
from mllmrec_kernels.base.errors import KernelInputError
from mllmrec_kernels.base.parallel import chunks, parallel_for
from mllmrec_kernels.mixed.few import find

_USERS = 1 << 12  # of one piece of work


def sum_pairs(user_items: CSR, item_weights: CSR, pairs: CSR) -> NDArray[np.float32]:
    """Return x of the module for chosen pairs.

    Args:
        user_items: R, [U, J]; a binary one says which items each user has.
        item_weights: W, [J, I].
        pairs: [U, I]; its values are not read.

    Returns:
        float32 [pairs.nnz], user by user, a user's items in rising order of their ids.

    Raises:
        KernelInputError: the shapes do not fit.
    """
    if (user_items.n_columns, *pairs.shape) != (item_weights.n_rows, user_items.n_rows, item_weights.n_columns):
        shapes = user_items.shape, item_weights.shape, pairs.shape
        raise KernelInputError(f"user_items, item_weights and pairs do not fit: {shapes}")
    sums, R, W = np.zeros(pairs.nnz, np.float32), user_items, item_weights
    values = R.values()

    def _work(start: int, stop: int) -> None:
        _sum_users(
            R.indptr, R.indices, values, W.indptr, W.indices, W.values(), pairs.indptr, pairs.indices, start, stop, sums
        )

    parallel_for(_work, chunks(pairs.n_rows, _USERS))
    return sums


@njit(cache=True, nogil=True)
def _sum_users(
    indptr: Any, owned: Any, values: Any, weight_indptr: Any, weight_ids: Any, weight_values: Any, pair_indptr: Any,
    items: Any, start: Any, stop: Any, sums: Any,
) -> None:  # fmt: skip
    for u in range(start, stop):
        for n in range(pair_indptr[u], pair_indptr[u + 1]):
            for m in range(indptr[u], indptr[u + 1]):
                j = owned[m]
                at = find(weight_ids, weight_indptr[j], weight_indptr[j + 1], items[n])
                if at >= 0:
                    sums[n] += values[m] * weight_values[at]
