"""Lists for one user at a time: the bits of topk_mixed."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from mllmrec_kernels import CSR, KernelInputError, MixedIndex, MixedScores, row_spread, topk_mixed

USERS, ITEMS = 9, 70


def draw(d: int, *, tied: bool, dense: bool, n_items: int = ITEMS) -> tuple[CSR, object, np.ndarray, np.ndarray]:
    """R, W, and vectors of users and items; ties where weights and vectors are whole numbers."""
    generator = np.random.default_rng(d + 10 * tied + 100 * dense)
    R = CSR.from_scipy(sp.csr_array(generator.random((USERS, n_items)) < 0.06), binary=True)
    W = generator.standard_normal((n_items, n_items)) * (generator.random((n_items, n_items)) < 0.1)
    vectors = generator.standard_normal((USERS, d)), generator.standard_normal((n_items, d))
    if tied:
        W, vectors = np.rint(2 * W), tuple(map(np.rint, vectors))
    weights = W.astype(np.float32) if dense else CSR.from_scipy(sp.csr_array(W.astype(np.float32)))
    return R, weights, *(table.astype(np.float32) for table in vectors)


@pytest.mark.parametrize("d", [0, 1, 7, 127, 130])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("standardize", [False, True])
def test_lists_have_the_bits_of_topk_mixed(d: int, tied: bool, dense: bool, standardize: bool) -> None:
    R, W, users, items = draw(d, tied=tied, dense=dense)
    scale = np.ones(USERS)
    if standardize:
        spread = row_spread(R, W)
        scale = np.divide(1, spread, out=np.zeros(USERS), where=spread > 0)
    sides = (users, items) if d else (None, None)
    scores = MixedScores(R, W, scale.astype(np.float32), *sides)
    index = MixedIndex(W, items if d else None)
    for k in (1, 5, ITEMS + 3):
        expected = topk_mixed(scores, k, exclude=R)
        for u in range(USERS):
            vector = users[u] if d else None
            found = index.topk(R.row(u), k, user_vector=vector, standardize=standardize)
            for ours, theirs in zip(found, expected, strict=True):
                np.testing.assert_array_equal(ours, theirs[u])


def test_several_spans_are_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mllmrec_kernels.mixed.index._SPAN", 16)
    R, W, users, items = draw(5, tied=True, dense=False)
    nothing = sp.csr_array((USERS, ITEMS))
    expected = topk_mixed(MixedScores(R, W, None, users, items), 8, exclude=nothing)
    index = MixedIndex(W, items)
    for u in range(USERS):
        ids, scores = index.topk(R.row(u), 8, user_vector=users[u], exclude=np.empty(0, np.int32))
        np.testing.assert_array_equal(ids, expected[0][u])
        np.testing.assert_array_equal(scores, expected[1][u])


def test_what_is_refused() -> None:
    _, W, users, items = draw(7, tied=False, dense=False)
    index = MixedIndex(W, items)
    with pytest.raises(KernelInputError, match=r"items must be ascending, unique ids in \[0, 70\)"):
        index.topk(np.array([3, 2]), 5, user_vector=users[0])
    with pytest.raises(KernelInputError, match="exclude must be ascending"):
        index.topk(np.array([3]), 5, user_vector=users[0], exclude=np.array([70]))
    with pytest.raises(KernelInputError, match="user_vector must be 7 finite numbers"):
        index.topk(np.array([3]), 5, user_vector=users[0][:3])
    with pytest.raises(KernelInputError, match="must be finite"):
        MixedIndex(W, np.where(np.eye(ITEMS, 7), np.nan, items))
