"""topk_dot beside chunked torch and implicit."""

from __future__ import annotations

from collections.abc import Callable

from mllmrec_bench import interactions
from mllmrec_bench.peers import Case, topk_dot
from mllmrec_bench.timing import usable_cores
from mllmrec_kernels import CSR


def test_generated(compare: Callable[[Case], None], shop: CSR) -> None:
    users, items = interactions.towers(*shop.shape, 64)
    exclude, _ = interactions.held_out(shop)
    compare(topk_dot(users, items, exclude, 50, threads=usable_cores(), data="generated"))
