"""Queues on the device: the pairs of a tile that may go to a list, one queue a thread, without atomics.

A pair that goes to a list itself waits for the slot that an atomic of the whole device gives it, about as long as a
tile takes. A thread's queue is its own: a cursor in its nearest cache. Another kernel takes the pairs to the lists.

One number in thousands is queued, so the cost that counts is that of a number that is not: PTX takes PACK of them at
once, three integer instructions each (an addition and two additions with maxima), and one branch over the rest. The
interpreter, which runs no PTX, has a single queue and an atomic cursor.
"""

from __future__ import annotations

import triton
import triton.language as tl

from mllmrec_kernels.base import backend

INTERPRETED = tl.constexpr(backend.triton_interprets())
PACK = 16  # numbers that one branch is for: of one thread
ENTRY = tl.constexpr(4)  # int32 of a queued pair: row, column, product, and one unused, for a store of 16 bytes

_ARGUMENTS = ("value", "low_row", "low_column", "loss_row", "loss_column", "row", "column", "limit", "queue")
_KINDS = "rrrrrrrrl"  # of their registers, a letter each: r int32, l int64
_CHAINS = 4  # of maxima, so that one need not wait for another
_START = """{
.reg .pred any, hit, full;
.reg .s32 slot, next, thread, threads, excess, other, top0, top1, top2, top3;
.reg .s64 cursor, region, at;"""
# Not negative if the pair may go to the list of its row or of its column.
_EXCESS = """add.s32 excess, {low_row}, {loss_column};
add.s32 other, {low_column}, {loss_row};
max.s32 excess, excess, other;
add.s32 excess, excess, {value};"""
_OPEN = """mov.u32 slot, %ntid.x;
mov.u32 threads, %ctaid.x;
mov.u32 thread, %tid.x;
mad.lo.s32 thread, threads, slot, thread;
mov.u32 threads, %nctaid.x;
mul.lo.s32 threads, threads, slot;
mad.wide.s32 cursor, thread, 4, {queue};
mad.wide.s32 region, threads, 4, {queue};
shl.b32 slot, {limit}, 4;
mad.wide.s32 region, thread, slot, region;"""
_ENTRY = """setp.ge.s32 hit, excess, 0;
@!hit bra {next};
ld.global.s32 slot, [cursor];
add.s32 next, slot, 1;
st.global.s32 [cursor], next;
setp.ge.s32 full, slot, {limit};
@full bra {next};
mad.wide.s32 at, slot, 16, region;
st.global.v4.b32 [at], {{{row}, {column}, {value}, next}};
{next}:"""


def _text() -> str:
    """Return the instructions; Triton numbers PACK results first, then PACK registers of each argument."""
    operands = [{name: f"${PACK * (1 + m) + n}" for m, name in enumerate(_ARGUMENTS)} for n in range(PACK)]
    lines = [_START]
    for n, operand in enumerate(operands):
        top = f"top{n % _CHAINS}"
        lines += [_EXCESS.format(**operand), f"max.s32 {top}, {top if n >= _CHAINS else 'excess'}, excess;"]
    lines += [f"max.s32 top0, top0, top{n};" for n in range(1, _CHAINS)]
    lines += ["setp.ge.s32 any, top0, 0;", "@!any bra DONE;", _OPEN.format(**operands[0])]
    for n, operand in enumerate(operands):
        lines += [_EXCESS.format(**operand), _ENTRY.format(next=f"NEXT{n}", **operand)]
    return "\n".join([*lines, "DONE:", *(f"mov.b32 ${n}, 0;" for n in range(PACK)), "}"])


_TEXT = tl.constexpr(_text())
_REGISTERS = tl.constexpr(",".join(["=r"] * PACK + [kind for kind in _KINDS for _ in range(PACK)]))
TOGETHER = tl.constexpr(PACK)


@triton.jit
def enqueue(
    queue: tl.tensor, tile: tl.tensor, low_row: tl.tensor, low_column: tl.tensor, loss_row: tl.tensor,
    loss_column: tl.tensor, row: tl.tensor, column: tl.tensor, limit: tl.tensor,
) -> None:  # fmt: skip
    """Queue each pair whose product + low_row + loss_column, or product + low_column + loss_row, is not negative.

    A full queue takes no more, and its cursor goes on.

    queue: pointer to int32, a cursor for each thread of the launch, then `limit` entries of ENTRY for each; tile int32
    [M, N]; low_row, loss_row, row int32 [M, 1]; low_column, loss_column, column int32 [1, N]. Sums must fit int32.
    """
    if INTERPRETED:
        hit = tl.maximum(low_row + loss_column, low_column + loss_row) + tile >= 0
        base = queue + tl.zeros_like(tile)
        slot = tl.atomic_add(base, 1, mask=hit, sem="relaxed")
        at = base + 1 + slot * ENTRY
        hit = hit & (slot < limit)
        tl.store(at, row + tl.zeros_like(slot), mask=hit)
        tl.store(at + 1, column + tl.zeros_like(slot), mask=hit)
        tl.store(at + 2, tile, mask=hit)
    else:
        tl.inline_asm_elementwise(
            _TEXT, _REGISTERS,
            [tile, low_row, low_column, loss_row, loss_column, row, column, limit, queue.to(tl.int64)],
            dtype=tl.int32, is_pure=False, pack=TOGETHER,
        )  # fmt: skip


def threads_of(programs: int, warps: int) -> int:
    """Return the number of queues that a launch has."""
    return 1 if INTERPRETED.value else programs * warps * 32
