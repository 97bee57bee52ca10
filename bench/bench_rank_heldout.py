"""rank_heldout beside chunked torch and implicit."""

from __future__ import annotations

from collections.abc import Callable

from mllmrec_bench import interactions
from mllmrec_bench.peers import Case, rank_heldout
from mllmrec_bench.timing import usable_cores
from mllmrec_kernels import CSR


def test_generated(compare: Callable[[Case], None], shop: CSR) -> None:
    users, items = interactions.towers(*shop.shape, 64)
    compare(rank_heldout(users, items, *interactions.held_out(shop), 50, threads=usable_cores(), data="generated"))
