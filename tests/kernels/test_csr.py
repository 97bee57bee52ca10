from __future__ import annotations

import re

import numpy as np
import pytest
import scipy.sparse as sp
from mllmrec_kernels.base.csr import CSR
from mllmrec_kernels.base.errors import KernelInputError

from tests.kernels.sparse_cases import INTERACTIONS, Interactions, ids


def csr(indptr, indices, data=None, n_columns=3) -> CSR:
    values = None if data is None else np.array(data, np.float32)
    return CSR(np.array(indptr, np.int64), np.array(indices, np.int32), values, n_columns)


@pytest.mark.parametrize(
    ("indptr", "indices", "data", "message"),
    [
        ([0, 1], [0, 1], None, "indptr must run from 0 to nnz=2"),
        ([1, 2], [0, 1], None, "indptr must run from 0 to nnz=2"),
        ([0, 2, 1, 3], [0, 1, 2], None, "indptr must not fall"),
        ([0, 1], [3], None, r"must lie in \[0, 3\); got \[3, 3\]"),
        ([0, 1], [-1], None, r"must lie in \[0, 3\); got \[-1, -1\]"),
        ([0, 2], [0, 1], [1.0], r"data has shape \(1,\)"),
        ([0, 1, 3], [0, 2, 1], None, "row 1 must hold ascending, unique ids; got 2 before 1"),
        ([0, 0, 2], [1, 1], None, "row 1 must hold ascending, unique ids; got 1 before 1"),
    ],
)
def test_refuses_what_is_no_csr(indptr, indices, data, message):
    with pytest.raises(KernelInputError, match=message):
        csr(indptr, indices, data)


@pytest.mark.parametrize("field", ["indptr", "indices", "data"])
def test_refuses_other_dtypes(field):
    arrays = {"indptr": np.array([0, 1]), "indices": np.zeros(1, np.int32), "data": np.ones(1, np.float32)}
    arrays[field] = arrays[field].astype(np.int16)
    with pytest.raises(KernelInputError, match=f"CSR {field} must be .*; got int16"):
        CSR(**arrays, n_columns=1)


def test_a_row_may_begin_below_the_end_of_the_last_one():
    assert csr([0, 2, 2, 4], [1, 2, 0, 1]).row(2).tolist() == [0, 1]


def test_from_scipy_merges_and_leaves_the_callers_matrix_alone():
    matrix = sp.csr_matrix((np.array([1.0, 2.0, 4.0]), np.array([2, 0, 2]), np.array([0, 3])), shape=(1, 3))
    merged = CSR.from_scipy(matrix)
    assert merged.indices.tolist() == [0, 2]
    assert merged.values().tolist() == [2.0, 5.0]
    assert matrix.indices.tolist() == [2, 0, 2]


@pytest.mark.parametrize("case", INTERACTIONS, ids=ids(INTERACTIONS))
def test_transpose_is_the_transpose(case: Interactions):
    matrix = case.make()
    turned = matrix.transpose()
    assert turned.shape == matrix.shape[::-1]
    np.testing.assert_array_equal(turned.to_scipy().toarray(), matrix.to_scipy().toarray().T)


def test_from_pairs_names_the_range():
    with pytest.raises(KernelInputError, match=re.escape("columns must lie in [0, 2); got [0, 2]")):
        CSR.from_pairs(np.array([0, 1]), np.array([0, 2]), (2, 2))


def test_matrices_are_told_apart_by_identity():
    one, other = csr([0, 1], [0]), csr([0, 1], [0])
    assert one != other
    assert len({one, other}) == 2
