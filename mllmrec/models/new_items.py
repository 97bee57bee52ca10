"""Place items that a fit did not know among those that it did, by their vectors; nothing is trained.

A new item stands where its nearest items of the fit stand: with P [N, I], each row's shares of the `NEAREST` items of
highest cosine that have interactions, proportional to the cosine and 1 in sum,

    a table of item vectors Q       P Q
    item-item weights W             columns W P^T, rows P W

`place` is the one function behind all of them: another prediction of these rows would stand in its place.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from mllmrec_kernels import CSR, topk_cosine
from numpy.typing import NDArray

from mllmrec.errors import InputError
from mllmrec.features.encode import Vectors

NEAREST = 20


def place(known: Vectors, new: Vectors, user_items: CSR | None) -> sp.csr_array:
    """Return P, float32 [N, I]: what each new item takes of each known one; see the module.

    Args:
        known: float32 [I, d], vectors of the items of the fit.
        new: float32 [N, d].
        user_items: [U, I], training interactions; None: every item counts as one with interactions.

    Returns:
        A row of zeros for an item whose vector is zero, or like no other.
    """
    n_items = len(known)
    counts = np.ones(n_items) if user_items is None else np.bincount(user_items.indices, minlength=n_items)
    warm = np.flatnonzero(counts)
    if not len(new) or not len(warm):
        return sp.csr_array((len(new), n_items), dtype=np.float32)
    ids, cosines = topk_cosine(np.ascontiguousarray(known[warm]), NEAREST, queries=np.ascontiguousarray(new))
    shares = np.where((ids >= 0) & (cosines > 0), cosines, 0).astype(np.float64)
    total = shares.sum(axis=1, keepdims=True)
    shares = np.divide(shares, total, out=np.zeros_like(shares), where=total > 0)
    rows, places = np.nonzero(shares)
    entries = shares[rows, places].astype(np.float32), (rows, warm[ids[rows, places]])
    return sp.csr_array(entries, shape=(len(new), n_items))


def check_new_vectors(known: Vectors | None, new: Vectors) -> tuple[Vectors, Vectors]:
    """Return the vectors of known and new items as float32, or refuse them.

    Args:
        known: of the model's items; None if the model has none.
        new: anything like an array.

    Raises:
        InputError: the model has no item vectors, or the new ones have another width or hold NaN.
    """
    if known is None:
        raise InputError(
            "this model has no item vectors to place new items by; fit it with item_features=, or set item_features "
            "to those of its items"
        )
    vectors = np.ascontiguousarray(new, np.float32)
    if vectors.ndim != 2 or vectors.shape[1] != known.shape[1]:
        raise InputError(
            f"features must have shape (N, {known.shape[1]}), as the items of the fit; got {vectors.shape}"
        )
    if not np.isfinite(vectors).all():
        raise InputError("features hold NaN or infinity; mend or drop these items")
    return np.ascontiguousarray(known, np.float32), vectors


def extend_weights(weights: sp.csr_array | NDArray[np.float32], shares: sp.csr_array) -> CSR | NDArray[np.float32]:
    """Return item-item weights [I + N, I + N].

    Args:
        weights: W, [I, I], sparse or dense.
        shares: P, [N, I].
    """
    columns = weights @ shares.T  # [I, N]
    rows = shares @ weights  # [N, I]
    corner = shares @ columns
    if sp.issparse(weights):
        whole = sp.block_array([[weights, columns], [rows, corner]], format="csr")
        return CSR.from_scipy(whole.astype(np.float32))
    return np.asarray(np.block([[weights, columns], [rows, corner]]), np.float32)


def extend_columns(user_items: CSR, n_new: int) -> CSR:
    """Return interactions [U, I + n_new]; nobody has the new items."""
    return CSR(user_items.indptr, user_items.indices, user_items.data, user_items.n_columns + n_new)


def extend_rows(table: Vectors, shares: sp.csr_array) -> Vectors:
    """Return a table of item vectors [I + N, r]: Q, and P Q below."""
    return np.concatenate([table, np.asarray(shares @ table, np.float32)])
