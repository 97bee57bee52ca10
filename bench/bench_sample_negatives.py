"""sample_negatives beside rejection in Python and in NumPy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from mllmrec_bench.peers import Case, sample_negatives
from mllmrec_kernels import CSR


def test_generated(compare: Callable[[Case], None], shop: CSR) -> None:
    users = np.random.default_rng(0).choice(shop.rows(), min(100_000, shop.nnz))
    compare(sample_negatives(shop, users, data="generated"))
