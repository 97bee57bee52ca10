"""Every verb on what callers pass as a sparse matrix: scipy, torch and cupyx forms, without a copy where they fit."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from mllmrec_kernels import (
    CSR,
    KernelInputError,
    als_factors,
    cooccurrence_topk,
    normalize,
    propagate,
    rank_heldout,
    ridge_weights,
    sample_negatives,
    topk_dot,
)
from mllmrec_kernels.base.csr import as_csr, is_canonical_csr

from tests.kernels.sparse_cases import random_graph, random_interactions


class CupyxCSR:
    """A stand-in for cupyx's matrix: the module's name and `get` are all that the conversion looks at."""

    __module__ = "cupyx.scipy.sparse._csr"

    def __init__(self, matrix: sp.csr_matrix) -> None:
        self._matrix = matrix

    def get(self) -> sp.csr_matrix:
        return self._matrix


def torch_csr(matrix: CSR, index: torch.dtype = torch.int64) -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        parts = torch.from_numpy(matrix.indptr), torch.from_numpy(matrix.indices)
        return torch.sparse_csr_tensor(
            *(part.to(index) for part in parts), torch.from_numpy(matrix.values()), size=matrix.shape,
            check_invariants=False,
        )  # fmt: skip


def shuffled(matrix: CSR) -> sp.csr_matrix:
    """The entries of each row in falling order, and each entry twice, half its value."""
    coo = matrix.to_scipy().tocoo()
    rows, columns, values = (np.concatenate([part, part])[::-1] for part in (coo.row, coo.col, coo.data / 2))
    order = np.argsort(rows, kind="stable")
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=matrix.n_rows))])
    return sp.csr_matrix((values[order], columns[order], indptr), shape=matrix.shape)


FORMS: dict[str, Callable[[CSR], Any]] = {
    "csr_matrix": lambda matrix: sp.csr_matrix(matrix.to_scipy()),
    "csr_array": lambda matrix: matrix.to_scipy(),
    "csc_matrix": lambda matrix: sp.csc_matrix(matrix.to_scipy()),
    "csc_array": lambda matrix: sp.csc_array(matrix.to_scipy()),
    "coo_matrix": lambda matrix: sp.coo_matrix(matrix.to_scipy()),
    "coo_array": lambda matrix: sp.coo_array(matrix.to_scipy()),
    "float64": lambda matrix: matrix.to_scipy().astype(np.float64),
    "unsorted, repeated": shuffled,
    "torch CSR": torch_csr,
    "torch CSR, int32": lambda matrix: torch_csr(matrix, torch.int32),
    "torch COO": lambda matrix: torch_csr(matrix).to_sparse_coo(),
    "torch CSC": lambda matrix: torch_csr(matrix).to_sparse_csc(),
    "cupyx CSR": lambda matrix: CupyxCSR(sp.csr_matrix(matrix.to_scipy())),
}
each_form = pytest.mark.parametrize("form", FORMS)

USER_ITEMS = random_interactions(60, 40, 5, seed=3)
GRAPH = random_graph(40, 4)
VECTORS = np.random.default_rng(0).standard_normal((60, 8)).astype(np.float32)
UNSEEN = np.array([np.setdiff1d(np.arange(40), USER_ITEMS.row(u))[0] for u in range(60)])
HELDOUT = CSR.from_pairs(np.arange(60), UNSEEN, (60, 40))
SUPPORT = CSR.from_pairs(np.repeat(np.arange(40), 2), (np.arange(80) // 2 + 1 + np.arange(80) % 2) % 40, (40, 40))


def calls(form: Callable[[CSR], Any]) -> dict[str, Any]:
    """Each verb's result where every sparse argument has this form."""
    user_items, graph, items = form(USER_ITEMS), form(GRAPH), VECTORS[:40]
    return {
        "cooccurrence_topk": cooccurrence_topk(user_items, 5),
        "topk_dot": topk_dot(VECTORS, items, 5, exclude=user_items),
        "rank_heldout": (rank_heldout(VECTORS, items, user_items, form(HELDOUT)),),
        "sample_negatives": (sample_negatives(user_items, np.arange(60), generator=np.random.default_rng(1)),),
        "normalize": (normalize(graph).values(),),
        "propagate": (propagate(graph, items, layers=2), propagate(graph, torch.from_numpy(items), layers=2).numpy()),
        "ridge_weights": (
            ridge_weights(user_items, items, form(SUPPORT), content_weight=1.0, regularization=2.0).values(),
        ),
        "als_factors": (als_factors(user_items, items, unobserved_weight=0.1, regularization=np.ones(60)),),
    }


@each_form
def test_every_verb_gives_what_it_gives_for_a_csr(form: str) -> None:
    expected, got = calls(lambda matrix: matrix), calls(FORMS[form])
    for verb, arrays in expected.items():
        for one, other in zip(arrays, got[verb], strict=True):
            np.testing.assert_array_equal(other, one, err_msg=verb)


@each_form
def test_values_survive_and_the_callers_matrix_is_left_alone(form: str) -> None:
    passed = FORMS[form](GRAPH)
    before = passed.to_dense().numpy() if isinstance(passed, torch.Tensor) else None
    converted = as_csr("graph", passed)
    np.testing.assert_array_equal(converted.indices, GRAPH.indices)
    np.testing.assert_array_equal(converted.values(), GRAPH.values())
    if before is not None:
        np.testing.assert_array_equal(passed.to_dense().numpy(), before)
    if form == "unsorted, repeated":
        assert passed.nnz == 2 * GRAPH.nnz and not passed.has_sorted_indices


@pytest.mark.parametrize("form", ["csr_matrix", "csr_array", "torch CSR, int32", "cupyx CSR"])
def test_arrays_that_fit_are_shared(form: str) -> None:
    passed = FORMS[form](GRAPH)
    converted = as_csr("graph", passed)
    if isinstance(passed, torch.Tensor):
        indices, values = passed.col_indices().numpy(), passed.values().numpy()
    else:
        held = passed.get() if isinstance(passed, CupyxCSR) else passed
        indices, values = held.indices, held.data
    assert np.shares_memory(converted.indices, indices)
    assert converted.data is not None and np.shares_memory(converted.data, values)
    assert as_csr("graph", converted) is converted


def test_an_indptr_of_int64_is_shared_too() -> None:
    matrix = GRAPH.to_scipy()
    matrix.indptr = matrix.indptr.astype(np.int64)
    assert np.shares_memory(as_csr("graph", matrix).indptr, matrix.indptr)


def test_a_pattern_keeps_no_values_and_a_stored_zero_counts() -> None:
    matrix = sp.csr_array((np.array([0.0, 2.0]), np.array([1, 0]), np.array([0, 1, 2])), shape=(2, 2))
    pattern = as_csr("user_items", matrix, binary=True)
    assert pattern.data is None and pattern.nnz == 2
    assert as_csr("user_items", sp.csr_array(matrix.astype(complex)), binary=True).nnz == 2
    assert as_csr("graph", matrix).values().tolist() == [0.0, 2.0]
    assert as_csr("graph", matrix.astype(bool)).values().tolist() == [0.0, 1.0]


def test_features_are_not_copied_where_they_fit() -> None:
    from mllmrec_kernels.base.arrays import float32_rows

    assert np.shares_memory(float32_rows("features", VECTORS), VECTORS)
    tensor = torch.from_numpy(VECTORS)
    assert np.shares_memory(float32_rows("features", tensor), VECTORS)
    assert float32_rows("features", VECTORS.astype(np.float16)).dtype == np.float32


def test_times_need_entries_in_order() -> None:
    sorted_matrix, times = USER_ITEMS.to_scipy(), np.arange(USER_ITEMS.nnz)
    expected = cooccurrence_topk(USER_ITEMS, 3, window=5, times=times)
    for one, other in zip(cooccurrence_topk(sorted_matrix, 3, window=5, times=times), expected, strict=True):
        np.testing.assert_array_equal(one, other)
    for passed in (sorted_matrix.tocsc(), sorted_matrix.tocoo()):
        assert not is_canonical_csr(passed)
        with pytest.raises(KernelInputError, match="times are in the order of the entries"):
            cooccurrence_topk(passed, 3, window=5, times=times)


KINDS = "a scipy sparse matrix, a sparse torch tensor, a cupyx CSR matrix or a mllmrec_kernels CSR"
DENSE = "{} of shape (2, 3): pass scipy.sparse.csr_array(user_items)"


@pytest.mark.parametrize(
    ("passed", "message"),
    [
        (np.ones((2, 3)), f"user_items must be {KINDS}; got a dense {DENSE.format('ndarray')}"),
        (torch.ones(2, 3), f"user_items must be {KINDS}; got a dense {DENSE.format('Tensor')}"),
        ([[0, 1]], f"user_items must be {KINDS}; got list"),
        ("matrix", f"user_items must be {KINDS}; got str"),
        (None, f"user_items must be {KINDS}; got NoneType"),
        (sp.coo_array(np.ones(3)), "user_items must have two dimensions; got shape (3,)"),
        (sp.coo_array((1, 2**31)), "user_items has 2147483648 columns; ids are int32, so at most 2147483647"),
    ],
    ids=["ndarray", "tensor", "list", "str", "None", "one dimension", "columns"],
)
def test_anything_else_is_refused_in_one_line(passed: Any, message: str) -> None:
    with pytest.raises(KernelInputError) as caught:
        cooccurrence_topk(passed, 2)
    assert str(caught.value) == message


def test_values_must_be_real_and_shapes_must_match() -> None:
    with pytest.raises(KernelInputError, match="graph must hold real numbers; got complex128"):
        normalize(sp.csr_array(np.eye(2, dtype=complex)))
    with pytest.raises(KernelInputError, match=r"exclude must have shape \(60, 40\); got \(40, 40\)"):
        topk_dot(VECTORS, VECTORS[:40], 2, exclude=GRAPH.to_scipy())


@pytest.mark.parametrize("dense", [[[1.0]], "features", None, sp.csr_array(np.ones((2, 3)))])
def test_dense_arguments_are_numpy_or_torch(dense: Any) -> None:
    for call in (
        lambda: topk_dot(dense, VECTORS, 1),
        lambda: propagate(GRAPH, dense, layers=1),
        lambda: als_factors(USER_ITEMS, dense, unobserved_weight=0.0, regularization=np.ones(60)),
        lambda: ridge_weights(USER_ITEMS, dense, SUPPORT, content_weight=0.0, regularization=1.0),
    ):
        with pytest.raises(
            KernelInputError, match=f"must be a NumPy array or a dense torch tensor; got {type(dense).__name__}"
        ):
            call()


def test_als_takes_tensors_and_gives_tensors() -> None:
    options: dict[str, Any] = {"unobserved_weight": 0.1}
    expected = als_factors(USER_ITEMS, VECTORS[:40], regularization=np.ones(60), prior=VECTORS, **options)
    got = als_factors(USER_ITEMS, torch.from_numpy(VECTORS[:40]), regularization=torch.ones(60),
                      prior=torch.from_numpy(VECTORS), **options)  # fmt: skip
    assert isinstance(got, torch.Tensor)
    np.testing.assert_array_equal(got.numpy(), expected)
