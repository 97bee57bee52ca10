"""Scores R X^T X and ranks by them, against scipy's products and against counting."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from mllmrec_kernels import CSR, KernelInputError
from mllmrec_kernels.mixed import gram, gram_ranks, largest
from mllmrec_kernels.mixed.gram import gram_factor, score_by_gram, scoring_factor
from mllmrec_kernels.mixed.gram_ranks import rank_by_gram
from mllmrec_kernels.mixed.largest import largest_of_columns, largest_of_product, nearest_by_gram
from mllmrec_kernels.mixed.trial_ranks import trial_ranks
from mllmrec_kernels.mixed.weighted_sum import weighted_sum


def case(users: int, items: int, density: float, seed: int = 0) -> tuple[CSR, sp.csr_array, CSR]:
    """Random R and X on one pattern, a tenth of X zero, and held-out items beside it; some users have nothing."""
    rng = np.random.default_rng(seed)
    drawn = rng.random((users, items))
    owned, held = drawn < density, (drawn > 1 - density / 2)
    owned[: users // 10] = False
    X = np.where(owned, rng.uniform(-0.5, 1, owned.shape) * (rng.random(owned.shape) > 0.1), 0)
    R, H = (CSR.from_scipy(sp.csr_array(matrix.astype(np.float32)), binary=True) for matrix in (owned, held))
    return R, sp.csr_array(X), H


@pytest.mark.parametrize("sizes", [(1, 1, 0.9), (40, 30, 0.2), (700, 90, 0.05), (30, 400, 0.1)])
def test_scores_have_the_bits_of_scipy(sizes: tuple[int, int, float]) -> None:
    R, X, _ = case(*sizes)
    expected = (R.to_scipy().astype(np.float64) @ X.T @ X).toarray().astype(np.float32)
    assert score_by_gram(gram_factor(X), R).to_scipy().toarray().tobytes() == expected.tobytes()


def tied_case(users: int = 60, items: int = 35, density: float = 0.15) -> tuple[CSR, sp.csr_array, CSR, list[int]]:
    """A case with many equal scores, and zeros; and the rank of each held-out item by sorting."""
    R, X, H = case(users, items, density)
    X.data = np.rint(3 * X.data)
    scores, expected = (R.to_scipy() @ X.T @ X).toarray(), []
    assert len(np.unique(scores)) < scores.size / 20
    for user, item in zip(H.rows(), H.indices, strict=True):
        allowed = [i for i in range(items) if i not in R.row(user)]
        expected.append(sorted(allowed, key=lambda i: (-scores[user, i], i)).index(item))
    assert max(expected) > 20
    return R, X, H, expected


@pytest.mark.parametrize(("width", "entries"), [(1, 1 << 20), (9, 1 << 20), (35, 1), (35, 200), (1 << 14, 1 << 23)])
@pytest.mark.parametrize("piece", [1, 256])
def test_ranks_are_counted_and_ties_go_to_the_lower_id(
    piece: int, width: int, entries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Users of a piece, and items of a tile by either limit, change nothing."""
    for name, value in {"USERS": piece, "_ITEMS": piece, "_WIDTH": width, "_ENTRIES": entries}.items():
        monkeypatch.setattr(gram_ranks, name, value)
    R, X, H, expected = tied_case()
    assert rank_by_gram(gram_factor(X), R, R, H).tolist() == expected


@pytest.mark.parametrize("width", [100, 1 << 14])
def test_ranks_of_users_who_share_little_are_counted(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some additions are listed, not counted over a whole tile; sums are above, below and at 0, excluded ones too."""
    monkeypatch.setattr(gram_ranks, "_WIDTH", width)
    R, X, H, expected = tied_case(150, 500, 0.008)
    sums = (R.to_scipy() @ X.T @ X).toarray()
    held, excluded = sums[H.rows(), H.indices], sums[R.rows(), R.indices]
    assert all((values < 0).any() and (values == 0).any() and (values > 0).any() for values in (held, excluded))
    assert rank_by_gram(gram_factor(X), R, R, H).tolist() == expected


@pytest.mark.parametrize("limit", [0, 1, 5, 12])
def test_users_whose_ranks_reach_the_limit_are_left_out_of_later_tiles(
    limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gram_ranks, "_WIDTH", 4)
    monkeypatch.setattr(gram_ranks, "_REPORTED", 7)
    R, X, H, expected = tied_case()
    done: list[int] = []
    ranks = rank_by_gram(gram_factor(X), R, R, H, limit=limit, report=done.append)
    assert np.minimum(ranks, limit).tolist() == np.minimum(expected, limit).tolist()
    assert limit == 12 or ranks.tolist() != expected  # less was counted
    assert done == sorted(done) and done[-1] == (np.diff(H.indptr) > 0).sum()


def test_tiles_are_multiplied_out_only_while_a_rank_is_below_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gram_ranks, "_WIDTH", 4)
    multiplied, tiles_of = list[int](), gram_ranks._tiles

    def counted(*arguments: Any) -> Any:
        for tile in tiles_of(*arguments):
            multiplied.append(tile.start)
            yield tile

    monkeypatch.setattr(gram_ranks, "_tiles", counted)
    R, X, H, expected = tied_case()
    rank_by_gram(gram_factor(X), R, R, H, limit=0)
    assert multiplied == [0]
    beyond_int32 = 1 << 40
    assert rank_by_gram(gram_factor(X), R, R, H, limit=beyond_int32).tolist() == expected
    assert multiplied == [0, *range(0, 35, 4)]


def test_nobody_has_no_scores_and_what_is_not_finite_is_refused() -> None:
    R, X, H = case(20, 9, 0.3)
    nobody, none = R.take_rows(np.zeros(0, int)), H.take_rows(np.zeros(0, int))
    assert score_by_gram(gram_factor(X), nobody).shape == (0, 9)
    assert rank_by_gram(gram_factor(X), nobody, nobody, none).shape == (0,)
    X.data[0] = np.nan
    with pytest.raises(KernelInputError, match="X must be finite"):
        gram_factor(X)


@pytest.mark.parametrize("k", [1, 3, 90])
def test_the_nearest_are_the_largest_entries_of_the_gram_matrix(k: int) -> None:
    _, X, _ = case(50, 40, 0.2)
    X.data = np.rint(2 * np.abs(X.data))  # many equal sums, and zeros
    nearest, gram_matrix = nearest_by_gram(gram_factor(X), k), (X.T @ X).toarray()
    np.fill_diagonal(gram_matrix, 0)
    for i, row in enumerate(gram_matrix):
        best = [j for j in sorted(range(40), key=lambda j: (-row[j], j)) if row[j] > 0][:k]
        assert nearest.row(i).tolist() == sorted(best)
        assert nearest.values()[nearest.indptr[i] : nearest.indptr[i + 1]].tolist() == row[sorted(best)].tolist()


@pytest.mark.parametrize("k", [1, 5, 40])
def test_the_largest_of_a_product_are_those_of_scipys_and_of_equal_ones_the_first(k: int) -> None:
    """Whole numbers, so that many sizes are equal, and some sums 0; some rows have nothing."""
    rng = np.random.default_rng(5)
    A, B = (sp.random_array((n, 60), density=0.1, rng=rng, dtype=np.float32) for n in (150, 60))
    A.data, B.data = (np.rint(4 * matrix.data - 2).astype(np.float32) for matrix in (A, B))
    left, right = CSR.from_scipy(A), CSR.from_scipy(B)
    for o, got in zip((0.0, 1.0, -0.5), largest_of_product(left, right, [0.0, 1.0, -0.5], k), strict=True):
        whole = (A @ B + np.float32(o) * A).toarray()
        assert got.shape == (150, 60)
        for row, values in enumerate(whole):
            best = [j for j in sorted(range(60), key=lambda j: (-abs(values[j]), j)) if values[j] != 0][:k]
            assert got.row(row).tolist() == sorted(best)
            assert got.values()[got.indptr[row] : got.indptr[row + 1]].tolist() == values[sorted(best)].tolist()


@pytest.mark.parametrize("k", [1, 4, 200])
def test_the_largest_of_each_column_are_positive_and_of_equal_ones_the_first(
    k: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(largest, "_COLUMNS", 16)  # several pieces of work
    A = sp.random_array((150, 60), density=0.1, rng=np.random.default_rng(6), dtype=np.float32)
    A.data = np.rint(6 * A.data - 2).astype(np.float32)  # many equal entries, and zeros
    rows, entries = largest_of_columns(CSR.from_scipy(A), k)
    assert rows.shape == entries.shape == (60, k)
    for i, column in enumerate(A.toarray().T):
        best = [j for j in sorted(range(150), key=lambda j: (-column[j], j)) if column[j] > 0][:k]
        assert rows[i].tolist() == best + [-1] * (k - len(best))
        assert entries[i].tolist() == column[best].tolist() + [-np.inf] * (k - len(best))


@pytest.mark.parametrize("sizes", [(1, 1, 0.9), (40, 30, 0.2), (700, 90, 0.05)])
def test_a_gram_matrix_multiplied_out_gives_the_same_scores_and_ranks(sizes: tuple[int, int, float]) -> None:
    R, X, H = case(*sizes)
    X.data = np.rint(3 * X.data)  # exact in any order, with many equal scores
    plain, product = gram_factor(X), scoring_factor(X)
    assert len(product.indptr) == X.shape[1] + 1
    one, other = (score_by_gram(factor, R).to_scipy().toarray() for factor in (plain, product))
    assert one.tobytes() == other.tobytes()
    assert np.array_equal(rank_by_gram(plain, R, R, H), rank_by_gram(product, R, R, H))


def test_a_large_gram_matrix_is_not_multiplied_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gram, "_MOST_STEPS", 100)
    _, X, _ = case(40, 30, 0.2)
    assert len(scoring_factor(X).indptr) == 41


def test_a_weighted_sum_has_the_bits_of_scipys_in_float64() -> None:
    rng = np.random.default_rng(6)
    matrices = [sp.random_array((3000, 70), density=d, rng=rng, dtype=np.float32, format="csr") for d in (0.2, 0.05, 0)]
    matrices.append(-matrices[0] * np.float32(1.5))
    shares = [1.5, 0.3, 2.0, 1.0]  # the first and the last cancel
    total = sp.csr_array((3000, 70))
    for share, matrix in zip(shares, matrices, strict=True):
        total = total + matrix * share
    got = weighted_sum([(share, CSR.from_scipy(matrix)) for share, matrix in zip(shares, matrices, strict=True)])
    wanted = CSR.from_scipy(total)
    assert got.indptr.tolist() == wanted.indptr.tolist() and got.indices.tobytes() == wanted.indices.tobytes()
    assert got.values().tobytes() == wanted.values().tobytes() and 0 < got.nnz < matrices[0].nnz
    none = CSR(np.zeros(4, np.int64), np.zeros(0, np.int32), None, 5)
    assert weighted_sum([(2.0, none)]).nnz == 0
    with pytest.raises(KernelInputError, match="one shape"):
        weighted_sum([(1.0, none), (1.0, got)])


def test_a_weighted_sum_takes_arrays_that_are_read_only() -> None:
    indptr, ids, values = np.array([0, 2]), np.array([0, 2], np.int32), np.array([1, 2], np.float32)
    ids.flags.writeable = False
    both = weighted_sum([(1.0, CSR(indptr, ids, values, 3)), (2.0, CSR(indptr, ids.copy(), values, 3))])
    assert both.values().tolist() == [3, 6]


def test_trial_ranks_count_the_items_at_least_as_good_for_each_weight() -> None:
    rng = np.random.default_rng(3)
    scores, floor = rng.integers(0, 4, (3, 700, 11)).astype(np.float32), np.zeros((700, 11), np.float32)
    floor[:, 9:] = -np.inf  # shorter lists
    counts = rng.integers(0, 3, 700)
    indptr, columns = np.concatenate([[0], np.cumsum(counts)]), rng.integers(0, 9, counts.sum())
    weights, trials = np.array([1, 3, 0.5], np.float32), np.array([0, 0.5, 2], np.float32)
    ranks, rows = trial_ranks(scores, floor, weights, 1, trials, indptr, columns), np.repeat(np.arange(700), counts)
    for weight, got in zip(trials, ranks, strict=True):
        mixed = floor + scores[0] + weight * scores[1] + np.float32(0.5) * scores[2]
        own = mixed[rows, columns]
        assert got.tolist() == ((mixed[rows] >= own[:, None]).sum(axis=1) - 1).tolist()
