"""Interaction matrices and graphs that the sparse ops are tested and timed on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain

import numpy as np
from mllmrec_kernels.base.csr import CSR


@dataclass(frozen=True)
class Interactions:
    """A user x item case by name; `user_items` makes the matrix, `k` the neighbours asked for."""

    name: str
    make: Callable[[], CSR]
    k: int = 3

    def times(self) -> np.ndarray:
        """A day for each entry, int64 (nnz,)."""
        return np.random.default_rng(1).integers(0, 30, self.make().nnz)


def from_rows(rows: list[list[int]], n_items: int) -> CSR:
    users = np.repeat(np.arange(len(rows)), [len(r) for r in rows])
    return CSR.from_pairs(users, np.array([*chain(*rows)], dtype=np.int64), (len(rows), n_items))


def random_interactions(n_users: int, n_items: int, mean: float, seed: int = 0) -> CSR:
    """Popular items (Zipf), users of uneven activity, some of each with no entry at all."""
    rng = np.random.default_rng(seed)
    weight = 1.0 / np.arange(1, n_items + 1) ** 0.8
    n = int(n_users * mean)
    users = rng.zipf(1.6, n) % n_users
    items = rng.permutation(n_items)[rng.choice(n_items, n, p=weight / weight.sum())]
    return CSR.from_pairs(users, items, (n_users, n_items))


INTERACTIONS = [
    Interactions("no entries", lambda: from_rows([[], [], []], 4)),
    Interactions("no users", lambda: from_rows([], 4)),
    Interactions("no items", lambda: from_rows([[], []], 0)),
    Interactions("one user, one item", lambda: from_rows([[0]], 1)),
    Interactions("one user", lambda: from_rows([[0, 2, 3, 4]], 5)),
    Interactions("empty rows and unseen items", lambda: from_rows([[], [1, 3], [], [3, 5, 6], []], 8)),
    Interactions("identical audiences", lambda: from_rows([[0, 1, 4], [0, 1, 4], [2, 3], [2]], 5)),
    Interactions("single-user items", lambda: from_rows([[0, 1, 2], [3], [4, 5], [5, 6]], 7)),
    # Items 1..6 all stand 1/2 to item 0, by different fractions: 1/2, 2/4, 3/6.
    Interactions("ties of equal ratios", lambda: from_rows(
        [[0, 1, 2, 3, 4, 5, 6], [0, 2, 4, 6], [0, 3, 6, 5], [0, 5], [4, 6], [6], [3]], 7), k=4),
    Interactions("every pair ties", lambda: from_rows([list(range(9))] * 3, 9), k=4),
    Interactions("k = n", lambda: random_interactions(30, 11, 3), k=11),
    Interactions("k > n", lambda: random_interactions(30, 7, 3), k=13),
    Interactions("k = 1", lambda: random_interactions(50, 23, 4), k=1),
    Interactions("heavy user", lambda: from_rows([list(range(97)), [0, 5], [5, 96], [3, 4, 5]], 97), k=5),
    Interactions("prime", lambda: random_interactions(101, 53, 5, seed=3), k=7),
    Interactions("odd", lambda: random_interactions(333, 129, 6, seed=4), k=10),
    Interactions("larger", lambda: random_interactions(2001, 507, 8, seed=5), k=10),
]  # fmt: skip


@dataclass(frozen=True)
class Graph:
    """A square graph case and the width of its features."""

    name: str
    make: Callable[[], CSR]
    width: int

    def features(self, dtype: type = np.float32) -> np.ndarray:
        rng = np.random.default_rng(7)
        return rng.standard_normal((self.make().n_rows, self.width)).astype(dtype)


def random_graph(n: int, degree: int, *, binary: bool = False, seed: int = 0) -> CSR:
    """A directed graph of positive weights; every seventh row is empty."""
    rng = np.random.default_rng(seed)
    rows = np.repeat(np.arange(n), degree)
    rows = rows[rows % 7 != 3]
    pattern = CSR.from_pairs(rows, rng.integers(0, n, len(rows)), (n, n))
    if binary:
        return pattern
    weights = rng.uniform(0.1, 2, pattern.nnz).astype(np.float32)
    return CSR(pattern.indptr, pattern.indices, weights, n)


def zero_sum_graph() -> CSR:
    """Row 1 stores entries that are all 0: its sum is 0 though it is not empty."""
    indptr, indices = np.array([0, 2, 4, 5]), np.array([0, 1, 0, 2, 1], np.int32)
    return CSR(indptr, indices, np.array([1, 2, 0, 0, 3], np.float32), 3)


GRAPHS = [
    Graph("no rows", lambda: random_graph(0, 0), 5),
    Graph("one row", lambda: from_rows([[0]], 1), 1),
    Graph("one row, no entry", lambda: from_rows([[]], 1), 3),
    Graph("no entries", lambda: random_graph(5, 0), 4),
    Graph("no features", lambda: random_graph(9, 2), 0),
    Graph("zero row sums", zero_sum_graph, 3),
    Graph("binary", lambda: random_graph(31, 4, binary=True), 16),
    Graph("prime", lambda: random_graph(53, 5), 37),
    Graph("odd", lambda: random_graph(129, 9), 65),
    Graph("block and a bit", lambda: random_graph(257, 12), 129),
    Graph("embedding width", lambda: random_graph(300, 20), 384),
]


def ids(cases: list[Interactions] | list[Graph]) -> list[str]:
    """Names for pytest.mark.parametrize."""
    return [case.name for case in cases]
