"""Count the items ahead of held-out ones by half-precision products, and list those that a product cannot decide.

A program owns BM held-out items, with the rows of their users, and passes over the tiles of BN items. A number P of a
tile becomes its distance from the held-out item's score in units of the error bound,

    g = slope P + offset,   slope <= 1 / error,   offset = -slope score:   ahead if g > 1, undecided if |g| <= 1

So a number costs a multiply-add for g; one that saturates and an addition, to count g > 1; and a minimum of |g|, to
find whether a number of several is undecided. For that one a bit is set. Another kernel then lists the bits: there a
wait for the atomic that gives the place in a list does not hold up any product.
"""

from __future__ import annotations

import triton
import triton.language as tl

from mllmrec_kernels.exact.gpu_lists import INTERPRETED, append_marked, mark_within
from mllmrec_kernels.exact.gpu_score import product


@triton.jit
def above_one(gap: tl.tensor) -> tl.tensor:
    """Return 1.0 where gap > 1, else 0.0, NaN included: gap 2^24 - 2^24, one rounding, cut to [0, 1]."""
    if INTERPRETED:
        ahead = tl.where(gap > 1.0, 1.0, 0.0)
    else:
        ahead = tl.inline_asm_elementwise(
            "fma.rn.sat.f32 $0, $1, 0f4B800000, 0fCB800000;", "=f,f", [gap], dtype=tl.float32, is_pure=True, pack=1
        )
    return ahead


@triton.jit
def held_product(
    first: tl.tensor, second: tl.tensor, y_first: tl.tensor, y_second: tl.tensor, columns: tl.tensor,
    TWO: tl.constexpr, D: tl.constexpr,
) -> tl.tensor:  # fmt: skip
    """Return the product of rows that a program holds with rows `columns` of y, small parts first; float32 [BM, BN].

    y has less than 2^31 numbers, so that places are int32: registers are few.
    """
    at = columns[:, None] * D + tl.arange(0, D)[None, :]
    right = tl.trans(tl.load(y_first + at))
    if TWO:
        products = tl.dot(first, tl.trans(tl.load(y_second + at)))
        products = tl.dot(second, right, products)
        products = tl.dot(first, right, products)
    else:
        products = tl.dot(first, right)
    return products


@triton.jit
def count_ahead(
    x_first: tl.tensor, x_second: tl.tensor, y_first: tl.tensor, y_second: tl.tensor, slopes: tl.tensor,
    offsets: tl.tensor, ahead: tl.tensor, bits: tl.tensor, n_heldout: tl.tensor, n_tiles: tl.tensor, part: tl.tensor,
    quads: tl.tensor, HELD: tl.constexpr, TWO: tl.constexpr, D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
    BK: tl.constexpr,
) -> None:  # fmt: skip
    """Add to ahead[h] the items surely ahead of held-out item h, and set the bits of the undecided ones.

    x float16 [n_heldout, D], rows of their users; y float16 [n_tiles BN, D]; slopes, offsets float32, ahead int32
    [n_heldout]; bits int32 [n_heldout, 4 quads]. A program takes `part` tiles.
    """
    h = tl.program_id(0) * BM + tl.arange(0, BM)
    live = h < n_heldout
    slope = tl.load(slopes + h, mask=live, other=0.0)
    offset = tl.load(offsets + h, mask=live, other=float("-inf"))
    rows = tl.minimum(h, n_heldout - 1)
    if HELD:
        own = rows.to(tl.int64)[:, None] * D + tl.arange(0, D)[None, :]
        first = tl.load(x_first + own)
        second = tl.load(x_second + own) if TWO else first
    total = tl.zeros([BM], tl.int32)
    start = tl.program_id(1) * part
    for tile in range(start, tl.minimum(start + part, n_tiles)):
        columns = tile * BN + tl.arange(0, BN)
        if HELD:
            products = held_product(first, second, y_first, y_second, columns, TWO, D)
        else:
            products = product(x_first, y_first, rows, columns, D, BM, BN, BK)
        gap = products * slope[:, None] + offset[:, None]
        total += tl.sum(above_one(gap), axis=1).to(tl.int32)
        mark_within(bits, gap, h[:, None], columns[None, :], 4 * quads)
    tl.atomic_add(ahead + h, total, mask=live, sem="relaxed")


@triton.jit
def list_marked(
    bits: tl.tensor, near: tl.tensor, lists: tl.tensor, quads: tl.tensor, first_item: tl.tensor, capacity: tl.tensor,
    B: tl.constexpr,
) -> None:  # fmt: skip
    """Append to list h = program_id(0) the items whose bits are set, counting on in near[h] where the list is full.

    bits int32 [., 4 quads], the items from first_item on; near int32 [.]; lists int32 [., capacity].
    """
    h = tl.program_id(0)
    row = bits + h.to(tl.int64) * quads * 4
    for start in range(0, quads * 4, B):
        word = start + tl.arange(0, B)
        marked = tl.load(row + word, mask=word < quads * 4, other=0)
        append_marked(lists, near, marked, h, first_item + 32 * word, capacity)
