"""rank_heldout beside chunked torch and implicit."""

from __future__ import annotations

from collections.abc import Callable

from mllmrec_kernels import CSR

from mllmrec.measure import interactions
from mllmrec.measure.peers import Case, rank_heldout
from mllmrec.measure.timing import usable_cores


def test_generated(compare: Callable[[Case], None], shop: CSR) -> None:
    users, items = interactions.towers(*shop.shape, 64)
    compare(rank_heldout(users, items, *interactions.held_out(shop), 50, threads=usable_cores(), data="generated"))
